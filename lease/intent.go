package lease

import (
	"time"

	"conclave"
)

// intentTime is how long an intent lives: more than a request may take.
const intentTime = 2 * time.Minute

var errUnconfirmed = conclave.Errorf(conclave.Unavailable, "what was made was ended before the request was done: try again")

// Intend stores the lease of what a request is about to make outside, in a transaction before that. Until [Confirm] it can
// be neither renewed nor looked up, and it is over in two minutes at the latest. Its data is the engine's; how long the
// lease will live, it needn't say yet.
func Intend(tx conclave.Tx, g Grant) (*Record, error) { return g.store(tx, true) }

// Confirm makes the lease of an intent the one that the request is answered, in the transaction that is judged with the
// answer and has authenticated the token that it belongs to. Of the grant, what counted it and to whom it belongs are the
// intent's. An intent that is over is Unavailable.
func Confirm(tx conclave.Tx, id string, g Grant) (*Record, error) {
	intended, err := load(tx, id)
	if err != nil {
		return nil, err
	}
	if intended == nil || !intended.Intent {
		return nil, errUnconfirmed
	}
	if why, err := intended.stopped(tx); err != nil || why != "" {
		return nil, orElse(err, errUnconfirmed)
	}
	if len(g.Lease.Data) > maxData {
		return nil, errTooMuch
	}
	now, r := tx.Now(), *intended
	r.Intent, r.Issued, r.Renewable, r.MaxTTL = false, now.UnixNano(), g.Lease.Renewable, g.Lease.MaxTTL
	if g.Lease.Data != nil {
		r.Data = g.Lease.Data
	}
	r.last(&g, now)
	// The intent's entry in the index stays, and has the lease looked at when the intent would be over: many intents end at
	// once in one slot, and who removes one there conflicts with who removes the next.
	if r.Look >= intended.Look {
		r.Look = intended.Look
	} else if err := expiryIndex.Put(tx, r.Look, r.Key(), r.ID); err != nil {
		return nil, err
	}
	return &r, storeAt(tx, idDir+r.ID, &r)
}

// Disown queues the lease of a request whose answer nobody has got, confirmed or not: what came of the request may have been
// unknown to its node.
func Disown(tx conclave.Tx, id string) error {
	r, err := load(tx, id)
	switch {
	case err != nil:
		return err
	case r == nil:
		return made(tx, id)
	}
	why := "unanswered"
	if r.Intent {
		why = "unconfirmed"
	}
	return r.end(tx, Ending{Why: why}, 0)
}

func orElse(err, other error) error {
	if err != nil {
		return err
	}
	return other
}

// Withdraw queues the lease of an intent that came to nothing. One that is confirmed is passed over.
func Withdraw(tx conclave.Tx, id string) error {
	r, err := load(tx, id)
	switch {
	case err != nil:
		return err
	case r == nil:
		return made(tx, id)
	case !r.Intent:
		return nil
	}
	return r.end(tx, Ending{Why: "unconfirmed"}, 0)
}

// made has an intent that others have ended be ended for good, now that its request is over: what was to be made is there by now,
// or never will be.
func made(tx conclave.Tx, id string) error {
	if !validID(id) {
		return nil
	}
	r, err := FindEnding(tx, keyOf(id))
	if err != nil || r == nil || !r.isInTheMaking() {
		return err
	}
	if err := dueIndex(r.MountUUID).Remove(tx, r.Ending.Next, r.Key()); err != nil {
		return err
	}
	over := *r
	over.Intent = false
	return over.queue(tx, 0)
}
