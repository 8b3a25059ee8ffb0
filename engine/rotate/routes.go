package rotate

import (
	"context"
	"time"

	"conclave"
)

type heldOut struct {
	Version    int       `json:"version" doc:"It grows by one with each value that is made."`
	Value      string    `json:"value" doc:"The value."`
	Since      time.Time `json:"since" doc:"When its source had taken it."`
	ValidUntil time.Time `json:"valid_until,omitzero" doc:"Of the previous value: when it stops being readable."`
}

type credsOut struct {
	heldOut
	NextRotation time.Time         `json:"next_rotation,omitzero" doc:"When the schedule wants the next value."`
	Previous     *heldOut          `json:"previous,omitempty" doc:"The value before, while its grace period lasts."`
	Metadata     map[string]string `json:"metadata,omitempty" doc:"As it was written."`
}

func readCreds(_ context.Context, view conclave.View, in *nameIn) (*credsOut, error) {
	en, st, err := look(view, in.Name)
	if err != nil {
		return nil, err
	}
	if st.Current == nil {
		return nil, conclave.Errorf(conclave.NotFound, "no value was taken by the source yet: see status")
	}
	out := &credsOut{heldOut: st.Current.show(), NextRotation: st.Due, Metadata: en.Metadata}
	if p := st.Previous; p != nil && !view.Reached(p.Until) {
		previous := p.show()
		out.Previous = &previous
	}
	return out, nil
}

func (h *held) show() heldOut { return heldOut{h.Version, h.Value, h.Since, h.Until} }

type reasonIn struct {
	Name   string `path:"name" doc:"The entry's name."`
	Reason string `json:"reason" doc:"Why, for the history: one line of at most 512 bytes."`
}

type rotateIn struct {
	reasonIn
	NewValue bool   `json:"new_value" doc:"Make another value than the one that was handed over without success: for a source that refuses that one."`
	failure  string // why it failed, from the handler to Finish
}

type rotateOut struct {
	Version int       `json:"version" doc:"Of the current value."`
	Since   time.Time `json:"since" doc:"When its source had taken it."`
}

// rotation is the route that rotates while its client waits. What came of it is recorded either way; a failure is the
// answer only after that.
func (e *Engine) rotation(pattern, doc string, isEmergency bool) conclave.Route {
	route := conclave.WriteRoute(conclave.Update, pattern, doc, answerRotation).With(reasoned)
	route.Intend = func(_ context.Context, tx conclave.Tx, in any) (*conclave.Intent, error) {
		return e.intendRotation(tx, in.(*rotateIn), isEmergency)
	}
	route.Prepare = func(ctx context.Context, _ *conclave.Request, _ any) (any, error) {
		intent, ok := conclave.Intended(ctx)
		if !ok {
			return nil, conclave.Errorf(conclave.Internal, "a rotation was not begun")
		}
		return e.do(ctx, intent.Value.(*job)), nil
	}
	route.Finish = func(_ context.Context, _ *conclave.Request, in any) (*conclave.Response, error) {
		if why := in.(*rotateIn).failure; why != "" {
			return nil, conclave.Errorf(conclave.Unknown, "the current value stays, and the new one will be handed over again: %s", why)
		}
		return nil, nil
	}
	return route
}

func (e *Engine) intendRotation(tx conclave.Tx, in *rotateIn, isEmergency bool) (*conclave.Intent, error) {
	if err := checkReason(in.Reason); err != nil {
		return nil, err
	}
	en, st, err := load(tx, in.Name)
	if err != nil {
		return nil, err
	}
	what := requested
	if isEmergency {
		what = emergency
	}
	why := causeOf(tx, what, in.Reason)
	now := tx.Now().UTC()
	switch {
	case st.claimed(tx, why.Request):
		return nil, errBusy(st.Claim.Until.Sub(now))
	case st.Paused != nil && !isEmergency:
		return nil, conclave.Errorf(conclave.Invalid, "the entry is paused")
	}
	st.expire(tx, en)
	begin := e.makePending
	if in.NewValue && (st.Pending == nil || st.Pending.Request != why.Request) { // if this runs again, the value is another one already
		begin = e.giveUp
	}
	if err := begin(tx, st, en, why); err != nil {
		return nil, err
	}
	st.claimBy(why.Request, now, en)
	begun := jobOf(tx, in.Name, en, st, true)
	begun.retire = nil // that is for later: somebody waits
	return &conclave.Intent{Value: begun}, st.settle(tx, in.Name, en)
}

func answerRotation(ctx context.Context, tx conclave.Tx, in *rotateIn) (*rotateOut, error) {
	out, ok := conclave.Prepared[outcome](ctx)
	intent, intended := conclave.Intended(ctx)
	if !ok || !intended {
		return nil, conclave.Errorf(conclave.Internal, "a rotation was not begun")
	}
	mine, err := finish(tx, intent.Value.(*job), out)
	if err != nil {
		return nil, err
	}
	if !mine {
		return nil, conclave.Errorf(conclave.Unknown, "the entry was changed by others meanwhile: see status")
	}
	if in.failure = out.failure; in.failure != "" {
		return nil, nil
	}
	_, st, err := load(tx, in.Name)
	if err != nil {
		return nil, err
	}
	return &rotateOut{st.Current.Version, st.Current.Since}, nil
}

func pause(_ context.Context, tx conclave.Tx, in *reasonIn) (*conclave.None, error) {
	return nil, setPaused(tx, in, paused)
}

func resume(_ context.Context, tx conclave.Tx, in *reasonIn) (*conclave.None, error) {
	return nil, setPaused(tx, in, resumed)
}

func setPaused(tx conclave.Tx, in *reasonIn, what string) error {
	if err := checkReason(in.Reason); err != nil {
		return err
	}
	en, st, err := load(tx, in.Name)
	if err != nil {
		return err
	}
	if (st.Paused != nil) == (what == paused) {
		return nil
	}
	why := causeOf(tx, what, in.Reason)
	st.Paused = nil
	if what == paused {
		st.Paused = &why
	} else {
		st.Retry = time.Time{}
	}
	if err := addLine(tx, in.Name, line{Version: st.version(), What: what, At: why.At, Who: why.Who, Entity: why.Entity, Request: why.Request, Reason: why.Reason}); err != nil {
		return err
	}
	if err := st.settle(tx, in.Name, en); err != nil {
		return err
	}
	return tx.Emit(conclave.Event{Type: "rotate/" + what, Path: "entries/" + in.Name, Metadata: map[string]string{"operation": what}})
}

// version is that of the current value, 0 if there is none.
func (st *state) version() int {
	if st.Current == nil {
		return 0
	}
	return st.Current.Version
}

type statusOut struct {
	Version         int       `json:"version" doc:"Of the current value; 0: there is none yet."`
	Since           time.Time `json:"since,omitzero" doc:"When its source had taken the current value."`
	PreviousVersion int       `json:"previous_version,omitempty" doc:"Of the value before, while it is readable."`
	PreviousUntil   time.Time `json:"previous_until,omitzero" doc:"When that stops being readable."`
	PendingVersion  int       `json:"pending_version,omitempty" doc:"Of the value that its source has not been shown to have taken."`
	PendingSince    time.Time `json:"pending_since,omitzero" doc:"When it was made."`
	PendingCause    string    `json:"pending_cause,omitempty" doc:"Why: initial, schedule, request or emergency."`
	Attempts        int       `json:"attempts,omitempty" doc:"How often it was handed over without success."`
	Retiring        int       `json:"retiring,omitempty" doc:"How many values wait to be ended at their source."`
	UnderWay        bool      `json:"under_way" doc:"Whether a hand-over is under way, or its node has died a moment ago."`
	NextRotation    time.Time `json:"next_rotation,omitzero" doc:"When the schedule wants the next value."`
	NextAttempt     time.Time `json:"next_attempt,omitzero" doc:"When something is done next."`
	Failures        int       `json:"failures" doc:"Attempts that have failed since the last success."`
	LastFailure     string    `json:"last_failure,omitempty" doc:"Why the last one did."`
	LastFailureAt   time.Time `json:"last_failure_at,omitzero" doc:"When."`
	Paused          bool      `json:"paused" doc:"Whether rotations are stopped."`
	PausedBy        string    `json:"paused_by,omitempty" doc:"Who has stopped them."`
	PausedReason    string    `json:"paused_reason,omitempty" doc:"Why."`
}

func readStatus(_ context.Context, view conclave.View, in *nameIn) (*statusOut, error) {
	en, st, err := look(view, in.Name)
	if err != nil {
		return nil, err
	}
	out := &statusOut{Version: st.version(), Retiring: len(st.Retiring), UnderWay: st.claimed(view, ""), NextRotation: st.Due,
		NextAttempt: st.next(view.Now().UTC(), en), Failures: st.Failures, LastFailure: st.Failure, LastFailureAt: st.Failed}
	if st.Current != nil {
		out.Since = st.Current.Since
	}
	if p := st.Previous; p != nil && !view.Reached(p.Until) {
		out.PreviousVersion, out.PreviousUntil = p.Version, p.Until
	}
	if p := st.Pending; p != nil {
		out.PendingVersion, out.PendingSince, out.PendingCause, out.Attempts = p.Version, p.At, p.What, p.Attempts
	}
	if st.Paused != nil {
		out.Paused, out.PausedBy, out.PausedReason = true, st.Paused.Who, st.Paused.Reason
	}
	return out, nil
}

type historyOut struct {
	History []line `json:"history" doc:"The newest first."`
}

func readHistory(_ context.Context, view conclave.View, in *nameIn) (*historyOut, error) {
	if _, _, err := look(view, in.Name); err != nil {
		return nil, err
	}
	lines, err := loadHistory(view, in.Name)
	if lines == nil {
		lines = []line{}
	}
	return &historyOut{lines}, err
}
