// Package redis drives Redis and Valkey, by their access control lists.
//
// Rules are arguments of a command, not text of a language: names and passwords can't change them. A login that is made
// never takes over one that is there.
package redis

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/redis/go-redis/v9/maintnotifications"

	"conclave"
	"conclave/engine/database/driver"
)

// NameLimit is the longest name of a login that we make.
const NameLimit = 128

const defaultPort = 6379

// readOnly are the rules of a role that has none: any key, to be read.
var readOnly = []string{"~*", "+@read"}

// How logins outlive a restart of the server.
const (
	persistFile    = "aclfile"
	persistRewrite = "rewrite"
)

// Driver drives one server.
type Driver struct {
	client      *redis.Client
	persistence string
}

var _ driver.Driver = (*Driver)(nil)

// Open reads settings; it connects nowhere yet.
func Open(s driver.Settings) (driver.Driver, error) {
	host, port, err := address(s)
	if err != nil {
		return nil, err
	}
	if s.Persistence != "" && s.Persistence != persistFile && s.Persistence != persistRewrite {
		return nil, conclave.Errorf(conclave.Invalid, "persistence_mode is aclfile or rewrite")
	}
	logging.Disable() // it writes addresses to the standard error
	open, idle := s.Open()
	options := &redis.Options{Addr: net.JoinHostPort(host, strconv.Itoa(port)), Username: s.Username, Password: s.Password, Protocol: 2,
		DialTimeout: driver.ConnectTime, DialerRetries: 1, ReadTimeout: driver.ConnectTime, WriteTimeout: driver.ConnectTime, PoolTimeout: driver.ActTime, ContextTimeoutEnabled: true,
		MaxRetries: -1, PoolSize: open, MaxActiveConns: open, MaxIdleConns: max(idle, 1), ConnMaxLifetime: s.MaxLifetime, DisableIdentity: true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}}
	if s.Encrypted || s.TLS.Wanted() {
		if options.TLSConfig, err = s.TLS.Config(host); err != nil {
			return nil, err
		}
	}
	return &Driver{redis.NewClient(options), s.Persistence}, nil
}

// address is where the server is: host and port, or a URL without a path.
func address(s driver.Settings) (host string, port int, err error) {
	text := s.Host
	if text == "" {
		text = s.URL
	}
	if _, after, found := strings.Cut(text, "://"); found {
		text = after
	}
	host, port = strings.TrimSuffix(text, "/"), s.Port
	if name, number, err := net.SplitHostPort(host); err == nil {
		host = name
		if port == 0 {
			port, _ = strconv.Atoi(number)
		}
	}
	if port == 0 {
		port = defaultPort
	}
	if _, err := url.Parse("redis://" + net.JoinHostPort(host, "1")); err != nil || host == "" || strings.ContainsAny(host, "/@ ") || port < 0 || port > 65535 {
		return "", 0, conclave.Errorf(conclave.Invalid, "host and port don't name a server")
	}
	return host, port, nil
}

// Close closes all connections.
func (d *Driver) Close() { _ = d.client.Close() }

// Verify connects, and sees that we may work on users.
func (d *Driver) Verify(ctx context.Context) error { return d.do(ctx, nil, "ACL", "WHOAMI") }

// Create makes a login.
func (d *Driver) Create(ctx context.Context, login *driver.Login) error {
	rules, err := rulesOf(login.Statements)
	if err != nil {
		return err
	}
	if err := checkName(login.Name); err != nil {
		return err
	}
	there, err := d.has(ctx, login.Name)
	if err != nil {
		return err
	}
	if there {
		return conclave.Errorf(conclave.Invalid, "the database has a user of that name")
	}
	args := []any{"ACL", "SETUSER", login.Name, "reset"}
	for _, rule := range rules {
		args = append(args, rule)
	}
	args = append(args, "on", ">"+login.Password)
	if err := d.do(ctx, []string{login.Password}, args...); err != nil {
		return err
	}
	return d.persist(ctx)
}

// SetPassword changes a password; all others of the login end.
func (d *Driver) SetPassword(ctx context.Context, login *driver.Login) error {
	there, err := d.has(ctx, login.Name)
	if err != nil {
		return err
	}
	if !there {
		return conclave.Errorf(conclave.Invalid, "the database has no such user")
	}
	if err := d.do(ctx, []string{login.Password}, "ACL", "SETUSER", login.Name, "resetpass", ">"+login.Password); err != nil {
		return err
	}
	return d.persist(ctx)
}

// Drop ends a login; the server ends its sessions.
func (d *Driver) Drop(ctx context.Context, login *driver.Login) error {
	if err := checkName(login.Name); err != nil {
		return err
	}
	if err := d.do(ctx, nil, "ACL", "DELUSER", login.Name); err != nil {
		return err
	}
	return d.persist(ctx)
}

func (d *Driver) has(ctx context.Context, name string) (bool, error) {
	err := d.client.Do(ctx, "ACL", "GETUSER", name).Err()
	if errors.Is(err, redis.Nil) {
		return false, nil
	}
	return err == nil, classify(err)
}

func (d *Driver) persist(ctx context.Context) error {
	switch d.persistence {
	case persistFile:
		return d.do(ctx, nil, "ACL", "SAVE")
	case persistRewrite:
		return d.do(ctx, nil, "CONFIG", "REWRITE")
	}
	return nil
}

func (d *Driver) do(ctx context.Context, secrets []string, args ...any) error {
	ctx, cancel := context.WithTimeout(ctx, driver.ActTime)
	defer cancel()
	return classify(d.client.Do(ctx, args...).Err(), secrets...)
}

// checkName refuses what would not be one name, and the user that everybody is who doesn't log in.
func checkName(name string) error {
	if name == "" || name == "default" || strings.ContainsAny(name, " \x00\r\n\t") {
		return conclave.Errorf(conclave.Invalid, "this can't be the name of a login")
	}
	return nil
}

// rulesOf reads rules, one or a JSON array of them in each statement. Passwords and whether the login is on are ours.
func rulesOf(statements []string) ([]string, error) {
	var rules []string
	for _, text := range statements {
		if text = strings.TrimSpace(text); strings.HasPrefix(text, "[") {
			var list []string
			if json.Unmarshal([]byte(text), &list) != nil {
				return nil, conclave.Errorf(conclave.Invalid, "creation_statements: a JSON array of rules is wanted")
			}
			rules = append(rules, list...)
			continue
		}
		rules = append(rules, strings.Fields(text)...)
	}
	if len(rules) == 0 {
		return readOnly, nil
	}
	for _, rule := range rules {
		if lower := strings.ToLower(rule); rule == "" || strings.ContainsAny(rule[:1], "><#!") || lower == "nopass" || lower == "on" || lower == "off" || lower == "reset" || lower == "resetpass" {
			return nil, conclave.Errorf(conclave.Invalid, "creation_statements can't have rules about passwords, or that switch a login on and off")
		}
	}
	return rules, nil
}

func classify(err error, secrets ...string) error {
	if err == nil {
		return nil
	}
	said, ok := errors.AsType[redis.Error](err)
	if !ok {
		return driver.Network(err)
	}
	text := said.Error()
	code, _, _ := strings.Cut(text, " ")
	switch code {
	case "WRONGPASS", "NOAUTH":
		return driver.ErrRefused
	case "LOADING", "BUSY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN":
		return conclave.Errorf(conclave.Unavailable, "the database is busy or coming up (%s)", code)
	}
	return driver.Refused(text, code, secrets...)
}
