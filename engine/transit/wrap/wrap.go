// Package wrap brings keys from one vault to another under an RSA key: the mechanism that PKCS #11 calls
// CKM_RSA_AES_KEY_WRAP, and Vault's transit engine takes for imports.
//
//	RSA-OAEP(wrapping key, 32 random bytes) ‖ AES-KWP(those bytes, key)
//
// The first part is as long as the RSA key's modulus. AES-KWP is AES key wrap with padding (RFC 5649, NIST SP 800-38F).
package wrap

import (
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha1"   // OAEP with SHA-1, which many modules have
	_ "crypto/sha256" // SHA-224 and SHA-256
	_ "crypto/sha512" // SHA-384 and SHA-512
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"strings"

	"conclave"
)

// MaxKey is the longest key that is wrapped, in bytes: RSA keys of 4096 bits in PKCS #8 have about 2,400.
const MaxKey = 16 << 10

// ErrUnwrap is all that is told of what can't be unwrapped.
var ErrUnwrap = errors.New("the wrapped key can't be unwrapped")

// Hash finds the hash function of OAEP by the name that clients use; "" is SHA-256.
func Hash(name string) (crypto.Hash, error) {
	switch strings.ToUpper(name) {
	case "SHA1":
		return crypto.SHA1, nil
	case "SHA224":
		return crypto.SHA224, nil
	case "SHA256", "":
		return crypto.SHA256, nil
	case "SHA384":
		return crypto.SHA384, nil
	case "SHA512":
		return crypto.SHA512, nil
	}
	return 0, conclave.Errorf(conclave.Invalid, "unknown hash function: there are SHA1, SHA224, SHA256, SHA384 and SHA512")
}

// Seal wraps key for the holder of the private half of to.
func Seal(to *rsa.PublicKey, hash crypto.Hash, key []byte) ([]byte, error) {
	ephemeral := make([]byte, 32)
	_, _ = rand.Read(ephemeral) // never fails
	defer clear(ephemeral)
	sealed, err := rsa.EncryptOAEP(hash.New(), rand.Reader, to, ephemeral, nil)
	if err != nil {
		return nil, err
	}
	wrapped, err := Wrap(ephemeral, key)
	return append(sealed, wrapped...), err
}

// Open is the reverse of Seal.
func Open(by *rsa.PrivateKey, hash crypto.Hash, text []byte) ([]byte, error) {
	if len(text) <= by.Size() {
		return nil, ErrUnwrap
	}
	ephemeral, err := rsa.DecryptOAEP(hash.New(), nil, by, text[:by.Size()], nil)
	if err != nil || len(ephemeral) != 32 {
		return nil, ErrUnwrap
	}
	defer clear(ephemeral)
	return Unwrap(ephemeral, text[by.Size():])
}

// block is the unit of AES key wrap, half a block of AES.
const block = 8

// prefix is the high half of the alternative initial value (RFC 5649, section 3); its low half is the key's length.
const prefix = 0xA65959A6

// Wrap wraps a key of 1 to MaxKey bytes under a key for AES (RFC 5649, section 4.1).
func Wrap(kek, key []byte) ([]byte, error) {
	cipher, err := aes.NewCipher(kek)
	if err != nil {
		return nil, err
	}
	if len(key) == 0 || len(key) > MaxKey {
		return nil, errors.New("a key to wrap has between 1 byte and 16 KiB")
	}
	text := make([]byte, block+(len(key)+block-1)/block*block) // the key is padded with zeros
	binary.BigEndian.PutUint32(text, prefix)
	binary.BigEndian.PutUint32(text[4:], uint32(len(key)))
	copy(text[block:], key)
	if len(text) == 2*block {
		cipher.Encrypt(text, text)
		return text, nil
	}
	mix(cipher, text)
	return text, nil
}

// Unwrap is the reverse of Wrap (RFC 5649, section 4.2).
func Unwrap(kek, text []byte) ([]byte, error) {
	cipher, err := aes.NewCipher(kek)
	if err != nil {
		return nil, err
	}
	if len(text) < 2*block || len(text)%block != 0 || len(text) > block+MaxKey {
		return nil, ErrUnwrap
	}
	plain := append([]byte(nil), text...)
	if len(plain) == 2*block {
		cipher.Decrypt(plain, plain)
	} else {
		unmix(cipher, plain)
	}
	length, padded := int64(binary.BigEndian.Uint32(plain[4:])), int64(len(plain)-block)
	good := subtle.ConstantTimeCompare(plain[:4], binary.BigEndian.AppendUint32(nil, prefix))
	if length > padded || length <= padded-block {
		return nil, ErrUnwrap
	}
	for _, b := range plain[block+length:] {
		good &= subtle.ConstantTimeByteEq(b, 0)
	}
	if good != 1 {
		return nil, ErrUnwrap
	}
	return plain[block : block+length], nil
}

// rounds is how often each block of a key goes through AES.
const rounds = 6

// mix is the wrapping process W of SP 800-38F (RFC 3394, section 2.2.1): in place, text being A ‖ R[1] ‖ … ‖ R[n].
func mix(cipher cipher.Block, text []byte) {
	var b [2 * block]byte
	copy(b[:], text[:block])
	counter := uint64(0)
	for range rounds {
		for at := block; at < len(text); at += block {
			copy(b[block:], text[at:at+block])
			cipher.Encrypt(b[:], b[:])
			counter++
			binary.BigEndian.PutUint64(b[:], binary.BigEndian.Uint64(b[:])^counter)
			copy(text[at:], b[block:])
		}
	}
	copy(text, b[:block])
}

// unmix is the reverse of mix.
func unmix(cipher cipher.Block, text []byte) {
	var b [2 * block]byte
	copy(b[:], text[:block])
	counter := uint64(rounds * (len(text)/block - 1))
	for range rounds {
		for at := len(text) - block; at > 0; at -= block {
			binary.BigEndian.PutUint64(b[:], binary.BigEndian.Uint64(b[:])^counter)
			counter--
			copy(b[block:], text[at:at+block])
			cipher.Decrypt(b[:], b[:])
			copy(text[at:], b[block:])
		}
	}
	copy(text, b[:block])
}
