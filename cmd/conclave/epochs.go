package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"conclave"
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

type rotateInput struct {
	Reason string `json:"reason" doc:"Why, for the first record of the new epoch: one line of text."`
}

type pruneInput struct {
	Epoch uint64 `json:"epoch" doc:"The last epoch to drop; it must be closed."`
	Head  string `json:"head" doc:"How its chain ended, in hex: the export that you keep says it."`
	Force bool   `json:"force" doc:"Drop it also if audit devices haven't written it, or nobody knows whether they have."`
}

// epochRoutes close epochs of the audit log and drop what has been exported.
func (d *daemon) epochRoutes() []conclave.Route {
	rotate := conclave.WriteRoute(conclave.Update, "audit-rotate",
		"Close the epoch of the audit log and begin the next.\n\nA closed epoch can be exported whole, and dropped once its export is kept.",
		func(_ context.Context, _ conclave.Tx, in *rotateInput) (*conclave.None, error) {
			if err := audit.CheckReason(in.Reason); err != nil {
				return nil, conclave.Errorf(conclave.Invalid, "a reason is needed, one line of text")
			}
			return nil, nil
		}).With(conclave.Sudo, conclave.Urgent)
	rotate.ClearRequest = []string{"reason"}
	rotate.Finish = func(ctx context.Context, _ *conclave.Request, in any) (*conclave.Response, error) {
		input, _ := in.(*rotateInput)
		return &conclave.Response{}, d.cluster.RotateAudit(ctx, input.Reason)
	}
	prune := conclave.WriteRoute(conclave.Update, "audit-prune", "Drop the audit log up to the end of a closed epoch, on every node.\n\n"+
		"The epoch's head, which its export names, confirms that somebody keeps it. Every enabled audit device must have written the epoch on every node.",
		func(_ context.Context, _ conclave.Tx, in *pruneInput) (*conclave.None, error) {
			_, err := in.head()
			return nil, err
		}).With(conclave.Sudo, conclave.Urgent)
	prune.ClearRequest = []string{"epoch", "head", "force"}
	prune.Prepare = func(ctx context.Context, _ *conclave.Request, in any) (any, error) {
		input, _ := in.(*pruneInput)
		if input.Force {
			return nil, nil
		}
		return nil, d.awaitDevices(ctx, input.Epoch)
	}
	prune.Finish = func(ctx context.Context, _ *conclave.Request, in any) (*conclave.Response, error) {
		input, _ := in.(*pruneInput)
		head, err := input.head()
		if err != nil {
			return nil, err
		}
		return &conclave.Response{}, d.cluster.PruneAudit(ctx, input.Epoch, head)
	}
	return []conclave.Route{rotate, prune}
}

func (in *pruneInput) head() (head [32]byte, err error) {
	raw, err := hex.DecodeString(in.Head)
	if err != nil || len(raw) != len(head) {
		return head, conclave.Errorf(conclave.Invalid, "head must be the epoch's head in hex, 64 digits")
	}
	return [32]byte(raw), nil
}
