package revocation

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"math/big"
	"slices"
	"strconv"
	"time"

	"conclave"
	"conclave/engine/pki/authority"
	"conclave/engine/pki/issuing"
	"conclave/engine/pki/stored"
)

const (
	revokeDoc = `Revoke a certificate, named by its serial number, or given as it is if it isn't kept here.
It is on the revocation list, and answered as revoked by OCSP, once this is answered.`
	revokeWithKeyDoc = `Revoke a certificate, as whoever has its private key.`
	revokeIssuerDoc  = `Revoke an issuer: it signs no certificates any more.
It is on the revocation list of the issuer above it, if that is here.`
)

// Routes are those of revoking, of revocation lists and of OCSP.
func Routes() []conclave.Route {
	revoke := conclave.WriteRoute(conclave.Update, "revoke", revokeDoc, revokeCert)
	revoke.Prepare = prepareRevoke
	withKey := conclave.WriteRoute(conclave.Update, "revoke-with-key", revokeWithKeyDoc, revokeWithKey)
	withKey.Prepare = prepareRevoke
	return slices.Concat(crlRoutes(), ocspRoutes(), []conclave.Route{revoke, withKey,
		conclave.WriteRoute(conclave.Update, "issuer/{issuer_ref}/revoke", revokeIssuerDoc, revokeIssuer),
		conclave.ReadRoute(conclave.Read, "config/crl", "Read how revocation is published.", readCRLConfig),
		conclave.WriteRoute(conclave.Update, "config/crl", "Set how revocation is published.", writeCRLConfig),
	})
}

// Record is what is known of a revoked certificate, stored as JSON.
type Record struct {
	Authority string `json:"authority"`
	At        int64  `json:"at"`      // Unix nanoseconds
	Expires   int64  `json:"expires"` // Unix seconds
}

type revokeIn struct {
	Serial      string `json:"serial_number" doc:"Serial number, in hexadecimal with colons or hyphens."`
	Certificate string `json:"certificate" doc:"The certificate, PEM, instead of its serial number."`
}

type revokeWithKeyIn struct {
	revokeIn
	PrivateKey conclave.Secret `json:"private_key" doc:"The certificate's private key, PEM."`
}

// prepareRevoke reads the certificate and the key that are given.
func prepareRevoke(_ context.Context, _ *conclave.Request, in any) (any, error) {
	m, err := issuing.NewMaterials()
	if err != nil {
		return nil, err
	}
	var from *revokeIn
	switch in := in.(type) {
	case *revokeIn:
		from = in
	case *revokeWithKeyIn:
		from = &in.revokeIn
		var none []*x509.Certificate
		if none, m.Keys, err = issuing.ParseBundle(in.PrivateKey.Reveal()); err != nil || len(none) != 0 || len(m.Keys) != 1 {
			return nil, conclave.Errorf(conclave.Invalid, "one private key in PEM is wanted")
		}
	}
	switch {
	case (from.Serial == "") == (from.Certificate == ""):
		return nil, conclave.Errorf(conclave.Invalid, "the serial number, or the certificate itself, must be given, and not both")
	case from.Certificate != "":
		m.Certs, err = authority.ParseOne(from.Certificate)
	}
	return m, err
}

// Lookup is what is known of a certificate that is revoked, nil if it isn't.
func Lookup(view conclave.View, serial string) (*Record, error) {
	return stored.Load(view, stored.RevokedPath(serial), stored.DecodeJSON[Record])
}

type revokeOut struct {
	RevocationTime int64  `json:"revocation_time"`
	RevocationText string `json:"revocation_time_rfc3339"`
	State          string `json:"state"`
}

func revokeCert(ctx context.Context, tx conclave.Tx, in *revokeIn) (*conclave.Response, error) {
	return revokeGiven(ctx, tx, in, nil)
}

func revokeWithKey(ctx context.Context, tx conclave.Tx, in *revokeWithKeyIn) (*conclave.Response, error) {
	m, err := issuing.Prepared(ctx)
	if err != nil {
		return nil, err
	}
	return revokeGiven(ctx, tx, &in.revokeIn, m.Keys[0])
}

func revokeGiven(ctx context.Context, tx conclave.Tx, in *revokeIn, holds crypto.Signer) (*conclave.Response, error) {
	m, err := issuing.Prepared(ctx)
	if err != nil {
		return nil, err
	}
	var cert *x509.Certificate
	var of string
	if len(m.Certs) > 0 {
		cert = m.Certs[0]
		of, err = ours(tx, cert)
	} else {
		cert, of, err = keptCert(tx, in.Serial)
	}
	switch {
	case err != nil:
		return nil, err
	case holds != nil && !authority.IsSameKey(cert.PublicKey, holds.Public()):
		return nil, conclave.Errorf(conclave.Invalid, "the private key is not the certificate's")
	case tx.Reached(cert.NotAfter):
		return &conclave.Response{Warnings: []string{"certificate " + stored.SerialText(stored.SerialName(cert.SerialNumber)) + " already expired; refusing to add to CRL"}}, nil
	}
	if err := refuseIssuer(tx, cert); err != nil {
		return nil, err
	}
	done, err := revoke(tx, cert, of)
	if err != nil {
		return nil, err
	}
	at := time.Unix(0, done.At).UTC()
	return &conclave.Response{Data: &revokeOut{at.Unix(), at.Format(time.RFC3339Nano), "revoked"}}, nil
}

// refuseIssuer has issuers be revoked by their own route, which knows what follows from it.
func refuseIssuer(view conclave.View, cert *x509.Certificate) error {
	list, err := authority.Issuers(view)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(list, func(issuer *authority.Issuer) bool { return issuer.Cert.Equal(cert) }) {
		return conclave.Errorf(conclave.Invalid, "the certificate is an issuer's: revoke it at issuer/:issuer_ref/revoke")
	}
	return nil
}

// keptCert is a certificate that is kept here, with its authority.
func keptCert(view conclave.View, text string) (*x509.Certificate, string, error) {
	serial, err := stored.ParseSerial(text)
	if err != nil {
		return nil, "", err
	}
	kept, err := stored.LoadCert(view, serial)
	if conclave.Is(err, conclave.NotFound) {
		err = conclave.Errorf(conclave.Invalid, "certificate with serial %s not found", stored.SerialText(serial))
	}
	if err != nil {
		return nil, "", err
	}
	cert, err := x509.ParseCertificate(kept.DER)
	if err != nil {
		return nil, "", stored.ErrFormat
	}
	return cert, kept.Authority, nil
}

// ours is the authority that has signed a certificate, which must be one of the mount's that can publish that it is
// revoked.
func ours(view conclave.View, cert *x509.Certificate) (string, error) {
	list, err := authority.Issuers(view)
	if err != nil {
		return "", err
	}
	for _, issuer := range list {
		if issuer.KeyID != "" && issuer.HasSigned(cert) {
			return issuer.Authority(), nil
		}
	}
	return "", conclave.Errorf(conclave.Invalid, "unable to verify signature on presented cert from any present issuer in this mount; certificates from previous CAs will need to have their issuing CA and key re-imported if revocation is necessary")
}

// register is what an authority has revoked; an empty one if it has revoked nothing.
func register(view conclave.View, of string) (*Head, error) {
	head, err := stored.Load(view, "register/"+of+"/head", DecodeHead)
	if err == nil && head == nil {
		head = &Head{}
	}
	return head, err
}

func sheetPath(of string, n uint64) string {
	return "register/" + of + "/" + strconv.FormatUint(n, 10)
}

func loadSheet(view conclave.View, of string, n uint64) (*Sheet, error) {
	return stored.Load(view, sheetPath(of, n), DecodeSheet)
}

// checkSerial refuses a certificate that can't be told by its serial number. Those that are issued here can; authorities
// that were imported may have numbered theirs themselves: too long, from zero, or as another authority of the mount did.
func checkSerial(view conclave.View, cert *x509.Certificate, of string, known *Record) error {
	if n := len(cert.SerialNumber.Bytes()); n == 0 || n > maxSerial {
		return conclave.Errorf(conclave.Invalid, "a certificate can be revoked whose serial number is positive and has at most %d bytes", maxSerial)
	}
	serial := stored.SerialName(cert.SerialNumber)
	isOthers := known != nil && known.Authority != of
	kept, err := stored.LoadCert(view, serial)
	switch {
	case conclave.Is(err, conclave.NotFound):
	case err != nil:
		return err
	default:
		isOthers = isOthers || kept.Authority != of
	}
	if isOthers {
		return conclave.Errorf(conclave.Invalid, "the mount has a certificate of another authority with the serial number %s: this one is not revoked, have a mount of its own for its authority", stored.SerialText(serial))
	}
	return nil
}

// revoke writes a certificate into its authority's register, and keeps it. One that is revoked already stays as it is.
func revoke(tx conclave.Tx, cert *x509.Certificate, of string) (*Record, error) {
	serial := stored.SerialName(cert.SerialNumber)
	there, err := Lookup(tx, serial)
	if err != nil {
		return nil, err
	}
	if err := checkSerial(tx, cert, of, there); err != nil {
		return nil, err
	}
	if there != nil {
		return there, nil
	}
	config, err := crlConfig(tx)
	if err != nil {
		return nil, err
	}
	old, err := register(tx, of)
	if err != nil {
		return nil, err
	}
	if old.Count >= config.Limit() {
		return nil, conclave.Errorf(conclave.Limited, "the revocation list has its most entries, %d: tidy it, or raise max_crl_entries", config.Limit())
	}
	head := *old
	config.Rebase(&head, tx.Now())
	head.Changed = old.Touch(tx.Now(), config)
	head.Count++
	entry := Entry{Serial: cert.SerialNumber.Bytes(), At: head.Changed, Expires: cert.NotAfter.Unix()}
	if err := appendEntry(tx, of, &head, entry); err != nil {
		return nil, err
	}
	if err := stored.Put(tx, "register/"+of+"/head", &head); err != nil {
		return nil, err
	}
	if kept, err := tx.Get(stored.CertPath(serial)); err != nil {
		return nil, err
	} else if kept == nil {
		if err := stored.Keep(tx, cert, of); err != nil {
			return nil, err
		}
	}
	gone := &Record{Authority: of, At: entry.At, Expires: entry.Expires}
	if err := stored.Put(tx, stored.RevokedPath(serial), gone); err != nil {
		return nil, err
	}
	text := stored.SerialText(serial)
	return gone, tx.Emit(conclave.Event{Type: "pki/revoke", Path: "cert/" + text, Metadata: map[string]string{"operation": "revoke", "serial_number": text, "modified": "true"}})
}

// appendEntry adds to the newest sheet, or begins another.
func appendEntry(tx conclave.Tx, of string, head *Head, entry Entry) error {
	var sheet *Sheet
	if head.Next > head.First {
		var err error
		if sheet, err = loadSheet(tx, of, head.Next-1); err != nil {
			return err
		}
	}
	if head.Next == head.First || sheet != nil && len(sheet.Entries) >= SheetSize {
		sheet = nil
		head.Next++
	}
	return tx.Put(sheetPath(of, head.Next-1), sheet.With(entry).Encode())
}

func revokeIssuer(_ context.Context, tx conclave.Tx, in *authority.Param) (*authority.Shown, error) {
	issuer, err := authority.There(tx, in.Issuer)
	if err != nil {
		return nil, err
	}
	if issuer.RevokedAt != 0 {
		return authority.Show(tx, issuer)
	}
	changed := issuer.Clone()
	changed.RevokedAt = tx.Now().Unix()
	if err := stored.Put(tx, "issuer/"+changed.ID, changed); err != nil {
		return nil, err
	}
	if !authority.IsSelfSigned(issuer.Cert) {
		if of, err := ours(tx, issuer.Cert); err == nil {
			if _, err := revoke(tx, issuer.Cert, of); err != nil {
				return nil, err
			}
		} else if !conclave.Is(err, conclave.Invalid) {
			return nil, err
		}
	}
	return authority.Show(tx, changed)
}

// Leased is what a lease remembers of its certificate.
type Leased struct {
	Serial string `json:"serial"`
}

// ForgetLease revokes the certificate, unless it has ended or is gone.
func ForgetLease(tx conclave.Tx, lease *conclave.GrantedLease) error {
	var of Leased
	if err := json.Unmarshal(lease.Data, &of); err != nil {
		return stored.ErrFormat
	}
	number, err := hex.DecodeString(of.Serial)
	if err != nil || len(number) == 0 {
		return stored.ErrFormat
	}
	kept, err := stored.LoadCert(tx, stored.SerialName(new(big.Int).SetBytes(number)))
	if conclave.Is(err, conclave.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	cert, err := x509.ParseCertificate(kept.DER)
	if err != nil {
		return stored.ErrFormat
	}
	if tx.Reached(cert.NotAfter) {
		return nil
	}
	_, err = revoke(tx, cert, kept.Authority)
	return err
}
