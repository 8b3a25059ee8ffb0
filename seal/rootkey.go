package seal

import (
	"conclave/crypto"
	"conclave/store"
)

// rootKey lends the root key's cipher out of locked memory; each use derives it anew.
type rootKey struct{ held *crypto.Held }

var _ store.RootKey = rootKey{}

// Use runs use with the cipher.
func (k rootKey) Use(use func(*crypto.AEAD) error) error {
	return k.held.Use(func(root []byte) error {
		aead, err := crypto.NewAEAD(root)
		if err != nil {
			return err
		}
		return use(aead)
	})
}
