package database

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"strings"
	"time"

	"conclave"
	"conclave/engine/database/driver"
	"conclave/password"
)

// root is what is stored of the password of a connection's own user, JSON, apart from the connection, so that a change of
// it disturbs nobody. Times are Unix nanoseconds.
type root struct {
	Password string `json:"password"`
	// Pending is the password that is being set: the database may have it already. "" if none is.
	Pending  string `json:"pending,omitempty"`
	Since    int64  `json:"since,omitempty"` // the last rotation, or the first configuration
	Failures int    `json:"failures,omitempty"`
}

func loadRoot(view conclave.View, name string) (*root, error) {
	value, err := view.Get(rootDir + name)
	if err != nil || value == nil {
		return nil, err
	}
	r := &root{}
	return r, json.Unmarshal(value, r)
}

// source is what connections to the database are made of.
func (c *connection) source(r *root) source {
	if r == nil {
		r = &root{}
	}
	return source{c.settings(r.Password), r.Pending, c.Resets}
}

// target is a connection with all that is needed to act on its database.
type target struct {
	at   place
	from source
}

func targetOf(view conclave.View, name string, c *connection) (target, error) {
	r, err := loadRoot(view, name)
	if err != nil {
		return target{}, err
	}
	return target{place{view.Mount().UUID, name}, c.source(r)}, nil
}

// newPassword makes a password by the policy of the namespace that has this name, "" for the default one.
func newPassword(view conclave.View, policy string, random io.Reader) (string, error) {
	rules := password.Default()
	if policy != "" {
		text, err := view.PasswordPolicy(policy)
		if err != nil {
			return "", err
		}
		if text == "" {
			return "", conclave.Errorf(conclave.Invalid, "there is no password policy %q", policy)
		}
		if rules, err = password.Parse(text); err != nil {
			return "", conclave.Errorf(conclave.Invalid, "the password policy %q can't be used", policy)
		}
	}
	made, err := rules.Generate(random)
	if err != nil {
		return "", conclave.Errorf(conclave.Invalid, "the password policy %q makes no password", policy)
	}
	return made, nil
}

// random is where names and passwords come from.
func random() io.Reader { return rand.Reader }

func unixNano(ns int64) time.Time { return time.Unix(0, ns).UTC() }

func (e *Engine) rootRoutes() []conclave.Route {
	rotate := conclave.WriteRoute(conclave.Update, "rotate-root/{name}", rotateRootDoc, finishRoot)
	rotate.Intend, rotate.Prepare = intendRoot, e.carryOut
	return []conclave.Route{rotate}
}

const rotateRootDoc = `Change the password of a connection's own user.
Nobody but the vault has it afterwards.`

// intend chooses the next password of the connection's user, unless one is being set already, and stores it.
func (r *root) intend(tx conclave.Tx, name string, c *connection) (*task, error) {
	switch {
	case c.SelfManaged || c.Username == "":
		return nil, conclave.Errorf(conclave.Invalid, "unable to rotate root credentials: no username in configuration")
	case c.URL != "" && !strings.Contains(c.URL, "{{password}}"):
		return nil, conclave.Errorf(conclave.Invalid, "unable to rotate root credentials: connection_url has no {{password}}")
	}
	if r.Pending == "" {
		var err error
		if r.Pending, err = newPassword(tx, strings.TrimSpace(c.PasswordPolicy), random()); err != nil {
			return nil, err
		}
	}
	if err := put(tx, rootDir+name, r); err != nil {
		return nil, err
	}
	return &task{target: target{place{tx.Mount().UUID, name}, c.source(r)}, verify: true,
		login: driver.Login{Name: c.Username, Password: r.Pending, Statements: c.RootStatements}}, nil
}

// intendRoot writes down the next password. If nobody finishes what this begins, the work for the connection does.
func intendRoot(_ context.Context, tx conclave.Tx, input any) (*conclave.Intent, error) {
	name := input.(*nameIn).Name
	c, err := knownConnection(tx, name)
	if err != nil {
		return nil, err
	}
	r, err := loadRoot(tx, name)
	if err != nil {
		return nil, err
	}
	if r == nil {
		r = &root{}
	}
	if err := tx.Wake(rootWork+name, c.settle(tx.Now(), r.Since)); err != nil {
		return nil, err
	}
	t, err := r.intend(tx, name, c)
	return &conclave.Intent{Value: t}, err
}

// finishRoot notes that the pending password is set.
func finishRoot(ctx context.Context, tx conclave.Tx, in *nameIn) (*conclave.None, error) {
	done := taskOf(ctx)
	if done == nil {
		return nil, conclave.Errorf(conclave.Internal, "nothing was intended for a rotation")
	}
	return nil, endRoot(tx, in.Name, done, nil)
}

func beginRoot(tx conclave.Tx, name string) (any, error) {
	c, err := loadConnection(tx, name)
	if err != nil || c == nil {
		return nil, err
	}
	r, err := loadRoot(tx, name)
	if err != nil || r == nil {
		return nil, err
	}
	due, is := time.Time{}, false
	if !c.NoRotation {
		if due, is, err = c.isDue(tx, rootWork+name, r.Since); err != nil {
			return nil, err
		}
	}
	if !is && r.Pending == "" {
		return nil, nil
	}
	t, err := r.intend(tx, name, c)
	if conclave.Is(err, conclave.Invalid) { // there is nothing to rotate, until the connection is changed
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	t.due = due
	return t, nil
}

func endRoot(tx conclave.Tx, name string, t *task, failure error) error {
	c, err := loadConnection(tx, name)
	if err != nil || c == nil {
		return err
	}
	r, err := loadRoot(tx, name)
	if err != nil || r == nil {
		return err
	}
	if r.Pending != t.login.Password {
		if isOvertaken(r.Password, r.Pending, t, failure) {
			r.Pending = t.login.Password
			if err := put(tx, rootDir+name, r); err != nil {
				return err
			}
			return tx.Wake(rootWork+name, tx.Now())
		}
		return wakeForRoot(tx, name, c, r)
	}
	if failure == nil {
		r.Password, r.Pending, r.Failures, r.Since = r.Pending, "", 0, tx.Now().UnixNano()
		if err := put(tx, rootDir+name, r); err != nil {
			return err
		}
		if err := wakeForRoot(tx, name, c, r); err != nil {
			return err
		}
		return emit(tx, "rotate-root", "rotate-root/"+name, name)
	}
	r.Failures++
	if err := put(tx, rootDir+name, r); err != nil {
		return err
	}
	if err := tx.Wake(rootWork+name, c.again(t.due, tx.Now(), r.Failures)); err != nil {
		return err
	}
	return emit(tx, "rotate-root-fail", "rotate-root/"+name, name)
}

// wakeForRoot has the work for the password of a connection's user begin when it is due.
func wakeForRoot(tx conclave.Tx, name string, c *connection, r *root) error {
	if c.NoRotation {
		return tx.Wake(rootWork+name, time.Time{})
	}
	return tx.Wake(rootWork+name, c.next(unixNano(r.Since)))
}
