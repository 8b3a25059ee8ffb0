package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"conclave"
	"conclave/cluster/agreement"
	"conclave/fsm"
)

// alter changes one value in the state of a node that is stopped, behind its back.
func (l *lab) alter(id string, key fsm.Key) {
	l.t.Helper()
	dir := filepath.Join(l.path(id), "fsm")
	current, err := os.ReadFile(filepath.Join(dir, "CURRENT"))
	if err != nil {
		l.t.Fatal(err)
	}
	db, err := pebble.Open(filepath.Join(dir, "state", strings.TrimSpace(string(current))),
		&pebble.Options{DisableWAL: true, FormatMajorVersion: pebble.FormatValueSeparation})
	if err != nil {
		l.t.Fatal(err)
	}
	item, closer, err := db.Get([]byte(key))
	if err != nil {
		l.t.Fatalf("read what is to be altered: %v", err)
	}
	altered := append(binary.BigEndian.AppendUint64(nil, binary.BigEndian.Uint64(item)), "altered by hand"...)
	if err := errors.Join(closer.Close(), db.Set([]byte(key), altered, pebble.NoSync), db.Flush(), db.Close()); err != nil {
		l.t.Fatal(err)
	}
}

// compared has all nodes compare their states and waits for each one's result.
func (l *lab) compared() map[string]string {
	l.t.Helper()
	var index uint64
	await(l.t, "states to be compared", func() bool {
		var err error
		index, err = l.leader().checker.Compare(context.Background())
		return err == nil
	})
	results := map[string]string{}
	for id, n := range l.running() {
		await(l.t, id+" to compare its state", func() bool {
			s := n.Agreement()
			results[id] = s.Result
			return s.Index >= index && slices.Contains([]string{agreement.Agrees, agreement.Differs, agreement.Undecided}, s.Result)
		})
	}
	return results
}

func TestANodeWhoseStateWasAlteredServesNoMoreAndTheOthersGoOn(t *testing.T) {
	l, nodes := three(t)
	for _, n := range nodes {
		n.SetReady(true)
	}
	mustCommit(t, nodes[0], func() *fsm.Transaction { return writing(nodes[0], 1, "true") })
	for id, result := range l.compared() {
		if result != agreement.Agrees {
			t.Fatalf("%s %s before anything was altered", id, result)
		}
	}
	odd := l.follower().id
	index := l.leader().state.Applied()
	await(t, "all to apply the write", func() bool { return l.running()[odd].state.Applied() >= index })
	l.stop(odd)
	l.alter(odd, recordKey('r', 1))
	altered := l.start(odd)
	altered.SetReady(true)
	l.awaitVoters(3)

	// It leads: what it judged would be wrong.
	await(t, "the altered node to lead", func() bool {
		for id, n := range l.running() {
			n.SetReady(id == odd)
		}
		if altered.IsLeader() {
			return true
		}
		_ = l.leader().TransferLeadership(context.Background()) // or it is too early yet
		return altered.IsLeader()
	})
	for _, n := range l.running() {
		n.SetReady(true)
	}
	results := l.compared()
	for id, result := range results {
		if want := map[bool]string{true: agreement.Differs, false: agreement.Agrees}[id == odd]; result != want {
			t.Errorf("%s %s, want that it %s", id, result, want)
		}
	}
	if err := altered.Refused(); err == nil || !strings.Contains(err.Error(), "record/7") {
		t.Fatalf("the altered node refuses with %v, want that record/7 differs", err)
	}
	if _, err := altered.Commit(context.Background(), writing(altered, 2, "no")); !conclave.Is(err, conclave.Unavailable) {
		t.Errorf("a commit on the altered node: %v, want %v", err, conclave.Unavailable)
	}
	await(t, "another node to lead", func() bool { return l.leader().id != odd })
	for _, n := range nodes {
		if n.id != odd {
			mustCommit(t, n, func() *fsm.Transaction { return writing(n, 3, n.id) })
			// Two that agree don't wait for the third to be heard.
			await(t, n.id+" to hold that "+odd+" differs", func() bool { return n.Agreement().Nodes[odd] == agreement.Differs })
		}
	}
	altered.SetReady(true)
	if altered.ready.Load() {
		t.Error("the altered node can be made ready")
	}

	l.stop(odd)
	if again := l.start(odd); again.Refused() == nil {
		t.Error("the altered node serves when it is started again")
	}
}
