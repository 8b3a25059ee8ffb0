package fsm

import (
	"errors"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hashicorp/raft"

	"conclave/internal/archive"
	"conclave/internal/chainlog"
	"conclave/internal/durable"
)

// snapshot is the state as of one index, in a directory of its own until a sink takes it over.
type snapshot struct {
	store    *SnapshotStore
	dir      string
	manifest manifest
	taken    bool
}

// Snapshot makes a checkpoint of the state as it is: audit log and state are made durable, and their files are linked,
// not copied. It is cut at exactly the applied index.
func (f *FSM) Snapshot() (raft.FSMSnapshot, error) {
	f.applying.Lock()
	defer f.applying.Unlock()
	dir, err := f.store.temporary()
	if err != nil {
		return nil, fmt.Errorf("make a snapshot: %w", err)
	}
	s := &snapshot{store: f.store, dir: dir}
	if err := f.checkpoint(s); err != nil {
		s.Release()
		return nil, fmt.Errorf("make a snapshot: %w", err)
	}
	f.stats.snapshots.Add(1)
	return s, nil
}

func (f *FSM) checkpoint(s *snapshot) error {
	a, fs := &f.applier, f.options.FS
	a.unsynced = 0
	if err := errors.Join(a.epoch.log.Sync(), a.epoch.db.Flush()); err != nil {
		return err
	}
	state, log := fs.PathJoin(s.dir, stateDir), fs.PathJoin(s.dir, auditDir)
	if err := errors.Join(a.epoch.db.Checkpoint(state), fs.MkdirAll(log, 0o700)); err != nil {
		return err
	}
	segments, err := a.epoch.log.LinkTo(log)
	if err != nil {
		return err
	}
	s.manifest = manifest{Layout: manifestLayout, Format: a.next.format, Index: a.next.applied, Time: a.next.time,
		Records: a.next.audit.Seq, Head: fmt.Sprintf("%x", a.next.audit.Head)}
	names, err := fs.List(state)
	if err != nil {
		return err
	}
	for _, name := range names {
		info, err := fs.Stat(fs.PathJoin(state, name))
		if err != nil {
			return err
		}
		s.manifest.Files = append(s.manifest.Files, archive.File{Name: stateDir + "/" + name, Size: info.Size()})
	}
	for _, g := range segments {
		s.manifest.Files = append(s.manifest.Files, archive.File{Name: auditDir + "/" + g.Name, Size: g.Size})
	}
	return s.manifest.check()
}

// Persist hands the checkpoint to a sink of our SnapshotStore, which keeps its files; any other gets the stream.
func (s *snapshot) Persist(sink raft.SnapshotSink) error {
	own, ok := sink.(*snapshotSink)
	if !ok || own.store != s.store {
		in, err := s.manifest.archive(s.store.options.FS, s.dir)
		if err != nil {
			return err
		}
		if _, err = io.Copy(sink, in); err == nil {
			err = sink.Close()
		}
		return errors.Join(err, in.Close())
	}
	if err := own.take(s.dir, s.manifest); err != nil {
		return err
	}
	s.taken = true
	return nil
}

// Release removes what no sink has taken.
func (s *snapshot) Release() {
	if s.taken {
		return
	}
	if err := s.store.options.FS.RemoveAll(s.dir); err != nil {
		s.store.options.Logger.Warn("remove a snapshot that wasn't kept", "error", err)
	}
}

// Restore replaces the state by a snapshot. Views of the old state stay readable until they are released; whoever waits
// for an outcome gets the zero Verdict. The applied index becomes that of Raft's metadata if source comes from our
// SnapshotStore, which it does in operation, else the one in the snapshot.
func (f *FSM) Restore(source io.ReadCloser) error {
	for {
		wrapped, ok := source.(raft.ReadCloserWrapper)
		if !ok {
			break
		}
		source = wrapped.WrappedReadCloser()
	}
	if own, ok := source.(*snapshotReader); ok && own.store == f.store {
		return f.restore(own.kept.dir, &own.kept.manifest, own.kept.Index, own.kept.Term)
	}
	dir, err := f.store.temporary()
	if err != nil {
		return fmt.Errorf("restore a snapshot: %w", err)
	}
	var m manifest
	in := m.receiver(f.options.FS, dir)
	_, err = io.Copy(in, source)
	if err = errors.Join(err, in.Finish()); err == nil {
		err = f.restore(dir, &m, m.Index, 0)
	}
	return errors.Join(err, f.options.FS.RemoveAll(dir))
}

// recover restores the newest snapshot if the state is behind it: the node ended between receiving and restoring it.
func (f *FSM) recover() error {
	kept := f.store.newest()
	if kept == nil {
		return nil
	}
	index := kept.Index
	if kept.Local {
		// Raft's index may be that of an entry which never reached the state.
		index = kept.manifest.Index
	}
	if index <= f.Applied() {
		return nil
	}
	f.options.Logger.Info("restoring the newest snapshot, which is ahead of the state", "snapshot", kept.ID, "index", index, "applied", f.Applied())
	return f.restore(kept.dir, &kept.manifest, kept.Index, kept.Term)
}

// restore makes a new generation from the files in dir, and swaps it in. They are linked; only those that will be
// written to are copied. A crash before CURRENT is replaced leaves the old generation as it was.
func (f *FSM) restore(dir string, m *manifest, index, term uint64) error {
	f.applying.Lock()
	defer f.applying.Unlock()
	number := f.applier.epoch.number + 1
	if err := f.layOut(dir, m, number); err != nil {
		return fmt.Errorf("restore a snapshot: %w", err)
	}
	e, at, err := openGeneration(&f.options, number)
	if err != nil {
		return fmt.Errorf("restore a snapshot: %w", err)
	}
	if at.applied != m.Index || fmt.Sprintf("%x", at.audit.Head) != m.Head {
		e.stale.Store(true)
		return errors.Join(fmt.Errorf("restore a snapshot: it holds index %d, but its manifest says %d", at.applied, m.Index), e.release())
	}
	at.applied = index
	if term != 0 {
		at.opened = min(at.opened, term) // it may come from another cluster, whose terms mean nothing here
	}
	err = errors.Join(e.db.Set(positionKey, at.append(nil), pebble.NoSync), e.db.Flush(), writeCurrent(&f.options, number))
	if err != nil {
		e.stale.Store(true)
		return errors.Join(fmt.Errorf("restore a snapshot: %w", err), e.release())
	}
	f.stats.restores.Add(1)
	return f.swap(e, at)
}

// layOut makes the directories of a generation from those of a snapshot.
func (f *FSM) layOut(dir string, m *manifest, number uint64) error {
	fs, o := f.options.FS, &f.options
	generation := generation16(number)
	for _, part := range []string{stateDir, auditDir} {
		if err := errors.Join(fs.RemoveAll(o.path(part, generation)), fs.MkdirAll(o.path(part, generation), 0o700)); err != nil {
			return err
		}
	}
	last := len(m.Files) - 1
	for i, file := range m.Files {
		part, name := splitName(file.Name)
		from, to := fs.PathJoin(dir, part, name), o.path(part, generation, name)
		var err error
		if isTable(name) || (part == auditDir && i < last) {
			err = fs.Link(from, to)
		} else {
			err = chainlog.CopyPart(fs, from, to, file.Size)
		}
		if err != nil {
			return err
		}
	}
	return errors.Join(durable.SyncDir(fs, o.path(stateDir, generation)), durable.SyncDir(fs, o.path(auditDir, generation)),
		durable.SyncDir(fs, o.path(stateDir)), durable.SyncDir(fs, o.path(auditDir)))
}

// swap makes e the state, and tells everybody who waits on the old one.
func (f *FSM) swap(e *epoch, at position) error {
	f.mu.Lock()
	old, view, waiters := f.epoch, f.view, f.waiters
	old.stale.Store(true)
	f.view, f.waiters = nil, make(map[ProposalID]*Waiter)
	f.mu.Unlock()
	f.adopt(e, at)
	for _, w := range waiters {
		w.done <- Outcome{}
	}
	f.mu.Lock()
	f.wakeLocked()
	f.settleCutLocked(f.shown.applied + 1)
	f.mu.Unlock()
	if view != nil {
		view.Release()
	}
	return old.release()
}
