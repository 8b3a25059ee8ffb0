// Package agreement finds the replica whose state isn't that of the others.
//
// The leader names an index. Every node takes its state as of exactly that index, hashes it in the background at a bounded
// rate, and asks the voters for theirs. A node that differs from a majority of the voters, while these agree, stops
// serving, and stays so until its data directory is gone: what it would answer, and as a leader judge, can't be trusted.
//
// Each node decides about itself alone, by what the majority says and never by what the leader does. Where no majority
// agrees nobody can know who is right: that is told, and nothing else happens. What is compared is the replicated state;
// the log, and the audit log's files, have checksums and chains of their own.
package agreement

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"

	"conclave"
	"conclave/fsm"
	"conclave/internal/durable"
)

// Methods that nodes call on each other.
const (
	callCut     = "agreement.cut"     // index 8: hash your state as of it; Precondition if it has passed
	callSum     = "agreement.sum"     // index 8 → ranges; Unavailable if they aren't there yet, NotFound if they won't be
	callCompare = "agreement.compare" // to the leader: have all compare → index 8
)

// Limits.
const (
	defaultInterval = time.Hour
	defaultRate     = 8 << 20 // bytes a second: a few hundredths of a core
	firstPart       = 12      // the first comparison is due after this part of the interval
	reachLimit      = 5 * time.Second
	callLimit       = 2 * time.Second
	minPause        = 100 * time.Millisecond // between asking others
	maxPause        = 15 * time.Second
	compareLimit    = time.Hour // from when this node's own hashes are there
	maxDenials      = 8         // of a node to have hashes, until it is believed; with the pauses about 12 s
	attempts        = 8         // to find an index that no node has passed
	firstMargin     = 64        // entries
	marginStep      = 8
	maxMark         = 1 << 20 // bytes of the mark's file
)

// Handler answers calls of other members, as the cluster's does.
type Handler func(ctx context.Context, body []byte) ([]byte, error)

// Options configure a Checker. Fields without a default are required.
type Options struct {
	Dir    string // the data directory, where the mark of a node that differs is kept
	NodeID string
	State  *fsm.FSM
	// Call calls a method of a member, this node included.
	Call func(ctx context.Context, nodeID, method string, body []byte) ([]byte, error)
	// Handle registers a method.
	Handle func(method string, handler Handler)
	// Members are all nodes that replicate, Voters those whose word counts.
	Members, Voters func() []string
	// Leader is the node id of the leader, "" if none is known.
	Leader func() string
	// Differs is called, at most once, when this node is found to differ; at the start, if it was before.
	Differs  func(err error)
	Interval time.Duration // between comparisons; default an hour
	Rate     int           // bytes a second that are hashed; default 8 MiB
	Logger   hclog.Logger
}

// Checker compares this node's state with that of the others.
type Checker struct {
	Options
	began time.Time
	wake  chan struct{} // a job is pending

	mu      sync.Mutex // guards what follows
	pending *job
	cancel  context.CancelFunc // of the job that runs; nil if none does
	last    *sum               // the newest one of this node
	status  Status
	due     time.Duration // of the next comparison, since began
	differs bool          // it was told
}

// sum is this node's hashes as of an index.
type sum struct {
	index  uint64
	ranges []fsm.Range // nil while they are being made
}

// The phases of a comparison, and what a node can come to.
const (
	None      = ""          // nothing was compared yet
	Hashing   = "hashing"   // this node reads its state
	Comparing = "comparing" // others are asked
	Agrees    = "agrees"    // with a majority of the voters
	Differs   = "differs"   // from a majority of the voters
	Undecided = "undecided" // no majority agrees, or too few answered
	Unheard   = "not heard" // a node that gave no hashes
)

// Status is the newest comparison as this node knows it.
type Status struct {
	Index   uint64            `json:"index" doc:"Of the log: the states as of it were compared; 0 before the first time."`
	Result  string            `json:"result" doc:"Of this node: hashing or comparing while that goes on, then agrees, differs or undecided."`
	Nodes   map[string]string `json:"nodes" doc:"Each voter: agrees or differs with the majority; undecided without one; or not heard."`
	Ranges  []string          `json:"ranges" doc:"In which nodes differ: class and space, audit or position."`
	Differs string            `json:"differs,omitempty" doc:"Why this node doesn't serve. It needs an empty data directory and a new admission."`
}

// mark is kept by a node that differs.
type mark struct {
	Index  uint64   `json:"index"`
	Ranges []string `json:"ranges"` // in which it does
}

const markFile = "differs.json"

// New returns a Checker and registers its methods. Nothing happens before Run.
func New(o Options) (*Checker, error) {
	if o.Interval == 0 {
		o.Interval = defaultInterval
	}
	if o.Rate == 0 {
		o.Rate = defaultRate
	}
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	c := &Checker{Options: o, began: time.Now(), wake: make(chan struct{}, 1), due: o.Interval / firstPart}
	b, err := durable.ReadFile(vfs.Default, filepath.Join(o.Dir, markFile), maxMark)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("read whether this node differs from the cluster: %w", err)
	default:
		var m mark
		if err := json.Unmarshal(b, &m); err != nil {
			m = mark{Ranges: []string{"unknown"}} // that it differs is what counts
		}
		c.tell(m, false)
	}
	o.Handle(callCut, c.cut)
	o.Handle(callSum, c.sum)
	o.Handle(callCompare, func(ctx context.Context, _ []byte) ([]byte, error) {
		index, err := c.announce(ctx)
		return binary.BigEndian.AppendUint64(nil, index), err
	})
	return c, nil
}

// Status tells of the newest comparison.
func (c *Checker) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.status
	if s.Nodes == nil {
		s.Nodes, s.Ranges = map[string]string{}, []string{}
	}
	return s
}

// Compare has all nodes compare their states, and returns the index as of which. It doesn't wait for the result.
func (c *Checker) Compare(ctx context.Context) (index uint64, err error) {
	leader := c.Leader()
	if leader == "" {
		return 0, conclave.Errorf(conclave.Unavailable, "there is no leader")
	}
	b, err := c.Call(ctx, leader, callCompare, nil)
	if err == nil && len(b) != 8 {
		err = conclave.Errorf(conclave.Unavailable, "the leader's answer can't be read")
	}
	if err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint64(b), nil
}

// tell says that this node differs, once, and notes it on disk if it isn't yet.
func (c *Checker) tell(m mark, keep bool) {
	err := conclave.Errorf(conclave.Unavailable, "this node's state differs from that of a majority of the cluster, as of index %d, in %s: "+
		"it does not serve; remove it from the cluster, empty its data directory, and admit it as a new node", m.Index, strings.Join(m.Ranges, ", "))
	c.mu.Lock()
	told := c.differs
	c.differs, c.status.Differs = true, err.Error()
	c.mu.Unlock()
	if told {
		return
	}
	c.Logger.Error("this node does not serve", "error", err)
	c.Options.Differs(err)
	if keep {
		c.keepMark(m)
	}
}

// keepMark makes sure that this node doesn't serve again when it is started anew.
func (c *Checker) keepMark(m mark) {
	b, err := json.Marshal(m)
	if err == nil {
		err = durable.WriteFile(vfs.Default, filepath.Join(c.Dir, markFile), append(b, '\n'))
	}
	if err != nil {
		c.Logger.Error("this node could not note that it differs from the cluster: don't start it again", "error", err)
	}
}
