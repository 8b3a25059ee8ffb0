package database

import (
	"context"
	"encoding/json"
	"time"

	"conclave"
	"conclave/engine/database/driver"
)

var errLease = conclave.Errorf(conclave.Internal, "the lease of a login is damaged")

func decodeLeased(data []byte) (*leased, error) {
	l := &leased{}
	if err := json.Unmarshal(data, l); err != nil || l.Connection == "" || l.Name == "" {
		return nil, errLease
	}
	return l, nil
}

// RenewLease goes on by the role's times of now, as long as the login itself is valid. The database isn't asked: the end
// that it knows is the last one possible.
func (e *Engine) RenewLease(_ context.Context, view conclave.View, lease *conclave.GrantedLease, increment time.Duration) (*conclave.Lease, error) {
	l, err := decodeLeased(lease.Data)
	if err != nil {
		return nil, err
	}
	r, err := loadRole(view, l.Role)
	if err != nil {
		return nil, err
	}
	if r == nil {
		return nil, conclave.Errorf(conclave.Invalid, "error during renew: could not find role with name %q", l.Role)
	}
	ttl, most := r.ttl(view.Mount())
	if increment > 0 {
		ttl = increment
	}
	left := time.Unix(l.Until, 0).Sub(view.Now())
	if left <= 0 {
		return nil, conclave.Errorf(conclave.Invalid, "the login has reached the end of its life")
	}
	return &conclave.Lease{TTL: min(ttl, left), MaxTTL: most, Renewable: true}, nil
}

// ending is what a login is ended by.
type ending struct {
	target target
	login  driver.Login
}

// GatherRevoke reads how the login is ended.
func (e *Engine) GatherRevoke(view conclave.View, lease *conclave.GrantedLease) (any, error) {
	l, err := decodeLeased(lease.Data)
	if err != nil {
		return nil, err
	}
	c, err := knownConnection(view, l.Connection)
	if err != nil {
		return nil, err
	}
	to, err := targetOf(view, l.Connection, c)
	if err != nil {
		return nil, err
	}
	statements := l.Drop
	if r, err := loadRole(view, l.Role); err != nil {
		return nil, err
	} else if r != nil && r.Connection == l.Connection {
		statements = r.Revocation
	}
	return &ending{to, driver.Login{Name: l.Name, Statements: statements}}, nil
}

// Revoke drops the login.
func (e *Engine) Revoke(ctx context.Context, _ *conclave.GrantedLease, gathered any) error {
	g, ok := gathered.(*ending)
	if !ok {
		return errLease
	}
	ctx, cancel := context.WithTimeout(ctx, 2*driver.ActTime)
	defer cancel()
	return e.pools.use(ctx, g.target.at, g.target.from, func(d driver.Driver) error { return d.Drop(ctx, &g.login) })
}

// ForgetLease lets go of the login's name.
func (e *Engine) ForgetLease(tx conclave.Tx, lease *conclave.GrantedLease) error {
	l, err := decodeLeased(lease.Data)
	if err != nil {
		return err
	}
	if !l.Reserved {
		return nil
	}
	return tx.Delete(reservation(l.Connection, l.Name))
}
