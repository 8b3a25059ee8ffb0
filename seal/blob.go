package seal

import (
	"bytes"
	"encoding/json"
	"fmt"

	"conclave"
	"conclave/crypto"
	"conclave/store"
)

// The plain items that this package owns.
const (
	blobItem   = "seal"   // the blob, bound by the root key
	openedItem = "opened" // there once the vault has been opened for the first time
)

// Limits of shares.
const (
	MaxShares = 255
	blobLimit = 64 << 10 // bytes of an encoded blob
)

// blob is how the root key is kept. All of it is public but for what the boxes hold.
type blob struct {
	Format    int                `json:"format"`
	Cluster   []byte             `json:"cluster"` // 16 bytes
	Kind      string             `json:"kind"`    // "shamir" or "static"
	Shares    int                `json:"shares"`
	Threshold int                `json:"threshold"`
	Salt      []byte             `json:"salt"`   // 32 bytes, of the hashes
	Hashes    []crypto.ShareHash `json:"hashes"` // one a share
	Shamir    []byte             `json:"shamir"` // the root key, wrapped by the unseal key
	Static    []byte             `json:"static,omitempty"`
	Audit     []byte             `json:"audit"`  // HPKE public key for records of sealed nodes
	Signer    []byte             `json:"signer"` // Ed25519 public key of the cluster
	Created   int64              `json:"created"`
}

// The kinds of seal.
const (
	kindShamir = "shamir"
	kindStatic = "static"
	blobFormat = 1
)

func (b *blob) encode() ([]byte, error) { return json.Marshal(b) }

// decodeBlob refuses what isn't exactly what encode makes.
func decodeBlob(encoded []byte) (*blob, error) {
	if len(encoded) > blobLimit {
		return nil, fmt.Errorf("seal blob has more than %d bytes", blobLimit)
	}
	decoder := json.NewDecoder(bytes.NewReader(encoded))
	decoder.DisallowUnknownFields()
	var b blob
	if err := decoder.Decode(&b); err != nil {
		return nil, fmt.Errorf("decode seal blob: %w", err)
	}
	again, err := b.encode()
	if err != nil || !bytes.Equal(again, encoded) {
		return nil, fmt.Errorf("seal blob is not in canonical form")
	}
	switch {
	case b.Format != blobFormat:
		return nil, fmt.Errorf("seal blob has format %d, this build reads %d", b.Format, blobFormat)
	case len(b.Cluster) != 16 || len(b.Salt) != 32 || b.Kind != kindShamir && b.Kind != kindStatic:
		return nil, fmt.Errorf("seal blob is damaged")
	case b.Threshold < 1 || b.Shares < b.Threshold || b.Shares > MaxShares || len(b.Hashes) != b.Shares:
		return nil, fmt.Errorf("seal blob names %d shares, threshold %d, %d hashes", b.Shares, b.Threshold, len(b.Hashes))
	}
	return &b, nil
}

// aad binds a wrapped root key to its cluster and its kind of seal.
func (b *blob) aad(kind string) []byte {
	return append([]byte("conclave root key "+kind+"\x00"), b.Cluster...)
}

func (b *blob) cluster() (id [16]byte) { return [16]byte(b.Cluster) }

// share recognises a share: its position among the hashes, -1 if it is none of this vault's.
func (b *blob) share(share []byte) int {
	return crypto.FindShare(b.Hashes, crypto.HashShare([32]byte(b.Salt), share))
}

// readBlob returns the blob in a plain item, nil if there is none, and the tag that binds it.
func readBlob(stored []byte) (b *blob, item, tag []byte, err error) {
	if stored == nil {
		return nil, nil, nil, nil
	}
	if item, tag, err = store.SplitBound(stored); err != nil {
		return nil, nil, nil, err
	}
	b, err = decodeBlob(item)
	return b, item, tag, err
}

var errNotInitialized = conclave.Errorf(conclave.Invalid, "Vault is not initialized: run `conclave operator init`")
