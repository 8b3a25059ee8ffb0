package policy

import (
	"strings"
	"time"

	"conclave"
)

// Names of the policies that are always there.
const (
	Root    = "root"    // allows everything; can't be changed, and has no rules
	Default = "default" // given to every token that doesn't refuse it; can be changed, not deleted

	// Wrapping is what wrapping tokens have; nobody can assign, read or change it.
	Wrapping = "response-wrapping"
)

// Limits of what can be stored.
const (
	MaxSource  = 512 << 10 // bytes of a policy's text
	MaxRules   = 4096      // rules of a policy
	MaxPattern = 2048      // bytes of a rule's pattern
	MaxName    = 256       // bytes of a policy's name
	maxNesting = 16        // nested blocks and lists in a policy's text

	maxEventStars = 4 // in one of the types of events that a rule names
)

// Capability is a set of capabilities.
type Capability uint16

// The capabilities. Deny excludes all others.
const (
	CanCreate Capability = 1 << iota
	CanRead
	CanUpdate
	CanDelete
	CanList
	CanScan
	CanPatch
	CanSudo
	Deny
	CanSubscribe // to events about the path, of the types in Limits.Events; no operation needs it
)

// capabilityNames is in alphabetical order, as capabilities are answered.
var capabilityNames = []struct {
	name string
	bit  Capability
}{
	{"create", CanCreate}, {"delete", CanDelete}, {"deny", Deny}, {"list", CanList}, {"patch", CanPatch},
	{"read", CanRead}, {"scan", CanScan}, {"subscribe", CanSubscribe}, {"sudo", CanSudo}, {"update", CanUpdate},
}

// operationBits maps conclave.Operation → the capability that it needs.
var operationBits = [...]Capability{conclave.Read: CanRead, conclave.Create: CanCreate, conclave.Update: CanUpdate,
	conclave.Patch: CanPatch, conclave.Delete: CanDelete, conclave.List: CanList, conclave.Scan: CanScan}

// Names lists the capabilities in alphabetical order.
func (c Capability) Names() []string {
	var names []string
	for _, entry := range capabilityNames {
		if c&entry.bit != 0 {
			names = append(names, entry.name)
		}
	}
	return names
}

func capabilityByName(name string) Capability {
	for _, entry := range capabilityNames {
		if entry.name == name {
			return entry.bit
		}
	}
	return 0
}

// legacyCapabilities are what the oldest form of a rule, policy = "write", stands for.
var legacyCapabilities = map[string]Capability{
	"deny":  Deny,
	"read":  CanRead | CanList,
	"write": CanCreate | CanRead | CanUpdate | CanPatch | CanDelete | CanList,
	"sudo":  CanCreate | CanRead | CanUpdate | CanPatch | CanDelete | CanList | CanSudo,
}

// Policy is a parsed policy. It is immutable.
type Policy struct {
	Name   string
	Source string
	Rules  []Rule
	Terms

	templated bool // a rule's pattern has an identity template
}

// Terms are how a policy is kept.
type Terms struct {
	Version     int64     // grows by one with each write; 0 if it isn't stored, or was before versions were
	Modified    time.Time // zero like Version
	Expires     time.Time // from then on there is no such policy; zero: never
	CASRequired bool      // writes must name the version that they replace
}

// Rule is what one policy says about one pattern.
type Rule struct {
	Pattern      string
	Line         int // in the policy's source
	Capabilities Capability
	Limits       Limits
}

// Limits narrow what a rule grants.
type Limits struct {
	// Required names fields that must be given.
	Required []string
	// Allowed and Denied map field → values; no values means any. The field "*" stands for all others.
	Allowed, Denied map[string][]string
	// MinWrap and MaxWrap bound the time that the answer must be wrapped for; 0 is no bound.
	MinWrap, MaxWrap time.Duration
	// PageLimit bounds the page of a LIST or SCAN; 0 is no bound.
	PageLimit int
	// Events are the types of events that CanSubscribe is about; each may hold "*", which stands for any text.
	Events []string
}

// NormalName is the one spelling of a policy's name that is stored and compared: trimmed and in lower case.
func NormalName(name string) string { return strings.ToLower(strings.TrimSpace(name)) }

// checkName refuses names that can't be a policy's.
func checkName(name string) error {
	switch {
	case name == "":
		return conclave.Errorf(conclave.Invalid, "a policy needs a name")
	case len(name) > MaxName:
		return conclave.Errorf(conclave.Invalid, "a policy's name has at most %d bytes", MaxName)
	case strings.ContainsAny(name, "/,*+{}\"\\\x00"):
		return conclave.Errorf(conclave.Invalid, "a policy's name can't contain any of / , * + { } \" \\")
	}
	for _, r := range name {
		if r < ' ' || r == 0x7f || r == 0xfffd {
			return conclave.Errorf(conclave.Invalid, "a policy's name can't contain control characters")
		}
	}
	return nil
}

// defaultSource is the policy default until somebody changes it: what a client needs to manage its own token, to find
// its mounts and to use what belongs to its token.
const defaultSource = `# A token may look at, renew and revoke itself,
path "auth/token/lookup-self" { capabilities = ["read"] }
path "auth/token/renew-self" { capabilities = ["update"] }
path "auth/token/revoke-self" { capabilities = ["update"] }

# ask what it may do,
path "sys/capabilities-self" { capabilities = ["update"] }
path "sys/internal/ui/resultant-acl" { capabilities = ["read"] }

# find out which engine serves a path (mounts on which it has no capability stay hidden),
path "sys/internal/ui/mounts" { capabilities = ["read"] }
path "sys/internal/ui/mounts/*" { capabilities = ["read"] }

# look up its own entity,
path "identity/entity/id/{{identity.entity.id}}" { capabilities = ["read"] }
path "identity/entity/name/{{identity.entity.name}}" { capabilities = ["read"] }

# renew and look up leases whose id it knows,
path "sys/leases/renew" { capabilities = ["update"] }
path "sys/leases/lookup" { capabilities = ["update"] }

# use its own cubbyhole,
path "cubbyhole/*" { capabilities = ["create", "read", "update", "delete", "list"] }

# and wrap, look up and unwrap answers.
path "sys/wrapping/wrap" { capabilities = ["update"] }
path "sys/wrapping/lookup" { capabilities = ["update"] }
path "sys/wrapping/unwrap" { capabilities = ["update"] }
path "sys/tools/hash" { capabilities = ["update"] }
path "sys/tools/hash/*" { capabilities = ["update"] }
`

// wrappingSource is the policy of wrapping tokens: to give out what they hold, once.
const wrappingSource = `path "sys/wrapping/unwrap" { capabilities = ["update"] }
path "sys/wrapping/rewrap" { capabilities = ["update"] }
path "cubbyhole/response" { capabilities = ["read"] }
`
