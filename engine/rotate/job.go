package rotate

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"strconv"
	"time"

	"conclave"
	"conclave/engine/rotate/handover"
	"conclave/password"
)

// job is what is told to a source, as it was written down before. It is not changed once it is begun.
type job struct {
	name    string
	holder  string // of the claim
	at      time.Time
	entry   *entry
	retire  *held    // nil: nothing
	pending *pending // nil: nothing
	current string
	where   handover.Call // namespace, mount and entry
}

// outcome is how far a job came.
type outcome struct {
	retired bool
	rotated bool
	failure string // why it came no further
}

// errBusy tells a client that another hand-over is under way.
func errBusy(after time.Duration) error {
	err := conclave.Errorf(conclave.Unavailable, "a rotation of this entry is under way")
	err.RetryAfter = max(after, time.Second)
	return err
}

// claimed reports whether another holder's hand-over may be under way.
func (st *state) claimed(view conclave.View, holder string) bool {
	return st.Claim != nil && st.Claim.Holder != holder && !view.Reached(st.Claim.Until)
}

// claimBy gives the entry to a holder for as long as its calls may take, and what is around them.
func (st *state) claimBy(holder string, now time.Time, en *entry) {
	st.Claim = &claim{holder, now.UTC().Add(calls*en.Timeout.Duration() + claimSlack)}
}

// makePending makes the value that is to be handed over, or has the one that is there be handed over for another cause.
func (e *Engine) makePending(view conclave.View, st *state, en *entry, why cause) error {
	if st.Pending != nil {
		if why.What != scheduled && why.What != atFirst {
			why.Emergency = why.Emergency || st.Pending.Emergency // which is over when it has succeeded, not before
			st.Pending.cause = why
		}
		return nil
	}
	policy, err := en.policy(view)
	if err != nil {
		return err
	}
	value, err := policy.Generate(e.settings.Random)
	if errors.Is(err, password.ErrHardlyMet) {
		return conclave.Errorf(conclave.Invalid, "the password policy can't be met: %s", err.Error())
	}
	if err != nil {
		return err
	}
	rotation, err := randomID(e.settings.Random)
	if err != nil {
		return err
	}
	st.Last++
	st.Pending = &pending{Version: st.Last, Rotation: rotation, Value: value, cause: why}
	return nil
}

// giveUp has the next pending value be another one. The source may have taken the one that is given up: it is ended there,
// if that is wanted, once another one works, and not before.
func (e *Engine) giveUp(view conclave.View, st *state, en *entry, why cause) error {
	old := st.Pending
	if st.Pending = nil; old != nil {
		why.Emergency = why.Emergency || old.Emergency
	}
	if err := e.makePending(view, st, en, why); err != nil || old == nil {
		return err
	}
	if old.Attempts > 0 || st.Claim != nil {
		old.Instead = append(old.Instead, held{Version: old.Version, Rotation: old.Rotation, Value: old.Value, Since: old.At})
	}
	st.Pending.Instead = old.Instead[max(0, len(old.Instead)-maxRetiring):]
	return nil
}

func randomID(random io.Reader) (string, error) {
	var id [16]byte
	if _, err := io.ReadFull(random, id[:]); err != nil {
		return "", err
	}
	return hex.EncodeToString(id[:]), nil
}

// jobOf is what is done for the claim that the state has. A rotation and the ending of one value go together.
func jobOf(view conclave.View, name string, en *entry, st *state, rotate bool) *job {
	j := &job{name: name, holder: st.Claim.Holder, at: view.Now(), entry: en,
		where: handover.Call{Namespace: view.Namespace().Path, Mount: view.Mount().Path, Entry: name, Metadata: en.Metadata}}
	if en.SendCurrent && st.Current != nil {
		j.current = st.Current.Value
	}
	if len(st.Retiring) > 0 && en.Retire {
		j.retire = &st.Retiring[0]
	}
	if rotate {
		j.pending = st.Pending
	}
	return j
}

// do makes the calls. That a value couldn't be ended keeps no rotation back: in an emergency that would be the wrong way
// round.
func (e *Engine) do(ctx context.Context, j *job) outcome {
	var out outcome
	if j.retire != nil {
		err := e.tell(ctx, j, handover.Retire, j.retire.Version, j.retire.Rotation, j.retire.Value, false)
		if out.retired = err == nil; err != nil {
			out.failure = "retire: " + reasonOf(err)
		}
	}
	if j.pending == nil {
		return out
	}
	p := j.pending
	if err := e.tell(ctx, j, handover.Rotate, p.Version, p.Rotation, p.Value, p.Emergency); err != nil {
		out.failure = "hand-over: " + reasonOf(err)
		return out
	}
	if j.entry.Verify {
		if err := e.tell(ctx, j, handover.Verify, p.Version, p.Rotation, p.Value, p.Emergency); err != nil {
			out.failure = "verification: " + reasonOf(err)
			return out
		}
	}
	out.rotated = true
	return out
}

func (e *Engine) tell(ctx context.Context, j *job, mode string, version int, rotation, value string, isEmergency bool) error {
	ctx, cancel := context.WithTimeout(ctx, j.entry.Timeout.Duration())
	defer cancel()
	call := j.where
	call.Mode, call.Version, call.Rotation, call.Value, call.Emergency = mode, version, rotation, value, isEmergency
	if mode == handover.Rotate {
		call.Current = j.current
	}
	return e.call(ctx, j.entry, j.at, &call)
}

// reasonOf is the text of a failure, which tells neither what the source said nor where it is.
func reasonOf(err error) string {
	if failure, ok := errors.AsType[*handover.Failure](err); ok {
		return failure.Reason
	}
	return "the call could not be made"
}

// finish records what came of a job: the new value becomes current, or the attempt is to be made again. It returns false
// if the entry isn't the job's any more: it was deleted, or others have claimed it since.
func finish(tx conclave.Tx, j *job, out outcome) (mine bool, err error) {
	en, st, err := load(tx, j.name)
	if conclave.Is(err, conclave.NotFound) {
		return false, nil
	}
	if err != nil || st.Claim == nil || st.Claim.Holder != j.holder {
		return false, err
	}
	now := tx.Now().UTC()
	st.Claim = nil
	if out.retired && len(st.Retiring) > 0 && st.Retiring[0].Version == j.retire.Version {
		st.Retiring = st.Retiring[1:]
		if err := addLine(tx, j.name, line{Version: j.retire.Version, What: retired, At: now}); err != nil {
			return false, err
		}
	}
	if j.pending != nil {
		if st.Pending == nil || st.Pending.Rotation != j.pending.Rotation {
			return false, nil
		}
		st.Pending.Attempts++
		if err := addLine(tx, j.name, st.Pending.lineOf(now, rotationFailure(out))); err != nil {
			return false, err
		}
	}
	if out.rotated {
		st.take(en, now)
	}
	if out.failure == "" {
		st.succeed()
	} else {
		st.fail(en, now, out.failure)
	}
	if err := st.settle(tx, j.name, en); err != nil {
		return false, err
	}
	return true, announce(tx, j, st, out)
}

// rotationFailure is why the rotation failed, "" if it didn't.
func rotationFailure(out outcome) string {
	if out.rotated {
		return ""
	}
	return out.failure
}

// take makes the pending value the current one.
func (st *state) take(en *entry, now time.Time) {
	p := st.Pending
	for i := range p.Instead {
		st.drop(&p.Instead[i], en)
	}
	if st.Previous != nil {
		st.drop(st.Previous, en)
		st.Previous = nil
	}
	if before := st.Current; before != nil {
		if grace := en.GracePeriod.Duration(); grace > 0 && !p.Emergency {
			before.Until = now.Add(grace)
			st.Previous = before
		} else {
			st.drop(before, en)
		}
	}
	st.Current = &held{Version: p.Version, Rotation: p.Rotation, Value: p.Value, Since: now}
	st.Pending = nil
	st.plan(en, now)
}

// announce tells those who may know.
func announce(tx conclave.Tx, j *job, st *state, out outcome) error {
	if j.pending == nil {
		return nil
	}
	event := conclave.Event{Type: "rotate/rotate", Path: "creds/" + j.name, Metadata: map[string]string{"operation": "rotate",
		"version": strconv.Itoa(j.pending.Version), "cause": j.pending.What}}
	if !out.rotated {
		event.Type, event.Metadata["failures"] = "rotate/rotate-fail", strconv.Itoa(st.Failures)
	}
	return tx.Emit(event)
}
