package mfa

import (
	"strings"

	"conclave"
)

// Limits of what a client gives at once.
const (
	maxGiven    = 64   // methods
	maxPasscode = 1024 // bytes
)

// Given are the passcodes that a client gives, as text: id or name of a method → passcode, empty if it gives none.
type Given map[string]string

// ParseHeader reads the values of the header X-Vault-MFA: each is METHOD or METHOD:PASSCODE, where METHOD is the method's
// id or name.
func ParseHeader(values []conclave.Secret) (Given, error) {
	given := Given{}
	for _, value := range values {
		name, passcode, valued := strings.Cut(value.Reveal(), ":")
		if name == "" && !valued {
			continue
		}
		if name == "" || valued && passcode == "" {
			return nil, conclave.Errorf(conclave.Invalid, "failed to parse X-Vault-MFA header: it is METHOD or METHOD:PASSCODE")
		}
		if err := given.add(name, passcode); err != nil {
			return nil, err
		}
	}
	return given, nil
}

// ParsePayload reads what sys/mfa/validate is given: id of a method → list of passcodes, of which there can be one.
func ParsePayload(payload map[string]any) (Given, error) {
	given := Given{}
	for name, value := range payload {
		list, ok := value.([]any)
		if !ok && value != nil {
			list = []any{value}
		}
		if len(list) == 0 {
			list = []any{""}
		}
		for _, item := range list {
			passcode, ok := item.(string)
			if !ok {
				return nil, conclave.Errorf(conclave.Invalid, "invalid mfa payload: passcodes are strings")
			}
			if err := given.add(name, passcode); err != nil {
				return nil, err
			}
		}
	}
	return given, nil
}

func (g Given) add(name, passcode string) error {
	if text, ok := strings.CutPrefix(passcode, "passcode="); ok {
		passcode = text
	}
	switch {
	case g[name] != "" && passcode != "":
		return conclave.Errorf(conclave.Invalid, "found multiple passcodes for the same MFA method")
	case len(passcode) > maxPasscode || len(name) > maxText:
		return conclave.Errorf(conclave.Invalid, "the name of an MFA method or a passcode is too long")
	case len(g) >= maxGiven:
		return conclave.Errorf(conclave.Invalid, "passcodes of more than %d MFA methods", maxGiven)
	case g[name] == "":
		g[name] = passcode
	}
	return nil
}

// For returns the passcode that was given for a method, empty if none was: by the method's id, else by its name, which may
// have the path of the namespace before it.
func (g Given) For(m *Method, namespace conclave.Namespace) string {
	if passcode, ok := g[m.ID]; ok || m.Name == "" {
		return passcode
	}
	if passcode, ok := g[namespace.Path+m.Name]; ok {
		return passcode
	}
	return g[m.Name]
}
