package userpass

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/bcrypt"

	"conclave"
)

// checkPassword refuses what bcrypt would take for another password: it sees the first 72 bytes only, and for it the end
// of a password is a NUL byte.
func checkPassword(password string) error {
	switch {
	case password == "":
		return conclave.Errorf(conclave.Invalid, "missing password")
	case len(password) > maxPassword:
		return conclave.Errorf(conclave.Invalid, "a password has at most %d bytes", maxPassword)
	case strings.Contains(password, "\x00"):
		return conclave.Errorf(conclave.Invalid, "a password has no NUL bytes")
	}
	return nil
}

// checkHash reads the cost of a hash that is to be imported: "$2b$10$", 22 characters of salt and 31 of hash, in
// bcrypt's base64.
func checkHash(hash string) (cost int, err error) {
	var version, rest string
	if parts := strings.Split(hash, "$"); len(parts) == 4 && parts[0] == "" && len(parts[2]) == 2 {
		version, rest = parts[1], parts[3]
	}
	isBase64 := strings.TrimLeft(rest, "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") == ""
	if (version != "2a" && version != "2b" && version != "2y") || len(rest) != 53 || !isBase64 {
		return 0, conclave.Errorf(conclave.Invalid, "password_hash is not a valid bcrypt hash")
	}
	if cost, err = bcrypt.Cost([]byte(hash)); err != nil || !strings.HasPrefix(hash, fmt.Sprintf("$%s$%02d$", version, cost)) {
		return 0, conclave.Errorf(conclave.Invalid, "password_hash is not a valid bcrypt hash")
	}
	if cost > maxCost {
		return 0, conclave.Errorf(conclave.Invalid, "bcrypt cost of %d exceeds maximum cost of %d", cost, maxCost)
	}
	return cost, nil
}

// matches compares a password with a hash, nil for a user that isn't there. It takes the work of a hash of the given cost
// whatever the hash's own is, up to that: a cost is the logarithm of the work, and 2^c + 2^c + 2^(c+1) + … + 2^(n-1) = 2^n.
func matches(hash []byte, password string, cost int) bool {
	own, err := bcrypt.Cost(hash)
	if err != nil {
		own, hash = cost, unmatched(cost)
	}
	same := bcrypt.CompareHashAndPassword(hash, []byte(password)) == nil
	for ; own < cost; own++ {
		_ = bcrypt.CompareHashAndPassword(unmatched(own), []byte(password))
	}
	return same && err == nil
}

// unmatched is a hash that no password is known to have. That of a user who isn't there doesn't count, even if it matched.
func unmatched(cost int) []byte {
	return fmt.Appendf(nil, "$2a$%02d$%s", cost, "conclaveconclaveconcla.nobodynobodynobodynobodynobody")
}

// turns bounds how many hash at once.
type turns struct {
	slots   chan struct{}
	waiting atomic.Int64
}

func newTurns(slots int) *turns { return &turns{slots: make(chan struct{}, slots)} }

var errCrowded = &conclave.Error{Kind: conclave.Unavailable, Message: "too many passwords are being checked at once: try again", RetryAfter: time.Second}

// take waits for a turn, as long as ctx allows. The returned function ends it.
func (t *turns) take(ctx context.Context) (done func(), err error) {
	if t.waiting.Add(1) > maxWaiting {
		t.waiting.Add(-1)
		return nil, errCrowded
	}
	defer t.waiting.Add(-1)
	select {
	case t.slots <- struct{}{}:
		return func() { <-t.slots }, nil
	case <-ctx.Done():
		return nil, errCrowded
	}
}
