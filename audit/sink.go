package audit

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"conclave"
)

// Source is the committed log that a sink follows.
type Source interface {
	// Read and Shown are as of *Log.
	Read(ctx context.Context, from uint64, visit func(Frame) (more bool)) error
	Shown() State
	// Wait returns when the record with this number can be read, or with ctx's error.
	Wait(ctx context.Context, seq uint64) error
}

// FileSinkConfig says what a FileSink writes where.
type FileSinkConfig struct {
	Path    string // in one of Folders
	Folders *Folders
	Source  Source
	// Open makes an opener of the keyring as it is after the Raft entry with this index, or later. It is asked again when a
	// record has a key that the last one lacks.
	Open func(ctx context.Context, index uint64) (*Opener, error)
	// Since leaves out records with an earlier stamp: Device.Enabled.
	Since time.Time
	// Every is the longest time for which written lines aren't safe from a crash of the machine, nor noted in the cursor. Default 1 s.
	Every time.Duration
	// Gather is the time between two looks at a log that grows all the time: each look costs as much as several records. The
	// first record after a pause is written at once. Default 20 ms.
	Gather time.Duration
}

// FileSink writes the lines of committed records to a file, never in a request's way.
//
// Beside the file is its cursor, <path>.cursor: how many records are written and how long the file is then. It changes only after the
// file was synced. A sink that starts again cuts the file back to that length and goes on from there, so that each line is there exactly
// once whatever crashed when. One case is left: when the file was moved away and the machine crashed before Reopen, lines of the last
// Every are in both files.
//
// The sink checks the chain as it goes. If the log isn't the one that the cursor was written for, because the cluster was restored, it
// goes on with the epoch that the restore began.
type FileSink struct {
	config FileSinkConfig
	opener *Opener // nil until there is a record
	file   *os.File
	at     *logFile
	cursor cursor
	size   int64 // of the file, as far as this sink knows
	lines  []byte
	due    time.Time // when the cursor is to be written; zero if it says all
	looked time.Time // when the log was last looked at

	// mu guards what Reopen shares with Run.
	mu     sync.Mutex
	reopen bool
	wake   context.CancelFunc // ends Run's waiting; nil while it doesn't wait
}

const (
	chunkSize   = 256 << 10 // bytes of lines that are written at once
	tailSize    = 4096      // bytes before the cursor's offset by which the file is recognised
	maxCursor   = 1024      // bytes of a cursor
	syncMostly  = 4 << 20   // bytes after which the cursor is written even if it isn't due
	cursorTitle = "conclave audit cursor 1"
	cursorStart = `{"format":"` + cursorTitle + `"`
)

// NewFileSink checks that the file may be written; Run opens it.
func NewFileSink(config FileSinkConfig) (*FileSink, error) {
	if config.Every <= 0 {
		config.Every = time.Second
	}
	if config.Gather <= 0 {
		config.Gather = 20 * time.Millisecond
	}
	if err := config.Folders.Check(config.Path); err != nil {
		return nil, err
	}
	return &FileSink{config: config}, nil
}

// Reopen makes Run open the path anew, for whoever has moved the file away. It returns at once.
func (s *FileSink) Reopen() {
	s.mu.Lock()
	s.reopen = true
	wake := s.wake
	s.mu.Unlock()
	if wake != nil {
		wake()
	}
}

// Run writes until ctx ends, and returns ctx's error, or until something fails. It may be called again after any error, not beside
// itself: what a failed run has written beyond the cursor is cut off first.
func (s *FileSink) Run(ctx context.Context) error {
	if err := s.open(ctx); err != nil {
		return fmt.Errorf("audit device %s: %w", s.config.Path, err)
	}
	err := s.follow(ctx)
	if err == nil || ctx.Err() != nil {
		err = errors.Join(ctx.Err(), s.checkpoint())
	}
	if err := errors.Join(err, s.file.Close(), s.at.close(nil)); err != nil {
		return fmt.Errorf("audit device %s: %w", s.config.Path, err)
	}
	return nil
}

func (s *FileSink) follow(ctx context.Context) error {
	for {
		if err := s.gather(ctx); err != nil {
			return err
		}
		if err := s.write(ctx); err != nil {
			return err
		}
		if !s.due.IsZero() && !time.Now().Before(s.due) {
			if err := s.checkpoint(); err != nil {
				return err
			}
		}
		if err := s.wait(ctx); err != nil {
			return err
		}
		if err := s.reopened(ctx); err != nil {
			return err
		}
	}
}

// gather lets records come together after the last look.
func (s *FileSink) gather(ctx context.Context) error {
	rest := s.config.Gather - time.Since(s.looked)
	if rest > 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(rest):
		}
	}
	s.looked = time.Now()
	return nil
}

// wait returns when there is something to do: a record, a cursor that is due, or a Reopen.
func (s *FileSink) wait(ctx context.Context) error {
	until, cancel := context.WithCancel(ctx)
	defer cancel()
	if !s.due.IsZero() {
		var stop context.CancelFunc
		until, stop = context.WithDeadline(until, s.due)
		defer stop()
	}
	s.mu.Lock()
	s.wake = cancel
	reopen := s.reopen
	s.mu.Unlock()
	if reopen {
		return nil
	}
	err := s.config.Source.Wait(until, s.cursor.Seq)
	s.mu.Lock()
	s.wake = nil
	s.mu.Unlock()
	if ctx.Err() == nil && until.Err() != nil {
		return nil
	}
	return err
}

// reopened does what Reopen asked for.
func (s *FileSink) reopened(ctx context.Context) error {
	s.mu.Lock()
	reopen := s.reopen
	s.reopen = false
	s.mu.Unlock()
	if !reopen {
		return nil
	}
	if err := s.checkpoint(); err != nil {
		return err
	}
	if err := errors.Join(s.file.Close(), s.at.close(nil)); err != nil {
		return err
	}
	return s.open(ctx)
}

// write writes all records that there are.
func (s *FileSink) write(ctx context.Context) error {
	if shown := s.config.Source.Shown(); shown.Seq < s.cursor.Seq {
		return conclave.Errorf(conclave.Precondition, "the log ends at record %d, before the cursor", shown.Seq)
	}
	var failed error
	next := s.cursor
	err := s.config.Source.Read(ctx, next.Seq, func(f Frame) bool {
		if failed = s.append(ctx, &f, &next); failed == nil && len(s.lines) >= chunkSize {
			failed = s.flush(next)
		}
		return failed == nil
	})
	if err := errors.Join(failed, err); err != nil {
		return err
	}
	return s.flush(next)
}

// append adds the lines of a record, and moves next behind it.
func (s *FileSink) append(ctx context.Context, f *Frame, next *cursor) error {
	leaf := LeafHash(&f.Digest, sha256.Sum256(f.Box))
	if head := link(&next.head, f.Seq, f.Index, f.Stamp, &leaf); f.Seq != next.Seq || head != f.Link {
		return conclave.Errorf(conclave.Precondition, "audit record %d doesn't continue the chain", next.Seq)
	}
	next.Seq, next.head = f.Seq+1, f.Link
	if f.Start || f.Stamp < s.config.Since.UnixNano() {
		return nil
	}
	if s.opener == nil || !s.opener.Has(f.Box) {
		opener, err := s.config.Open(ctx, f.Index)
		if err != nil {
			return fmt.Errorf("open audit record %d: %w", f.Seq, err)
		}
		s.opener = opener
	}
	_, plain, err := s.opener.Open(f.Digest, f.Box)
	if err != nil {
		return fmt.Errorf("audit record %d: %w", f.Seq, err)
	}
	record, err := DecodeRecord(plain)
	if err != nil {
		return fmt.Errorf("audit record %d: %w", f.Seq, err)
	}
	s.lines = record.AppendLines(s.lines)
	return nil
}

// flush writes the lines that there are; next is where the log is then.
func (s *FileSink) flush(next cursor) error {
	if next.Seq == s.cursor.Seq {
		return nil
	}
	n, err := s.file.Write(s.lines)
	s.size += int64(n)
	if s.lines = s.lines[:0]; err != nil {
		s.due = time.Time{} // no checkpoint after half a line: the next Run cuts it off
		return err
	}
	s.cursor.Seq, s.cursor.head = next.Seq, next.head
	if s.due.IsZero() {
		s.due = time.Now().Add(s.config.Every)
	}
	if s.size-s.cursor.Offset >= syncMostly {
		return s.checkpoint()
	}
	return nil
}

// checkpoint makes what was written safe, and says so in the cursor.
func (s *FileSink) checkpoint() error {
	if s.due.IsZero() {
		return nil
	}
	if err := s.file.Sync(); err != nil {
		return err
	}
	// The size is asked for, since others may have cut the file, to rotate it.
	info, err := s.file.Stat()
	if err != nil {
		return err
	}
	s.size, s.cursor.Offset = info.Size(), info.Size()
	if s.cursor.Tail, err = tail(s.file, s.size); err != nil {
		return err
	}
	s.due = time.Time{}
	return s.at.replace(s.at.name+cursorExtension, s.cursor.encode())
}

// open opens file and cursor, and brings both to where they agree.
func (s *FileSink) open(ctx context.Context) (err error) {
	if s.at, err = s.config.Folders.locate(s.config.Path); err != nil {
		return err
	}
	if s.file, err = s.at.open(); err != nil {
		return s.at.close(err)
	}
	if err = s.resume(ctx); err != nil {
		return s.at.close(errors.Join(err, s.file.Close()))
	}
	return nil
}

func (s *FileSink) resume(ctx context.Context) error {
	s.lines, s.due = s.lines[:0], time.Time{}
	stored, err := s.at.read(s.at.name+cursorExtension, maxCursor)
	if err != nil {
		return err
	}
	shown := s.config.Source.Shown()
	s.cursor = cursor{Seq: shown.Base.Seq, head: shown.Base.Head}
	if stored != nil {
		if s.cursor, err = decodeCursor(stored); err != nil {
			return conclave.Errorf(conclave.Precondition, "the cursor beside the file is damaged; without it, the device begins with the first record "+
				"since it was enabled")
		}
	}
	if s.size, err = s.cut(stored != nil); err != nil {
		return err
	}
	if err := s.rejoin(ctx, shown); err != nil {
		return err
	}
	if s.cursor.Offset, s.cursor.Tail = s.size, ""; s.size > 0 {
		if s.cursor.Tail, err = tail(s.file, s.size); err != nil {
			return err
		}
	}
	// Before the first line, so that a crash finds a cursor; and names must be safe before what the cursor says.
	return errors.Join(s.file.Sync(), s.at.replace(s.at.name+cursorExtension, s.cursor.encode()), s.at.sync())
}

// cut removes what was written beyond the cursor, if this is the file that the cursor was written for. Otherwise lines go to its end. It
// returns the size of the file.
func (s *FileSink) cut(known bool) (int64, error) {
	info, err := s.file.Stat()
	if err != nil {
		return 0, err
	}
	size := info.Size()
	if known && s.cursor.Offset > 0 && size >= s.cursor.Offset {
		found, err := tail(s.file, s.cursor.Offset)
		if err != nil {
			return 0, err
		}
		if found == s.cursor.Tail {
			return s.cursor.Offset, s.file.Truncate(s.cursor.Offset)
		}
	}
	if known && s.cursor.Offset == 0 {
		return 0, s.file.Truncate(0)
	}
	var last [1]byte
	if size == 0 {
		return 0, nil
	}
	if _, err := s.file.ReadAt(last[:], size-1); err != nil || last[0] == '\n' {
		return size, err
	}
	_, err = s.file.Write([]byte("\n"))
	return size + 1, err
}

// rejoin finds out whether the log still is the one that the cursor was written for.
func (s *FileSink) rejoin(ctx context.Context, shown State) error {
	seq, same := s.cursor.Seq, false
	switch {
	case seq < shown.Base.Seq:
		return conclave.Errorf(conclave.Precondition, "audit records %d to %d were dropped before they were written here; without the cursor beside the "+
			"file, the device begins with the first that there is", seq, shown.Base.Seq-1)
	case seq == shown.Base.Seq:
		same = s.cursor.head == shown.Base.Head
	case seq <= shown.Seq:
		err := s.config.Source.Read(ctx, seq-1, func(f Frame) bool {
			same = f.Seq == seq-1 && f.Link == s.cursor.head
			return false
		})
		if err != nil {
			return err
		}
	}
	if same {
		return nil
	}
	// The head before the epoch is in the epoch's first record.
	s.cursor.Seq, s.cursor.head = shown.EpochSeq, [32]byte{}
	return s.config.Source.Read(ctx, shown.EpochSeq, func(f Frame) bool {
		if start, err := ParseEpochStart(f.Box); f.Start && err == nil {
			s.cursor.head = start.PreviousHead
		}
		return false
	})
}

// cursor is how far a sink has come. Stored it is one line of JSON:
//
//	{"format":"conclave audit cursor 1","seq":7,"head":"<64 hex digits>","offset":4711,"tail":"<64 hex digits, or empty>"}
type cursor struct {
	Format string `json:"format"`
	Seq    uint64 `json:"seq"`  // the next record
	Head   string `json:"head"` // of the chain before it
	Offset int64  `json:"offset"`
	Tail   string `json:"tail"` // SHA-256 of the last 4,096 bytes before offset

	head [32]byte
}

func (c cursor) encode() []byte {
	c.Format, c.Head = cursorTitle, hex.EncodeToString(c.head[:])
	b, err := json.Marshal(c)
	if err != nil {
		panic("audit: encode cursor: " + err.Error())
	}
	return append(b, '\n')
}

// decodeCursor reads what encode wrote and nothing else.
func decodeCursor(b []byte) (cursor, error) {
	var c cursor
	bad := errors.New("audit: malformed cursor")
	if json.Unmarshal(b, &c) != nil || parseHash(&c.head, c.Head) != nil || c.Offset < 0 || (c.Tail == "") != (c.Offset == 0) ||
		(c.Tail != "" && parseHash(new([32]byte), c.Tail) != nil) || !bytes.Equal(c.encode(), b) {
		return cursor{}, bad
	}
	return c, nil
}

// tail is the SHA-256, in hexadecimal, of the last tailSize bytes of the first size; empty for none.
func tail(file *os.File, size int64) (string, error) {
	if size == 0 {
		return "", nil
	}
	b := make([]byte, min(size, tailSize))
	if _, err := file.ReadAt(b, size-int64(len(b))); err != nil {
		return "", fmt.Errorf("read audit file: %w", err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}
