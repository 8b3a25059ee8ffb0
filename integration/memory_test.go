package integration

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"conclave/integration/lab"
)

// scanChunk is how much of a process's memory is looked at in one go, in bytes.
const scanChunk = 1 << 20

// memoryHolds looks for needles in the writable memory of a process, and returns those that are there. It takes the
// right to trace any process, which root has: the servers refuse everybody else.
func memoryHolds(pid int, needles map[string][]byte) (map[string]bool, error) {
	maps, err := os.Open(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return nil, err
	}
	defer maps.Close()
	memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return nil, err
	}
	defer memory.Close()
	found := map[string]bool{}
	lines := bufio.NewScanner(maps)
	for lines.Scan() {
		var from, to int64
		var mode string
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &from, &to, &mode); err != nil || !strings.HasPrefix(mode, "rw") {
			continue
		}
		scanRegion(memory, from, to, needles, found)
	}
	return found, lines.Err()
}

func scanRegion(memory io.ReaderAt, from, to int64, needles map[string][]byte, found map[string]bool) {
	const overlap = 256 // longer than any needle
	buffer := make([]byte, scanChunk+overlap)
	for at := from; at < to; at += scanChunk {
		n, _ := memory.ReadAt(buffer[:min(int64(len(buffer)), to-at)], at) // a page that isn't there holds nothing
		for name, needle := range needles {
			if bytes.Contains(buffer[:n], needle) {
				found[name] = true
			}
		}
	}
}

// TestSealingLeavesNothingInMemory looks for a secret, the root token and an unseal share in the memory of an open node,
// where some of it must be found, and of the same process after sealing, where none may be.
func TestSealingLeavesNothingInMemory(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("reading another process's memory takes root; run as root to include it")
	}
	l := startLab(t, 3)
	ctx := within(t, time.Minute)
	canary := "memory-canary-" + hex.EncodeToString([]byte(t.Name()))
	client := l.Client(1)
	if err := client.Write(ctx, "secret/data/memory", map[string]any{"data": map[string]any{"v": canary}}, nil); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if err := client.Read(ctx, "secret/data/memory", nil); err != nil {
			t.Fatal(err)
		}
	}
	share, err := base64.StdEncoding.DecodeString(l.UnsealKeys[0])
	if err != nil {
		t.Fatal(err)
	}
	needles := map[string][]byte{"secret": []byte(canary), "root token": []byte(l.RootToken), "share": share, "share in base64": []byte(l.UnsealKeys[0])}
	pid := l.PIDs[0]
	found, err := memoryHolds(pid, needles)
	if err != nil {
		t.Fatal(err)
	}
	if !found["secret"] && !found["root token"] {
		t.Fatalf("the open node's memory shows none of what it must hold: the search itself doesn't work (found %v)", found)
	}
	if err := client.Write(ctx, "sys/seal", nil, nil); err != nil {
		t.Fatalf("seal: %v", err)
	}
	if err := waitSealed(ctx, l, 1); err != nil {
		t.Fatal(err)
	}
	// A sealed process finishes its answers, then replaces itself: that is when its memory is new.
	deadline, tick := time.After(10*time.Second), time.NewTicker(100*time.Millisecond)
	defer tick.Stop()
	for {
		if found, err = memoryHolds(pid, needles); err != nil {
			t.Fatalf("the sealed node is not the same process any more: %v", err)
		}
		if len(found) == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("ten seconds after sealing the node's memory still holds %v", found)
		}
	}
}

// waitSealed waits for node n to answer again, as sealed.
func waitSealed(ctx context.Context, l *lab.Lab, n int) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		var status struct {
			Sealed bool `json:"sealed"`
		}
		answer, err := l.Client(n).With("").Do(ctx, "GET", "sys/seal-status", nil) // a token sent now would be found
		if err == nil && answer.Decode(&status) == nil && status.Sealed {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("node %d did not come back sealed: %w", n, ctx.Err())
		}
	}
}
