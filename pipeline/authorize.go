package pipeline

import (
	"encoding/json"
	"maps"
	"strconv"

	"conclave"
	"conclave/policy"
	"conclave/store"
	"conclave/token"
)

var errDenied = conclave.Errorf(conclave.Denied, "permission denied")

// authenticate routes the request and finds out who makes it. A path that leads nowhere is remembered, not told: whether
// it exists is for those to know who may use it.
func (p *Pipeline) authenticate(tx *store.Tx, req *conclave.Request, c *call) error {
	tx.SetRequest(req, nil)
	if err := p.routing.resolve(tx, req, &c.target); err != nil {
		return err
	}
	if c.route != nil && c.route.Public {
		return nil
	}
	if req.Token.Empty() {
		return errDenied
	}
	caller, record, err := token.Authenticate(tx.System(), req.Token)
	if err != nil {
		return err
	}
	c.caller, c.token = caller, record
	tx.SetRequest(req, caller)
	if err := token.Spend(tx.System(), record); err != nil {
		return err
	}
	c.acl, err = p.policies.ACL(tx.System(), caller.Policies)
	return err
}

// authorize decides whether the caller may do what the request asks for, then decodes the input.
func (p *Pipeline) authorize(tx *store.Tx, req *conclave.Request, c *call) error {
	check := policy.Check{Path: req.Path, Operation: req.Operation, Fields: req.Fields, WrapTTL: req.WrapTTL}
	public := c.route != nil && c.route.Public
	if c.route == nil {
		if decision := c.acl.Allows(check); !decision.Allowed {
			return errDenied
		}
		return c.missing
	}
	view, err := c.target.open(tx, c.caller)
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
		decision := c.acl.Allows(check)
		if !decision.Allowed {
			return errDenied
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

// authorizeNeeds checks what else the route does on the caller's behalf.
func (p *Pipeline) authorizeNeeds(c *call) error {
	if c.route.Needs == nil || c.acl == nil {
		return nil
	}
	for _, need := range c.route.Needs(c.input) {
		if !c.acl.Allows(policy.Check{Path: c.mount.Path + need.Path, Operation: need.Operation}).Allowed {
			return errDenied
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
