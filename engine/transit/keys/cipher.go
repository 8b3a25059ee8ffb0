package keys

import (
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"

	"conclave"
)

// Sealing is what encryption and decryption take beside the text. All are bytes, not base64.
type Sealing struct {
	Context    []byte // of derived keys, and of no others
	Associated []byte // authenticated, not encrypted; AEADs only
	Nonce      []byte // of the oldest form of convergent encryption, decryption only
}

var (
	errNoContext   = conclave.Errorf(conclave.Invalid, "missing 'context' for key derivation: the key is derived by one for each use")
	errOpen        = conclave.Errorf(conclave.Invalid, "cipher: message authentication failed")
	errCiphertext  = conclave.Errorf(conclave.Invalid, "invalid ciphertext: could not decode base64")
	errShort       = conclave.Errorf(conclave.Invalid, "invalid ciphertext length")
	errOAEP        = conclave.Errorf(conclave.Invalid, "the ciphertext can't be decrypted with this key")
	errConvergence = conclave.Errorf(conclave.Invalid, "this version derives nonces in a way that is used for decryption only: rotate the key")
)

// Encrypt encrypts with a version, 0 for the latest, and returns "vault:v1:base64(nonce ‖ ciphertext)" and which version
// it was. RSA is OAEP with SHA-256, without a label (RFC 8017), for at most as many bytes as the modulus has, less 66.
func (k *Key) Encrypt(number int, plaintext []byte, with Sealing) (text string, used int, err error) {
	if !k.Type.Encrypts() {
		return "", 0, conclave.Errorf(conclave.Invalid, "message encryption not supported for key type %s", k.Type)
	}
	if len(with.Associated) > 0 && !k.Type.Authenticates() {
		return "", 0, k.errAssociated()
	}
	if len(with.Nonce) > 0 {
		return "", 0, conclave.Errorf(conclave.Invalid, "provided nonce not allowed for this key")
	}
	v, number, err := k.newest(number, "encryption")
	if err != nil {
		return "", 0, err
	}
	sealed, err := v.seal(k, plaintext, with)
	if err != nil {
		return "", 0, err
	}
	b := make([]byte, 0, len(prefix)+12+base64.StdEncoding.EncodedLen(len(sealed)))
	return string(base64.StdEncoding.AppendEncode(mark(b, number), sealed)), number, nil
}

func (k *Key) errAssociated() error {
	return conclave.Errorf(conclave.Invalid, "'associated_data' provided for non-AEAD cipher suite %s", k.Type)
}

// seal returns nonce ‖ ciphertext, or the ciphertext of RSA.
func (v *Version) seal(k *Key, plaintext []byte, with Sealing) ([]byte, error) {
	m, err := v.parsed()
	if err != nil {
		return nil, err
	}
	if public, ok := m.public.(*rsa.PublicKey); ok {
		sealed, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, public, plaintext, nil)
		if err != nil {
			return nil, conclave.Errorf(conclave.Invalid, "a plaintext for this key has at most %d bytes", public.Size()-2*sha256.Size-2)
		}
		return sealed, nil
	}
	aead := m.aead
	var nonce []byte
	if k.Derived {
		if aead, nonce, err = v.derive(k, plaintext, with); err != nil {
			return nil, err
		}
	}
	if nonce == nil {
		nonce = randomBytes(aead.NonceSize()) // none for AES, which draws its own
	}
	sealed := make([]byte, len(nonce), len(nonce)+len(plaintext)+aead.Overhead())
	copy(sealed, nonce)
	return aead.Seal(sealed, nonce, plaintext, with.Associated), nil
}

// derive returns the cipher for a context, and with convergent encryption the nonce for a plaintext: the beginning of its
// HMAC-SHA-256 under a key that is derived beside the cipher's. Vault leaves associated data out of that, so that one nonce
// serves several messages and the tags give the authentication key away. Here a nonce is for both: with associated data, the
// key is the HMAC-SHA-256 of that data. Decryption takes nonces as they are, in either vault.
func (v *Version) derive(k *Key, plaintext []byte, with Sealing) (aead cipher.AEAD, nonce []byte, err error) {
	size := k.Type.KeySize()
	if !k.Convergent {
		key, err := v.deriveKey(with.Context, size)
		if err != nil {
			return nil, nil, err
		}
		aead, err = newAEAD(k.Type, key, true)
		return aead, nil, err
	}
	if v.Convergent != convergentVersion {
		return nil, nil, errConvergence
	}
	key, err := v.deriveKey(with.Context, size+sha256.Size)
	if err != nil {
		return nil, nil, err
	}
	if aead, err = newAEAD(k.Type, key[:size], false); err != nil {
		return nil, nil, err
	}
	nonceKey := key[size:]
	if len(with.Associated) > 0 {
		nonceKey = sum(nonceKey, with.Associated)
	}
	return aead, sum(nonceKey, plaintext)[:aead.NonceSize()], nil
}

// sum is HMAC-SHA-256.
func sum(key, text []byte) []byte {
	digest := hmac.New(sha256.New, key)
	digest.Write(text)
	return digest.Sum(nil)
}

// deriveKey is HKDF (RFC 5869) with SHA-256, without salt, the context being its info.
func (v *Version) deriveKey(context []byte, size int) ([]byte, error) {
	if len(context) == 0 {
		return nil, errNoContext
	}
	key, err := hkdf.Key(sha256.New, v.Secret, nil, string(context), size)
	if err != nil {
		return nil, conclave.Errorf(conclave.Internal, "derive a key: %w", err)
	}
	return key, nil
}

// deriveSigner is the Ed25519 key for a context, whose seed is derived from all 64 bytes of the version's key.
func (v *Version) deriveSigner(context []byte) (ed25519.PrivateKey, error) {
	seed, err := v.deriveKey(context, ed25519.SeedSize)
	if err != nil {
		return nil, err
	}
	return ed25519.NewKeyFromSeed(seed), nil
}

// Decrypt is the reverse of Encrypt.
func (k *Key) Decrypt(text string, with Sealing) ([]byte, error) {
	if !k.Type.Encrypts() {
		return nil, conclave.Errorf(conclave.Invalid, "message decryption not supported for key type %s", k.Type)
	}
	if len(with.Associated) > 0 && !k.Type.Authenticates() {
		return nil, k.errAssociated()
	}
	v, _, payload, err := k.take("ciphertext", text)
	if err != nil {
		return nil, err
	}
	sealed, err := base64.StdEncoding.DecodeString(payload)
	if err != nil {
		return nil, errCiphertext
	}
	m, err := v.parsed()
	if err != nil {
		return nil, err
	}
	if k.Type.isRSA() {
		if m.rsa == nil {
			return nil, errNoPrivate
		}
		plain, err := rsa.DecryptOAEP(sha256.New(), nil, m.rsa, sealed, nil)
		if err != nil {
			return nil, errOAEP
		}
		return plain, nil
	}
	aead := m.aead
	if k.Derived {
		key, err := v.deriveKey(with.Context, k.Type.KeySize())
		if err != nil {
			return nil, err
		}
		if aead, err = newAEAD(k.Type, key, false); err != nil {
			return nil, err
		}
	}
	return open(aead, sealed, with, v.Convergent)
}

// open takes the nonce from the front of sealed, unless the cipher does. The first form of convergent encryption left it
// to the caller to keep.
func open(aead cipher.AEAD, sealed []byte, with Sealing, convergent int) ([]byte, error) {
	nonce := with.Nonce
	if convergent != 1 {
		if len(sealed) < aead.NonceSize() {
			return nil, errShort
		}
		nonce, sealed = sealed[:aead.NonceSize()], sealed[aead.NonceSize():]
	}
	if len(nonce) != aead.NonceSize() {
		return nil, conclave.Errorf(conclave.Invalid, "the nonce must have %d bytes", aead.NonceSize())
	}
	plain, err := aead.Open(nil, nonce, sealed, with.Associated)
	if err != nil {
		return nil, errOpen
	}
	return plain, nil
}
