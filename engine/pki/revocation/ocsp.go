package revocation

import (
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"math/big"
	"strings"
	"time"

	"golang.org/x/crypto/ocsp"

	"conclave"
)

// MaxRequest bounds an OCSP request, in bytes.
const MaxRequest = 2048

var errRequest = conclave.Errorf(conclave.Invalid, "the OCSP request can't be read")

// Question is what an OCSP request asks.
type Question struct{ request *ocsp.Request }

// ParseQuestion reads a request in DER (RFC 6960, 4.1.1). Of several questions only the first is answered.
func ParseQuestion(der []byte) (*Question, error) {
	if len(der) == 0 || len(der) > MaxRequest {
		return nil, errRequest
	}
	request, err := ocsp.ParseRequest(der)
	if err != nil || request.SerialNumber == nil || request.SerialNumber.Sign() <= 0 || request.SerialNumber.BitLen() > 8*maxSerial || !request.HashAlgorithm.Available() {
		return nil, errRequest
	}
	return &Question{request}, nil
}

// DecodeQuestion reads a request as a URL has it: base64, in either alphabet (RFC 6960, A.1).
func DecodeQuestion(text string) (*Question, error) {
	if len(text) > 2*MaxRequest {
		return nil, errRequest
	}
	text = strings.NewReplacer("-", "+", "_", "/", " ", "+").Replace(strings.TrimRight(text, "="))
	der, err := base64.RawStdEncoding.DecodeString(text)
	if err != nil {
		return nil, errRequest
	}
	return ParseQuestion(der)
}

// Serial is the number of the certificate that is asked about.
func (q *Question) Serial() *big.Int { return q.request.SerialNumber }

// IsAbout reports whether the certificate that is asked about is one of this issuer.
func (q *Question) IsAbout(issuer *x509.Certificate) bool {
	name, key, err := Hashes(issuer, q.request.HashAlgorithm)
	return err == nil && string(name) == string(q.request.IssuerNameHash) && string(key) == string(q.request.IssuerKeyHash)
}

// Hashes are those of an issuer's name and key (RFC 6960, 4.1.1).
func Hashes(issuer *x509.Certificate, with crypto.Hash) (name, key []byte, err error) {
	bits, err := publicKeyBits(issuer.RawSubjectPublicKeyInfo)
	if err != nil || !with.Available() {
		return nil, nil, errRequest
	}
	hash := with.New()
	hash.Write(issuer.RawSubject)
	name = hash.Sum(nil)
	hash.Reset()
	hash.Write(bits)
	return name, hash.Sum(nil), nil
}

// Answer is what an OCSP response says.
type Answer struct {
	Revoked   *Entry // nil: the certificate is good, or not known
	Now       time.Time
	Expiry    time.Duration // 0: there is newer information at any time
	Algorithm x509.SignatureAlgorithm
}

// Sign makes the response in DER.
func (a *Answer) Sign(q *Question, issuer *x509.Certificate, key crypto.Signer) ([]byte, error) {
	now := a.Now.UTC().Truncate(time.Second)
	template := ocsp.Response{Status: ocsp.Good, SerialNumber: q.Serial(), ThisUpdate: now, ProducedAt: now,
		IssuerHash: q.request.HashAlgorithm, SignatureAlgorithm: a.Algorithm}
	if a.Expiry > 0 {
		template.NextUpdate = now.Add(a.Expiry)
	}
	if a.Revoked != nil {
		template.Status, template.RevokedAt, template.RevocationReason = ocsp.Revoked, time.Unix(0, a.Revoked.At).UTC(), a.Revoked.Reason
	}
	der, err := ocsp.CreateResponse(issuer, issuer, template, key)
	if err != nil {
		return nil, conclave.Errorf(conclave.Invalid, "the issuer can't sign OCSP responses: %s", err.Error())
	}
	return der, nil
}

// Responses without a signature (RFC 6960, 4.2.1).
func Malformed() []byte { return ocsp.MalformedRequestErrorResponse }

// Unauthorized is the answer about certificates of others.
func Unauthorized() []byte { return ocsp.UnauthorizedErrorResponse }
