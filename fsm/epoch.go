package fsm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"

	"conclave/audit"
	"conclave/internal/durable"
	"conclave/internal/hot"
)

// epoch is one generation of the state on disk. A Restore makes the next one beside it and swaps; the old one is closed
// and removed when its last View is released.
//
//	CURRENT               the number of the generation that counts, 16 hex digits and a newline
//	state/<generation>/   Pebble
//	audit/<generation>/   segments
type epoch struct {
	number  uint64
	options *Options
	db      *pebble.DB
	log     *audit.Log
	hot     *hot.Items // set by adopt: the keyring, the mounts, a token's record and so on
	refs    atomic.Int64
	stale   atomic.Bool // a Restore has replaced it
}

const (
	currentFile = "CURRENT"
	stateDir    = "state"
	auditDir    = "audit"
)

// pebbleFormat is the on-disk format of Pebble that belongs to FormatVersion 1. It is raised only with FormatVersion,
// so that every node that can read the log can read a checkpoint of any other.
const pebbleFormat = pebble.FormatValueSeparation

// positionKey holds a position, the state machine's own item.
var positionKey = []byte{classMeta, 's', 't', 'a', 't', 'e'}

// position is where the state stands. It is written with every Pebble batch:
//
//	layout 1 ‖ format 4 ‖ applied 8 ‖ time 8 ‖ opened term 8 ‖ audit.State
type position struct {
	format  uint32
	applied uint64
	time    int64
	opened  uint64
	audit   audit.State
}

const positionLayout = 1

func (p *position) append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint32(append(dst, positionLayout), p.format)
	dst = binary.BigEndian.AppendUint64(dst, p.applied)
	dst = binary.BigEndian.AppendUint64(dst, uint64(p.time))
	dst = binary.BigEndian.AppendUint64(dst, p.opened)
	dst, _ = p.audit.AppendBinary(dst) // has no error
	return dst
}

func decodePosition(b []byte) (position, error) {
	d := decoder{rest: b}
	layout := d.uint8()
	p := position{format: d.uint32(), applied: d.uint64(), time: int64(d.uint64()), opened: d.uint64()}
	if d.bad || layout != positionLayout || p.format == 0 {
		return p, errors.New("the position of the state is malformed")
	}
	if p.format > FormatVersion {
		return p, &FormatError{Needed: p.format}
	}
	return p, p.audit.UnmarshalBinary(d.rest)
}

// openEpoch opens the current generation, makes the first one if there is none, and removes leftovers of others.
func openEpoch(o *Options) (*epoch, position, error) {
	for _, dir := range []string{o.Dir, o.path(stateDir), o.path(auditDir)} {
		if err := durable.MakeDir(o.FS, dir); err != nil {
			return nil, position{}, err
		}
	}
	number, err := readCurrent(o)
	if err != nil {
		return nil, position{}, err
	}
	if number == 0 {
		number = 1
		if err := errors.Join(durable.MakeDir(o.FS, o.path(stateDir, generation16(number))), writeCurrent(o, number)); err != nil {
			return nil, position{}, err
		}
	}
	for _, dir := range []string{stateDir, auditDir} {
		if err := durable.RemoveOthers(o.FS, o.path(dir), generation16(number)); err != nil {
			return nil, position{}, err
		}
	}
	return openGeneration(o, number)
}

// openGeneration opens one generation. Its position is read back, or the first one's if it is new.
func openGeneration(o *Options, number uint64) (*epoch, position, error) {
	e := &epoch{number: number, options: o}
	e.refs.Store(1)
	disk := o.room.FS(o.FS, o.path(stateDir), o.path(auditDir))
	db, err := pebble.Open(o.path(stateDir, generation16(number)), e.pebbleOptions(disk))
	if err != nil {
		return nil, position{}, err
	}
	e.db = db
	at := position{format: 1}
	item, closer, err := db.Get(positionKey)
	if err == nil {
		at, err = decodePosition(item)
		err = errors.Join(err, closer.Close())
	} else if errors.Is(err, pebble.ErrNotFound) {
		err = nil
	}
	if err == nil {
		e.log, err = audit.OpenLog(o.path(auditDir, generation16(number)), at.audit,
			audit.LogOptions{FS: o.room.FS(o.unchecked(), o.path(stateDir), o.path(auditDir)), SegmentSize: o.AuditSegment, Capacity: o.AuditCapacity})
	}
	if err != nil {
		return nil, position{}, errors.Join(err, db.Close())
	}
	return e, at, nil
}

// unchecked is the file system without the watch for slow disks, which takes a write beside a sync of the same file for
// a defect and panics: the audit log is written to while it is synced.
func (o *Options) unchecked() vfs.FS {
	if o.health != nil {
		return o.FS.Unwrap()
	}
	return o.FS
}

func (e *epoch) pebbleOptions(disk vfs.FS) *pebble.Options {
	o := &pebble.Options{
		FS:                          disk,
		DisableWAL:                  true,
		FormatMajorVersion:          pebbleFormat,
		CacheSize:                   e.options.CacheSize + int64(e.options.MemTableSize), // Pebble takes memtables out of its cache
		MemTableSize:                uint64(e.options.MemTableSize),
		MemTableStopWritesThreshold: 3,
		MaxOpenFiles:                512,
		Logger:                      pebbleLogger{e.options.Logger.Named("pebble"), e.options},
	}
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
		o.Levels[i].FilterType = pebble.TableFilter
	}
	o.EventListener = e.listener()
	return o
}

// listener tells what Pebble's own goroutines do. Pebble holds its mutex while it calls.
func (e *epoch) listener() *pebble.EventListener {
	room := e.options.room
	return &pebble.EventListener{
		// Should Pebble flush by itself after all, the audit log is synced first all the same: what Pebble makes durable
		// must not speak of records that a crash takes back.
		FlushBegin: func(pebble.FlushInfo) {
			if e.log != nil {
				e.options.must(e.log.Sync(), "sync the audit log")
			}
		},
		FlushEnd: func(info pebble.FlushInfo) {
			if info.Err == nil {
				room.Done()
			}
		},
		CompactionEnd: func(info pebble.CompactionInfo) {
			if info.Err == nil {
				room.Done()
			}
		},
		// Pebble tries again at once and for ever. That is right only where the disk is full.
		BackgroundError: func(err error) {
			if !room.Failed(err) {
				e.options.must(err, "write state in the background")
			}
		},
	}
}

// flush makes what was committed so far durable, soon.
func (e *epoch) flush() error {
	if err := e.log.Sync(); err != nil {
		return err
	}
	_, err := e.db.AsyncFlush()
	return err
}

// release drops one reference; the last one closes.
func (e *epoch) release() error {
	if e.refs.Add(-1) > 0 {
		return nil
	}
	err := errors.Join(e.db.Close(), e.log.Close())
	if e.stale.Load() {
		number := generation16(e.number)
		err = errors.Join(err, e.options.FS.RemoveAll(e.options.path(stateDir, number)), e.options.FS.RemoveAll(e.options.path(auditDir, number)))
	}
	return err
}

func generation16(number uint64) string { return fmt.Sprintf("%016x", number) }

func (o *Options) path(elements ...string) string {
	return o.FS.PathJoin(append([]string{o.Dir}, elements...)...)
}

// readCurrent returns the number of the current generation, 0 if there is none.
func readCurrent(o *Options) (uint64, error) {
	b, err := durable.ReadFile(o.FS, o.path(currentFile), 64)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	number, err := strconv.ParseUint(strings.TrimSuffix(string(b), "\n"), 16, 64)
	if err != nil || number == 0 || generation16(number)+"\n" != string(b) {
		return 0, fmt.Errorf("%s is malformed", currentFile)
	}
	return number, nil
}

// writeCurrent makes a generation the current one, durably.
func writeCurrent(o *Options, number uint64) error {
	return durable.WriteFile(o.FS, o.path(currentFile), []byte(generation16(number)+"\n"))
}

// pebbleLogger passes Pebble's messages on.
type pebbleLogger struct {
	to      hclog.Logger
	options *Options
}

func (l pebbleLogger) Infof(format string, args ...any) {
	if l.to.IsDebug() {
		l.to.Debug(fmt.Sprintf(format, args...))
	}
}

func (l pebbleLogger) Errorf(format string, args ...any) { l.to.Error(fmt.Sprintf(format, args...)) }

// Fatalf ends the process, as Pebble demands.
func (l pebbleLogger) Fatalf(format string, args ...any) {
	l.options.must(fmt.Errorf(format, args...), "pebble")
}
