package pipeline

import (
	"context"
	"testing"

	"conclave"
	"conclave/audit"
	"conclave/fsm"
)

// eventsOf are the events in all records of the log, in order.
func (b *bench) eventsOf(t *testing.T) (events []conclave.Occurrence) {
	t.Helper()
	tx, err := b.store.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Close()
	ring := tx.Keyring()
	opener, err := audit.NewOpener(tx.Cluster(), ring.AuditData, ring.AuditPrivate)
	if err != nil {
		t.Fatal(err)
	}
	err = b.duo.leader.Audit().Read(t.Context(), 0, func(f audit.Frame) bool {
		if f.Start {
			return true
		}
		_, plain, err := opener.Open(f.Digest, f.Box)
		if err != nil {
			t.Fatal(err)
		}
		record, err := audit.DecodeRecord(plain)
		if err != nil {
			t.Fatal(err)
		}
		more, err := audit.DecodeEvents(record.Events)
		if err != nil {
			t.Fatal(err)
		}
		events = append(events, more...)
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return events
}

// Events are in the record of the request that made them happen: once, however often the request ran, and not at all if it
// failed.
func TestEventsAreRecordedWithTheirRequest(t *testing.T) {
	runs := 0
	b := newBench(t, conclave.WriteRoute(conclave.Update, "probe", "Emits.",
		func(_ context.Context, tx conclave.Tx, in *struct {
			Fail bool `json:"fail"`
		}) (*conclave.None, error) {
			runs++
			if err := tx.Emit(conclave.Event{Type: "test/probe", Path: "probe"}); err != nil {
				return nil, err
			}
			if in.Fail {
				return nil, conclave.Errorf(conclave.Invalid, "no")
			}
			return nil, tx.Put("probe", []byte{byte(runs)})
		}))
	for _, fail := range []bool{false, true} {
		_, err := b.pipeline.Handle(t.Context(), &conclave.Request{ID: "r", Operation: conclave.Update, Path: "sys/probe", Token: b.root,
			Fields: map[string]any{"fail": fail}})
		if (err != nil) != fail {
			t.Fatal(err)
		}
	}
	if events := b.eventsOf(t); len(events) != 1 || events[0].FullPath() != "sys/probe" || events[0].Namespace.ID != conclave.RootNamespace {
		t.Errorf("events = %+v, want one", events)
	}
}

func TestOwnWorkRecordsItsEvents(t *testing.T) {
	b := newBench(t, conclave.ReadRoute(conclave.Read, "probe", "Nothing.", func(context.Context, conclave.View, *conclave.None) (*conclave.None, error) { return nil, nil }))
	b.store.RecordOwn(b.pipeline.recorder)
	tx, err := b.store.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Close()
	tx.SetRequest(nil, nil, conclave.Namespace{ID: "abc", Path: "team/"})
	system := tx.System()
	if err := system.Put("work", nil); err != nil {
		t.Fatal(err)
	}
	if err := system.Emit(conclave.Event{Type: "test/rotated", Path: "sys/x"}); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Commit(t.Context(), fsm.AuditRecord{}); err != nil {
		t.Fatal(err)
	}
	if events := b.eventsOf(t); len(events) != 1 || events[0].Namespace.Path != "team/" {
		t.Errorf("events = %+v, want one of team/", events)
	}
}
