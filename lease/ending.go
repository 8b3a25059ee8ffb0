package lease

import (
	"errors"
	"strings"
	"time"

	"conclave"
	"conclave/internal/timeline"
)

// How long the next attempt waits after one that failed: doubled each time, up to the bound, for ever.
const (
	firstPause = 5 * time.Second
	maxPause   = 10 * time.Minute
)

// Owners tells whether the tokens live that leases belong to.
type Owners interface {
	// Lives reports whether a token lives, and when it ends at the latest, in Unix nanoseconds, 0 if it has no end. view is
	// the system space of the lease's namespace.
	Lives(view conclave.View, owner *Owner) (lives bool, ends int64, err error)
	// Release forgets a lease that is gone where others know of it: at its token, and at what counted it.
	Release(tx conclave.Tx, r *Record) error
}

// over tells why a lease is over, "" if it runs; ownerEnds is when the token that it belongs to ends.
func (r *Record) over(view conclave.View, owners Owners) (why string, ownerEnds int64, err error) {
	why, err = r.stopped(view)
	if err != nil || why != "" || r.Owner == nil {
		return why, 0, err
	}
	lives, ends, err := owners.Lives(view, r.Owner)
	if err != nil {
		return "", 0, err
	}
	if !lives {
		return "token", 0, nil
	}
	return "", ends, nil
}

// stopped tells why a lease is over whatever its token does, "" if it isn't.
func (r *Record) stopped(view conclave.View) (why string, err error) {
	if view.Reached(time.Unix(0, r.Expires)) {
		if r.Intent {
			return "unconfirmed", nil
		}
		return "expired", nil
	}
	covered, err := r.covered(view)
	if err != nil || !covered {
		return "", err
	}
	return "prefix", nil
}

// end moves a lease that runs into the queue of those that are to be ended outside. after is how long the reaper leaves it to
// others.
func (r *Record) end(tx conclave.Tx, ending Ending, after time.Duration) error {
	if err := tx.Delete(idDir + r.ID); err != nil {
		return err
	}
	if err := expiryIndex.Remove(tx, r.Look, r.Key()); err != nil {
		return err
	}
	over := *r
	ending.Since = tx.Now().UnixNano()
	over.Ending = &ending
	return over.queue(tx, after)
}

// queue stores the record of a lease that is over, for the next attempt after a time.
func (r *Record) queue(tx conclave.Tx, after time.Duration) error {
	next := *r.Ending
	next.Next = tx.Now().Add(after - timeline.SlotTime).UnixNano() // an entry is due at the end of its slot
	r.Ending = &next
	if err := storeAt(tx, endingDir+r.Key(), r); err != nil {
		return err
	}
	return dueIndex(r.MountUUID).Put(tx, next.Next, r.Key(), "1")
}

// Due are entries of the index of expiry that are due: found in a transaction that isn't judged, since the index changes with
// each new lease, and handed to [Expire].
type Due []timeline.Entry

// FindDue finds at most limit leases that must be looked at.
func FindDue(view conclave.View, limit int) (Due, error) {
	return expiryIndex.Due(view, min(max(limit, 1), MaxStep))
}

// Expire queues those leases that are over and looks at the others again in time.
func Expire(tx conclave.Tx, due Due, owners Owners) error {
	told := 0
	for _, e := range due {
		if told == maxTold {
			return nil // the others are still due
		}
		id, err := tx.Get(e.Dir + e.Key)
		if err != nil {
			return err
		}
		if id == nil {
			continue
		}
		r, err := load(tx, string(id))
		if errors.Is(err, errDamaged) {
			if err := errors.Join(tx.Delete(e.Dir+e.Key), setAside(tx, e.Key, string(id), idDir+string(id), err)); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		if r == nil || expiryIndex.Dir(r.Look) != e.Dir {
			if err := tx.Delete(e.Dir + e.Key); err != nil {
				return err
			}
			continue
		}
		why, ownerEnds, err := r.over(tx, owners)
		if err != nil {
			return err
		}
		if why != "" {
			err = r.end(tx, Ending{Why: why}, 0)
		} else {
			var tells bool
			if tells, err = r.reindex(tx, ownerEnds); tells {
				told++
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// reindex moves the lease's entry to where it belongs by now. told says that this told of the lease's end.
func (r *Record) reindex(tx conclave.Tx, ownerEnds int64) (told bool, err error) {
	if err := expiryIndex.Remove(tx, r.Look, r.Key()); err != nil {
		return false, err
	}
	same := *r
	same.lookBy(ownerEnds)
	if err := expiryIndex.Put(tx, same.Look, same.Key(), same.ID); err != nil {
		return false, err
	}
	if err := storeAt(tx, idDir+same.ID, &same); err != nil {
		return false, err
	}
	return same.tellMoved(tx)
}

// EndOf queues a lease because the token that it belonged to has ended. One that is over already is passed over; one whose
// record can't be read is looked at when its time comes.
func EndOf(tx conclave.Tx, id string) error {
	r, err := load(tx, id)
	if errors.Is(err, errDamaged) {
		return setAside(tx, keyOf(id), id, idDir+id, err)
	}
	if err != nil || r == nil {
		return err
	}
	return r.end(tx, Ending{Why: "token"}, 0)
}

// Waiting lists the UUIDs of the mounts that have leases to be ended, due or not.
func Waiting(view conclave.View) ([]string, error) {
	names, err := view.List(dueDir, "", 0)
	for i := range names {
		names[i] = strings.TrimSuffix(names[i], "/")
	}
	return names, err
}

// NextOf returns at most limit leases of a mount whose next attempt is due, and the entries of those whose records can't be
// read, for [SetEndingAside].
func NextOf(view conclave.View, mount string, limit int) (records []*Record, damaged Due, err error) {
	due, err := FindDueOf(view, mount, limit)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range due {
		r, err := loadAt(view, endingDir+e.Key)
		switch {
		case errors.Is(err, errDamaged) || err == nil && (r == nil || r.Ending == nil):
			damaged = append(damaged, e)
		case err != nil:
			return nil, nil, err
		default:
			records = append(records, r)
		}
	}
	return records, damaged, nil
}

// FindEnding returns a lease that is to be ended, by its key; nil if there is none.
func FindEnding(view conclave.View, key string) (*Record, error) {
	if !validKey(key) {
		return nil, nil
	}
	return loadAt(view, endingDir+key)
}

func (r *Record) unqueue(tx conclave.Tx) error {
	if err := dueIndex(r.MountUUID).Remove(tx, r.Ending.Next, r.Key()); err != nil {
		return err
	}
	if err := tx.Delete(endingDir + r.Key()); err != nil {
		return err
	}
	return tx.AddCell(countDir+r.MountUUID, -1, 0, errUncounted)
}

// Ended removes a lease that its engine has ended, and returns its record; nil if somebody did so already, or if what it stands
// for may be made after that: then it is ended once more when its request is over.
func Ended(tx conclave.Tx, key string) (*Record, error) {
	r, err := FindEnding(tx, key)
	if err != nil || r == nil {
		return nil, err
	}
	if until := time.Unix(0, r.Issued).Add(intentTime); r.isInTheMaking() && !tx.Reached(until) {
		if err := dueIndex(r.MountUUID).Remove(tx, r.Ending.Next, key); err != nil {
			return nil, err
		}
		later, ending := *r, *r.Ending
		later.Ending = &ending
		return nil, later.queue(tx, until.Sub(tx.Now()))
	}
	return r, r.unqueue(tx)
}

// isInTheMaking reports whether an intent is over for another reason than that its request came to an end: by a revocation, or
// with its token.
func (r *Record) isInTheMaking() bool { return r.Intent && r.Ending.Why != "unconfirmed" }

// Failed notes that an attempt to end a lease failed, and has it tried again later; one that was to be given up then, is.
// why goes to clients. It returns the record that was given up, nil otherwise.
func Failed(tx conclave.Tx, key, why string) (abandoned *Record, err error) {
	r, err := FindEnding(tx, key)
	if err != nil || r == nil {
		return nil, err
	}
	failed, ending := *r, *r.Ending
	ending.Attempts++
	ending.Error = why[:min(len(why), maxError)]
	failed.Ending = &ending
	if ending.Force {
		return &failed, failed.abandon(tx, r)
	}
	if err := dueIndex(r.MountUUID).Remove(tx, r.Ending.Next, key); err != nil {
		return nil, err
	}
	return nil, failed.queue(tx, pause(ending.Attempts))
}

func pause(attempts int) time.Duration {
	return min(firstPause<<min(max(attempts-1, 0), 16), maxPause)
}

// abandon moves the lease from the queue, where it is as queued, to those that nobody will try to end.
func (r *Record) abandon(tx conclave.Tx, queued *Record) error {
	if err := queued.unqueue(tx); err != nil {
		return err
	}
	kept := *r
	kept.Counted = "" // given back by whoever abandons it
	return storeAt(tx, abandonedDir+r.Key(), &kept)
}
