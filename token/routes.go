package token

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"conclave"
)

type routes struct {
	access Access
	logins Logins
	random io.Reader
}

// Routes are those below auth/token/. The random source must be a cryptographic one.
func Routes(access Access, logins Logins, random io.Reader) []conclave.Route {
	s := &routes{access, logins, random}
	const (
		lookupSelf = "Look up the caller's own token."
		renewDoc   = "Renew a token: it lives on for the increment, within its maximum."
		endDoc     = "\n\nAll tokens below it end with it, at once and on every node."
	)
	return append(s.roleRoutes(),
		s.create(false),
		s.create(true),
		conclave.ReadRoute(conclave.Read, "lookup", lookupSelf, s.lookupSelf),
		conclave.ReadRoute(conclave.Update, "lookup", "Look up a token.", s.lookup),
		conclave.ReadRoute(conclave.Read, "lookup-self", lookupSelf, s.lookupSelf).With(conclave.AtHome),
		conclave.ReadRoute(conclave.Update, "lookup-self", lookupSelf, s.lookupSelf).With(conclave.AtHome),
		conclave.ReadRoute(conclave.Update, "lookup-accessor", "Look up a token by its accessor. The token itself isn't told.", s.lookupAccessor),
		conclave.WriteRoute(conclave.Update, "renew", renewDoc, s.renew).With(s.asksFirst(s.named)),
		conclave.WriteRoute(conclave.Update, "renew-self", "Renew the caller's own token.", s.renewSelf).With(conclave.AtHome, s.asksFirst(s.own)),
		conclave.WriteRoute(conclave.Update, "renew-accessor", "Renew a token by its accessor.", s.renewAccessor).With(s.asksFirst(s.reached)),
		conclave.WriteRoute(conclave.Update, "revoke", "Revoke a token."+endDoc, s.revoke),
		conclave.WriteRoute(conclave.Update, "revoke-self", "Revoke the caller's own token."+endDoc, s.revokeSelf).With(conclave.AtHome),
		conclave.WriteRoute(conclave.Update, "revoke-accessor", "Revoke a token by its accessor."+endDoc, s.revokeAccessor),
		conclave.WriteRoute(conclave.Update, "revoke-orphan", "Revoke a token alone: those directly below it become orphans.", s.revokeOrphan).With(conclave.Sudo),
		conclave.ReadRoute(conclave.List, "accessors", "List the accessors of all tokens.", s.accessors).With(conclave.Sudo),
		conclave.WriteRoute(conclave.Update, "tidy", "Clear away some of what revoked tokens have left. The vault does so by itself.", s.tidy),
	)
}

var errBatchStays = conclave.Errorf(conclave.Invalid, "batch tokens cannot be revoked")

type tokenInput struct {
	Token conclave.Secret `json:"token" doc:"The token."`
}

type accessorInput struct {
	Accessor string `json:"accessor" doc:"The token's accessor."`
}

type renewInput struct {
	Token     conclave.Secret `json:"token" doc:"The token; the caller's own if not given."`
	Increment time.Duration   `json:"increment" doc:"How long it shall live from now on; its TTL at creation if not given."`
}

type renewAccessorInput struct {
	Accessor  string        `json:"accessor" doc:"The token's accessor."`
	Increment time.Duration `json:"increment" doc:"How long it shall live from now on; its TTL at creation if not given."`
}

type lookupOutput struct {
	Accessor         string            `json:"accessor" doc:"A handle to look up, renew or revoke the token, without being it."`
	BoundCIDRs       []string          `json:"bound_cidrs,omitempty" doc:"Addresses that may use the token; all if absent."`
	CreationTime     int64             `json:"creation_time" doc:"When it was made, Unix seconds."`
	CreationTTL      int64             `json:"creation_ttl" doc:"Time to live at creation, seconds; 0 is no end."`
	DisplayName      string            `json:"display_name" doc:"A name for the audit log."`
	EntityID         string            `json:"entity_id" doc:"The identity behind the token."`
	ExpireTime       *string           `json:"expire_time" doc:"When it ends; null if it doesn't."`
	ExplicitMaxTTL   int64             `json:"explicit_max_ttl" doc:"An end that no renewal can pass, seconds from creation; 0 is none."`
	ID               string            `json:"id" doc:"The token itself; empty when it was looked up by its accessor."`
	IdentityPolicies []string          `json:"identity_policies,omitempty" doc:"Policies of the identity behind the token."`
	OtherPolicies    *struct{}         `json:"external_namespace_policies,omitempty" doc:"Policies in other namespaces: none; kept for clients."`
	IssueTime        string            `json:"issue_time,omitempty" doc:"When it was made; absent if it has no end."`
	LastRenewal      string            `json:"last_renewal,omitempty" doc:"When it was renewed last."`
	LastRenewalAt    int64             `json:"last_renewal_time,omitempty" doc:"When it was renewed last, Unix seconds."`
	Meta             map[string]string `json:"meta" doc:"Metadata given at creation."`
	NamespacePath    string            `json:"namespace_path,omitempty" doc:"The namespace that it belongs to, if not the root namespace."`
	NumUses          int               `json:"num_uses" doc:"Uses left; 0 is unlimited."`
	Orphan           bool              `json:"orphan" doc:"Whether it has no parent to end with."`
	Path             string            `json:"path" doc:"The path of the request that made it."`
	Period           int64             `json:"period,omitempty" doc:"Each renewal sets its time to live to this, seconds."`
	Policies         []string          `json:"policies" doc:"The policies that it has."`
	Role             string            `json:"role,omitempty" doc:"The token role that it was made by."`
	Renewable        bool              `json:"renewable" doc:"Whether it can be renewed."`
	TTL              int64             `json:"ttl" doc:"Time left, seconds; 0 is no end."`
	Type             string            `json:"type" doc:"The type of token."`
}

// self is the record of the caller's own token.
func (s *routes) self(view conclave.View) (*Record, error) {
	caller := view.Caller()
	if caller == nil {
		return nil, denied()
	}
	var r *Record
	var err error
	if caller.Type == batch {
		r, err = openBatch(view, secretOf(view))
	} else {
		r, err = find(view, caller.TokenID)
	}
	if err == nil && r == nil {
		err = denied()
	}
	return r, err
}

// secretOf is the caller's own token.
func secretOf(view conclave.View) conclave.Secret {
	if request := view.Request(); request != nil {
		return request.Token
	}
	return conclave.Secret{}
}

// bySecret finds a live token, nil if there is none.
func bySecret(view conclave.View, secret conclave.Secret) (*Record, error) {
	if secret.Empty() {
		return nil, conclave.Errorf(conclave.Invalid, "missing token ID")
	}
	r, err := seek(view, secret)
	if err != nil || r == nil {
		return nil, err
	}
	if _, any, err := usesLeft(view, r); err != nil || !any {
		return nil, err
	}
	return r, nil
}

// byAccessor finds a live token; what isn't one is Denied.
func byAccessor(view conclave.View, accessor string) (*Record, error) {
	if accessor == "" {
		return nil, conclave.Errorf(conclave.Invalid, "missing accessor")
	}
	r, err := seekAccessor(view, accessor)
	if err == nil && r == nil {
		err = conclave.Errorf(conclave.Denied, "invalid accessor")
	}
	return r, err
}

func seekAccessor(view conclave.View, accessor string) (*Record, error) {
	if !isAccessor(accessor) {
		return nil, nil
	}
	r, err := find(view, accessor)
	if err == nil && r == nil {
		var name []byte
		if name, err = view.Get(accessorPath(accessor)); err == nil && name != nil {
			r, err = find(view, string(name))
		}
	}
	if err != nil || r == nil {
		return nil, err
	}
	if _, any, err := usesLeft(view, r); err != nil || !any {
		return nil, err
	}
	return r, nil
}

func orElse(err, other error) error {
	if err != nil {
		return err
	}
	return other
}

func (s *routes) lookupSelf(_ context.Context, view conclave.View, _ *conclave.None) (*lookupOutput, error) {
	r, err := s.self(view)
	if err != nil {
		return nil, err
	}
	return s.describe(view, r, secretOf(view).Reveal())
}

func (s *routes) lookup(ctx context.Context, view conclave.View, in *tokenInput) (*lookupOutput, error) {
	if in.Token.Empty() || in.Token.Equal(secretOf(view)) {
		return s.lookupSelf(ctx, view, nil)
	}
	r, err := bySecret(view, in.Token)
	if err != nil {
		return nil, err
	}
	if r == nil {
		return nil, conclave.Errorf(conclave.Denied, "bad token")
	}
	return s.describe(view, r, in.Token.Reveal())
}

func (s *routes) lookupAccessor(_ context.Context, view conclave.View, in *accessorInput) (*lookupOutput, error) {
	r, err := byAccessor(view, in.Accessor)
	if err != nil {
		return nil, err
	}
	return s.describe(view, r, "")
}

// describe answers a look-up.
func (s *routes) describe(view conclave.View, r *Record, id string) (*lookupOutput, error) {
	seconds := func(d time.Duration) int64 { return int64(d / time.Second) }
	left, _, err := usesLeft(view, r)
	if err != nil {
		return nil, err
	}
	orphan := r.Orphan()
	if !orphan && r.Parent != "" {
		parent, err := load(view, r.Parent)
		if err != nil {
			return nil, err
		}
		orphan = parent == nil // a bridge, since the token lives
	}
	created := time.Unix(0, r.Created).UTC()
	out := &lookupOutput{Accessor: r.Accessor, CreationTime: created.Unix(), CreationTTL: seconds(r.TTL), DisplayName: r.DisplayName,
		EntityID: r.EntityID, ExplicitMaxTTL: seconds(r.ExplicitMax), ID: id, Meta: r.Metadata, NumUses: left, Orphan: orphan,
		Path: r.Path, Period: seconds(r.Period), Policies: r.Policies, Type: r.Type(), Role: r.Role}
	for _, prefix := range r.BoundCIDRs {
		out.BoundCIDRs = append(out.BoundCIDRs, prefix.String())
	}
	if r.Expires != 0 {
		end := time.Unix(0, r.Expires).UTC().Format(time.RFC3339Nano)
		out.ExpireTime, out.IssueTime = &end, created.Format(time.RFC3339Nano)
		out.TTL, out.Renewable = seconds(r.remaining(view.Now())), r.Renewable
	}
	if r.Renewed != 0 {
		renewed := time.Unix(0, r.Renewed).UTC()
		out.LastRenewal, out.LastRenewalAt = renewed.Format(time.RFC3339Nano), renewed.Unix()
	}
	if r.EntityID != "" {
		if out.IdentityPolicies, err = s.logins.PoliciesOf(view, r.EntityID); err != nil {
			return nil, err
		}
		if len(out.IdentityPolicies) > 0 {
			out.OtherPolicies = &struct{}{}
		}
	}
	out.NamespacePath = view.Namespace().Path
	if caller := view.Caller(); caller != nil && caller.TokenID == r.Name {
		out.NamespacePath = caller.Home.Path
	}
	return out, nil
}

// named is the token that a request names, or else the caller's own.
func (s *routes) named(view conclave.View, in any) (*Record, error) {
	secret := in.(*renewInput).Token
	if secret.Empty() || secret.Equal(secretOf(view)) {
		return s.self(view)
	}
	return bySecret(view, secret)
}

func (s *routes) own(view conclave.View, _ any) (*Record, error) { return s.self(view) }

func (s *routes) reached(view conclave.View, in any) (*Record, error) {
	return byAccessor(view, in.(*renewAccessorInput).Accessor)
}

func (s *routes) renew(ctx context.Context, tx conclave.Tx, in *renewInput) (*conclave.Response, error) {
	if in.Token.Empty() || in.Token.Equal(secretOf(tx)) {
		return s.renewSelf(ctx, tx, in)
	}
	r, err := s.named(tx, in)
	if err != nil {
		return nil, err
	}
	if r == nil {
		return nil, conclave.Errorf(conclave.Denied, "bad token")
	}
	return s.prolong(ctx, tx, r, in.Increment, in.Token)
}

func (s *routes) renewSelf(ctx context.Context, tx conclave.Tx, in *renewInput) (*conclave.Response, error) {
	r, err := s.self(tx)
	if err != nil {
		return nil, err
	}
	return s.prolong(ctx, tx, r, in.Increment, secretOf(tx))
}

func (s *routes) renewAccessor(ctx context.Context, tx conclave.Tx, in *renewAccessorInput) (*conclave.Response, error) {
	r, err := byAccessor(tx, in.Accessor)
	if err != nil {
		return nil, err
	}
	return s.prolong(ctx, tx, r, in.Increment, conclave.Secret{})
}

func (s *routes) prolong(ctx context.Context, tx conclave.Tx, r *Record, increment time.Duration, secret conclave.Secret) (*conclave.Response, error) {
	if r.Batch {
		return nil, conclave.Errorf(conclave.Invalid, "batch tokens cannot be renewed")
	}
	if !r.Renewable || r.Expires == 0 {
		return nil, conclave.Errorf(conclave.Invalid, "lease is not renewable")
	}
	if increment < 0 {
		return nil, conclave.Errorf(conclave.Invalid, "increment must be positive")
	}
	again, err := s.reconsider(ctx, tx, r)
	if err != nil {
		return nil, err
	}
	now, renewed := tx.Now(), again.record
	t := termsOf(again.mount)
	t.wanted = increment
	if increment == 0 {
		t.wanted = again.wanted
	}
	t.restrict(renewed)
	ttl, warnings := t.ttl(now)
	if ttl <= 0 {
		return nil, conclave.Errorf(conclave.Invalid, "past the max TTL, cannot renew")
	}
	renewed.Renewed, renewed.Expires = now.UnixNano(), now.Add(ttl).UnixNano()
	if err := schedule(tx, r.Name, r.Expires, renewed.Expires); err != nil {
		return nil, err
	}
	if err := store(tx, renewed); err != nil {
		return nil, err
	}
	auth := renewed.auth(ttl)
	auth.ClientToken = secret
	return &conclave.Response{Auth: auth, Warnings: warnings}, s.addIdentity(tx, auth)
}

func (s *routes) revoke(_ context.Context, tx conclave.Tx, in *tokenInput) (*conclave.None, error) {
	if in.Token.Empty() {
		return nil, conclave.Errorf(conclave.Invalid, "missing token ID")
	}
	if isBatch(in.Token) {
		r, err := seek(tx, in.Token)
		if err == nil && r != nil {
			err = errBatchStays
		}
		return nil, err
	}
	return nil, Revoke(tx, NameOf(in.Token))
}

func (s *routes) revokeSelf(_ context.Context, tx conclave.Tx, _ *conclave.None) (*conclave.None, error) {
	r, err := s.self(tx)
	if err != nil {
		return nil, err
	}
	if r.Batch {
		return nil, errBatchStays
	}
	return nil, Revoke(tx, r.Name)
}

func (s *routes) revokeAccessor(_ context.Context, tx conclave.Tx, in *accessorInput) (*conclave.None, error) {
	r, err := byAccessor(tx, in.Accessor)
	if err != nil {
		return nil, err
	}
	return nil, Revoke(tx, r.Name)
}

func (s *routes) revokeOrphan(_ context.Context, tx conclave.Tx, in *tokenInput) (*conclave.None, error) {
	r, err := bySecret(tx, in.Token)
	if err != nil {
		return nil, err
	}
	if r == nil {
		return nil, conclave.Errorf(conclave.Invalid, "token to revoke not found")
	}
	if r.Batch {
		return nil, errBatchStays
	}
	return nil, RevokeOrphan(tx, r.Name)
}

func (s *routes) accessors(_ context.Context, view conclave.View, in *pageInput) (*conclave.Keys, error) {
	keys, err := listAccessors(view, in.After, in.Limit)
	if err != nil {
		return nil, err
	}
	return &conclave.Keys{Keys: keys}, nil
}

// listAccessors merges the names that are accessors with the accessors that have an entry.
func listAccessors(view conclave.View, after string, limit int) ([]string, error) {
	keys, err := view.List(accessorDir, after, limit)
	if err != nil {
		return nil, err
	}
	for from, found := after, 0; limit <= 0 || found < limit; {
		names, err := view.List(idDir, from, limit)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			if isAccessor(name) {
				keys, found = append(keys, name), found+1
			}
		}
		if limit <= 0 || len(names) < limit {
			break
		}
		from = names[len(names)-1]
	}
	slices.Sort(keys)
	if limit > 0 && len(keys) > limit {
		keys = keys[:limit]
	}
	return keys, nil
}

// tidyStep is how many tokens one request clears away.
const tidyStep = 100

func (s *routes) tidy(_ context.Context, tx conclave.Tx, _ *conclave.None) (*conclave.Response, error) {
	done, more, err := Tidy(tx, tidyStep)
	if err != nil {
		return nil, err
	}
	warning := fmt.Sprintf("Cleared %d tokens below revoked ones; nothing more is left.", done)
	if more {
		warning = fmt.Sprintf("Cleared %d tokens below revoked ones; the rest is cleared in the background.", done)
	}
	return &conclave.Response{Warnings: []string{warning}, Status: 202}, nil
}
