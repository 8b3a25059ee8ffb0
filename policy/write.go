package policy

import (
	"context"
	"encoding/base64"
	"strings"
	"time"

	"conclave"
)

type writeInput struct {
	Name        string         `path:"name" doc:"The policy's name; upper case is taken as lower case."`
	Policy      string         `json:"policy" doc:"The text, HCL or JSON, plain or in base64."`
	Rules       string         `json:"rules" doc:"An old name of policy."`
	Expiration  *string        `json:"expiration" doc:"From when on there is no such policy, as RFC 3339. Not with ttl."`
	TTL         *time.Duration `json:"ttl" doc:"For how long there is the policy; 0: for ever."`
	CAS         *int64         `json:"cas" doc:"Write only if this is the policy's version; -1: only if there is none."`
	CASRequired *bool          `json:"cas_required" doc:"This and the next write must give cas."`
}

// noPolicy is the version of a policy that isn't there, for check-and-set.
const noPolicy = -1

func write(_ context.Context, tx conclave.Tx, in *writeInput) (*conclave.None, error) {
	if in.text() == "" {
		return nil, conclave.Errorf(conclave.Invalid, "'policy' parameter not supplied or empty")
	}
	old, err := in.replaced(tx)
	if err != nil {
		return nil, err
	}
	return nil, in.store(tx, old, Terms{})
}

func patch(_ context.Context, tx conclave.Tx, in *writeInput) (*conclave.None, error) {
	old, err := in.replaced(tx)
	if err != nil {
		return nil, err
	}
	if old == nil {
		return nil, &conclave.Error{Kind: conclave.NotFound}
	}
	terms := old.Terms
	if req := tx.Request(); req != nil {
		for _, name := range []string{"expiration", "ttl"} { // null takes away
			if value, given := req.Fields[name]; given && value == nil {
				terms.Expires = time.Time{}
			}
		}
	}
	return nil, in.store(tx, old, terms)
}

// text is the policy's text that was given, decoded; empty if there is none.
func (in *writeInput) text() string {
	source := in.Policy
	if source == "" {
		source = in.Rules
	}
	if plain, err := base64.StdEncoding.DecodeString(source); err == nil {
		source = string(plain)
	}
	if strings.TrimSpace(source) == "" {
		return ""
	}
	return source
}

// replaced loads the policy that is to be written, nil if there is none, and checks its version.
func (in *writeInput) replaced(tx conclave.Tx) (*Policy, error) {
	name := NormalName(in.Name)
	switch name {
	case Wrapping:
		return nil, conclave.Errorf(conclave.Invalid, "cannot update %q policy", Wrapping)
	case Root:
		return nil, conclave.Errorf(conclave.Invalid, "cannot update %q policy", Root)
	}
	if err := checkName(name); err != nil {
		return nil, err
	}
	terms, there, err := storedTerms(tx, name)
	if err != nil {
		return nil, err
	}
	if !terms.Expires.IsZero() && tx.Reached(terms.Expires) {
		terms, there = Terms{}, false
	}
	version := terms.Version
	if !there {
		version = noPolicy
	}
	switch required := terms.CASRequired || in.CASRequired != nil && *in.CASRequired; {
	case in.CAS == nil && required:
		return nil, conclave.Errorf(conclave.Invalid, "check-and-set parameter required for this call")
	case in.CAS != nil && *in.CAS != version:
		return nil, conclave.Errorf(conclave.Invalid, "check-and-set parameter did not match the current version")
	}
	if !there {
		return nil, nil
	}
	value, err := tx.Get(pathOf(name))
	if err != nil {
		return nil, err
	}
	if old, err := decode(name, value); err == nil {
		return old, nil
	}
	return &Policy{Name: name, Terms: terms}, nil // damaged: to be replaced
}

// store writes what was given, and of the rest what old and terms say.
func (in *writeInput) store(tx conclave.Tx, old *Policy, terms Terms) error {
	source := in.text()
	if source == "" && old != nil {
		source = old.Source
	}
	p, err := Parse(in.Name, source)
	if err != nil {
		return err
	}
	if in.CASRequired != nil {
		terms.CASRequired = *in.CASRequired
	}
	if terms.Expires, err = in.expires(tx.Now(), terms.Expires); err != nil {
		return err
	}
	if p.Name == Default && !terms.Expires.IsZero() {
		return conclave.Errorf(conclave.Invalid, "the policy %q can't expire", Default)
	}
	p.Terms = terms
	return Store(tx, p)
}

// expires is when the policy is to end: as given, else as it was.
func (in *writeInput) expires(now, was time.Time) (time.Time, error) {
	switch {
	case in.Expiration != nil && in.TTL != nil && *in.Expiration != "" && *in.TTL != 0:
		return was, conclave.Errorf(conclave.Invalid, "expiration and ttl can't both be given")
	case in.TTL != nil && *in.TTL < 0:
		return was, conclave.Errorf(conclave.Invalid, "ttl must not be negative")
	case in.TTL != nil && *in.TTL > 0:
		at := now.Add(*in.TTL)
		if at.Year() > maxExpiryYear {
			return was, conclave.Errorf(conclave.Invalid, "ttl is too long: leave it out for ever")
		}
		return at, nil
	case in.Expiration != nil && *in.Expiration != "":
		at, err := time.Parse(time.RFC3339, *in.Expiration)
		if err != nil || at.Year() > maxExpiryYear {
			return was, conclave.Errorf(conclave.Invalid, "expiration must be a time such as 2030-12-31T23:59:59Z")
		}
		if !at.After(now) {
			return was, conclave.Errorf(conclave.Invalid, "expiration must not be in the past")
		}
		return at, nil
	case in.Expiration != nil || in.TTL != nil:
		return time.Time{}, nil
	}
	return was, nil
}

// maxExpiryYear keeps times within what 64 bits of nanoseconds hold.
const maxExpiryYear = 2261

func (p *Policy) describe() *detailedOutput {
	out := &detailedOutput{Name: p.Name, Policy: p.Source, details: details{Version: p.Version, CASRequired: p.CASRequired}}
	if !p.Modified.IsZero() {
		out.Modified = p.Modified.Format(time.RFC3339Nano)
	}
	if !p.Expires.IsZero() {
		out.Expiration = p.Expires.Format(time.RFC3339Nano)
	}
	return out
}

func remove(_ context.Context, tx conclave.Tx, in *nameInput) (*conclave.None, error) {
	name := NormalName(in.Name)
	if err := checkName(name); err != nil {
		return nil, err
	}
	if name == Root || name == Default || name == Wrapping {
		return nil, conclave.Errorf(conclave.Invalid, "cannot delete %q policy", name)
	}
	return nil, Drop(tx, name)
}
