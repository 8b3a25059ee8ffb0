package keys

import (
	"crypto"
	"crypto/hmac"
	_ "crypto/sha1"   // SHA-1, which old signatures have
	_ "crypto/sha256" // SHA-224 and SHA-256
	_ "crypto/sha3"   // SHA-3
	_ "crypto/sha512" // SHA-384 and SHA-512
	"encoding/base64"

	"conclave"
)

// hashes are by the names that clients use; "none" is for what is signed as it is.
var hashes = map[string]crypto.Hash{
	"none": 0, "sha1": crypto.SHA1,
	"sha2-224": crypto.SHA224, "sha2-256": crypto.SHA256, "sha2-384": crypto.SHA384, "sha2-512": crypto.SHA512,
	"sha3-224": crypto.SHA3_224, "sha3-256": crypto.SHA3_256, "sha3-384": crypto.SHA3_384, "sha3-512": crypto.SHA3_512,
}

// DefaultHash is used where a client names none.
const DefaultHash = "sha2-256"

// Hash finds a hash function by its name; "none" isn't one.
func Hash(name string) (crypto.Hash, error) {
	hash := hashes[name]
	if hash == 0 {
		return 0, conclave.Errorf(conclave.Invalid, "unsupported algorithm %q", name)
	}
	return hash, nil
}

// Digest is the hash of input.
func Digest(hash crypto.Hash, input []byte) []byte {
	digest := hash.New()
	digest.Write(input)
	return digest.Sum(nil)
}

// HMAC returns "vault:v1:base64(HMAC)" of input (RFC 2104) by the HMAC key of a version, 0 for the latest.
func (k *Key) HMAC(number int, hash crypto.Hash, input []byte) (text string, used int, err error) {
	v, number, err := k.newest(number, "HMAC")
	if err != nil {
		return "", 0, err
	}
	sum, err := v.hmac(k, hash, input)
	if err != nil {
		return "", 0, err
	}
	return string(base64.StdEncoding.AppendEncode(mark(nil, number), sum)), number, nil
}

// VerifyHMAC reports whether text is the HMAC of input by the version that it names.
func (k *Key) VerifyHMAC(text string, hash crypto.Hash, input []byte) (bool, error) {
	v, _, payload, err := k.take("HMAC", text)
	if err != nil {
		return false, err
	}
	given, err := base64.StdEncoding.DecodeString(payload)
	if err != nil {
		return false, conclave.Errorf(conclave.Invalid, "invalid HMAC: could not decode base64")
	}
	sum, err := v.hmac(k, hash, input)
	return err == nil && hmac.Equal(sum, given), err
}

func (v *Version) hmac(k *Key, hash crypto.Hash, input []byte) ([]byte, error) {
	key := v.HMACKey(k)
	if len(key) == 0 {
		return nil, conclave.Errorf(conclave.Invalid, "no HMAC key exists for that key version")
	}
	digest := hmac.New(hash.New, key)
	digest.Write(input)
	return digest.Sum(nil), nil
}

// HMACKey is the version's key for HMACs.
func (v *Version) HMACKey(k *Key) []byte {
	if k.Type == HMACOnly {
		return v.Secret
	}
	return v.HMAC
}
