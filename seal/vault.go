package seal

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"conclave"
	"conclave/cluster"
	"conclave/crypto"
	"conclave/fsm"
	"conclave/store"
)

// Limits.
const (
	shareLife    = time.Hour       // how long a submitted share is kept
	drainTimeout = 5 * time.Second // how long sealing waits for requests in flight
	peerTimeout  = 5 * time.Second // one message to another member
	arenaBytes   = 64 << 10        // locked memory for root key and shares
)

// Node is what the ceremonies need of the cluster.
type Node interface {
	Commit(ctx context.Context, tx *fsm.Transaction) (fsm.Outcome, error)
	CommitUrgent(ctx context.Context, tx *fsm.Transaction) (fsm.Outcome, error)
	Self() cluster.Member
	Members() []cluster.Member
	Handle(method string, handler func(ctx context.Context, from cluster.Member, body []byte) ([]byte, error))
	Call(ctx context.Context, nodeID, method string, body []byte) ([]byte, error)
	SetReady(ready bool)
	Now() time.Time
}

// Gate stops requests before the vault closes.
type Gate interface {
	Drain(ctx context.Context) error
	Resume()
}

// Config is what a Vault works with.
type Config struct {
	Store *store.Store
	State *fsm.FSM
	Node  Node
	Gate  Gate
	// HPKEPrivate opens what other members seal to this node.
	HPKEPrivate []byte
	// StaticKey is the 32-byte key of the static seal; nil means that only shares open the vault.
	StaticKey []byte
	// MinVoters is how many voters initialisation waits for: bootstrap_expect.
	MinVoters int
	// ClusterID names the Raft cluster.
	ClusterID func() [16]byte
	// Found fills the system space of a new vault: mount table, policies. It runs in the transaction that makes it.
	Found func(tx conclave.System) error
	// Closed is told, once, that this node was sealed, so that the process can be replaced.
	Closed func()
	Logger hclog.Logger
}

// Vault is this node's half of the seal: what it holds of the key, and how it got there. It is safe for concurrent use.
type Vault struct {
	Config
	arena *crypto.Arena

	opening sync.Mutex // held while this node opens; before mu

	mu     sync.Mutex           // guards all below
	shares map[int]heldShare    // position among the blob's hashes → share
	nonce  string               // of the running ceremony; "" before its first share
	owed   map[string]bool      // node id → it did not get the shares that were passed on last
	root   *crypto.Held         // nil while sealed
	seals  uint64               // how often this node was told to seal itself
	last   map[string]time.Time // reason → when it was last recorded, to bound records of sealed nodes
}

type heldShare struct {
	share *crypto.Held
	since time.Time
	salt  [32]byte // of the blob that it belongs to
}

// New makes the sealed half and listens to other members.
func New(config Config) (*Vault, error) {
	arena, err := crypto.NewArena(arenaBytes)
	if err != nil {
		return nil, err
	}
	v := &Vault{Config: config, arena: arena, shares: map[int]heldShare{}, last: map[string]time.Time{}}
	v.Node.Handle(methodShares, v.receiveShares)
	v.Node.Handle(methodFetch, v.lendShares)
	v.Node.Handle(methodReset, v.receiveReset)
	v.Node.Handle(methodOpened, v.receiveOpened)
	v.Node.Handle(methodClose, v.receiveClose)
	return v, nil
}

// Status is the state of the seal on this node.
type Status struct {
	Kind        string
	Initialized bool
	Sealed      bool
	Shares      int
	Threshold   int
	Progress    int
	Nonce       string
	Cluster     [16]byte
}

// Status returns the state of the seal on this node.
func (v *Vault) Status() (Status, error) {
	b, _, _, err := v.blob()
	if err != nil {
		return Status{}, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.expireLocked()
	s := Status{Kind: kindShamir, Sealed: v.root == nil}
	if v.StaticKey != nil {
		s.Kind = kindStatic
	}
	if b == nil {
		return s, nil
	}
	s.Initialized, s.Kind, s.Cluster = true, b.Kind, b.cluster()
	s.Shares, s.Threshold = b.Shares, b.Threshold
	v.keepOnlyLocked(b)
	if s.Sealed {
		s.Progress, s.Nonce = len(v.shares), v.nonce
	}
	return s, nil
}

// Sealed reports whether this node is sealed.
func (v *Vault) Sealed() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.root == nil
}

// blob reads the seal blob from this node's state, nil if the vault isn't initialised.
func (v *Vault) blob() (b *blob, item, tag []byte, err error) {
	stored, err := v.plain(blobItem)
	if err != nil {
		return nil, nil, nil, err
	}
	return readBlob(stored)
}

func (v *Vault) plain(name string) ([]byte, error) {
	view := v.State.View()
	defer view.Release()
	_, value, err := view.Get(store.PlainKey(name))
	if err != nil {
		return nil, err
	}
	return append([]byte(nil), value...), nil
}

// Close wipes what is held. It is for the end of the process.
func (v *Vault) Close() error {
	v.Store.Lock()
	return v.arena.Close()
}
