package database

import (
	"context"
	"encoding/json"
	"time"

	"conclave"
	"conclave/engine/database/driver"
)

// static is what is stored of a static role, JSON. Times are Unix nanoseconds.
type static struct {
	Connection string   `json:"db_name"`
	Username   string   `json:"username"`
	Statements []string `json:"statements"`
	rotation
	SkipImport bool              `json:"skip_import_rotation"`
	Credential map[string]string `json:"credential_config,omitempty"`
	Password   string            `json:"current"`
	// Pending is the password that is being set: the database may have it already. "" if none is.
	Pending  string `json:"pending,omitempty"`
	Since    int64  `json:"since"` // the last rotation, or the role's beginning
	Rotated  bool   `json:"rotated"`
	Failures int    `json:"failures,omitempty"` // in a row
}

type staticIn struct {
	Name       string `path:"name" doc:"The role's name."`
	Connection string `json:"db_name" doc:"The connection whose database has the login."`
	Username   string `json:"username" doc:"The login's name in the database; it can't be changed."`
	Statements any    `json:"rotation_statements" doc:"Statements that change the password, with {{name}} and {{password}}."`
	rotation
	SkipImport       *bool           `json:"skip_import_rotation" doc:"Don't change the password now, but when it is due first."`
	Password         conclave.Secret `json:"password" doc:"The password that the login has, where it isn't changed now or the login changes its own."`
	SelfManaged      conclave.Secret `json:"self_managed_password" doc:"The same as password."`
	CredentialType   string          `json:"credential_type" doc:"What is rotated: password."`
	CredentialConfig map[string]any  `json:"credential_config" doc:"password_policy: the policy of the role's passwords instead of the connection's."`
	Fields           map[string]any  `json:"*"`
}

type staticOut struct {
	Connection       string            `json:"db_name" doc:"The connection whose database has the login."`
	Username         string            `json:"username" doc:"The login's name."`
	Statements       []string          `json:"rotation_statements" doc:"Statements that change the password."`
	Period           conclave.Seconds  `json:"rotation_period,omitempty" doc:"How often the password is changed."`
	Schedule         string            `json:"rotation_schedule,omitempty" doc:"When the password is changed."`
	Window           conclave.Seconds  `json:"rotation_window,omitempty" doc:"How long after the scheduled time it may still be changed."`
	SkipImport       bool              `json:"skip_import_rotation" doc:"Whether the password was left as it was at first."`
	Last             *time.Time        `json:"last_vault_rotation,omitempty" doc:"When the password was changed."`
	CredentialType   string            `json:"credential_type" doc:"What is rotated."`
	CredentialConfig map[string]string `json:"credential_config,omitempty" doc:"How it is made."`
}

type staticCredsOut struct {
	Username string           `json:"username" doc:"The login's name."`
	Password string           `json:"password" doc:"Its password."`
	TTL      conclave.Seconds `json:"ttl" doc:"Seconds until the password is changed."`
	Last     *time.Time       `json:"last_vault_rotation" doc:"When the password was changed."`
	Period   conclave.Seconds `json:"rotation_period,omitempty" doc:"How often the password is changed."`
	Schedule string           `json:"rotation_schedule,omitempty" doc:"When the password is changed."`
	Window   conclave.Seconds `json:"rotation_window,omitempty" doc:"How long after the scheduled time it may still be changed."`
}

const staticDoc = `Have the password of a login that is there rotated.
The password is changed at once, so that the vault knows it. Fields that aren't given keep their value.`

func (e *Engine) staticRoutes() []conclave.Route {
	write := conclave.WriteRoute(conclave.Update, "static-roles/{name}", staticDoc, writeStatic)
	write.Intend, write.Prepare = intendImport, e.carryOut
	write.Exists = func(view conclave.View, in any) (bool, error) {
		value, err := view.Get(staticDir + in.(*staticIn).Name)
		return value != nil, err
	}
	rotate := conclave.WriteRoute(conclave.Update, "rotate-role/{name}", "Change a static role's password now.", finishStatic)
	rotate.Intend, rotate.Prepare = intendStatic, e.carryOut
	return []conclave.Route{
		write,
		conclave.ReadRoute(conclave.Read, "static-roles/{name}", "Read how a login's password is rotated.", readStatic),
		conclave.ReadRoute(conclave.List, "static-roles", "List the static roles.", listNames(staticDir)),
		conclave.WriteRoute(conclave.Delete, "static-roles/{name}", "Remove a static role.\nThe login stays as it is, with a password that nobody knows any more.", deleteStatic),
		conclave.ReadRoute(conclave.Read, "static-creds/{name}", "Read a static role's login.", readStaticCreds),
		rotate,
	}
}

// loadStatic returns nil if there is none.
func loadStatic(view conclave.View, path string) (*static, error) {
	value, err := view.Get(path)
	if err != nil || value == nil {
		return nil, err
	}
	s := &static{}
	return s, json.Unmarshal(value, s)
}

// merged is the role after a change, and whether it is a new one.
func (in *staticIn) merged(view conclave.View) (s *static, isNew bool, err error) {
	if err := checkName(in.Name); err != nil {
		return nil, false, err
	}
	if s, err = loadStatic(view, staticDir+in.Name); err != nil {
		return nil, false, err
	}
	if isNew = s == nil; isNew {
		s = &static{Username: in.Username, Statements: []string{}}
		other, err := view.Get(roleDir + in.Name)
		if err != nil {
			return nil, false, err
		}
		if other != nil {
			return nil, false, conclave.Errorf(conclave.Invalid, "Role and Static Role names must be unique")
		}
	}
	if err := s.apply(in); err != nil {
		return nil, false, err
	}
	c, err := knownConnection(view, s.Connection)
	if err != nil {
		return nil, false, err
	}
	switch {
	case !c.allows(in.Name):
		return nil, false, conclave.Errorf(conclave.Denied, "%q is not an allowed role", in.Name)
	case s.Username == c.Username && !c.SelfManaged:
		return nil, false, conclave.Errorf(conclave.Invalid, "this is the connection's own user: its password is changed by rotate-root, so that the connection knows it")
	}
	return s, isNew, nil
}

// apply changes the role by the fields that are given.
func (s *static) apply(in *staticIn) error {
	given := func(name string) bool { _, is := in.Fields[name]; return is }
	if in.Connection != "" {
		s.Connection = in.Connection
	}
	if given("rotation_statements") {
		statements, err := statementsOf("rotation_statements", in.Statements)
		if err != nil {
			return err
		}
		s.Statements = statements
	}
	if given("rotation_period") && in.Period != 0 || given("rotation_schedule") && in.Schedule != "" {
		s.Period, s.Schedule = in.Period, in.Schedule
		if in.Period != 0 {
			s.Window = 0
		}
	}
	if given("rotation_window") {
		s.Window = in.Window
	}
	if in.SkipImport != nil {
		s.SkipImport = *in.SkipImport
	}
	for _, password := range []conclave.Secret{in.Password, in.SelfManaged} {
		if !password.Empty() {
			s.Password, s.Pending = password.Reveal(), ""
		}
	}
	switch {
	case s.Username == "":
		return conclave.Errorf(conclave.Invalid, "username is a required field to create a static account")
	case in.Username != "" && in.Username != s.Username:
		return conclave.Errorf(conclave.Invalid, "cannot update static account username")
	case len(s.Username) > maxName || len(s.Password) > maxText:
		return conclave.Errorf(conclave.Invalid, "username or password are too long")
	case s.Connection == "":
		return conclave.Errorf(conclave.Invalid, "empty database name attribute")
	case checkName(s.Connection) != nil:
		return checkName(s.Connection)
	case s.Period == 0 && s.Schedule == "" && in.Period == 0:
		return conclave.Errorf(conclave.Invalid, "one of rotation_schedule or rotation_period must be provided to create a static account")
	}
	if _, err := s.rotation.parse(); err != nil {
		return err
	}
	var err error
	s.Credential, err = credentialConfig(s.Credential, in.CredentialType, in.CredentialConfig, in.Fields)
	return err
}

// intendImport writes down the password that a new role begins with. A role that is there isn't rotated by a change of it.
func intendImport(_ context.Context, tx conclave.Tx, input any) (*conclave.Intent, error) {
	in := input.(*staticIn)
	s, isNew, err := in.merged(tx)
	if err != nil || !isNew || s.SkipImport {
		return nil, err
	}
	// One that came to nothing may have set the password that it wrote down.
	before, err := loadStatic(tx, importDir+in.Name)
	if err != nil {
		return nil, err
	}
	if before != nil && before.Username == s.Username && before.Connection == s.Connection {
		s.Pending = before.Pending
	}
	return s.intend(tx, in.Name, importDir+in.Name)
}

// intend chooses the next password, unless one is being set already, and stores it at path.
func (s *static) intend(tx conclave.Tx, name, path string) (*conclave.Intent, error) {
	c, err := knownConnection(tx, s.Connection)
	if err != nil {
		return nil, err
	}
	if s.Pending == "" {
		if s.Pending, err = newPassword(tx, policyFor(s.Credential, c), random()); err != nil {
			return nil, err
		}
	}
	if err := put(tx, path, s); err != nil {
		return nil, err
	}
	t, err := s.task(tx, name, c)
	return &conclave.Intent{Value: t}, err
}

// task is what sets the pending password.
func (s *static) task(view conclave.View, name string, c *connection) (*task, error) {
	t := &task{login: driver.Login{Name: s.Username, Password: s.Pending, Statements: s.Statements}}
	if c.SelfManaged {
		if s.Password == "" {
			return nil, conclave.Errorf(conclave.Invalid, "the connection has no user: give the login's password as self_managed_password")
		}
		own := *c
		own.Username = s.Username
		t.target = target{place{view.Mount().UUID, s.Connection + "/" + name}, source{own.settings(s.Password), s.Pending, c.Resets}}
		t.verify = true
		return t, nil
	}
	var err error
	t.target, err = targetOf(view, s.Connection, c)
	return t, err
}

func writeStatic(ctx context.Context, tx conclave.Tx, in *staticIn) (*conclave.None, error) {
	s, isNew, err := in.merged(tx)
	if err != nil {
		return nil, err
	}
	event := "static-role-update"
	if isNew {
		event = "static-role-create"
		s.Since = tx.Now().UnixNano()
	}
	if done := taskOf(ctx); done != nil {
		s.set(done.login.Password, tx.Now())
		if err := tx.Delete(importDir + in.Name); err != nil {
			return nil, err
		}
	} else if isNew && !s.SkipImport {
		return nil, conclave.Errorf(conclave.Unavailable, "the role was removed meanwhile: try again")
	}
	if err := s.store(tx, in.Name); err != nil {
		return nil, err
	}
	return nil, emit(tx, event, "static-roles/"+in.Name, in.Name)
}

// set notes that the login has a password.
func (s *static) set(password string, now time.Time) {
	s.Password, s.Pending, s.Failures, s.Rotated, s.Since = password, "", 0, true, now.UnixNano()
}

// store stores the role, and has it rotated when that is due.
func (s *static) store(tx conclave.Tx, name string) error {
	if err := put(tx, staticDir+name, s); err != nil {
		return err
	}
	return tx.Wake(staticWork+name, s.next(unixNano(s.Since)))
}

// intendStatic writes down the next password. If nobody finishes what this begins, the work for the role does.
func intendStatic(_ context.Context, tx conclave.Tx, input any) (*conclave.Intent, error) {
	name := input.(*nameIn).Name
	s, err := loadStatic(tx, staticDir+name)
	if err != nil {
		return nil, err
	}
	if s == nil {
		return nil, conclave.Errorf(conclave.Invalid, "no static role found for role name")
	}
	if err := tx.Wake(staticWork+name, s.settle(tx.Now(), s.Since)); err != nil {
		return nil, err
	}
	return s.intend(tx, name, staticDir+name)
}

// finishStatic notes that the pending password is set.
func finishStatic(ctx context.Context, tx conclave.Tx, in *nameIn) (*conclave.None, error) {
	done := taskOf(ctx)
	if done == nil {
		return nil, conclave.Errorf(conclave.Internal, "nothing was intended for a rotation")
	}
	return nil, endStatic(tx, in.Name, done, nil)
}

func readStatic(_ context.Context, view conclave.View, in *nameIn) (*staticOut, error) {
	s, err := loadStatic(view, staticDir+in.Name)
	if err != nil {
		return nil, err
	}
	if s == nil {
		return nil, notFound()
	}
	return &staticOut{s.Connection, s.Username, s.Statements, s.Period, s.Schedule, s.Window, s.SkipImport, s.last(), "password", s.Credential}, nil
}

// last is when the password was changed, nil if it never was.
func (s *static) last() *time.Time {
	if !s.Rotated {
		return nil
	}
	at := unixNano(s.Since)
	return &at
}

func readStaticCreds(_ context.Context, view conclave.View, in *nameIn) (*staticCredsOut, error) {
	s, err := loadStatic(view, staticDir+in.Name)
	if err != nil {
		return nil, err
	}
	if s == nil {
		return nil, conclave.Errorf(conclave.Invalid, "unknown role: %s", in.Name)
	}
	ttl := s.next(unixNano(s.Since)).Sub(view.Now())
	return &staticCredsOut{s.Username, s.Password, conclave.InSeconds(max(0, ttl)), s.last(), s.Period, s.Schedule, s.Window}, nil
}

func deleteStatic(_ context.Context, tx conclave.Tx, in *nameIn) (*conclave.None, error) {
	if value, err := tx.Get(staticDir + in.Name); err != nil || value == nil {
		return nil, err
	}
	if err := tx.Delete(staticDir + in.Name); err != nil {
		return nil, err
	}
	if err := tx.Wake(staticWork+in.Name, time.Time{}); err != nil {
		return nil, err
	}
	return nil, emit(tx, "static-role-delete", "static-roles/"+in.Name, in.Name)
}
