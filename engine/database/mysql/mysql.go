// Package mysql drives MySQL and MariaDB.
//
// These servers know no transactions of accounts: each statement stands by itself. What fails half-way is cleared up by
// the role's rollback statements, if it has any, and by ending the login.
package mysql

import (
	"context"
	"database/sql"
	"errors"
	"net"
	"strconv"
	"strings"

	"github.com/go-sql-driver/mysql"

	"conclave"
	"conclave/engine/database/driver"
)

// Longest names of logins: of MySQL since 5.7, and before.
const (
	NameLimit       = 32
	LegacyNameLimit = 16
)

var dialect = driver.Dialect{Backslashes: true}

// Driver drives one database.
type Driver struct{ pool *sql.DB }

var _ driver.Driver = (*Driver)(nil)

// Open reads settings; it connects nowhere yet.
func Open(s driver.Settings) (driver.Driver, error) {
	if s.URL == "" {
		return nil, conclave.Errorf(conclave.Invalid, "connection_url is missing")
	}
	config, err := mysql.ParseDSN(s.URL)
	if err != nil {
		return nil, driver.ErrURL
	}
	// After parsing: no character of a password is taken for a part of the address.
	fill := strings.NewReplacer("{{username}}", s.Username, "{{name}}", s.Username, "{{password}}", s.Password)
	config.User, config.Passwd = fill.Replace(config.User), fill.Replace(config.Passwd)
	if s.TLS.Wanted() {
		host, _, err := net.SplitHostPort(config.Addr)
		if err != nil {
			host = config.Addr // a socket's path
		}
		if config.TLS, err = s.TLS.Config(host); err != nil {
			return nil, err
		}
		config.AllowFallbackToPlaintext = false
	}
	config.Timeout, config.ReadTimeout, config.WriteTimeout = driver.ConnectTime, driver.ActTime, driver.ActTime
	config.AllowAllFiles, config.MultiStatements, config.InterpolateParams = false, true, true
	config.Logger = &mysql.NopLogger{}
	seconds := strconv.Itoa(int(driver.ServerTime.Seconds()))
	config.Params = map[string]string{
		"lock_wait_timeout":        seconds, // nothing is done long after anybody waited for it
		"innodb_lock_wait_timeout": seconds,
		"sql_mode":                 "REPLACE(@@sql_mode,'NO_BACKSLASH_ESCAPES','')", // what statements are quoted for
	}
	connector, err := mysql.NewConnector(config)
	if err != nil {
		return nil, driver.ErrURL
	}
	pool := sql.OpenDB(connector)
	open, idle := s.Open()
	pool.SetMaxOpenConns(open)
	pool.SetMaxIdleConns(idle)
	pool.SetConnMaxLifetime(s.MaxLifetime)
	return &Driver{pool}, nil
}

// Close closes all connections.
func (d *Driver) Close() { _ = d.pool.Close() }

// Verify connects.
func (d *Driver) Verify(ctx context.Context) error { return d.do(ctx, "SELECT 1") }

// Create makes a login.
func (d *Driver) Create(ctx context.Context, login *driver.Login) error {
	if len(driver.Expand(login.Statements)) == 0 {
		return conclave.Errorf(conclave.Invalid, "the role has no creation_statements")
	}
	err := d.change(ctx, login, login.Statements)
	if err != nil && len(login.Rollback) > 0 {
		_ = d.change(ctx, login, login.Rollback)
	}
	return err
}

// SetPassword changes a password, at all hosts that the login has.
func (d *Driver) SetPassword(ctx context.Context, login *driver.Login) error {
	if len(driver.Expand(login.Statements)) > 0 {
		return d.change(ctx, login, login.Statements)
	}
	hosts, _, err := d.hosts(ctx, login.Name)
	if err == nil && len(hosts) == 0 {
		err = conclave.Errorf(conclave.Invalid, "the database has no such user")
	}
	for _, host := range hosts {
		if err == nil {
			err = d.changeAt(ctx, login, host, "ALTER USER '{{name}}'@'{{host}}' IDENTIFIED BY '{{password}}'")
		}
	}
	return err
}

// attempts bounds how often a statement is done again that others were in the way of.
const attempts = 5

// Codes of errors.
const (
	codeTooMany   = 1040
	codeDenied    = 1045 // to log in
	codeNoGrant   = 1141
	codeNoRow     = 1133
	codeLockWait  = 1205
	codeDeadlock  = 1213 // of which nothing is left
	codeCannot    = 1396 // "Operation DROP USER failed": there is no such user
	codeShutdown  = 1053
	codeTooManyBy = 1226
)

// Drop ends a login and its sessions.
func (d *Driver) Drop(ctx context.Context, login *driver.Login) error {
	hosts, known, err := d.hosts(ctx, login.Name)
	switch {
	case err != nil:
		return err
	case len(hosts) == 0: // it is gone already
	case len(driver.Expand(login.Statements)) > 0:
		if err := d.change(ctx, login, login.Statements); err != nil && (known || !errors.Is(err, errGone)) {
			return err
		}
	default:
		for _, host := range hosts {
			if err := d.changeAt(ctx, login, host, "DROP USER '{{name}}'@'{{host}}'"); err != nil && !errors.Is(err, errGone) {
				return err
			}
		}
	}
	d.kill(ctx, login.Name)
	return nil
}

// errGone is how a database says that there is no such user.
var errGone = errors.New("no such user")

// hosts are those of a user. Who may not read them takes "%", which is what statements commonly have, and doesn't know
// whether there is such a user.
func (d *Driver) hosts(ctx context.Context, name string) (hosts []string, known bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, driver.ActTime)
	defer cancel()
	hosts, err = d.query(ctx, "SELECT Host FROM mysql.user WHERE User = ?", name)
	if said, refused := errors.AsType[*mysql.MySQLError](err); refused && said.Number != codeDenied {
		return []string{"%"}, false, nil
	}
	return hosts, true, classify(err)
}

// query returns the first column.
func (d *Driver) query(ctx context.Context, text string, args ...any) ([]string, error) {
	rows, err := d.pool.QueryContext(ctx, text, args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var first []string
	for rows.Next() {
		var value string
		if err := rows.Scan(&value); err != nil {
			return nil, err
		}
		first = append(first, value)
	}
	return first, rows.Err()
}

// kill ends a user's sessions, as far as we may.
func (d *Driver) kill(ctx context.Context, name string) {
	ctx, cancel := context.WithTimeout(ctx, driver.ActTime)
	defer cancel()
	ids, _ := d.query(ctx, "SELECT ID FROM information_schema.PROCESSLIST WHERE USER = ?", name)
	for _, id := range ids {
		if _, err := strconv.ParseUint(id, 10, 64); err == nil {
			_, _ = d.pool.ExecContext(ctx, "KILL "+id)
		}
	}
}

func (d *Driver) changeAt(ctx context.Context, login *driver.Login, host, statement string) error {
	values := login.Values()
	values["host"] = host
	text, err := dialect.Render(statement, values)
	if err != nil {
		return err
	}
	return d.do(ctx, text, login.Password)
}

// change does what statements say with a login's values, one after the other: what follows isn't begun any more when
// nobody waits for it.
func (d *Driver) change(ctx context.Context, login *driver.Login, statements []string) error {
	values := login.Values()
	for _, statement := range driver.Expand(statements) {
		text, err := dialect.Render(statement, values)
		if err != nil {
			return err
		}
		if err := d.do(ctx, text, login.Password); err != nil {
			return err
		}
	}
	return nil
}

// do executes a text of one or more statements, until one fails. What it says of an error holds none of secrets.
func (d *Driver) do(ctx context.Context, text string, secrets ...string) error {
	ctx, cancel := context.WithTimeout(ctx, driver.ActTime)
	defer cancel()
	text = strings.TrimRight(text, "; \t\r\n")
	if text == "" {
		return nil
	}
	for attempt := 1; ; attempt++ {
		_, err := d.pool.ExecContext(ctx, text)
		if said, ok := errors.AsType[*mysql.MySQLError](err); !ok || said.Number != codeDeadlock || attempt == attempts {
			return classify(err, secrets...)
		}
	}
}

func classify(err error, secrets ...string) error {
	if err == nil {
		return nil
	}
	said, ok := errors.AsType[*mysql.MySQLError](err)
	if !ok {
		return driver.Network(err)
	}
	switch said.Number {
	case codeDenied, 1044, 1698, 1862:
		return driver.ErrRefused
	case codeLockWait, 3024, 1969:
		return driver.ErrTimeout
	case codeTooMany, codeTooManyBy, codeShutdown, 1203:
		return conclave.Errorf(conclave.Unavailable, "the database has no room, or is going down (%d)", said.Number)
	case codeCannot, codeNoGrant, codeNoRow:
		return errors.Join(driver.Refused(said.Message, strconv.Itoa(int(said.Number)), secrets...), errGone)
	}
	return driver.Refused(said.Message, strconv.Itoa(int(said.Number)), secrets...)
}
