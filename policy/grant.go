package policy

import (
	"context"
	"slices"

	"conclave"
)

// Grant is what a caller may do in the namespace of its request: what its policies say there, where its token lives.
type Grant struct {
	ACL *ACL
	// Prefix is the path of the request's namespace as the policies see it: "" where the token lives, "team/" in a
	// namespace below.
	Prefix string
}

// Allows decides about a path that is relative to the request's namespace.
func (g *Grant) Allows(c Check) Decision {
	c.Path = g.Prefix + c.Path
	return g.ACL.Allows(c)
}

// Capabilities lists what may be done on a path, as capabilities are answered.
func (g *Grant) Capabilities(path string) []string { return g.ACL.Capabilities(g.Prefix + path) }

// Touches reports whether anything may be done on a mount's path, which ends in "/", or below it.
func (g *Grant) Touches(mount string) bool { return g.ACL.Touches(g.Prefix + mount) }

// Sudo reports whether the capability sudo is given on a path.
func (g *Grant) Sudo(path string) bool {
	return g.Allows(Check{Path: path, Operation: conclave.Update, Sudo: true}).Allowed
}

// Together are the policies of a token and those of the identity behind it, sorted, each once. Root is a token's own or
// nobody's: what an identity says of it is passed over.
func Together(own, behind []string) []string {
	if len(behind) == 0 {
		return own
	}
	all := slices.Concat(own, WithoutRoot(behind))
	slices.Sort(all)
	return slices.Compact(all)
}

// WithoutRoot is names without root in any spelling. The result may be names itself.
func WithoutRoot(names []string) []string {
	isRoot := func(name string) bool { return NormalName(name) == Root }
	if !slices.ContainsFunc(names, isRoot) {
		return names
	}
	return slices.DeleteFunc(slices.Clone(names), isRoot)
}

type grantKey struct{}

// WithGrant returns a context that carries the grant of the request's caller.
func WithGrant(ctx context.Context, grant *Grant) context.Context {
	return context.WithValue(ctx, grantKey{}, grant)
}

// GrantOf returns the grant of the request's caller; without one, it allows nothing.
func GrantOf(ctx context.Context) *Grant {
	if grant, ok := ctx.Value(grantKey{}).(*Grant); ok {
		return grant
	}
	return &Grant{ACL: Compile()}
}
