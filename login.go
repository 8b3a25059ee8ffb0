package conclave

import (
	"encoding/json"
	"net/netip"
	"strings"
	"time"
)

// Login is what an auth method has found out about who logs in. The vault makes a token of it, in the transaction in
// which the method's handler ran.
type Login struct {
	// Alias names who logs in to the identity store. An alias without a name gives a token without an entity.
	Alias Alias
	// Groups are the names by which the method knows the groups of who logs in: aliases of external groups.
	Groups []string
	// Terms are those of the role or user.
	Terms TokenTerms
	// Policies are given beside those of Terms: what the method itself found out, such as the policies of a directory's group.
	Policies []string
	// Metadata goes into the token and the audit log.
	Metadata    map[string]string
	DisplayName string
	// Role is the role that was logged in with, for limits by role; empty if the method has none.
	Role string
	// Renewable tells whether the token can be renewed; batch tokens never can.
	Renewable bool
	// Internal is kept with the token, encrypted, and given back to RenewLogin.
	Internal json.RawMessage
}

// Alias is how an auth method knows somebody.
type Alias struct {
	Name     string            // unique in the mount and in one spelling
	Metadata map[string]string // of the alias, for templates
}

// TokenTerms are what a role or user says about the tokens of its logins. All auth methods have them, under these names.
type TokenTerms struct {
	BoundCIDRs      []string `json:"token_bound_cidrs" doc:"Addresses or networks that logins and tokens may come from; empty is all."`
	ExplicitMaxTTL  Seconds  `json:"token_explicit_max_ttl" doc:"An end that no renewal can pass, counted from the login."`
	MaxTTL          Seconds  `json:"token_max_ttl" doc:"The longest life of a token, with all renewals; 0 is the mount's."`
	NoDefaultPolicy bool     `json:"token_no_default_policy" doc:"Don't add the policy default."`
	NumUses         int      `json:"token_num_uses" doc:"Requests that a token can make; 0 is unlimited."`
	Period          Seconds  `json:"token_period" doc:"Make periodic tokens: each renewal sets their time to live to this."`
	Policies        []string `json:"token_policies" doc:"Policies of the tokens."`
	TTL             Seconds  `json:"token_ttl" doc:"Time to live of the tokens; 0 is the mount's."`
	Type            string   `json:"token_type" doc:"Type of the tokens: default, service, batch, default-service or default-batch."`
}

// Limits of TokenTerms.
const (
	maxTermsList = 256                        // policies, networks
	maxTermsText = 256                        // bytes of a policy's name
	maxTermsTTL  = 100 * 365 * 24 * time.Hour // so that times fit 64 bits of nanoseconds
)

var tokenTypes = map[string]string{"": "default", "default": "default", "service": "service", "batch": "batch",
	"default-service": "default-service", "default-batch": "default-batch"}

// Check holds terms against the rules, and brings policies, networks and the type into their one spelling.
func (t *TokenTerms) Check() error {
	kind, known := tokenTypes[t.Type]
	switch {
	case !known:
		return Errorf(Invalid, "invalid 'token_type': must be default, service, batch, default-service or default-batch")
	case t.TTL < 0 || t.MaxTTL < 0 || t.Period < 0 || t.ExplicitMaxTTL < 0 || t.NumUses < 0:
		return Errorf(Invalid, "times and numbers of tokens can't be negative")
	case max(t.TTL, t.MaxTTL, t.Period, t.ExplicitMaxTTL).Duration() > maxTermsTTL:
		return Errorf(Invalid, "a token lives for at most a hundred years")
	case t.MaxTTL > 0 && t.TTL > t.MaxTTL:
		return Errorf(Invalid, "'token_ttl' cannot be greater than 'token_max_ttl'")
	case kind == "batch" && (t.Period > 0 || t.NumUses > 0):
		return Errorf(Invalid, "batch tokens can be neither periodic nor limited in uses")
	case len(t.Policies) > maxTermsList || len(t.BoundCIDRs) > maxTermsList:
		return Errorf(Invalid, "at most %d policies and networks", maxTermsList)
	}
	t.Type = kind
	policies := make([]string, 0, len(t.Policies))
	for _, name := range t.Policies {
		name = strings.ToLower(strings.TrimSpace(name))
		switch {
		case name == "root":
			return Errorf(Invalid, "a login can't give the policy root")
		case len(name) > maxTermsText:
			return Errorf(Invalid, "a policy's name has at most %d bytes", maxTermsText)
		case name != "":
			policies = append(policies, name)
		}
	}
	t.Policies = policies
	_, err := Networks(t.BoundCIDRs)
	return err
}

// Networks parses addresses ("192.0.2.1") and networks ("192.0.2.0/24") as roles name them.
func Networks(texts []string) ([]netip.Prefix, error) {
	networks := make([]netip.Prefix, 0, len(texts))
	for _, text := range texts {
		text = strings.TrimSpace(text)
		network, err := netip.ParsePrefix(text)
		if err != nil {
			address, addressErr := netip.ParseAddr(text)
			if addressErr != nil || address.Zone() != "" {
				return nil, Errorf(Invalid, "%q is neither an address nor a network in CIDR notation", text)
			}
			network = netip.PrefixFrom(address, address.BitLen())
		}
		if address := network.Addr(); address.Is4In6() {
			if network.Bits() < 96 {
				return nil, Errorf(Invalid, "%q mixes IPv4 and IPv6", text)
			}
			network = netip.PrefixFrom(address.Unmap(), network.Bits()-96)
		}
		networks = append(networks, network.Masked())
	}
	return networks, nil
}

// MayComeFrom reports whether an address lies in one of networks. No networks are all of them; what can't be parsed holds
// no address.
func MayComeFrom(networks []string, address netip.Addr) bool {
	if len(networks) == 0 {
		return true
	}
	parsed, err := Networks(networks)
	if err != nil {
		return false
	}
	address = address.Unmap().WithZone("")
	for _, network := range parsed {
		if network.Contains(address) {
			return true
		}
	}
	return false
}

// Seconds is a duration that clients see as a whole number of seconds. Requests may give it as they may any duration.
type Seconds int64

// Duration is s as a time.Duration, the longest one if it doesn't fit.
func (s Seconds) Duration() time.Duration {
	if s > maxSeconds || s < -maxSeconds {
		return 1<<63 - 1
	}
	return time.Duration(s) * time.Second
}

// InSeconds is d in whole seconds, rounded towards zero.
func InSeconds(d time.Duration) Seconds { return Seconds(d / time.Second) }
