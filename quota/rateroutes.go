package quota

import (
	"context"
	"slices"

	"conclave"
)

// maxRate bounds the requests of an interval, and the interval in seconds.
const (
	maxRate     = 1e9
	maxInterval = 366 * 24 * 60 * 60
)

// Ways to share out a rate limit.
const (
	byAddress = "ip"
	together  = "none"
)

func rateName(r *RateRule) string { return r.Name }

type rateInput struct {
	Name        string           `path:"name" doc:"The quota's name."`
	Path        string           `json:"path" doc:"A namespace, a mount or a path below one, with * at its end as a prefix; empty is everything."`
	Rate        float64          `json:"rate" doc:"How many requests may be made in an interval; more than 0."`
	Interval    conclave.Seconds `json:"interval" doc:"Time in which the rate may be used up; 1 second by default."`
	Block       conclave.Seconds `json:"block_interval" doc:"How long a client that goes beyond the rate is refused altogether; 0 is only until the rate allows the next request."`
	Role        string           `json:"role" doc:"Only logins with this role of an auth method."`
	Inheritable *bool            `json:"inheritable" doc:"Holds in the namespaces below as well; by default only for the quota of everything."`
	GroupBy     string           `json:"group_by" doc:"ip, the default: each address has the whole rate. none: all clients share it."`
	Type        string           `json:"type" doc:"Kept for clients: rate-limit."`
}

// rateOutput has exactly the fields that Vault answers: clients compare them all.
type rateOutput struct {
	Block       conclave.Seconds `json:"block_interval" doc:"How long a client that goes beyond the rate is refused."`
	GroupBy     string           `json:"group_by,omitempty" doc:"none if all clients share the rate; not shown if each address has it."`
	Inheritable *bool            `json:"inheritable,omitempty" doc:"Whether the namespaces below have it too; shown for namespaces only."`
	Interval    conclave.Seconds `json:"interval" doc:"Time in which the rate may be used up."`
	Name        string           `json:"name" doc:"The quota's name."`
	Path        string           `json:"path" doc:"What it is about."`
	Rate        float64          `json:"rate" doc:"Requests in an interval."`
	Role        string           `json:"role" doc:"The role of logins."`
	Type        string           `json:"type" doc:"rate-limit."`
}

func listRates(_ context.Context, view conclave.View, _ *conclave.None) (*conclave.Keys, error) {
	rules, err := Load(view)
	if err != nil {
		return nil, err
	}
	return keysOf(rules.Rates, rateName), nil
}

func readRate(_ context.Context, view conclave.View, in *nameInput) (*rateOutput, error) {
	rules, err := Load(view)
	if err != nil {
		return nil, err
	}
	r := named(rules.Rates, in.Name, rateName)
	if r == nil {
		return nil, &conclave.Error{Kind: conclave.NotFound}
	}
	out := &rateOutput{Block: r.Block, Interval: r.Interval, Name: r.Name, Path: r.Path(), Rate: r.Rate, Role: r.Role, Type: "rate-limit", Inheritable: r.shown()}
	if r.Together {
		out.GroupBy = together
	}
	return out, nil
}

// shown is whether a place is inheritable, nil where that makes no difference.
func (p Place) shown() *bool {
	if p.Mount != "" {
		return nil
	}
	return &p.Inheritable
}

func (s *Setup) writeRate(_ context.Context, tx conclave.Tx, in *rateInput) (*conclave.None, error) {
	rules, err := Load(tx)
	if err != nil {
		return nil, err
	}
	if in.Interval == 0 {
		in.Interval = 1
	}
	switch {
	case !(in.Rate > 0 && in.Rate <= maxRate):
		return nil, conclave.Errorf(conclave.Invalid, "'rate' is invalid")
	case in.Interval < 0 || in.Interval > maxInterval:
		return nil, conclave.Errorf(conclave.Invalid, "'interval' is invalid")
	case in.Block < 0 || in.Block > maxInterval:
		return nil, conclave.Errorf(conclave.Invalid, "'block' is invalid")
	case in.GroupBy != "" && in.GroupBy != byAddress && in.GroupBy != together:
		return nil, conclave.Errorf(conclave.Invalid, "'group_by' must be ip or none: limits are checked before anybody looks at a token")
	}
	if err := checkName(in.Name); err != nil {
		return nil, err
	}
	at, err := s.place(tx, in.Path, in.Role, in.Inheritable)
	if err != nil {
		return nil, err
	}
	r := &RateRule{Place: at, Name: in.Name, Rate: in.Rate, Interval: in.Interval, Block: in.Block, Together: in.GroupBy == together, Changed: tx.Now().UnixNano()}
	if i := slices.IndexFunc(rules.Rates, func(o *RateRule) bool { return o.Name != in.Name && o.same(at) }); i >= 0 {
		return nil, errSimilar(rules.Rates[i].Name)
	}
	next := rules.record
	next.Rates = without(rules.Rates, in.Name, rateName, r)
	return nil, next.store(tx)
}

func deleteRate(_ context.Context, tx conclave.Tx, in *nameInput) (*conclave.None, error) {
	rules, err := Load(tx)
	if err != nil || named(rules.Rates, in.Name, rateName) == nil {
		return nil, err
	}
	next := rules.record
	next.Rates = without(rules.Rates, in.Name, rateName, nil)
	return nil, next.store(tx)
}
