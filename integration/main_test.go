// Package integration tests clusters of real server processes over the HTTP API and nothing else: the main job from
// end to end, histories under faults, what a hostile client may send, and what can be read on disk.
//
// What takes root or hours is built with the tag "torture" and run by `make torture`.
package integration

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"conclave/integration/lab"
)

// binaryVariable names a server that is built already; without it, one is built for the run.
const binaryVariable = "CONCLAVE_BINARY"

var (
	seed       = flag.Uint64("seed", 0, "seed of the histories and their faults; 0: a new one, which is printed")
	raceServer = flag.Bool("race-server", false, "build the servers with the race detector too")
)

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if os.Getenv(binaryVariable) == "" {
		dir, err := os.MkdirTemp("", "conclave-binary-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		binary, err := lab.Build(context.Background(), dir, *raceServer)
		if err == nil {
			err = os.Setenv(binaryVariable, binary)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return m.Run()
}

// defect is what a server's log must never say.
var defect = regexp.MustCompile(`(?m)^panic: |^fatal error: |WARNING: DATA RACE`)

// startLab starts a cluster that ends with the test. If the test fails, the nodes' logs end with their stacks and are kept.
func startLab(t *testing.T, nodes int) *lab.Lab {
	t.Helper()
	dir, err := os.MkdirTemp("", "conclave-lab-")
	if err != nil {
		t.Fatal(err)
	}
	l, err := lab.Start(t.Context(), lab.Options{Binary: os.Getenv(binaryVariable), Dir: filepath.Join(dir, "lab"), Nodes: nodes})
	if err != nil {
		t.Fatalf("start a lab of %d nodes: %v", nodes, err)
	}
	t.Cleanup(func() {
		for n := 1; t.Failed() && n <= nodes; n++ {
			if l.Running(n) && l.Dump(n) != nil {
				t.Logf("node %d does not say what it was doing", n)
			}
		}
		if err := l.Close(); err != nil {
			t.Errorf("close the lab: %v", err)
		}
		for _, file := range l.LogFiles {
			if text, err := os.ReadFile(file); err != nil {
				t.Error(err)
			} else if at := defect.FindIndex(text); at != nil {
				t.Errorf("%s shows a defect:\n%s", file, text[at[0]:min(len(text), at[0]+3000)])
			}
		}
		if t.Failed() {
			t.Logf("the cluster's files are kept in %s", dir)
			return
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return l
}

// within is a context that ends with the test, or after d.
func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// eventually calls check until it returns nil, and fails the test with its last error after d.
func eventually(t *testing.T, d time.Duration, check func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := check(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("not within %v: %v", d, err)
		case <-ticker.C:
		}
	}
}

// mountKV mounts kv version 2 at path.
func mountKV(t *testing.T, l *lab.Lab, path string) {
	t.Helper()
	err := l.Client(1).Write(within(t, 30*time.Second), "sys/mounts/"+path, map[string]any{
		"type": "kv", "options": map[string]string{"version": "2"},
	}, nil)
	if err != nil {
		t.Fatalf("mount kv: %v", err)
	}
}
