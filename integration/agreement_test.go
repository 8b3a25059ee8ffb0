package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"conclave/integration/lab"
)

// agreement is what sys/state-hashes says.
type agreement struct {
	Index  uint64
	Result string
	Nodes  map[string]string
	Ranges []string
}

// compareStates has all nodes compare their states, and returns what each that serves has to say.
func compareStates(t *testing.T, l *lab.Lab, through int) map[int]agreement {
	t.Helper()
	var started struct{ Index uint64 }
	eventually(t, time.Minute, func(ctx context.Context) error {
		return l.Client(through).Write(ctx, "sys/state-hashes", nil, &started)
	})
	found := make(map[int]agreement)
	for n := 1; n <= l.Nodes(); n++ {
		eventually(t, time.Minute, func(ctx context.Context) error {
			var a agreement
			answer, err := l.Client(n).Do(ctx, "GET", "sys/state-hashes", nil)
			switch {
			case err != nil:
				return err
			case answer.Status == 503 && strings.Contains(string(answer.Body), "differs"):
				found[n] = agreement{Result: "differs"}
				return nil
			}
			if err := l.Client(n).Read(ctx, "sys/state-hashes", &a); err != nil {
				return err
			}
			heard := true
			for _, how := range a.Nodes {
				heard = heard && how != "not heard"
			}
			if a.Index < started.Index || !heard || a.Result == "hashing" || a.Result == "comparing" {
				return fmt.Errorf("node %d compares: %+v", n, a)
			}
			found[n] = a
			return nil
		})
	}
	return found
}

// wantStatesAgree fails the test unless all nodes have the same state, item by item.
func wantStatesAgree(t *testing.T, l *lab.Lab) {
	t.Helper()
	for n, a := range compareStates(t, l, 1) {
		if a.Result != "agrees" || len(a.Ranges) > 0 || len(a.Nodes) != l.Nodes() {
			t.Errorf("node %d: states don't agree: %+v", n, a)
		}
	}
}

// alter changes the last bit of one stored record of node n, which was shut down.
func alter(t *testing.T, l *lab.Lab, n int) {
	t.Helper()
	dir := l.DataDirs[n-1]
	current, err := os.ReadFile(filepath.Join(dir, "CURRENT"))
	if err != nil {
		t.Fatal(err)
	}
	db, err := pebble.Open(filepath.Join(dir, "state", strings.TrimSpace(string(current))),
		&pebble.Options{DisableWAL: true, FormatMajorVersion: pebble.FormatValueSeparation})
	if err != nil {
		t.Fatal(err)
	}
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: []byte("r"), UpperBound: []byte("s")})
	if err != nil || !it.Last() {
		t.Fatalf("node %d has no records: %v", n, err)
	}
	key, item := slices.Clone(it.Key()), slices.Clone(it.Value())
	item[len(item)-1] ^= 1
	if err := errors.Join(it.Close(), db.Set(key, item, pebble.NoSync), db.Flush(), db.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestAlteredNodeStopsServing changes one bit of one node's state behind its back. The others find out, go on, and take
// the node back with an empty disk.
func TestAlteredNodeStopsServing(t *testing.T) {
	l := startLab(t, 3)
	mustPut(t, l, 1, "a", "true")
	wantStatesAgree(t, l)
	if err := l.Terminate(3); err != nil {
		t.Fatal(err)
	}
	alter(t, l, 3)
	if err := l.Start(within(t, time.Minute), 3); err != nil {
		t.Fatal(err)
	}
	if err := l.WaitServing(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	found := compareStates(t, l, 1)
	for n := 1; n <= 2; n++ {
		if a := found[n]; a.Result != "agrees" || a.Nodes["node3"] != "differs" || len(a.Ranges) != 1 || !strings.HasPrefix(a.Ranges[0], "record/") {
			t.Errorf("node %d found %+v, want that node 3 differs in the records of a space", n, a)
		}
	}
	if found[3].Result != "differs" {
		t.Fatalf("node 3 found %+v, want that it differs", found[3])
	}
	wantHealth(t, l, 3, 503, health{Initialized: true})
	wantNoService(t, l, 3)
	for n := 1; n <= 2; n++ {
		eventually(t, 20*time.Second, func(ctx context.Context) error { return put(ctx, l, n, "a", "without node 3") })
		mustRead(t, l, n, "a", "without node 3")
	}
	if logged(t, l, "this node does not serve") == 0 {
		t.Error("no log says that a node does not serve")
	}

	if err := l.Kill(3); err != nil {
		t.Fatal(err)
	}
	launch(t, l, 3)
	wantHealth(t, l, 3, 503, health{Initialized: true, Sealed: true})
	if err := l.Kill(3); err != nil {
		t.Fatal(err)
	}
	if err := l.Wipe(3); err != nil {
		t.Fatal(err)
	}
	joins(t, l, 3, admitToken(t, l, 1))
	submit(t, l, 3)
	wantHealth(t, l, 3, 200, health{Initialized: true})
	mustRead(t, l, 3, "a", "without node 3")
	wantStatesAgree(t, l)
}
