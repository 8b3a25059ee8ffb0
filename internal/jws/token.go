// Package jws reads signed JSON Web Tokens (RFC 7515 and 7519, compact form) and verifies them with public keys that the
// caller brings.
//
// A token's header decides nothing but which of the caller's keys are tried: keys in it and links to keys (jwk, jku, x5c,
// x5u) are not looked at, and what it calls critical (crit) is refused, since nothing is understood that could be. Only
// signatures with public keys exist here: "none" and HMAC have no place in any list, so that no public key can be taken
// for a shared secret. A token whose JSON has a name twice is refused, for others might read the other value.
package jws

import (
	"encoding/base64"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"

	"conclave"
)

// Limits of tokens.
const (
	MaxToken = 64 << 10 // bytes of a token
	maxKeyID = 1024     // bytes of a key's name
)

// Algorithms are all that tokens may be signed with (RFC 7518 section 3.1, RFC 8037).
var Algorithms = []string{"RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "EdDSA"}

var (
	errForm      = conclave.Errorf(conclave.Invalid, "malformed token: it must have three parts in base64url, of which the first two are JSON objects")
	errTooLong   = conclave.Errorf(conclave.Invalid, "malformed token: it is too long")
	errCritical  = conclave.Errorf(conclave.Invalid, "the token's header has critical extensions, of which none is supported")
	errAlgorithm = conclave.Errorf(conclave.Invalid, "the token is signed with an algorithm that isn't allowed")
	errSignature = conclave.Errorf(conclave.Invalid, "failed to verify the token's signature: no known key fits")
)

// Token is a token that has been read. Its Claims are worth nothing until Verify has succeeded.
type Token struct {
	Algorithm string // one of Algorithms
	KeyID     string // empty if it names none
	Claims    Claims

	signed *jose.JSONWebSignature
}

// Parse reads a token. All errors are conclave.Invalid and hold nothing of the token.
func Parse(text string) (*Token, error) {
	if len(text) > MaxToken {
		return nil, errTooLong
	}
	parts := strings.Split(text, ".")
	if len(parts) != 3 || strings.ContainsAny(text, "\r\n") { // which the decoder would skip
		return nil, errForm
	}
	header, err := decodePart(parts[0])
	if err != nil {
		return nil, err
	}
	claims, err := decodePart(parts[1])
	if err != nil {
		return nil, err
	}
	if _, err := base64.RawURLEncoding.Strict().DecodeString(parts[2]); err != nil {
		return nil, errForm // so that a token has one spelling
	}
	if _, given := header["crit"]; given {
		return nil, errCritical
	}
	if _, given := header["b64"]; given {
		return nil, errCritical
	}
	token := &Token{Claims: claims}
	var isText bool
	if token.Algorithm, isText = header["alg"].(string); !isText || !slices.Contains(Algorithms, token.Algorithm) {
		return nil, errAlgorithm
	}
	if name, given := header["kid"]; given {
		if token.KeyID, isText = name.(string); !isText || len(token.KeyID) > maxKeyID {
			return nil, errForm
		}
	}
	token.signed, err = jose.ParseSignedCompact(text, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(token.Algorithm)})
	if err != nil {
		return nil, errForm
	}
	return token, nil
}

func decodePart(part string) (map[string]any, error) {
	data, err := base64.RawURLEncoding.Strict().DecodeString(part)
	if err != nil {
		return nil, errForm
	}
	return decodeObject(data)
}

// Verify checks the signature with the keys that fit: of the kind that the algorithm is for, named as the token says if
// both have a name, and meant for this algorithm if a key says so. Only algorithms in allowed are accepted.
func (t *Token) Verify(keys []Key, allowed []string) error {
	if !slices.Contains(allowed, t.Algorithm) {
		return errAlgorithm
	}
	for _, key := range keys {
		if !key.fits(t) {
			continue
		}
		if _, err := t.signed.Verify(key.Public); err == nil {
			return nil
		}
	}
	return errSignature
}
