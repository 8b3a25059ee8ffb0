package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sync/errgroup"

	"conclave"
	"conclave/audit"
	"conclave/server/config"
)

// auditedVault is an open vault with an audit file that nobody writes yet; follow has it written until the test ends.
func auditedVault(t *testing.T) (v *vault, file string, follow func()) {
	t.Helper()
	dir := t.TempDir()
	v = startVault(t, t.TempDir(), func(c *config.Config) { c.AuditDirectories = []string{dir} })
	opened, err := v.openDev(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	v.root, file = conclave.NewSecret(opened.RootToken), filepath.Join(dir, "audit.log")
	v.must(conclave.Update, "sys/audit/file", map[string]any{"type": "file", "options": map[string]any{"file_path": file}})
	ctx, cancel := context.WithCancel(t.Context())
	var group errgroup.Group
	t.Cleanup(func() {
		cancel()
		if err := group.Wait(); err != nil {
			t.Error(err)
		}
	})
	return v, file, func() { group.Go(func() error { return v.followDevices(ctx) }) }
}

// closeEpoch rotates and returns the head of the epoch that ended.
func (v *vault) closeEpoch() (head string) {
	v.t.Helper()
	v.must(conclave.Update, "sys/audit-rotate", map[string]any{"reason": "test"})
	err := v.state.Audit().Read(v.t.Context(), v.state.Audit().Shown().EpochSeq, func(f audit.Frame) bool {
		start, err := audit.ParseEpochStart(f.Box)
		if err != nil {
			v.t.Fatal(err)
		}
		head = hex.EncodeToString(start.PreviousHead[:])
		return false
	})
	if err != nil {
		v.t.Fatal(err)
	}
	return head
}

func (v *vault) prune(epoch, head string, force bool) error {
	_, err := v.do(v.root, conclave.Update, "sys/audit-prune", map[string]any{"epoch": json.Number(epoch), "head": head, "force": force})
	return err
}

// What a device has yet to write is not dropped; the error says which device, where.
func TestPruningWaitsForDevices(t *testing.T) {
	v, file, follow := auditedVault(t)
	head := v.closeEpoch()
	impatient, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	err := v.awaitDevices(impatient, 0)
	for _, part := range []string{"audit device file/", "on node " + v.cluster.Self().NodeID, "nothing was written yet", "nothing was dropped"} {
		if !conclave.Is(err, conclave.Invalid) || !strings.Contains(err.Error(), part) {
			t.Errorf("awaitDevices = %v, want that it says %q", err, part)
		}
	}
	if strings.Contains(err.Error(), file) {
		t.Errorf("the error names a path of the machine: %v", err)
	}
	follow()
	if err := v.prune("0", head, false); err != nil {
		t.Fatalf("prune, while the device is written: %v", err)
	}
	if base := v.state.Audit().Shown().Base; base.Epoch != 1 {
		t.Errorf("history begins with epoch %d, want 1", base.Epoch)
	}
}

func TestPruningBehindADeviceTakesForce(t *testing.T) {
	v, _, _ := auditedVault(t)
	if err := v.prune("0", v.closeEpoch(), true); err != nil {
		t.Errorf("prune with force: %v", err)
	}
}

func TestDamagedCursorIsNoProof(t *testing.T) {
	v, file, _ := auditedVault(t)
	v.closeEpoch()
	if err := os.WriteFile(file+".cursor", []byte("{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	impatient, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := v.awaitDevices(impatient, 0); err == nil || !strings.Contains(err.Error(), "cursor beside the file is damaged") {
		t.Errorf("awaitDevices = %v, want that the cursor is damaged", err)
	}
}

// A new key is no reason for a device to fail, nor to begin anew.
func TestDevicesGoOnOverARotationOfKeys(t *testing.T) {
	v, file, follow := auditedVault(t)
	said := new(lockedBuffer)
	v.log = hclog.New(&hclog.LoggerOptions{Output: said, Level: hclog.Warn})
	follow()
	wrote := func(part string) func() bool {
		return func() bool {
			text, err := os.ReadFile(file)
			return err == nil && strings.Contains(string(text), part)
		}
	}
	waitFor(t, "the device to begin", wrote(`"path":"sys/audit/file"`))
	v.must(conclave.Update, "sys/rotate", nil)
	v.must(conclave.Read, "sys/key-status", nil)
	waitFor(t, "a record of the new key", wrote(`"path":"sys/key-status"`))
	if text := said.String(); text != "" {
		t.Errorf("the node complains: %s", text)
	}
}

// A file may pass from one device to another at once.
func TestFileThatChangesDevicesIsWrittenWithoutComplaint(t *testing.T) {
	v, file, follow := auditedVault(t)
	said := new(lockedBuffer)
	v.log = hclog.New(&hclog.LoggerOptions{Output: said, Level: hclog.Warn})
	follow()
	waitFor(t, "the device to begin", func() bool { _, err := os.Stat(file); return err == nil })
	v.must(conclave.Delete, "sys/audit/file", nil)
	v.must(conclave.Update, "sys/audit/other", map[string]any{"type": "file", "options": map[string]any{"file_path": file}})
	waitFor(t, "the other device", func() bool {
		text, err := os.ReadFile(file)
		return err == nil && strings.Contains(string(text), `"path":"sys/audit/other"`)
	})
	if text := said.String(); text != "" {
		t.Errorf("the node complains: %s", text)
	}
}

// lockedBuffer takes what several goroutines write.
type lockedBuffer struct {
	mu   sync.Mutex // guards text
	text strings.Builder
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
