package approle

import (
	"context"
	"encoding/json"
	"maps"
	"strings"

	"conclave"
)

// stranger stands for the role of a role-id that there is none of, so that looking it up takes the same steps.
func stranger() *role {
	return &role{UID: "-", Key: make([]byte, keyBytes), Settings: settings{BindSecretID: true}}
}

// remembered is what a token keeps of its login, for renewals.
type remembered struct {
	Role string `json:"role_name"`
	UID  string `json:"role_uid"`
}

const loginDoc = `Log in with a role-id and a secret-id.
A role without bind_secret_id needs no secret-id, but an address that it allows. A secret-id that is wrong, used up,
expired or missing, and a role-id that there is none of, are all answered alike. A login that fails takes no use.`

type loginIn struct {
	RoleID   string          `json:"role_id" doc:"The role-id."`
	SecretID conclave.Secret `json:"secret_id" doc:"The secret-id."`
}

// loginRoute has no Guess: a role-id is no secret and a whole fleet's, so that a lock would let anybody, or one host with
// an old secret-id, shut the fleet out; and what would be guessed has 122 random bits.
func loginRoute() conclave.Route {
	return conclave.WriteRoute(conclave.Update, "login", loginDoc, login).With(conclave.Public)
}

func errLogin() error { return conclave.Errorf(conclave.Invalid, "invalid role or secret ID") }

func login(_ context.Context, tx conclave.Tx, in *loginIn) (*conclave.Response, error) {
	roleID := strings.TrimSpace(in.RoleID)
	if roleID == "" {
		return nil, conclave.Errorf(conclave.Invalid, "missing role_id")
	}
	r, err := roleByID(tx, roleID)
	if err != nil {
		return nil, err
	}
	if r == nil {
		r = stranger()
	}
	s := &secretID{}
	if r.Settings.BindSecretID {
		if s, err = r.present(tx, strings.TrimSpace(in.SecretID.Reveal())); err != nil {
			return nil, err
		}
	}
	networks, err := r.admit(tx.Request(), s)
	if err != nil {
		return nil, err
	}
	metadata := make(map[string]string, len(s.Metadata)+1)
	maps.Copy(metadata, s.Metadata)
	metadata["role_name"] = r.Name
	known := metadata
	if len(r.Settings.AliasMetadata) > 0 {
		known = maps.Clone(r.Settings.AliasMetadata)
		maps.Copy(known, metadata)
	}
	terms := r.Settings.TokenTerms
	terms.BoundCIDRs = networks
	return &conclave.Response{Login: &conclave.Login{
		Alias: conclave.Alias{Name: r.RoleID, Metadata: known}, Terms: terms, Metadata: metadata, Role: r.Name, Renewable: true, Internal: r.internal,
	}}, nil
}

// present finds the secret-id that is presented, and takes a use of it.
func (r *role) present(tx conclave.Tx, secret string) (*secretID, error) {
	if len(secret) > maxSecretID {
		return nil, errLogin()
	}
	hash := r.hash(secret)
	s, err := secretAt(tx, hash)
	if err != nil {
		return nil, err
	}
	if s == nil || s.expired(tx) {
		return nil, errLogin()
	}
	return s, s.use(tx, hash, errLogin())
}

// admit checks where the login comes from, and returns the networks that its token may be used from. Who presents a
// secret-id is told that the address is the reason; who presents a role-id alone isn't told that the role exists.
func (r *role) admit(request *conclave.Request, s *secretID) ([]string, error) {
	refuse := func(by string) error {
		if !r.Settings.BindSecretID {
			return errLogin()
		}
		return conclave.Errorf(conclave.Invalid, "source address unauthorized by CIDR restrictions on the %s", by)
	}
	from := request.Remote.Addr()
	if !conclave.MayComeFrom(r.Settings.SecretIDBoundCIDRs, from) {
		return nil, refuse("role")
	}
	if !conclave.MayComeFrom(s.CIDRs, from) {
		return nil, refuse("secret ID")
	}
	networks, none, err := common(s.TokenCIDRs, r.Settings.BoundCIDRs)
	if err != nil {
		return nil, err
	}
	if none || !conclave.MayComeFrom(networks, from) {
		return nil, refuse("token")
	}
	return networks, nil
}

// RenewLogin refuses when the role is gone, also if another one has its name since. What the role says of times holds
// from now on; policies stay as they were at the login.
func (Engine) RenewLogin(_ context.Context, view conclave.View, login *conclave.Login) (*conclave.TokenTerms, error) {
	var of remembered
	if err := json.Unmarshal(login.Internal, &of); err != nil {
		return nil, damaged("login")
	}
	r, err := roleNamed(view, of.Role)
	if err != nil {
		return nil, err
	}
	if r == nil || r.UID != of.UID {
		return nil, conclave.Errorf(conclave.Invalid, "role %q does not exist during renewal", of.Role)
	}
	terms := r.Settings.TokenTerms // its own copy: what is loaded is shared
	return &terms, nil
}
