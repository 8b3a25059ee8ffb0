// Package feed connects package event with the parts of a node: it finds events in the audit log, decides who may know of
// them by the policies that requests are judged by, and lends webhooks the namespaces' spaces.
package feed

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"conclave"
	"conclave/audit"
	"conclave/event"
	"conclave/namespace"
	"conclave/policy"
	"conclave/store"
)

// Node is what a feed needs of the node.
type Node struct {
	Records audit.Source
	// Opener opens records with the keyring as it is after a Raft entry, or later.
	Opener func(ctx context.Context, index uint64) (*audit.Opener, error)
	Store  *store.Store
	// Standing decides a request again; see pipeline.Pipeline.Standing.
	Standing func(tx *store.Tx, req *conclave.Request) (*policy.Grant, conclave.Namespace, error)
	InQuorum func() bool
	Now      func() time.Time // cluster time
	Source   func() string    // who the messages are from: a URI
	Logger   hclog.Logger
}

// New makes what tells subscribers and webhooks what happened.
func New(n Node) *event.Service {
	stream := event.NewStream(&records{Node: n}, func(err error) {
		if !n.Store.Locked() {
			n.Logger.Warn("events can't be followed for now", "error", err)
		}
	})
	webhooks := event.NewWebhooks(event.WebhooksConfig{Stream: stream, Spaces: spaces{n.Store}, Source: n.Source, Now: n.Now,
		Report: func(msg string, args ...any) { n.Logger.Warn(msg, args...) }})
	return event.New(event.Config{Stream: stream, Judge: judge{n}, Source: n.Source, Webhooks: webhooks})
}

// records is the node's audit log with the events in its records.
type records struct {
	Node
	keys atomic.Pointer[audit.Opener] // of the newest keyring that was needed; nil at first
}

// Range is the number of the first record that is kept, and that of the next.
func (l *records) Range() (oldest, next uint64) {
	shown := l.Records.Shown()
	return shown.Base.Seq, shown.Seq
}

// Head is the chain's head after the first n records.
func (l *records) Head(ctx context.Context, n uint64) (head [32]byte, err error) {
	shown := l.Records.Shown()
	switch n {
	case shown.Seq:
		return shown.Head, nil
	case shown.Base.Seq:
		return shown.Base.Head, nil
	}
	found := false
	err = l.Records.Read(ctx, n-1, func(f audit.Frame) bool {
		head, found = f.Link, f.Seq == n-1
		return false
	})
	if err == nil && !found {
		err = errLogMoved
	}
	return head, movedOr(err)
}

// errLogMoved is a log that was cut or replaced while it was read: whoever comes again is told.
var errLogMoved = conclave.Errorf(conclave.Unavailable, "the log changed meanwhile: try again")

func movedOr(err error) error {
	if errors.Is(err, audit.ErrPruned) {
		return errLogMoved
	}
	return err
}

// Read visits records from a number on.
func (l *records) Read(ctx context.Context, from uint64, visit func(*event.Record) bool) error {
	var failed error
	err := l.Records.Read(ctx, from, func(f audit.Frame) bool {
		var r *event.Record
		if r, failed = l.decode(ctx, &f); failed != nil {
			return false
		}
		return visit(r)
	})
	return errors.Join(failed, movedOr(err))
}

func (l *records) decode(ctx context.Context, f *audit.Frame) (*event.Record, error) {
	r := &event.Record{Seq: f.Seq, Index: f.Index, Link: f.Link, Digest: f.Digest}
	if f.Start {
		return r, nil
	}
	keys := l.keys.Load()
	if keys == nil || !keys.Has(f.Box) {
		opener, err := l.Opener(ctx, f.Index)
		if err != nil {
			return nil, err
		}
		l.keys.Store(opener)
		keys = opener
	}
	_, plain, err := keys.Open(f.Digest, f.Box)
	if err != nil {
		return nil, err
	}
	record, err := audit.DecodeRecord(plain)
	if err != nil || len(record.Events) == 0 {
		return r, err
	}
	if r.Events, err = audit.DecodeEvents(record.Events); err != nil {
		return nil, err
	}
	return r, json.Unmarshal(record.Time, &r.Time)
}

// Wait returns when a record is there.
func (l *records) Wait(ctx context.Context, seq uint64) error { return l.Records.Wait(ctx, seq) }

// judge decides by the policies of whoever subscribed, as the node's state has them.
type judge struct{ Node }

// quorumPatience is how long events wait for a node to be back in touch with a quorum: what it doesn't know meanwhile may
// be that a token was revoked.
const (
	quorumPatience = 10 * time.Second
	quorumPause    = 50 * time.Millisecond
)

// Judge reports which of some events may be known, on a state that has a Raft entry.
func (j judge) Judge(ctx context.Context, req *conclave.Request, index uint64, events []*conclave.Occurrence) ([]bool, error) {
	if len(events) > 0 {
		if err := j.awaitQuorum(ctx); err != nil {
			return nil, err
		}
	}
	if err := j.Store.WaitApplied(ctx, index); err != nil {
		return nil, err
	}
	tx, err := j.Store.Begin()
	if err != nil {
		return nil, err
	}
	defer tx.Close()
	grant, home, err := j.Standing(tx, req)
	if err != nil {
		return nil, err
	}
	seen := make([]bool, len(events))
	places := map[conclave.Namespace]bool{} // namespace → whether it still is the one of that path
	for i, o := range events {
		there, known := places[o.Namespace]
		if !known {
			if there, err = isThere(tx, o.Namespace); err != nil {
				return nil, err
			}
			places[o.Namespace] = there
		}
		below, inside := strings.CutPrefix(o.Namespace.Path, home.Path)
		seen[i] = there && inside && grant.ACL.Sees(below+o.FullPath(), o.Type)
	}
	return seen, nil
}

func (j judge) awaitQuorum(ctx context.Context) error {
	patience, cancel := context.WithTimeout(ctx, quorumPatience)
	defer cancel()
	for !j.InQuorum() {
		select {
		case <-patience.Done():
			return conclave.Errorf(conclave.Unavailable, "this node has lost touch with the cluster")
		case <-time.After(quorumPause):
		}
	}
	return nil
}

// isThere reports whether a namespace is what its path leads to. What happened in an earlier one of the path concerns
// nobody who has it now.
func isThere(tx *store.Tx, at conclave.Namespace) (there bool, err error) {
	err = namespace.Descend(tx.System(), at.Path, func(found conclave.Namespace, _ conclave.System) error {
		there = found == at
		return nil
	})
	return there, err
}

// spaces are the namespaces as webhooks need them.
type spaces struct{ store *store.Store }

// Look shows each namespace.
func (s spaces) Look(ctx context.Context, index uint64, visit func(at conclave.Namespace, system conclave.View) error) error {
	if err := s.store.WaitApplied(ctx, index); err != nil {
		return err
	}
	tx, err := s.store.Begin()
	if err != nil {
		return err
	}
	defer tx.Close()
	return namespace.Walk(tx.System(), conclave.Namespace{ID: conclave.RootNamespace}, func(at conclave.Namespace, system conclave.System) error {
		return visit(at, system)
	})
}

// Change changes one.
func (s spaces) Change(ctx context.Context, at conclave.Namespace, change func(system conclave.Tx) error) error {
	return s.store.Change(ctx, at.Path, func(_ *store.Tx, system conclave.System) error { return change(system) })
}
