package main

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"conclave"
	"conclave/gap"
)

const (
	// gapFile keeps, over a restart, how many answers left without a record. A crash between a gap record and the change of
	// this file makes the next one count them again.
	gapFile = "unrecorded.json"
	// gapPause is the least time between two gap records of a node.
	gapPause = 2 * time.Second
	// lastGap is how long a node that stops tries to commit one.
	lastGap = time.Second
)

// followGaps commits gap records whenever there is something to say and it can be said, until ctx ends.
func (d *daemon) followGaps(ctx context.Context) error {
	path := filepath.Join(d.settings.Storage.Path, gapFile)
	kept, err := os.ReadFile(path)
	if err == nil {
		var earlier gap.Gap
		if earlier, err = gap.Decode(kept); err == nil {
			d.gaps.Add(earlier)
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.log.Error("how many answers left without a record before this start is not known", "error", err)
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(gapPause):
		}
		if err := d.recorder.RecordGap(ctx, d.store, d.gaps); err != nil && ctx.Err() == nil {
			d.log.Debug("answers without a record are counted in the audit log later", "error", err)
		}
		kept = d.keepGaps(path, kept)
	}
}

// keepGaps makes the file say what no gap record says, if it doesn't. It returns what the file says.
func (d *daemon) keepGaps(path string, kept []byte) []byte {
	var open []byte
	if now := d.gaps.Open(); len(now.Counts) > 0 {
		open = gap.Encode(now)
	}
	if bytes.Equal(open, kept) {
		return kept
	}
	err := os.Remove(path)
	if open != nil {
		err = writeNew(path, open)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.log.Error("how many answers left without a record can't be kept", "error", err)
		return kept
	}
	return open
}

// closeGaps says what there is to say before the process ends.
func (d *daemon) closeGaps() {
	ctx, cancel := context.WithTimeout(context.Background(), lastGap)
	defer cancel()
	if err := d.recorder.RecordGap(ctx, d.store, d.gaps); err != nil {
		d.log.Debug("answers without a record are counted in the audit log later", "error", err)
	}
	path := filepath.Join(d.settings.Storage.Path, gapFile)
	kept, _ := os.ReadFile(path) // if it can't be read, it is written
	d.keepGaps(path, kept)
}

// countUnread counts a request that was refused before anybody looked for a token in it.
func (d *daemon) countUnread(err error) {
	switch conclave.KindOf(err) {
	case conclave.Unavailable, conclave.Limited:
		d.gaps.Note(gap.Crowded)
	default:
		d.gaps.Note(gap.Malformed)
	}
}
