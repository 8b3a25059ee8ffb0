package pipeline

import (
	"context"
	"encoding/json"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"conclave"
	"conclave/audit"
	"conclave/policy"
	"conclave/store"
)

// recorded is what tests look at in a record.
type recorded struct {
	Request struct {
		ID      string
		Attempt int
		Path    string
		Data    map[string]any
	}
	Response, Error string
}

// records are those of the leader's log.
func (d *duo) records(s *store.Store) []recorded {
	d.t.Helper()
	tx, err := s.Begin()
	if err != nil {
		d.t.Fatal(err)
	}
	defer tx.Close()
	opener, err := audit.NewOpener(tx.Cluster(), tx.Keyring().AuditData, tx.Keyring().AuditPrivate)
	if err != nil {
		d.t.Fatal(err)
	}
	var list []recorded
	err = d.leader.Audit().Read(d.t.Context(), 0, func(f audit.Frame) bool {
		_, plain, err := opener.Open(f.Digest, f.Box)
		if err != nil {
			d.t.Fatal(err)
		}
		record, err := audit.DecodeRecord(plain)
		if err != nil {
			d.t.Fatal(err)
		}
		r := recorded{Response: string(record.Response), Error: string(record.Error)}
		if err := json.Unmarshal(record.Request, &r.Request); err != nil {
			d.t.Fatal(err)
		}
		list = append(list, r)
		return true
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return list
}

// bench is a pipeline with one route, sys/probe.
type bench struct {
	*duo
	store    *store.Store
	pipeline *Pipeline
	root     conclave.Secret
}

func newBench(t *testing.T, probe conclave.Route) *bench {
	t.Helper()
	d := newDuo(t)
	s := store.New(d.follower, d, time.Now)
	p := New(Config{Store: s, Recorder: NewRecorder("n1"), Gate: &Gate{}, Policies: policy.NewCache(),
		System: []conclave.Route{probe}, Logger: hclog.NewNullLogger()})
	return &bench{d, s, p, d.found(s)}
}

func (b *bench) probe(t *testing.T) (*conclave.Response, error) {
	t.Helper()
	return b.pipeline.Handle(t.Context(), &conclave.Request{ID: "r1", Operation: conclave.Update, Path: "sys/probe", Token: b.root})
}

func finishing(finish func() (*conclave.Response, error)) conclave.Route {
	route := conclave.WriteRoute(conclave.Update, "probe", "Acts.",
		func(context.Context, conclave.Tx, *conclave.None) (*conclave.None, error) { return nil, nil })
	route.Finish = func(context.Context, *conclave.Request, any) (*conclave.Response, error) { return finish() }
	return route
}

func TestWhatFinishingAnswersIsRecordedBeforeItLeaves(t *testing.T) {
	b := newBench(t, finishing(func() (*conclave.Response, error) {
		return &conclave.Response{Data: map[string]any{"token": "for-the-new-node"}}, nil
	}))
	resp, err := b.probe(t)
	if err != nil || resp.Index != b.leader.Applied() {
		t.Fatalf("%+v, %v, want an answer of index %d", resp, err, b.leader.Applied())
	}
	list := b.records(b.store)
	if len(list) != 2 || list[1].Request.ID != "r1" || list[0].Request.Attempt != 1 || list[1].Request.Attempt != 2 {
		t.Fatalf("records = %+v, want attempts 1 and 2 of r1", list)
	}
	if answer := list[1].Response; !strings.Contains(answer, "hmac-sha256:") || strings.Contains(answer, "for-the-new-node") {
		t.Errorf("the last record's response is %s, want the token's hash", answer)
	}
}

func TestFailedFinishIsRecorded(t *testing.T) {
	for name, finish := range map[string]func() (*conclave.Response, error){
		"error": func() (*conclave.Response, error) {
			return nil, conclave.Errorf(conclave.Invalid, "too few would be left")
		},
		"panic": func() (*conclave.Response, error) { panic("here") },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, finishing(finish))
			_, err := b.probe(t)
			list := b.records(b.store)
			if err == nil || len(list) != 2 || list[1].Error != `"`+err.Error()+`"` || list[1].Response != "" {
				t.Errorf("answered %v, records %+v", err, list)
			}
		})
	}
}

func TestFinishThatChangesNothingHasOneRecord(t *testing.T) {
	b := newBench(t, finishing(func() (*conclave.Response, error) { return &conclave.Response{}, nil }))
	if _, err := b.probe(t); err != nil {
		t.Fatal(err)
	}
	if list := b.records(b.store); len(list) != 1 {
		t.Errorf("records = %+v, want 1", list)
	}
}

func TestAnswerThatCannotBeRecordedDoesNotLeave(t *testing.T) {
	var b *bench
	for name, outcome := range map[string]error{"answer": nil, "failure": conclave.Errorf(conclave.Invalid, "told")} {
		t.Run(name, func(t *testing.T) {
			b = newBench(t, finishing(func() (*conclave.Response, error) {
				b.store.Lock()
				return &conclave.Response{Data: map[string]any{"token": "secret"}}, outcome
			}))
			if resp, err := b.probe(t); resp != nil || !conclave.Is(err, conclave.Unknown) {
				t.Errorf("%+v, %v left without a record", resp, err)
			}
		})
	}
}

// What finishes a request sees what it has committed, though this node learns of it late.
func TestFinishSeesWhatWasCommitted(t *testing.T) {
	var b *bench
	route := conclave.WriteRoute(conclave.Update, "probe", "Writes.",
		func(_ context.Context, tx conclave.Tx, _ *conclave.None) (*conclave.None, error) {
			return nil, tx.Put("probe/x", []byte("written"))
		})
	var seen string
	route.Finish = func(context.Context, *conclave.Request, any) (*conclave.Response, error) {
		return nil, b.store.Look("", func(system conclave.Tx) error {
			value, err := system.Get("probe/x")
			seen = string(value)
			return err
		})
	}
	b = newBench(t, route)
	b.lag(true)
	applied := b.follower.Applied()
	done := make(chan struct{})
	go func() { // the follower gets it when the leader has it for a while
		defer close(done)
		for b.leader.Applied() == applied && t.Context().Err() == nil {
			runtime.Gosched()
		}
		for range 1000 {
			runtime.Gosched()
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		b.follower.ApplyBatch(b.log)
	}()
	if _, err := b.probe(t); err != nil {
		t.Fatal(err)
	}
	<-done
	if seen != "written" {
		t.Errorf("finishing saw %q, want what was written", seen)
	}
}

func TestWhatCannotBeWrappedIsNotDone(t *testing.T) {
	acts := 0
	route := conclave.WriteRoute(conclave.Update, "probe", "Acts.", func(context.Context, conclave.Tx, *conclave.None) (*conclave.Response, error) {
		return &conclave.Response{Data: map[string]any{"version": 2}}, nil
	})
	route.Prepare = func(context.Context, *conclave.Request, any) (any, error) { acts++; return nil, nil }
	route.Finish = func(context.Context, *conclave.Request, any) (*conclave.Response, error) { return nil, nil }
	b := newBench(t, route)
	_, err := b.pipeline.Handle(t.Context(), &conclave.Request{ID: "r1", Operation: conclave.Update, Path: "sys/probe", Token: b.root, WrapTTL: time.Minute})
	if !conclave.Is(err, conclave.Invalid) || acts != 0 {
		t.Errorf("it acted %d times, and answered %v", acts, err)
	}
	if _, err := b.probe(t); err != nil || acts != 1 {
		t.Errorf("without wrapping it acted %d times, and answered %v", acts, err)
	}
}
