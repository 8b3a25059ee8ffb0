package integration

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"conclave/integration/lab"
)

// auditHead is the end of the audit log as one node knows it.
type auditHead struct {
	Epoch uint64 `json:"epoch"`
	Seq   uint64 `json:"seq"`
	Head  string `json:"head"`
	Root  string `json:"root"`
}

// place is a position in the audit log.
type place struct{ epoch, seq uint64 }

// wantHeadsAgree fails the test unless all nodes have the same audit log. To ask a node for its head adds a record, so
// all are asked at once, again and again, until all have answered for the same place. Two answers for one place that
// differ are an error whenever they come.
func wantHeadsAgree(t *testing.T, l *lab.Lab) {
	t.Helper()
	seen := make(map[place]auditHead)
	eventually(t, time.Minute, func(ctx context.Context) error {
		heads := make([]auditHead, l.Nodes())
		var group errgroup.Group
		for n := 1; n <= l.Nodes(); n++ {
			group.Go(func() error { return l.Client(n).Read(ctx, "sys/audit-head", &heads[n-1]) })
		}
		if err := group.Wait(); err != nil {
			return err
		}
		same := true
		for i, h := range heads {
			if h.Seq == 0 || len(h.Head) != 64 || len(h.Root) != 64 {
				t.Fatalf("node %d has the audit head %+v", i+1, h)
			}
			at := place{h.Epoch, h.Seq}
			if other, ok := seen[at]; ok && other != h {
				t.Fatalf("audit logs differ: node %d has %+v, another node %+v", i+1, h, other)
			}
			seen[at] = h
			same = same && h == heads[0]
		}
		if !same {
			return fmt.Errorf("the nodes are at different places: %+v", heads)
		}
		return nil
	})
}

// wantVerified fails the test unless `conclave audit verify` finds the audit log whole.
func wantVerified(t *testing.T, l *lab.Lab) {
	t.Helper()
	if out, err := cli(within(t, time.Minute), l, 1, "audit", "verify"); err != nil {
		t.Errorf("conclave audit verify: %v\n%s", err, out)
	}
}

// cli runs the command-line client against node n with the root token.
func cli(ctx context.Context, l *lab.Lab, n int, args ...string) ([]byte, error) {
	command := exec.CommandContext(ctx, os.Getenv(binaryVariable), args...)
	command.Env = append(os.Environ(), "VAULT_ADDR="+l.Addrs[n-1], "VAULT_TOKEN="+l.RootToken, "VAULT_CACERT="+l.CA)
	return command.CombinedOutput()
}

// auditTrail is what an audit file says was answered.
type auditTrail struct {
	answered map[string]bool // request id → there is a response line
	counts   map[string]int  // as whatAnswered says → response lines
}

// whatAnswered names answers that tell no request id: 204, and errors.
func whatAnswered(operation, path string, good bool) string {
	if good {
		return operation + " " + path
	}
	return operation + " " + path + ", refused"
}

// readAudit reads the response lines of an audit file. A last line that isn't whole yet is left out.
func readAudit(file string) (*auditTrail, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	trail := &auditTrail{answered: make(map[string]bool), counts: make(map[string]int)}
	lines := bufio.NewReaderSize(f, 1<<20)
	for number := 1; ; number++ {
		text, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return trail, nil
		}
		if err != nil {
			return nil, err
		}
		if !bytes.Contains(text[:min(len(text), 64)], []byte(`"type":"response"`)) {
			continue
		}
		var line struct {
			Type    string `json:"type"`
			Error   string `json:"error"`
			Request struct {
				ID        string `json:"id"`
				Operation string `json:"operation"`
				Path      string `json:"path"`
			} `json:"request"`
		}
		if err := json.Unmarshal(bytes.TrimSpace(text), &line); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", file, number, err)
		}
		if line.Type != "response" {
			return nil, fmt.Errorf("%s:%d: the type isn't where it was", file, number)
		}
		trail.answered[line.Request.ID] = true
		trail.counts[whatAnswered(line.Request.Operation, line.Request.Path, line.Error == "")]++
	}
}

// wantAudited fails the test unless each node's audit file, given time to catch up, has a response line for all of
// these requests, and for each operation on a path at least as many as were answered without telling their id.
func wantAudited(t *testing.T, l *lab.Lab, ids []string, counts map[string]int) {
	t.Helper()
	if len(ids) == 0 {
		t.Fatal("no answer told its request id")
	}
	for _, file := range l.AuditFiles {
		eventually(t, time.Minute, func(context.Context) error {
			trail, err := readAudit(file)
			if err != nil {
				return err
			}
			missing := 0
			for _, id := range ids {
				if !trail.answered[id] {
					missing++
				}
			}
			if missing > 0 {
				return fmt.Errorf("%s has no record of %d of %d answers", file, missing, len(ids))
			}
			for what, n := range counts {
				if trail.counts[what] < n {
					return fmt.Errorf("%s has %d records of %q, %d were answered", file, trail.counts[what], what, n)
				}
			}
			return nil
		})
	}
}
