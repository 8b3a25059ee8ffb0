package store

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"conclave"
	"conclave/crypto"
	"conclave/fsm"
)

// solo is a cluster of one: it judges each transaction at once, as an entry of its own.
type solo struct {
	mu    sync.Mutex // guards all below
	state *fsm.FSM
	index uint64
	stamp int64
}

func (s *solo) apply(data []byte) *fsm.BatchResult {
	s.index++
	result, _ := s.state.ApplyBatch([]*raft.Log{{Index: s.index, Term: 1, Type: raft.LogCommand, Data: data}})[0].(*fsm.BatchResult)
	return result
}

// Commit judges one transaction.
func (s *solo) Commit(_ context.Context, tx *fsm.Transaction) (fsm.Outcome, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	binary.BigEndian.PutUint64(tx.ID[8:], s.index+1)
	txs := []*fsm.Transaction{tx}
	defer s.state.Expect(tx.ID, txs)()
	data := fsm.EncodeBatch(nil, 1, s.stamp, tx.ID, txs)
	if err := fsm.CheckEntry(data); err != nil {
		return fsm.Outcome{}, err
	}
	return s.apply(data).Outcomes[0], nil
}

// world is an open store on one state.
type world struct {
	*Store
	solo *solo
	now  time.Time
}

func newWorld(t testing.TB) *world {
	t.Helper()
	state, err := fsm.Open(fsm.Options{Dir: filepath.Join(t.TempDir(), "data"), Logger: hclog.NewNullLogger()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { state.Close() })
	w := &world{solo: &solo{state: state}, now: time.Unix(1_800_000_000, 0)}
	w.solo.stamp = w.now.UnixNano()
	w.solo.apply(fsm.EncodeTermOpen(1, w.solo.stamp))
	w.Store = New(state, w.solo, func() time.Time { return w.now })
	root := testRoot(t)
	keyring, err := crypto.NewKeyring(rand.Reader, w.now.Unix())
	if err != nil {
		t.Fatal(err)
	}
	tx, err := w.Initialize(root, [16]byte{1}, keyring)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Close()
	if _, err := tx.Commit(t.Context(), fsm.AuditRecord{}); err != nil {
		t.Fatal(err)
	}
	if err := w.Unlock(root, [16]byte{1}); err != nil {
		t.Fatal(err)
	}
	return w
}

// clearRoot is a root key that isn't locked away.
type clearRoot struct{ aead *crypto.AEAD }

func (r clearRoot) Use(use func(*crypto.AEAD) error) error { return use(r.aead) }

func testRoot(t testing.TB) RootKey {
	t.Helper()
	key := make([]byte, crypto.KeySize)
	_, _ = rand.Read(key)
	aead, err := crypto.NewAEAD(key)
	if err != nil {
		t.Fatal(err)
	}
	return clearRoot{aead}
}

// CommitUrgent is Commit: there is no queue.
func (s *solo) CommitUrgent(ctx context.Context, tx *fsm.Transaction) (fsm.Outcome, error) {
	return s.Commit(ctx, tx)
}

func (w *world) begin(t testing.TB) *Tx {
	t.Helper()
	tx, err := w.Begin()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tx.Close)
	return tx
}

// update runs work and commits it, which must succeed.
func (w *world) update(t testing.TB, work func(v *View)) {
	t.Helper()
	tx := w.begin(t)
	work(tx.System())
	if _, err := tx.Commit(t.Context(), fsm.AuditRecord{}); err != nil {
		t.Fatalf("commit: %v", err)
	}
	tx.Close()
}

func put(t testing.TB, v *View, path, value string) {
	t.Helper()
	if err := v.Put(path, []byte(value)); err != nil {
		t.Fatalf("Put(%q): %v", path, err)
	}
}

func get(t testing.TB, v *View, path string) string {
	t.Helper()
	value, err := v.Get(path)
	if err != nil {
		t.Fatalf("Get(%q): %v", path, err)
	}
	return string(value)
}

func list(t testing.TB, v *View, dir string) []string {
	t.Helper()
	names, err := v.List(dir, "", 0)
	if err != nil {
		t.Fatalf("List(%q): %v", dir, err)
	}
	return names
}

func conflicts(err error) bool {
	_, is := errors.AsType[*ErrConflict](err)
	return is
}

func TestWriteIsReadBackByItsOwnAndLaterTransactions(t *testing.T) {
	w := newWorld(t)
	w.update(t, func(v *View) {
		put(t, v, "a/b/c", "one")
		if got := get(t, v, "a/b/c"); got != "one" {
			t.Errorf("own read = %q, want one", got)
		}
		if got := list(t, v, "a/"); !slices.Equal(got, []string{"b/"}) {
			t.Errorf("own list = %v, want [b/]", got)
		}
	})
	v := w.begin(t).System()
	if got := get(t, v, "a/b/c"); got != "one" {
		t.Errorf("later read = %q, want one", got)
	}
	if got := list(t, v, "a/b/"); !slices.Equal(got, []string{"c"}) {
		t.Errorf("later list = %v, want [c]", got)
	}
}

func TestLeafAndDirectoryMayShareAName(t *testing.T) {
	w := newWorld(t)
	w.update(t, func(v *View) { put(t, v, "a", "leaf"); put(t, v, "a/b", "below") })
	v := w.begin(t).System()
	if got := list(t, v, ""); !slices.Equal(got, []string{"a", "a/"}) {
		t.Errorf("list = %v, want [a a/]", got)
	}
	w.update(t, func(v *View) {
		if err := v.Delete("a"); err != nil {
			t.Fatal(err)
		}
	})
	if got := get(t, w.begin(t).System(), "a/b"); got != "below" {
		t.Errorf("a/b after deleting a = %q, want below", got)
	}
}

func TestDirectoriesGoWithTheirLastChild(t *testing.T) {
	w := newWorld(t)
	w.update(t, func(v *View) { put(t, v, "a/b/c", "1"); put(t, v, "a/b/d", "2") })
	w.update(t, func(v *View) { _ = v.Delete("a/b/c") })
	if got := list(t, w.begin(t).System(), "a/"); !slices.Equal(got, []string{"b/"}) {
		t.Errorf("list after the first delete = %v, want [b/]", got)
	}
	w.update(t, func(v *View) { _ = v.Delete("a/b/d") })
	if got := list(t, w.begin(t).System(), ""); len(got) != 0 {
		t.Errorf("list after the last delete = %v, want none", got)
	}
}

// stamps are the keys of all directories' stamps in the state.
func stamps(t *testing.T, w *world) (keys []fsm.Key) {
	t.Helper()
	v := w.solo.state.View()
	defer v.Release()
	err := v.Scan(fsm.Key(fsm.ClassStamp), "", func(key fsm.Key, _ uint64, _ []byte) bool {
		if len(key) == len(dirPrefix(fsm.ClassStamp, RootSpace, crypto.Token{})) { // or it is a loss
			keys = append(keys, key)
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func TestStampsGoWithTheirDirectories(t *testing.T) {
	w := newWorld(t)
	w.update(t, func(v *View) { put(t, v, "stays", "1") })
	before := stamps(t, w)
	if len(before) == 0 {
		t.Fatal("a directory has no stamp")
	}
	w.update(t, func(v *View) { put(t, v, "a/b/c", "1"); put(t, v, "a/d", "2") })
	if got := stamps(t, w); len(got) != len(before)+2 {
		t.Errorf("%d stamps with two directories more, want %d", len(got), len(before)+2)
	}
	remove := func(v *View, paths ...string) {
		for _, path := range paths {
			if err := v.Delete(path); err != nil {
				t.Fatal(err)
			}
		}
	}
	// Emptied and filled again by one transaction: the stamp stays, and so does what it vouches for.
	w.update(t, func(v *View) { remove(v, "a/b/c", "a/d"); put(t, v, "a/b/c", "3") })
	if got := list(t, w.begin(t).System(), "a/b/"); !slices.Equal(got, []string{"c"}) {
		t.Errorf("a directory that was emptied and filled again lists %v, want [c]", got)
	}
	w.update(t, func(v *View) { remove(v, "a/b/c"); put(t, v, "a/b/e", "4"); remove(v, "a/b/e") })
	if got := stamps(t, w); !slices.Equal(got, before) {
		t.Errorf("%d stamps once the directories are gone, want the %d from before", len(got), len(before))
	}
}

func TestListingOfARemovedDirectoryConflictsWithItsReturn(t *testing.T) {
	for name, later := range map[string][]func(*View) error{
		"removed":                      {deletes("d/there")},
		"removed and made again":       {deletes("d/there"), writes("d/there")},
		"removed and made twice again": {deletes("d/there"), writes("d/there"), deletes("d/there"), writes("d/there")},
		"removed and made otherwise":   {deletes("d/there"), writes("d/other")},
	} {
		w := newWorld(t)
		w.update(t, func(v *View) { put(t, v, "d/there", "1") })
		tx := w.begin(t)
		if err := lists("d/")(tx.System()); err != nil {
			t.Fatal(err)
		}
		for _, change := range later {
			w.update(t, func(v *View) {
				if err := change(v); err != nil {
					t.Fatal(err)
				}
			})
		}
		if _, err := tx.Commit(t.Context(), fsm.AuditRecord{}); !conflicts(err) {
			t.Errorf("listing of a directory that was then %s: %v, want a conflict", name, err)
		}
	}
}

func TestConflicts(t *testing.T) {
	rows := []struct {
		name         string
		mine, theirs func(v *View) error
		conflict     bool
	}{
		{"both write one key", writes("k"), writes("k"), true},
		{"write of what was read", reads("k"), writes("k"), true},
		{"write beside what was read", reads("k"), writes("other"), false},
		{"create in a listed directory", lists("d/"), writes("d/new"), true},
		{"overwrite in a listed directory", lists("d/"), writes("d/there"), false},
		{"create below a listed directory", lists(""), writes("d/new"), false},
		{"delete of what was read", reads("k"), deletes("k"), true},
		{"creation of what was absent", reads("absent"), writes("absent"), true},
		{"create in a directory that is being emptied", deletes("d/there"), writes("d/new"), true},
		{"counters add up", adds("n"), adds("n"), false},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			w := newWorld(t)
			w.update(t, func(v *View) {
				put(t, v, "k", "1")
				put(t, v, "d/there", "1")
				if err := v.SetCell("n", 5, true); err != nil {
					t.Fatal(err)
				}
			})
			tx := w.begin(t)
			if err := row.mine(tx.System()); err != nil {
				t.Fatal(err)
			}
			w.update(t, func(v *View) {
				if err := row.theirs(v); err != nil {
					t.Fatal(err)
				}
			})
			_, err := tx.Commit(t.Context(), fsm.AuditRecord{})
			if got := conflicts(err); got != row.conflict {
				t.Errorf("conflict = %v (%v), want %v", got, err, row.conflict)
			}
		})
	}
}

func writes(path string) func(*View) error {
	return func(v *View) error { return v.Put(path, []byte("x")) }
}
func deletes(path string) func(*View) error { return func(v *View) error { return v.Delete(path) } }
func reads(path string) func(*View) error {
	return func(v *View) error { _, err := v.Get(path); return err }
}
func lists(dir string) func(*View) error {
	return func(v *View) error { _, err := v.List(dir, "", 0); return err }
}
func adds(path string) func(*View) error {
	return func(v *View) error { return v.AddCell(path, -1, 0, errors.New("used up")) }
}

func TestCounterIsNeverOverspent(t *testing.T) {
	w := newWorld(t)
	w.update(t, func(v *View) { _ = v.SetCell("uses", 3, true) })
	refused := errors.New("used up")
	spent := 0
	for range 10 {
		tx := w.begin(t)
		if err := tx.System().AddCell("uses", -1, 0, refused); err != nil {
			t.Fatal(err)
		}
		switch _, err := tx.Commit(t.Context(), fsm.AuditRecord{}); {
		case err == nil:
			spent++
		case !errors.Is(err, refused):
			t.Fatalf("commit = %v, want the refusal", err)
		}
	}
	if spent != 3 {
		t.Errorf("spent %d of 3 uses", spent)
	}
}

func TestFloorHoldsForACounterOfTheSameTransaction(t *testing.T) {
	w := newWorld(t)
	refused := errors.New("used up")
	tx := w.begin(t)
	if err := tx.System().SetCell("uses", 1, true); err != nil {
		t.Fatal(err)
	}
	if err := tx.System().AddCell("uses", -1, 0, refused); err != nil {
		t.Errorf("the first use: %v", err)
	}
	if err := tx.System().AddCell("uses", -1, 0, refused); !errors.Is(err, refused) {
		t.Errorf("one use too many: %v, want the refusal", err)
	}
}

func TestTimeDecisionsHoldOnlyInTheirInterval(t *testing.T) {
	w := newWorld(t)
	deadline := w.now.Add(time.Hour)
	tx := w.begin(t)
	if tx.Reached(deadline) {
		t.Fatal("deadline reached an hour early")
	}
	put(t, tx.System(), "k", "v")
	w.solo.stamp = deadline.UnixNano() // time passes between execution and judgement
	if _, err := tx.Commit(t.Context(), fsm.AuditRecord{}); !conflicts(err) {
		t.Errorf("commit after the deadline = %v, want a conflict", err)
	}
	again := w.begin(t)
	if !again.Reached(deadline) {
		t.Error("deadline not reached though an entry has its stamp")
	}
}

func TestVersionsGrowOverDeleteAndRecreate(t *testing.T) {
	w := newWorld(t)
	var last uint64
	for i := range 4 {
		w.update(t, func(v *View) { put(t, v, "k", fmt.Sprint(i)) })
		tx := w.begin(t)
		p, err := tx.System().locate("k")
		if err != nil {
			t.Fatal(err)
		}
		version, _, err := tx.get(p.key)
		if err != nil || version <= last {
			t.Fatalf("round %d: version %d, %v, want more than %d", i, version, err, last)
		}
		last = version
		w.update(t, func(v *View) { _ = v.Delete("k") })
	}
}

func TestSwappedAndDamagedRecordsAreErrors(t *testing.T) {
	w := newWorld(t)
	w.update(t, func(v *View) { put(t, v, "one", "1"); put(t, v, "two", "2") })
	tx := w.begin(t)
	one, _ := tx.System().locate("one")
	two, _ := tx.System().locate("two")
	v1, item1, _ := tx.get(one.key)
	v2, item2, _ := tx.get(two.key)
	rows := []struct {
		name    string
		version uint64
		item    []byte
	}{
		{"another key's record", v2, item2},
		{"an older version", v1 + 1, item1},
		{"a flipped byte", v1, append(slices.Clone(item1[:len(item1)-1]), item1[len(item1)-1]^1)},
		{"a cut", v1, item1[:len(item1)-1]},
		{"nothing", v1, nil},
	}
	for _, row := range rows {
		fresh := w.begin(t)
		if value, err := fresh.System().open(one, row.version, row.item); err == nil {
			t.Errorf("%s: opened as %q, want an error", row.name, value)
		}
	}
	if value, err := w.begin(t).System().open(one, v1, item1); err != nil || string(value) != "1" {
		t.Errorf("the right record = %q, %v, want 1", value, err)
	}
}

func TestNothingReadableInTheState(t *testing.T) {
	w := newWorld(t)
	w.update(t, func(v *View) { put(t, v, "canary-directory/canary-name", "canary-value") })
	view := w.solo.state.View()
	defer view.Release()
	for _, class := range []byte{fsm.ClassRecord, fsm.ClassStamp, fsm.ClassPlain} {
		err := view.Scan(fsm.Key([]byte{class}), "", func(key fsm.Key, _ uint64, value []byte) bool {
			if strings.Contains(string(key), "canary") || bytes.Contains(value, []byte("canary")) {
				t.Errorf("key %x shows the canary", key)
			}
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestRewrapMovesEverythingToTheActiveKey(t *testing.T) {
	w := newWorld(t)
	w.update(t, func(v *View) {
		for i := range 300 {
			put(t, v, fmt.Sprintf("d%d/k%d", i%7, i), strings.Repeat("x", i))
		}
	})
	w.update(t, func(v *View) {
		keyring := v.Tx().Keyring().Clone()
		if err := keyring.Rotate(rand.Reader, w.now.Unix()); err != nil {
			t.Fatal(err)
		}
		if err := v.Tx().PutKeyring(keyring); err != nil {
			t.Fatal(err)
		}
	})
	for from, more := fsm.Key(""), true; more; {
		w.update(t, func(v *View) {
			next, _, err := v.Rewrap(from, 50)
			if err != nil {
				t.Fatal(err)
			}
			from, more = next, next != ""
		})
	}
	w.update(t, func(v *View) {
		keyring := v.Tx().Keyring().Clone()
		for term := range keyring.Root.Data {
			if term != keyring.Root.Active {
				if err := keyring.Root.Drop(term); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := v.Tx().PutKeyring(keyring); err != nil {
			t.Fatal(err)
		}
	})
	v := w.begin(t).System()
	for i := range 300 {
		if got := get(t, v, fmt.Sprintf("d%d/k%d", i%7, i)); len(got) != i {
			t.Fatalf("record %d has %d bytes after the old key is gone, want %d", i, len(got), i)
		}
	}
}

func TestRotationMakesRunningTransactionsConflict(t *testing.T) {
	w := newWorld(t)
	tx := w.begin(t)
	put(t, tx.System(), "k", "sealed with the old key")
	w.update(t, func(v *View) {
		keyring := v.Tx().Keyring().Clone()
		if err := keyring.Rotate(rand.Reader, 1); err != nil {
			t.Fatal(err)
		}
		_ = v.Tx().PutKeyring(keyring)
	})
	if _, err := tx.Commit(t.Context(), fsm.AuditRecord{}); !conflicts(err) {
		t.Errorf("commit = %v, want a conflict", err)
	}
}

func TestLockedStoreOpensNothing(t *testing.T) {
	w := newWorld(t)
	tx := w.begin(t)
	put(t, tx.System(), "k", "v")
	w.Lock()
	if _, err := tx.Commit(t.Context(), fsm.AuditRecord{}); !conclave.Is(err, conclave.Sealed) {
		t.Errorf("commit after Lock = %v, want sealed", err)
	}
	if _, err := w.Begin(); !conclave.Is(err, conclave.Sealed) {
		t.Errorf("Begin after Lock = %v, want sealed", err)
	}
	if err := w.Unlock(testRoot(t), [16]byte{1}); err == nil {
		t.Error("a wrong root key unlocks the store")
	}
}

func TestLimits(t *testing.T) {
	w := newWorld(t)
	rows := []struct {
		name string
		do   func(v *View) error
		kind conclave.Kind
	}{
		{"large value", func(v *View) error { return v.Put("k", make([]byte, conclave.MaxValue+1)) }, conclave.TooLarge},
		{"large transaction", func(v *View) error {
			for i := range 9 {
				if err := v.Put(fmt.Sprint(i), make([]byte, conclave.MaxValue)); err != nil {
					return err
				}
			}
			return nil
		}, conclave.TooLarge},
		{"long name", func(v *View) error { return v.Put(strings.Repeat("n", conclave.MaxName+1), nil) }, conclave.Invalid},
		{"deep path", func(v *View) error { return v.Put(strings.Repeat("d/", conclave.MaxDepth)+"k", nil) }, conclave.Invalid},
		{"empty segment", func(v *View) error { return v.Put("a//b", nil) }, conclave.Invalid},
		{"value in a directory", func(v *View) error { return v.Put("a/", nil) }, conclave.Invalid},
	}
	for _, row := range rows {
		tx := w.begin(t)
		if err := row.do(tx.System()); !conclave.Is(err, row.kind) {
			t.Errorf("%s: %v, want kind %v", row.name, err, row.kind)
		}
		if _, err := tx.Commit(t.Context(), fsm.AuditRecord{}); err == nil {
			t.Errorf("%s: the transaction committed after its error was swallowed", row.name)
		}
	}
}

// TestRandomHistoryMatchesAMap holds the store against the plainest of models.
func TestRandomHistoryMatchesAMap(t *testing.T) {
	w := newWorld(t)
	rng := mathrand.New(mathrand.NewPCG(7, 7))
	model := map[string]string{}
	fixed := len(stamps(t, w))
	for step := range 400 {
		w.update(t, func(v *View) {
			for range 1 + rng.IntN(5) {
				path := fmt.Sprintf("%d/%d/%d", rng.IntN(3), rng.IntN(3), rng.IntN(4))[rng.IntN(2)*2:]
				if rng.IntN(3) == 0 {
					if err := v.Delete(path); err != nil {
						t.Fatal(err)
					}
					delete(model, path)
				} else {
					value := fmt.Sprint(step, rng.IntN(100))
					put(t, v, path, value)
					model[path] = value
				}
			}
		})
	}
	v := w.begin(t).System()
	var walk func(dir string) map[string]string
	walk = func(dir string) map[string]string {
		found := map[string]string{}
		for _, name := range list(t, v, dir) {
			if strings.HasSuffix(name, "/") {
				below := walk(dir + name)
				if len(below) == 0 {
					t.Errorf("directory %s is listed and empty", dir+name)
				}
				for path, value := range below {
					found[path] = value
				}
			} else {
				found[dir+name] = get(t, v, dir+name)
			}
		}
		return found
	}
	got := walk("")
	dirs := map[string]bool{"": true} // the top keeps its stamp
	for path := range model {
		for i := range path {
			if path[i] == '/' {
				dirs[path[:i+1]] = true
			}
		}
	}
	if n := len(stamps(t, w)); n > len(dirs)+fixed {
		t.Errorf("%d stamps for %d directories, and %d from before", n, len(dirs), fixed)
	}
	if len(got) != len(model) {
		t.Errorf("%d paths, want %d", len(got), len(model))
	}
	for path, want := range model {
		if got[path] != want {
			t.Errorf("%s = %q, want %q", path, got[path], want)
		}
	}
}

func BenchmarkReadTransaction(b *testing.B) {
	w := newWorld(b)
	w.update(b, func(v *View) { put(b, v, "secrets/app/db", strings.Repeat("s", 300)) })
	b.ReportAllocs()
	for b.Loop() {
		tx, err := w.Begin()
		if err != nil {
			b.Fatal(err)
		}
		if _, err := tx.System().Get("secrets/app/db"); err != nil {
			b.Fatal(err)
		}
		tx.Close()
	}
}
