package token

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"math/bits"
	"net/netip"
	"slices"
	"strings"
	"time"

	"conclave"
)

// Limits of tokens.
const (
	MaxDepth     = 64                         // ancestors of a token
	MaxSecret    = 512                        // bytes of a service token
	MaxPolicies  = 256                        // policies of a token
	maxMetadata  = 64                         // entries of a token's metadata
	maxText      = 512                        // bytes of a display name, or of a key or value of metadata
	maxPolicyLen = 256                        // bytes of a policy's name
	maxTTL       = 100 * 365 * 24 * time.Hour // so that times fit 64 bits of nanoseconds
)

const (
	rootPolicy    = "root"
	defaultPolicy = "default"
	service       = "service"
	batch         = "batch"
)

// Record is what is stored of a token. Times are Unix nanoseconds. Records that are loaded are shared: they must not
// be changed.
type Record struct {
	// Name is the hash that the token is stored under.
	Name        string            `json:"-"`
	Accessor    string            `json:"accessor,omitempty"` // absent if it is the name
	Parent      string            `json:"parent,omitempty"`   // the parent's name; empty for orphans
	Depth       int               `json:"depth,omitempty"`    // ancestors at creation
	Policies    []string          `json:"policies"`           // sorted, in lower case
	Path        string            `json:"path"`               // of the request that made it
	Metadata    map[string]string `json:"meta,omitempty"`
	DisplayName string            `json:"display_name"`
	EntityID    string            `json:"entity_id,omitempty"`
	Created     int64             `json:"created"`
	Renewed     int64             `json:"renewed,omitempty"` // last renewal, 0 if never
	Expires     int64             `json:"expires,omitempty"` // 0 is never
	TTL         time.Duration     `json:"ttl,omitempty"`     // at creation
	ExplicitMax time.Duration     `json:"explicit_max_ttl,omitempty"`
	Period      time.Duration     `json:"period,omitempty"`
	MaxTTL      time.Duration     `json:"max_ttl,omitempty"`  // of the login's role; 0 is the mount's
	NumUses     int               `json:"num_uses,omitempty"` // at creation; 0 is unlimited
	Renewable   bool              `json:"renewable,omitempty"`
	BoundCIDRs  []netip.Prefix    `json:"bound_cidrs,omitempty"` // addresses that may use it; empty is all
	// Role is the token role that it was made by.
	Role string `json:"role,omitempty"`
	// Counted names the lease count that it takes a place of; empty if there is none.
	Counted string `json:"counted,omitempty"`
	// Origin is the login that the token comes from; nil for tokens that tokens made.
	Origin *origin `json:"origin,omitempty"`
	// Guardian is a token in a namespace above whose end is also this one's: that of who made it, or of who made its parent.
	Guardian *Guardian `json:"guardian,omitempty"`

	// Batch marks a batch token, which isn't stored: this is what the token says of itself.
	Batch bool `json:"-"`

	caller *conclave.Caller
}

// Guardian names a token in a namespace above.
type Guardian struct {
	NamespaceID string `json:"namespace"`
	Name        string `json:"name"`
}

// Orphan reports whether the token has no parent whose end would be its own.
func (r *Record) Orphan() bool { return r.Parent == "" && r.Guardian == nil }

// Root reports whether the token has the policy root.
func (r *Record) Root() bool { return slices.Contains(r.Policies, rootPolicy) }

// expired reports whether the token's time has come.
func (r *Record) expired(view conclave.View) bool {
	return r.Expires != 0 && view.Reached(time.Unix(0, r.Expires))
}

// remaining is the time that the token has left, 0 if it has no end.
func (r *Record) remaining(now time.Time) time.Duration {
	if r.Expires == 0 {
		return 0
	}
	return max(0, time.Unix(0, r.Expires).Sub(now))
}

// NameOf is the name that a token is stored under: its accessor, or a hash that nothing but the storage sees if the token
// was chosen by somebody, and so may be guessed.
func NameOf(secret conclave.Secret) string {
	if isMinted(secret) {
		return AccessorOf(secret)
	}
	sum := sha256.Sum256([]byte(secret.Reveal()))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// AccessorOf is the accessor of a token that was made of randomness: SHA-256 of it as a number, its 24 lowest digits to
// the base of 62, the lowest first. They are 142 bits, from which nothing of the token's 568 can be found out.
func AccessorOf(secret conclave.Secret) string {
	sum := sha256.Sum256([]byte(secret.Reveal()))
	var limbs [4]uint64
	for i := range limbs {
		limbs[i] = binary.BigEndian.Uint64(sum[8*i:])
	}
	const base, together = uint64(len(base62)), 10 // digits that fit a limb
	power := uint64(1)
	for range together {
		power *= base
	}
	accessor := make([]byte, 0, accessorLength)
	for len(accessor) < accessorLength {
		rest := uint64(0)
		for i := range limbs {
			limbs[i], rest = bits.Div64(rest, limbs[i], power)
		}
		for range min(together, accessorLength-len(accessor)) {
			accessor = append(accessor, base62[rest%base])
			rest /= base
		}
	}
	return string(accessor)
}

func isMinted(secret conclave.Secret) bool { return strings.HasPrefix(secret.Reveal(), Prefix) }

func isAccessor(text string) bool {
	return len(text) == accessorLength && strings.Trim(text, base62) == ""
}

func idPath(name string) string            { return idDir + name }
func accessorPath(accessor string) string  { return accessorDir + accessor }
func usesPath(name string) string          { return "token/uses/" + name }
func childDir(parent string) string        { return "token/child/" + parent + "/" }
func childPath(parent, name string) string { return childDir(parent) + name }
func deadPath(name string) string          { return deadDir + name }
func bridgePath(name string) string        { return "token/bridge/" + name }

const (
	idDir       = "token/id/"
	accessorDir = "token/accessor/"
	deadDir     = "token/dead/"
	expiryDir   = "token/expiry/"
)

// mark is the value of an entry that says all by its name.
func mark() []byte { return []byte{1} }

// load returns a record by name, nil if there is none.
func load(view conclave.View, name string) (*Record, error) {
	loaded, err := view.Load(idPath(name), func(value []byte) (any, error) { return decode(name, value) })
	r, _ := loaded.(*Record)
	return r, err
}

func decode(name string, value []byte) (*Record, error) {
	r := &Record{Name: name}
	if err := json.Unmarshal(value, r); err != nil {
		return nil, conclave.Errorf(conclave.Internal, "the stored record of a token is damaged")
	}
	if r.Accessor == "" && isAccessor(name) {
		r.Accessor = name
	}
	if r.Accessor == "" || r.Created == 0 {
		return nil, conclave.Errorf(conclave.Internal, "the stored record of a token is incomplete")
	}
	r.describe()
	return r, nil
}

// describe makes the caller that the token stands for.
func (r *Record) describe() {
	r.caller = &conclave.Caller{TokenID: r.Name, Accessor: r.Accessor, DisplayName: r.DisplayName, EntityID: r.EntityID,
		Policies: r.Policies, Root: r.Root(), Metadata: r.Metadata, Orphan: r.Orphan(), Type: r.Type()}
}

// Type is "service" or "batch".
func (r *Record) Type() string {
	if r.Batch {
		return batch
	}
	return service
}

// Owner is the stored token that leases of this one end with: itself, or the parent of a batch token; empty for batch
// tokens without one.
func (r *Record) Owner() string {
	if r.Batch {
		return r.Parent
	}
	return r.Name
}

func store(tx conclave.Tx, r *Record) error {
	value, err := r.encode()
	if err != nil {
		return err
	}
	return tx.Put(idPath(r.Name), value)
}

func (r *Record) encode() ([]byte, error) {
	kept := *r
	if kept.Accessor == kept.Name {
		kept.Accessor = ""
	}
	return json.Marshal(&kept)
}

// alive reports whether the token and all its ancestors live.
func alive(view conclave.View, r *Record) (bool, error) {
	if r.expired(view) {
		return false, nil
	}
	for depth := 0; r.Parent != ""; depth++ {
		parent, err := load(view, r.Parent)
		switch {
		case err != nil || depth >= MaxDepth:
			return false, err
		case parent == nil && r.Batch:
			return false, nil // nobody makes an orphan of it
		case parent == nil:
			return isBridge(view, r.Parent)
		case parent.expired(view):
			return false, nil
		}
		r = parent
	}
	return true, nil
}

// isBridge reports whether a token was revoked without its children: they are orphans.
func isBridge(view conclave.View, name string) (bool, error) {
	value, err := view.Get(bridgePath(name))
	return value != nil, err
}

// Find returns the record of a token that lives, by the name that it is stored under, nil if there is none.
func Find(view conclave.View, name string) (*Record, error) { return find(view, name) }

// find returns the record of a token that lives, nil if there is none.
func find(view conclave.View, name string) (*Record, error) {
	r, err := load(view, name)
	if err != nil || r == nil {
		return nil, err
	}
	if ok, err := alive(view, r); err != nil || !ok {
		return nil, err
	}
	return r, nil
}

// seek returns the live token behind a secret, nil if there is none.
func seek(view conclave.View, secret conclave.Secret) (*Record, error) {
	switch {
	case isBatch(secret):
		return openBatch(view, secret)
	case secret.Empty() || len(secret.Reveal()) > MaxSecret:
		return nil, nil
	}
	return find(view, NameOf(secret))
}

// Authenticate finds the caller behind a secret among the tokens of a namespace, home, whose system space is viewed. A
// token that is unknown, revoked, expired or used from an address that it isn't bound to is Denied, always alike. What
// was read, up to the root of the token's tree, is noted by the view. The use of a token with limited uses is taken by
// [Spend].
func Authenticate(view conclave.View, home conclave.Namespace, secret conclave.Secret) (*conclave.Caller, *Record, error) {
	r, err := seek(view, secret)
	if err != nil {
		return nil, nil, err
	}
	if r == nil || !r.MayComeFrom(view.Request()) {
		return nil, nil, denied()
	}
	caller := *r.caller
	caller.Home = home
	return &caller, r, nil
}

func denied() error { return conclave.Errorf(conclave.Denied, "permission denied") }

// MayComeFrom reports whether a request comes from an address that the token may be used from.
func (r *Record) MayComeFrom(request *conclave.Request) bool {
	if len(r.BoundCIDRs) == 0 {
		return true
	}
	if request == nil {
		return false
	}
	address := request.Remote.Addr().Unmap().WithZone("")
	return slices.ContainsFunc(r.BoundCIDRs, func(p netip.Prefix) bool { return p.Contains(address) })
}

// Spend takes one use of a token with limited uses, when the transaction is judged: the request is Denied if none is
// left then. For other tokens it does nothing.
func Spend(tx conclave.Tx, r *Record) error {
	if r.NumUses == 0 {
		return nil
	}
	return tx.AddCell(usesPath(r.Name), -1, 0, denied())
}

// UsesLeft is the number of uses that a token with limited uses has left.
func UsesLeft(view conclave.View, r *Record) (int, error) {
	left, _, err := usesLeft(view, r)
	return left, err
}

// usesLeft is the number of uses left, 0 for a token without limit, and whether the token still has any.
func usesLeft(view conclave.View, r *Record) (int, bool, error) {
	if r.NumUses == 0 {
		return 0, true, nil
	}
	left, there, err := view.Cell(usesPath(r.Name))
	return int(left), there && left > 0, err
}

// normalPolicies are the names in their one spelling, sorted, each once.
func normalPolicies(names []string) []string {
	var list []string
	for _, name := range names {
		if name = strings.ToLower(strings.TrimSpace(name)); name != "" {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}
