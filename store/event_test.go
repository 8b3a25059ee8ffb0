package store

import (
	"testing"

	"conclave"
	"conclave/fsm"
)

// ownRecords makes records that name the number of events in their digest.
type ownRecords struct{ made int }

func (o *ownRecords) Own(tx *Tx) (fsm.AuditRecord, error) {
	o.made++
	return fsm.AuditRecord{Digest: [32]byte{byte(len(tx.Occurrences()))}, Box: []byte("box")}, nil
}

var written = conclave.Event{Type: "kv-v2/data-write", Path: "data/app", Metadata: map[string]string{"operation": "data-write"}}

func (w *world) beginInTeam(t *testing.T) *Tx {
	t.Helper()
	tx, err := w.Begin()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tx.Close)
	tx.SetRequest(nil, nil, conclave.Namespace{ID: "abc", Path: "team/"})
	return tx
}

func TestEventsKnowWhereTheyHappened(t *testing.T) {
	tx := newWorld(t).beginInTeam(t)
	mount := &conclave.Mount{Path: "secret/", Kind: "kv"}
	view := tx.System().WithMount(mount)
	if err := view.Emit(written); err != nil {
		t.Fatal(err)
	}
	if got := tx.Occurrences(); got != nil {
		t.Errorf("a transaction that writes nothing has the events %v", got)
	}
	if err := view.Put("a", nil); err != nil {
		t.Fatal(err)
	}
	got := tx.Occurrences()
	if len(got) != 1 || got[0].FullPath() != "secret/data/app" || got[0].Namespace.Path != "team/" || got[0].Mount != mount {
		t.Errorf("Occurrences = %+v", got)
	}
	tx.Discard()
	if got := tx.Occurrences(); len(got) > 0 {
		t.Errorf("after Discard there are the events %v", got)
	}
}

func TestEventsAreBounded(t *testing.T) {
	w := newWorld(t)
	tx := w.beginInTeam(t)
	for range conclave.MaxEvents {
		if err := tx.System().Emit(written); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.System().Emit(written); !conclave.Is(err, conclave.TooLarge) || tx.Failed() == nil {
		t.Errorf("one event more: %v, want TooLarge", err)
	}
	large := conclave.Event{Type: "a/b", Path: string(make([]byte, conclave.MaxEventBytes))}
	if err := w.beginInTeam(t).System().Emit(large); !conclave.Is(err, conclave.TooLarge) {
		t.Errorf("a large event: %v, want TooLarge", err)
	}
	if err := w.beginInTeam(t).System().Emit(conclave.Event{Type: "none"}); !conclave.Is(err, conclave.Internal) {
		t.Errorf("an event of no type: %v, want Internal", err)
	}
}

// An event that can't say in which namespace it happened might be shown to those of another.
func TestEventWithoutNamespaceIsRefused(t *testing.T) {
	tx := newWorld(t).beginInTeam(t)
	tx.SetRequest(nil, nil, conclave.Namespace{})
	if err := tx.System().Emit(written); !conclave.Is(err, conclave.Internal) {
		t.Errorf("Emit = %v, want Internal", err)
	}
}

func TestOwnWorkWithEventsGetsARecord(t *testing.T) {
	w := newWorld(t)
	commit := func(emit bool) (uint64, error) {
		tx := w.beginInTeam(t)
		if err := tx.System().Put("a", []byte("b")); err != nil {
			t.Fatal(err)
		}
		if emit {
			if err := tx.System().Emit(written); err != nil {
				t.Fatal(err)
			}
		}
		_, err := tx.Commit(t.Context(), fsm.AuditRecord{})
		return w.solo.state.Audit().Shown().Seq, err
	}
	before, err := commit(false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := commit(true); err == nil {
		t.Fatal("events were committed without a record")
	}
	own := &ownRecords{}
	w.RecordOwn(own)
	if after, err := commit(true); err != nil || after != before+1 || own.made != 1 {
		t.Errorf("the log has %d records, %v, want %d", after, err, before+1)
	}
}
