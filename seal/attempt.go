package seal

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"time"

	"conclave"
	"conclave/store"
)

// Limits of ceremonies of share holders that need no token.
const (
	attemptLife   = time.Hour
	maxAttempts   = 8        // at once; a new one takes the place of the oldest that no share has named
	attemptNonce  = 32       // characters
	attemptRecord = 64 << 10 // bytes
)

// attempt is a ceremony of share holders under way: what it is for, and whose shares were shown. Shares aren't kept: each is
// recognised by its hash, and that is the proof. An attempt is a record of the root namespace's system space, so that any
// node goes on with it:
//
//	ceremony/<purpose>/<nonce>    JSON; the purpose is "generate-root" or "roll-call"
//
// The nonce is a hash of all that the attempt is for. Who starts an attempt gets it and tells the other holders; nobody else
// can learn it, add to it or cancel it.
type attempt struct {
	Nonce   string          `json:"-"`
	Started int64           `json:"started"` // Unix nanoseconds of cluster time
	Random  []byte          `json:"random"`  // 16 bytes, so that no two nonces are the same
	Terms   json.RawMessage `json:"terms"`   // what it is for
	Salt    []byte          `json:"salt"`    // of the seal blob whose shares are shown
	Shown   []int           `json:"shown"`   // positions of shares among the blob's hashes
}

var (
	errNoAttempt   = conclave.Errorf(conclave.Invalid, "no such attempt is under way: its nonce is wrong, it was cancelled, or an hour has passed")
	errWrongShare  = conclave.Errorf(conclave.Invalid, "this is no share of this vault: it is damaged, or from another vault or an earlier key")
	errSameShare   = conclave.Errorf(conclave.Invalid, "this share was given already: another holder's is needed")
	errNeedsNonce  = conclave.Errorf(conclave.Invalid, "missing nonce: whoever began the attempt has it")
	errAttemptFull = conclave.Errorf(conclave.Limited, "too many attempts are under way: cancel one, or wait an hour")
)

// nonceOf binds an attempt's nonce to its purpose, time, randomness and terms.
func nonceOf(purpose string, a *attempt) (string, error) {
	bound, err := json.Marshal(struct {
		Purpose string
		attempt
	}{purpose, attempt{Started: a.Started, Random: a.Random, Terms: a.Terms, Salt: a.Salt}})
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(bound)
	return hex.EncodeToString(sum[:])[:attemptNonce], nil
}

func attemptDir(purpose string) string { return "ceremony/" + purpose + "/" }

// attempts returns those of a purpose that are under way, oldest first.
func attempts(view conclave.View, purpose string) ([]*attempt, error) {
	names, err := view.List(attemptDir(purpose), "", maxAttempts+1)
	if err != nil {
		return nil, err
	}
	var all []*attempt
	for _, name := range names {
		a, err := loadAttempt(view, purpose, name)
		if err != nil {
			return nil, err
		}
		if a != nil {
			all = append(all, a)
		}
	}
	slices.SortFunc(all, func(a, b *attempt) int { return int(min(max(a.Started-b.Started, -1), 1)) })
	return all, nil
}

// loadAttempt returns the attempt of a nonce, nil if it isn't under way any more.
func loadAttempt(view conclave.View, purpose, nonce string) (*attempt, error) {
	if len(nonce) != attemptNonce {
		return nil, nil
	}
	value, err := view.Get(attemptDir(purpose) + nonce)
	if err != nil || value == nil {
		return nil, err
	}
	a := &attempt{Nonce: nonce}
	if err := json.Unmarshal(value, a); err != nil {
		return nil, conclave.Errorf(conclave.Internal, "the record of a ceremony is damaged")
	}
	if view.Reached(time.Unix(0, a.Started).Add(attemptLife)) {
		return nil, nil
	}
	return a, nil
}

func (a *attempt) store(tx conclave.Tx, purpose string) error {
	value, err := json.Marshal(a)
	if err != nil {
		return err
	}
	if len(value) > attemptRecord {
		return conclave.Errorf(conclave.TooLarge, "an attempt has at most %d bytes", attemptRecord)
	}
	return tx.Put(attemptDir(purpose)+a.Nonce, value)
}

// begin starts an attempt. What has ended goes, and so does the oldest that nobody has shown a share for, if it must.
func begin(tx conclave.Tx, purpose string, b *blob, random []byte, terms any) (*attempt, error) {
	raw, err := json.Marshal(terms)
	if err != nil {
		return nil, err
	}
	a := &attempt{Started: tx.Now().UnixNano(), Random: random, Terms: raw, Salt: b.Salt}
	if a.Nonce, err = nonceOf(purpose, a); err != nil {
		return nil, err
	}
	names, err := tx.List(attemptDir(purpose), "", maxAttempts+1)
	if err != nil {
		return nil, err
	}
	live, err := attempts(tx, purpose)
	if err != nil {
		return nil, err
	}
	if len(live) >= maxAttempts {
		idle := slices.IndexFunc(live, func(a *attempt) bool { return len(a.Shown) == 0 })
		if idle < 0 {
			return nil, errAttemptFull
		}
		live = slices.Delete(live, idle, idle+1)
	}
	for _, name := range names {
		if slices.ContainsFunc(live, func(a *attempt) bool { return a.Nonce == name }) {
			continue
		}
		if err := tx.Delete(attemptDir(purpose) + name); err != nil {
			return nil, err
		}
	}
	return a, a.store(tx, purpose)
}

// show adds a share to an attempt, in the transaction. A share that isn't right changes nothing.
func show(tx conclave.Tx, purpose, nonce string, b *blob, share []byte) (*attempt, error) {
	if nonce == "" {
		return nil, errNeedsNonce
	}
	a, err := loadAttempt(tx, purpose, nonce)
	if err != nil {
		return nil, err
	}
	if a == nil || !slices.Equal(a.Salt, b.Salt) { // the key was changed since: other shares count
		return nil, errNoAttempt
	}
	at := b.share(share)
	if at < 0 {
		return nil, errWrongShare
	}
	if slices.Contains(a.Shown, at) {
		return nil, errSameShare
	}
	next := *a
	next.Shown = append(slices.Clone(a.Shown), at)
	return &next, next.store(tx, purpose)
}

// end forgets an attempt.
func (a *attempt) end(tx conclave.Tx, purpose string) error {
	return tx.Delete(attemptDir(purpose) + a.Nonce)
}

// cancel ends an attempt. Without a nonce it ends those that no share was shown for: nobody loses anything.
func cancel(tx conclave.Tx, purpose, nonce string) error {
	if nonce != "" {
		a, err := loadAttempt(tx, purpose, nonce)
		if err != nil {
			return err
		}
		if a == nil {
			return errNoAttempt
		}
		return a.end(tx, purpose)
	}
	all, err := attempts(tx, purpose)
	if err != nil {
		return err
	}
	for _, a := range all {
		if len(a.Shown) > 0 {
			return conclave.Errorf(conclave.Invalid, "an attempt is under way: cancelling it takes its nonce")
		}
		if err := a.end(tx, purpose); err != nil {
			return err
		}
	}
	return nil
}

// blobIn reads the seal blob within a transaction.
func blobIn(view conclave.View) (*blob, error) {
	system, ok := view.(*store.View)
	if !ok {
		return nil, conclave.Errorf(conclave.Internal, "a ceremony is held outside the system space")
	}
	stored, err := system.Tx().Plain(blobItem)
	if err != nil {
		return nil, err
	}
	b, _, _, err := readBlob(stored)
	if err == nil && b == nil {
		err = errNotInitialized
	}
	return b, err
}
