package policy

import (
	"fmt"
	"strconv"
	"strings"

	"conclave"
)

// Answer is a decision in the form that those get who asked for it.
type Answer struct {
	Path      string `json:"path" doc:"The path that was asked about."`
	Operation string `json:"operation" doc:"What was to be done there."`
	Allowed   bool   `json:"allowed" doc:"It is allowed."`
	Reason    string `json:"reason" doc:"Why not, in one word: no_rule, denied, capability, field, unlisted_field, wrap_ttl, page_limit."`
	Because   string `json:"because" doc:"Why, or why not, in a sentence."`
	// Pattern and Rules are of the rule that decided.
	Pattern string   `json:"pattern" doc:"The path of the rule that decided; empty if no rule matches."`
	Rules   []string `json:"rules" doc:"Where that rule is written, as policy:line."`
	Field   string   `json:"field" doc:"The field that failed."`
	Needed  []string `json:"needed" doc:"The capabilities that are needed on the path."`
}

// ParseOperation reads an operation's name; create is what an update of something that isn't there needs.
func ParseOperation(name string) (conclave.Operation, error) {
	for op := conclave.Read; op <= conclave.Scan; op++ {
		if op.String() == strings.ToLower(name) {
			return op, nil
		}
	}
	return 0, conclave.Errorf(conclave.Invalid, "unknown operation %q: create, read, update, patch, delete, list or scan", name)
}

// maxAnswerRules bounds the rules that an answer names.
const maxAnswerRules = 8

// Answer decides and says why.
func (a *ACL) Answer(c Check) Answer {
	d := a.Allows(c)
	answer := Answer{Path: c.Path, Operation: c.Operation.String(), Allowed: d.Allowed, Reason: d.Reason.Code(), Pattern: d.Pattern,
		Rules: []string{}, Field: d.Field, Needed: c.Needs().Names()}
	for _, source := range d.Sources[:min(len(d.Sources), maxAnswerRules)] {
		answer.Rules = append(answer.Rules, source.String())
	}
	switch {
	case d.Root:
		answer.Because = "the policy root allows everything"
	case d.Allowed:
		answer.Because = ruleText(d.Pattern, answer.Rules) + " allows it"
	default:
		answer.Because = d.Reason.Sentence(d.Pattern, answer.Rules, answer.Needed, d.Field)
	}
	return answer
}

func ruleText(pattern string, rules []string) string {
	return fmt.Sprintf("the rule for %q (%s)", pattern, strings.Join(rules, ", "))
}

// Sentence says of a denial what decided: the rule for a pattern, written at rules (policy:line); needed are the
// capabilities that were asked for, field is the one that failed.
func (r Reason) Sentence(pattern string, rules, needed []string, field string) string {
	rule := ruleText(pattern, rules)
	switch r {
	case NoRule:
		return "no rule of the token's policies matches the path"
	case Denies:
		return rule + " denies it"
	case NoCapability:
		return rule + " decides, and doesn't give " + strings.Join(needed, " and ")
	case Field:
		return rule + " doesn't allow what was given, or not given, as the field " + strconv.Quote(field)
	case Unlisted:
		return rule + " doesn't allow a field that was given"
	}
	return rule + " decides: " + r.String()
}
