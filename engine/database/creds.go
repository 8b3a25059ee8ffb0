package database

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"time"

	"conclave"
	"conclave/engine/database/driver"
	"conclave/engine/database/username"
)

const credsDoc = `Make a login for the caller.
It lives as long as its lease; when that ends, the login is dropped.`

// slack is by how much the end that the database itself knows lies behind the last possible end of the lease: the login is
// made before the lease begins, and clocks differ.
const slack = 2 * time.Minute

// leased is what a lease keeps of its login, JSON.
type leased struct {
	Connection string   `json:"db"`
	Name       string   `json:"name"`
	Role       string   `json:"role"`
	Until      int64    `json:"until"`              // Unix seconds: the last possible end of the lease
	Drop       []string `json:"drop,omitempty"`     // the role's revocation statements, for when the role is gone
	Reserved   bool     `json:"reserved,omitempty"` // the name is kept from others
}

// terms are what a login is made by. They must be the same when it is answered.
type terms struct {
	role       *role
	connection *connection
}

// intended is a login that will be made.
type intended struct {
	target target
	login  driver.Login
	lease  conclave.Lease
}

func gatherCreds(view conclave.View, in any) (any, error) {
	name := in.(*nameIn).Name
	r, err := loadRole(view, name)
	if err != nil {
		return nil, err
	}
	if r == nil {
		return nil, conclave.Errorf(conclave.Invalid, "unknown role: %s", name)
	}
	c, err := knownConnection(view, r.Connection)
	if err != nil {
		return nil, err
	}
	if !c.allows(name) {
		return nil, conclave.Errorf(conclave.Denied, "%q is not an allowed role", name)
	}
	return terms{r, c}, nil
}

// intendCreds chooses the login's name and password, and the lease that ends it.
func (e *Engine) intendCreds(ctx context.Context, tx conclave.Tx, in any) (*conclave.Intent, error) {
	t, ok := conclave.Gathered[terms](ctx)
	if !ok {
		return nil, conclave.Errorf(conclave.Internal, "nothing was gathered for a login")
	}
	roleName := in.(*nameIn).Name
	name, reserved, err := e.nameFor(tx, t.connection, roleName, random())
	if err != nil {
		return nil, err
	}
	secret, err := newPassword(tx, policyFor(t.role.Credential, t.connection), random())
	if err != nil {
		return nil, err
	}
	to, err := targetOf(tx, t.role.Connection, t.connection)
	if err != nil {
		return nil, err
	}
	ttl, most := t.role.ttl(tx.Mount())
	until := tx.Now().Add(most).Truncate(time.Second)
	data, err := json.Marshal(leased{Connection: t.role.Connection, Name: name, Role: roleName, Until: until.Unix(), Drop: t.role.Revocation, Reserved: reserved})
	if err != nil {
		return nil, err
	}
	if reserved {
		if err := reserve(tx, t.role.Connection, name); err != nil {
			return nil, err
		}
	}
	lease := conclave.Lease{TTL: ttl, MaxTTL: most, Renewable: true, Data: data}
	login := driver.Login{Name: name, Password: secret, Until: until.Add(slack), Statements: t.role.Creation, Rollback: t.role.Rollback}
	return &conclave.Intent{Lease: &lease, Value: &intended{to, login, lease}}, nil
}

// nameFor makes a login's name. By a template of somebody's own, names may be made twice: those are reserved.
func (e *Engine) nameFor(tx conclave.Tx, c *connection, role string, random io.Reader) (name string, reserved bool, err error) {
	template, err := e.templates.of(c)
	if err != nil {
		return "", false, err
	}
	fields := username.Fields{RoleName: role}
	if caller := tx.Caller(); caller != nil {
		fields.DisplayName = caller.DisplayName
	}
	name, err = template.Make(fields, tx.Now(), random)
	return name, c.Template != "", err
}

func reservation(connection, name string) string {
	sum := sha256.Sum256([]byte(connection + "/" + name))
	return reservedDir + hex.EncodeToString(sum[:16])
}

// reserve keeps a login's name from others: to end the login of one lease must not end that of another.
func reserve(tx conclave.Tx, connection, name string) error {
	taken, err := tx.Get(reservation(connection, name))
	if err != nil {
		return err
	}
	if taken != nil {
		return conclave.Errorf(conclave.Unavailable, "username_template has made a name that another login has: try again")
	}
	return tx.Put(reservation(connection, name), []byte{1})
}

// create makes the login.
func (e *Engine) create(ctx context.Context, _ *conclave.Request, _ any) (any, error) {
	intent, ok := conclave.Intended(ctx)
	if !ok {
		return nil, conclave.Errorf(conclave.Internal, "nothing was intended for a login")
	}
	made := intent.Value.(*intended)
	ctx, cancel := context.WithTimeout(ctx, driver.ActTime)
	defer cancel()
	return nil, e.pools.use(ctx, made.target.at, made.target.from, func(d driver.Driver) error { return d.Create(ctx, &made.login) })
}

type credsOut struct {
	Username string `json:"username" doc:"The login's name."`
	Password string `json:"password" doc:"Its password."`
}

// issue answers the login, with its lease.
func (e *Engine) issue(ctx context.Context, tx conclave.Tx, in *nameIn) (*conclave.Response, error) {
	intent, ok := conclave.Intended(ctx)
	if !ok {
		return nil, conclave.Errorf(conclave.Internal, "nothing was intended for a login")
	}
	made := intent.Value.(*intended)
	lease := made.lease
	return &conclave.Response{Data: &credsOut{made.login.Name, made.login.Password}, Lease: &lease}, emit(tx, "creds-create", "creds/"+in.Name, in.Name)
}
