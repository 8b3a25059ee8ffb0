package rotate

import (
	"time"

	"conclave"
)

// plan has the next scheduled rotation be the first after a time.
func (st *state) plan(en *entry, after time.Time) {
	st.Due = time.Time{}
	if s, err := en.schedule(); err == nil && s != nil { // it was checked when it was written
		st.Due = s.Next(after)
	}
}

// settle stores the state and has work begin when something is due next.
func (st *state) settle(tx conclave.Tx, name string, en *entry) error {
	if err := st.store(tx, name); err != nil {
		return err
	}
	return tx.Wake(name, st.next(tx.Now(), en))
}

// next is when something is to be done next, zero for never. What is due already is due now.
func (st *state) next(now time.Time, en *entry) time.Time {
	var first time.Time
	earlier := func(at time.Time) {
		if first.IsZero() || at.Before(first) {
			first = at
		}
	}
	if st.Claim != nil {
		return st.Claim.Until
	}
	switch {
	case st.isPaused():
	case st.Pending != nil || st.Current == nil:
		earlier(later(now, st.Retry))
	case !st.Due.IsZero():
		earlier(later(st.Due, st.Retry))
	}
	if st.Previous != nil && !st.Previous.Until.IsZero() {
		earlier(st.Previous.Until)
	}
	if len(st.Retiring) > 0 && en.Retire {
		earlier(later(now, st.Retry))
	}
	return first
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// isPaused reports whether no rotation may begin by itself. What was asked for in an emergency goes on.
func (st *state) isPaused() bool {
	return st.Paused != nil && (st.Pending == nil || !st.Pending.Emergency)
}

// isDue reports whether the schedule, or an attempt that failed, wants a hand-over now.
func (st *state) isDue(view conclave.View) bool {
	if st.isPaused() || !st.Retry.IsZero() && !view.Reached(st.Retry) {
		return false
	}
	return st.Pending != nil || st.Current == nil || !st.Due.IsZero() && view.Reached(st.Due)
}

// expire takes away a previous value whose time is over.
func (st *state) expire(view conclave.View, en *entry) {
	if st.Previous != nil && view.Reached(st.Previous.Until) {
		st.drop(st.Previous, en)
		st.Previous = nil
	}
}

// drop lets go of a value that nobody may read any more: at once, or when its source has ended it. If the source has been
// away for so long that the queue is full, the oldest is let go of without it.
func (st *state) drop(value *held, en *entry) {
	if !en.Retire {
		return
	}
	st.Retiring = append(st.Retiring, *value)
	if len(st.Retiring) > maxRetiring {
		st.Retiring = st.Retiring[1:]
	}
}

// fail notes that an attempt has failed, and when the next one is made.
func (st *state) fail(en *entry, now time.Time, why string) {
	pause := firstPause
	for range min(st.Failures, 16) {
		pause = min(2*pause, maxPause)
	}
	st.Failures++
	st.Failed, st.Failure, st.Retry = now, why, now.Add(pause)
	s, err := en.schedule()
	if err != nil || s == nil || st.Due.IsZero() || now.Before(st.Due) || st.Pending != nil && st.Pending.What != scheduled {
		return
	}
	if again := s.Attempt(st.Due, now, pause, en.RotationWindow.Duration()); again.After(st.Retry) {
		st.Due, st.Retry = again, again // the window is over: the next scheduled time is the next attempt
	}
}

// succeed forgets failures.
func (st *state) succeed() {
	st.Failures, st.Failed, st.Failure, st.Retry = 0, time.Time{}, "", time.Time{}
}
