// Package authority holds what an authority consists of: keys, and the certificates that issuers have for them. It is
// pure; where they are stored is not its business.
//
// A key may have several issuers, and an issuer need not have its key here: then it can be part of a chain, but signs
// nothing.
package authority

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"conclave"
	"conclave/engine/pki/issuing"
)

// What issuers are for.
const (
	UsageReadOnly = "read-only"
	UsageIssue    = "issuing-certificates"
	UsageCRL      = "crl-signing"
	UsageOCSP     = "ocsp-signing"
)

// Usages are all that an issuer can be for.
func Usages() []string { return []string{UsageReadOnly, UsageIssue, UsageCRL, UsageOCSP} }

var errFormat = conclave.Errorf(conclave.Internal, "a stored key or issuer can't be read")

// Key is a private key, stored as JSON.
type Key struct {
	ID    string `json:"id"`
	Name  string `json:"name,omitempty"`
	Type  string `json:"type"`
	PKCS8 []byte `json:"pkcs8"`

	Signer crypto.Signer `json:"-"`
}

// NewKey makes the record of a key.
func NewKey(id, name, kind string, signer crypto.Signer) (*Key, error) {
	der, err := x509.MarshalPKCS8PrivateKey(signer)
	if err != nil {
		return nil, conclave.Errorf(conclave.Invalid, "the key is of a kind that can't be stored")
	}
	return &Key{ID: id, Name: name, Type: kind, PKCS8: der, Signer: signer}, nil
}

// DecodeKey reads a stored key.
func DecodeKey(value []byte) (*Key, error) {
	key := &Key{}
	if err := json.Unmarshal(value, key); err != nil {
		return nil, errFormat
	}
	parsed, err := x509.ParsePKCS8PrivateKey(key.PKCS8)
	signer, ok := parsed.(crypto.Signer)
	if err != nil || !ok {
		return nil, errFormat
	}
	key.Signer = signer
	return key, nil
}

// URLs are where certificates say that more about their issuer is found. With Templating they may hold {{issuer_id}},
// {{cluster_path}} and {{cluster_aia_path}}.
type URLs struct {
	Issuing    []string `json:"issuing_certificates"`
	CRL        []string `json:"crl_distribution_points"`
	DeltaCRL   []string `json:"delta_crl_distribution_points"`
	OCSP       []string `json:"ocsp_servers"`
	Templating bool     `json:"enable_templating"`
}

// IsEmpty reports whether there are no URLs.
func (u *URLs) IsEmpty() bool {
	return u == nil || len(u.Issuing)+len(u.CRL)+len(u.DeltaCRL)+len(u.OCSP) == 0
}

// Issuer is an authority's certificate with how it is used, stored as JSON.
type Issuer struct {
	ID          string   `json:"id"`
	Name        string   `json:"name,omitempty"`
	KeyID       string   `json:"key_id,omitempty"`
	Certificate []byte   `json:"certificate"` // DER
	Chain       []string `json:"chain"`       // ids of issuers: itself, then those above it
	ManualChain []string `json:"manual_chain,omitempty"`
	Behavior    string   `json:"leaf_not_after_behavior"`
	Usage       []string `json:"usage"`
	// Algorithm signs revocation lists and OCSP responses, by its name in crypto/x509; empty goes by the key.
	Algorithm string `json:"revocation_signature_algorithm,omitempty"`
	RevokedAt int64  `json:"revoked_at,omitempty"` // Unix seconds; 0 is never
	URLs      *URLs  `json:"urls,omitempty"`       // instead of the mount's

	Cert *x509.Certificate `json:"-"`
	PEM  string            `json:"-"` // of the certificate, without a newline at its end
}

// DecodeIssuer reads a stored issuer.
func DecodeIssuer(value []byte) (*Issuer, error) {
	issuer := &Issuer{}
	if err := json.Unmarshal(value, issuer); err != nil {
		return nil, errFormat
	}
	cert, err := x509.ParseCertificate(issuer.Certificate)
	if err != nil {
		return nil, errFormat
	}
	issuer.Cert, issuer.PEM = cert, issuing.CertificatePEM(cert)
	return issuer, nil
}

// MayDo reports whether the issuer is for a use.
func (i *Issuer) MayDo(usage string) bool { return slices.Contains(i.Usage, usage) }

// Clone is a copy that can be changed.
func (i *Issuer) Clone() *Issuer {
	copied := *i
	copied.Chain, copied.ManualChain, copied.Usage = slices.Clone(i.Chain), slices.Clone(i.ManualChain), slices.Clone(i.Usage)
	if i.URLs != nil {
		urls := *i.URLs
		copied.URLs = &urls
	}
	return &copied
}

// Authority names whoever signs with this certificate's name and key. Issuers that have both in common share one
// revocation list, for verifiers can't tell them apart.
func (i *Issuer) Authority() string { return NameOf(i.Cert) }

// NameOf is the authority that a certificate is of: a hash of its subject and public key.
func NameOf(cert *x509.Certificate) string {
	sum := sha256.New()
	sum.Write(cert.RawSubject)
	sum.Write(cert.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum.Sum(nil)[:16])
}

// HasSigned reports whether the issuer's name and key are those that a certificate is signed with.
func (i *Issuer) HasSigned(cert *x509.Certificate) bool {
	return string(cert.RawIssuer) == string(i.Cert.RawSubject) && i.Cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature) == nil
}

// IsSelfSigned reports whether a certificate is its own issuer's.
func IsSelfSigned(cert *x509.Certificate) bool {
	return string(cert.RawIssuer) == string(cert.RawSubject) && cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature) == nil
}

// mayHaveSigned looks at key identifiers, which saves the checking of many signatures among issuers of one name.
func mayHaveSigned(parent, child *x509.Certificate) bool {
	return len(parent.SubjectKeyId) == 0 || len(child.AuthorityKeyId) == 0 || string(parent.SubjectKeyId) == string(child.AuthorityKeyId)
}

// Link sets the chain of each issuer: itself, then its manual chain, or all issuers above it, nearest first. It returns
// those whose chain has changed, which are copies.
func Link(issuers []*Issuer) []*Issuer {
	above := map[string][]*Issuer{}
	for _, child := range issuers {
		if IsSelfSigned(child.Cert) {
			continue
		}
		for _, parent := range issuers {
			if parent.ID != child.ID && mayHaveSigned(parent.Cert, child.Cert) && parent.HasSigned(child.Cert) {
				above[child.ID] = append(above[child.ID], parent)
			}
		}
	}
	var changed []*Issuer
	for _, issuer := range issuers {
		chain := []string{issuer.ID}
		for _, id := range issuer.ManualChain {
			if !slices.Contains(chain, id) {
				chain = append(chain, id)
			}
		}
		if len(issuer.ManualChain) == 0 {
			for next := 0; next < len(chain); next++ {
				for _, parent := range above[chain[next]] {
					if !slices.Contains(chain, parent.ID) {
						chain = append(chain, parent.ID)
					}
				}
			}
		}
		if !slices.Equal(chain, issuer.Chain) {
			copied := issuer.Clone()
			copied.Chain = chain
			changed = append(changed, copied)
		}
	}
	return changed
}

// IsOver reports whether the certificate has ended, judged by a clock that says whether it has reached a time.
func (i *Issuer) IsOver(reached func(time.Time) bool) bool { return reached(i.Cert.NotAfter) }

// Fill puts values into the templates of URLs. One that lacks its value is an error.
func (u *URLs) Fill(issuerID, clusterPath, aiaPath string) (*URLs, error) {
	if u == nil || !u.Templating {
		return u, nil
	}
	filled := &URLs{}
	for list, into := range map[*[]string]*[]string{&u.Issuing: &filled.Issuing, &u.CRL: &filled.CRL, &u.DeltaCRL: &filled.DeltaCRL, &u.OCSP: &filled.OCSP} {
		for _, at := range *list {
			for name, value := range map[string]string{"{{issuer_id}}": issuerID, "{{cluster_path}}": clusterPath, "{{cluster_aia_path}}": aiaPath} {
				if value == "" && strings.Contains(at, name) {
					return nil, conclave.Errorf(conclave.Invalid, "an AIA URL needs %s: set it at config/cluster", name)
				}
				at = strings.ReplaceAll(at, name, value)
			}
			*into = append(*into, at)
		}
	}
	return filled, nil
}
