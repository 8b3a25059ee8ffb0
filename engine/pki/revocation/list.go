package revocation

import (
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"conclave"
)

var oidDelta = asn1.ObjectIdentifier{2, 5, 29, 27}

// List is what a revocation list is made of.
type List struct {
	Edition   Edition
	Expiry    time.Duration
	Sheets    []*Sheet
	IsDelta   bool
	Extra     []pkix.Extension
	Algorithm x509.SignatureAlgorithm // 0 goes by the key
}

// Sign makes the list in DER. The key's signatures should be steady, so that all nodes make the same list. A delta has the
// entries after its base (RFC 5280, 5.2.4).
//
// crypto/x509 makes the list without entries, and so everything but them; they are put in as they are kept, in DER.
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
	empty, err := x509.CreateRevocationList(nil, template, issuer, key)
	if err != nil {
		return nil, conclave.Errorf(conclave.Invalid, "the issuer can't sign revocation lists: %s", err.Error())
	}
	entries := l.entries()
	if len(entries) == 0 {
		return empty, nil
	}
	parsed, err := x509.ParseRevocationList(empty)
	if err != nil {
		return nil, err
	}
	return fill(empty, entries, parsed.SignatureAlgorithm, key)
}

// entries are those of the list, in DER.
func (l *List) entries() []byte {
	size := 0
	for _, s := range l.Sheets {
		size += len(s.der)
	}
	der := make([]byte, 0, size)
	for _, s := range l.Sheets {
		if !l.IsDelta {
			der = append(der, s.der...)
			continue
		}
		for _, e := range s.Entries {
			if e.At > l.Edition.Base {
				der = e.appendDER(der)
			}
		}
	}
	return der
}

// fill puts entries into a list without any and signs it anew. Of TBSCertList the entries come last but for the extensions,
// which there are always (RFC 5280, 5.1).
func fill(empty, entries []byte, algorithm x509.SignatureAlgorithm, key crypto.Signer) ([]byte, error) {
	whole := cryptobyte.String(empty)
	var list, tbs, name cryptobyte.String
	if !whole.ReadASN1(&list, cbasn1.SEQUENCE) || !list.ReadASN1(&tbs, cbasn1.SEQUENCE) || !list.ReadASN1Element(&name, cbasn1.SEQUENCE) {
		return nil, errFormat
	}
	b := cryptobyte.NewBuilder(make([]byte, 0, len(empty)+len(entries)+64))
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for !tbs.Empty() {
			var element cryptobyte.String
			var tag cbasn1.Tag
			if !tbs.ReadAnyASN1Element(&element, &tag) {
				b.SetError(errFormat)
				return
			}
			if tag == cbasn1.Tag(0).ContextSpecific().Constructed() {
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddBytes(entries) })
			}
			b.AddBytes(element)
		}
	})
	signed, err := b.Bytes()
	if err != nil {
		return nil, err
	}
	signature, err := sign(signed, algorithm, key)
	if err != nil {
		return nil, err
	}
	b = cryptobyte.NewBuilder(make([]byte, 0, len(signed)+len(signature)+64))
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(signed)
		b.AddBytes(name)
		b.AddASN1BitString(signature)
	})
	return b.Bytes()
}

// hashes are those of signature algorithms; Ed25519 has none.
var hashes = map[x509.SignatureAlgorithm]crypto.Hash{
	x509.SHA256WithRSA: crypto.SHA256, x509.SHA384WithRSA: crypto.SHA384, x509.SHA512WithRSA: crypto.SHA512,
	x509.SHA256WithRSAPSS: crypto.SHA256, x509.SHA384WithRSAPSS: crypto.SHA384, x509.SHA512WithRSAPSS: crypto.SHA512,
	x509.ECDSAWithSHA256: crypto.SHA256, x509.ECDSAWithSHA384: crypto.SHA384, x509.ECDSAWithSHA512: crypto.SHA512,
	x509.PureEd25519: 0,
}

func sign(message []byte, algorithm x509.SignatureAlgorithm, key crypto.Signer) ([]byte, error) {
	hash, known := hashes[algorithm]
	switch {
	case !known:
		return nil, conclave.Errorf(conclave.Invalid, "the issuer's key signs in an unknown way")
	case hash == 0:
		return key.Sign(nil, message, crypto.Hash(0))
	}
	h := hash.New()
	h.Write(message)
	var how crypto.SignerOpts = hash
	switch algorithm {
	case x509.SHA256WithRSAPSS, x509.SHA384WithRSAPSS, x509.SHA512WithRSAPSS:
		how = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: hash}
	}
	return key.Sign(nil, h.Sum(nil), how)
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
