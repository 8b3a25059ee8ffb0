package database

import (
	"context"
	"strings"
	"time"

	"conclave"
	"conclave/engine/database/driver"
)

// settleAfter is how long after a rotation that a client asked for it is looked at whether it came to an end.
const settleAfter = 30 * time.Second

// settle is when to look: if a rotation is due before, it is the one.
func (r *rotation) settle(now time.Time, since int64) time.Time {
	at := now.Add(settleAfter)
	if due := r.next(unixNano(since)); !due.IsZero() && due.Before(at) {
		return due
	}
	return at
}

// task is a password that has to be set in a database. It is written down before, and may be done twice: what sets it is
// the same.
type task struct {
	target target
	login  driver.Login
	verify bool      // the password is the one that connections are made with: see that it works
	due    time.Time // zero if a client asked for it
}

// taskOf is what the request intended, nil if nothing.
func taskOf(ctx context.Context) *task {
	intent, ok := conclave.Intended(ctx)
	if !ok {
		return nil
	}
	t, _ := intent.Value.(*task)
	return t
}

// carryOut sets the password that the request intended, if any.
func (e *Engine) carryOut(ctx context.Context, _ *conclave.Request, _ any) (any, error) {
	t := taskOf(ctx)
	if t == nil {
		return nil, nil
	}
	return nil, e.setPassword(ctx, t)
}

func (e *Engine) setPassword(ctx context.Context, t *task) error {
	ctx, cancel := context.WithTimeout(ctx, 2*driver.ActTime)
	defer cancel()
	err := e.pools.use(ctx, t.target.at, t.target.from, func(d driver.Driver) error { return d.SetPassword(ctx, &t.login) })
	if err != nil || !t.verify {
		return err
	}
	settings := t.target.from.settings
	settings.Password = t.login.Password
	d, err := e.pools.open(settings)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Verify(ctx)
}

// BeginWork writes down the password that is to be set, if one is due or being set.
func (e *Engine) BeginWork(_ context.Context, tx conclave.Tx, work string) (any, error) {
	if name, is := strings.CutPrefix(work, staticWork); is {
		return beginStatic(tx, name)
	}
	if name, is := strings.CutPrefix(work, rootWork); is {
		return beginRoot(tx, name)
	}
	return nil, nil
}

// Work sets the password.
func (e *Engine) Work(ctx context.Context, _ string, begun any) (any, error) {
	return nil, e.setPassword(ctx, begun.(*task))
}

// FinishWork notes that the password is set, or when to try again.
func (e *Engine) FinishWork(_ context.Context, tx conclave.Tx, work string, begun, _ any, failure error) error {
	t := begun.(*task)
	if name, is := strings.CutPrefix(work, staticWork); is {
		return endStatic(tx, name, t, failure)
	}
	return endRoot(tx, strings.TrimPrefix(work, rootWork), t, failure)
}

// isDue reports whether a password that was set at a time has to be changed now; if not, the work is put off.
func (r *rotation) isDue(tx conclave.Tx, work string, since int64) (due time.Time, is bool, err error) {
	due = r.next(unixNano(since))
	switch {
	case due.IsZero():
		return due, false, nil
	case !tx.Reached(due):
		return due, false, tx.Wake(work, due)
	case r.Window > 0 && tx.Reached(due.Add(r.Window.Duration())):
		return due, false, tx.Wake(work, r.next(tx.Now())) // missed
	}
	return due, true, nil
}

// isOvertaken reports whether a password was set, but meanwhile others have noted another one: which of the two came last,
// nobody knows. It has to be set once more. With one that is being set just now, that settles it.
func isOvertaken(current, pending string, t *task, failure error) bool {
	return failure == nil && pending == "" && current != t.login.Password
}

func beginStatic(tx conclave.Tx, name string) (any, error) {
	s, err := loadStatic(tx, staticDir+name)
	if err != nil || s == nil {
		return nil, err
	}
	due, is, err := s.isDue(tx, staticWork+name, s.Since)
	if err != nil || !is && s.Pending == "" {
		return nil, err
	}
	intent, err := s.intend(tx, name, staticDir+name)
	if conclave.Is(err, conclave.Invalid) { // the connection or the policy is gone, until somebody makes them again
		return nil, tx.Wake(staticWork+name, tx.Now().Add(maxWait))
	}
	if err != nil {
		return nil, err
	}
	t := intent.Value.(*task)
	t.due = due
	return t, nil
}

func endStatic(tx conclave.Tx, name string, t *task, failure error) error {
	s, err := loadStatic(tx, staticDir+name)
	if err != nil || s == nil {
		return err
	}
	if s.Pending != t.login.Password {
		if isOvertaken(s.Password, s.Pending, t, failure) {
			s.Pending = t.login.Password
			if err := put(tx, staticDir+name, s); err != nil {
				return err
			}
			return tx.Wake(staticWork+name, tx.Now())
		}
		return tx.Wake(staticWork+name, s.next(unixNano(s.Since)))
	}
	if failure == nil {
		s.set(s.Pending, tx.Now())
		if err := s.store(tx, name); err != nil {
			return err
		}
		return emit(tx, "rotate", "rotate-role/"+name, name)
	}
	s.Failures++
	if err := put(tx, staticDir+name, s); err != nil {
		return err
	}
	if err := tx.Wake(staticWork+name, s.again(t.due, tx.Now(), s.Failures)); err != nil {
		return err
	}
	return emit(tx, "rotate-fail", "rotate-role/"+name, name)
}
