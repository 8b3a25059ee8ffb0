package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"conclave/audit"
	"conclave/server/config"
)

// epochPause is the time between looks at how long the audit log's epoch is.
const epochPause = 10 * time.Second

// keepEpochsShort closes epochs of the audit log as the configuration says. It runs on the leader until ctx ends.
func (d *daemon) keepEpochsShort(ctx context.Context) error {
	for {
		reason, err := d.epochDue(ctx)
		if err == nil && reason != "" {
			err = d.cluster.RotateAudit(ctx, reason)
		}
		if err != nil && ctx.Err() == nil {
			d.log.Warn("the audit log's epoch could not be looked at, or closed: it will be tried again", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(epochPause):
		}
	}
}

// epochDue is why the epoch should be closed, "" if it shouldn't.
func (d *daemon) epochDue(ctx context.Context) (reason string, err error) {
	limits, log := d.settings.Audit, d.state.Audit()
	shown := log.Shown()
	if limits.EpochMaxAge == 0 && limits.EpochMaxRecords == 0 || shown.Size() == 0 {
		return "", nil
	}
	began := time.Time{}
	err = log.Read(ctx, shown.EpochSeq, func(f audit.Frame) bool {
		began = time.Unix(0, f.Stamp)
		return false
	})
	if errors.Is(err, audit.ErrPruned) { // meanwhile
		return "", nil
	}
	return dueReason(limits, shown.Size(), d.cluster.Now().Sub(began)), err
}

func dueReason(limits config.Audit, records uint64, age time.Duration) string {
	switch {
	case limits.EpochMaxRecords > 0 && records >= uint64(limits.EpochMaxRecords):
		return fmt.Sprintf("the epoch has reached %d records", limits.EpochMaxRecords)
	case limits.EpochMaxAge > 0 && age >= limits.EpochMaxAge && records > 1: // one says only that it began
		return fmt.Sprintf("the epoch has reached an age of %s", limits.EpochMaxAge)
	}
	return ""
}
