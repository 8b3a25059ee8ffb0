package store

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"conclave/fsm"
)

func TestSomeGoesThroughADirectory(t *testing.T) {
	w := newWorld(t)
	tx := w.begin(t)
	var want []string
	for i := range 50 {
		want = append(want, fmt.Sprintf("n%02d", i))
		if err := tx.System().Put("big/"+want[i], []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if names, err := tx.System().Some("big/", "", 100); err != nil || len(names) != 50 {
		t.Errorf("what the transaction itself made: %d names, %v", len(names), err)
	}
	if _, err := tx.Commit(t.Context(), fsm.AuditRecord{}); err != nil {
		t.Fatal(err)
	}
	tx = w.begin(t)
	var got []string
	for after := ""; ; after = got[len(got)-1] {
		names, err := tx.System().Some("big/", after, 7)
		if err != nil || len(names) > 7 {
			t.Fatalf("%v, %v", names, err)
		}
		if len(names) == 0 {
			break
		}
		got = append(got, names...)
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("went through %v", got)
	}
	for _, name := range want[:49] {
		if err := tx.System().Delete("big/" + name); err != nil {
			t.Fatal(err)
		}
	}
	if names, err := tx.System().Some("big/", "", 7); err != nil || !slices.Equal(names, want[49:]) {
		t.Errorf("after deleting all but one: %v, %v", names, err)
	}
}

func TestSomeOfNothingIsJudged(t *testing.T) {
	w := newWorld(t)
	tx := w.begin(t)
	if names, err := tx.System().Some("empty/", "", 1); err != nil || len(names) != 0 {
		t.Fatalf("%v, %v", names, err)
	}
	if err := tx.System().Put("elsewhere", []byte("x")); err != nil {
		t.Fatal(err)
	}
	other := w.begin(t)
	if err := other.System().Put("empty/no-more", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Commit(t.Context(), fsm.AuditRecord{}); err != nil {
		t.Fatal(err)
	}
	_, err := tx.Commit(t.Context(), fsm.AuditRecord{})
	if _, conflict := errors.AsType[*ErrConflict](err); !conflict {
		t.Errorf("committed as if the directory were still empty: %v", err)
	}
}
