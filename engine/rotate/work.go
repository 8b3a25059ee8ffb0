package rotate

import (
	"context"

	"conclave"
)

// worker is the holder of claims of the vault's own work. Each has an id behind it.
const worker = "worker/"

// BeginWork makes the value that is due and claims the entry, or does what needs no source: it lets go of a value whose
// time is over.
func (e *Engine) BeginWork(_ context.Context, tx conclave.Tx, name string) (any, error) {
	en, st, err := load(tx, name)
	if conclave.Is(err, conclave.NotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if st.claimed(tx, "") {
		return nil, tx.Wake(name, st.Claim.Until)
	}
	now := tx.Now().UTC()
	st.Claim = nil
	st.expire(tx, en)
	rotate := st.isDue(tx)
	if rotate {
		why := cause{What: scheduled, At: now}
		if st.Current == nil {
			why.What = atFirst
		}
		if failure := e.makePending(tx, st, en, why); failure != nil {
			if conclave.KindOf(failure) != conclave.Invalid {
				return nil, failure
			}
			st.fail(en, now, failure.Error())
			return nil, st.settle(tx, name, en)
		}
	}
	retire := len(st.Retiring) > 0 && en.Retire && (st.Retry.IsZero() || tx.Reached(st.Retry))
	if !rotate && !retire {
		return nil, st.settle(tx, name, en)
	}
	id, err := randomID(e.settings.Random)
	if err != nil {
		return nil, err
	}
	st.claimBy(worker+id, now, en)
	return jobOf(tx, name, en, st, rotate), st.settle(tx, name, en)
}

// Work makes the calls.
func (e *Engine) Work(ctx context.Context, _ string, begun any) (any, error) {
	return e.do(ctx, begun.(*job)), nil
}

// FinishWork records what came of them.
func (e *Engine) FinishWork(_ context.Context, tx conclave.Tx, name string, begun, done any, failure error) error {
	out, ok := done.(outcome)
	if !ok || failure != nil {
		out = outcome{failure: "the call could not be made"}
	}
	mine, err := finish(tx, begun.(*job), out)
	if mine || err != nil {
		return err
	}
	en, st, err := load(tx, name)
	if conclave.Is(err, conclave.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return st.settle(tx, name, en) // it goes on with whoever has the entry
}
