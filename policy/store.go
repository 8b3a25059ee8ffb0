package policy

import (
	"encoding/json"
	"sync"

	"conclave"
)

// A stored policy is JSON at policy/<name>, name in its normal form: {"policy": "<source>"}.
type record struct {
	Source string `json:"policy"`
}

const folder = "policy/"

func pathOf(name string) string { return folder + name }

// builtin is the policy default as it is until somebody changes it. Its text is ours, so it parses; a test shows it.
func builtin() *Policy { return embedded(Default, defaultSource) }

func embedded(name, source string) *Policy {
	p, err := Parse(name, source)
	if err != nil {
		panic("the built-in policy " + name + ": " + err.Error())
	}
	return p
}

// Load returns a policy from the system space, nil if there is none of that name. The result is shared.
func Load(view conclave.View, name string) (*Policy, error) {
	p, err := load(view, name)
	if p == nil && err == nil && NormalName(name) == Default {
		p = builtin()
	}
	return p, err
}

// load is Load without the built-in default.
func load(view conclave.View, name string) (*Policy, error) {
	name = NormalName(name)
	if checkName(name) != nil {
		return nil, nil
	}
	if name == Root {
		return &Policy{Name: Root}, nil
	}
	loaded, err := view.Load(pathOf(name), func(value []byte) (any, error) { return decode(name, value) })
	p, _ := loaded.(*Policy)
	return p, err
}

func decode(name string, value []byte) (*Policy, error) {
	var stored record
	if err := json.Unmarshal(value, &stored); err != nil {
		return nil, conclave.Errorf(conclave.Internal, "the stored policy %q is damaged", name)
	}
	p, err := Parse(name, stored.Source)
	if err != nil {
		return nil, conclave.Errorf(conclave.Internal, "the stored policy %q can't be read: %s", name, err.Error())
	}
	return p, nil
}

// Store writes a parsed policy.
func Store(tx conclave.Tx, p *Policy) error {
	value, err := json.Marshal(record{p.Source})
	if err != nil {
		return err
	}
	return tx.Put(pathOf(p.Name), value)
}

// Limits of a Cache.
const (
	maxCached   = 4096 // compiled sets of policies; when there are more, all are dropped
	maxTogether = 8    // policies of a set that is cached; larger ones are compiled anew
)

// Cache keeps compiled ACLs by the versions of their policies. What a request may do is still read through its view
// each time, so that a changed policy is seen at once; only the compiling is saved.
type Cache struct {
	builtin, wrapping *Policy

	mu sync.RWMutex
	// compiled maps the policies as loaded, and for whom → their ACL; guarded by mu.
	compiled map[cacheKey]*ACL
}

// cacheKey is a set of policies, with the identity that their templates are resolved for; nil if they have none.
type cacheKey struct {
	policies [maxTogether]*Policy
	resolver Resolver
}

// NewCache makes an empty cache.
func NewCache() *Cache {
	return &Cache{builtin: builtin(), wrapping: embedded(Wrapping, wrappingSource), compiled: map[cacheKey]*ACL{}}
}

// ACL loads the named policies and compiles them, for a caller without identity. Names of policies that don't exist
// grant nothing.
func (c *Cache) ACL(view conclave.View, names []string) (*ACL, error) {
	return c.ACLFor(nil, view, names)
}

// ACLFor is ACL with the identity of a caller, which may be nil. A resolver that equals another resolves alike: it is a
// pointer to what never changes.
func (c *Cache) ACLFor(resolver Resolver, view conclave.View, names []string) (*ACL, error) {
	templated := false
	var few [maxTogether]*Policy
	policies := few[:0]
	for _, name := range names {
		p, err := load(view, name)
		if err != nil {
			return nil, err
		}
		switch {
		case NormalName(name) == Wrapping:
			p = c.wrapping
		case p == nil && NormalName(name) == Default:
			p = c.builtin
		}
		if p == nil {
			continue
		}
		if p.Name == Root {
			return &ACL{root: true}, nil
		}
		policies, templated = append(policies, p), templated || p.templated
	}
	if !templated {
		resolver = nil
	}
	if len(policies) > maxTogether {
		return CompileFor(resolver, policies...), nil
	}
	key := cacheKey{few, resolver}
	c.mu.RLock()
	acl := c.compiled[key]
	c.mu.RUnlock()
	if acl != nil {
		return acl, nil
	}
	acl = CompileFor(resolver, policies...)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.compiled) >= maxCached {
		clear(c.compiled)
	}
	c.compiled[key] = acl
	return acl, nil
}
