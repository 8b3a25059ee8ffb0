// Package roster is who belongs to the cluster: the numbered, signed list of members, and what a node has pinned of it.
package roster

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"conclave/cluster/disk"
)

// MaxMembers limits the members of one cluster.
const MaxMembers = 64

// MaxBytes limits an encoded list.
const MaxBytes = 128 << 10

var nodeIDPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)

// ValidNodeID reports whether id is 1 to 64 of a-z, 0-9, '.', '_' and '-', and starts with a letter or digit.
func ValidNodeID(id string) bool { return nodeIDPattern.MatchString(id) }

// Member is one node of the cluster.
type Member struct {
	NodeID string `json:"node_id"`
	// TLSPublic is SHA-256 of its certificate's SubjectPublicKeyInfo.
	TLSPublic []byte `json:"tls_public"`
	// HPKEPublic is what shares and the root key are sealed to on their way to it.
	HPKEPublic []byte `json:"hpke_public,omitempty"`
	// AuditPublic verifies its signatures on checkpoints.
	AuditPublic []byte `json:"audit_public,omitempty"`
	// ServerID and Address are where Raft finds it. They may change and are not signed.
	ServerID string `json:"server_id,omitempty"`
	Address  string `json:"address,omitempty"`
	// APIAddress, Voter and Ready are what the node's peers last knew; they are not part of the list.
	APIAddress string `json:"-"`
	Voter      bool   `json:"-"`
	Ready      bool   `json:"-"`
}

// List is who belongs to the cluster. It is provisional until it is signed; from then on every later list is signed by
// the same cluster key.
type List struct {
	Number    uint64   `json:"number"`
	ClusterID string   `json:"cluster_id"`
	Members   []Member `json:"members"` // sorted by node id
	// ClusterKey is the Ed25519 public key that Signature is of; both are empty in a provisional list.
	ClusterKey []byte `json:"cluster_key,omitempty"`
	Signature  []byte `json:"signature,omitempty"`
}

// Signed reports whether the list bears a signature. Decode has verified it.
func (l *List) Signed() bool { return len(l.ClusterKey) > 0 }

// Find returns the member with that node id, nil if there is none.
func (l *List) Find(nodeID string) *Member {
	i := slices.IndexFunc(l.Members, func(m Member) bool { return m.NodeID == nodeID })
	if i < 0 {
		return nil
	}
	return &l.Members[i]
}

// Successor is a copy with the next number and without a signature, to be changed.
func (l *List) Successor() *List {
	return &List{Number: l.Number + 1, ClusterID: l.ClusterID, Members: slices.Clone(l.Members), ClusterKey: l.ClusterKey}
}

// Put adds or replaces a member and keeps the order.
func (l *List) Put(m Member) {
	l.Drop(m.NodeID)
	l.Members = append(l.Members, m)
	slices.SortFunc(l.Members, func(a, b Member) int { return strings.Compare(a.NodeID, b.NodeID) })
}

// Drop takes a member off.
func (l *List) Drop(nodeID string) {
	l.Members = slices.DeleteFunc(l.Members, func(m Member) bool { return m.NodeID == nodeID })
}

// message is what is signed, all integers big-endian, every string with its length (4) before it:
//
//	"conclave members v1\x00" ‖ number (8) ‖ cluster id ‖ cluster key ‖ count (4) ‖ { node id ‖ TLS ‖ HPKE ‖ audit key } …
func (l *List) message() []byte {
	b := []byte("conclave members v1\x00")
	field := func(f []byte) {
		b = binary.BigEndian.AppendUint32(b, uint32(len(f)))
		b = append(b, f...)
	}
	b = binary.BigEndian.AppendUint64(b, l.Number)
	field([]byte(l.ClusterID))
	field(l.ClusterKey)
	b = binary.BigEndian.AppendUint32(b, uint32(len(l.Members)))
	for _, m := range l.Members {
		field([]byte(m.NodeID))
		field(m.TLSPublic)
		field(m.HPKEPublic)
		field(m.AuditPublic)
	}
	return b
}

// Sign sets key and signature.
func (l *List) Sign(public ed25519.PublicKey, sign func([]byte) []byte) error {
	l.ClusterKey = bytes.Clone(public)
	l.Signature = sign(l.message())
	return l.check()
}

// check reports what is wrong with a list in itself, signature included.
func (l *List) check() error {
	switch {
	case l.Number == 0:
		return errors.New("list of members has no number")
	case !disk.ValidClusterID(l.ClusterID):
		return errors.New("list of members has no cluster id")
	case len(l.Members) == 0 || len(l.Members) > MaxMembers:
		return fmt.Errorf("list of members has %d entries, 1 to %d are allowed", len(l.Members), MaxMembers)
	}
	for i, m := range l.Members {
		switch {
		case !ValidNodeID(m.NodeID):
			return errors.New("list of members has a bad node id")
		case i > 0 && l.Members[i-1].NodeID >= m.NodeID:
			return errors.New("list of members isn't sorted")
		case len(m.TLSPublic) != sha256.Size || len(m.HPKEPublic) > maxPublicKey || len(m.AuditPublic) > maxPublicKey:
			return fmt.Errorf("list of members has bad keys for %s", m.NodeID)
		case len(m.Address) > MaxAddress || len(m.ServerID) > MaxAddress:
			return fmt.Errorf("list of members has a bad address for %s", m.NodeID)
		}
	}
	if !l.Signed() {
		if len(l.Signature) > 0 {
			return errors.New("list of members has a signature but no key")
		}
		return nil
	}
	if len(l.ClusterKey) != ed25519.PublicKeySize || !ed25519.Verify(l.ClusterKey, l.message(), l.Signature) {
		return errors.New("list of members has a wrong signature")
	}
	return nil
}

// Limits of a member's fields in bytes.
const (
	maxPublicKey = 4 << 10 // post-quantum keys are long
	MaxAddress   = 256
)

// Encode gives the stored form: JSON.
func (l *List) Encode() ([]byte, error) {
	if err := l.check(); err != nil {
		return nil, err
	}
	b, err := json.Marshal(l)
	if err == nil && len(b) > MaxBytes {
		err = errors.New("list of members is too long")
	}
	return b, err
}

// Decode parses and verifies a stored list, its signature included if it has one. Whether that is by the right key
// is for the roster to say.
func Decode(b []byte) (*List, error) {
	if len(b) > MaxBytes {
		return nil, errors.New("list of members is too long")
	}
	l := new(List)
	if err := json.Unmarshal(b, l); err != nil {
		return nil, errors.New("list of members doesn't parse")
	}
	return l, l.check()
}
