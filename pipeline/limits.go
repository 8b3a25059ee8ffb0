package pipeline

import (
	"context"
	"net/netip"
	"strings"

	"conclave"
	"conclave/mount"
	"conclave/quota"
	"conclave/store"
	"conclave/token"
)

// LoginLimiter holds logins against the rate limits of roles, which aren't known before.
type LoginLimiter interface {
	// AdmitLogin is Limited if a role of the auth method at mount, in namespace, logs in too often.
	AdmitLogin(ctx context.Context, namespace, mount, role string, client netip.Addr) error
}

// admitLogin asks once about a request, however often it runs.
func (r *run) admitLogin(ctx context.Context, login *conclave.Login) error {
	if r.pipeline.logins == nil || login.Role == "" {
		return nil
	}
	if !r.loginAsked {
		r.loginAsked = true
		r.loginRefused = r.pipeline.logins.AdmitLogin(ctx, r.call.here().Path, r.call.mount.Path, login.Role, r.original.Remote.Addr())
	}
	return r.loginRefused
}

// countToken counts a new token as a lease. Tokens without an end aren't leases; batch tokens, which nobody keeps, aren't
// counted but need room.
func (r *run) countToken(tx *store.Tx, resp *conclave.Response) error {
	c := r.call
	if resp == nil || resp.Auth == nil || resp.Auth.TTL == 0 || !c.makesToken() {
		return nil
	}
	root, system := tx.System(), c.here().system
	if any, err := quota.CountsLeases(root); err != nil || !any {
		return err
	}
	made, err := token.Made(system, resp.Auth.ClientToken)
	if err != nil || made == nil {
		return err
	}
	lease := quota.Lease{Namespace: c.here().Namespace, Path: made.Path, Role: made.LoginRole()}
	table, err := mount.Load(system, r.pipeline.routing.defaults)
	if err != nil {
		return err
	}
	if entry, _, ok := table.Find(made.Path); ok { // not the request's, if that finishes a login of another mount
		lease.Mount = entry.Path
	}
	if made.Batch {
		return quota.LeasesLeft(root, lease)
	}
	counted, err := quota.TakeLease(root, system, lease)
	if err != nil || counted == "" {
		return err
	}
	return token.Count(system, resp.Auth.ClientToken, counted)
}

// makesToken reports whether what the route answers as Auth is a new token, and not a renewed one.
func (c *call) makesToken() bool {
	return c.route.Public || c.mount.Kind == tokenKind && strings.HasPrefix(c.route.Pattern, "create")
}

// RecordRefusal records a request that was refused before anybody looked at its body or its token.
func (p *Pipeline) RecordRefusal(ctx context.Context, req *conclave.Request, refusal error) error {
	if err := p.gate.enter(); err != nil {
		return err
	}
	defer p.gate.leave()
	tx, err := p.store.Begin()
	if err != nil {
		return err
	}
	defer tx.Close()
	// Nothing was read, so that there is nothing to judge.
	run := &run{pipeline: p, original: req, request: req, attempt: 1, fresh: true, call: &call{}}
	_, err = run.commit(ctx, tx, nil, refusal)
	if run.recorded {
		return nil
	}
	return err
}
