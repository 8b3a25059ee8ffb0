package quota

import (
	"encoding/json"
	"slices"
	"strings"

	"conclave"
)

// Limits of definitions.
const (
	MaxRules  = 1000 // of one kind
	maxName   = 128  // bytes of a quota's name
	maxPath   = 1024 // bytes of a quota's path, and of an exempt path
	maxRole   = 256  // bytes of a role
	maxExempt = 256  // exempt paths of one list
)

const rulesPath = "quota/rules"

// Place is what a quota is about.
type Place struct {
	Namespace   string `json:"namespace,omitempty"` // "" is the root namespace, others end in "/"
	Mount       string `json:"mount,omitempty"`     // in the namespace, ends in "/"; "" is all of the namespace
	Suffix      string `json:"suffix,omitempty"`    // below the mount; what ends in "*" is meant as a prefix
	Role        string `json:"role,omitempty"`      // logins of this role alone
	Inheritable bool   `json:"inheritable,omitempty"`
}

// Path is the place as clients write it.
func (p Place) Path() string { return p.Namespace + p.Mount + p.Suffix }

// same reports whether two places are one.
func (p Place) same(other Place) bool { return p.Path() == other.Path() && p.Role == other.Role }

// RateRule is a rate limit.
type RateRule struct {
	Place
	Name     string           `json:"name"`
	Rate     float64          `json:"rate"`     // requests in an interval
	Interval conclave.Seconds `json:"interval"` // at least 1
	Block    conclave.Seconds `json:"block,omitempty"`
	// Together is whether all clients share one bucket; otherwise each address has its own.
	Together bool `json:"together,omitempty"`
	// Changed is when it was written, in nanoseconds of cluster time: buckets of an earlier version are of no meaning.
	Changed int64 `json:"changed"`
}

// LeaseRule is a limit of how many leases there are at once.
type LeaseRule struct {
	Place
	Name string `json:"name"`
	Max  int64  `json:"max"`
	// ID names the cell that counts, for as long as the place stays the same.
	ID string `json:"id"`
}

// Config holds for all rate limits.
type Config struct {
	Exempt          []string `json:"exempt"`          // paths within any namespace
	ExemptAbsolute  []string `json:"exempt_absolute"` // paths that begin with their namespace's
	Audit           bool     `json:"audit,omitempty"`
	ResponseHeaders bool     `json:"response_headers,omitempty"`
}

// usualExempt are Vault's own exempt paths: what opens or watches a vault isn't held off.
func usualExempt() []string {
	return []string{"sys/generate-recovery-token/attempt", "sys/generate-recovery-token/update", "sys/generate-root/attempt",
		"sys/generate-root/update", "sys/health", "sys/seal-status", "sys/unseal"}
}

// Rules are all definitions of one version. They are shared and must not be changed.
type Rules struct {
	record
	settled       Config
	rates, leases index
}

// record is how they are stored.
type record struct {
	Config *Config      `json:"config,omitempty"` // nil: nobody has set it
	Rates  []*RateRule  `json:"rate,omitempty"`
	Leases []*LeaseRule `json:"leases,omitempty"`
}

// Load returns the definitions. view is that of the root namespace's system space.
func Load(view conclave.View) (*Rules, error) {
	loaded, err := view.Load(rulesPath, func(value []byte) (any, error) { return decode(value) })
	if err != nil {
		return nil, err
	}
	if rules, ok := loaded.(*Rules); ok {
		return rules, nil
	}
	return newRules(record{}), nil
}

func decode(value []byte) (*Rules, error) {
	var r record
	if json.Unmarshal(value, &r) != nil {
		return nil, conclave.Errorf(conclave.Internal, "the stored quotas are damaged")
	}
	for i, rule := range r.Rates {
		if rule == nil || rule.Rate <= 0 || rule.Interval < 1 || i > 0 && r.Rates[i-1].Name >= rule.Name {
			return nil, conclave.Errorf(conclave.Internal, "a stored rate limit is damaged")
		}
	}
	for i, rule := range r.Leases {
		if rule == nil || rule.Max <= 0 || rule.ID == "" || i > 0 && r.Leases[i-1].Name >= rule.Name {
			return nil, conclave.Errorf(conclave.Internal, "a stored lease count is damaged")
		}
	}
	return newRules(r), nil
}

func newRules(r record) *Rules {
	rules := &Rules{record: r, settled: Config{Exempt: usualExempt()}}
	if r.Config != nil {
		rules.settled = *r.Config
	}
	for i, rule := range r.Rates {
		rules.rates.add(rule.Place, i)
	}
	for i, rule := range r.Leases {
		rules.leases.add(rule.Place, i)
	}
	return rules
}

// store makes r the definitions.
func (r record) store(tx conclave.Tx) error {
	if len(r.Rates) > MaxRules || len(r.Leases) > MaxRules {
		return conclave.Errorf(conclave.Invalid, "there are at most %d quotas of a kind", MaxRules)
	}
	value, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if len(value) > conclave.MaxValue {
		return conclave.Errorf(conclave.TooLarge, "all quotas together have at most %d bytes", conclave.MaxValue)
	}
	return tx.Put(rulesPath, value)
}

// exempt reports whether no rate limit holds for a path.
func (r *Rules) exempt(namespace, path string) bool {
	covers := func(patterns []string, path string) bool {
		return slices.ContainsFunc(patterns, func(pattern string) bool {
			if stem, open := strings.CutSuffix(pattern, "*"); open {
				return strings.HasPrefix(path, stem)
			}
			return pattern == path
		})
	}
	path = strings.TrimSuffix(path, "/")
	return covers(r.settled.Exempt, path) || covers(r.settled.ExemptAbsolute, namespace+path)
}

// Closed are the namespaces with a rate limit that those below them don't have.
func (r *Rules) Closed() []string {
	var paths []string
	for _, rule := range r.Rates {
		if rule.Mount == "" && !rule.Inheritable {
			paths = append(paths, rule.Namespace)
		}
	}
	return paths
}
