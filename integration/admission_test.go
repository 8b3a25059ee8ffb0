package integration

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"conclave/integration/lab"
)

// admitToken is what `conclave operator admit` prints.
func admitToken(t *testing.T, l *lab.Lab, n int) string {
	t.Helper()
	out, err := cli(within(t, 20*time.Second), l, n, "operator", "admit", "-field=token")
	if err != nil {
		t.Fatalf("conclave operator admit: %v\n%s", err, out)
	}
	return strings.TrimSpace(string(out))
}

// wantRefused starts node n and fails the test unless its wish to join is refused, and it isn't let in otherwise.
func wantRefused(t *testing.T, l *lab.Lab, n int, why string) {
	t.Helper()
	words := []string{"wants to join is refused", fmt.Sprintf("node%d", n)}
	before := logged(t, l, words...)
	if err := l.Launch(n); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, func(context.Context) error {
		if logged(t, l, words...) < before+2 { // it keeps asking
			return fmt.Errorf("node %d, %s, isn't refused", n, why)
		}
		return nil
	})
	if answer, err := l.Client(n).Do(within(t, 20*time.Second), "GET", "secret/data/a", nil); err != nil || answer.Status == 200 {
		t.Fatalf("node %d, %s: %+v, %v, want a refusal", n, why, answer, err)
	}
	if err := l.Kill(n); err != nil {
		t.Fatal(err)
	}
}

// joins configures node n with a token, or with none if it needs none, starts it, and returns when it votes, sealed.
func joins(t *testing.T, l *lab.Lab, n int, token string) {
	t.Helper()
	if err := l.Configure(n, lab.Admitted(token)); err != nil {
		t.Fatal(err)
	}
	if err := l.Launch(n); err != nil {
		t.Fatal(err)
	}
	id := fmt.Sprintf("node%d", n)
	wantHealth(t, l, n, 503, health{Initialized: true, Sealed: true})
	eventually(t, 20*time.Second, func(ctx context.Context) error {
		m, err := memberNamed(ctx, l, 1, id)
		if err == nil && (m == nil || !m.Voter) {
			err = fmt.Errorf("%s = %+v, want a voter", id, m)
		}
		return err
	})
}

// wantSigned waits until the list of members bears the cluster key's signature.
func wantSigned(t *testing.T, l *lab.Lab) {
	t.Helper()
	for n := 1; n <= l.Nodes(); n++ {
		eventually(t, 20*time.Second, func(ctx context.Context) error {
			var list struct{ Signed bool }
			err := l.Client(n).Read(ctx, "sys/members", &list)
			if err == nil && !list.Signed {
				err = fmt.Errorf("node %d: the list isn't signed", n)
			}
			return err
		})
	}
}

// TestNodeIsAdmittedAndRemoved takes a fourth node through its life in a cluster that is formed, signed and open.
func TestNodeIsAdmittedAndRemoved(t *testing.T) {
	l := startLab(t, 3)
	mustPut(t, l, 1, "a", "before")
	wantSigned(t, l)
	n, err := l.Lay()
	if err != nil {
		t.Fatal(err)
	}
	wantRefused(t, l, n, "with the cluster secret alone")
	token := admitToken(t, l, 2)
	joins(t, l, n, token)
	if logged(t, l, "node joins", "node4") == 0 || logged(t, l, "caught up and votes", "node4") == 0 {
		t.Error("node 4 votes without having been a non-voter")
	}
	wantNoService(t, l, n)
	submit(t, l, 2)
	wantHealth(t, l, n, 200, health{Initialized: true})
	mustRead(t, l, n, "a", "before")
	mustPut(t, l, n, "a", "through node 4")
	mustRead(t, l, 3, "a", "through node 4")

	fifth, err := l.Lay()
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Configure(fifth, lab.Admitted(token)); err != nil {
		t.Fatal(err)
	}
	wantRefused(t, l, fifth, "with a token that is used up")

	if out, err := cli(within(t, 20*time.Second), l, 1, "operator", "raft", "remove-peer", "node4"); err != nil {
		t.Fatalf("remove-peer: %v\n%s", err, out)
	}
	wantHealth(t, l, n, 530, health{Initialized: true, Removed: true})
	wantNoService(t, l, n)
	mustPut(t, l, 1, "a", "without node 4")
	if err := l.Kill(n); err != nil {
		t.Fatal(err)
	}
	if err := l.Configure(n, lab.Admitted(admitToken(t, l, 1))); err != nil {
		t.Fatal(err)
	}
	if err := l.Launch(n); err != nil { // with what it had stored, even a new token doesn't help
		t.Fatal(err)
	}
	wantHealth(t, l, n, 530, health{Initialized: true, Sealed: true, Removed: true})
	wantNoService(t, l, n)
	if m, err := memberNamed(within(t, 20*time.Second), l, 1, "node4"); m != nil || err != nil {
		t.Fatalf("node 4 is listed again: %+v, %v", m, err)
	}
	if err := l.Kill(n); err != nil {
		t.Fatal(err)
	}
	if err := l.Wipe(n); err != nil {
		t.Fatal(err)
	}
	joins(t, l, n, admitToken(t, l, 3))
	submit(t, l, 1)
	wantHealth(t, l, n, 200, health{Initialized: true})
	mustRead(t, l, n, "a", "without node 4")
	wantVerified(t, l)
}

// TestWipedNodeComesBackByAdmission replaces a disk, and then has nodes move to other addresses.
func TestWipedNodeComesBackByAdmission(t *testing.T) {
	l := startLab(t, 3)
	mustPut(t, l, 1, "a", "before")
	old, err := memberNamed(within(t, 20*time.Second), l, 1, "node3")
	if err != nil || old == nil {
		t.Fatalf("node 3 = %+v, %v", old, err)
	}
	if err := l.Kill(3); err != nil {
		t.Fatal(err)
	}
	if err := l.Wipe(3); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, func(ctx context.Context) error { return put(ctx, l, 1, "a", "meanwhile") })
	wantRefused(t, l, 3, "with an empty disk")
	joins(t, l, 3, admitToken(t, l, 1))
	submit(t, l, 3)
	wantHealth(t, l, 3, 200, health{Initialized: true})
	mustRead(t, l, 3, "a", "meanwhile")
	m, err := memberNamed(within(t, 20*time.Second), l, 1, "node3")
	if err != nil || m == nil || m.ServerID == old.ServerID {
		t.Errorf("node 3 is %+v, %v, want another Raft server than %s", m, err, old.ServerID)
	}
	wantHeadsAgree(t, l)
	wantVerified(t, l)
}

// TestNodesMove restarts each node at other addresses, and then has the quorum depend on two that have moved.
func TestNodesMove(t *testing.T) {
	l := startLab(t, 3)
	leader, err := l.Leader(within(t, 20*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	other := leader%3 + 1
	stays := other%3 + 1
	for _, n := range []int{other, leader} {
		if err := l.Kill(n); err != nil {
			t.Fatal(err)
		}
		if err := l.Move(n); err != nil {
			t.Fatal(err)
		}
		if err := l.Start(within(t, 30*time.Second), n); err != nil {
			t.Fatal(err)
		}
		eventually(t, 20*time.Second, func(ctx context.Context) error {
			m, err := memberNamed(ctx, l, stays, fmt.Sprintf("node%d", n))
			if err == nil && (m == nil || m.APIAddress != l.Addrs[n-1] || !m.Voter || !strings.Contains(readConfig(t, l, n), `"`+m.Address+`"`)) {
				err = fmt.Errorf("node %d is listed as %+v, want it at its new addresses", n, m)
			}
			return err
		})
	}
	if err := l.Kill(stays); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, func(ctx context.Context) error { return put(ctx, l, leader, "a", "moved") })
	mustRead(t, l, other, "a", "moved")
	if err := l.Start(within(t, 30*time.Second), stays); err != nil {
		t.Fatal(err)
	}
	mustRead(t, l, stays, "a", "moved")
	wantHeadsAgree(t, l)
}

// TestMovedNodesFindEachOtherWithoutJoin moves every node, one after the other, and then kills all and starts them with
// no address to join: what they have kept has to do.
func TestMovedNodesFindEachOtherWithoutJoin(t *testing.T) {
	l := startLab(t, 3)
	mustPut(t, l, 1, "a", "kept")
	for n := 1; n <= 3; n++ {
		if err := l.Kill(n); err != nil {
			t.Fatal(err)
		}
		if err := l.Move(n); err != nil {
			t.Fatal(err)
		}
		if err := l.Start(within(t, 30*time.Second), n); err != nil {
			t.Fatal(err)
		}
		for asked := 1; asked <= 3; asked++ {
			eventually(t, 20*time.Second, func(ctx context.Context) error {
				m, err := memberNamed(ctx, l, asked, fmt.Sprintf("node%d", n))
				if err == nil && (m == nil || !m.Voter || !strings.Contains(readConfig(t, l, n), `"`+m.Address+`"`)) {
					err = fmt.Errorf("node %d lists node %d as %+v, want it at its new address", asked, n, m)
				}
				return err
			})
		}
		mustPut(t, l, n, fmt.Sprintf("moved-%d", n), "x") // after which the others have what the leader has
	}
	for n := 1; n <= 3; n++ {
		if err := l.Kill(n); err != nil {
			t.Fatal(err)
		}
		if err := l.Configure(n, lab.Set(map[string]string{"join": "[]"})); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Start(within(t, time.Minute), 1, 2, 3); err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= 3; n++ {
		mustRead(t, l, n, "a", "kept")
		eventually(t, 20*time.Second, func(ctx context.Context) error { // which the gossip tells
			m, err := memberNamed(ctx, l, n, fmt.Sprintf("node%d", n%3+1))
			if err == nil && (m == nil || m.APIAddress != l.Addrs[n%3]) {
				err = fmt.Errorf("node %d lists the next one as %+v, want it at %s", n, m, l.Addrs[n%3])
			}
			return err
		})
	}
	wantHeadsAgree(t, l)
}

func readConfig(t *testing.T, l *lab.Lab, n int) string {
	t.Helper()
	argv := l.StartCmds[n-1].Argv
	text, err := os.ReadFile(argv[len(argv)-1])
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
