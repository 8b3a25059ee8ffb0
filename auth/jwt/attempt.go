package jwt

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"conclave"
)

// Limits of browser logins that have begun.
const (
	attemptTime   = 10 * time.Minute
	maxAttempts   = 10_000 // in one mount, whatever becomes of them
	sweepSize     = 256    // expired ones that one beginning removes
	attemptsDir   = "attempts/"
	roomCell      = "room" // how many more may begin
	bucketSeconds = 60
)

var (
	errTooMany = conclave.Errorf(conclave.Limited, "too many logins have begun and not ended: try again later")
	errNoState = loginFailed("Expired or missing OAuth state.")
)

// loginFailed is a failure as user interfaces look for it.
func loginFailed(why string) *conclave.Error {
	return conclave.Errorf(conclave.Invalid, "Vault login failed. %s", why)
}

// attempt is a browser login that has begun. It is stored at
//
//	attempts/BUCKET/RANDOM
//
// where BUCKET is the minute, counted from 1970 in ten hexadecimal digits, at whose end all attempts in it have expired,
// so that expired ones are found without an index and without reading those that aren't. The parameter state of the
// browser's way is "st_BUCKET_RANDOM".
type attempt struct {
	Role        string    `json:"role"`
	RedirectURI string    `json:"redirect_uri"`
	ClientNonce string    `json:"client_nonce"` // known to who began the login and to nobody on the browser's way
	Nonce       string    `json:"nonce"`        // must be in the ID token
	Verifier    string    `json:"code_verifier"`
	Expires     time.Time `json:"expires"`
	Posted      bool      `json:"posted"` // the issuer has answered by form_post:
	Code        string    `json:"code"`
	IDToken     string    `json:"id_token"`
}

func bucketOf(expires time.Time) string {
	return fmt.Sprintf("%010x", expires.Unix()/bucketSeconds)
}

// bucketEnd is the moment at which all attempts of a bucket have expired.
func bucketEnd(bucket string) (time.Time, bool) {
	minute, err := strconv.ParseInt(bucket, 16, 48)
	return time.Unix((minute+1)*bucketSeconds, 0), err == nil && minute >= 0
}

func stateOf(bucket, random string) string { return "st_" + bucket + "_" + random }

// attemptPath is where the attempt of a state is stored. A namespace that was put behind a comma doesn't count.
func attemptPath(state string) (string, bool) {
	state, _, _ = strings.Cut(state, ",")
	state, isState := strings.CutPrefix(state, "st_")
	bucket, random, isWhole := strings.Cut(state, "_")
	if !isState || !isWhole || len(bucket) != 10 || len(random) != randomText {
		return "", false
	}
	for _, c := range []byte(bucket + random) {
		isPlain := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_'
		if !isPlain {
			return "", false
		}
	}
	return attemptsDir + bucket + "/" + random, true
}

// loadAttempt returns the attempt of a state and where it is stored. There is none for a state that was never given out,
// whose login has ended, or that has expired: nobody learns which.
func loadAttempt(view conclave.View, state string) (*attempt, string, error) {
	path, ok := attemptPath(state)
	if !ok {
		return nil, "", errNoState
	}
	value, err := view.Get(path)
	if err != nil {
		return nil, "", err
	}
	if value == nil {
		return nil, "", errNoState
	}
	found := &attempt{}
	if err := json.Unmarshal(value, found); err != nil {
		return nil, "", conclave.Errorf(conclave.Internal, "the attempt can't be decoded")
	}
	if view.Reached(found.Expires) {
		return nil, "", errNoState
	}
	return found, path, nil
}

func putAttempt(tx conclave.Tx, path string, a *attempt) error {
	value, err := json.Marshal(a)
	if err != nil {
		return conclave.Errorf(conclave.Internal, "the attempt can't be encoded")
	}
	return tx.Put(path, value)
}

// makeRoom prepares a mount for attempts.
func makeRoom(tx conclave.Tx) error {
	if _, present, err := tx.Cell(roomCell); present || err != nil {
		return err
	}
	return tx.SetCell(roomCell, maxAttempts, true)
}

// addAttempt stores a new attempt if there is room. What has expired makes room first.
func addAttempt(tx conclave.Tx, random string, a *attempt) (state string, err error) {
	if err := sweep(tx); err != nil {
		return "", err
	}
	if err := tx.AddCell(roomCell, -1, 0, errTooMany); err != nil {
		return "", err
	}
	bucket := bucketOf(a.Expires)
	return stateOf(bucket, random), putAttempt(tx, attemptsDir+bucket+"/"+random, a)
}

// sweep removes some attempts of the oldest bucket if all in it have expired. New ones are made in another bucket, so
// what is listed here doesn't change under those who begin.
func sweep(tx conclave.Tx) error {
	oldest, err := tx.List(attemptsDir, "", 1)
	if err != nil || len(oldest) == 0 {
		return err
	}
	end, ok := bucketEnd(strings.TrimSuffix(oldest[0], "/"))
	if !ok || !tx.Reached(end) {
		return nil
	}
	expired, err := tx.List(attemptsDir+oldest[0], "", sweepSize)
	if err != nil {
		return err
	}
	for _, random := range expired {
		if err := tx.Delete(attemptsDir + oldest[0] + random); err != nil {
			return err
		}
	}
	return tx.AddCell(roomCell, int64(len(expired)), 0, errTooMany)
}

// endAttempt removes an attempt, so that nobody can use it again.
func endAttempt(tx conclave.Tx, path string) error {
	if err := tx.Delete(path); err != nil {
		return err
	}
	return tx.AddCell(roomCell, 1, 0, errTooMany)
}
