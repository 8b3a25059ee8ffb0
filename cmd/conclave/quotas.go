package main

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"time"

	"conclave"
	"conclave/cluster"
	"conclave/mount"
	"conclave/namespace"
	"conclave/quota"
	"conclave/store"
	"conclave/token"
)

const (
	// callTokens asks the leader's ledger for tokens of rate limits. It works sealed.
	callTokens = "quota.tokens"
	// quotaPoll is the time in which a node comes to know of a quota that it has applied.
	quotaPoll = 50 * time.Millisecond
	// lookShare is how many times as long as a look took a node waits before the next: many namespaces with quotas take time.
	lookShare = 50
	// placesPause and placesBatch are how often the places of ended tokens are given back, and how many in one transaction.
	placesPause = time.Second
	placesBatch = 256
	// maxRecording is how many refusals are recorded at once; others are counted.
	maxRecording = 64
)

// quotas holds requests against the quotas.
type quotas struct {
	daemon  *daemon
	ledger  *quota.Ledger
	limiter *quota.Limiter

	recording chan struct{} // has an element for each refusal that is being recorded
}

func newQuotas(d *daemon) *quotas {
	q := &quotas{daemon: d, ledger: quota.NewLedger(time.Now, rand.Reader), recording: make(chan struct{}, maxRecording)}
	q.limiter = quota.NewLimiter(q, time.Now)
	d.cluster.Handle(callTokens, func(_ context.Context, _ cluster.Member, body []byte) ([]byte, error) {
		return q.ledger.Answer(body)
	})
	return q
}

// Ask has the leader's ledger answer.
func (q *quotas) Ask(ctx context.Context, body []byte) ([]byte, error) {
	leader, ok := q.daemon.cluster.Leader()
	if !ok {
		return nil, conclave.Errorf(conclave.Unavailable, "the cluster has no leader")
	}
	return q.daemon.cluster.Call(ctx, leader.NodeID, callTokens, body)
}

// Nodes is how many nodes serve clients.
func (q *quotas) Nodes() int { return len(q.daemon.cluster.Members()) }

// admit holds a request against the rate limits before anything but its head is read. What is refused is counted in the
// audit log, or recorded there one by one if that is wanted and can be.
func (q *quotas) admit(ctx context.Context, req *conclave.Request, setHeader func(name, value string)) error {
	err := q.limiter.Admit(ctx, quota.Request{Namespace: req.Namespace, Path: req.Path, Client: req.Remote.Addr()}, setHeader)
	if err == nil {
		return nil
	}
	if !q.limiter.Audited() || !q.record(ctx, req, err) {
		q.daemon.countUnread(err)
	}
	return err
}

// record records a refusal, if not too many others are being recorded.
func (q *quotas) record(ctx context.Context, req *conclave.Request, refusal error) bool {
	select {
	case q.recording <- struct{}{}:
		defer func() { <-q.recording }()
		return q.daemon.pipeline.RecordRefusal(ctx, req, refusal) == nil
	default:
		return false
	}
}

// follow has the limiter go by the definitions as they change, until ctx ends.
func (q *quotas) follow(ctx context.Context) error {
	for applied := uint64(0); ; {
		began := time.Now()
		if at := q.daemon.state.Applied(); at != applied && !q.daemon.store.Locked() {
			switch s, err := q.snapshot(); {
			case err == nil:
				q.limiter.Set(s)
				applied = at
			default:
				q.daemon.log.Debug("the quotas can't be looked up", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(max(quotaPoll, lookShare*time.Since(began))):
		}
	}
}

// snapshot is the quotas as this node has them, with the children of those namespaces whose quotas end with them.
func (q *quotas) snapshot() (*quota.Snapshot, error) {
	tx, err := q.daemon.store.Begin()
	if err != nil {
		return nil, err
	}
	defer tx.Close()
	rules, err := quota.Load(tx.System())
	if err != nil {
		return nil, err
	}
	children := map[string]*namespace.Table{} // path → what is directly below
	for _, path := range rules.Closed() {
		system, err := namespace.At(tx.System(), path)
		if err != nil {
			return nil, err
		}
		if system == nil {
			continue // the namespace is gone
		}
		if children[path], err = namespace.Load(system); err != nil {
			return nil, err
		}
	}
	inner := func(outer, name string) bool { return children[outer].Find(name) != nil }
	return &quota.Snapshot{Rules: rules, Inner: inner}, nil
}

// locateQuota finds the namespace and the mount that a quota's path names.
func locateQuota(tx conclave.Tx, path string) (at quota.Location, ok bool, err error) {
	system, isSystem := tx.(conclave.System)
	if !isSystem {
		return at, false, conclave.Errorf(conclave.Internal, "quotas are defined outside the system space")
	}
	for path != "" {
		name, below, _ := strings.Cut(path, "/")
		inner, err := namespace.At(system, name)
		if err != nil {
			return at, false, err
		}
		if inner == nil {
			break
		}
		system, path, at.Namespace = inner, below, at.Namespace+name+"/"
	}
	if path == "" {
		return at, true, nil
	}
	table, err := mount.Load(system, mount.Defaults{})
	if err != nil {
		return at, false, err
	}
	entry, rest, ok := table.Find(path)
	if !ok {
		return at, false, nil
	}
	at.Mount, at.Rest, at.Auth = entry.Path, rest, entry.Auth()
	return at, true, nil
}

// returnPlaces gives the places of tokens that have ended back to the lease counts that they were counted by, in all
// namespaces.
func (q *quotas) returnPlaces(ctx context.Context) error {
	for {
		if !q.daemon.store.Locked() {
			if err := q.returnAll(ctx); err != nil && ctx.Err() == nil {
				q.daemon.log.Debug("places of lease counts are given back later", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(placesPause):
		}
	}
}

func (q *quotas) returnAll(ctx context.Context) error {
	freed := map[conclave.Namespace][]string{} // namespace → names of tokens
	tx, err := q.daemon.store.Begin()
	if err != nil {
		return err
	}
	err = namespace.Walk(tx.System(), conclave.Namespace{ID: conclave.RootNamespace}, func(at conclave.Namespace, system conclave.System) error {
		names, err := token.Freed(system, placesBatch)
		if len(names) > 0 {
			freed[at] = names
		}
		return err
	})
	tx.Close()
	for at, names := range freed {
		err = errors.Join(err, q.daemon.inNamespace(ctx, at, func(tx *store.Tx, system conclave.System) error {
			counted, err := token.Uncount(system, names)
			for _, id := range counted {
				err = errors.Join(err, quota.GiveBack(tx.System(), system, id))
			}
			return err
		}))
	}
	return err
}

// forgetCounts gives the places of a namespace's leases back, in the transaction that deletes it.
func forgetCounts(system conclave.System) error {
	view, ok := system.(*store.View)
	if !ok {
		return conclave.Errorf(conclave.Internal, "a namespace is deleted outside of a transaction")
	}
	return quota.ForgetNamespace(view.Tx().System(), view)
}
