package mfa

import (
	"context"
	"slices"

	"conclave"
	"conclave/internal/passcode"
)

func (s *Setup) methodRoutes() []conclave.Route {
	create := conclave.WriteRoute(conclave.Update, "mfa/method/totp", "Set up a method, or change the one of that name.", s.createMethod).With(s.minting)
	return []conclave.Route{
		conclave.ReadRoute(conclave.List, "mfa/method", "List all methods.", s.listMethods),
		conclave.ReadRoute(conclave.Read, "mfa/method/{method_id}", "Read a method.", s.readMethod),
		conclave.ReadRoute(conclave.List, "mfa/method/totp", "List the methods of passcodes.", s.listMethods),
		create,
		conclave.ReadRoute(conclave.Read, "mfa/method/totp/{method_id}", "Read a method.", s.readMethod),
		conclave.WriteRoute(conclave.Update, "mfa/method/totp/{method_id}", "Change a method: what isn't given is the default again. "+
			"Authenticators that are set up already stay as they are, but for the skew.", s.updateMethod),
		conclave.WriteRoute(conclave.Delete, "mfa/method/totp/{method_id}", "Delete a method with all keys of it. No enforcement may need it.", s.deleteMethod),
	}
}

type methodFields struct {
	Name        string            `json:"method_name" doc:"Names the method in the header X-Vault-MFA."`
	Issuer      string            `json:"issuer" doc:"Shown by authenticators as whose passcodes they are."`
	Period      *conclave.Seconds `json:"period" doc:"How long a passcode is shown, at most an hour; 30 seconds by default."`
	KeySize     *int              `json:"key_size" doc:"Bytes of the keys, 16 to 128; 20 by default."`
	QRSize      *int              `json:"qr_size" doc:"Width of the picture for authenticators in pixels, at most 1024; 200 by default, 0 is none."`
	Algorithm   *string           `json:"algorithm" doc:"SHA1 (the default), SHA256 or SHA512."`
	Digits      *int              `json:"digits" doc:"Of a passcode: 6 (the default) or 8."`
	Skew        *int64            `json:"skew" doc:"How many passcodes before and after the present one are taken: 0 or 1 (the default)."`
	MaxAttempts *int              `json:"max_validation_attempts" doc:"After how many wrong passcodes none is taken from somebody for 15 minutes; 5 by default."`
}

type createInput struct {
	methodFields
	ID string `json:"method_id" doc:"Change the method of this id."`
}

type methodInput struct {
	ID string `path:"method_id" doc:"The method's id."`
}

type updateInput struct {
	methodFields
	ID string `path:"method_id" doc:"The method's id."`
}

type createOutput struct {
	ID string `json:"method_id" doc:"The method's id."`
}

type methodOutput struct {
	Algorithm     string           `json:"algorithm" doc:"Of the passcodes."`
	Digits        int              `json:"digits" doc:"Of a passcode."`
	ID            string           `json:"id" doc:"Names the method for ever."`
	Issuer        string           `json:"issuer" doc:"Shown by authenticators."`
	KeySize       int              `json:"key_size" doc:"Bytes of the keys."`
	MaxAttempts   int              `json:"max_validation_attempts" doc:"Wrong passcodes that lock."`
	Name          string           `json:"name" doc:"Its name, if it has one."`
	NamespaceID   string           `json:"namespace_id" doc:"The namespace; root for the root namespace."`
	NamespacePath string           `json:"namespace_path" doc:"The path of that."`
	Period        conclave.Seconds `json:"period" doc:"How long a passcode is shown."`
	QRSize        int              `json:"qr_size" doc:"Width of the picture in pixels."`
	Skew          int64            `json:"skew" doc:"Passcodes before and after that are taken."`
	Type          string           `json:"type" doc:"totp."`
}

func (m *Method) describe(at conclave.Namespace) *methodOutput {
	return &methodOutput{m.Algorithm, m.Digits, m.ID, m.Issuer, m.KeySize, m.MaxAttempts, m.Name, at.ID, at.Path, m.Period, m.QRSize, m.Skew, kind}
}

func or[T any](given *T, usual T) T {
	if given == nil {
		return usual
	}
	return *given
}

// method is what the fields say, with the defaults.
func (in *methodFields) method(id string) (*Method, error) {
	m := &Method{ID: id, Name: in.Name, Issuer: in.Issuer, Period: or(in.Period, 30), KeySize: or(in.KeySize, 20), QRSize: or(in.QRSize, 200),
		Algorithm: or(in.Algorithm, "SHA1"), Digits: or(in.Digits, 6), Skew: or(in.Skew, 1), MaxAttempts: or(in.MaxAttempts, 0)}
	if m.MaxAttempts == 0 {
		m.MaxAttempts = 5
	}
	return m, m.check()
}

func checkPasscodes(algorithm string, digits int, period conclave.Seconds) error {
	_, known := passcode.Algorithms[algorithm]
	switch {
	case !known:
		return conclave.Errorf(conclave.Invalid, "unrecognized algorithm")
	case digits != 6 && digits != 8:
		return conclave.Errorf(conclave.Invalid, "digits can only be 6 or 8")
	case period <= 0 || period > 3600:
		return conclave.Errorf(conclave.Invalid, "period must be greater than zero, and at most an hour")
	}
	return nil
}

func (m *Method) check() error {
	if err := checkPasscodes(m.Algorithm, m.Digits, m.Period); err != nil {
		return err
	}
	switch {
	case m.Skew != 0 && m.Skew != 1:
		return conclave.Errorf(conclave.Invalid, "skew must be 0 or 1")
	case m.KeySize < 16 || m.KeySize > 128: // RFC 4226 section 4, R6
		return conclave.Errorf(conclave.Invalid, "key_size must be 16 to 128 bytes")
	case m.QRSize < 0 || m.QRSize > 1024 || m.QRSize > 0 && m.QRSize < 100:
		return conclave.Errorf(conclave.Invalid, "qr_size must be 0, or 100 to 1024 pixels")
	case m.Issuer == "":
		return conclave.Errorf(conclave.Invalid, "issuer must be set")
	case m.MaxAttempts < 1 || m.MaxAttempts > 100:
		return conclave.Errorf(conclave.Invalid, "max_validation_attempts must be 1 to 100")
	}
	if err := checkName("an issuer", m.Issuer); err != nil {
		return err
	}
	return checkName("a method's name", m.Name)
}

func (s *Setup) createMethod(ctx context.Context, tx conclave.Tx, in *createInput) (*createOutput, error) {
	id, err := minted(ctx)
	if err != nil {
		return nil, err
	}
	c, err := load(tx)
	if err != nil {
		return nil, err
	}
	if in.ID != "" {
		if c.method(in.ID) == nil {
			return nil, notFound()
		}
		id = in.ID
	} else if same := c.methodNamed(in.Name); same != nil {
		id = same.ID
	}
	return &createOutput{id}, c.putMethod(tx, id, &in.methodFields)
}

func (s *Setup) updateMethod(_ context.Context, tx conclave.Tx, in *updateInput) (*conclave.None, error) {
	c, err := load(tx)
	if err != nil {
		return nil, err
	}
	if c.method(in.ID) == nil {
		return nil, notFound()
	}
	return nil, c.putMethod(tx, in.ID, &in.methodFields)
}

// putMethod stores a method, in the place of the one with its id. A name that isn't given stays.
func (c *config) putMethod(tx conclave.Tx, id string, in *methodFields) error {
	m, err := in.method(id)
	if err != nil {
		return err
	}
	at := slices.IndexFunc(c.Methods, func(m *Method) bool { return m.ID == id })
	if at >= 0 && m.Name == "" {
		m.Name = c.Methods[at].Name
	}
	if same := c.methodNamed(m.Name); same != nil && same.ID != id {
		return conclave.Errorf(conclave.Invalid, "a login MFA method configuration with the method name %s already exists", m.Name)
	}
	changed := c.clone()
	switch {
	case at >= 0:
		changed.Methods[at] = m
	case len(c.Methods) >= MaxMethods:
		return conclave.Errorf(conclave.Invalid, "a namespace has at most %d methods", MaxMethods)
	default:
		changed.Methods = append(changed.Methods, m)
	}
	return changed.save(tx)
}

func (s *Setup) readMethod(_ context.Context, view conclave.View, in *methodInput) (*methodOutput, error) {
	m, err := Lookup(view, in.ID)
	if err != nil {
		return nil, err
	}
	if m == nil {
		return nil, notFound()
	}
	return m.describe(view.Namespace()), nil
}

func (s *Setup) listMethods(_ context.Context, view conclave.View, _ *conclave.None) (*conclave.Keys, error) {
	c, err := load(view)
	if err != nil {
		return nil, err
	}
	keys := &conclave.Keys{KeyInfo: map[string]any{}}
	for _, m := range c.Methods {
		keys.Keys, keys.KeyInfo[m.ID] = append(keys.Keys, m.ID), m.describe(view.Namespace())
	}
	return keys, nil
}

func (s *Setup) deleteMethod(_ context.Context, tx conclave.Tx, in *methodInput) (*conclave.None, error) {
	c, err := load(tx)
	if err != nil || c.method(in.ID) == nil {
		return nil, err
	}
	for _, e := range c.Enforcements {
		if slices.Contains(e.Methods, in.ID) {
			return nil, conclave.Errorf(conclave.Invalid, "the method is used by the login enforcement %q: it can't be deleted", e.Name)
		}
	}
	changed := c.clone()
	changed.Methods = slices.DeleteFunc(changed.Methods, func(m *Method) bool { return m.ID == in.ID })
	return nil, changed.save(tx) // its keys, which nothing leads to any more, are for Tidy
}
