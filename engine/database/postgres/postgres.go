// Package postgres drives PostgreSQL and what speaks its protocol.
//
// A login is made, changed or ended in one transaction, by messages of the simple protocol: what statements hold needs no
// taking apart. A transaction whose client has died is never committed, so that no login appears after its lease has ended.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"conclave"
	"conclave/engine/database/driver"
)

// NameLimit is the longest name of a login (NAMEDATALEN - 1).
const NameLimit = 63

// rotateStatement changes a password where nobody says how.
const rotateStatement = `ALTER ROLE "{{username}}" WITH PASSWORD '{{password}}'`

var dialect = driver.Dialect{Dollars: true}

// Driver drives one database.
type Driver struct {
	pool    *pool
	scram   bool
	crowded atomic.Int64 // until when changes queue in the database, Unix nanoseconds
}

var _ driver.Driver = (*Driver)(nil)

// forbidden are parts of a URL that name files of this machine, or what TLS settings say.
var forbidden = []string{"sslrootcert", "sslcert", "sslkey", "sslpassword", "passfile", "service", "servicefile", "sslsni"}

// Open reads settings; it connects nowhere yet.
func Open(s driver.Settings) (driver.Driver, error) {
	text, err := fill(s)
	if err != nil {
		return nil, err
	}
	lower := strings.ToLower(s.URL)
	if s.DisableEscaping {
		lower = strings.ToLower(text)
	}
	for _, word := range forbidden {
		if names(lower, word) {
			return nil, conclave.Errorf(conclave.Invalid, "connection_url can't have %s: certificates are given as tls_ca, tls_certificate and private_key", word)
		}
	}
	config, err := pgconn.ParseConfig(text)
	if err != nil {
		return nil, driver.ErrURL
	}
	if err := encrypt(config, s, lower); err != nil {
		return nil, err
	}
	config.ConnectTimeout = driver.ConnectTime
	config.RuntimeParams["application_name"] = "conclave"
	if s.Authentication != "" && s.Authentication != "password" && s.Authentication != "scram-sha-256" {
		return nil, conclave.Errorf(conclave.Invalid, "password_authentication is password or scram-sha-256")
	}
	return &Driver{pool: newPool(config, s), scram: s.Authentication == "scram-sha-256"}, nil
}

// names reports whether a URL or list of keywords sets something: blanks may be before the sign, and a URL may spell the word
// otherwise.
func names(text, word string) bool {
	spelled, err := url.PathUnescape(text)
	if err != nil {
		spelled = text // it is no URL that can be read
	}
	for _, text := range []string{text, strings.ToLower(spelled)} {
		for _, after := range strings.Split(text, word)[1:] {
			if strings.HasPrefix(strings.TrimLeft(after, " \t\n\r\v\f"), "=") {
				return true
			}
		}
	}
	return false
}

// fill puts user and password into the connection's URL or list of keywords.
func fill(s driver.Settings) (string, error) {
	if s.URL == "" {
		return "", conclave.Errorf(conclave.Invalid, "connection_url is missing")
	}
	user, password := s.Username, s.Password
	if isURL := strings.HasPrefix(s.URL, "postgres://") || strings.HasPrefix(s.URL, "postgresql://"); !s.DisableEscaping {
		escape := escapeKeyword
		if isURL {
			escape = func(text string) string { return strings.ReplaceAll(url.QueryEscape(text), "+", "%20") }
		}
		user, password = escape(user), escape(password)
	}
	return strings.NewReplacer("{{username}}", user, "{{name}}", user, "{{password}}", password).Replace(s.URL), nil
}

// escapeKeyword quotes a value of a list such as "host=db user=app".
func escapeKeyword(text string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(text) + "'"
}

// encrypt applies the TLS settings: with any, a connection is encrypted and the database's certificate checked, whatever
// the URL says.
func encrypt(config *pgconn.Config, s driver.Settings, lower string) error {
	if !s.TLS.Wanted() {
		return nil
	}
	if strings.Contains(lower, "sslmode=disable") {
		return conclave.Errorf(conclave.Invalid, "connection_url has sslmode=disable, but TLS settings are given")
	}
	var err error
	if config.TLSConfig, err = s.TLS.Config(config.Host); err != nil {
		return err
	}
	var kept []*pgconn.FallbackConfig
	for _, other := range config.Fallbacks {
		same := func(k *pgconn.FallbackConfig) bool { return k.Host == other.Host && k.Port == other.Port }
		if other.Host == config.Host && other.Port == config.Port || slices.ContainsFunc(kept, same) {
			continue // the same host without encryption
		}
		if other.TLSConfig, err = s.TLS.Config(other.Host); err != nil {
			return err
		}
		kept = append(kept, other)
	}
	config.Fallbacks = kept
	return nil
}

// Close closes all connections.
func (d *Driver) Close() { d.pool.close() }

// Verify connects.
func (d *Driver) Verify(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, driver.ActTime)
	defer cancel()
	c, err := d.pool.take(ctx)
	if err != nil {
		return classify(err)
	}
	defer d.pool.give(c)
	_, err = c.Exec(ctx, "SELECT 1").ReadAll()
	return classify(err)
}

// Create makes a login in one transaction, unless its statements commit it in between.
func (d *Driver) Create(ctx context.Context, login *driver.Login) error {
	if len(driver.Expand(login.Statements)) == 0 {
		return conclave.Errorf(conclave.Invalid, "the role has no creation_statements")
	}
	if err := d.change(ctx, login, login.Statements); err != nil {
		if len(login.Rollback) > 0 { // what the transaction didn't undo, because statements committed it themselves
			_ = d.change(ctx, login, login.Rollback)
		}
		return err
	}
	return nil
}

// SetPassword changes a password.
func (d *Driver) SetPassword(ctx context.Context, login *driver.Login) error {
	statements := login.Statements
	if len(driver.Expand(statements)) == 0 {
		statements = []string{rotateStatement}
	}
	return d.change(ctx, login, statements)
}

// change does what statements say with a login's values.
func (d *Driver) change(ctx context.Context, login *driver.Login, statements []string) error {
	values := login.Values()
	if d.scram && login.Password != "" {
		verifier, err := verifierOf(login.Password)
		if err != nil {
			return err
		}
		values["password"] = verifier
	}
	text, err := dialect.Join(statements, values)
	if err != nil {
		return err
	}
	return d.do(ctx, text, values["password"], login.Password)
}

// bounds end a statement that nobody waits for any more, and a transaction that nobody commits. They end with it.
var bounds = fmt.Sprintf("SET LOCAL statement_timeout = %[1]d; SET LOCAL lock_timeout = %[1]d; SET LOCAL idle_in_transaction_session_timeout = %[1]d;\n", driver.ServerTime.Milliseconds())

// PostgreSQL has no queue for changes of one object's privileges: of two at once, one fails. That one is done again, and for
// a while all changes that are the vault's queue for a lock of the database, those of other nodes too.
const (
	attempts     = 5
	crowdedTime  = time.Minute
	queue        = "SELECT pg_catalog.pg_advisory_xact_lock(7164518310953042515);\n" // any number; others hardly use this one
	codeInternal = "XX000"                                                           // "tuple concurrently updated"
)

// do executes text as one transaction. What it says of an error holds none of secrets.
func (d *Driver) do(ctx context.Context, text string, secrets ...string) error {
	ctx, cancel := context.WithTimeout(ctx, driver.ActTime)
	defer cancel()
	c, err := d.pool.take(ctx)
	if err != nil {
		return classify(err)
	}
	defer d.pool.give(c)
	for attempt := 1; ; attempt++ {
		begin := "BEGIN;" + bounds
		if time.Now().UnixNano() < d.crowded.Load() {
			begin += queue
		}
		undone, err := transact(ctx, c, begin+text)
		if err == nil || !undone || !isCrowded(err) || attempt == attempts {
			return classify(err, secrets...)
		}
		d.crowded.Store(time.Now().Add(crowdedTime).UnixNano())
	}
}

// transact executes a transaction. The commit is a message of its own: the database finishes what it was sent although its
// client has died, and would make a login after its lease was ended. undone tells that nothing of a failure is left.
func transact(ctx context.Context, c *connection, text string) (undone bool, err error) {
	const failed = 'E' // the transaction that we began
	if _, err := c.Exec(ctx, text).ReadAll(); err != nil {
		if c.IsClosed() || c.TxStatus() == idleStatus {
			return false, err
		}
		undone = c.TxStatus() == failed
		_, _ = c.Exec(ctx, "ROLLBACK").ReadAll()
		return undone, err
	}
	if c.TxStatus() == idleStatus { // the statements committed it themselves
		return false, nil
	}
	_, err = c.Exec(ctx, "COMMIT").ReadAll()
	return false, err
}

// isCrowded reports whether a transaction failed because of another one.
func isCrowded(err error) bool {
	said, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (said.Code == "40001" || said.Code == "40P01" || said.Code == codeInternal && strings.HasPrefix(said.Message, "tuple concurrently"))
}

// idleStatus is that of a connection outside of a transaction.
const idleStatus = 'I'

func classify(err error, secrets ...string) error {
	if err == nil {
		return nil
	}
	if _, ours := errors.AsType[*conclave.Error](err); ours {
		return err
	}
	said, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return driver.Network(err)
	}
	switch {
	case strings.HasPrefix(said.Code, "28"): // invalid authorization
		return driver.ErrRefused
	case said.Code == "57014" || said.Code == "55P03": // a time-out of ours
		return driver.ErrTimeout
	case strings.HasPrefix(said.Code, "53"), strings.HasPrefix(said.Code, "57P"), strings.HasPrefix(said.Code, "08"):
		return conclave.Errorf(conclave.Unavailable, "the database has no room, or is going down or coming up (%s)", said.Code)
	}
	return driver.Refused(said.Message, said.Code, secrets...)
}
