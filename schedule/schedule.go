// Package schedule keeps when engines have work to do. All is below "schedule/" of the system space of the mount's
// namespace:
//
//	schedule/name/<mount>/<key>               an appointment, JSON
//	schedule/due/<mount>/<hour>/<slot>/<key>  a mark: it is due within a slot's time after that slot is over
//	schedule/failed/<mount>/<key>             a mark: it could be neither begun nor finished lately
//	schedule/closed/<mount>                   a mark: the mount is gone, and its appointments go in bounded steps
//
// Mounts are named by their UUIDs; a key is SHA-256 of the name that the engine has chosen, in URL-safe base 64; for hours
// and slots see package timeline.
//
// Invariant: an appointment has exactly one entry among what is due, at its time, both written in one transaction.
//
// Who does the work claims it first, which moves its time to when it counts as lost: so what is done is never due
// meanwhile, and is begun again if nobody finishes it. Nothing is loaded at start.
package schedule

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"
	"unicode/utf8"

	"conclave"
	"conclave/internal/timeline"
)

// Limits of appointments.
const (
	MaxName  = 512 // bytes
	MaxStep  = 1000
	maxError = 512 // bytes of why an attempt failed
)

// How long the next attempt waits after one that the engine failed to begin or to finish: doubled each time, up to the
// bound, for ever.
const (
	firstPause = 5 * time.Second
	maxPause   = 10 * time.Minute
)

const (
	nameDir   = "schedule/name/"
	dueDir    = "schedule/due/"
	failedDir = "schedule/failed/"
	closedDir = "schedule/closed/"
)

// slotOf is the time under which an appointment is in the index: one that is due is never overlooked, and one that is found has
// at most a slot's time left.
func slotOf(at int64) int64 { return at - int64(timeline.SlotTime) }

func dueIndex(mount string) timeline.Index { return timeline.Index(dueDir + mount + "/") }

// Appointment is work that an engine has to do. Records that are loaded must not be changed.
type Appointment struct {
	Name string `json:"name"`
	At   int64  `json:"at"` // Unix nanoseconds
	// Claimed is set while somebody does the work; At is when it counts as lost.
	Claimed bool   `json:"claimed,omitempty"`
	Failed  int    `json:"failed,omitempty"` // attempts in a row that the engine could neither begin nor finish
	Error   string `json:"error,omitempty"`  // of the last one
}

func keyOf(name string) string {
	sum := sha256.Sum256([]byte(name))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func decode(value []byte) (*Appointment, error) {
	a := &Appointment{}
	if err := json.Unmarshal(value, a); err != nil || checkName(a.Name) != nil {
		return nil, conclave.Errorf(conclave.Internal, "a stored appointment is damaged")
	}
	return a, nil
}

func checkName(name string) error {
	if name == "" || len(name) > MaxName || !utf8.ValidString(name) {
		return conclave.Errorf(conclave.Internal, "what an engine is woken for has a name of at most %d bytes of UTF-8", MaxName)
	}
	return nil
}

// Find returns the appointment of a mount for a name, nil if there is none.
func Find(view conclave.View, mount, name string) (*Appointment, error) {
	return load(view, mount, keyOf(name))
}

func load(view conclave.View, mount, key string) (*Appointment, error) {
	value, err := view.Get(nameDir + mount + "/" + key)
	if err != nil || value == nil {
		return nil, err
	}
	return decode(value)
}

// Wake has work for name begin once cluster time has reached at, in place of an earlier time. The zero time takes it back.
// tx is the system space of the mount's namespace.
func Wake(tx conclave.Tx, mount, name string, at time.Time) error {
	if err := checkName(name); err != nil {
		return err
	}
	if at.IsZero() {
		return remove(tx, mount, name)
	}
	return put(tx, mount, &Appointment{Name: name, At: at.UnixNano()})
}

func put(tx conclave.Tx, mount string, a *Appointment) error {
	key, index := keyOf(a.Name), dueIndex(mount)
	earlier, err := load(tx, mount, key)
	if err != nil {
		return err
	}
	value, err := json.Marshal(a)
	if err != nil {
		return err
	}
	if err := tx.Put(nameDir+mount+"/"+key, value); err != nil {
		return err
	}
	if err := markFailed(tx, mount, key, earlier, a); err != nil {
		return err
	}
	if earlier != nil {
		if index.Dir(slotOf(earlier.At)) == index.Dir(slotOf(a.At)) {
			return nil
		}
		if err := index.Remove(tx, slotOf(earlier.At), key); err != nil {
			return err
		}
	}
	return index.Put(tx, slotOf(a.At), key, "1")
}

// markFailed keeps the mark of appointments that have failed as the change from one to the other wants it; nil is none.
func markFailed(tx conclave.Tx, mount, key string, from, to *Appointment) error {
	was, is := from != nil && from.Failed > 0, to != nil && to.Failed > 0
	switch {
	case is && !was:
		return tx.Put(failedDir+mount+"/"+key, []byte{1})
	case was && !is:
		return tx.Delete(failedDir + mount + "/" + key)
	}
	return nil
}

func remove(tx conclave.Tx, mount, name string) error {
	key := keyOf(name)
	a, err := load(tx, mount, key)
	if err != nil || a == nil {
		return err
	}
	if err := dueIndex(mount).Remove(tx, slotOf(a.At), key); err != nil {
		return err
	}
	if err := markFailed(tx, mount, key, a, nil); err != nil {
		return err
	}
	return tx.Delete(nameDir + mount + "/" + key)
}

// Mounts lists the UUIDs of the mounts that have appointments, due or not.
func Mounts(view conclave.View) ([]string, error) { return dirs(view, dueDir) }

func dirs(view conclave.View, dir string) ([]string, error) {
	names, err := view.List(dir, "", 0)
	for i := range names {
		names[i] = strings.TrimSuffix(names[i], "/")
	}
	return names, err
}

// Due returns at most limit names of a mount for which work is due, in a transaction that isn't judged. One that is due is
// passed over for at most a slot's time, while others will be.
func Due(view conclave.View, mount string, limit int) ([]string, error) {
	entries, err := dueIndex(mount).Due(view, min(max(limit, 1), MaxStep))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		a, err := load(view, mount, e.Key)
		if err != nil {
			return nil, err
		}
		if a != nil && view.Reached(time.Unix(0, a.At)) {
			names = append(names, a.Name)
		}
	}
	return names, nil
}

// Claim takes an appointment for whoever does the work until a time. It is false if there is none that is due.
func Claim(tx conclave.Tx, mount, name string, until time.Time) (bool, error) {
	a, err := Find(tx, mount, name)
	if err != nil || a == nil || !tx.Reached(time.Unix(0, a.At)) {
		return false, err
	}
	claimed := *a
	claimed.Claimed, claimed.At = true, until.UnixNano()
	return true, put(tx, mount, &claimed)
}

// Settle takes an appointment back that is as [Claim] left it: the engine has not said when the next one is.
func Settle(tx conclave.Tx, mount, name string) error {
	a, err := Find(tx, mount, name)
	if err != nil || a == nil || !a.Claimed {
		return err
	}
	return remove(tx, mount, name)
}

// Fail notes that the engine could neither begin nor finish the work, and has it begun again later. why may be shown to
// operators. An appointment that is gone, or was made anew meanwhile, stays as it is.
func Fail(tx conclave.Tx, mount, name, why string) error {
	a, err := Find(tx, mount, name)
	if err != nil || a == nil || !a.Claimed && !tx.Reached(time.Unix(0, a.At)) {
		return err
	}
	failed := *a
	failed.Claimed = false
	failed.Failed++
	failed.Error = why[:min(len(why), maxError)]
	failed.At = tx.Now().Add(pause(failed.Failed)).UnixNano()
	return put(tx, mount, &failed)
}

func pause(failed int) time.Duration {
	return min(firstPause<<min(max(failed-1, 0), 16), maxPause)
}

// Close has the appointments of a mount that is being disabled go, in the transaction that disables it.
func Close(tx conclave.Tx, mount string) error {
	some, err := conclave.Some(tx, nameDir+mount+"/", "", 1)
	if err != nil || len(some) == 0 {
		return err
	}
	return tx.Put(closedDir+mount, []byte{1})
}

// Closed lists the mounts that are gone and still have appointments.
func Closed(view conclave.View) ([]string, error) { return dirs(view, closedDir) }

// Clear removes at most limit appointments of a mount that is gone, and reports whether there may be more.
func Clear(tx conclave.Tx, mount string, limit int) (more bool, err error) {
	keys, err := conclave.Some(tx, nameDir+mount+"/", "", min(max(limit, 1), MaxStep))
	if err != nil {
		return false, err
	}
	if len(keys) == 0 {
		return false, tx.Delete(closedDir + mount)
	}
	for _, key := range keys {
		a, err := load(tx, mount, key)
		if err != nil {
			return false, err
		}
		if a == nil {
			continue
		}
		if err := remove(tx, mount, a.Name); err != nil {
			return false, err
		}
	}
	return true, nil
}
