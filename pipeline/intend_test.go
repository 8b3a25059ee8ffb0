package pipeline

import (
	"context"
	"crypto/rand"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"conclave"
	"conclave/engine/enginetest"
	"conclave/fsm"
	"conclave/lease"
	"conclave/mount"
	"conclave/policy"
	"conclave/store"
)

// unsure is a cluster that says once that it doesn't know what came of a transaction, which is committed.
type unsure struct {
	*duo
	once atomic.Bool
}

func (u *unsure) Commit(ctx context.Context, tx *fsm.Transaction) (fsm.Outcome, error) {
	outcome, err := u.duo.Commit(ctx, tx)
	if u.once.CompareAndSwap(true, false) {
		return fsm.Outcome{}, conclave.Errorf(conclave.Unknown, "the outcome isn't known")
	}
	return outcome, err
}

// inn is a vault with an engine that makes accounts.
type inn struct {
	*Pipeline
	*unsure
	store   *store.Store
	outside *enginetest.Outside
	root    conclave.Secret
}

func newInn(t *testing.T) *inn {
	t.Helper()
	u := &unsure{duo: newDuo(t)}
	s := store.New(u.follower, u, time.Now)
	outside := enginetest.NewOutside()
	p := New(Config{Store: s, Recorder: NewRecorder("n1"), Gate: &Gate{}, Policies: policy.NewCache(), Plugins: []conclave.Plugin{outside.Plugin("lodging")}, Random: rand.Reader,
		DefaultTTL: time.Hour, MaxTTL: 24 * time.Hour, Logger: hclog.NewNullLogger()})
	i := &inn{p, u, s, outside, u.found(s)}
	err := s.Change(t.Context(), "", func(_ *store.Tx, system conclave.System) error {
		return mount.Add(system, "rooms/", "lodging", nil, "", rand.Reader)
	})
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// leases are those that run, and those that are to be ended.
func (i *inn) leases(t *testing.T) (running, ending int) {
	t.Helper()
	err := i.store.Look("", func(system conclave.Tx) (err error) {
		if running, _, err = lease.CountBelow(system, "rooms", "", 100); err == nil {
			ending, err = lease.Queued(system, 100)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return running, ending
}

// A lease that was confirmed is ended if its node doesn't know that, since nobody gets the answer; what is answered has both
// records.
func TestLeaseThatNobodyIsAnsweredIsEnded(t *testing.T) {
	i := newInn(t)
	i.outside.Handled(func() { i.once.Store(true) })
	_, err := i.Handle(t.Context(), &conclave.Request{ID: "r1", Operation: conclave.Read, Path: "rooms/suites/app", Token: i.root})
	if !conclave.Is(err, conclave.Unknown) {
		t.Fatalf("answered %v, want that nobody knows", err)
	}
	if running, ending := i.leases(t); running != 0 || ending != 1 {
		t.Errorf("%d leases run and %d are ending, want none and one", running, ending)
	}
	records := i.records(i.store)
	if len(records) != 2 || records[0].Request.Attempt == records[1].Request.Attempt || records[1].Error == "" {
		t.Errorf("records are %+v, want one of the success and one of what was answered", records)
	}
}

// Without a quorum nothing is made outside.
func TestNothingIsMadeThatIsNotWrittenDown(t *testing.T) {
	i := newInn(t)
	i.fail.Store(true)
	if _, err := i.Handle(t.Context(), &conclave.Request{ID: "r1", Operation: conclave.Read, Path: "rooms/suites/app", Token: i.root}); !conclave.Is(err, conclave.Unavailable) {
		t.Errorf("without a quorum: %v", err)
	}
	if accounts := i.outside.Accounts(); len(accounts) != 0 {
		t.Errorf("accounts %v were made", accounts)
	}
}

// A follower that learns late of what it has written down itself confirms it all the same.
func TestIntentOfALaggingNodeIsConfirmed(t *testing.T) {
	i := newInn(t)
	i.outside.Furnish(func(context.Context, string) error {
		go func() {
			i.mu.Lock()
			defer i.mu.Unlock()
			i.follower.ApplyBatch(i.duo.log)
		}()
		return nil
	})
	i.lag(true)
	resp, err := i.Handle(t.Context(), &conclave.Request{ID: "r1", Operation: conclave.Read, Path: "rooms/suites/app", Token: i.root})
	if err != nil || resp.Lease == nil {
		t.Fatalf("%+v, %v", resp, err)
	}
}
