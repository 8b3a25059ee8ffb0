// Package driver is what the database engine asks of a kind of database, and what all kinds share: how to connect, how a
// statement takes names and passwords without being changed by them, and which errors may be told.
//
// A driver knows logins only. What roles, leases and rotations are is the engine's to know.
package driver

import (
	"context"
	"errors"
	"net"
	"strings"
	"time"
	"unicode/utf8"

	"conclave"
)

// Limits of what goes to a database.
const (
	ConnectTime  = 5 * time.Second // to connect and log in
	ActTime      = 10 * time.Second
	ServerTime   = 8 * time.Second // after which the database itself is to give up a statement, where it can
	MaxOpen      = 100             // connections of one pool
	defaultOpen  = 4
	maxMessage   = 300 // bytes of a database's message that are told
	maxShared    = 3   // bytes in a row that such a message may share with a password
	maxStatement = 64 << 10
)

// Driver does things to the logins of one database. It is safe for concurrent use. Its errors are conclave.Errors, which
// hold neither passwords nor addresses.
type Driver interface {
	// Verify connects and has the database answer.
	Verify(ctx context.Context) error
	// Create makes a login. If that fails, what was made may be there: Drop ends it.
	Create(ctx context.Context, login *Login) error
	// SetPassword changes the password of a login that is there.
	SetPassword(ctx context.Context, login *Login) error
	// Drop ends a login and its sessions. That there is none is a success.
	Drop(ctx context.Context, login *Login) error
	// Close closes all connections. No method is called any more.
	Close()
}

// Login is one account of a database, and the statements that do what is to be done. Without statements the driver has
// its own.
type Login struct {
	Name, Password string
	// Until is when the account is to end by itself, where the database can do that; zero is never.
	Until      time.Time
	Statements []string
	// Rollback is done when Create has failed; the driver has none of its own.
	Rollback []string
}

// Settings say where a database is and how to get in.
type Settings struct {
	Plugin             string // the name of the plug-in, as clients give it
	URL                string // with {{username}} and {{password}}, where the kind of database has one
	Username, Password string
	DisableEscaping    bool
	Host               string // with Port, where the kind of database has no URL
	Port               int
	MaxOpen, MaxIdle   int           // connections; 0 is the default, MaxIdle below 0 none
	MaxLifetime        time.Duration // of a connection; 0 is unlimited
	Authentication     string        // "password", or "scram-sha-256": the database never sees a password
	Encrypted          bool          // where that is said apart from URL and TLS
	TLS                TLS
	Persistence        string // of Redis: "", "aclfile" or "rewrite"
}

// Open is the number of connections that a pool may have, of which Idle may wait for work.
func (s *Settings) Open() (open, idle int) {
	open = s.MaxOpen
	if open <= 0 {
		open = defaultOpen
	}
	open = min(open, MaxOpen)
	switch {
	case s.MaxIdle < 0:
		return open, 0
	case s.MaxIdle == 0:
		return open, open
	}
	return open, min(open, s.MaxIdle)
}

// Errors that all drivers tell. They name no address.
var (
	ErrUnreachable = conclave.Errorf(conclave.Unavailable, "the database can't be reached")
	ErrTimeout     = conclave.Errorf(conclave.Unavailable, "the database doesn't answer in time")
	ErrUntrusted   = conclave.Errorf(conclave.Unavailable, "the database's certificate is not trusted")
	ErrRefused     = conclave.Errorf(conclave.Unavailable, "the database refuses the connection's own user")
	ErrURL         = conclave.Errorf(conclave.Invalid, "connection_url can't be read")
)

// Refused tells what a database says about a statement, without any of secrets in it. Databases quote statements, and cut
// what they quote.
func Refused(message, code string, secrets ...string) error {
	message = message[:min(len(message), 8*maxMessage)]
	for _, secret := range secrets {
		message = redact(message, secret)
	}
	message = strings.Map(func(r rune) rune {
		if r < ' ' || r == utf8.RuneError {
			return ' '
		}
		return r
	}, message)
	for len(message) > maxMessage || !utf8.ValidString(message) {
		message = message[:min(len(message), maxMessage+1)-1]
	}
	return conclave.Errorf(conclave.Invalid, "the database refuses: %s (%s)", message, code)
}

// redact takes out of a message all parts of a secret that are longer than maxShared.
func redact(message, secret string) string {
	if secret == "" {
		return message
	}
	var b strings.Builder
	for i := 0; i < len(message); {
		end := i
		for n := min(len(secret), maxShared+1); i+n <= len(message) && strings.Contains(secret, message[i:i+n]); n++ {
			end = i + n
		}
		if end > i {
			b.WriteString("[redacted]")
			i = end
			continue
		}
		b.WriteByte(message[i])
		i++
	}
	return b.String()
}

// Network tells what went wrong on the way to a database.
func Network(err error) error {
	var timeout net.Error
	switch {
	case err == nil:
		return nil
	case isUntrusted(err):
		return ErrUntrusted
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled), errors.As(err, &timeout) && timeout.Timeout():
		return ErrTimeout
	}
	return ErrUnreachable
}
