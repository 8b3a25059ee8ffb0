// Package stored reads and writes what a mount has stored: objects as JSON, and certificates by their serial numbers.
package stored

import (
	"encoding/json"
	"strings"

	"conclave"
)

// MaxName bounds the name of a role, a key or an issuer, in bytes.
const MaxName = 128

// ErrFormat says that what is stored isn't what was written.
var ErrFormat = conclave.Errorf(conclave.Internal, "what is stored can't be read")

// Load returns the decoded object at path, which is shared and must not be changed; nil if there is none.
func Load[T any](view conclave.View, path string, decode func([]byte) (*T, error)) (*T, error) {
	object, err := view.Load(path, func(value []byte) (any, error) { return decode(value) })
	if err != nil || object == nil {
		return nil, err
	}
	return object.(*T), nil
}

// DecodeJSON decodes an object for [Load].
func DecodeJSON[T any](value []byte) (*T, error) {
	object := new(T)
	if err := json.Unmarshal(value, object); err != nil {
		return nil, ErrFormat
	}
	return object, nil
}

// LoadOr is Load with a default for what isn't there.
func LoadOr[T any](view conclave.View, path string, otherwise T) (*T, error) {
	object, err := Load(view, path, DecodeJSON[T])
	if err == nil && object == nil {
		object = &otherwise
	}
	return object, err
}

// Put stores an object as JSON.
func Put(tx conclave.Tx, path string, object any) error {
	value, err := json.Marshal(object)
	if err != nil {
		return err
	}
	return tx.Put(path, value)
}

// NotFound is the error for what isn't there.
func NotFound() error { return &conclave.Error{Kind: conclave.NotFound} }

// CheckName holds the name of a role, key or issuer against the rules: letters, digits, "_", "-", ".", of which the first
// is no punctuation.
func CheckName(name string) error {
	strange := func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' && c != '-' && c != '.'
	}
	if name == "" || len(name) > MaxName || strings.ContainsFunc(name, strange) || strings.ContainsRune("-.", rune(name[0])) || strings.ContainsRune("-.", rune(name[len(name)-1])) {
		return conclave.Errorf(conclave.Invalid, "a name is 1 to %d letters, digits, underscores, hyphens and dots, and neither begins nor ends with one of the last two", MaxName)
	}
	return nil
}
