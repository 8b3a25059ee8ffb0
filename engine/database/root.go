package database

import (
	"crypto/rand"
	"encoding/json"
	"io"
	"time"

	"conclave"
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

// wakeForRoot has the work for the password of a connection's user begin when it is due.
func wakeForRoot(tx conclave.Tx, name string, c *connection, r *root) error {
	if c.NoRotation {
		return wake(tx, rootWork+name, time.Time{})
	}
	return wake(tx, rootWork+name, c.next(unixNano(r.Since)))
}
