package enginetest

import (
	"context"
	"testing"
	"time"

	"conclave"
)

func lodgingLease(*Harness) (conclave.Operation, string, map[string]any) {
	return conclave.Read, "creds/app", nil
}

func TestLodgingConforms(t *testing.T) {
	Conformance(t, NewOutside().Plugin("lodging"), WithLease(lodgingLease), AnswersAbsent("creds/{role}", "suites/{role}"))
}

// sloppy breaks the promises that it is told to.
type sloppy struct {
	lodging
	panics, keeps, strict, restless bool
}

func (s *sloppy) GatherRevoke(view conclave.View, lease *conclave.GrantedLease) (any, error) {
	if s.panics {
		return lease.Data[:4], nil
	}
	return s.lodging.GatherRevoke(view, lease)
}

func (s *sloppy) Revoke(ctx context.Context, lease *conclave.GrantedLease, gathered any) error {
	name, _ := gathered.(string)
	if s.strict && len(s.outside.Accounts()) == 0 {
		return conclave.Errorf(conclave.NotFound, "no account %s", name)
	}
	return s.lodging.Revoke(ctx, lease, gathered)
}

func (s *sloppy) ForgetLease(tx conclave.Tx, lease *conclave.GrantedLease) error {
	if s.keeps {
		return nil
	}
	return s.lodging.ForgetLease(tx, lease)
}

func (s *sloppy) BeginWork(ctx context.Context, tx conclave.Tx, name string) (any, error) {
	if s.restless {
		return nil, tx.Wake(name, tx.Now().Add(time.Hour))
	}
	return s.lodging.BeginWork(ctx, tx, name)
}

func TestConformanceFindsBrokenPromises(t *testing.T) {
	for text, broken := range map[string]*sloppy{
		"panicked":                           {panics: true},
		"":                                   {},
		"leaves \"account/":                  {keeps: true},
		"Revoke of what may be gone already": {strict: true},
		"which is gone, has it begun again":  {restless: true},
	} {
		broken.lodging = lodging{"sloppy", NewOutside()}
		r := &recorder{TB: t}
		fresh := func(tb testing.TB) *Harness { return New(tb, broken, WithLease(lodgingLease)) }
		checkLeaser(r, broken, fresh)
		checkWorker(r, broken, fresh)
		if want := !(broken.panics || broken.keeps || broken.strict || broken.restless); want {
			if len(r.reports) > 0 {
				t.Errorf("an engine that keeps its promises is reported: %q", r.reports)
			}
		} else if !r.has(text) {
			t.Errorf("reports are %q, want one with %q", r.reports, text)
		}
	}
}
