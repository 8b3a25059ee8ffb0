package keys

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"conclave"
)

// Scheme is how a signature is made, beside the key.
type Scheme struct {
	hash      crypto.Hash // 0: the input is signed as it is
	prehashed bool
	pkcs1     bool // RSA: PKCS #1 v1.5 instead of PSS (RFC 8017)
	jws       bool // ECDSA: r ‖ s instead of DER; and all is in URL-safe base64
	salt      int  // PSS: its bytes, or one of the constants of crypto/rsa
}

// NewScheme takes the names that clients use; empty ones are the defaults. salt is as ParseSalt gives it.
func NewScheme(hash, padding, marshaling string, prehashed bool, salt int) (*Scheme, error) {
	if hash == "" {
		hash = DefaultHash
	}
	s := &Scheme{prehashed: prehashed, salt: salt, pkcs1: padding == "pkcs1v15", jws: marshaling == "jws"}
	var known bool
	switch s.hash, known = hashes[hash]; {
	case !known:
		return nil, conclave.Errorf(conclave.Invalid, "invalid hash algorithm %q", hash)
	case padding != "" && padding != "pss" && !s.pkcs1:
		return nil, conclave.Errorf(conclave.Invalid, "unsupported rsa signature algorithm %q", padding)
	case marshaling != "" && marshaling != "asn1" && !s.jws:
		return nil, conclave.Errorf(conclave.Invalid, "invalid marshaling type %q", marshaling)
	case s.hash == 0 && !(prehashed && s.pkcs1):
		return nil, conclave.Errorf(conclave.Invalid, "hash_algorithm=none requires both prehashed=true and signature_algorithm=pkcs1v15")
	}
	return s, nil
}

// The salts of PSS that aren't a number of bytes.
const (
	SaltAuto = rsa.PSSSaltLengthAuto       // as long as possible; whatever it is when verifying
	SaltHash = rsa.PSSSaltLengthEqualsHash // as long as the hash
)

// digest is what is signed for input: Ed25519 hashes by itself.
func (s *Scheme) digest(kind Type, input []byte) ([]byte, error) {
	switch {
	case kind == Ed25519:
		return input, nil
	case !s.prehashed:
		return Digest(s.hash, input), nil
	case kind.isRSA() && s.hash != 0 && len(input) != s.hash.Size():
		return nil, conclave.Errorf(conclave.Invalid, "the prehashed input has %d bytes, its hash %d", len(input), s.hash.Size())
	}
	return input, nil
}

func (s *Scheme) encoding() *base64.Encoding {
	if s.jws {
		return base64.RawURLEncoding
	}
	return base64.StdEncoding
}

// Signature is what signing gives.
type Signature struct {
	Text    string            // "vault:v1:base64(signature)"
	Version int               // that signed
	Derived ed25519.PublicKey // of a derived key, else nil
}

// Sign signs input with a version, 0 for the latest. context is for derived keys, and ignored by others.
func (k *Key) Sign(number int, s *Scheme, context, input []byte) (*Signature, error) {
	if !k.Type.Signs() {
		return nil, conclave.Errorf(conclave.Invalid, "key type %s does not support signing", k.Type)
	}
	v, number, err := k.newest(number, "signing")
	if err != nil {
		return nil, err
	}
	if !v.HasPrivate() {
		return nil, conclave.Errorf(conclave.Invalid, "requested version for signing does not contain a private part")
	}
	digest, err := s.digest(k.Type, input)
	if err != nil {
		return nil, err
	}
	m, err := v.parsed()
	if err != nil {
		return nil, err
	}
	signature := &Signature{Version: number}
	var raw []byte
	switch {
	case k.Type == Ed25519:
		private, _ := m.private.(ed25519.PrivateKey)
		if k.Derived {
			if private, err = v.deriveSigner(context); err != nil {
				return nil, err
			}
			signature.Derived, _ = private.Public().(ed25519.PublicKey)
		}
		raw = ed25519.Sign(private, digest)
	case m.ecdsa != nil:
		raw, err = s.signECDSA(m.ecdsa, digest)
	default:
		raw, err = s.signRSA(m.rsa, digest)
	}
	if err != nil {
		return nil, err
	}
	signature.Text = string(s.encoding().AppendEncode(mark(nil, number), raw))
	return signature, nil
}

func (s *Scheme) signECDSA(key *ecdsa.PrivateKey, digest []byte) ([]byte, error) {
	raw, err := ecdsa.SignASN1(rand.Reader, key, digest)
	if err != nil {
		return nil, conclave.Errorf(conclave.Internal, "sign: %w", err)
	}
	if !s.jws {
		return raw, nil
	}
	r, t, ok := splitDER(raw)
	if !ok {
		return nil, conclave.Errorf(conclave.Internal, "a signature that was just made can't be read")
	}
	size := scalarBytes(&key.PublicKey)
	pair := make([]byte, 2*size)
	r.FillBytes(pair[:size])
	t.FillBytes(pair[size:])
	return pair, nil
}

// scalarBytes is the length of r and of s in the form of JWS (RFC 7518, section 3.4).
func scalarBytes(key *ecdsa.PublicKey) int { return (key.Curve.Params().BitSize + 7) / 8 }

// splitDER reads SEQUENCE { r INTEGER, s INTEGER } (RFC 3279, section 2.2.3).
func splitDER(der []byte) (r, s *big.Int, ok bool) {
	r, s = new(big.Int), new(big.Int)
	input := cryptobyte.String(der)
	var pair cryptobyte.String
	ok = input.ReadASN1(&pair, asn1.SEQUENCE) && input.Empty() && pair.ReadASN1Integer(r) && pair.ReadASN1Integer(s) && pair.Empty() &&
		r.Sign() > 0 && s.Sign() > 0
	return r, s, ok
}

func (s *Scheme) signRSA(key *rsa.PrivateKey, digest []byte) (raw []byte, err error) {
	if s.pkcs1 {
		raw, err = rsa.SignPKCS1v15(nil, key, s.hash, digest)
		if err != nil {
			return nil, conclave.Errorf(conclave.Invalid, "the input can't be signed so: it is too long for the key")
		}
		return raw, nil
	}
	if err := s.checkSalt(&key.PublicKey); err != nil {
		return nil, err
	}
	if raw, err = rsa.SignPSS(rand.Reader, key, s.hash, digest, &rsa.PSSOptions{SaltLength: s.salt}); err != nil {
		return nil, conclave.Errorf(conclave.Invalid, "the input can't be signed so with this key")
	}
	return raw, nil
}

// checkSalt holds the salt's length against what fits beside the hash (RFC 8017, section 9.1.1).
func (s *Scheme) checkSalt(key *rsa.PublicKey) error {
	if longest := (key.N.BitLen()-1+7)/8 - 2 - s.hash.Size(); s.salt < SaltHash || s.salt > longest {
		return conclave.Errorf(conclave.Invalid, "requested salt length %d is invalid", s.salt)
	}
	return nil
}

// Verify reports whether text is a signature of input by the version that it names.
func (k *Key) Verify(text string, s *Scheme, context, input []byte) (bool, error) {
	if !k.Type.Signs() {
		return false, conclave.Errorf(conclave.Invalid, "key type %s does not support verification", k.Type)
	}
	v, _, payload, err := k.take("signature", text)
	if err != nil {
		return false, err
	}
	raw, err := s.encoding().DecodeString(payload)
	if err != nil {
		return false, conclave.Errorf(conclave.Invalid, "invalid base64 signature value")
	}
	digest, err := s.digest(k.Type, input)
	if err != nil {
		return false, err
	}
	m, err := v.parsed()
	if err != nil {
		return false, err
	}
	switch public := m.public.(type) {
	case *ecdsa.PublicKey:
		return s.verifyECDSA(public, digest, raw)
	case *rsa.PublicKey:
		return s.verifyRSA(public, digest, raw)
	case ed25519.PublicKey:
		if k.Derived {
			private, err := v.deriveSigner(context)
			if err != nil {
				return false, err
			}
			public, _ = private.Public().(ed25519.PublicKey)
		}
		return ed25519.Verify(public, digest, raw), nil
	}
	return false, errDamaged
}

func (s *Scheme) verifyECDSA(public *ecdsa.PublicKey, digest, raw []byte) (bool, error) {
	if !s.jws {
		if _, _, ok := splitDER(raw); !ok {
			return false, conclave.Errorf(conclave.Invalid, "supplied signature is invalid")
		}
		return ecdsa.VerifyASN1(public, digest, raw), nil
	}
	size := scalarBytes(public)
	if len(raw) != 2*size {
		return false, conclave.Errorf(conclave.Invalid, "supplied signature is invalid")
	}
	var der cryptobyte.Builder
	der.AddASN1(asn1.SEQUENCE, func(pair *cryptobyte.Builder) {
		pair.AddASN1BigInt(new(big.Int).SetBytes(raw[:size]))
		pair.AddASN1BigInt(new(big.Int).SetBytes(raw[size:]))
	})
	encoded, err := der.Bytes()
	return err == nil && ecdsa.VerifyASN1(public, digest, encoded), nil
}

func (s *Scheme) verifyRSA(public *rsa.PublicKey, digest, raw []byte) (bool, error) {
	if s.pkcs1 {
		return rsa.VerifyPKCS1v15(public, s.hash, digest, raw) == nil, nil
	}
	if err := s.checkSalt(public); err != nil {
		return false, err
	}
	return rsa.VerifyPSS(public, s.hash, digest, raw, &rsa.PSSOptions{SaltLength: s.salt}) == nil, nil
}

// DerivedPublic is the Ed25519 public key that a version has for a context.
func (v *Version) DerivedPublic(context []byte) (ed25519.PublicKey, error) {
	private, err := v.deriveSigner(context)
	if err != nil {
		return nil, err
	}
	public, _ := private.Public().(ed25519.PublicKey)
	return public, nil
}
