package access

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"conclave"
	"conclave/audit"
	"conclave/policy"
)

// Reasons of denials that no rule of a policy decided; the others are the codes of policy.Reason.
const (
	reasonNoToken  = "no_token"
	reasonBadToken = "bad_token"
	reasonRefused  = "refused"
	reasonNone     = "not_denied"
	reasonHidden   = "hidden"
)

// because says each of them in words.
var because = map[string]string{
	reasonNoToken:        "the request had no token",
	reasonBadToken:       "the token is unknown, expired, revoked, used up, of another namespace, or used from an address that it isn't bound to",
	reasonRefused:        "the policies allow it, but the operation itself refused: the token has no uses left, or may not do what was asked",
	reasonNone:           "the request was not denied",
	audit.DeniedIdentity: "the entity behind the token is disabled or deleted",
}

// explainRoute answers why a request was denied, from the records of the node that is asked.
func (s *Service) explainRoute() conclave.Route {
	explain := conclave.ReadRoute(conclave.Update, "access/explain", "Why a request was denied: the rule that decided, and what would be needed.\n\n"+
		"It is answered from the audit records of this node, the newest "+strconv.Itoa(maxScanned)+" of them. In a namespace, requests made in it "+
		"can be asked for; in the root namespace all.", explained)
	explain.Prepare = func(ctx context.Context, _ *conclave.Request, in any) (any, error) {
		return s.look(ctx, in.(*explainInput).RequestID)
	}
	explain.ClearRequest = []string{"request_id"}
	return explain
}

type explainInput struct {
	RequestID string `json:"request_id" doc:"The id that came with the denial, in the header X-Request-Id."`
}

// Explanation is why a request was denied.
type Explanation struct {
	RequestID   string    `json:"request_id" doc:"The request."`
	Time        time.Time `json:"time" doc:"When it was made, in cluster time."`
	Node        string    `json:"node" doc:"The node that executed it."`
	Namespace   string    `json:"namespace" doc:"The namespace that it was made in; empty for the root namespace."`
	Operation   string    `json:"operation" doc:"What it asked for."`
	Path        string    `json:"path" doc:"On which path."`
	DisplayName string    `json:"display_name" doc:"Who made it, as far as that is known."`
	EntityID    string    `json:"entity_id" doc:"The entity behind the token."`
	Policies    []string  `json:"policies" doc:"The policies that applied; hidden if they are another namespace's."`
	Denied      bool      `json:"denied" doc:"The request was denied."`
	Error       string    `json:"error" doc:"What the client was told."`
	Reason      string    `json:"reason" doc:"Why, in one word: no_rule, denied, capability, field, unlisted_field, wrap_ttl, page_limit, identity, no_token, bad_token, refused, hidden, not_denied."`
	Because     string    `json:"because" doc:"The same in a sentence."`
	Pattern     string    `json:"pattern" doc:"The path of the rule that decided; empty if no rule matches."`
	Rules       []string  `json:"rules" doc:"Where that rule is written, as policy:line."`
	Field       string    `json:"field" doc:"The field that failed."`
	Needed      Needed    `json:"needed" doc:"What would have passed."`
	Suggestion  string    `json:"suggestion" doc:"A rule that would let it pass; empty where none would."`
}

// Needed is what a request lacked.
type Needed struct {
	Path         string   `json:"path" doc:"The path, as policies see it."`
	Capabilities []string `json:"capabilities" doc:"The capabilities on it."`
}

// look finds the record, with few others at once.
func (s *Service) look(ctx context.Context, id string) (*recorded, error) {
	f, err := newFinder(s.records, id)
	if err != nil {
		return nil, err
	}
	select {
	case s.scans <- struct{}{}:
		defer func() { <-s.scans }()
	case <-ctx.Done():
		return nil, conclave.Errorf(conclave.Unavailable, "others are looking for requests: try again")
	}
	return f.find(ctx)
}

func explained(ctx context.Context, view conclave.View, _ *explainInput) (*Explanation, error) {
	r, ok := conclave.Prepared[*recorded](ctx)
	if !ok {
		return nil, conclave.Errorf(conclave.Internal, "the route's preparation is missing")
	}
	here := view.Namespace()
	if r == nil || !here.IsRoot() && r.Request.Namespace.ID != here.ID {
		return nil, conclave.Errorf(conclave.NotFound, "there is no such request among the newest %d records of this node", maxScanned)
	}
	return r.explain(here), nil
}

// explain tells of a record what may be told in a namespace: policies are told where they are, and in the root namespace.
func (r *recorded) explain(here conclave.Namespace) *Explanation {
	e := &Explanation{RequestID: r.Request.ID, Time: r.Time, Node: r.Request.Node, Namespace: r.Request.Namespace.Path,
		Operation: r.Request.Operation, Path: r.Request.Path, Denied: r.Denied, Error: r.Error, Policies: []string{}, Rules: []string{}}
	e.Needed.Capabilities = []string{}
	known := here.IsRoot()
	if a := r.Auth; a != nil {
		e.DisplayName, e.EntityID = a.DisplayName, a.EntityID
		if d := a.Results; d != nil && r.Denied {
			known = known || d.NamespaceID == here.ID
			e.Reason = d.Reason
			e.Needed = Needed{d.Path, append(e.Needed.Capabilities, d.Capabilities...)}
			if known {
				e.Pattern, e.Rules, e.Field = d.Pattern, append(e.Rules, d.Rules...), d.Field
			}
		}
		if known {
			e.Policies = append(e.Policies, a.Policies...)
		}
	}
	switch {
	case !r.Denied:
		e.Reason = reasonNone
	case r.Auth == nil && r.Request.Token == "":
		e.Reason = reasonNoToken
	case r.Auth == nil:
		e.Reason = reasonBadToken
	case e.Reason == "":
		e.Reason = reasonRefused
	case !known && e.Reason != audit.DeniedIdentity:
		e.Reason = reasonHidden
	}
	e.Because = e.sentence()
	e.Suggestion = e.suggest()
	return e
}

func (e *Explanation) sentence() string {
	if text, ok := because[e.Reason]; ok {
		return text
	}
	reason, ok := policy.ReasonOf(e.Reason)
	if e.Reason == reasonHidden || !ok {
		return "policies of the namespace where the token lives don't allow it"
	}
	return reason.Sentence(e.Pattern, e.Rules, e.Needed.Capabilities, e.Field)
}

// suggest makes a rule that wins over the one that denied, where there can be one.
func (e *Explanation) suggest() string {
	reason, ok := policy.ReasonOf(e.Reason)
	switch {
	case !ok || len(e.Needed.Capabilities) == 0:
		return ""
	case reason != policy.NoRule && reason != policy.NoCapability && reason != policy.Denies:
		return ""
	case reason == policy.Denies && !strings.ContainsAny(e.Pattern, "*+"):
		return "" // deny wins among rules of one path
	case e.Pattern == e.Needed.Path:
		return "" // the rule itself is to be changed
	}
	quoted := make([]string, len(e.Needed.Capabilities))
	for i, name := range e.Needed.Capabilities {
		quoted[i] = strconv.Quote(name)
	}
	return fmt.Sprintf("path %q {\n  capabilities = [%s]\n}", e.Needed.Path, strings.Join(quoted, ", "))
}
