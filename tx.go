package conclave

import "time"

// Limits that hold for every transaction.
const (
	MaxValue       = 1 << 20 // bytes of one stored value
	MaxTransaction = 8 << 20 // bytes of all that one transaction writes
	MaxName        = 1024    // bytes of one segment of a storage path
	MaxDepth       = 64      // segments of a storage path
)

// View is a consistent, read-only view of one space: the storage of a mount, or the system storage of a namespace.
// Paths are relative to the space, "a/b/c", without empty segments. All that is read through it is noted, and the
// request's answer is given only if it still held when the cluster judged the transaction.
//
// Errors of a View or Tx end the transaction: a handler returns them as they are.
type View interface {
	// Get returns the value at path, nil if there is none. The caller must not change it.
	Get(path string) ([]byte, error)
	// Load is Get with a decoded object: decode runs when the value has changed since it was last decoded on this node,
	// and its result is shared between requests, so it must not be changed. Load returns nil if there is no value.
	Load(path string, decode func(value []byte) (any, error)) (any, error)
	// List returns the names directly under dir ("" is the top, others end in "/"), in order, those that have children
	// with a trailing "/". Only names after the name after are returned, at most limit of them; limit <= 0 means all.
	List(dir, after string, limit int) ([]string, error)
	// Cell returns the counter at path, and whether there is one. Cells and values don't share names.
	Cell(path string) (int64, bool, error)
	// Now is cluster time when the transaction began, for stamping what is made. Decisions use Reached.
	Now() time.Time
	// Reached reports whether cluster time has reached at, and binds the transaction to be judged at a time for which
	// the answer is the same.
	Reached(at time.Time) bool
	// Request is the request that is being executed, nil for the vault's own work.
	Request() *Request
	// Caller is who makes the request; nil on routes without authentication.
	Caller() *Caller
	// Namespace is where the request is made.
	Namespace() Namespace
	// Mount is the mount whose route runs.
	Mount() *Mount
	// PasswordPolicy returns the text of the namespace's password policy of that name, "" if there is none.
	PasswordPolicy(name string) (string, error)
}

// Tx is a View that also writes. Writes are seen by later reads of the same Tx and by nobody else before it commits.
type Tx interface {
	View
	// Put stores value at path.
	Put(path string, value []byte) error
	// PutNew is Put at a path where nothing can be, since a name in it has at least 96 random bits of this request's making.
	// That isn't looked up, only judged: were something there, the transaction would conflict each time.
	PutNew(path string, value []byte) error
	// Delete removes the value at path; there need not be one.
	Delete(path string) error
	// SetCell makes or sets the counter at path, or removes it when present is false.
	SetCell(path string, value int64, present bool) error
	// AddCell adds delta to the counter at path when the transaction is judged, if the result is at least floor.
	// Otherwise, or if there is no such cell, nothing of the transaction happens and refusal is the request's outcome.
	// Transactions that add to one cell don't conflict with each other.
	AddCell(path string, delta, floor int64, refusal error) error
	// Wake has the engine's work for name begin once cluster time has reached at, replacing an earlier time for that name. The
	// zero time takes it back. Names are paths of the mount's own choosing ("static/app"), of at most 512 bytes; the engine
	// must be a [Worker].
	Wake(name string, at time.Time) error
	// Emit adds what happened to the transaction: subscribers and webhooks hear of it once it is committed. Events of a
	// transaction that writes nothing are dropped: nothing happened. Beyond MaxEvents and MaxEventBytes it is TooLarge.
	Emit(event Event) error
}

// System is what routes of sys/ get as their Tx: the system space of the namespace, and the making of others.
type System interface {
	Tx
	// CreateSpace makes a space with fresh keys. Whoever keeps the record with these keys keeps the space readable.
	CreateSpace() (Space, error)
	// DropSpace removes all that is stored in a space, at once.
	DropSpace(space Space) error
	// Open returns the view of another space within this transaction.
	Open(space Space) (Tx, error)
}

// Space names a storage area and holds its keys, in the binary form of package crypto.
type Space struct {
	ID   uint64 `json:"id"`
	Keys []byte `json:"keys"`
}

// Namespace names a namespace.
type Namespace struct {
	ID   string // "root", or a short random name that is never used again
	Path string // canonical: "" is the root namespace, others end in "/"
}

// RootNamespace is the id of the namespace that holds all others.
const RootNamespace = "root"

// IsRoot reports whether the namespace is the one that holds all others.
func (n Namespace) IsRoot() bool { return n.Path == "" }

// Caller is the authenticated identity behind a request.
type Caller struct {
	TokenID     string    // the name under which the token is stored, not the token itself
	Home        Namespace // where the token lives: that of the request, or one above it
	Accessor    string
	DisplayName string
	EntityID    string
	Policies    []string
	Root        bool // holds the policy root
	Metadata    map[string]string
	Orphan      bool
	Type        string // "service" or "batch"
	// IdentityPolicies come from the entity behind the token and its groups; Policies are the token's own.
	IdentityPolicies []string
	// Identity gives values for identity templates; nil if there is no entity behind the token. It is for the transaction
	// that the caller came with.
	Identity TemplateValues
}

// TemplateValues gives the values of identity templates. They are chosen by whoever may write entities, groups and
// aliases: a handler checks them before they become part of anything that has a syntax.
type TemplateValues interface {
	// Resolve returns the value of a template such as "identity.entity.name", and whether there is one.
	Resolve(template string) (string, bool)
}

// Mount is one line of a namespace's mount table.
type Mount struct {
	UUID        string
	Path        string // canonical, ends in "/"; logins are under "auth/…/"
	Kind        string // the plug-in's kind, as in "kv"
	Accessor    string
	Description string
	Options     map[string]string
	DefaultTTL  time.Duration // already resolved against the server's defaults
	MaxTTL      time.Duration
	Local       bool
	SealWrap    bool
	// TokenType is the type of token that logins get: service, batch, default-service or default-batch; empty is the same
	// as default-service.
	TokenType string
}
