package token

import (
	"encoding/base64"
	"io"
	"slices"
	"strings"

	"conclave"
)

// Prefix begins every service token, so that leak scanners know it.
const Prefix = "hvs."

const (
	secretBytes    = 71 // 568 bits of randomness, 95 characters
	accessorLength = 24 // of 62 characters: 142 bits
	base62         = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

// Minted is the randomness of a new token. It is made once per request, before the transaction. The accessor is for a
// secret that somebody chose; other tokens have that of their secret.
type Minted struct {
	Secret   conclave.Secret
	Accessor string
}

// In is the same for a token of a namespace: below the root, its secret ends in the namespace's id.
func (m Minted) In(namespace conclave.Namespace) Minted {
	if !namespace.IsRoot() {
		m.Secret = conclave.NewSecret(m.Secret.Reveal() + "." + namespace.ID)
	}
	return m
}

// NamespaceID is the id that a secret ends in, empty for tokens of the root namespace. Nothing is proven by it: the token
// must be found there.
func NamespaceID(secret conclave.Secret) string {
	text := secret.Reveal()
	if strings.HasPrefix(text, Prefix) || strings.HasPrefix(text, BatchPrefix) {
		text = text[len(Prefix):]
	}
	if at := strings.LastIndexByte(text, '.'); at >= 0 {
		return text[at+1:]
	}
	return ""
}

// Mint makes a token and an accessor of random, which must be a cryptographic source.
func Mint(random io.Reader) (Minted, error) {
	secret, err := Generate(random)
	if err != nil {
		return Minted{}, err
	}
	accessor, err := generateAccessor(random)
	return Minted{secret, accessor}, err
}

// Generate makes a token.
func Generate(random io.Reader) (conclave.Secret, error) {
	var raw [secretBytes]byte
	if _, err := io.ReadFull(random, raw[:]); err != nil {
		return conclave.Secret{}, conclave.Errorf(conclave.Internal, "no randomness for a token")
	}
	return conclave.NewSecret(Prefix + base64.RawURLEncoding.EncodeToString(raw[:])), nil
}

func generateAccessor(random io.Reader) (string, error) { return Letters(random, accessorLength) }

// Letters returns count random letters and digits, each as likely as any other; random must be a cryptographic source.
func Letters(random io.Reader, count int) (string, error) {
	letters, raw := make([]byte, 0, count), make([]byte, count)
	for range 16 { // one round in a hundred thousand doesn't fill it from the second on
		if _, err := io.ReadFull(random, raw); err != nil {
			break
		}
		for _, b := range raw {
			if b < 4*62 && len(letters) < count { // above, the first characters would be likelier
				letters = append(letters, base62[b%62])
			}
		}
		if len(letters) == count {
			return string(letters), nil
		}
	}
	return "", conclave.Errorf(conclave.Internal, "no randomness for letters and digits")
}

// issue makes a token of either type and returns its secret.
func issue(tx conclave.Tx, minted Minted, r *Record) (conclave.Secret, error) {
	if r.Batch {
		return sealBatch(tx, r)
	}
	minted = minted.In(tx.Namespace())
	return minted.Secret, Create(tx, minted, r)
}

// Create stores a new token with its accessor, uses, place in the tree and expiry. It sets the record's name, accessor,
// time of creation and end from minted, the transaction's time and r.TTL. The caller has decided all else.
func Create(tx conclave.Tx, minted Minted, r *Record) error {
	if r.Name, r.Accessor = NameOf(minted.Secret), minted.Accessor; isMinted(minted.Secret) {
		r.Accessor = r.Name
	}
	r.Created, r.Policies = tx.Now().UnixNano(), normalPolicies(r.Policies)
	if r.TTL > 0 {
		r.Expires = tx.Now().Add(r.TTL).UnixNano()
	}
	if err := r.check(); err != nil {
		return err
	}
	put := tx.Put
	if r.Accessor == r.Name { // nobody chose the secret
		put = tx.PutNew
	}
	if r.Parent != "" {
		parent, err := find(tx, r.Parent)
		if err != nil {
			return err
		}
		if parent == nil {
			return denied()
		}
		if r.Depth = parent.Depth + 1; r.Depth >= MaxDepth {
			return conclave.Errorf(conclave.Invalid, "a token has at most %d ancestors", MaxDepth)
		}
		if err := put(childPath(r.Parent, r.Name), mark()); err != nil {
			return err
		}
	}
	if err := r.claim(tx); err != nil {
		return err
	}
	if r.NumUses > 0 {
		if err := tx.SetCell(usesPath(r.Name), int64(r.NumUses), true); err != nil {
			return err
		}
	}
	if r.Expires != 0 {
		if err := put(expiryPath(r.Expires, r.Name), mark()); err != nil {
			return err
		}
	}
	value, err := r.encode()
	if err != nil {
		return err
	}
	return put(idPath(r.Name), value)
}

// claim refuses a token that is there or was there, which only those that somebody chose can be. Theirs are the accessors
// that have an entry.
func (r *Record) claim(tx conclave.Tx) error {
	if r.Accessor == r.Name {
		return nil
	}
	for _, path := range []string{idPath(r.Name), deadPath(r.Name), accessorPath(r.Accessor), idPath(r.Accessor)} {
		taken, err := tx.Get(path)
		if err != nil {
			return err
		}
		if taken != nil {
			return conclave.Errorf(conclave.Invalid, "cannot create a token with a duplicate ID")
		}
	}
	return tx.Put(accessorPath(r.Accessor), []byte(r.Name))
}

// check holds a new record against the limits.
func (r *Record) check() error {
	if len(r.Policies) > MaxPolicies || slices.ContainsFunc(r.Policies, func(name string) bool { return len(name) > maxPolicyLen }) {
		return conclave.Errorf(conclave.Invalid, "a token has at most %d policies, with names of at most %d bytes", MaxPolicies, maxPolicyLen)
	}
	if len(r.Metadata) > maxMetadata {
		return conclave.Errorf(conclave.Invalid, "a token has at most %d entries of metadata", maxMetadata)
	}
	if len(r.DisplayName) > maxText {
		return conclave.Errorf(conclave.Invalid, "a token's display name has at most %d bytes", maxText)
	}
	for key, value := range r.Metadata {
		if len(key) > maxText || len(value) > maxText {
			return conclave.Errorf(conclave.Invalid, "a token's metadata has keys and values of at most %d bytes", maxText)
		}
	}
	return nil
}

// CreateRoot stores a token that may do everything and never ends.
func CreateRoot(tx conclave.Tx, minted Minted) (*Record, error) {
	r := &Record{Policies: []string{rootPolicy}, Path: "auth/token/root", DisplayName: "root"}
	if err := Create(tx, minted, r); err != nil {
		return nil, err
	}
	return r, nil
}
