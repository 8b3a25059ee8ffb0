package token

import "conclave"

// CallerByAccessor describes the live token behind an accessor to those who ask what it may do; nil if there is none.
func CallerByAccessor(view conclave.View, accessor string) (*conclave.Caller, error) {
	r, err := seekAccessor(view, accessor)
	if err != nil || r == nil {
		return nil, err
	}
	return r.caller, nil
}

// Exists reports whether there is a token stored under a name, alive or not yet cleared away.
func Exists(view conclave.View, name string) (bool, error) {
	r, err := load(view, name)
	return r != nil, err
}
