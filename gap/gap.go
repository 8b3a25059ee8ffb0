// Package gap counts answers that left without an audit record, until a record says how many there were. Such answers hold
// nothing and acknowledge nothing, but those of ceremonies.
package gap

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"sync"
	"time"

	"conclave"
)

// Class is why an answer left without a record of its own.
type Class int

// The classes.
const (
	Sealed      Class = iota // the node was sealed, or there was no vault yet
	Unavailable              // nothing could be committed: no quorum, no room, or too much to do
	Unsure                   // the outcome was not known at the deadline; the record may be in the log
	Failed                   // a defect or a failing machine
	Malformed                // the request can't be read: refused before any token or login was looked at
	Crowded                  // too many requests at once: refused before any token or login was looked at
	Flooded                  // too many failed logins before it: refused before any token or login was looked at
	Ceremony                 // init, or a share of the unseal key: outside transactions
	classes
)

var classNames = [classes]string{"sealed", "unavailable", "unsure", "failed", "malformed", "crowded", "flooded", "ceremony"}

// String is the class as gap records and metrics name it.
func (c Class) String() string { return classNames[c] }

// Classes are all there are.
func Classes() []Class {
	list := make([]Class, classes)
	for i := range list {
		list[i] = Class(i)
	}
	return list
}

// ClassOf is the class of a request that ended with this error, unrecorded.
func ClassOf(err error) Class {
	switch conclave.KindOf(err) {
	case conclave.Sealed:
		return Sealed
	case conclave.Unavailable:
		return Unavailable
	case conclave.Unknown:
		return Unsure
	case conclave.Limited:
		return Flooded
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return Unsure
	}
	return Failed
}

// Gap is what a node has answered without records: how often, by class, from when to when by its own clock.
type Gap struct {
	From   time.Time         `json:"from"`
	To     time.Time         `json:"to"`
	Counts map[string]uint64 `json:"counts"` // name of the class → answers
}

// merge adds an other gap, earlier or later.
func (g *Gap) merge(other *Gap) {
	if len(other.Counts) == 0 {
		return
	}
	if len(g.Counts) == 0 {
		g.From, g.To, g.Counts = other.From, other.To, map[string]uint64{}
	}
	if other.From.Before(g.From) {
		g.From = other.From
	}
	if other.To.After(g.To) {
		g.To = other.To
	}
	for _, class := range classNames { // and no other, so that what was kept in a file can't make it grow
		if n := other.Counts[class]; n > 0 {
			g.Counts[class] += min(n, math.MaxUint64-g.Counts[class])
		}
	}
}

// Count counts answers without a record, until a gap record says how many there were. It is safe for concurrent use.
type Count struct {
	now func() time.Time

	mu       sync.Mutex // guards all below
	open     Gap        // what no gap record says yet
	counts   [classes]uint64
	recorded uint64
}

// New makes an empty count. now is the node's clock.
func New(now func() time.Time) *Count { return &Count{now: now} }

// Note counts an answer.
func (g *Count) Note(class Class) {
	now := g.now().UTC()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.counts[class]++
	g.open.merge(&Gap{From: now, To: now, Counts: map[string]uint64{class.String(): 1}})
}

// Total is how many answers of a class this process has counted.
func (g *Count) Total(class Class) uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.counts[class]
}

// Recorded is how many gap records this process has committed.
func (g *Count) Recorded() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.recorded
}

// Open is what no gap record says yet; it has no counts if that is nothing.
func (g *Count) Open() Gap {
	g.mu.Lock()
	defer g.mu.Unlock()
	var open Gap
	open.merge(&g.open)
	return open
}

// Add takes what an earlier process had counted.
func (g *Count) Add(earlier Gap) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open.merge(&earlier)
}

// Record has commit write a gap record of what is open, if there is anything. After an error all of it is open as before; if
// the outcome was unknown, so that the log may hold the record, the next one counts the same again.
func (g *Count) Record(commit func(*Gap) error) error {
	g.mu.Lock()
	gap := g.open
	g.open = Gap{}
	g.mu.Unlock()
	if len(gap.Counts) == 0 {
		return nil
	}
	err := commit(&gap)
	g.mu.Lock()
	defer g.mu.Unlock()
	if err != nil {
		g.open.merge(&gap)
		return err
	}
	g.recorded++
	return nil
}

// maxGap bounds the stored form of a gap, in bytes.
const maxGap = 4096

// Encode is the form in which a node keeps a gap over a restart: JSON as in the gap's record.
func Encode(g Gap) []byte {
	b, err := json.Marshal(g)
	if err != nil {
		panic("encode a gap: " + err.Error())
	}
	return append(b, '\n')
}

// Decode reads what Encode wrote.
func Decode(b []byte) (Gap, error) {
	var stored, g Gap
	if len(b) > maxGap || json.Unmarshal(b, &stored) != nil || stored.From.After(stored.To) {
		return Gap{}, errors.New("malformed count of unrecorded answers")
	}
	g.merge(&stored)
	return g, nil
}
