package kubernetes

import (
	"context"
	"encoding/json"

	"conclave"
)

const loginDoc = `Log in with the token of a service account.
The Kubernetes API server judges the token; name, namespace and audience must be those that the role asks for.`

type loginIn struct {
	Role string          `json:"role" doc:"The role to log in with."`
	JWT  conclave.Secret `json:"jwt" doc:"The service account's token."`
}

// asked is what a login works from.
type asked struct {
	config *config
	role   *role
	name   string // the role's, in its one spelling
}

func gatherLogin(view conclave.View, input any) (any, error) { return find(view, input.(*loginIn)) }

// find reads what a login works from, and refuses those that can't succeed.
func find(view conclave.View, in *loginIn) (*asked, error) {
	if in.Role == "" {
		return nil, conclave.Errorf(conclave.Invalid, "missing role")
	}
	if in.JWT.Empty() {
		return nil, conclave.Errorf(conclave.Invalid, "missing jwt")
	}
	name, err := roleName(in.Role)
	if err != nil {
		return nil, err
	}
	found, err := loadRole(view, name)
	if err != nil {
		return nil, err
	}
	if found == nil {
		return nil, conclave.Errorf(conclave.Invalid, "invalid role name %q", name)
	}
	if !conclave.MayComeFrom(found.BoundCIDRs, view.Request().Remote.Addr()) {
		return nil, conclave.Errorf(conclave.Denied, "permission denied")
	}
	cfg, err := loadConfig(view)
	if err != nil {
		return nil, err
	}
	if cfg == nil {
		return nil, conclave.Errorf(conclave.Invalid, "could not load backend configuration")
	}
	return &asked{cfg, found, name}, nil
}

func login(ctx context.Context, view conclave.View, in *loginIn) (*conclave.Response, error) {
	found, err := find(view, in)
	if err != nil {
		return nil, err
	}
	token, ok := conclave.Prepared[*reviewed](ctx)
	if !ok {
		return nil, conclave.Errorf(conclave.Internal, "the token has not been reviewed")
	}
	if err := token.claims.CheckGivenTimes(view.Reached); err != nil {
		return nil, conclave.Errorf(conclave.Denied, "%w", err)
	}
	who := token.who
	about := func() map[string]string {
		return map[string]string{"service_account_uid": who.uid, "service_account_name": who.name, "service_account_namespace": who.namespace,
			"service_account_secret_name": who.secret}
	}
	alias := conclave.Alias{Name: who.uid, Metadata: about()}
	if found.role.AliasFrom == aliasName {
		alias.Name = who.namespace + "/" + who.name
	}
	metadata := about()
	metadata["role"] = found.name
	internal, err := json.Marshal(remembered{found.name})
	return &conclave.Response{Login: &conclave.Login{
		Alias: alias, Terms: found.role.TokenTerms, Metadata: metadata, DisplayName: who.namespace + "-" + who.name,
		Role: found.name, Renewable: true, Internal: internal,
	}}, err
}

// remembered is kept with the tokens of a login.
type remembered struct {
	Role string `json:"role"`
}

// RenewLogin wants the role to be there still, and returns its present terms.
func (e *Engine) RenewLogin(_ context.Context, view conclave.View, login *conclave.Login) (*conclave.TokenTerms, error) {
	var from remembered
	if err := json.Unmarshal(login.Internal, &from); err != nil || from.Role == "" {
		return nil, conclave.Errorf(conclave.Internal, "the login's role is not known")
	}
	found, err := loadRole(view, from.Role)
	if err != nil {
		return nil, err
	}
	if found == nil {
		return nil, conclave.Errorf(conclave.Invalid, "role %s does not exist during renewal", from.Role)
	}
	terms := found.TokenTerms
	return &terms, nil
}
