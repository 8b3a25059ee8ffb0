package mfa

import (
	"encoding/json"
	"slices"

	"conclave"
)

// Limits of a namespace.
const (
	MaxMethods      = 64
	MaxEnforcements = 256
	maxList         = 1024 // entries of one list of an enforcement
	maxText         = 256  // bytes of a name or an id
)

const configPath = "mfa/config"

// Method is one way to show a second factor. It is shared and must not be changed.
type Method struct {
	ID          string           `json:"id"`
	Name        string           `json:"name,omitempty"`
	Issuer      string           `json:"issuer"`
	Period      conclave.Seconds `json:"period"`
	KeySize     int              `json:"key_size"` // bytes
	QRSize      int              `json:"qr_size"`  // pixels; 0: no picture
	Algorithm   string           `json:"algorithm"`
	Digits      int              `json:"digits"`
	Skew        int64            `json:"skew"` // time steps before and after the present one that count as well
	MaxAttempts int              `json:"max_validation_attempts"`
}

// enforcement says whose logins need one of some methods: those that any of its lists names.
type enforcement struct {
	ID        string   `json:"id"`
	Name      string   `json:"name"`
	Methods   []string `json:"mfa_method_ids"`
	Accessors []string `json:"auth_method_accessors,omitempty"`
	Kinds     []string `json:"auth_method_types,omitempty"`
	Groups    []string `json:"identity_group_ids,omitempty"`
	Entities  []string `json:"identity_entity_ids,omitempty"`
}

// config is all that is set up in a namespace. What is loaded is shared: see [config.clone].
type config struct {
	Methods      []*Method      `json:"methods"`
	Enforcements []*enforcement `json:"enforcements"`
}

func decodeConfig(value []byte) (*config, error) {
	c := &config{}
	if json.Unmarshal(value, c) != nil || !c.consistent() {
		return nil, conclave.Errorf(conclave.Internal, "the stored second factors are damaged")
	}
	return c, nil
}

// consistent holds what is stored against the invariants that the code relies on.
func (c *config) consistent() bool {
	for _, m := range c.Methods {
		if m == nil || m.check() != nil || !isID(m.ID) {
			return false
		}
	}
	for _, e := range c.Enforcements {
		if e == nil || len(e.Methods) == 0 {
			return false
		}
		for _, id := range e.Methods {
			if c.method(id) == nil {
				return false
			}
		}
	}
	return true
}

// load returns what is set up, nothing if nothing is.
func load(view conclave.View) (*config, error) {
	loaded, err := view.Load(configPath, func(value []byte) (any, error) { return decodeConfig(value) })
	if err != nil {
		return nil, err
	}
	if c, ok := loaded.(*config); ok {
		return c, nil
	}
	return &config{}, nil
}

// clone is a copy whose lists can be changed; what they point to is replaced, not changed.
func (c *config) clone() *config {
	return &config{slices.Clone(c.Methods), slices.Clone(c.Enforcements)}
}

func (c *config) save(tx conclave.Tx) error {
	value, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return tx.Put(configPath, value)
}

func (c *config) method(id string) *Method {
	at := slices.IndexFunc(c.Methods, func(m *Method) bool { return m.ID == id })
	if at < 0 {
		return nil
	}
	return c.Methods[at]
}

func (c *config) methodNamed(name string) *Method {
	at := slices.IndexFunc(c.Methods, func(m *Method) bool { return name != "" && m.Name == name })
	if at < 0 {
		return nil
	}
	return c.Methods[at]
}

func (c *config) enforcement(name string) *enforcement {
	at := slices.IndexFunc(c.Enforcements, func(e *enforcement) bool { return e.Name == name })
	if at < 0 {
		return nil
	}
	return c.Enforcements[at]
}

// Lookup returns a method by its id, nil if there is none.
func Lookup(view conclave.View, id string) (*Method, error) {
	c, err := load(view)
	if err != nil {
		return nil, err
	}
	return c.method(id), nil
}

// Who is somebody whose first factor was right.
type Who struct {
	Accessor, Kind string // of the auth method's mount
	EntityID       string
	FormerIDs      []string // of entities that were merged into that one
	GroupIDs       []string // all that the entity is in, inherited ones too
}

// Demand is an enforcement that a login has to meet: by any one of its methods.
type Demand struct {
	Name    string
	Methods []*Method
}

// Required returns the enforcements that a login has to meet, all of them, in order of age.
func Required(view conclave.View, who Who) ([]Demand, error) {
	c, err := load(view)
	if err != nil {
		return nil, err
	}
	var demands []Demand
	for _, e := range c.Enforcements {
		if !e.concerns(who) {
			continue
		}
		d := Demand{Name: e.Name}
		for _, id := range e.Methods {
			d.Methods = append(d.Methods, c.method(id))
		}
		demands = append(demands, d)
	}
	return demands, nil
}

func (e *enforcement) concerns(who Who) bool {
	return slices.Contains(e.Accessors, who.Accessor) || slices.Contains(e.Kinds, who.Kind) || slices.Contains(e.Entities, who.EntityID) ||
		slices.ContainsFunc(who.FormerIDs, func(id string) bool { return slices.Contains(e.Entities, id) }) ||
		slices.ContainsFunc(who.GroupIDs, func(id string) bool { return slices.Contains(e.Groups, id) })
}

// Requirement tells a client what the login that it may finish by an id still needs.
func Requirement(id string, demands []Demand) *conclave.MFARequirement {
	r := &conclave.MFARequirement{RequestID: id}
	for _, d := range demands {
		constraint := conclave.MFAConstraint{Name: d.Name}
		for _, m := range d.Methods {
			constraint.Any = append(constraint.Any, conclave.MFAMethod{Type: kind, ID: m.ID, Name: m.Name, UsesPasscode: true})
		}
		r.Constraints = append(r.Constraints, constraint)
	}
	return r
}
