// Package lockout counts wrong guesses at the secrets of accounts, and locks an account that has had too many for a
// while. It knows nothing of the accounts themselves: names that no auth method knows are counted, and lock, like others.
//
// All is below "lockout/" of a namespace's system space:
//
//	lockout/own/<mount accessor>/<hash>   {"alias", "failed", "last", "pending"}     JSON; hash = base64url(SHA-256(name))
//	lockout/shared/<number>               the same for accounts that share a record
//	lockout/accounts                      cell: how many own records there are
//
// An account without wrong guesses has no record. There are at most [MaxAccounts] own records in a namespace; accounts
// beyond them share [sharedRecords] ones by their hash, so that guessing at many names fills nothing, and frees nobody.
//
// A guess that takes time to evaluate is reserved before: the failed and the pending guesses together are never more than
// the threshold, whatever number of them is made at once and on whichever nodes. A reservation that nobody resolves, since
// its node crashed, counts as a wrong guess once [Patience] is over.
package lockout

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"conclave"
)

// Limits.
const (
	MaxAccounts   = 50_000 // own records of a namespace
	Patience      = 30 * time.Second
	sharedRecords = 4096
	maxAlias      = 512 // bytes of a name that are kept for people to read
)

// Settings are those of a mount. Zero values are the defaults.
type Settings struct {
	Threshold int           // wrong guesses that lock; 5 by default
	Duration  time.Duration // how long; 15 minutes by default
	Reset     time.Duration // without a wrong guess, after which all are forgotten; 15 minutes by default
}

func (s Settings) fill() Settings {
	const usual = 15 * time.Minute
	if s.Threshold <= 0 {
		s.Threshold = 5
	}
	if s.Duration <= 0 {
		s.Duration = usual
	}
	if s.Reset <= 0 {
		s.Reset = usual
	}
	return s
}

// Account is what is guessed at.
type Account struct {
	Mount string // accessor
	Name  string // in its one spelling
}

func (a Account) hash() [32]byte { return sha256.Sum256([]byte(a.Mount + "\x00" + a.Name)) }

func (a Account) path() string {
	hash := a.hash()
	return ownDir + a.Mount + "/" + base64.RawURLEncoding.EncodeToString(hash[:])
}

func (a Account) sharedPath() string {
	hash := a.hash()
	return fmt.Sprintf("%s%04x", sharedDir, binary.BigEndian.Uint16(hash[:])%sharedRecords)
}

const (
	ownDir       = "lockout/own/"
	sharedDir    = "lockout/shared/"
	accountsCell = "lockout/accounts"
)

// ErrBusy is why a guess can't be reserved yet: others at the same account are being evaluated.
var ErrBusy = conclave.Errorf(conclave.Limited, "too many logins of one account at once: try again")

func errLocked() error { return conclave.Errorf(conclave.Denied, "permission denied") }

// record is what is kept of an account. Times are Unix nanoseconds.
type record struct {
	Alias   string  `json:"alias"`
	Failed  int     `json:"failed"`
	Last    int64   `json:"last"`              // wrong guess
	Pending []int64 `json:"pending,omitempty"` // until when each reservation holds

	path string
	own  bool
	new  bool
}

// find returns the record of an account as it counts now: forgotten guesses are gone, abandoned ones are wrong ones. It
// is new, and stored nowhere, for an account that has none.
func find(view conclave.View, a Account, s Settings) (*record, error) {
	for _, path := range []string{a.path(), a.sharedPath()} {
		value, err := view.Get(path)
		if err != nil {
			return nil, err
		}
		if value == nil {
			continue
		}
		r := &record{path: path, own: path == a.path()}
		if json.Unmarshal(value, r) != nil {
			return nil, conclave.Errorf(conclave.Internal, "the stored record of wrong guesses is damaged")
		}
		r.age(view, s)
		return r, nil
	}
	return &record{Alias: a.Name[:min(len(a.Name), maxAlias)], path: a.path(), own: true, new: true}, nil
}

// age brings a record up to cluster time.
func (r *record) age(view conclave.View, s Settings) {
	r.Pending = slices.DeleteFunc(r.Pending, func(until int64) bool {
		over := view.Reached(time.Unix(0, until))
		if over {
			r.Failed, r.Last = r.Failed+1, max(r.Last, until)
		}
		return over
	})
	after := s.Reset
	if r.Failed >= s.Threshold {
		after = s.Duration
	}
	if r.Failed > 0 && view.Reached(time.Unix(0, r.Last).Add(after)) {
		r.Failed = 0
	}
}

func (r *record) locked(s Settings) bool { return r.Failed >= s.Threshold }

// save stores the record, or removes one that says nothing any more.
func (r *record) save(tx conclave.Tx, a Account) error {
	if r.Failed == 0 && len(r.Pending) == 0 {
		if r.new {
			return nil
		}
		if r.own {
			if err := tx.AddCell(accountsCell, -1, 0, errLocked()); err != nil {
				return err
			}
		}
		return tx.Delete(r.path)
	}
	if r.new {
		if err := r.settle(tx, a); err != nil {
			return err
		}
	}
	value, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return tx.Put(r.path, value)
}

// settle decides where a new record is kept.
func (r *record) settle(tx conclave.Tx, a Account) error {
	accounts, counted, err := tx.Cell(accountsCell)
	switch {
	case err != nil:
		return err
	case !counted:
		return tx.SetCell(accountsCell, 1, true)
	case accounts < MaxAccounts:
		return tx.AddCell(accountsCell, 1, 0, errLocked())
	}
	r.path, r.own, r.Alias = a.sharedPath(), false, ""
	return nil
}

// Check is Denied while an account is locked.
func Check(view conclave.View, a Account, s Settings) error {
	s = s.fill()
	r, err := find(view, a, s)
	if err == nil && r.locked(s) {
		err = errLocked()
	}
	return err
}

// Reserve notes that a guess will be evaluated, until then is over: it returns what resolves it. The error is Denied
// while the account is locked, and [ErrBusy] while only guesses that are being evaluated stand in the way.
func Reserve(tx conclave.Tx, a Account, s Settings) (until int64, err error) {
	s = s.fill()
	r, err := find(tx, a, s)
	switch {
	case err != nil:
		return 0, err
	case r.locked(s):
		return 0, errLocked()
	case r.Failed+len(r.Pending) >= s.Threshold:
		return 0, ErrBusy
	}
	until = tx.Now().Add(Patience).UnixNano()
	for slices.Contains(r.Pending, until) {
		until++
	}
	r.Pending = append(r.Pending, until)
	return until, r.save(tx, a)
}

// Outcome is how a guess ended.
type Outcome uint8

// The outcomes.
const (
	Right     Outcome = iota + 1
	Wrong             // counts
	Undecided         // something else went wrong: it doesn't count
)

// Resolve notes how a guess ended; until is what Reserve returned, 0 for a guess that wasn't reserved. A right guess
// forgets all wrong ones. A right guess at an account without a record writes nothing.
func Resolve(tx conclave.Tx, a Account, s Settings, until int64, outcome Outcome) error {
	s = s.fill()
	r, err := find(tx, a, s)
	if err != nil {
		return err
	}
	wasLocked := r.locked(s)
	held := slices.Index(r.Pending, until)
	if held >= 0 {
		r.Pending = slices.Delete(r.Pending, held, held+1)
	}
	switch {
	case outcome == Right && r.locked(s):
		return errLocked() // abandoned guesses have locked it meanwhile
	case outcome == Right:
		r.Failed = 0
	case outcome == Wrong && (until == 0 || held >= 0):
		r.Failed, r.Last = r.Failed+1, tx.Now().UnixNano()
	}
	if r.locked(s) && !wasLocked {
		if err := r.tell(tx, a, s); err != nil {
			return err
		}
	}
	return r.save(tx, a)
}

// EventLocked is the type of the event that an account was locked.
const EventLocked = "login/locked"

// lockedPath is what such events are about: whoever may read it may know of them, and see there which account it is. The
// name isn't in the event: audit records don't have it in the clear either, and people type passwords where names belong.
const lockedPath = "sys/locked-users"

func (r *record) tell(tx conclave.Tx, a Account, s Settings) error {
	return tx.Emit(conclave.Event{Type: EventLocked, Path: lockedPath, Metadata: map[string]string{
		"operation": "locked", "mount_accessor": a.Mount, "failed": strconv.Itoa(r.Failed),
		"until": time.Unix(0, r.Last).Add(s.Duration).UTC().Format(time.RFC3339),
	}})
}

// Tidy removes records that say nothing any more, of one namespace, a bounded step at a time: it looks at no more than
// limit records after the one that the last step ended with, and returns where this one ended, "" after the last.
func Tidy(tx conclave.Tx, after string, limit int, settings func(mount string) Settings) (next string, err error) {
	mounts, err := tx.List(ownDir, "", 0)
	if err != nil {
		return "", err
	}
	mount, name := cut(after)
	for _, dir := range mounts {
		if dir < mount {
			continue
		}
		from := ""
		if dir == mount {
			from = name
		}
		names, err := tx.List(ownDir+dir, from, limit)
		if err != nil {
			return "", err
		}
		for _, n := range names {
			if err := tidyOne(tx, ownDir+dir+n, settings(dir[:len(dir)-1]).fill()); err != nil {
				return "", err
			}
		}
		if limit -= len(names); limit <= 0 && len(names) > 0 {
			return dir + names[len(names)-1], nil
		}
	}
	return "", nil
}

func cut(after string) (mount, name string) {
	for i := range after {
		if after[i] == '/' {
			return after[:i+1], after[i+1:]
		}
	}
	return "", ""
}

func tidyOne(tx conclave.Tx, path string, s Settings) error {
	value, err := tx.Get(path)
	if err != nil || value == nil {
		return err
	}
	r := &record{path: path, own: true}
	if json.Unmarshal(value, r) != nil {
		return conclave.Errorf(conclave.Internal, "the stored record of wrong guesses is damaged")
	}
	if r.age(tx, s); r.Failed > 0 || len(r.Pending) > 0 {
		return nil
	}
	return r.save(tx, Account{})
}
