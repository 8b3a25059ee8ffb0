package fsm

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/hashicorp/raft"

	"conclave/internal/archive"
	"conclave/internal/durable"
)

var _ raft.SnapshotStore = (*SnapshotStore)(nil)

// SnapshotStore keeps the newest snapshot of this node, as directories of hard links in snapshots/:
//
//	<term>-<index>-<number>/  meta.json  manifest.json  state/  audit/
//	tmp-<number>/             one that isn't complete
//
// Term, index and number have 16 hex digits each; the number makes names unique.
type SnapshotStore struct {
	options *Options

	mu   sync.Mutex // guards what follows, and directories' coming and going
	kept []*kept    // newest first
	next uint64     // number of the next directory
}

// kept is a complete snapshot.
type kept struct {
	raft.SnapshotMeta
	Local bool // made here, not received

	manifest manifest
	dir      string
	readers  int
	old      bool // a newer one is there: to be removed when the last reader is done
}

const (
	snapshotsDir = "snapshots"
	metaName     = "meta.json"
	manifestFile = "manifest.json"
	maxMeta      = 1 << 20
	temporaryDir = "tmp-"
)

// Snapshots returns the store to run Raft with.
func (f *FSM) Snapshots() raft.SnapshotStore { return f.store }

// openSnapshots reads what is there, and removes what was never completed.
func openSnapshots(o *Options) (*SnapshotStore, error) {
	s := &SnapshotStore{options: o, next: 1}
	if err := durable.MakeDir(o.FS, o.path(snapshotsDir)); err != nil {
		return nil, err
	}
	names, err := o.FS.List(o.path(snapshotsDir))
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		path := o.path(snapshotsDir, name)
		if strings.HasPrefix(name, temporaryDir) {
			if err := o.FS.RemoveAll(path); err != nil {
				return nil, err
			}
			continue
		}
		number, ok := parseSnapshotID(name)
		if !ok {
			o.Logger.Warn("unknown file among the snapshots", "name", name)
			continue
		}
		k, err := loadSnapshot(o, path)
		if err != nil {
			return nil, fmt.Errorf("snapshot %s: %w", name, err)
		}
		s.next = max(s.next, number+1)
		s.kept = append(s.kept, k)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s, s.retireLocked()
}

func snapshotID(term, index, number uint64) string {
	return fmt.Sprintf("%016x-%016x-%016x", term, index, number)
}

func parseSnapshotID(id string) (number uint64, ok bool) {
	if len(id) != 3*16+2 {
		return 0, false
	}
	term, err1 := strconv.ParseUint(id[:16], 16, 64)
	index, err2 := strconv.ParseUint(id[17:33], 16, 64)
	number, err3 := strconv.ParseUint(id[34:], 16, 64)
	return number, errors.Join(err1, err2, err3) == nil && snapshotID(term, index, number) == id
}

func loadSnapshot(o *Options, dir string) (*kept, error) {
	meta, err := durable.ReadFile(o.FS, o.FS.PathJoin(dir, metaName), maxMeta)
	if err != nil {
		return nil, err
	}
	k := &kept{dir: dir}
	d := json.NewDecoder(bytes.NewReader(meta))
	d.DisallowUnknownFields()
	if err := d.Decode(k); err != nil {
		return nil, fmt.Errorf("%s is malformed: %w", metaName, err)
	}
	encoded, err := durable.ReadFile(o.FS, o.FS.PathJoin(dir, manifestFile), archive.MaxHead)
	if err != nil {
		return nil, err
	}
	k.manifest, err = decodeManifest(encoded)
	return k, err
}

// temporary makes a directory for a snapshot that isn't complete.
func (s *SnapshotStore) temporary() (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	dir := s.options.path(snapshotsDir, temporaryDir+generation16(s.next))
	s.next++
	return dir, s.options.FS.MkdirAll(dir, 0o700)
}

// newest returns the newest snapshot, nil if there is none.
func (s *SnapshotStore) newest() *kept {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.kept) == 0 {
		return nil
	}
	return s.kept[0]
}

// retireLocked sorts the snapshots and removes all but the newest, unless they are being read.
func (s *SnapshotStore) retireLocked() (err error) {
	slices.SortFunc(s.kept, func(a, b *kept) int {
		return cmp.Or(cmp.Compare(b.Index, a.Index), cmp.Compare(b.Term, a.Term), cmp.Compare(b.ID[34:], a.ID[34:]))
	})
	s.kept = slices.DeleteFunc(s.kept, func(k *kept) bool {
		if k == s.kept[0] {
			return false
		}
		if k.old = true; k.readers > 0 {
			return true
		}
		err = errors.Join(err, s.options.FS.RemoveAll(k.dir))
		return true
	})
	return err
}

// Create implements raft.SnapshotStore.
func (s *SnapshotStore) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration,
	configurationIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	if version != 1 {
		return nil, fmt.Errorf("snapshot version %d isn't supported", version)
	}
	dir, err := s.temporary()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	id := snapshotID(term, index, s.next)
	s.next++
	s.mu.Unlock()
	sink := &snapshotSink{store: s, dir: dir, meta: raft.SnapshotMeta{Version: version, ID: id,
		Index: index, Term: term, Configuration: configuration, ConfigurationIndex: configurationIndex}}
	sink.in = sink.manifest.receiver(s.options.FS, dir)
	return sink, nil
}

// List implements raft.SnapshotStore.
func (s *SnapshotStore) List() ([]*raft.SnapshotMeta, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	metas := make([]*raft.SnapshotMeta, len(s.kept))
	for i, k := range s.kept {
		meta := k.SnapshotMeta
		metas[i] = &meta
	}
	return metas, nil
}

// Open implements raft.SnapshotStore. The snapshot stays until the reader is closed, even if a newer one comes.
func (s *SnapshotStore) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.kept, func(k *kept) bool { return k.ID == id })
	if i < 0 {
		return nil, nil, fmt.Errorf("there is no snapshot %s", id)
	}
	k := s.kept[i]
	a, err := k.manifest.archive(s.options.FS, k.dir)
	if err != nil {
		return nil, nil, err
	}
	k.readers++
	meta := k.SnapshotMeta
	return &meta, &snapshotReader{Reader: a, store: s, kept: k}, nil
}

// snapshotReader streams a snapshot, and lets Restore find the files that it is made from.
type snapshotReader struct {
	*archive.Reader
	store *SnapshotStore
	kept  *kept
	once  sync.Once
}

// Close implements io.Closer.
func (r *snapshotReader) Close() error {
	err := r.Reader.Close()
	r.once.Do(func() {
		r.store.mu.Lock()
		defer r.store.mu.Unlock()
		if r.kept.readers--; r.kept.old && r.kept.readers == 0 {
			err = errors.Join(err, r.store.options.FS.RemoveAll(r.kept.dir))
		}
	})
	return err
}

// snapshotSink takes a snapshot, as a stream from another node or as the directory of our own checkpoint.
type snapshotSink struct {
	store    *SnapshotStore
	dir      string
	meta     raft.SnapshotMeta
	in       *archive.Receiver // nil for our own checkpoint
	manifest manifest
	done     bool
}

// Write implements io.Writer, for a snapshot from another node.
func (s *snapshotSink) Write(p []byte) (int, error) {
	if s.in == nil {
		return 0, errMalformed
	}
	return s.in.Write(p)
}

// ID implements raft.SnapshotSink.
func (s *snapshotSink) ID() string { return s.meta.ID }

// take makes the files of a checkpoint the sink's, in place of a stream.
func (s *snapshotSink) take(dir string, m manifest) error {
	fs := s.store.options.FS
	if err := fs.RemoveAll(s.dir); err != nil {
		return err
	}
	s.dir, s.manifest, s.in = dir, m, nil
	return nil
}

// Cancel implements raft.SnapshotSink.
func (s *snapshotSink) Cancel() error {
	if s.done {
		return nil
	}
	s.done = true
	if s.in != nil {
		_ = s.in.Finish() // closes; what it says doesn't matter now
	}
	return s.store.options.FS.RemoveAll(s.dir)
}

// Close keeps the snapshot, if all of it came, and removes older ones.
func (s *snapshotSink) Close() error {
	if s.done {
		return nil
	}
	if err := s.keep(); err != nil {
		return errors.Join(fmt.Errorf("keep snapshot %s: %w", s.meta.ID, err), s.Cancel())
	}
	s.done = true
	return nil
}

func (s *snapshotSink) keep() error {
	if s.in != nil {
		if err := s.in.Finish(); err != nil {
			return err
		}
	}
	o := s.store.options
	k := &kept{SnapshotMeta: s.meta, Local: s.in == nil, manifest: s.manifest, dir: o.path(snapshotsDir, s.meta.ID)}
	encoded, err := json.Marshal(&k.manifest)
	if err != nil {
		return err
	}
	k.Size = archive.NewReader(o.FS, s.dir, encoded, k.manifest.Files).Size()
	meta, err := json.Marshal(k)
	if err != nil {
		return err
	}
	err = errors.Join(durable.WriteFile(o.FS, o.FS.PathJoin(s.dir, manifestFile), encoded), durable.WriteFile(o.FS, o.FS.PathJoin(s.dir, metaName), meta))
	if err != nil {
		return err
	}
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	if err := errors.Join(o.FS.Rename(s.dir, k.dir), durable.SyncDir(o.FS, o.path(snapshotsDir))); err != nil {
		return err
	}
	s.store.kept = append(s.store.kept, k)
	return s.store.retireLocked()
}
