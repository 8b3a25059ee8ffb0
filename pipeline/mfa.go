package pipeline

import (
	"context"
	"errors"

	"conclave"
	"conclave/identity"
	"conclave/lockout"
	"conclave/mfa"
	"conclave/mount"
	"conclave/policy"
	"conclave/store"
	"conclave/token"
)

// factorAccount begins the name under which wrong passcodes of a method are counted, where wrong passwords have the
// accessor of a mount.
const factorAccount = "mfa_totp_"

const (
	factorPending = "A login request was issued that is subject to MFA validation. Please make sure to validate the login by sending another request to sys/mfa/validate endpoint."
	factorUnasked = "Found MFA header but failed to find MFA Enforcement Config"
)

var errFactorID = conclave.Errorf(conclave.Invalid, "invalid request ID")

// factorFailure is why a login didn't get through with its second factor. Its first one was right.
type factorFailure struct {
	cause  *conclave.Error
	entity string
	wrong  []*mfa.Method // whose passcodes were looked at and weren't right
}

func (f *factorFailure) Error() string { return f.cause.Error() }

// Unwrap returns what the client is told.
func (f *factorFailure) Unwrap() error { return f.cause }

// count notes the wrong passcodes of a failed login, in the transaction of its record.
func (f *factorFailure) count(system *store.View) error {
	for _, m := range f.wrong {
		if err := lockout.Resolve(system, factorAccountOf(m, f.entity), factorSettings(m), 0, lockout.Wrong); err != nil {
			return err
		}
	}
	return nil
}

func factorAccountOf(m *mfa.Method, entityID string) lockout.Account {
	return lockout.Account{Mount: factorAccount + m.ID, Name: entityID}
}

func factorSettings(m *mfa.Method) lockout.Settings {
	return lockout.Settings{Threshold: m.MaxAttempts}
}

// secondFactor holds a login against the enforcements that concern it. With passcodes in its header it gets through or
// fails. Without, it is kept, and instead is the answer that says what is still needed.
func (r *run) secondFactor(login *conclave.Login, who identity.Attached) (instead *conclave.Response, warnings []string, err error) {
	c := r.call
	system := c.here().system
	demands, err := mfa.Required(system, mfa.Who{Accessor: c.mount.Accessor, Kind: c.mount.Kind, EntityID: who.EntityID, FormerIDs: who.FormerIDs, GroupIDs: who.GroupIDs})
	if err != nil {
		return nil, nil, err
	}
	given, err := mfa.ParseHeader(r.request.MFA)
	switch {
	case err != nil:
		return nil, nil, err
	case len(demands) == 0 && len(given) > 0:
		return nil, []string{factorUnasked}, nil
	case len(demands) == 0:
		return nil, nil, nil
	case who.EntityID == "":
		return nil, nil, conclave.Errorf(conclave.Denied, "the login needs a second factor, which only an entity can have")
	case len(given) > 0:
		return nil, nil, satisfy(system, demands, given, who.EntityID)
	}
	id, err := mfa.MintID(r.pipeline.random)
	if err != nil {
		return nil, nil, err
	}
	pending := &mfa.Pending{EntityID: who.EntityID, MountUUID: c.mount.UUID, Path: r.request.Path, Login: login}
	if err := mfa.Keep(system, id, pending); err != nil {
		return nil, nil, err
	}
	return &conclave.Response{Auth: &conclave.Auth{MFARequirement: mfa.Requirement(id, demands)}, Warnings: []string{factorPending}}, nil, nil
}

// satisfy is nil if each demand is met by a right passcode of one of its methods; those are spent. A passcode is looked at
// once for all demands, and not at all while too many wrong ones have come.
func satisfy(tx conclave.Tx, demands []mfa.Demand, given mfa.Given, entityID string) error {
	failure := &factorFailure{entity: entityID}
	judged := map[string]bool{} // id of a method → whether its passcode is right
	var right []*mfa.Method
	for _, demand := range demands {
		met := false
		for _, m := range demand.Methods {
			passcode := given.For(m, tx.Namespace())
			if passcode == "" || met {
				continue
			}
			ok, known := judged[m.ID]
			if !known {
				err := lockout.Check(tx, factorAccountOf(m, entityID), factorSettings(m))
				if conclave.Is(err, conclave.Denied) {
					continue
				}
				if err == nil {
					ok, err = m.Spend(tx, entityID, passcode)
				}
				if err != nil {
					return err
				}
				judged[m.ID] = ok
				if ok {
					right = append(right, m)
				} else {
					failure.wrong = append(failure.wrong, m)
				}
			}
			met = ok
		}
		if !met {
			failure.cause = conclave.Errorf(conclave.Denied, "failed to satisfy enforcement %s", demand.Name)
			return failure
		}
	}
	for _, m := range right {
		if err := lockout.Resolve(tx, factorAccountOf(m, entityID), factorSettings(m), 0, lockout.Right); err != nil {
			return err
		}
	}
	for _, m := range failure.wrong { // others were right: these count all the same
		if err := lockout.Resolve(tx, factorAccountOf(m, entityID), factorSettings(m), 0, lockout.Wrong); err != nil {
			return err
		}
	}
	return nil
}

// asFactorFailure finds out whether a request failed by its second factor.
func asFactorFailure(err error) *factorFailure {
	f, _ := errors.AsType[*factorFailure](err)
	return f
}

// factorSettingsOf are those of the method under whose name wrong passcodes are counted.
func factorSettingsOf(view conclave.View, methodID string) (settings lockout.Settings, ok bool, err error) {
	m, err := mfa.Lookup(view, methodID)
	if err != nil || m == nil {
		return lockout.Settings{}, false, err
	}
	return factorSettings(m), true, nil
}

type validateInput struct {
	RequestID conclave.Secret `json:"mfa_request_id" doc:"The mfa_request_id that the login has answered."`
	Payload   map[string]any  `json:"mfa_payload" doc:"Id of a method → list of its passcode."`
}

// factorRoutes finish logins.
func (r *routing) factorRoutes() []conclave.Route {
	validate := conclave.WriteRoute(conclave.Update, "mfa/validate", "Finish a login with its second factor: the answer is the login's, with the token.",
		r.validateFactor).With(conclave.Public)
	validate.Prepare = r.mint
	return []conclave.Route{validate}
}

// validateFactor finishes a login, once. What has become of who logs in is looked at again, as at a login.
func (r *routing) validateFactor(ctx context.Context, tx conclave.Tx, in *validateInput) (*conclave.Response, error) {
	minted, ok := conclave.Prepared[token.Minted](ctx)
	switch {
	case !ok:
		return nil, conclave.Errorf(conclave.Internal, "no randomness was prepared")
	case in.RequestID.Empty():
		return nil, conclave.Errorf(conclave.Invalid, "missing request ID")
	case in.Payload == nil:
		return nil, conclave.Errorf(conclave.Invalid, "missing mfa payload")
	}
	given, err := mfa.ParsePayload(in.Payload)
	if err != nil {
		return nil, err
	}
	pending, err := mfa.Take(tx, in.RequestID.Reveal())
	if err != nil {
		return nil, err
	}
	if pending == nil {
		return nil, errFactorID
	}
	who, err := identity.Of(tx, pending.EntityID)
	if err != nil {
		return nil, err
	}
	if who == nil || who.Disabled || !conclave.MayComeFrom(pending.Login.Terms.BoundCIDRs, tx.Request().Remote.Addr()) {
		return nil, errDenied
	}
	table, err := mount.Load(tx, r.defaults)
	if err != nil {
		return nil, err
	}
	entry := table.ByUUID(pending.MountUUID)
	if entry == nil || !entry.Auth() {
		return nil, errMountGone
	}
	demands, err := mfa.Required(tx, mfa.Who{Accessor: entry.Accessor, Kind: entry.Kind, EntityID: who.ID, FormerIDs: who.FormerIDs(), GroupIDs: who.GroupIDs})
	if err != nil {
		return nil, err
	}
	if err := satisfy(tx, demands, given, who.ID); err != nil {
		return nil, err
	}
	granted := token.Granted{EntityID: who.ID, Policies: policy.WithoutRoot(who.Policies)}
	return token.Login(tx, minted, pending.Login, granted, entry.Mount(), pending.Path)
}
