package conclave

import (
	"context"
	"reflect"
	"slices"
	"strings"
)

// Route is one operation on one pattern of paths: its documentation, its typed input and output, and its handler.
// OpenAPI and help texts are made from it. Make routes with [ReadRoute] and [WriteRoute].
type Route struct {
	// Pattern is relative to the mount: "config", "roles/{name}", "data/{path...}". A segment {name} matches one
	// segment; a last segment {name...} matches the rest, at least one segment (for List and Scan: any number).
	// Literal segments win over {name}, which wins over {name...}.
	Pattern   string
	Operation Operation
	// Doc is one line of what the operation does, then whatever a user must know.
	Doc string
	// Public routes run without a token (logins). All others need one that may do the operation on the path.
	Public bool
	// Sudo routes need the capability sudo as well.
	Sudo bool
	// Urgent routes commit in a lane of their own, past full queues, a full audit log and a disk at its reserve: sealing,
	// stepping down, making room. Only routes that need sudo may be urgent.
	Urgent bool
	// AtHome routes are about the caller's own token: their view is that of the namespace where it lives, which may lie above
	// the request's.
	AtHome bool
	// Cluster routes are about the whole cluster: only the root namespace has them.
	Cluster bool
	// Input and Output are struct types; nil if there is none.
	Input, Output reflect.Type
	// Gather reads what Prepare works from, such as a role or the settings of a connection. It runs in a transaction before
	// Prepare, which gets its result through [Gathered], and again in the one that is judged: if the results differ
	// ([reflect.DeepEqual]), Prepare runs again; it doesn't run if the result is [NoPreparation]. An error is the request's
	// outcome. Nil if Prepare needs nothing.
	Gather func(view View, in any) (any, error)
	// Guess names the account whose secret a public route checks, "" for none. The vault counts wrong guesses, outcomes
	// that are Denied or Invalid, and locks the account after some: with a Prepare, each guess is counted before it is
	// evaluated. The name must be in one spelling. Nil: the route checks nothing that can be guessed.
	Guess func(req *Request, in any) string
	// Intend writes down, before Prepare runs, what Prepare is about to do outside of the vault, in a transaction of its own,
	// after the caller was found to be allowed and Gather has run. It may write: the password that will be set. It may return
	// the lease of what will be made, which is ended unless the request's own transaction confirms it by answering a Lease.
	// So nothing is left behind, whenever the node dies. What it returns reaches Prepare and the handler through [Intended].
	// It may run again as a handler may, and runs again, with the first intent's lease ended, when Prepare does. It may draw
	// randomness. An error is the request's outcome. Nil: Prepare makes nothing that must be ended or known.
	Intend func(ctx context.Context, tx Tx, in any) (*Intent, error)
	// Prepare does slow or outside work, once, before the transaction opens and after a first check that the caller is
	// allowed; what it returns reaches the handler through [Prepared]. Nil if there is none.
	Prepare func(ctx context.Context, req *Request, in any) (any, error)
	// Finish acts after the transaction and its audit record are committed, once: sealing, stepping down, removing a node.
	// What it answers replaces the handler's response; an error, or an answer that holds anything, gets a record of its
	// own before it leaves. Nil if there is nothing to do.
	Finish func(ctx context.Context, req *Request, in any) (*Response, error)
	// Exists decides whether an Update is a Create for authorisation. Nil: an Update is an Update.
	Exists func(view View, in any) (bool, error)
	// Needs lists what else the caller must be allowed to do, besides the operation on the route's own path: a copy writes
	// its destination. The pipeline authorises each; one denial denies the request. Nil: nothing else.
	Needs func(in any) []Access
	// ClearRequest and ClearResponse name top-level fields that are written to the audit record as they are.
	ClearRequest, ClearResponse []string

	handle  func(ctx context.Context, tx Tx, in any) (*Response, error)
	writes  bool
	newZero func() any
}

// Access is an operation on a path relative to the mount, as a policy would grant it.
type Access struct {
	Operation Operation
	Path      string
}

// ReadRoute makes a route whose handler only reads. Out may be Response for full control of the answer; a nil *Out is
// an empty answer. List routes answer a [Keys].
func ReadRoute[In, Out any](op Operation, pattern, doc string, handle func(ctx context.Context, view View, in *In) (*Out, error)) Route {
	r := newRoute[In, Out](op, pattern, doc)
	r.handle = func(ctx context.Context, tx Tx, in any) (*Response, error) {
		out, err := handle(ctx, tx, in.(*In))
		return respond(out, err)
	}
	return r
}

// WriteRoute makes a route whose handler may write.
func WriteRoute[In, Out any](op Operation, pattern, doc string, handle func(ctx context.Context, tx Tx, in *In) (*Out, error)) Route {
	r := newRoute[In, Out](op, pattern, doc)
	r.writes = true
	r.handle = func(ctx context.Context, tx Tx, in any) (*Response, error) {
		out, err := handle(ctx, tx, in.(*In))
		return respond(out, err)
	}
	return r
}

func newRoute[In, Out any](op Operation, pattern, doc string) Route {
	return Route{Pattern: pattern, Operation: op, Doc: doc,
		Input: reflect.TypeFor[In](), Output: reflect.TypeFor[Out](),
		newZero: func() any { return new(In) }}
}

func respond[Out any](out *Out, err error) (*Response, error) {
	if err != nil {
		return nil, err
	}
	if out == nil {
		return &Response{}, nil
	}
	switch out := any(out).(type) {
	case *Response:
		return out, nil
	case *Keys:
		return out.response()
	default:
		if reflect.TypeFor[Out]() == reflect.TypeFor[None]() {
			return &Response{}, nil
		}
		resp := &Response{Data: out}
		if given, ok := any(out).(Accessible); ok {
			resp.Accessor = given.AccessorOf()
		}
		return resp, nil
	}
}

// Accessible is an output that holds a credential which can be looked up and ended by an accessor.
type Accessible interface{ AccessorOf() string }

// None is the input or output of a route that has none.
type None struct{}

// Keys is the answer to a List: 404 when there are no keys.
type Keys struct {
	Keys []string `json:"keys" doc:"Names directly under the path, those that have something below them with a trailing slash."`
	// KeyInfo holds details by key, where the route has them.
	KeyInfo map[string]any `json:"key_info,omitempty" doc:"Details by key."`
}

func (k *Keys) response() (*Response, error) {
	if len(k.Keys) == 0 {
		return nil, &Error{Kind: NotFound}
	}
	return &Response{Data: k}, nil
}

// With returns the route changed by each of options: conclave.ReadRoute(…).With(conclave.Public).
func (r Route) With(options ...func(*Route)) Route {
	for _, option := range options {
		option(&r)
	}
	return r
}

// Public marks a route that needs no token.
func Public(r *Route) { r.Public = true }

// Sudo marks a route that needs the capability sudo.
func Sudo(r *Route) { r.Sudo = true }

// AtHome marks a route about the caller's own token.
func AtHome(r *Route) { r.AtHome = true }

// OfCluster marks a route that only the root namespace has.
func OfCluster(r *Route) { r.Cluster = true }

// Urgent marks a route that must get through when others don't.
func Urgent(r *Route) { r.Urgent = true }

// Writes reports whether the handler may write.
func (r *Route) Writes() bool { return r.writes }

// Bind decodes a request's path parameters and fields into a new value of the route's input type.
func (r *Route) Bind(params map[string]string, fields map[string]any) (any, error) {
	in := r.newZero()
	if err := bind(in, params, fields); err != nil {
		return nil, err
	}
	return in, nil
}

// Handle runs the handler. For a route that only reads, tx's writing half is never used.
func (r *Route) Handle(ctx context.Context, tx Tx, in any) (*Response, error) {
	return r.handle(ctx, tx, in)
}

type preparedKey struct{}

// WithPrepared returns a context that carries what a route's Prepare returned.
func WithPrepared(ctx context.Context, value any) context.Context {
	return context.WithValue(ctx, preparedKey{}, value)
}

// Prepared returns what the route's Prepare returned for this request, and whether it is a T.
func Prepared[T any](ctx context.Context) (T, bool) {
	value, ok := ctx.Value(preparedKey{}).(T)
	return value, ok
}

type gatheredKey struct{}

// WithGathered returns a context that carries what a route's Gather returned.
func WithGathered(ctx context.Context, value any) context.Context {
	return context.WithValue(ctx, gatheredKey{}, value)
}

// Gathered returns what the route's Gather returned for this request, and whether it is a T.
func Gathered[T any](ctx context.Context) (T, bool) {
	value, ok := ctx.Value(gatheredKey{}).(T)
	return value, ok
}

type requestIDKey struct{}

// WithRequestID returns a context that names the request it belongs to, for what is executed outside a transaction.
func WithRequestID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, requestIDKey{}, id)
}

// RequestID is the request that ctx belongs to, empty if it names none.
func RequestID(ctx context.Context) string {
	id, _ := ctx.Value(requestIDKey{}).(string)
	return id
}

// Router finds the route for a path and an operation. It is immutable and safe for concurrent use.
type Router struct{ root *node }

type node struct {
	literal map[string]*node
	param   *node
	rest    map[Operation]*leaf
	routes  map[Operation]*leaf
}

type leaf struct {
	route *Route
	names []string
}

// NewRouter builds a router. It panics if a pattern is malformed or two routes have the same pattern and operation: that
// is a defect of the program, seen at its first start.
func NewRouter(routes []Route) *Router {
	router := &Router{root: &node{}}
	for i := range routes {
		router.add(&routes[i])
	}
	return router
}

func (rt *Router) add(route *Route) {
	at, names := rt.root, []string(nil)
	if route.Pattern != "" {
		segments := strings.Split(strings.TrimSuffix(route.Pattern, "/"), "/")
		for i, segment := range segments {
			name, isRest, isParam := parameter(route, segment)
			if !isParam {
				at = at.child(segment)
				continue
			}
			if slices.Contains(names, name) {
				panic("two parameters of one name in " + route.Pattern)
			}
			names = append(names, name)
			if isRest {
				if i < len(segments)-1 {
					panic("segments after the rest in " + route.Pattern)
				}
				at.rest = put(at.rest, route, names)
				return
			}
			if at.param == nil {
				at.param = &node{}
			}
			at = at.param
		}
	}
	at.routes = put(at.routes, route, names)
}

// parameter takes a segment of a pattern apart.
func parameter(route *Route, segment string) (name string, isRest, isParam bool) {
	name, opened := strings.CutPrefix(segment, "{")
	name, closed := strings.CutSuffix(name, "}")
	name, isRest = strings.CutSuffix(name, "...")
	if opened != closed || name == "" || strings.ContainsAny(name, "{}") || isRest && !opened {
		panic("malformed segment in " + route.Pattern)
	}
	return name, isRest, opened
}

func (n *node) child(segment string) *node {
	if n.literal == nil {
		n.literal = map[string]*node{}
	}
	if n.literal[segment] == nil {
		n.literal[segment] = &node{}
	}
	return n.literal[segment]
}

func put(routes map[Operation]*leaf, route *Route, names []string) map[Operation]*leaf {
	if routes == nil {
		routes = map[Operation]*leaf{}
	}
	if routes[route.Operation] != nil {
		panic("two routes for " + route.Operation.String() + " " + route.Pattern)
	}
	routes[route.Operation] = &leaf{route, names}
	return routes
}

// Find returns the route for path, relative to the mount, and its path parameters. The error is NotFound when no route
// has such a path, Unsupported when one has, but not for this operation.
func (rt *Router) Find(op Operation, path string) (*Route, map[string]string, error) {
	path = strings.TrimSuffix(path, "/")
	if strings.HasPrefix(path, "/") || strings.HasSuffix(path, "/") || strings.Contains(path, "//") {
		return nil, nil, Errorf(NotFound, "unsupported path") // the edge lets no such path through
	}
	var values [8]string
	found, got, known := rt.root.find(op, path, values[:0])
	if found == nil {
		if known {
			return nil, nil, Errorf(Unsupported, "unsupported operation")
		}
		return nil, nil, Errorf(NotFound, "unsupported path")
	}
	params := make(map[string]string, len(got))
	for i, name := range found.names {
		params[name] = got[i]
	}
	return found.route, params, nil
}

// find takes path apart from its front; values are those of the parameters so far. Without a leaf, known tells whether
// the path has routes for other operations.
func (n *node) find(op Operation, path string, values []string) (found *leaf, got []string, known bool) {
	if path == "" {
		if l := n.routes[op]; l != nil {
			return l, values, true
		}
		if l := n.rest[op]; l != nil && (op == List || op == Scan) {
			return l, append(values, ""), true
		}
		return nil, nil, n.routes != nil
	}
	segment, below, _ := strings.Cut(path, "/")
	if next := n.literal[segment]; next != nil {
		l, v, k := next.find(op, below, values)
		if l != nil {
			return l, v, true
		}
		known = k
	}
	if n.param != nil {
		l, v, k := n.param.find(op, below, append(values, segment))
		if l != nil {
			return l, v, true
		}
		known = known || k
	}
	if l := n.rest[op]; l != nil {
		return l, append(values, path), true
	}
	return nil, nil, known || n.rest != nil
}

// FindAny returns a route for path whatever its operation, op if there is one for it: what documentation is shown of.
func (rt *Router) FindAny(op Operation, path string) (*Route, map[string]string, error) {
	route, params, err := rt.Find(op, path)
	for other := Read; err != nil && other <= Scan; other++ {
		route, params, err = rt.Find(other, path)
	}
	return route, params, err
}

// Routes calls visit for every route in no particular order.
func (rt *Router) Routes(visit func(*Route)) { rt.root.visit(visit) }

func (n *node) visit(visit func(*Route)) {
	for _, leaves := range []map[Operation]*leaf{n.routes, n.rest} {
		for _, l := range leaves {
			visit(l.route)
		}
	}
	for _, child := range n.literal {
		child.visit(visit)
	}
	if n.param != nil {
		n.param.visit(visit)
	}
}
