package conclave

import (
	"context"
	"encoding/json"
	"strings"
	"time"
)

// Plugin is one kind of secrets engine or auth method: the line that plugins.go has for it.
type Plugin struct {
	// Kind is what a mount names: "kv", "approle".
	Kind string
	// Doc is one line for lists of plug-ins.
	Doc string
	// Open returns the engine for a mount with these options; unknown or contradictory options are Invalid. It is called
	// once per version of a mount and does no work that can block.
	Open func(options map[string]string) (Engine, error)
	// Singleton plug-ins are mounted once, by the vault itself, and can't be disabled ("cubbyhole").
	Singleton bool
	// Auth plug-ins are auth methods, mounted below auth/. A secrets engine may have the same kind.
	Auth bool
}

// Engine serves the routes of one mount. It has no state of its own: all it knows is in its mount's space.
type Engine interface {
	// Kind is the kind of plug-in that it comes from.
	Kind() string
	// Routes are the operations that it serves, with patterns relative to the mount.
	Routes() []Route
}

// PerCaller is an engine whose storage is divided by access token: each token sees its own part only, and the part
// goes when the token goes. The router gives such an engine a view of the caller's part.
type PerCaller interface {
	Engine
	PerCaller()
}

// Renewer is an auth method that has a say when a token of its logins is renewed.
type Renewer interface {
	Engine
	// RenewLogin looks at a login again, in the transaction that renews, and returns the terms that hold from now on. An
	// error refuses the renewal: the role is gone, the certificate is another one. A method that knows the groups as they
	// are now puts them into login.Groups; nil leaves the memberships as they are.
	RenewLogin(ctx context.Context, view View, login *Login) (*TokenTerms, error)
}

// RenewalAsker is an auth method that asks somebody outside of the vault before a login is renewed: a directory, a
// responder. What AskRenewal returns reaches RenewLogin through [Prepared].
type RenewalAsker interface {
	Renewer
	// GatherRenewal reads what AskRenewal works from, as [Route.Gather] does. Nil: nobody is asked about this login.
	GatherRenewal(view View, login *Login) (any, error)
	// AskRenewal asks. No transaction is open. An error refuses the renewal.
	AskRenewal(ctx context.Context, gathered any) (any, error)
}

// Leaser is an engine whose answers have leases: what they give lives for a limited time and must be ended then.
type Leaser interface {
	Engine
	// RenewLease decides, in the transaction that renews, how a lease goes on. increment is what the client asks for, 0 if
	// it doesn't say; the vault holds the answer against the mount's maximum. An error refuses the renewal.
	RenewLease(ctx context.Context, view View, lease *GrantedLease, increment time.Duration) (*Lease, error)
	// GatherRevoke reads what Revoke works from: a connection's settings.
	GatherRevoke(view View, lease *GrantedLease) (any, error)
	// Revoke ends, outside of the vault, what the lease stands for. No transaction is open. It is called again until it
	// succeeds, and maybe once more after that: to end what isn't there any more is a success.
	Revoke(ctx context.Context, lease *GrantedLease, gathered any) error
	// ForgetLease removes what the mount has stored about a lease, in the transaction that removes the lease.
	ForgetLease(tx Tx, lease *GrantedLease) error
}

// Worker is an engine that has work to do at set times, which it sets with Tx.Wake: rotation, tidying. The leader has it done,
// in three steps; after a crash it begins again.
type Worker interface {
	Engine
	// BeginWork decides what is to be done for name, and may write down first what Work is about to do outside (the password
	// that it will set), so that nothing is lost. Nil: nothing is to be done; the name's time is taken back unless BeginWork
	// called Wake. It may run again as a handler may. An error has it begun again later, after longer and longer pauses.
	BeginWork(ctx context.Context, tx Tx, name string) (begun any, err error)
	// Work does it, outside of the vault, within a minute. No transaction is open. It gets what BeginWork returned, once that
	// is committed, and may run although an earlier one with the same name came further than anybody knows.
	Work(ctx context.Context, name string, begun any) (done any, err error)
	// FinishWork records what came of it; failure is Work's error. It calls Wake for the next time, or the name's time is taken
	// back. It may run again. An error has the work begun again later.
	FinishWork(ctx context.Context, tx Tx, name string, begun, done any, failure error) error
}

// Emergency is an engine that can take back at once what it has given out without a lease: certificates are revoked, static
// credentials get new values.
type Emergency interface {
	Engine
	// Exposed lists what of it is exposed, at most limit items after the one that after names, "" for the first ones, and where to
	// go on, "" if those were all. An engine that doesn't know who got what lists nothing for an entity or a token.
	Exposed(view View, exposure Exposure, after string, limit int) (items []Exposed, next string, err error)
	// TakeBack takes one item back, or has that done at once with Tx.Wake. It may have been taken back before.
	TakeBack(tx Tx, item Exposed) error
}

// Exposure is what has become known to somebody who shouldn't know it. One member at most is set; none of them is all that the
// mount has given out.
type Exposure struct {
	Path     string // what was read below a path relative to the mount
	EntityID string // what an entity has got
	Accessor string // what a token has got
}

// Covers reports whether a path relative to the mount is exposed, by its path.
func (e Exposure) Covers(path string) bool {
	rest, below := strings.CutPrefix(path, e.Path)
	return e.EntityID == "" && e.Accessor == "" && below && (rest == "" || e.Path == "" || rest[0] == '/' || strings.HasSuffix(e.Path, "/"))
}

// Exposed is something that an engine can take back.
type Exposed struct {
	Kind string // "certificate", "static role"
	Name string // within the mount
}

// GrantedLease is a lease as its engine sees it again.
type GrantedLease struct {
	ID      string
	Path    string // of the request that got it, relative to the mount
	Issued  time.Time
	Expires time.Time
	Renewed time.Time // zero if never
	Data    json.RawMessage
}
