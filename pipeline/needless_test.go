package pipeline

import (
	"context"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"conclave"
	"conclave/policy"
	"conclave/store"
)

// A route prepares only what its Gather finds to be needed, and what was prepared for another state doesn't reach the
// handler.
func TestNeedlessPreparationIsLeftOut(t *testing.T) {
	d := newDuo(t)
	s := store.New(d.follower, d, time.Now)
	var prepared int
	var seen any
	route := conclave.WriteRoute(conclave.Update, "probe", "Writes.",
		func(ctx context.Context, _ conclave.Tx, _ *conclave.None) (*conclave.None, error) {
			seen, _ = conclave.Prepared[any](ctx)
			return nil, nil
		})
	route.Gather = func(view conclave.View, _ any) (any, error) {
		value, err := view.Get("probe/x")
		if string(value) == "fast" {
			return conclave.NoPreparation{}, err
		}
		return string(value), err
	}
	route.Prepare = func(context.Context, *conclave.Request, any) (any, error) {
		if prepared++; prepared == 2 {
			d.put(s, "fast") // while the slow work is done
		}
		return "slow", nil
	}
	p := New(Config{Store: s, Recorder: NewRecorder("n1"), Gate: &Gate{}, Policies: policy.NewCache(),
		System: []conclave.Route{route}, Logger: hclog.NewNullLogger()})
	root := d.found(s)
	for _, row := range []struct {
		stored   string
		prepared int // all in all
		seen     any
	}{{"slow", 1, "slow"}, {"slow", 2, nil}, {"fast", 2, nil}} {
		d.put(s, row.stored)
		seen = "nothing was handled"
		_, err := p.Handle(t.Context(), &conclave.Request{ID: "r1", Operation: conclave.Update, Path: "sys/probe", Token: root})
		if err != nil || prepared != row.prepared || seen != row.seen {
			t.Errorf("%s: %v, prepared %d times, the handler saw %v; want %d times and %v", row.stored, err, prepared, seen, row.prepared, row.seen)
		}
	}
}
