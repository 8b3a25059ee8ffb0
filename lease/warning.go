package lease

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strconv"
	"time"

	"conclave"
	"conclave/internal/timeline"
)

// EventExpiring is the type of the event that a lease is about to expire. It is about the path that the lease was got from:
// whoever may read that, and so get a lease, may know of it. The lease's id isn't in it, since whoever knows an id may renew
// the lease, but its SHA-256 is, for whoever has the lease.
const EventExpiring = "lease/expiring"

// WarnAhead is how long before its end it is told that a lease is about to expire. Of leases that live less than twice as
// long it isn't.
const WarnAhead = 10 * time.Minute

const (
	warnedPath   = "lease/warned" // how far the index of expiry was gone through for this: a timeline.Position, JSON
	warningBytes = conclave.MaxEventBytes
	warningSize  = 256 // bytes of an event beside its path and namespace, at most
	maxTold      = 4   // leases that one step that moves entries tells of: their ids may be long
)

// Warnings are leases that may be about to expire: found in a transaction that isn't judged, and handed to [Warnings.Tell].
type Warnings struct {
	entries []timeline.Entry
	was     []byte // what was stored of how far this is
	next    timeline.Position
}

// FindWarnings finds leases that nobody was told of yet, a bounded number; nil if there are none.
func FindWarnings(view conclave.View) (*Warnings, error) {
	was, err := view.Get(warnedPath)
	if err != nil {
		return nil, err
	}
	from := timeline.SlotOf(view.Now())
	at, err := decodeWarned(was)
	if err != nil {
		return nil, err
	}
	if at.Slot >= from.Slot {
		from = at
	}
	entries, next, err := expiryIndex.Between(view, from, view.Now().Add(WarnAhead), conclave.MaxEvents)
	if err != nil || len(entries) == 0 {
		return nil, err
	}
	return &Warnings{entries, was, next}, nil
}

func decodeWarned(value []byte) (at timeline.Position, err error) {
	if value != nil && json.Unmarshal(value, &at) != nil {
		err = errDamaged
	}
	return at, err
}

// Tell emits the events, and notes how far this is. If somebody else did so meanwhile nothing happens.
func (w *Warnings) Tell(tx conclave.Tx) error {
	was, err := tx.Get(warnedPath)
	if err != nil || string(was) != string(w.was) {
		return err
	}
	next, room := w.next, warningBytes
	for i, e := range w.entries {
		id, err := tx.Get(e.Dir + e.Key)
		if err != nil {
			return err
		}
		r, err := load(tx, string(id))
		if err != nil && !errors.Is(err, errDamaged) { // it is set aside when its time comes
			return err
		}
		if r == nil || expiryIndex.Dir(r.Look) != e.Dir || r.Look != r.Expires || !r.warns() {
			continue
		}
		if room -= len(r.ID) + len(tx.Namespace().Path) + warningSize; room < 0 && i > 0 {
			next = timeline.Position{Slot: timeline.SlotOf(time.Unix(0, r.Look)).Slot, Key: w.entries[i-1].Key}
			if w.entries[i-1].Dir != e.Dir {
				next.Key = ""
			}
			break
		}
		if err := r.tell(tx); err != nil {
			return err
		}
	}
	value, err := json.Marshal(next)
	if err != nil {
		return err
	}
	return tx.Put(warnedPath, value)
}

// warns reports whether anybody is to be told that the lease is about to expire.
func (r *Record) warns() bool {
	return !r.Intent && time.Duration(r.Expires-max(r.Issued, r.Renewed)) >= 2*WarnAhead
}

// tellMoved tells of a lease whose entry was moved to where the index has been gone through already. told says that it did.
func (r *Record) tellMoved(tx conclave.Tx) (told bool, err error) {
	if r.Look != r.Expires || !r.warns() {
		return false, nil
	}
	value, err := tx.Get(warnedPath)
	if err != nil {
		return false, err
	}
	at, err := decodeWarned(value)
	slot := timeline.SlotOf(time.Unix(0, r.Look)).Slot
	if err != nil || slot > at.Slot || slot == at.Slot && at.Key == "" {
		return false, err
	}
	return true, r.tell(tx)
}

func (r *Record) tell(tx conclave.Tx) error {
	sum := sha256.Sum256([]byte(r.ID))
	return tx.Emit(conclave.Event{Type: EventExpiring, Path: r.MountPath + r.Path, Metadata: map[string]string{
		"operation": "expiring", "lease_id_sha256": hex.EncodeToString(sum[:]), "renewable": strconv.FormatBool(r.Renewable),
		"expires": time.Unix(0, r.Expires).UTC().Format(time.RFC3339),
	}})
}
