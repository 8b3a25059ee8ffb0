package pipeline

import (
	"context"
	"encoding/json"
	"time"

	"conclave"
	"conclave/mount"
	"conclave/policy"
	"conclave/store"
	"conclave/token"
)

// Where a wrapping token keeps what it wraps: in its own cubbyhole, as Vault does.
const (
	cubbyholePath = "cubbyhole/"
	wrappedPath   = "response" // {"response": "<the answer as JSON>"}
	wrapInfoPath  = "wrapinfo"
)

var (
	errNotWrapping = conclave.Errorf(conclave.Invalid, "wrapping token is not valid or does not exist")
	errCantWrap    = conclave.Errorf(conclave.Invalid, "the answer to this request can't be wrapped: nothing was done")
)

// unwrapError tells a client whose own token should have been the wrapping token that it isn't one, as it is told for a
// token in the body.
func unwrapError(req *conclave.Request, err error) error {
	_, named := req.Fields["token"]
	if !named && conclave.Is(err, conclave.Denied) && !req.Token.Empty() && (req.Path == "sys/wrapping/unwrap" || req.Path == "sys/wrapping/rewrap") {
		return errNotWrapping
	}
	return err
}

// wrapInfo is what is kept of a wrapping.
type wrapInfo struct {
	CreationTime string           `json:"creation_time" doc:"When it was wrapped."`
	CreationTTL  conclave.Seconds `json:"creation_ttl" doc:"How long the token lives from then on."`
	CreationPath string           `json:"creation_path" doc:"The path of the request whose answer it is."`
}

// held is what a wrapping token wraps.
type held struct {
	Response string `json:"response"`
}

// checkWrap refuses what can't be wrapped before the route's Prepare acts outside, where nothing takes it back.
func (r *run) checkWrap() error {
	if route := r.call.route; r.request.WrapTTL > 0 && route.Finish != nil && route.Prepare != nil {
		return errCantWrap
	}
	return nil
}

// wrap puts an answer behind a token of one use, which alone is answered. Answers with nothing in them stay as they are.
func (r *run) wrap(tx *store.Tx, resp *conclave.Response) (*conclave.Response, error) {
	if resp == nil || resp.Data == nil && resp.Auth == nil && resp.Lease == nil {
		return resp, nil
	}
	if resp.Wrap != nil { // made by the handler
		return resp, nil
	}
	if resp.Raw != nil || r.call.route.Finish != nil {
		return nil, errCantWrap
	}
	body, err := r.pipeline.envelope(resp)
	if err != nil {
		return nil, err
	}
	wrap, err := r.hold(tx, string(body), r.request.WrapTTL, r.request.Path)
	if err != nil {
		return nil, err
	}
	wrap.WrappedAccessor = resp.Accessor
	if resp.Auth != nil {
		wrap.WrappedAccessor = resp.Auth.Accessor
	}
	return &conclave.Response{Wrap: wrap, Warnings: resp.Warnings}, nil
}

// hold makes a wrapping token and stores body in its cubbyhole.
func (r *run) hold(tx *store.Tx, body string, ttl time.Duration, path string) (*conclave.Wrap, error) {
	if r.wrapping == nil {
		minted, err := token.Mint(r.pipeline.random)
		if err != nil {
			return nil, err
		}
		r.wrapping = &minted
	}
	return r.pipeline.routing.hold(r.call.here().system, *r.wrapping, body, ttl, path)
}

func (r *routing) hold(system *store.View, minted token.Minted, body string, ttl time.Duration, path string) (*conclave.Wrap, error) {
	if ttl <= 0 {
		return nil, conclave.Errorf(conclave.Invalid, "a wrapping token needs a time to live")
	}
	minted = minted.In(system.Namespace())
	record := &token.Record{Policies: []string{policy.Wrapping}, Path: path, DisplayName: "wrapping", NumUses: 1, TTL: ttl, ExplicitMax: ttl}
	if err := token.Create(system, minted, record); err != nil {
		return nil, err
	}
	cubbyhole, err := r.cubbyhole(system, record.Name)
	if err != nil {
		return nil, err
	}
	now := system.Now().UTC()
	info := wrapInfo{CreationTime: now.Format(time.RFC3339Nano), CreationTTL: conclave.InSeconds(ttl), CreationPath: path}
	for name, content := range map[string]any{wrappedPath: held{body}, wrapInfoPath: info} {
		value, err := json.Marshal(content)
		if err != nil {
			return nil, err
		}
		if err := cubbyhole.Put(name, value); err != nil {
			return nil, err
		}
	}
	return &conclave.Wrap{Token: minted.Secret, Accessor: record.Accessor, TTL: ttl, CreationTime: now, CreationPath: path}, nil
}

// cubbyhole opens the cubbyhole of a token in its namespace.
func (r *routing) cubbyhole(system *store.View, name string) (*store.View, error) {
	table, err := mount.Load(system, r.defaults)
	if err != nil {
		return nil, err
	}
	entry, _, ok := table.Find(cubbyholePath)
	if !ok {
		return nil, conclave.Errorf(conclave.Internal, "there is no cubbyhole")
	}
	return system.Mounted(entry.Space, name+"/", entry.Mount())
}

// wrapped finds what a wrapping token wraps. Whatever else it is that was given is not told.
func (r *routing) wrapped(view conclave.View, secret conclave.Secret) (*token.Record, *held, *wrapInfo, error) {
	system, ok := view.(*store.View)
	if !ok {
		return nil, nil, nil, conclave.Errorf(conclave.Internal, "answers are unwrapped outside the system space")
	}
	record, err := token.Wrapping(system, secret)
	if err != nil {
		return nil, nil, nil, err
	}
	if record == nil {
		return nil, nil, nil, errNotWrapping
	}
	cubbyhole, err := r.cubbyhole(system, record.Name)
	if err != nil {
		return nil, nil, nil, err
	}
	body, info := &held{}, &wrapInfo{}
	for name, into := range map[string]any{wrappedPath: body, wrapInfoPath: info} {
		value, err := cubbyhole.Get(name)
		if err != nil {
			return nil, nil, nil, err
		}
		if value == nil || json.Unmarshal(value, into) != nil {
			return nil, nil, nil, errNotWrapping
		}
	}
	return record, body, info, nil
}

// release ends a wrapping token with what it held.
func (r *routing) release(tx conclave.Tx, name string) error {
	cubbyhole, err := r.cubbyhole(tx.(*store.View), name)
	if err != nil {
		return err
	}
	for _, path := range []string{wrappedPath, wrapInfoPath} {
		if err := cubbyhole.Delete(path); err != nil {
			return err
		}
	}
	return token.Revoke(tx, name)
}

type wrappingInput struct {
	Token conclave.Secret `json:"token" doc:"The wrapping token; the caller's own if not given."`
}

func (in *wrappingInput) secret(view conclave.View) conclave.Secret {
	if in.Token.Empty() && view.Request() != nil {
		return view.Request().Token
	}
	return in.Token
}

type wrapInput struct {
	Fields map[string]any `json:"*"`
}

// wrappingRoutes are those below sys/wrapping/.
func (r *routing) wrappingRoutes() []conclave.Route {
	rewrap := conclave.WriteRoute(conclave.Update, "wrapping/rewrap", "Put a wrapped answer behind a new token, which lives as long again.", r.rewrap)
	rewrap.Prepare = r.mint
	return []conclave.Route{
		conclave.ReadRoute(conclave.Update, "wrapping/wrap", "Wrap the fields of the request; X-Vault-Wrap-TTL says for how long.", r.echo),
		conclave.ReadRoute(conclave.Read, "wrapping/lookup", "Look up a wrapping token without using it.", r.lookupWrapped).With(conclave.Public),
		conclave.ReadRoute(conclave.Update, "wrapping/lookup", "Look up a wrapping token without using it.", r.lookupWrapped).With(conclave.Public),
		conclave.WriteRoute(conclave.Update, "wrapping/unwrap", "Give out a wrapped answer, once.", r.unwrap),
		rewrap,
	}
}

func (r *routing) mint(context.Context, *conclave.Request, any) (any, error) {
	minted, err := token.Mint(r.random)
	if err != nil {
		return nil, err
	}
	return minted, nil
}

func (r *routing) echo(_ context.Context, view conclave.View, in *wrapInput) (*conclave.Response, error) {
	if view.Request() == nil || view.Request().WrapTTL <= 0 {
		return nil, conclave.Errorf(conclave.Invalid, "endpoint requires response wrapping to be used: set X-Vault-Wrap-TTL")
	}
	data := in.Fields
	if data == nil {
		data = map[string]any{}
	}
	return &conclave.Response{Data: data}, nil
}

func (r *routing) lookupWrapped(_ context.Context, view conclave.View, in *wrappingInput) (*wrapInfo, error) {
	_, _, info, err := r.wrapped(view, in.secret(view))
	return info, err
}

func (r *routing) unwrap(_ context.Context, tx conclave.Tx, in *wrappingInput) (*conclave.Response, error) {
	record, body, _, err := r.wrapped(tx, in.secret(tx))
	if err != nil {
		return nil, err
	}
	if err := r.release(tx, record.Name); err != nil {
		return nil, err
	}
	return &conclave.Response{Raw: &conclave.Raw{ContentType: "application/json", Body: []byte(body.Response)}}, nil
}

func (r *routing) rewrap(ctx context.Context, tx conclave.Tx, in *wrappingInput) (*conclave.Response, error) {
	minted, ok := conclave.Prepared[token.Minted](ctx)
	if !ok {
		return nil, conclave.Errorf(conclave.Internal, "no randomness was prepared")
	}
	record, body, info, err := r.wrapped(tx, in.secret(tx))
	if err != nil {
		return nil, err
	}
	if err := r.release(tx, record.Name); err != nil {
		return nil, err
	}
	wrap, err := r.hold(tx.(*store.View), minted, body.Response, info.CreationTTL.Duration(), info.CreationPath)
	if err != nil {
		return nil, err
	}
	return &conclave.Response{Wrap: wrap}, nil
}
