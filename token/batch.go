package token

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"net/netip"
	"strings"
	"time"

	"conclave"
	"conclave/crypto"
)

// BatchPrefix begins every batch token, so that leak scanners know it.
const BatchPrefix = "hvb."

// Limits of batch tokens and their keys.
const (
	MaxBatch     = 8 << 10             // bytes of a batch token: what proxies let through as a header
	batchKeyLife = 30 * 24 * time.Hour // how long a key seals new tokens
	maxBatchKeys = 64                  // keys kept at once: beyond it the newest stays in use
)

const batchKeysPath = "token/batch"

// A batch token isn't stored: it is its own record, sealed with a key of its namespace.
//
//	token:  "hvb." ‖ base64url(head ‖ box), without padding ‖ "." ‖ id of the namespace (not in the root namespace)
//	head:   format 1 (1 byte) ‖ number of the key (4, big-endian)
//	box:    XAES-256-GCM of a batchPayload as JSON, with additional data batchDomain ‖ head
const (
	batchFormat = 1
	batchHead   = 1 + 4
	batchDomain = "conclave batch token"
)

// batchPayload is what a batch token says of itself. Times are Unix nanoseconds.
type batchPayload struct {
	NamespaceID string            `json:"ns,omitempty"` // empty for the root namespace
	Parent      string            `json:"parent,omitempty"`
	Guardian    *Guardian         `json:"guardian,omitempty"`
	Policies    []string          `json:"policies"`
	Path        string            `json:"path"`
	Metadata    map[string]string `json:"meta,omitempty"`
	DisplayName string            `json:"name,omitempty"`
	EntityID    string            `json:"entity,omitempty"`
	Role        string            `json:"role,omitempty"`
	BoundCIDRs  []netip.Prefix    `json:"cidrs,omitempty"`
	Created     int64             `json:"created"`
	TTL         time.Duration     `json:"ttl"`
}

// batchKeys are the keys of a namespace's batch tokens, the newest last. They are kept below the namespace's system space,
// whose rotation encrypts them anew, and go with it.
type batchKeys struct {
	Keys []batchKey `json:"keys"`
}

type batchKey struct {
	Number uint32 `json:"number"` // never used twice
	Key    []byte `json:"key"`
	Made   int64  `json:"made"`
	Until  int64  `json:"until"` // no token that it sealed lives longer

	aead *crypto.AEAD
}

func isBatch(secret conclave.Secret) bool { return strings.HasPrefix(secret.Reveal(), BatchPrefix) }

func loadBatchKeys(view conclave.View) (*batchKeys, error) {
	loaded, err := view.Load(batchKeysPath, decodeBatchKeys)
	keys, _ := loaded.(*batchKeys)
	return keys, err
}

func decodeBatchKeys(value []byte) (any, error) {
	damaged := conclave.Errorf(conclave.Internal, "the stored keys of batch tokens are damaged")
	keys := &batchKeys{}
	if err := json.Unmarshal(value, keys); err != nil || len(keys.Keys) == 0 || len(keys.Keys) > maxBatchKeys {
		return nil, damaged
	}
	for i := range keys.Keys {
		aead, err := crypto.NewAEAD(keys.Keys[i].Key)
		if err != nil {
			return nil, damaged
		}
		keys.Keys[i].aead = aead
	}
	return keys, nil
}

// sealBatch makes the secret of a batch token that r describes. Nothing is stored but, now and then, a new key.
func sealBatch(tx conclave.Tx, r *Record) (conclave.Secret, error) {
	r.Created, r.Policies = tx.Now().UnixNano(), normalPolicies(r.Policies)
	if err := r.check(); err != nil {
		return conclave.Secret{}, err
	}
	if r.TTL <= 0 {
		return conclave.Secret{}, conclave.Errorf(conclave.Invalid, "batch tokens need a time to live")
	}
	r.Expires = tx.Now().Add(r.TTL).UnixNano()
	if r.Parent != "" {
		parent, err := find(tx, r.Parent)
		if err != nil {
			return conclave.Secret{}, err
		}
		if parent == nil {
			return conclave.Secret{}, denied()
		}
	}
	payload := batchPayload{Parent: r.Parent, Guardian: r.Guardian, Policies: r.Policies, Path: r.Path, Metadata: r.Metadata,
		DisplayName: r.DisplayName, EntityID: r.EntityID, Role: r.Role, BoundCIDRs: r.BoundCIDRs, Created: r.Created, TTL: r.TTL}
	if at := tx.Namespace(); !at.IsRoot() {
		payload.NamespaceID = at.ID
	}
	plain, err := json.Marshal(payload)
	if err != nil {
		return conclave.Secret{}, err
	}
	key, err := sealingKey(tx, r.Expires)
	if err != nil {
		return conclave.Secret{}, err
	}
	secret := payload.spell(key, plain)
	if len(secret.Reveal()) > MaxBatch {
		return conclave.Secret{}, conclave.Errorf(conclave.Invalid,
			"a batch token carries its policies and metadata, which here take more than %d bytes", MaxBatch)
	}
	r.Name = NameOf(secret)
	return secret, nil
}

func (p *batchPayload) spell(key *batchKey, plain []byte) conclave.Secret {
	head := binary.BigEndian.AppendUint32([]byte{batchFormat}, key.Number)
	box := key.aead.Seal(head, plain, batchAdditional(head))
	text := BatchPrefix + base64.RawURLEncoding.EncodeToString(box)
	if p.NamespaceID != "" {
		text += "." + p.NamespaceID
	}
	return conclave.NewSecret(text)
}

func batchAdditional(head []byte) []byte { return append([]byte(batchDomain), head[:batchHead]...) }

// sealingKey is the key for a new token that ends at a time, a new one if there is none that is young enough. Keys whose
// tokens have all ended are dropped then.
func sealingKey(tx conclave.Tx, end int64) (*batchKey, error) {
	stored, err := loadBatchKeys(tx)
	if err != nil {
		return nil, err
	}
	keys, changed := batchKeys{}, false
	if stored != nil {
		keys.Keys = append(keys.Keys, stored.Keys...)
	}
	number := uint32(1)
	fresh := len(keys.Keys) == 0
	if !fresh {
		newest := &keys.Keys[len(keys.Keys)-1]
		number = newest.Number + 1
		fresh = tx.Reached(time.Unix(0, newest.Made).Add(batchKeyLife))
	}
	if fresh {
		live := keys.Keys[:0]
		for _, key := range keys.Keys {
			if !tx.Reached(time.Unix(0, key.Until)) {
				live = append(live, key)
			}
		}
		if keys.Keys = live; len(live) < maxBatchKeys {
			made, err := newBatchKey(number, tx.Now().UnixNano())
			if err != nil {
				return nil, err
			}
			keys.Keys = append(keys.Keys, *made)
		}
		changed = true
	}
	key := &keys.Keys[len(keys.Keys)-1]
	if end > key.Until {
		key.Until, changed = end+int64(batchKeyLife), true // so that few tokens write
	}
	if !changed {
		return key, nil
	}
	value, err := json.Marshal(keys)
	if err != nil {
		return nil, err
	}
	return key, tx.Put(batchKeysPath, value)
}

func newBatchKey(number uint32, now int64) (*batchKey, error) {
	secret, err := crypto.NewKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	aead, err := crypto.NewAEAD(secret[:])
	if err != nil {
		return nil, err
	}
	return &batchKey{Number: number, Key: secret[:], Made: now, Until: now, aead: aead}, nil
}

// openBatch returns what a live batch token says of itself, nil if it is none: forged, of another namespace, expired, or
// its parent has ended.
func openBatch(view conclave.View, secret conclave.Secret) (*Record, error) {
	payload, err := unsealBatch(view, secret)
	if err != nil || payload == nil {
		return nil, err
	}
	r := &Record{Name: NameOf(secret), Batch: true, Parent: payload.Parent, Guardian: payload.Guardian, Policies: payload.Policies,
		Path: payload.Path, Metadata: payload.Metadata, DisplayName: payload.DisplayName, EntityID: payload.EntityID, Role: payload.Role,
		BoundCIDRs: payload.BoundCIDRs, Created: payload.Created, TTL: payload.TTL, Expires: payload.Created + int64(payload.TTL)}
	if ok, err := alive(view, r); err != nil || !ok {
		return nil, err
	}
	r.describe()
	return r, nil
}

// unsealBatch opens a token in its one spelling.
func unsealBatch(view conclave.View, secret conclave.Secret) (*batchPayload, error) {
	text := secret.Reveal()
	if len(text) > MaxBatch {
		return nil, nil
	}
	text, namespaceID, below := strings.Cut(strings.TrimPrefix(text, BatchPrefix), ".")
	if below != (namespaceID != "") || strings.ContainsAny(text, "\r\n") { // which the decoder would skip
		return nil, nil
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(raw) < batchHead || raw[0] != batchFormat {
		return nil, nil
	}
	keys, err := loadBatchKeys(view)
	if err != nil || keys == nil {
		return nil, err
	}
	number := binary.BigEndian.Uint32(raw[1:])
	for i := range keys.Keys {
		if keys.Keys[i].Number != number {
			continue
		}
		plain, err := keys.Keys[i].aead.Open(nil, raw[batchHead:], batchAdditional(raw))
		if err != nil {
			return nil, nil
		}
		return decodeBatch(plain, namespaceID), nil
	}
	return nil, nil
}

// decodeBatch is a payload, nil if it isn't one of the namespace that the token names.
func decodeBatch(plain []byte, namespaceID string) *batchPayload {
	payload := &batchPayload{}
	if err := json.Unmarshal(plain, payload); err != nil || payload.NamespaceID != namespaceID || payload.Created <= 0 || payload.TTL <= 0 || payload.TTL > maxTTL {
		return nil
	}
	return payload
}
