package userpass

import (
	"context"
	"encoding/json"
	"maps"
	"slices"

	"conclave"
)

const loginDoc = `Log in with a name and a password.
A wrong password, a name that nobody has and an address that the user may not come from are answered alike.`

type loginIn struct {
	Name     string          `path:"username" doc:"Name of the user, in any case."`
	Password conclave.Secret `json:"password" doc:"The password."`
}

// known is what a password is compared with.
type known struct {
	hash string // empty if there is no such user
	cost int    // that the comparison takes
}

// remembered is what a token keeps of its login, for renewals.
type remembered struct {
	Name string `json:"username"`
	UID  string `json:"uid"`
}

func (e *Engine) loginRoute() conclave.Route {
	route := conclave.WriteRoute(conclave.Update, "login/{username}", loginDoc, login).With(conclave.Public)
	route.Guess = func(_ *conclave.Request, in any) string {
		name, _ := normalName(in.(*loginIn).Name)
		return name // empty if nobody can have it
	}
	route.Gather = func(view conclave.View, in any) (any, error) {
		u, err := userNamed(view, in.(*loginIn).Name)
		if err != nil {
			return nil, err
		}
		cost, err := costOf(view, e.cost)
		if err != nil {
			return nil, err
		}
		if u == nil {
			return known{cost: cost}, nil
		}
		return known{hash: u.Hash, cost: cost}, nil
	}
	route.Prepare = func(ctx context.Context, _ *conclave.Request, in any) (any, error) {
		k, ok := conclave.Gathered[known](ctx)
		if !ok {
			return nil, conclave.Errorf(conclave.Internal, "nothing was gathered for a login")
		}
		password := in.(*loginIn).Password.Reveal()
		if err := checkPassword(password); err != nil {
			return nil, err
		}
		done, err := e.turns.take(ctx)
		if err != nil {
			return nil, err
		}
		defer done()
		return matched(matches([]byte(k.hash), password, k.cost)), nil
	}
	return route
}

// matched tells whether the password is that of the user as gathered.
type matched bool

func errLogin() error { return conclave.Errorf(conclave.Invalid, "invalid username or password") }

func login(ctx context.Context, tx conclave.Tx, in *loginIn) (*conclave.Response, error) {
	u, err := userNamed(tx, in.Name)
	if err != nil {
		return nil, err
	}
	same, _ := conclave.Prepared[matched](ctx)
	if u == nil || !bool(same) || !conclave.MayComeFrom(u.Settings.BoundCIDRs, tx.Request().Remote.Addr()) {
		return nil, errLogin()
	}
	name, _ := normalName(in.Name)
	internal, err := json.Marshal(remembered{name, u.UID})
	if err != nil {
		return nil, conclave.Errorf(conclave.Internal, "encode login: %w", err)
	}
	metadata := maps.Clone(u.Settings.AliasMetadata)
	if metadata == nil {
		metadata = map[string]string{}
	}
	metadata["username"] = name
	return &conclave.Response{Login: &conclave.Login{
		Alias: conclave.Alias{Name: name, Metadata: metadata}, Terms: u.Settings.TokenTerms, Metadata: map[string]string{"username": name},
		DisplayName: name, Renewable: true, Internal: internal,
	}}, nil
}

// RenewLogin refuses when the user is gone, also if another one has the name since, and when the policies have changed.
// What the user's settings say of times holds from now on.
func (*Engine) RenewLogin(_ context.Context, view conclave.View, login *conclave.Login) (*conclave.TokenTerms, error) {
	var of remembered
	if err := json.Unmarshal(login.Internal, &of); err != nil {
		return nil, conclave.Errorf(conclave.Internal, "the stored record of a login is damaged")
	}
	u, err := userNamed(view, of.Name)
	if err != nil {
		return nil, err
	}
	if u == nil || u.UID != of.UID {
		return nil, conclave.Errorf(conclave.Invalid, "the user does not exist any more, not renewing")
	}
	if !slices.Equal(ofItself(u.Settings.Policies), ofItself(login.Terms.Policies)) {
		return nil, conclave.Errorf(conclave.Invalid, "policies have changed, not renewing")
	}
	terms := u.Settings.TokenTerms // its own copy: what is loaded is shared
	return &terms, nil
}

// ofItself are policies in order, each once, without the one that the vault adds.
func ofItself(policies []string) []string {
	list := slices.DeleteFunc(slices.Clone(policies), func(name string) bool { return name == "default" })
	slices.Sort(list)
	return slices.Compact(list)
}
