package policy

import (
	"encoding/json"
	"fmt"
	"strconv"
	"sync"
	"time"

	"conclave"
)

// A stored policy is JSON at policy/<name>, name in its normal form. Of one that expires there is an entry at
// policy-expiry/<time>-<name>, time in nanoseconds since 1970 as 16 hex digits, so that what has expired is found first.
type record struct {
	Source      string `json:"policy"`
	Version     int64  `json:"version,omitempty"`
	Modified    int64  `json:"modified,omitempty"` // nanoseconds since 1970
	Expires     int64  `json:"expires,omitempty"`  // the same
	CASRequired bool   `json:"cas_required,omitempty"`
}

const (
	folder       = "policy/"
	expiryFolder = "policy-expiry/"
	expiryDigits = 16
	// maxCleared bounds the expired policies that one write clears away.
	maxCleared = 16
)

func pathOf(name string) string { return folder + name }

func expiryPath(name string, at time.Time) string {
	return fmt.Sprintf("%s%0*x-%s", expiryFolder, expiryDigits, at.UnixNano(), name)
}

func timeOf(nanos int64) time.Time {
	if nanos == 0 {
		return time.Time{}
	}
	return time.Unix(0, nanos).UTC()
}

func nanosOf(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

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
	if p != nil && !p.Expires.IsZero() && view.Reached(p.Expires) {
		return nil, err
	}
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
	p.Terms = stored.terms()
	return p, nil
}

// Store writes a parsed policy, as the version after the one that is there.
func Store(tx conclave.Tx, p *Policy) error {
	if err := clearExpired(tx); err != nil {
		return err
	}
	old, _, err := storedTerms(tx, p.Name)
	if err != nil {
		return err
	}
	if err := dropExpiry(tx, p.Name, old.Expires); err != nil {
		return err
	}
	value, err := json.Marshal(record{p.Source, old.Version + 1, tx.Now().UnixNano(), nanosOf(p.Expires), p.CASRequired})
	if err != nil {
		return err
	}
	if !p.Expires.IsZero() {
		if err := tx.Put(expiryPath(p.Name, p.Expires), []byte{1}); err != nil {
			return err
		}
	}
	return tx.Put(pathOf(p.Name), value)
}

// Drop removes a policy; there need not be one.
func Drop(tx conclave.Tx, name string) error {
	if err := clearExpired(tx); err != nil {
		return err
	}
	return drop(tx, name)
}

func drop(tx conclave.Tx, name string) error {
	old, there, err := storedTerms(tx, name)
	if err != nil || !there {
		return err
	}
	if err := dropExpiry(tx, name, old.Expires); err != nil {
		return err
	}
	return tx.Delete(pathOf(name))
}

// storedTerms are those of what is stored under a name, expired or not. Of a damaged record they are zero, so that it can
// be replaced.
func storedTerms(view conclave.View, name string) (terms Terms, there bool, err error) {
	value, err := view.Get(pathOf(name))
	if err != nil || value == nil {
		return Terms{}, false, err
	}
	var r record
	if json.Unmarshal(value, &r) != nil {
		return Terms{}, true, nil
	}
	return r.terms(), true, nil
}

func (r *record) terms() Terms {
	return Terms{r.Version, timeOf(r.Modified), timeOf(r.Expires), r.CASRequired}
}

func dropExpiry(tx conclave.Tx, name string, expires time.Time) error {
	if expires.IsZero() {
		return nil
	}
	return tx.Delete(expiryPath(name, expires))
}

// expired lists the names of policies that are stored and have expired, at most limit; limit <= 0 means all.
func expired(view conclave.View, limit int) (names []string, err error) {
	entries, err := view.List(expiryFolder, "", limit)
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		if len(entry) <= expiryDigits+1 {
			return nil, conclave.Errorf(conclave.Internal, "the index of policies that expire is damaged")
		}
		nanos, err := strconv.ParseInt(entry[:expiryDigits], 16, 64)
		if err != nil {
			return nil, conclave.Errorf(conclave.Internal, "the index of policies that expire is damaged")
		}
		if !view.Reached(timeOf(nanos)) {
			break
		}
		names = append(names, entry[expiryDigits+1:])
	}
	return names, nil
}

// clearExpired takes away some of the policies that have expired.
func clearExpired(tx conclave.Tx) error {
	names, err := expired(tx, maxCleared)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := drop(tx, name); err != nil {
			return err
		}
	}
	return nil
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
