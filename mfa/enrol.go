package mfa

import (
	"context"
	"io"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/totp"

	"conclave"
	"conclave/internal/passcode"
)

func (s *Setup) enrolRoutes() []conclave.Route {
	const once = "The answer is the only one that shows it; who has one already gets a warning and no other."
	self := conclave.WriteRoute(conclave.Update, "mfa/method/totp/generate", "Make the caller's own key. "+once, s.storeKey)
	admin := conclave.WriteRoute(conclave.Update, "mfa/method/totp/admin-generate", "Make an entity's key. "+once, s.storeKey)
	self.Gather, admin.Gather = s.gatherSelf, s.gatherOther
	self.Prepare, admin.Prepare = s.makeKey, s.makeKey
	return []conclave.Route{self, admin,
		conclave.WriteRoute(conclave.Update, "mfa/method/totp/admin-destroy", "Destroy an entity's key, so that another can be made.", s.destroyKey)}
}

type keyInput struct {
	MethodID string `json:"method_id" doc:"The method's id."`
	EntityID string `json:"entity_id" doc:"The entity's id; one's own key is made for oneself."`
}

type keyOutput struct {
	Barcode string `json:"barcode" doc:"A picture of the URL for authenticators: base64 of a PNG; empty if qr_size is 0."`
	URL     string `json:"url" doc:"Sets up an authenticator: otpauth://…"`
}

// enrolment is who gets a key for what.
type enrolment struct {
	Method   Method
	EntityID string
	Enrolled bool // has one already
}

// made is a new key, shown once; no key if there is one already.
type made struct {
	entityID string
	key      []byte
	out      keyOutput
}

func (s *Setup) gatherSelf(view conclave.View, in any) (any, error) {
	caller := view.Caller()
	if caller == nil || caller.EntityID == "" || caller.Home.ID != view.Namespace().ID {
		return nil, conclave.Errorf(conclave.Invalid, "the token has no entity in this namespace")
	}
	return s.enrolment(view, in.(*keyInput).MethodID, caller.EntityID)
}

func (s *Setup) gatherOther(view conclave.View, in any) (any, error) {
	return s.enrolment(view, in.(*keyInput).MethodID, in.(*keyInput).EntityID)
}

func (s *Setup) enrolment(view conclave.View, methodID, entityID string) (*enrolment, error) {
	m, err := s.find(view, methodID, entityID)
	if err != nil {
		return nil, err
	}
	old, err := loadSecret(view, entityID, methodID)
	if err != nil {
		return nil, err
	}
	return &enrolment{*m, entityID, old != nil}, nil
}

// find returns a method, and checks that the entity is there.
func (s *Setup) find(view conclave.View, methodID, entityID string) (*Method, error) {
	switch {
	case methodID == "":
		return nil, conclave.Errorf(conclave.Invalid, "missing method ID")
	case entityID == "":
		return nil, conclave.Errorf(conclave.Invalid, "missing entity ID")
	}
	m, err := Lookup(view, methodID)
	if err != nil {
		return nil, err
	}
	if m == nil {
		return nil, conclave.Errorf(conclave.Invalid, "the method does not exist")
	}
	if !isID(entityID) {
		return nil, conclave.Errorf(conclave.Invalid, "invalid entity ID")
	}
	there, err := s.Directory.Entity(view, entityID)
	if err == nil && !there {
		err = conclave.Errorf(conclave.Invalid, "invalid entity ID")
	}
	return m, err
}

// makeKey makes a key and what sets up an authenticator with it.
func (s *Setup) makeKey(ctx context.Context, _ *conclave.Request, _ any) (any, error) {
	e, ok := conclave.Gathered[*enrolment](ctx)
	if !ok {
		return nil, conclave.Errorf(conclave.Internal, "no method was gathered")
	}
	if e.Enrolled {
		return &made{entityID: e.EntityID}, nil
	}
	key := make([]byte, e.Method.KeySize)
	if _, err := io.ReadFull(s.Random, key); err != nil {
		return nil, conclave.Errorf(conclave.Internal, "no randomness for a key")
	}
	set, err := totp.Generate(totp.GenerateOpts{Issuer: e.Method.Issuer, AccountName: e.EntityID, Period: uint(e.Method.Period),
		Secret: key, Digits: otp.Digits(e.Method.Digits), Algorithm: passcode.Algorithms[e.Method.Algorithm]})
	if err != nil {
		return nil, conclave.Errorf(conclave.Internal, "the key can't be written as a URL")
	}
	m := &made{entityID: e.EntityID, key: key, out: keyOutput{URL: set.URL()}}
	if e.Method.QRSize > 0 {
		if m.out.Barcode, err = passcode.Picture(set, e.Method.QRSize); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// storeKey stores what was prepared for what was gathered; both are of this transaction's state.
func (s *Setup) storeKey(ctx context.Context, tx conclave.Tx, in *keyInput) (*conclave.Response, error) {
	m, ok := conclave.Prepared[*made](ctx)
	if !ok {
		return nil, conclave.Errorf(conclave.Internal, "no key was prepared")
	}
	method, err := s.find(tx, in.MethodID, m.entityID)
	if err != nil {
		return nil, err
	}
	if m.key == nil {
		return &conclave.Response{Warnings: []string{"Entity already has a secret for MFA method " + method.Name + "; destroy it to make another"}}, nil
	}
	k := &secret{Key: m.key, Algorithm: method.Algorithm, Digits: method.Digits, Period: method.Period}
	return &conclave.Response{Data: &m.out}, k.save(tx, m.entityID, method.ID)
}

func (s *Setup) destroyKey(_ context.Context, tx conclave.Tx, in *keyInput) (*conclave.None, error) {
	m, err := s.find(tx, in.MethodID, in.EntityID)
	if err != nil {
		return nil, err
	}
	return nil, tx.Delete(secretPath(in.EntityID, m.ID))
}
