package database

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"conclave"
)

// role is what is stored of a dynamic role, JSON.
type role struct {
	Connection string            `json:"db_name"`
	Creation   []string          `json:"creation"`
	Revocation []string          `json:"revocation"`
	Rollback   []string          `json:"rollback"`
	Renew      []string          `json:"renew"`
	DefaultTTL conclave.Seconds  `json:"default_ttl"`
	MaxTTL     conclave.Seconds  `json:"max_ttl"`
	Credential map[string]string `json:"credential_config,omitempty"`
}

type roleIn struct {
	Name             string           `path:"name" doc:"The role's name."`
	Connection       string           `json:"db_name" doc:"The connection whose database has the logins."`
	Creation         any              `json:"creation_statements" doc:"Statements that make a login, with {{name}}, {{password}} and {{expiration}}."`
	Revocation       any              `json:"revocation_statements" doc:"Statements that end a login; without any the login is locked, its sessions are ended, and it is dropped."`
	Rollback         any              `json:"rollback_statements" doc:"Statements that clear up when a login could not be made, before it is ended."`
	Renew            any              `json:"renew_statements" doc:"Kept and shown, not executed: logins are valid until the end of max_ttl, so that renewals need none."`
	DefaultTTL       conclave.Seconds `json:"default_ttl" doc:"How long a lease lives; 0 is the mount's."`
	MaxTTL           conclave.Seconds `json:"max_ttl" doc:"How long a lease lives with all renewals; 0 is the mount's."`
	CredentialType   string           `json:"credential_type" doc:"What a login gets: password."`
	CredentialConfig map[string]any   `json:"credential_config" doc:"password_policy: the policy of the role's passwords instead of the connection's."`
	Fields           map[string]any   `json:"*"`
}

type roleOut struct {
	Connection       string            `json:"db_name" doc:"The connection whose database has the logins."`
	Creation         []string          `json:"creation_statements" doc:"Statements that make a login."`
	Revocation       []string          `json:"revocation_statements" doc:"Statements that end a login."`
	Rollback         []string          `json:"rollback_statements" doc:"Statements that clear up."`
	Renew            []string          `json:"renew_statements" doc:"Statements that are not executed."`
	DefaultTTL       conclave.Seconds  `json:"default_ttl" doc:"How long a lease lives; 0 is the mount's."`
	MaxTTL           conclave.Seconds  `json:"max_ttl" doc:"How long a lease lives with all renewals; 0 is the mount's."`
	CredentialType   string            `json:"credential_type" doc:"What a login gets."`
	CredentialConfig map[string]string `json:"credential_config,omitempty" doc:"How it is made."`
}

const roleDoc = `Say how logins of a database are made.
Fields that aren't given keep their value. Placeholders of statements are replaced by what can't change the statement:
write '{{password}}' and "{{name}}" in quotes of their own.`

func (e *Engine) roleRoutes() []conclave.Route {
	write := conclave.WriteRoute(conclave.Update, "roles/{name}", roleDoc, writeRole)
	write.Exists = func(view conclave.View, in any) (bool, error) {
		value, err := view.Get(roleDir + in.(*roleIn).Name)
		return value != nil, err
	}
	creds := conclave.WriteRoute(conclave.Read, "creds/{name}", credsDoc, e.issue)
	creds.Gather, creds.Intend, creds.Prepare = gatherCreds, e.intendCreds, e.create
	return []conclave.Route{
		write,
		conclave.ReadRoute(conclave.Read, "roles/{name}", "Read how logins of a role are made.", readRole),
		conclave.ReadRoute(conclave.List, "roles", "List the dynamic roles.", listNames(roleDir)),
		conclave.WriteRoute(conclave.Delete, "roles/{name}", "Remove a role.\nLogins that were made live on until their leases end.", deleteRole),
		creds,
	}
}

// loadRole returns nil if there is none. What it returns is shared and must not be changed.
func loadRole(view conclave.View, name string) (*role, error) {
	found, err := view.Load(roleDir+name, func(value []byte) (any, error) {
		r := &role{}
		return r, json.Unmarshal(value, r)
	})
	if err != nil || found == nil {
		return nil, err
	}
	return found.(*role), nil
}

func writeRole(_ context.Context, tx conclave.Tx, in *roleIn) (*conclave.Response, error) {
	if err := checkName(in.Name); err != nil {
		return nil, err
	}
	shared, err := loadRole(tx, in.Name)
	if err != nil {
		return nil, err
	}
	r := role{Creation: []string{}, Revocation: []string{}, Rollback: []string{}, Renew: []string{}}
	event := "role-create"
	if shared != nil {
		r, event = *shared, "role-update"
	}
	if err := r.apply(in); err != nil {
		return nil, err
	}
	other, err := tx.Get(staticDir + in.Name)
	if err != nil {
		return nil, err
	}
	if other != nil {
		return nil, conclave.Errorf(conclave.Invalid, "Role and Static Role names must be unique")
	}
	if err := put(tx, roleDir+in.Name, &r); err != nil {
		return nil, err
	}
	resp := &conclave.Response{}
	if len(r.Renew) > 0 {
		resp.Warnings = []string{"renew_statements are not executed: {{expiration}} is the end of max_ttl, so that a renewal needs to change nothing in the database"}
	}
	return resp, emit(tx, event, "roles/"+in.Name, in.Name)
}

// apply changes the role by the fields that are given.
func (r *role) apply(in *roleIn) error {
	for _, f := range []struct {
		name string
		raw  any
		to   *[]string
	}{{"creation_statements", in.Creation, &r.Creation}, {"revocation_statements", in.Revocation, &r.Revocation},
		{"rollback_statements", in.Rollback, &r.Rollback}, {"renew_statements", in.Renew, &r.Renew}} {
		if _, given := in.Fields[f.name]; !given {
			continue
		}
		statements, err := statementsOf(f.name, f.raw)
		if err != nil {
			return err
		}
		*f.to = statements
	}
	if in.Connection != "" {
		r.Connection = in.Connection
	}
	if _, given := in.Fields["default_ttl"]; given {
		r.DefaultTTL = in.DefaultTTL
	}
	if _, given := in.Fields["max_ttl"]; given {
		r.MaxTTL = in.MaxTTL
	}
	switch {
	case r.Connection == "":
		return conclave.Errorf(conclave.Invalid, "empty database name attribute")
	case checkName(r.Connection) != nil:
		return checkName(r.Connection)
	case r.DefaultTTL < 0 || r.MaxTTL < 0 || max(r.DefaultTTL, r.MaxTTL).Duration() > maxTTL:
		return conclave.Errorf(conclave.Invalid, "default_ttl and max_ttl must be between 0 and a hundred years")
	case r.MaxTTL > 0 && r.DefaultTTL > r.MaxTTL:
		return conclave.Errorf(conclave.Invalid, "default_ttl cannot be greater than max_ttl")
	}
	var err error
	r.Credential, err = credentialConfig(r.Credential, in.CredentialType, in.CredentialConfig, in.Fields)
	return err
}

const maxTTL = 100 * 365 * 24 * time.Hour // so that times fit 64 bits of nanoseconds

// credentialConfig is how passwords are made, after a change.
func credentialConfig(before map[string]string, kind string, given map[string]any, fields map[string]any) (map[string]string, error) {
	if kind != "" && kind != "password" {
		return nil, conclave.Errorf(conclave.Invalid, "credential_type %q isn't one that these databases have: there is password", kind)
	}
	if _, is := fields["credential_config"]; !is {
		return before, nil
	}
	config := map[string]string{}
	for name, value := range given {
		policy, ok := value.(string)
		if name != "password_policy" || !ok || len(policy) > maxName {
			return nil, conclave.Errorf(conclave.Invalid, "credential_config has password_policy only")
		}
		config[name] = policy
	}
	if len(config) == 0 {
		return nil, nil
	}
	return config, nil
}

func readRole(_ context.Context, view conclave.View, in *nameIn) (*roleOut, error) {
	r, err := loadRole(view, in.Name)
	if err != nil {
		return nil, err
	}
	if r == nil {
		return nil, notFound()
	}
	return &roleOut{r.Connection, r.Creation, r.Revocation, r.Rollback, r.Renew, r.DefaultTTL, r.MaxTTL, "password", r.Credential}, nil
}

func deleteRole(_ context.Context, tx conclave.Tx, in *nameIn) (*conclave.None, error) {
	if r, err := loadRole(tx, in.Name); err != nil || r == nil {
		return nil, err
	}
	if err := tx.Delete(roleDir + in.Name); err != nil {
		return nil, err
	}
	return nil, emit(tx, "role-delete", "roles/"+in.Name, in.Name)
}

// ttl is what leases of the role live for, and at most with all renewals.
func (r *role) ttl(mount *conclave.Mount) (ttl, most time.Duration) {
	ttl, most = r.DefaultTTL.Duration(), r.MaxTTL.Duration()
	if ttl == 0 {
		ttl = mount.DefaultTTL
	}
	if most == 0 || most > mount.MaxTTL {
		most = mount.MaxTTL
	}
	return min(ttl, most), most
}

// policyFor is the password policy that holds where a role has a credential_config.
func policyFor(config map[string]string, c *connection) string {
	if policy := config["password_policy"]; policy != "" {
		return policy
	}
	return strings.TrimSpace(c.PasswordPolicy)
}
