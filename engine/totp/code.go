package totp

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"slices"
	"time"

	"conclave"
	"conclave/internal/passcode"
)

func codeRoutes() []conclave.Route {
	return []conclave.Route{
		conclave.ReadRoute(conclave.Read, "code/{name}", "Make the passcode of now.", readCode),
		conclave.WriteRoute(conclave.Update, "code/{name}", checkDoc, checkCode),
	}
}

const checkDoc = `Check a passcode, which uses it up if it is right.
One that was right before is an error. After 30 wrong ones none is looked at until the next time step (429).`

// used is what is stored about a key's passcodes.
type used struct {
	Steps   []int64 `json:"steps,omitempty"`   // whose passcodes were taken, of those that could still be shown
	Guessed int64   `json:"guessed,omitempty"` // step that the counter of wrong ones belongs to
}

func decodeUsed(value []byte) (*used, error) {
	u := &used{}
	if value == nil {
		return u, nil
	}
	if err := json.Unmarshal(value, u); err != nil {
		return nil, conclave.Errorf(conclave.Internal, "the stored record of used passcodes is damaged")
	}
	return u, nil
}

func (u *used) save(tx conclave.Tx, name string) error {
	value, err := json.Marshal(u)
	if err != nil {
		return conclave.Errorf(conclave.Internal, "encode used passcodes: %w", err)
	}
	return tx.Put(usedDir+name, value)
}

func knownKey(view conclave.View, name string) (*key, error) {
	k, err := keyNamed(view, name)
	if err == nil && k == nil {
		err = conclave.Errorf(conclave.Invalid, "unknown key: %s", name)
	}
	return k, err
}

type codeOut struct {
	Code string `json:"code" doc:"The passcode."`
}

func readCode(_ context.Context, view conclave.View, in *nameIn) (*codeOut, error) {
	k, err := knownKey(view, in.Name)
	if err != nil {
		return nil, err
	}
	step, err := k.parameters().Step(view)
	if err != nil {
		return nil, err
	}
	code, err := k.parameters().Code(step)
	return &codeOut{code}, err
}

type codeIn struct {
	Name string          `path:"name" doc:"Name of the key."`
	Code conclave.Secret `json:"code" doc:"The passcode. Blanks around it don't matter."`
}

type validOut struct {
	Valid bool `json:"valid" doc:"Whether it is right."`
}

// outcome is what looking at a passcode finds.
type outcome int

const (
	wrong outcome = iota
	right
	again // it was right before
)

func checkCode(_ context.Context, tx conclave.Tx, in *codeIn) (*validOut, error) {
	if in.Code.Empty() {
		return nil, conclave.Errorf(conclave.Invalid, "the code value is required")
	}
	k, err := knownKey(tx, in.Name)
	if err != nil {
		return nil, err
	}
	given, isCode := passcode.Normal(in.Code.Reveal(), k.Digits)
	if !isCode {
		return &validOut{}, nil
	}
	value, err := tx.Get(usedDir + in.Name)
	if err != nil {
		return nil, err
	}
	u, err := decodeUsed(value)
	if err != nil {
		return nil, err
	}
	now, err := k.parameters().Step(tx)
	if err != nil {
		return nil, err
	}
	if err := u.mayGuess(tx, in.Name, k, now); err != nil {
		return nil, err
	}
	found, step, err := k.look(given, now, u)
	switch {
	case err != nil:
		return nil, err
	case found == again:
		return nil, conclave.Errorf(conclave.Invalid, "code already used; wait until the next time period")
	case found == wrong:
		return &validOut{}, u.countGuess(tx, in.Name, now)
	}
	u.Steps = slices.DeleteFunc(u.Steps, func(old int64) bool { return old < now-maxSkew })
	u.Steps = append(u.Steps, step)
	return &validOut{true}, u.save(tx, in.Name)
}

// look compares a passcode with all those that may be shown now, whatever it finds, so that how long it takes tells
// nothing. If chance gave two steps the same passcode, it is used up with the first of them.
func (k *key) look(given string, now int64, u *used) (found outcome, step int64, err error) {
	seen := false
	for at := max(0, now-k.Skew); at <= now+k.Skew; at++ {
		want, err := k.parameters().Code(at)
		if err != nil {
			return wrong, 0, err
		}
		if subtle.ConstantTimeCompare([]byte(want), []byte(given)) == 1 {
			seen = seen || slices.Contains(u.Steps, at)
			found, step = right, at
		}
	}
	if seen {
		found = again
	}
	return found, step, nil
}

// mayGuess refuses once too many wrong passcodes were tried in this time step.
func (u *used) mayGuess(tx conclave.Tx, name string, k *key, now int64) error {
	if u.Guessed != now {
		return nil
	}
	left, counted, err := tx.Cell(guessesDir + name)
	if err != nil {
		return err
	}
	if counted && left <= 0 {
		return tooMany(k.Period.Duration())
	}
	return nil
}

func tooMany(wait time.Duration) error {
	err := conclave.Errorf(conclave.Limited, "too many wrong codes; wait until the next time period")
	err.RetryAfter = wait
	return err
}

// countGuess counts a wrong passcode.
func (u *used) countGuess(tx conclave.Tx, name string, now int64) error {
	if u.Guessed == now {
		return tx.AddCell(guessesDir+name, -1, 0, tooMany(0))
	}
	u.Guessed = now
	if err := tx.SetCell(guessesDir+name, maxGuesses-1, true); err != nil {
		return err
	}
	return u.save(tx, name)
}
