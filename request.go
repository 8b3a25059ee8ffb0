package conclave

import (
	"context"
	"encoding/json"
	"net/netip"
	"time"
)

// Operation is what a request does to its path, and the capability that a policy grants for it.
type Operation uint8

// The operations. A client's POST or PUT arrives as Update; the pipeline turns it into Create for authorisation when
// the route has an existence check and nothing is there.
const (
	Read Operation = iota + 1
	Create
	Update
	Patch
	Delete
	List
	Scan
)

var operationNames = [...]string{"", "read", "create", "update", "patch", "delete", "list", "scan"}

// String is the operation's name as policies and audit records spell it.
func (o Operation) String() string {
	if int(o) < len(operationNames) {
		return operationNames[o]
	}
	return ""
}

// Request is one client request after the edge has parsed it, once, into canonical form. Authorisation, routing,
// storage and audit all see this struct; nobody parses the original again.
type Request struct {
	ID        string // unique per request, shown to the client
	Operation Operation
	// Namespace is the canonical namespace path: "" is the root namespace, others end in "/".
	Namespace string
	// Path is canonical: no leading slash, no "v1/", no empty, "." or ".." segment. It ends in "/" only for List and Scan.
	Path string
	// Fields are the members of the body, or of the query for operations without one. Numbers are json.Number.
	Fields map[string]any
	// Body is the body that Fields was decoded from, for the audit record. It may be nil.
	Body json.RawMessage
	// Token is the client's access token, empty if none was sent.
	Token Secret
	// WrapTTL, if positive, asks for the response to be wrapped.
	WrapTTL time.Duration
	// MinIndex is the lowest applied index that the client wants its request executed on; 0 means any.
	MinIndex uint64
	// Remote is the client's address after trusted proxies.
	Remote netip.AddrPort
	// Header holds the few request headers that a mount or the audit log asks for, by canonical name.
	Header map[string][]string
	// MFA are the values of the header X-Vault-MFA: passcodes of a login's second factor. They are not recorded.
	MFA []Secret
	// PeerCertificates is the client's verified TLS chain, DER, leaf first; nil without one.
	PeerCertificates [][]byte
	// PresentedCertificates is what the client presented in the TLS handshake, DER, leaf first, whoever signed it; nil if
	// it presented nothing. TLS has shown that the client holds the leaf's key, and no more.
	PresentedCertificates [][]byte
	// Help asks for the route's documentation instead of its execution.
	Help bool
}

// Response is what a handler answers. The zero Response is an empty success (204).
type Response struct {
	// Data is marshalled to JSON under "data". json.RawMessage is passed through.
	Data any
	// TopLevel puts the members of Data at the top level of the answer as well, as Vault does for its oldest endpoints.
	TopLevel bool
	// Login is the outcome of a login; the vault makes a token of it and answers Auth instead.
	Login    *Login
	Auth     *Auth
	Lease    *Lease
	Wrap     *Wrap
	Warnings []string
	// Raw, if not nil, is sent as it is, without the JSON envelope.
	Raw *Raw
	// Stream, if not nil, goes on after the answer to a client that asked for a WebSocket.
	Stream Stream `json:"-"`
	// Index is the applied index that the request was judged at; the pipeline sets it.
	Index uint64
	// Accessor is a handle to the credential in Data; whoever has the answer wrapped is told it. See [Accessible].
	Accessor string
	// MountType is the kind of plug-in that answered, shown in the envelope; the pipeline sets it.
	MountType string
	// Status overrides the HTTP status of a success; 0 means 200, or 204 when there is nothing to send.
	Status int
}

// Stream sends messages for as long as ctx lasts or there are any. send returns when a message is on its way, and an
// error when the client takes no more. The error, if any, is what the client is told.
type Stream func(ctx context.Context, send func(ctx context.Context, message []byte) error) error

// Raw is an answer outside the JSON envelope.
type Raw struct {
	ContentType string
	Body        []byte
	// Header are more headers of the answer, by canonical name. Those that the vault sets itself stay as they are.
	Header map[string][]string
}

// Auth is the outcome of a login or a token creation.
type Auth struct {
	ClientToken   Secret
	Accessor      string
	Policies      []string // all that apply
	TokenPolicies []string // those of the token itself
	Metadata      map[string]string
	EntityID      string
	TokenType     string // "service" or "batch"
	TTL           time.Duration
	Renewable     bool
	Orphan        bool
	NumUses       int
	DisplayName   string
	// MFARequirement, if not nil, says what the login still needs: there is no token yet.
	MFARequirement *MFARequirement
}

// MFARequirement is what a login still needs before it gets a token: every constraint, by one of its methods.
type MFARequirement struct {
	RequestID   string // lets whoever knows it finish the login
	Constraints []MFAConstraint
}

// MFAConstraint is a named demand that any one of some methods meets.
type MFAConstraint struct {
	Name string
	Any  []MFAMethod
}

// MFAMethod is one way to show a second factor.
type MFAMethod struct {
	Type, ID, Name string
	UsesPasscode   bool
}

// Lease is attached to an answer whose content lives for a limited time.
type Lease struct {
	// ID names a lease that the vault keeps; the vault sets it.
	ID string
	// TTL and MaxTTL are what the engine wants; 0 is the mount's. In an answer, TTL is what was granted.
	TTL, MaxTTL time.Duration
	Renewable   bool
	// Data is what the engine needs to renew and to revoke, kept encrypted. Without it there is nothing to revoke: no lease
	// is kept, and TTL is advice.
	Data json.RawMessage
}

// Wrap describes a wrapped answer.
type Wrap struct {
	Token           Secret
	Accessor        string
	TTL             time.Duration
	CreationTime    time.Time
	CreationPath    string
	WrappedAccessor string
}
