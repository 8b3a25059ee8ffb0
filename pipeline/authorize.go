package pipeline

import (
	"encoding/json"
	"maps"
	"strconv"
	"strings"

	"conclave"
	"conclave/audit"
	"conclave/identity"
	"conclave/policy"
	"conclave/store"
	"conclave/token"
)

var errDenied = conclave.Errorf(conclave.Denied, "permission denied")

// errNoToken says that it was the token: whoever shows one may know that it is no good. Vault's words in Vault's form,
// since clients look for them to log in again.
var errNoToken = conclave.Errorf(conclave.Denied, "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n")

// authenticate routes the request and finds out who makes it. A path that leads nowhere is remembered, not told: whether
// it exists is for those to know who may use it.
func (r *run) authenticate(tx *store.Tx) error {
	p, c := r.pipeline, r.call
	tx.SetRequest(r.original, nil, conclave.Namespace{ID: conclave.RootNamespace})
	err := p.routing.resolve(tx, r.original, &c.target)
	r.request = c.request
	tx.SetRequest(r.request, nil, c.here().Namespace)
	if err != nil {
		return err
	}
	if c.route != nil && c.route.Public {
		return nil
	}
	if r.request.Token.Empty() {
		return errDenied
	}
	home := homeOf(r.request.Token, c.levels)
	caller, record, err := token.Authenticate(home.system, home.Namespace, r.request.Token)
	if conclave.Is(err, conclave.Denied) {
		return errNoToken
	}
	if err != nil {
		return err
	}
	if err := guarded(record, c.levels, r.request); err != nil {
		return err
	}
	c.caller, c.token, c.home = caller, record, home
	tx.SetRequest(r.request, caller, c.here().Namespace)
	if err := token.Spend(home.system, record); err != nil {
		return err
	}
	return r.grant(home, caller)
}

// grant finds out what the caller may do: by its token's policies, and by those of the identity behind it.
func (r *run) grant(home *level, caller *conclave.Caller) error {
	names := caller.Policies
	var resolver policy.Resolver
	if caller.EntityID != "" {
		who, err := identity.Of(home.system, caller.EntityID)
		if err != nil {
			return err
		}
		if who == nil || who.Disabled {
			r.call.denial = &audit.Denial{Reason: audit.DeniedIdentity}
			return errDenied
		}
		caller.EntityID, caller.IdentityPolicies, caller.Identity, resolver = who.ID, policy.WithoutRoot(who.Policies), who, who
		names = policy.Together(names, caller.IdentityPolicies)
	}
	acl, err := r.pipeline.policies.ACLFor(resolver, home.system, names)
	if err != nil {
		return err
	}
	r.call.grant = &policy.Grant{ACL: acl, Prefix: strings.TrimPrefix(r.request.Namespace, home.Path)}
	return nil
}

// Standing decides a request that needs a token again, without effect: what whoever made it may do now, and where its token
// lives. It is for answers that go on. An error is why the request would be refused.
func (p *Pipeline) Standing(tx *store.Tx, req *conclave.Request) (*policy.Grant, conclave.Namespace, error) {
	r := &run{pipeline: p, original: req, request: req, call: &call{}}
	if err := r.authenticate(tx); err != nil {
		return nil, conclave.Namespace{}, err
	}
	left, err := token.UsesLeft(r.call.home.system, r.call.token)
	if err == nil && left < 0 { // with the one that this would be
		err = errNoToken
	}
	if err != nil {
		return nil, conclave.Namespace{}, err
	}
	return r.call.grant, r.call.home.Namespace, p.authorize(tx, r.request, r.call)
}

// guarded refuses a token whose end is that of a token in a namespace above, once that has come, and from addresses that
// the token above may not come from.
func guarded(record *token.Record, levels []level, request *conclave.Request) error {
	for record.Guardian != nil {
		var above *level
		for i := range levels {
			if levels[i].ID == record.Guardian.NamespaceID {
				above = &levels[i]
			}
		}
		if above == nil {
			return errDenied
		}
		guardian, err := token.Find(above.system, record.Guardian.Name)
		if err != nil {
			return err
		}
		if guardian == nil || !guardian.MayComeFrom(request) {
			return errDenied
		}
		record = guardian
	}
	return nil
}

// authorize decides whether the caller may do what the request asks for, then decodes the input.
func (p *Pipeline) authorize(tx *store.Tx, req *conclave.Request, c *call) error {
	check := policy.Check{Path: req.Path, Operation: req.Operation, Fields: req.Fields, WrapTTL: req.WrapTTL}
	public := c.route != nil && c.route.Public
	if c.route == nil {
		if _, err := c.decide(&check); err != nil {
			return err
		}
		return c.missing
	}
	view, err := c.target.open(c.caller)
	if err != nil {
		return err
	}
	c.view = view
	input, bindErr := c.route.Bind(c.params, req.Fields)
	if !public {
		check.Sudo = c.route.Sudo
		if bindErr == nil && c.route.Exists != nil {
			exists, err := c.route.Exists(view, input)
			if err != nil {
				return err
			}
			if !exists {
				check.Operation = conclave.Create
			}
		}
		decision, err := c.decide(&check)
		if err != nil {
			return err
		}
		if _, asked := req.Fields["limit"]; decision.PageLimit > 0 && !asked {
			input, bindErr = c.route.Bind(c.params, withLimit(req.Fields, decision.PageLimit))
		}
	}
	if req.Help {
		return nil // what the request says beside its path doesn't matter
	}
	if bindErr != nil {
		return bindErr
	}
	c.input = input
	return p.authorizeNeeds(c)
}

// decide is the one decision about what the caller may do. Of a denial the client is told nothing, whatever it is: the
// record says why.
func (c *call) decide(check *policy.Check) (policy.Decision, error) {
	decision := c.grant.Allows(*check)
	if decision.Allowed {
		return decision, nil
	}
	d := &audit.Denial{Reason: decision.Reason.Code(), Capabilities: check.Needs().Names(), Path: c.grant.Prefix + check.Path,
		NamespaceID: c.home.ID, Pattern: decision.Pattern, Field: decision.Field}
	if decision.Reason == policy.Unlisted {
		d.Field, d.Unlisted = "", decision.Field
	}
	for _, source := range decision.Sources[:min(len(decision.Sources), maxDenialRules)] {
		d.Rules = append(d.Rules, source.String())
	}
	c.denial = d
	return decision, errDenied
}

// maxDenialRules bounds the rules that the record of a denied request names.
const maxDenialRules = 8

// authorizeNeeds checks what else the route does on the caller's behalf.
func (p *Pipeline) authorizeNeeds(c *call) error {
	if c.route.Needs == nil || c.grant == nil {
		return nil
	}
	for _, need := range c.route.Needs(c.input) {
		if _, err := c.decide(&policy.Check{Path: c.mount.Path + need.Path, Operation: need.Operation}); err != nil {
			return err
		}
	}
	return nil
}

// withLimit is fields with the page size that a policy sets for listings that name none.
func withLimit(fields map[string]any, limit int) map[string]any {
	limited := maps.Clone(fields)
	if limited == nil {
		limited = map[string]any{}
	}
	limited["limit"] = json.Number(strconv.Itoa(limit))
	return limited
}
