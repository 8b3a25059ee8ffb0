package crypto

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"runtime"
)

// KeySize is the length in bytes of every symmetric key.
const KeySize = 32

// ErrOpen is the only error of functions that open a box: damaged, cut, swapped, replayed, made with another key or for another place.
// Which of these it was is deliberately not said.
var ErrOpen = errors.New("crypto: cannot open: damaged, or sealed with another key or for another place")

// ErrFormat means that bytes are not the one canonical encoding of a value, or exceed its bounds.
var ErrFormat = errors.New("crypto: malformed key record")

const redaction = "[redacted]"

// redacted is embedded in structs that hold keys: they print and marshal as [redacted] whatever the verb.
type redacted struct{}

func (redacted) String() string               { return redaction }
func (redacted) Format(f fmt.State, _ rune)   { io.WriteString(f, redaction) }
func (redacted) MarshalJSON() ([]byte, error) { return []byte(`"` + redaction + `"`), nil }

// Key is a 256-bit secret. It prints and marshals as [redacted]; k[:] is the bytes.
type Key [KeySize]byte

func (Key) String() string               { return redaction }
func (Key) Format(f fmt.State, _ rune)   { io.WriteString(f, redaction) }
func (Key) MarshalJSON() ([]byte, error) { return []byte(`"` + redaction + `"`), nil }

// NewKey reads a key from random, in production crypto/rand.Reader.
func NewKey(random io.Reader) (Key, error) {
	var k Key
	if _, err := io.ReadFull(random, k[:]); err != nil {
		return Key{}, fmt.Errorf("crypto: read randomness: %w", err)
	}
	return k, nil
}

// NameKey turns names into tokens. It prints and marshals as [redacted].
type NameKey [KeySize]byte

func (NameKey) String() string               { return redaction }
func (NameKey) Format(f fmt.State, _ rune)   { io.WriteString(f, redaction) }
func (NameKey) MarshalJSON() ([]byte, error) { return []byte(`"` + redaction + `"`), nil }

// Token stands for a name where names must not show. It is no secret. The zero Token is the parent of a space's first segments.
type Token [16]byte

// String is the token in hexadecimal.
func (t Token) String() string { return hex.EncodeToString(t[:]) }

// Child is the token of segment below parent: the first 16 bytes of HMAC-SHA256(key, parent ‖ segment). The parent's fixed length keeps
// the two apart. Space.Child computes the same, faster.
func (k NameKey) Child(parent Token, segment string) Token {
	mac := hmac.New(sha256.New, k[:])
	mac.Write(parent[:])
	io.WriteString(mac, segment)
	return Token(mac.Sum(nil)[:len(Token{})])
}

// Wipe overwrites b with zeros.
func Wipe(b []byte) {
	clear(b)
	runtime.KeepAlive(b)
}
