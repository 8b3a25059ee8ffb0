package revocation

import (
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"time"

	"conclave"
)

var oidDelta = asn1.ObjectIdentifier{2, 5, 29, 27}

// List is what a revocation list is made of.
type List struct {
	Edition   Edition
	Expiry    time.Duration
	Segments  []Segment
	IsDelta   bool
	Extra     []pkix.Extension
	Algorithm x509.SignatureAlgorithm // 0 goes by the key
}

// Sign makes the list in DER. The key's signatures should be steady, so that all nodes make the same list. A delta has the
// entries after its base (RFC 5280, 5.2.4).
func (l *List) Sign(issuer *x509.Certificate, key crypto.Signer) ([]byte, error) {
	at := time.Unix(0, l.Edition.Number).UTC()
	template := &x509.RevocationList{Number: big.NewInt(l.Edition.Number), ThisUpdate: at, NextUpdate: at.Add(l.Expiry),
		ExtraExtensions: l.Extra, SignatureAlgorithm: l.Algorithm}
	if l.IsDelta {
		base, err := asn1.Marshal(big.NewInt(l.Edition.Base))
		if err != nil {
			return nil, err
		}
		template.ExtraExtensions = append(template.ExtraExtensions, pkix.Extension{Id: oidDelta, Critical: true, Value: base})
	}
	for _, segment := range l.Segments {
		for _, e := range segment {
			if l.IsDelta && e.At <= l.Edition.Base {
				continue
			}
			template.RevokedCertificateEntries = append(template.RevokedCertificateEntries, x509.RevocationListEntry{
				SerialNumber: new(big.Int).SetBytes(e.Serial), RevocationTime: time.Unix(0, e.At).UTC(), ReasonCode: e.Reason})
		}
	}
	der, err := x509.CreateRevocationList(nil, template, issuer, key)
	if err != nil {
		return nil, conclave.Errorf(conclave.Invalid, "the issuer can't sign revocation lists: %s", err.Error())
	}
	return der, nil
}

// publicKeyBits are the bits of a public key, without its algorithm.
func publicKeyBits(info []byte) ([]byte, error) {
	var parsed struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(info, &parsed); err != nil {
		return nil, errFormat
	}
	return parsed.Key.RightAlign(), nil
}
