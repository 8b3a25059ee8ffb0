package revocation

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"io"
	"math/big"
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
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
	if _, isEd25519 := key.Public().(ed25519.PublicKey); isEd25519 {
		return signEd25519(issuer, template, key)
	}
	der, err := ocsp.CreateResponse(issuer, issuer, template, key)
	if err != nil {
		return nil, conclave.Errorf(conclave.Invalid, "the issuer can't sign OCSP responses: %s", err.Error())
	}
	return der, nil
}

// stranger stands in for a key that x/crypto/ocsp doesn't know, to have it make all of a response but the signature.
type stranger struct{ public ecdsa.PublicKey }

func (s *stranger) Public() crypto.PublicKey { return &s.public }

func (s *stranger) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) { return nil, nil }

// signEd25519 signs a response with a key of RFC 8410.
//
//	OCSPResponse ::= SEQUENCE { ENUMERATED, [0] { SEQUENCE { OID, OCTET STRING { BasicOCSPResponse } } } }
//	BasicOCSPResponse ::= SEQUENCE { tbsResponseData, AlgorithmIdentifier, BIT STRING }
func signEd25519(issuer *x509.Certificate, template ocsp.Response, key crypto.Signer) ([]byte, error) {
	template.SignatureAlgorithm = 0
	made, err := ocsp.CreateResponse(issuer, issuer, template, &stranger{ecdsa.PublicKey{Curve: elliptic.P256()}})
	if err != nil {
		return nil, err
	}
	der := cryptobyte.String(made)
	context := cbasn1.Tag(0).ContextSpecific().Constructed()
	var response, bytes, inner, octets, basic, tbs cryptobyte.String
	var status int
	var kind asn1.ObjectIdentifier
	if !der.ReadASN1(&response, cbasn1.SEQUENCE) || !response.ReadASN1Enum(&status) || !response.ReadASN1(&bytes, context) || !bytes.ReadASN1(&inner, cbasn1.SEQUENCE) ||
		!inner.ReadASN1ObjectIdentifier(&kind) || !inner.ReadASN1(&octets, cbasn1.OCTET_STRING) || !octets.ReadASN1(&basic, cbasn1.SEQUENCE) || !basic.ReadASN1Element(&tbs, cbasn1.SEQUENCE) {
		return nil, errFormat
	}
	signature, err := key.Sign(nil, tbs, crypto.Hash(0))
	if err != nil {
		return nil, err
	}
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Enum(int64(status))
		b.AddASN1(context, func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(kind)
				b.AddASN1(cbasn1.OCTET_STRING, func(b *cryptobyte.Builder) {
					b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
						b.AddBytes(tbs)
						b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oidEd25519) })
						b.AddASN1BitString(signature)
					})
				})
			})
		})
	})
	return b.Bytes()
}

var oidEd25519 = asn1.ObjectIdentifier{1, 3, 101, 112}

// Responses without a signature (RFC 6960, 4.2.1).
func Malformed() []byte { return ocsp.MalformedRequestErrorResponse }

// Unauthorized is the answer about certificates of others.
func Unauthorized() []byte { return ocsp.UnauthorizedErrorResponse }
