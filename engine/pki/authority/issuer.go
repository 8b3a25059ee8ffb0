package authority

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"conclave"
	"conclave/engine/pki/issuing"
	"conclave/engine/pki/stored"
)

func issuerRoutes() []conclave.Route {
	return []conclave.Route{
		conclave.ReadRoute(conclave.List, "issuers", "List the issuers.", listIssuers).With(conclave.Public),
		conclave.ReadRoute(conclave.Read, "issuer/{issuer_ref}", "Read an issuer.", readIssuer),
		conclave.WriteRoute(conclave.Update, "issuer/{issuer_ref}", "Write how an issuer is used; what isn't given is as for a new one.", writeIssuer),
		conclave.WriteRoute(conclave.Patch, "issuer/{issuer_ref}", "Change some of how an issuer is used.", patchIssuer),
		conclave.WriteRoute(conclave.Delete, "issuer/{issuer_ref}", "Remove an issuer. Its key and its certificates stay.", deleteIssuer),
		conclave.ReadRoute(conclave.Read, "issuer/{issuer_ref}/json", "Read an issuer's certificate and chain.", issuerJSON).With(conclave.Public),
		conclave.ReadRoute(conclave.Read, "issuer/{issuer_ref}/pem", "Get an issuer's certificate, PEM.", issuerPEM).With(conclave.Public),
		conclave.ReadRoute(conclave.Read, "issuer/{issuer_ref}/der", "Get an issuer's certificate, DER.", issuerDER).With(conclave.Public),
	}
}

func listIssuers(_ context.Context, view conclave.View, in *listIn) (*conclave.Keys, error) {
	list, err := Issuers(view)
	if err != nil {
		return nil, err
	}
	config, err := stored.LoadOr(view, "config/issuers", issuersConfig{})
	if err != nil {
		return nil, err
	}
	keys := &conclave.Keys{KeyInfo: map[string]any{}}
	for _, issuer := range list {
		if issuer.ID <= in.After || in.Limit > 0 && len(keys.Keys) == in.Limit {
			continue
		}
		keys.Keys = append(keys.Keys, issuer.ID)
		keys.KeyInfo[issuer.ID] = map[string]any{"issuer_name": issuer.Name, "is_default": issuer.ID == config.Default, "key_id": issuer.KeyID,
			"serial_number": stored.SerialText(stored.SerialName(issuer.Cert.SerialNumber))}
	}
	return keys, nil
}

// Shown is how clients see an issuer.
type Shown struct {
	ID             string   `json:"issuer_id" doc:"Id."`
	Name           string   `json:"issuer_name" doc:"Name; empty if it has none."`
	KeyID          string   `json:"key_id" doc:"Id of its private key; empty if it isn't here."`
	Certificate    string   `json:"certificate" doc:"Certificate, PEM."`
	ManualChain    []string `json:"manual_chain" doc:"Ids of the issuers that were set as its chain; null if it is found by itself."`
	Chain          []string `json:"ca_chain" doc:"Its certificate and those above it, PEM."`
	Behavior       string   `json:"leaf_not_after_behavior" doc:"What happens to certificates that would outlive it: err, truncate or permit."`
	Usage          string   `json:"usage" doc:"What it is for."`
	Algorithm      string   `json:"revocation_signature_algorithm" doc:"How it signs revocation lists; empty goes by its key."`
	Revoked        bool     `json:"revoked" doc:"Whether it is revoked."`
	RevocationTime int64    `json:"revocation_time,omitempty" doc:"When it was revoked, Unix seconds."`
	RevocationText string   `json:"revocation_time_rfc3339,omitempty" doc:"When it was revoked, RFC 3339."`
	Issuing        []string `json:"issuing_certificates" doc:"URLs of its certificate; none are the mount's."`
	CRL            []string `json:"crl_distribution_points" doc:"URLs of its revocation list."`
	DeltaCRL       []string `json:"delta_crl_distribution_points" doc:"URLs of its delta revocation list."`
	OCSP           []string `json:"ocsp_servers" doc:"URLs of its OCSP responder."`
	Templating     bool     `json:"enable_aia_url_templating" doc:"Whether the URLs have templates."`
}

// Show is an issuer as clients see it.
func Show(view conclave.View, issuer *Issuer) (*Shown, error) {
	chain, err := ChainOf(view, issuer)
	if err != nil {
		return nil, err
	}
	urls := showURLs(&URLs{})
	if issuer.URLs != nil {
		urls = showURLs(issuer.URLs)
	}
	out := &Shown{ID: issuer.ID, Name: issuer.Name, KeyID: issuer.KeyID, Certificate: issuing.CertificatePEM(issuer.Cert) + "\n", ManualChain: issuer.ManualChain,
		Behavior: issuer.Behavior, Usage: strings.Join(issuer.Usage, ","), Algorithm: issuer.Algorithm, Revoked: issuer.RevokedAt != 0, RevocationTime: issuer.RevokedAt,
		Issuing: urls.Issuing, CRL: urls.CRL, DeltaCRL: urls.DeltaCRL, OCSP: urls.OCSP, Templating: urls.Templating}
	for _, cert := range chain {
		out.Chain = append(out.Chain, issuing.CertificatePEM(cert)+"\n")
	}
	if out.Revoked {
		out.RevocationText = time.Unix(issuer.RevokedAt, 0).UTC().Format(time.RFC3339)
	}
	return out, nil
}

// ChainOf are the certificates of an issuer's chain, its own first.
func ChainOf(view conclave.View, issuer *Issuer) ([]*x509.Certificate, error) {
	var chain []*x509.Certificate
	for _, id := range issuer.Chain {
		link, err := LoadIssuer(view, id)
		if err != nil {
			return nil, err
		}
		if link != nil {
			chain = append(chain, link.Cert)
		}
	}
	return chain, nil
}

// There is Find for paths that name an issuer: none is NotFound.
func There(view conclave.View, ref string) (*Issuer, error) {
	issuer, err := Find(view, ref)
	if conclave.Is(err, conclave.Invalid) {
		return nil, conclave.Errorf(conclave.NotFound, "%s", err.Error())
	}
	return issuer, err
}

func readIssuer(_ context.Context, view conclave.View, in *Param) (*Shown, error) {
	issuer, err := There(view, in.Issuer)
	if err != nil {
		return nil, err
	}
	return Show(view, issuer)
}

type issuerJSONOut struct {
	Certificate string   `json:"certificate" doc:"Certificate, PEM."`
	Chain       []string `json:"ca_chain" doc:"Its certificate and those above it, PEM."`
	ID          string   `json:"issuer_id" doc:"Id."`
	Name        string   `json:"issuer_name" doc:"Name; empty if it has none."`
}

func issuerJSON(_ context.Context, view conclave.View, in *Param) (*issuerJSONOut, error) {
	issuer, err := There(view, in.Issuer)
	if err != nil {
		return nil, err
	}
	shown, err := Show(view, issuer)
	if err != nil {
		return nil, err
	}
	return &issuerJSONOut{shown.Certificate, shown.Chain, shown.ID, shown.Name}, nil
}

// Content types of raw answers.
const (
	TypeCert = "application/pkix-cert"
	TypePEM  = "application/pem-certificate-chain"
	TypeCRL  = "application/pkix-crl"
)

func issuerPEM(_ context.Context, view conclave.View, in *Param) (*conclave.Response, error) {
	issuer, err := There(view, in.Issuer)
	if err != nil {
		return nil, err
	}
	return Raw(TypePEM, []byte(issuing.CertificatePEM(issuer.Cert)+"\n")), nil
}

func issuerDER(_ context.Context, view conclave.View, in *Param) (*conclave.Response, error) {
	issuer, err := There(view, in.Issuer)
	if err != nil {
		return nil, err
	}
	return Raw(TypeCert, issuer.Cert.Raw), nil
}

type issuerIn struct {
	Issuer      string    `path:"issuer_ref" doc:"Id or name of the issuer, or default."`
	Name        *string   `json:"issuer_name" doc:"Name."`
	Behavior    *string   `json:"leaf_not_after_behavior" doc:"What happens to certificates that would outlive it: err, truncate or permit."`
	ManualChain *[]string `json:"manual_chain" doc:"Issuers above this one, nearest first; none to have them found."`
	Usage       *[]string `json:"usage" doc:"What it is for: read-only, issuing-certificates, crl-signing, ocsp-signing."`
	Algorithm   *string   `json:"revocation_signature_algorithm" doc:"How it signs revocation lists, by a name such as SHA256WithRSA; empty goes by its key."`
	Issuing     *[]string `json:"issuing_certificates" doc:"URLs of its certificate; none are the mount's."`
	CRL         *[]string `json:"crl_distribution_points" doc:"URLs of its revocation list."`
	DeltaCRL    *[]string `json:"delta_crl_distribution_points" doc:"URLs of its delta revocation list."`
	OCSP        *[]string `json:"ocsp_servers" doc:"URLs of its OCSP responder."`
	Templating  *bool     `json:"enable_aia_url_templating" doc:"Whether the URLs have templates."`
}

func writeIssuer(_ context.Context, tx conclave.Tx, in *issuerIn) (*Shown, error) {
	issuer, err := There(tx, in.Issuer)
	if err != nil {
		return nil, err
	}
	changed := issuer.Clone()
	changed.Behavior, changed.ManualChain, changed.Usage, changed.Algorithm, changed.URLs = issuing.BehaviorErr, nil, Usages(), "", nil
	return changeIssuer(tx, changed, in)
}

func patchIssuer(_ context.Context, tx conclave.Tx, in *issuerIn) (*Shown, error) {
	issuer, err := There(tx, in.Issuer)
	if err != nil {
		return nil, err
	}
	return changeIssuer(tx, issuer.Clone(), in)
}

func changeIssuer(tx conclave.Tx, issuer *Issuer, in *issuerIn) (*Shown, error) {
	if in.Name != nil && *in.Name != issuer.Name {
		if err := rename(tx, "issuername/", issuer.Name, *in.Name, issuer.ID); err != nil {
			return nil, err
		}
		issuer.Name = *in.Name
	}
	if in.Behavior != nil {
		issuer.Behavior = *in.Behavior
	}
	if !slices.Contains([]string{issuing.BehaviorErr, issuing.BehaviorTruncate, issuing.BehaviorPermit}, issuer.Behavior) {
		return nil, conclave.Errorf(conclave.Invalid, "leaf_not_after_behavior must be err, truncate or permit")
	}
	if in.Usage != nil {
		usage, err := checkUsage(issuer.Cert, *in.Usage)
		if err != nil {
			return nil, err
		}
		issuer.Usage = usage
	}
	if in.Algorithm != nil {
		algorithm, err := AlgorithmOf(issuer.Cert, *in.Algorithm)
		if err != nil {
			return nil, err
		}
		issuer.Algorithm = algorithmNames[algorithm]
	}
	if in.ManualChain != nil {
		if err := setChain(tx, issuer, *in.ManualChain); err != nil {
			return nil, err
		}
	}
	urls := URLs{}
	if issuer.URLs != nil {
		urls = *issuer.URLs
	}
	given := urlsIn{in.Issuing, in.CRL, in.DeltaCRL, in.OCSP, in.Templating}
	if err := given.merge(&urls); err != nil {
		return nil, err
	}
	issuer.URLs = &urls
	issuer, err := settleOne(tx, issuer)
	if err != nil {
		return nil, err
	}
	return Show(tx, issuer)
}

func setChain(tx conclave.Tx, issuer *Issuer, refs []string) error {
	if len(refs) > maxIssuers {
		return conclave.Errorf(conclave.Invalid, "a chain has at most %d issuers", maxIssuers)
	}
	issuer.ManualChain = nil
	for i, ref := range refs {
		if ref == "self" {
			ref = issuer.ID
		}
		above, err := Find(tx, ref)
		if err != nil {
			return err
		}
		if i == 0 && above.ID != issuer.ID {
			return conclave.Errorf(conclave.Invalid, "a manual chain begins with the issuer itself")
		}
		issuer.ManualChain = append(issuer.ManualChain, above.ID)
	}
	return nil
}

func checkUsage(cert *x509.Certificate, list []string) ([]string, error) {
	usage := []string{UsageReadOnly}
	for _, use := range list {
		if !slices.Contains(Usages(), use) {
			return nil, conclave.Errorf(conclave.Invalid, "unknown usage %q", use)
		}
		if use == UsageCRL && !canSignCRLs(cert) {
			return nil, conclave.Errorf(conclave.Invalid, "the issuer's certificate doesn't let it sign revocation lists: its key usage lacks CRLSign")
		}
		if !slices.Contains(usage, use) {
			usage = append(usage, use)
		}
	}
	return usage, nil
}

func canSignCRLs(cert *x509.Certificate) bool {
	return cert.KeyUsage == 0 || cert.KeyUsage&x509.KeyUsageCRLSign != 0
}

// AlgorithmOf is a signature algorithm by its name, which must be one of the certificate's key.
func AlgorithmOf(cert *x509.Certificate, name string) (x509.SignatureAlgorithm, error) {
	if name == "" {
		return 0, nil
	}
	for _, bits := range []int{256, 384, 512} {
		for _, pss := range []bool{false, true} {
			algorithm, err := issuing.SignatureAlgorithm(cert.PublicKey, bits, pss)
			if err == nil && (algorithm.String() == name || strings.EqualFold(algorithmNames[algorithm], name)) {
				return algorithm, nil
			}
		}
	}
	return 0, conclave.Errorf(conclave.Invalid, "unknown signature algorithm, or not one for the issuer's key: %q", name)
}

// algorithmNames are the names of constants of crypto/x509, which clients use.
var algorithmNames = map[x509.SignatureAlgorithm]string{
	x509.SHA256WithRSA: "SHA256WithRSA", x509.SHA384WithRSA: "SHA384WithRSA", x509.SHA512WithRSA: "SHA512WithRSA",
	x509.SHA256WithRSAPSS: "SHA256WithRSAPSS", x509.SHA384WithRSAPSS: "SHA384WithRSAPSS", x509.SHA512WithRSAPSS: "SHA512WithRSAPSS",
	x509.ECDSAWithSHA256: "ECDSAWithSHA256", x509.ECDSAWithSHA384: "ECDSAWithSHA384", x509.ECDSAWithSHA512: "ECDSAWithSHA512",
	x509.PureEd25519: "PureEd25519",
}

// rename moves a name in an index of names. An empty one is none.
func rename(tx conclave.Tx, dir, from, to, id string) error {
	if to != "" {
		if err := stored.CheckName(to); err != nil || to == DefaultRef || isID(to) {
			return conclave.Errorf(conclave.Invalid, "the name must not be default, and consist of letters, digits, underscores, hyphens and dots")
		}
		other, err := tx.Get(dir + to)
		if err != nil {
			return err
		}
		if other != nil && string(other) != id {
			return conclave.Errorf(conclave.Invalid, "the name is in use already")
		}
		if err := tx.Put(dir+to, []byte(id)); err != nil {
			return err
		}
	}
	if from == "" || from == to {
		return nil
	}
	return tx.Delete(dir + from)
}

// addIssuer stores a new issuer, with the key that its certificate is for if that is here. Chains and defaults are left to
// settle.
func addIssuer(tx conclave.Tx, id, name string, cert *x509.Certificate) (*Issuer, error) {
	ids, err := tx.List("issuer/", "", maxIssuers)
	if err != nil {
		return nil, err
	}
	if len(ids) >= maxIssuers {
		return nil, conclave.Errorf(conclave.Invalid, "there are %d issuers already", maxIssuers)
	}
	if err := rename(tx, "issuername/", "", name, id); err != nil {
		return nil, err
	}
	issuer := &Issuer{ID: id, Name: name, Certificate: cert.Raw, Cert: cert, Chain: []string{id}, Behavior: issuing.BehaviorErr, Usage: Usages()}
	if !canSignCRLs(cert) {
		issuer.Usage = slices.DeleteFunc(issuer.Usage, func(use string) bool { return use == UsageCRL })
	}
	if issuer.RevokedAt, err = revokedAt(tx, cert); err != nil {
		return nil, err
	}
	there, err := keys(tx)
	if err != nil {
		return nil, err
	}
	for _, key := range there {
		if IsSameKey(key.Signer.Public(), cert.PublicKey) {
			issuer.KeyID = key.ID
		}
	}
	return issuer, stored.Put(tx, "issuer/"+id, issuer)
}

// revokedAt is when a certificate was revoked as one of the mount's, in Unix seconds; 0 is never. An issuer that was revoked,
// removed and comes back stays revoked.
func revokedAt(view conclave.View, cert *x509.Certificate) (int64, error) {
	serial := stored.SerialName(cert.SerialNumber)
	kept, err := stored.LoadCert(view, serial)
	if conclave.Is(err, conclave.NotFound) || err == nil && !bytes.Equal(kept.DER, cert.Raw) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	value, err := view.Get(stored.RevokedPath(serial))
	if err != nil || value == nil {
		return 0, err
	}
	var record struct {
		At int64 `json:"at"` // Unix nanoseconds
	}
	if json.Unmarshal(value, &record) != nil || record.At == 0 {
		return 0, stored.ErrFormat
	}
	return time.Unix(0, record.At).Unix(), nil
}

// settleOne stores an issuer, and what follows from it, and returns it as it is then.
func settleOne(tx conclave.Tx, issuer *Issuer) (*Issuer, error) {
	if err := stored.Put(tx, "issuer/"+issuer.ID, issuer); err != nil {
		return nil, err
	}
	if err := settle(tx, []string{issuer.ID}); err != nil {
		return nil, err
	}
	return LoadIssuer(tx, issuer.ID)
}

// settle links the chains anew after issuers have come or gone, and finds a default issuer if new ones ask for that.
func settle(tx conclave.Tx, added []string) error {
	list, err := Issuers(tx)
	if err != nil {
		return err
	}
	for _, changed := range Link(list) {
		if err := stored.Put(tx, "issuer/"+changed.ID, changed); err != nil {
			return err
		}
	}
	config, err := stored.LoadOr(tx, "config/issuers", issuersConfig{})
	if err != nil {
		return err
	}
	chosen := *config
	for _, issuer := range list {
		if slices.Contains(added, issuer.ID) && issuer.KeyID != "" && (chosen.Default == "" || config.Follows) {
			chosen.Default = issuer.ID
		}
	}
	if chosen == *config {
		return nil
	}
	return stored.Put(tx, "config/issuers", chosen)
}

func deleteIssuer(_ context.Context, tx conclave.Tx, in *Param) (*conclave.Response, error) {
	issuer, err := Find(tx, in.Issuer)
	if conclave.Is(err, conclave.Invalid) {
		return &conclave.Response{}, nil
	}
	if err != nil {
		return nil, err
	}
	if err := remove(tx, issuer); err != nil {
		return nil, err
	}
	resp := &conclave.Response{}
	config, err := stored.LoadOr(tx, "config/issuers", issuersConfig{})
	if err != nil {
		return nil, err
	}
	if config.Default == issuer.ID {
		resp.Warnings = append(resp.Warnings, "Deleted issuer was the default issuer; no default is set now: see config/issuers")
		if err := stored.Put(tx, "config/issuers", issuersConfig{Follows: config.Follows}); err != nil {
			return nil, err
		}
	}
	return resp, settle(tx, nil)
}

// TidyIssuers removes issuers that have ended before a time, but not the default one. Their keys stay.
func TidyIssuers(tx conclave.Tx, before time.Time) (removed int, err error) {
	list, err := Issuers(tx)
	if err != nil {
		return 0, err
	}
	config, err := stored.LoadOr(tx, "config/issuers", issuersConfig{})
	if err != nil {
		return 0, err
	}
	for _, issuer := range list {
		if issuer.ID == config.Default || !issuer.Cert.NotAfter.Before(before) {
			continue
		}
		if err := remove(tx, issuer); err != nil {
			return 0, err
		}
		removed++
	}
	if removed == 0 {
		return 0, nil
	}
	return removed, settle(tx, nil)
}

// remove takes an issuer and its name away.
func remove(tx conclave.Tx, issuer *Issuer) error {
	if issuer.Name != "" {
		if err := tx.Delete("issuername/" + issuer.Name); err != nil {
			return err
		}
	}
	return tx.Delete("issuer/" + issuer.ID)
}
