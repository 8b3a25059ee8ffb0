package jwt

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"conclave"
)

// role says which tokens let in, as whom and on which terms. It is stored below "role/" as JSON.
type role struct {
	conclave.TokenTerms
	Type             string            `json:"role_type" doc:"oidc (the default) for logins with a browser, jwt for tokens sent to login."`
	ExpiryLeeway     conclave.Seconds  `json:"expiration_leeway" doc:"What a token without exp lives for; 0 is 150 s, -1 none. For roles of type jwt."`
	NotBeforeLeeway  conclave.Seconds  `json:"not_before_leeway" doc:"How long before exp a token without nbf and iat begins; 0 is 150 s, -1 none. For roles of type jwt."`
	SkewLeeway       conclave.Seconds  `json:"clock_skew_leeway" doc:"How far the issuer's clock may be off; 0 is 60 s, -1 not at all. For roles of type jwt."`
	BoundAudiences   []string          `json:"bound_audiences" doc:"One of these must be in the claim aud."`
	BoundSubject     string            `json:"bound_subject" doc:"What the claim sub must be; empty is anything."`
	BoundClaimsType  string            `json:"bound_claims_type" doc:"string (the default), or glob: values of bound_claims may have stars that stand for any text."`
	BoundClaims      map[string]any    `json:"bound_claims" doc:"Claims that must have a value, or one of a list of values. A name that begins with / is a JSON pointer."`
	ClaimMappings    map[string]string `json:"claim_mappings" doc:"Claims that are copied to metadata: claim or JSON pointer, then the name in the metadata."`
	UserClaim        string            `json:"user_claim" doc:"The claim that says who logs in."`
	UserClaimPointer bool              `json:"user_claim_json_pointer" doc:"A user_claim that begins with / is a JSON pointer."`
	GroupsClaim      string            `json:"groups_claim" doc:"The claim that lists groups, or a JSON pointer to it."`
	Scopes           []string          `json:"oidc_scopes" doc:"Scopes to ask the issuer for, beside openid."`
	RedirectURIs     []string          `json:"allowed_redirect_uris" doc:"Where a browser may be sent after the login. Ports of loopback addresses don't matter."`
	VerboseLogging   bool              `json:"verbose_oidc_logging" doc:"Has no effect: tokens and claims are never logged."`
	MaxAge           conclave.Seconds  `json:"max_age" doc:"How long ago a person may have authenticated to the issuer; 0 is any time. For roles of type oidc."`
}

// reservedMetadata can't be the target of a claim.
const reservedMetadata = "role"

// oldNames are fields that clients of older versions send: old name → name.
var oldNames = map[string]string{"policies": "token_policies", "num_uses": "token_num_uses", "ttl": "token_ttl", "max_ttl": "token_max_ttl",
	"period": "token_period", "bound_cidrs": "token_bound_cidrs"}

// roleName brings a role's name into its one spelling.
func roleName(name string) (string, error) {
	name = strings.ToLower(name)
	isWord := func(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '_' }
	if name == "" || len(name) > maxRoleName || !isWord(name[0]) || !isWord(name[len(name)-1]) {
		return "", conclave.Errorf(conclave.Invalid, "invalid role name")
	}
	for _, c := range []byte(name) {
		if !isWord(c) && c != '-' && c != '.' {
			return "", conclave.Errorf(conclave.Invalid, "invalid role name")
		}
	}
	return name, nil
}

// loadRole returns a role, which is shared and must not be changed; nil if there is none. The name is in its one spelling.
func loadRole(view conclave.View, name string) (*role, error) {
	loaded, err := view.Load(roleDir+name, decodeRole)
	if loaded == nil || err != nil {
		return nil, err
	}
	return loaded.(*role), nil
}

func decodeRole(value []byte) (any, error) {
	r := &role{}
	decoder := json.NewDecoder(bytes.NewReader(value))
	decoder.UseNumber()
	if err := decoder.Decode(r); err != nil {
		return nil, conclave.Errorf(conclave.Internal, "the role can't be decoded")
	}
	return r, nil
}

const roleListDoc = `List the roles.`

func listRoles(_ context.Context, view conclave.View, in *listIn) (*conclave.Keys, error) {
	names, err := view.List(roleDir, in.After, in.Limit)
	return &conclave.Keys{Keys: names}, err
}

type listIn struct {
	After string `json:"after" doc:"Begin after this name."`
	Limit int    `json:"limit" doc:"How many names to answer; 0 is all."`
}

type roleIn struct {
	Name string `path:"name" doc:"The role's name. Case doesn't matter."`
}

const roleReadDoc = `Read a role.`

func readRole(_ context.Context, view conclave.View, in *roleIn) (*role, error) {
	name, err := roleName(in.Name)
	if err != nil {
		return nil, &conclave.Error{Kind: conclave.NotFound}
	}
	found, err := loadRole(view, name)
	if err == nil && found == nil {
		err = &conclave.Error{Kind: conclave.NotFound}
	}
	return found, err
}

const roleDeleteDoc = `Delete a role. Tokens that were given stay, but can't be renewed.`

func deleteRole(_ context.Context, tx conclave.Tx, in *roleIn) (*conclave.None, error) {
	name, err := roleName(in.Name)
	if err != nil {
		return nil, err
	}
	return nil, tx.Delete(roleDir + name)
}

const roleWriteDoc = `Make or change a role. What isn't given stays as it is.`

type roleWriteIn struct {
	roleIn
	role
	Fields map[string]any `json:"*"`
}

func roleExists(view conclave.View, input any) (bool, error) {
	name, err := roleName(input.(*roleWriteIn).Name)
	if err != nil {
		return false, err
	}
	found, err := loadRole(view, name)
	return found != nil, err
}

func writeRole(_ context.Context, tx conclave.Tx, in *roleWriteIn) (*conclave.Response, error) {
	name, err := roleName(in.Name)
	if err != nil {
		return nil, err
	}
	written := role{Type: "oidc", BoundClaimsType: "string"}
	old, err := loadRole(tx, name)
	if err != nil {
		return nil, err
	}
	if old != nil {
		written = *old
	}
	fields := maps.Clone(in.Fields)
	for before, now := range oldNames {
		if value, given := fields[before]; given {
			if _, both := fields[now]; !both {
				fields[now] = value
			}
		}
	}
	if err := conclave.Merge(&written, fields); err != nil {
		return nil, err
	}
	if err := written.check(); err != nil {
		return nil, err
	}
	value, err := json.Marshal(written)
	if err != nil || len(value) > maxRole {
		return nil, conclave.Errorf(conclave.Invalid, "the role is too large")
	}
	response := &conclave.Response{}
	if written.VerboseLogging {
		response.Warnings = append(response.Warnings, "verbose_oidc_logging has no effect: tokens and claims are never logged")
	}
	return response, tx.Put(roleDir+name, value)
}

// check holds a role against the rules and makes what clients may leave out explicit.
func (r *role) check() error {
	if err := r.TokenTerms.Check(); err != nil {
		return err
	}
	if r.Type == "" {
		r.Type = "oidc"
	}
	if r.BoundClaimsType == "" {
		r.BoundClaimsType = "string"
	}
	for _, list := range []*[]string{&r.BoundCIDRs, &r.BoundAudiences, &r.Scopes, &r.RedirectURIs} {
		if *list == nil {
			*list = []string{} // answered as an empty list
		}
	}
	leeways := []conclave.Seconds{r.ExpiryLeeway, r.NotBeforeLeeway, r.SkewLeeway, r.MaxAge}
	switch {
	case r.Type != "jwt" && r.Type != "oidc":
		return conclave.Errorf(conclave.Invalid, "invalid 'role_type': %s", r.Type)
	case slices.Min(leeways) < -1 || slices.Max(leeways) > 366*24*3600 || r.MaxAge < 0:
		return conclave.Errorf(conclave.Invalid, "leeways are -1 or between 0 and a year, as is max_age between 0 and a year")
	case r.UserClaim == "":
		return conclave.Errorf(conclave.Invalid, "a user claim must be defined on the role")
	case r.Type == "oidc" && len(r.RedirectURIs) == 0:
		return conclave.Errorf(conclave.Invalid, "'allowed_redirect_uris' must be set if 'role_type' is 'oidc' or unspecified.")
	case r.Type == "jwt" && len(r.BoundAudiences) == 0 && len(r.BoundCIDRs) == 0 && r.BoundSubject == "" && len(r.BoundClaims) == 0:
		return conclave.Errorf(conclave.Invalid, "must have at least one bound constraint when creating/updating a role")
	}
	if err := r.checkBoundClaims(); err != nil {
		return err
	}
	if len(r.ClaimMappings) > maxMappings {
		return conclave.Errorf(conclave.Invalid, "at most %d claim_mappings", maxMappings)
	}
	targets := map[string]bool{}
	for _, target := range r.ClaimMappings {
		if target == reservedMetadata {
			return conclave.Errorf(conclave.Invalid, "metadata key %q is reserved and may not be a mapping destination", target)
		}
		if target == "" || len(target) > maxMetaKey {
			return conclave.Errorf(conclave.Invalid, "a metadata key has between 1 and %d bytes", maxMetaKey)
		}
		if targets[target] {
			return conclave.Errorf(conclave.Invalid, "multiple keys are mapped to metadata key %q", target)
		}
		targets[target] = true
	}
	return nil
}

// checkBoundClaims refuses values that no claim could ever have.
func (r *role) checkBoundClaims() error {
	if r.BoundClaimsType != "string" && r.BoundClaimsType != "glob" {
		return conclave.Errorf(conclave.Invalid, "invalid 'bound_claims_type': %s", r.BoundClaimsType)
	}
	for name, value := range r.BoundClaims {
		values, ok := listOf(value)
		if !ok {
			return conclave.Errorf(conclave.Invalid, "bound claim %q is not a string, bool, int or list", name)
		}
		for _, item := range values {
			_, isText := item.(string)
			if r.BoundClaimsType == "glob" && !isText {
				return conclave.Errorf(conclave.Invalid, "bound claim %q is not a string or a list of strings", name)
			}
			if _, ok := listOf(item); !ok {
				return conclave.Errorf(conclave.Invalid, "bound claim %q is not a string, bool, int or list", name)
			}
		}
	}
	return nil
}
