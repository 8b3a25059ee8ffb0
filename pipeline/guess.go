package pipeline

import (
	"context"
	"errors"
	"strings"
	"time"

	"conclave"
	"conclave/fsm"
	"conclave/lockout"
	"conclave/mount"
	"conclave/store"
)

// Waiting for other guesses at the same account.
const (
	guessPatience = 5 * time.Second
	guessPause    = 20 * time.Millisecond
)

// guess is the account whose secret a request guesses, with what has been noted of it.
type guess struct {
	account  lockout.Account
	settings lockout.Settings
	reserved int64 // what resolves the reservation; 0 if there is none
	refused  bool  // it isn't evaluated: the account is locked, or others are in its way
}

// guessAt finds out whose secret the request guesses, nobody's in most cases.
func (r *run) guessAt() {
	c := r.call
	if r.guess != nil || c.route.Guess == nil || r.request.Help || !c.entry.Auth() {
		return
	}
	name := c.route.Guess(r.request, c.input)
	tuned := c.entry.Config.UserLockout
	if name == "" || tuned != nil && tuned.Disable {
		return
	}
	r.guess = &guess{account: lockout.Account{Mount: c.entry.Accessor, Name: name}, settings: settingsOf(tuned)}
}

// checkGuess refuses a guess at a locked account that is evaluated within the transaction.
func (r *run) checkGuess() error {
	if r.guess == nil || r.call.route.Prepare != nil {
		return nil
	}
	err := lockout.Check(r.call.here().system, r.guess.account, r.guess.settings)
	r.guess.refused = conclave.Is(err, conclave.Denied)
	return err
}

// reserve counts a guess before it is evaluated. It waits for others at the same account, a bounded time.
func (r *run) reserve(ctx context.Context) error {
	g := r.guess
	if g == nil || g.reserved != 0 {
		return nil
	}
	done, err := r.pipeline.turns.take(ctx, "lockout\x00"+g.account.Mount+"\x00"+g.account.Name)
	if err != nil {
		return err
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, guessPatience)
	defer cancel()
	for {
		err := r.reserveOnce(ctx)
		conflict, again := errors.AsType[*store.ErrConflict](err)
		switch {
		case err == nil:
			return nil
		case again:
			if err := r.pipeline.store.WaitApplied(ctx, conflict.Index); err != nil {
				return lockout.ErrBusy
			}
			continue
		case !errors.Is(err, lockout.ErrBusy):
			g.refused = true
			return err
		}
		select {
		case <-ctx.Done():
			g.refused = true
			return lockout.ErrBusy
		case <-time.After(guessPause):
		}
	}
}

func (r *run) reserveOnce(ctx context.Context) error {
	tx, err := r.pipeline.store.Begin()
	if err != nil {
		return err
	}
	defer tx.Close()
	levels, found, err := descend(tx, r.request)
	if err != nil || !found {
		return errors.Join(err, errDenied)
	}
	until, err := lockout.Reserve(levels[len(levels)-1].system, r.guess.account, r.guess.settings)
	if err != nil {
		return err
	}
	if _, err := tx.Commit(ctx, fsm.AuditRecord{}); err != nil {
		return err
	}
	r.guess.reserved = until
	return nil
}

// resolve notes how a guess ended, in the transaction of its outcome.
func (r *run) resolve(failure error) error {
	g := r.guess
	second := asFactorFailure(failure)
	if second != nil {
		if err := second.count(r.call.here().system); err != nil {
			return err
		}
	}
	if g == nil || g.refused || len(r.call.levels) == 0 {
		return nil
	}
	outcome := lockout.Undecided
	switch {
	case second != nil: // what was guessed at was right
	case failure == nil:
		outcome = lockout.Right
	case conclave.Is(failure, conclave.Denied) || conclave.Is(failure, conclave.Invalid):
		outcome = lockout.Wrong
	}
	return lockout.Resolve(r.call.here().system, g.account, g.settings, g.reserved, outcome)
}

// settingsOf are a mount's settings for package lockout; nil is the default.
func settingsOf(tuned *mount.Lockout) lockout.Settings {
	if tuned == nil {
		return lockout.Settings{}
	}
	return lockout.Settings{Threshold: int(tuned.Threshold), Duration: conclave.Seconds(tuned.Duration).Duration(),
		Reset: conclave.Seconds(tuned.Reset).Duration()}
}

// LockoutSettings are those of the mount that an accessor names, or of the method of second factors.
func LockoutSettings(view conclave.View, accessor string) (settings lockout.Settings, ok bool, err error) {
	if id, ok := strings.CutPrefix(accessor, factorAccount); ok {
		return factorSettingsOf(view, id)
	}
	table, err := mount.Load(view, mount.Defaults{})
	if err != nil {
		return lockout.Settings{}, false, err
	}
	e := table.ByAccessor(accessor)
	if e == nil || !e.Auth() {
		return lockout.Settings{}, false, nil
	}
	return settingsOf(e.Config.UserLockout), true, nil
}
