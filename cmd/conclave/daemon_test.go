package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"conclave"
	"conclave/audit"
	"conclave/mount"
	"conclave/seal"
	"conclave/server/config"
)

// vault is a real node in this process: a cluster of one, driven without its HTTP edge.
type vault struct {
	*daemon
	t      testing.TB
	opened *seal.InitResult
	root   conclave.Secret
	ids    atomic.Int64
}

// startVault starts a node; change may alter its settings. It isn't initialised.
func startVault(t testing.TB, dir string, change func(*config.Config)) *vault {
	t.Helper()
	settings, err := devSettings(dir, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(settings)
	}
	d, err := startDaemon(t.Context(), settings, mountSecret, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	v := &vault{daemon: d, t: t}
	t.Cleanup(func() {
		if err := d.stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	return v
}

// openVault starts a node and opens a vault with one share.
func openVault(t testing.TB) *vault {
	t.Helper()
	v := startVault(t, t.TempDir(), nil)
	opened, err := v.openDev(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	v.opened, v.root = opened, conclave.NewSecret(opened.RootToken)
	return v
}

func (v *vault) do(token conclave.Secret, op conclave.Operation, path string, fields map[string]any) (*conclave.Response, error) {
	req := &conclave.Request{ID: "test-" + hex.EncodeToString(v.nextID()), Operation: op, Path: path, Fields: fields, Token: token}
	if fields != nil {
		body, err := json.Marshal(fields)
		if err != nil {
			v.t.Fatal(err)
		}
		req.Body = body
	}
	return v.pipeline.Handle(v.t.Context(), req)
}

func (v *vault) nextID() []byte {
	n := v.ids.Add(1)
	return []byte{byte(n >> 8), byte(n)}
}

// must is do for what has to succeed, as the root token; it returns the data.
func (v *vault) must(op conclave.Operation, path string, fields map[string]any) map[string]any {
	v.t.Helper()
	resp, err := v.do(v.root, op, path, fields)
	if err != nil {
		v.t.Fatalf("%s %s: %v", op, path, err)
	}
	return dataOf(v.t, resp)
}

// dataOf is the data of an answer, as a client decodes it.
func dataOf(t testing.TB, resp *conclave.Response) map[string]any {
	t.Helper()
	raw, _ := resp.Data.(json.RawMessage)
	data := map[string]any{}
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &data); err != nil {
			t.Fatalf("%v in %s", err, raw)
		}
	}
	return data
}

// token makes a token.
func (v *vault) token(fields map[string]any) conclave.Secret {
	v.t.Helper()
	resp, err := v.do(v.root, conclave.Update, "auth/token/create", fields)
	if err != nil {
		v.t.Fatalf("create token: %v", err)
	}
	return resp.Auth.ClientToken
}

// records reads the audit log from a number on.
func (v *vault) records(from uint64) []audit.Record {
	v.t.Helper()
	opener, err := v.opener()
	if err != nil {
		v.t.Fatal(err)
	}
	var records []audit.Record
	err = v.state.Audit().Read(v.t.Context(), from, func(f audit.Frame) bool {
		_, plain, err := opener.Open(f.Digest, f.Box)
		if err != nil {
			v.t.Fatalf("record %d: %v", f.Seq, err)
		}
		record, err := audit.DecodeRecord(append([]byte(nil), plain...))
		if err != nil {
			v.t.Fatalf("record %d: %v", f.Seq, err)
		}
		records = append(records, record)
		return true
	})
	if err != nil {
		v.t.Fatal(err)
	}
	return records
}

func TestEveryOutcomeIsRecorded(t *testing.T) {
	v := openVault(t)
	reader := v.token(map[string]any{"policies": []any{"default"}})
	from := v.state.Audit().Shown().Seq
	rows := []struct {
		name  string
		token conclave.Secret
		op    conclave.Operation
		path  string
		kind  conclave.Kind
		fails bool
	}{
		{"success", v.root, conclave.Read, "sys/mounts", 0, false},
		{"no token", conclave.Secret{}, conclave.Read, "sys/mounts", conclave.Denied, true},
		{"bad token", conclave.NewSecret("hvs.nothing"), conclave.Read, "sys/mounts", conclave.Denied, true},
		{"denied by policy", reader, conclave.Read, "secret/data/x", conclave.Denied, true},
		{"denied on a mount that isn't there", reader, conclave.Read, "nowhere/x", conclave.Denied, true},
		{"nothing mounted", v.root, conclave.Read, "nowhere/x", conclave.NotFound, true},
		{"absent secret", v.root, conclave.Read, "secret/data/absent", conclave.NotFound, true},
		{"wrong operation", v.root, conclave.Patch, "sys/mounts", conclave.Unsupported, true},
	}
	for i, row := range rows {
		_, err := v.do(row.token, row.op, row.path, nil)
		if (err != nil) != row.fails || row.fails && conclave.KindOf(err) != row.kind {
			t.Errorf("%s: %v, want kind %v, fails %v", row.name, err, row.kind, row.fails)
		}
		records := v.records(from)
		if len(records) != i+1 {
			t.Fatalf("%s: %d records, want %d", row.name, len(records), i+1)
		}
		last := records[i]
		if !strings.Contains(string(last.Request), row.path) || (len(last.Error) > 0) != row.fails {
			t.Errorf("%s: record %s with error %q", row.name, last.Request, last.Error)
		}
	}
}

func TestSecretsStayOutOfRecords(t *testing.T) {
	v := openVault(t)
	from := v.state.Audit().Shown().Seq
	v.must(conclave.Update, "secret/data/app", map[string]any{"data": map[string]any{"password": "canary-4711"}})
	v.must(conclave.Read, "secret/data/app", nil)
	for _, r := range v.records(from) {
		for _, part := range [][]byte{r.Auth, r.Request, r.Response} {
			if strings.Contains(string(part), "canary-4711") || strings.Contains(string(part), v.root.Reveal()) {
				t.Errorf("a record holds a secret: %s", part)
			}
		}
	}
}

func TestTokenOfOneUseWorksOnce(t *testing.T) {
	v := openVault(t)
	v.must(conclave.Update, "secret/data/x", map[string]any{"data": map[string]any{"a": "b"}})
	once := v.token(map[string]any{"policies": []any{"root"}, "num_uses": json.Number("1")})
	var wg sync.WaitGroup
	var worked atomic.Int64
	for range 50 {
		wg.Go(func() {
			if _, err := v.do(once, conclave.Read, "secret/data/x", nil); err == nil {
				worked.Add(1)
			} else if !conclave.Is(err, conclave.Denied) {
				t.Errorf("use: %v, want denied", err)
			}
		})
	}
	wg.Wait()
	if worked.Load() != 1 {
		t.Errorf("%d of 50 uses worked, want 1", worked.Load())
	}
}

func TestFailedRequestSpendsAUse(t *testing.T) {
	v := openVault(t)
	twice := v.token(map[string]any{"policies": []any{"default"}, "num_uses": json.Number("2")})
	for range 2 {
		if _, err := v.do(twice, conclave.Read, "secret/data/x", nil); !conclave.Is(err, conclave.Denied) {
			t.Fatalf("read beyond the policy: %v, want denied", err)
		}
	}
	if _, err := v.do(twice, conclave.Read, "auth/token/lookup-self", nil); err == nil {
		t.Error("a token works after its uses were spent on denied requests")
	}
}

func TestRevokedTokenIsDeadAtOnceWithItsChildren(t *testing.T) {
	v := openVault(t)
	parent := v.token(map[string]any{"policies": []any{"root"}})
	resp, err := v.do(parent, conclave.Update, "auth/token/create", map[string]any{"policies": []any{"root"}})
	if err != nil {
		t.Fatal(err)
	}
	child := resp.Auth.ClientToken
	if _, err := v.do(child, conclave.Read, "sys/mounts", nil); err != nil {
		t.Fatalf("child before: %v", err)
	}
	if _, err := v.do(parent, conclave.Update, "auth/token/revoke-self", nil); err != nil {
		t.Fatal(err)
	}
	for name, token := range map[string]conclave.Secret{"parent": parent, "child": child} {
		if _, err := v.do(token, conclave.Read, "sys/mounts", nil); !conclave.Is(err, conclave.Denied) {
			t.Errorf("%s after revocation: %v, want denied", name, err)
		}
	}
}

func TestConcurrentCheckAndSetHasOneWinner(t *testing.T) {
	v := openVault(t)
	var wg sync.WaitGroup
	var won atomic.Int64
	for range 20 {
		wg.Go(func() {
			_, err := v.do(v.root, conclave.Update, "secret/data/race", map[string]any{
				"data": map[string]any{"a": "b"}, "options": map[string]any{"cas": json.Number("0")}})
			switch {
			case err == nil:
				won.Add(1)
			case !conclave.Is(err, conclave.Invalid):
				t.Errorf("write: %v", err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Errorf("%d of 20 check-and-sets won, want 1", won.Load())
	}
}

func TestCubbyholeIsEachTokensOwn(t *testing.T) {
	v := openVault(t)
	v.must(conclave.Update, "cubbyhole/mine", map[string]any{"a": "b"})
	other := v.token(map[string]any{"policies": []any{"root"}})
	if _, err := v.do(other, conclave.Read, "cubbyhole/mine", nil); !conclave.Is(err, conclave.NotFound) {
		t.Errorf("another token's read: %v, want not found", err)
	}
	if got := v.must(conclave.Read, "cubbyhole/mine", nil)["a"]; got != "b" {
		t.Errorf("own read = %v, want b", got)
	}
}

func TestSharesOpenTheVault(t *testing.T) {
	v := startVault(t, t.TempDir(), nil)
	opened := v.initialize(seal.InitRequest{Shares: 5, Threshold: 3})
	submit := func(key string) (seal.Status, error) {
		share, err := seal.DecodeShare(conclave.NewSecret(key))
		if err != nil {
			t.Fatal(err)
		}
		return v.vaultPart().Submit(t.Context(), share)
	}
	if status, err := submit(opened.Keys[0]); err != nil || status.Progress != 1 {
		t.Fatalf("first share: %+v, %v", status, err)
	}
	if _, err := submit(opened.Keys[0]); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("the same share again: %v, want it refused as a duplicate", err)
	}
	if _, err := submit(strings.Repeat("00", 33)); err == nil || !strings.Contains(err.Error(), "no share of this vault") {
		t.Errorf("a foreign share: %v, want it refused as such", err)
	}
	if status, err := submit(opened.Keys[4]); err != nil || status.Progress != 2 || !status.Sealed {
		t.Fatalf("second share: %+v, %v", status, err)
	}
	if status, err := submit(opened.Keys[2]); err != nil || status.Sealed {
		t.Fatalf("third share: %+v, %v", status, err)
	}
	v.root = conclave.NewSecret(opened.RootToken)
	v.must(conclave.Read, "sys/mounts", nil)
	_, err := v.vaultPart().Init(t.Context(), seal.InitRequest{Shares: 1, Threshold: 1})
	if err == nil || !strings.Contains(err.Error(), "already initialized") {
		t.Errorf("init of an open vault: %v, want refused", err)
	}
}

func (v *vault) vaultPart() *seal.Vault { return v.daemon.vault }

// initialize makes the vault as soon as the cluster of one has formed.
func (v *vault) initialize(req seal.InitRequest) *seal.InitResult {
	v.t.Helper()
	deadline, cancel := context.WithTimeout(v.t.Context(), devFormTimeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		opened, err := v.vaultPart().Init(deadline, req)
		if err == nil {
			return opened
		}
		select {
		case <-tick.C:
		case <-deadline.Done():
			v.t.Fatalf("init: %v", err)
		}
	}
}

func TestInitIsRepeatableUntilTheFirstUnseal(t *testing.T) {
	v := startVault(t, t.TempDir(), nil)
	first := v.initialize(seal.InitRequest{Shares: 1, Threshold: 1})
	second := v.initialize(seal.InitRequest{Shares: 1, Threshold: 1})
	share, _ := seal.DecodeShare(conclave.NewSecret(first.Keys[0]))
	if _, err := v.vaultPart().Submit(t.Context(), share); err == nil {
		t.Error("a share of the first init opens the second")
	}
	share, _ = seal.DecodeShare(conclave.NewSecret(second.Keys[0]))
	if status, err := v.vaultPart().Submit(t.Context(), share); err != nil || status.Sealed {
		t.Fatalf("the second init's share: %+v, %v", status, err)
	}
	v.root = conclave.NewSecret(first.RootToken)
	if _, err := v.do(v.root, conclave.Read, "sys/mounts", nil); !conclave.Is(err, conclave.Denied) {
		t.Errorf("the first init's root token: %v, want denied", err)
	}
	v.root = conclave.NewSecret(second.RootToken)
	v.must(conclave.Read, "sys/mounts", nil)
}

func TestStaticSealOpensByItself(t *testing.T) {
	dir := t.TempDir()
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	file := filepath.Join(dir, "seal.key")
	if err := os.WriteFile(file, key, 0o600); err != nil {
		t.Fatal(err)
	}
	static := func(c *config.Config) {
		c.Seal = config.Seal{Type: "static", Key: config.KeySource{File: file}}
	}
	v := startVault(t, dir, static)
	opened := v.initialize(seal.InitRequest{Shares: 3, Threshold: 2})
	if ok, err := v.vaultPart().OpenStatic(t.Context()); err != nil || !ok {
		t.Fatalf("OpenStatic = %v, %v", ok, err)
	}
	v.root = conclave.NewSecret(opened.RootToken)
	v.must(conclave.Update, "secret/data/x", map[string]any{"data": map[string]any{"a": "b"}})
}

func TestSealingRefusesAndForgets(t *testing.T) {
	v := openVault(t)
	if _, err := v.do(v.root, conclave.Update, "sys/seal", nil); err != nil {
		t.Fatalf("seal: %v", err)
	}
	select {
	case <-v.sealed:
	default:
		t.Error("the process is not told to replace itself")
	}
	if _, err := v.do(v.root, conclave.Read, "sys/mounts", nil); !conclave.Is(err, conclave.Sealed) {
		t.Errorf("request after sealing: %v, want sealed", err)
	}
}

func TestRotationReencryptsInTheBackground(t *testing.T) {
	v := openVault(t)
	for _, name := range []string{"a", "b", "c"} {
		v.must(conclave.Update, "secret/data/"+name, map[string]any{"data": map[string]any{"v": name}})
	}
	v.must(conclave.Update, "sys/rotate", nil)
	if got := v.must(conclave.Read, "sys/key-status", nil)["term"]; got != 2.0 {
		t.Errorf("term after rotation = %v, want 2", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- v.vaultPart().Reencrypt(ctx) }()
	waitFor(t, "old keys to be dropped", func() bool {
		tx, err := v.store.Begin()
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Close()
		old, err := v.vaultPart().OldSpaces()
		return err == nil && old == 0 && len(tx.Keyring().Root.Data) == 1
	})
	cancel()
	if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("re-encryption ended with %v", err)
	}
	for _, name := range []string{"a", "b", "c"} {
		data, _ := v.must(conclave.Read, "secret/data/"+name, nil)["data"].(map[string]any)
		if data["v"] != name {
			t.Errorf("secret %s after re-encryption = %v", name, data)
		}
	}
}

func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func TestOpenAPIDescribesWhatIsMounted(t *testing.T) {
	v := openVault(t)
	resp, err := v.do(v.root, conclave.Read, "sys/internal/specs/openapi", nil)
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Paths map[string]map[string]struct {
			Summary string `json:"summary"`
		} `json:"paths"`
	}
	if err := json.Unmarshal(resp.Raw.Body, &doc); err != nil {
		t.Fatal(err)
	}
	for path, method := range map[string]string{"/secret/data/{path}": "post", "/sys/mounts": "get", "/auth/token/create": "post", "/cubbyhole/{path}": "get"} {
		if doc.Paths[path][method].Summary == "" {
			t.Errorf("%s %s is missing or has no summary", method, path)
		}
	}
}

func TestHelpDependsOnNoOperation(t *testing.T) {
	v := openVault(t)
	for _, path := range []string{"sys/seal", "sys/mounts/secret", "secret/data/x", "auth/token/create"} {
		resp, err := v.pipeline.Handle(t.Context(), &conclave.Request{ID: "help", Operation: conclave.Read, Path: path, Token: v.root, Help: true})
		if err != nil || resp.Raw == nil || !strings.Contains(string(resp.Raw.Body), `"help":"`) {
			t.Errorf("help for %s: %v", path, err)
		}
	}
	if v.daemon.vault.Sealed() {
		t.Error("asking what sealing is has sealed the vault")
	}
}

func TestClosedEpochsAreDroppedOnlyAgainstTheirHead(t *testing.T) {
	v := openVault(t)
	v.must(conclave.Update, "sys/audit-rotate", map[string]any{"reason": "end of the quarter"})
	shown := v.state.Audit().Shown()
	if shown.Epoch != 1 || shown.Base.Seq != 0 {
		t.Fatalf("after rotation: epoch %d, first record %d, want 1, 0", shown.Epoch, shown.Base.Seq)
	}
	var head string
	err := v.state.Audit().Read(t.Context(), 0, func(f audit.Frame) bool {
		if f.Start {
			start, err := audit.ParseEpochStart(f.Box)
			if err != nil {
				t.Fatal(err)
			}
			head = hex.EncodeToString(start.PreviousHead[:])
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	prune := func(head string) error {
		_, err := v.do(v.root, conclave.Update, "sys/audit-prune", map[string]any{"epoch": json.Number("0"), "head": head})
		return err
	}
	if err := prune(strings.Repeat("00", 32)); !conclave.Is(err, conclave.Invalid) {
		t.Errorf("prune with a wrong head: %v, want invalid", err)
	}
	if got := v.state.Audit().Shown().Base.Seq; got != 0 {
		t.Fatalf("a refused prune dropped records up to %d", got)
	}
	if err := prune(head); err != nil {
		t.Fatalf("prune: %v", err)
	}
	if got := v.state.Audit().Shown().Base.Seq; got == 0 {
		t.Error("nothing was dropped")
	}
	if out := v.must(conclave.Read, "sys/audit-verify", nil); out["ok"] != true {
		t.Errorf("verify after pruning: %v", out)
	}
}

func TestCubbyholesGoWithTheirTokens(t *testing.T) {
	v := openVault(t)
	gone, kept := v.token(map[string]any{"policies": []any{"root"}}), v.token(map[string]any{"policies": []any{"root"}})
	for _, token := range []conclave.Secret{gone, kept} {
		for _, path := range []string{"cubbyhole/a", "cubbyhole/deep/b"} {
			if _, err := v.do(token, conclave.Update, path, map[string]any{"k": "v"}); err != nil {
				t.Fatal(err)
			}
		}
	}
	owners := func() int {
		tx, err := v.store.Begin()
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Close()
		table, err := mount.Load(tx.System(), mount.Defaults{})
		if err != nil {
			t.Fatal(err)
		}
		entry, _, _ := table.Find("cubbyhole/")
		all, err := tx.Space(entry.Space, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		names, err := all.List("", "", 0)
		if err != nil {
			t.Fatal(err)
		}
		return len(names)
	}
	if got := owners(); got != 2 {
		t.Fatalf("%d cubbyholes, want 2", got)
	}
	if _, err := v.do(gone, conclave.Update, "auth/token/revoke-self", nil); err != nil {
		t.Fatal(err)
	}
	var sweep cubbyholeSweep
	if err := v.inNamespace(t.Context(), conclave.Namespace{ID: conclave.RootNamespace}, sweep.clear); err != nil {
		t.Fatal(err)
	}
	if got := owners(); got != 1 {
		t.Errorf("%d cubbyholes after one token is gone, want 1", got)
	}
	if _, err := v.do(kept, conclave.Read, "cubbyhole/deep/b", nil); err != nil {
		t.Errorf("the living token's cubbyhole: %v", err)
	}
}
