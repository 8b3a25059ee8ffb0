package lease

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"conclave"
)

// Mounts opens engines.
type Mounts interface {
	// Engine returns the engine of a mount of the namespace whose system space is given, and the mount's storage in the
	// same transaction. A mount that is gone is an error.
	Engine(system conclave.Tx, mountUUID string) (conclave.Engine, conclave.Tx, error)
}

// Ender ends leases outside while a client waits.
type Ender interface {
	// EndNow tries once to end leases that are over, by their keys, and returns how many are left to be tried again.
	EndNow(ctx context.Context, at conclave.Namespace, keys []string) (failed int, why string, err error)
	// Work does a job.
	Work(ctx context.Context, at conclave.Namespace, id string) (keys []string, err error)
}

// Setup is what the routes need. All members must be given.
type Setup struct {
	Mounts Mounts
	Owners Owners
	Ender  Ender
}

// Routes are those below sys/leases/.
func Routes(setup Setup) []conclave.Route {
	s := &setup
	const renewDoc = "Renew a lease: it lives on for the increment, as far as its engine and its mount let it."
	const revokeDoc = "End a lease. It is over when this is answered; with sync its engine has ended it outside by then, too."
	revoke := conclave.WriteRoute(conclave.Update, "leases/revoke", revokeDoc, s.revoke)
	revokeAt := conclave.WriteRoute(conclave.Update, "leases/revoke/{id...}", revokeDoc, s.revokeAt)
	revoke.Finish, revokeAt.Finish = s.finishRevoke, s.finishRevoke
	prefix := conclave.WriteRoute(conclave.Update, "leases/revoke-prefix/{prefix...}", "End all leases below a path. They are over when this is answered; "+
		"with sync their engines have ended them outside by then, too.", s.revokePrefix).With(conclave.Sudo)
	force := conclave.WriteRoute(conclave.Update, "leases/revoke-force/{prefix...}", "End all leases below a path with one attempt each, and abandon those that "+
		"fail.\n\nThe answer comes when they were tried. After a few failures the rest is tried afterwards. What was abandoned may live on outside, and stays listed.",
		s.revokeForce).With(conclave.Sudo)
	prefix.Finish, force.Finish = s.finishPrefix, s.finishForce
	return append([]conclave.Route{
		conclave.ReadRoute(conclave.Update, "leases/lookup", "Look up a lease.", s.lookup),
		conclave.ReadRoute(conclave.List, "leases/lookup/{prefix...}", "List the leases below a path, at most 10,000 at once. A warning tells how to go on.", s.list).With(conclave.Sudo),
		conclave.WriteRoute(conclave.Update, "leases/renew", renewDoc, s.renew),
		conclave.WriteRoute(conclave.Update, "leases/renew/{id...}", renewDoc, s.renewAt),
		revoke, revokeAt, prefix, force,
	}, slices.Concat(s.queueRoutes(), s.damageRoutes())...)
}

type idInput struct {
	ID string `json:"lease_id" doc:"The lease's id."`
}

type lookupOutput struct {
	ID          string  `json:"id" doc:"The lease's id."`
	IssueTime   string  `json:"issue_time" doc:"When it was given."`
	ExpireTime  string  `json:"expire_time" doc:"When it ends."`
	LastRenewal *string `json:"last_renewal" doc:"When it was renewed last; null if never."`
	Renewable   bool    `json:"renewable" doc:"Whether it can be renewed."`
	TTL         int64   `json:"ttl" doc:"Time left, seconds."`
}

// find returns a lease that runs and that somebody was answered, nil if there is none.
func (s *Setup) find(view conclave.View, id string) (*Record, int64, error) {
	r, err := load(view, id)
	if err != nil || r == nil || r.Intent {
		return nil, 0, err
	}
	why, ownerEnds, err := r.over(view, s.Owners)
	if err != nil || why != "" {
		return nil, 0, err
	}
	return r, ownerEnds, nil
}

func (s *Setup) lookup(_ context.Context, view conclave.View, in *idInput) (*lookupOutput, error) {
	if in.ID == "" {
		return nil, conclave.Errorf(conclave.Invalid, "lease_id must be specified")
	}
	r, _, err := s.find(view, in.ID)
	if err != nil {
		return nil, err
	}
	if r == nil {
		return nil, conclave.Errorf(conclave.Invalid, "invalid lease")
	}
	out := &lookupOutput{ID: r.ID, IssueTime: spell(r.Issued), ExpireTime: spell(r.Expires), Renewable: r.Renewable, TTL: int64(r.TTL(view.Now()) / time.Second)}
	if r.Renewed != 0 {
		renewed := spell(r.Renewed)
		out.LastRenewal = &renewed
	}
	return out, nil
}

func spell(nanos int64) string { return time.Unix(0, nanos).UTC().Format(time.RFC3339Nano) }

type listInput struct {
	Prefix string `path:"prefix" doc:"A path that leases were given for, or one above."`
	After  string `json:"after" doc:"Go on after this name, the last one that was listed."`
	Limit  int    `json:"limit" doc:"List at most this many; 0 means 10,000, which is the most."`
}

// list shows what runs as far as its record tells, and what is only over since its time came.
func (s *Setup) list(_ context.Context, view conclave.View, in *listInput) (*conclave.Response, error) {
	dir := idDir
	if prefix := strings.Trim(in.Prefix, "/"); prefix != "" {
		if !validPrefix(prefix) {
			return nil, &conclave.Error{Kind: conclave.NotFound}
		}
		dir += prefix + "/"
	}
	return page(view, dir, in.After, in.Limit)
}

// maxPage is how many names one listing has.
const maxPage = 10_000

// page lists names directly under dir, in order if they are all, otherwise as they are stored: the last one is where to go on.
func page(view conclave.View, dir, after string, limit int) (*conclave.Response, error) {
	if limit <= 0 || limit > maxPage {
		limit = maxPage
	}
	if len(after) >= conclave.MaxName || strings.Contains(strings.TrimSuffix(after, "/"), "/") {
		return nil, conclave.Errorf(conclave.Invalid, "'after' is no name of a listing")
	}
	keys, err := conclave.Some(view, dir, after, limit+1)
	if err != nil {
		return nil, err
	}
	resp := &conclave.Response{}
	switch {
	case len(keys) == 0:
		return nil, &conclave.Error{Kind: conclave.NotFound}
	case len(keys) > limit:
		keys = keys[:limit]
		resp.Warnings = []string{fmt.Sprintf("There are more: go on with after=%s. They are in no order.", keys[limit-1])}
	case after == "":
		slices.Sort(keys)
	}
	resp.Data = &conclave.Keys{Keys: keys}
	return resp, nil
}

type renewInput struct {
	idInput
	Increment time.Duration `json:"increment" doc:"How long it shall live from now on; what its engine wants if not given."`
}

type renewAtInput struct {
	At string `path:"id" doc:"The lease's id."`
	renewInput
}

func (s *Setup) renewAt(ctx context.Context, tx conclave.Tx, in *renewAtInput) (*conclave.Response, error) {
	if in.ID == "" {
		in.ID = in.At
	}
	return s.renew(ctx, tx, &in.renewInput)
}

func (s *Setup) renew(ctx context.Context, tx conclave.Tx, in *renewInput) (*conclave.Response, error) {
	switch {
	case in.ID == "":
		return nil, conclave.Errorf(conclave.Invalid, "lease_id must be specified")
	case in.Increment < 0:
		return nil, conclave.Errorf(conclave.Invalid, "increment must be positive")
	}
	r, ownerEnds, err := s.find(tx, in.ID)
	switch {
	case err != nil:
		return nil, err
	case r == nil:
		return nil, conclave.Errorf(conclave.Invalid, "lease not found")
	case !r.Renewable:
		return nil, conclave.Errorf(conclave.Invalid, "lease is not renewable")
	}
	engine, view, err := s.Mounts.Engine(tx, r.MountUUID)
	if err != nil {
		return nil, err
	}
	leaser, ok := engine.(conclave.Leaser)
	if !ok {
		return nil, conclave.Errorf(conclave.Invalid, "lease is not renewable")
	}
	given, err := leaser.RenewLease(ctx, view, r.Granted(), in.Increment)
	if err != nil {
		return nil, err
	}
	warnings, err := r.prolong(tx, view.Mount(), given, in.Increment, ownerEnds)
	if err != nil {
		return nil, err
	}
	same, err := load(tx, in.ID)
	if err != nil || same == nil {
		return nil, err
	}
	return &conclave.Response{Lease: same.Answer(tx.Now()), Warnings: warnings}, nil
}

// prolong stores the lease with a new end: what the engine or the client wants, within the maximum counted from its issue.
func (r *Record) prolong(tx conclave.Tx, mount *conclave.Mount, given *conclave.Lease, increment time.Duration, ownerEnds int64) (warnings []string, err error) {
	if mount == nil {
		return nil, conclave.Errorf(conclave.Internal, "a lease is renewed without its mount")
	}
	if given == nil {
		given = &conclave.Lease{Renewable: r.Renewable, MaxTTL: r.MaxTTL}
	}
	if len(given.Data) > maxData {
		return nil, errTooMuch
	}
	now, next := tx.Now(), *r
	next.Renewable, next.MaxTTL, next.Renewed = given.Renewable, given.MaxTTL, now.UnixNano()
	if given.Data != nil {
		next.Data = given.Data
	}
	ttl := firstOf(given.TTL, firstOf(increment, mount.DefaultTTL))
	left := time.Unix(0, r.Issued).Add(next.maxTTL(mount)).Sub(now)
	if left <= 0 {
		return nil, conclave.Errorf(conclave.Invalid, "past the max TTL, cannot renew")
	}
	if ttl > left {
		ttl, warnings = left, []string{"TTL of what was asked for exceeds what is left of the maximum and is capped to it."}
	}
	next.Expires = now.Add(ttl).UnixNano()
	if next.Expires < r.Look { // it may end sooner than anybody would look
		_, err := next.reindex(tx, ownerEnds)
		return warnings, err
	}
	return warnings, storeAt(tx, idDir+next.ID, &next)
}

type revokeInput struct {
	idInput
	Sync bool `json:"sync" doc:"Answer when the lease is ended outside, too."`
}

type revokeAtInput struct {
	At string `path:"id" doc:"The lease's id."`
	revokeInput
}

func (s *Setup) revokeAt(ctx context.Context, tx conclave.Tx, in *revokeAtInput) (*conclave.None, error) {
	if in.ID == "" {
		in.ID = in.At
	}
	return s.revoke(ctx, tx, &in.revokeInput)
}

// revoke queues a lease. One that isn't there is gone, which is what was asked for.
func (s *Setup) revoke(_ context.Context, tx conclave.Tx, in *revokeInput) (*conclave.None, error) {
	if in.ID == "" {
		return nil, conclave.Errorf(conclave.Invalid, "lease_id must be specified")
	}
	r, err := load(tx, in.ID)
	if err != nil || r == nil {
		return nil, err
	}
	return nil, r.end(tx, Ending{Why: "revoked"}, waits(in.Sync))
}

func waits(sync bool) time.Duration {
	if sync {
		return syncTime
	}
	return 0
}

func (s *Setup) finishRevoke(ctx context.Context, req *conclave.Request, in any) (*conclave.Response, error) {
	var input *revokeInput
	switch in := in.(type) {
	case *revokeInput:
		input = in
	case *revokeAtInput:
		input = &in.revokeInput
	}
	if input == nil || !input.Sync || !validID(input.ID) {
		return nil, nil
	}
	return s.endNow(ctx, req, []string{keyOf(input.ID)})
}

func (s *Setup) endNow(ctx context.Context, req *conclave.Request, keys []string) (*conclave.Response, error) {
	failed, why, err := s.Ender.EndNow(ctx, conclave.Namespace{Path: req.Namespace}, keys)
	if err != nil {
		return nil, err
	}
	if failed > 0 {
		return nil, conclave.Errorf(conclave.Invalid, "failed to revoke %d of %d leases, which will be tried again until it succeeds (see sys/leases/queue): %s",
			failed, len(keys), why)
	}
	return nil, nil
}

type prefixInput struct {
	Prefix string `path:"prefix" doc:"A path that leases were given for, or one above."`
	Sync   bool   `json:"sync" doc:"Answer when the leases are ended outside, too."`
	Reason string `json:"reason" doc:"Why leases that can't be ended may be abandoned; of revoke-force."`
}

func (s *Setup) revokePrefix(_ context.Context, tx conclave.Tx, in *prefixInput) (*conclave.None, error) {
	return nil, s.start(tx, in, Job{Sync: in.Sync})
}

func (s *Setup) revokeForce(_ context.Context, tx conclave.Tx, in *prefixInput) (*conclave.None, error) {
	reason := in.Reason
	if reason == "" {
		reason = "revoke-force"
	}
	if len(reason) > maxError {
		return nil, conclave.Errorf(conclave.Invalid, "a reason has at most %d bytes", maxError)
	}
	return nil, s.start(tx, in, Job{Force: true, Sync: true, Reason: reason, By: callerName(tx)})
}

// start makes all leases below a prefix be over. A prefix that is a lease's own id means that lease.
func (s *Setup) start(tx conclave.Tx, in *prefixInput, job Job) error {
	prefix := strings.Trim(in.Prefix, "/")
	if !validPrefix(prefix) {
		return conclave.Errorf(conclave.Invalid, "leases have no such prefix")
	}
	if r, err := load(tx, prefix); err != nil || r != nil {
		if err == nil {
			err = r.end(tx, Ending{Why: "revoked", Force: job.Force, Reason: job.Reason, By: job.By}, waits(job.Sync))
		}
		return err
	}
	j, err := loadJobs(tx)
	if err != nil {
		return err
	}
	job.ID, job.Prefix, job.Before = jobID(tx), prefix+"/", tx.Now().UnixNano()
	return j.with(tx, "", &job)
}

// jobID is the id of the request that a job comes from.
func jobID(view conclave.View) string {
	if req := view.Request(); req != nil && req.ID != "" {
		return req.ID
	}
	return spell(view.Now().UnixNano())
}

func callerName(view conclave.View) string {
	if caller := view.Caller(); caller != nil {
		return caller.DisplayName
	}
	return ""
}

func (s *Setup) finishPrefix(ctx context.Context, req *conclave.Request, in any) (*conclave.Response, error) {
	input, ok := in.(*prefixInput)
	if !ok || !input.Sync {
		return nil, nil
	}
	keys, err := s.queueBelow(ctx, req, input)
	if err != nil {
		return nil, err
	}
	return s.endNow(ctx, req, keys)
}

// queueBelow does the job that a request has started, and returns the keys of its leases.
func (s *Setup) queueBelow(ctx context.Context, req *conclave.Request, in *prefixInput) ([]string, error) {
	if prefix := strings.Trim(in.Prefix, "/"); validID(prefix) {
		return []string{keyOf(prefix)}, nil
	}
	return s.Ender.Work(ctx, conclave.Namespace{Path: req.Namespace}, req.ID)
}

type forceOutput struct {
	Count int `json:"lease_count" doc:"Leases that were below."`
	Ended int `json:"ended" doc:"Those that their engine has ended."`
}

// finishForce tries once, as Vault does before it answers.
func (s *Setup) finishForce(ctx context.Context, req *conclave.Request, in any) (*conclave.Response, error) {
	input, ok := in.(*prefixInput)
	if !ok {
		return nil, nil
	}
	keys, err := s.queueBelow(ctx, req, input)
	if err != nil || len(keys) == 0 {
		return nil, err
	}
	failed, why, err := s.Ender.EndNow(ctx, conclave.Namespace{Path: req.Namespace}, keys)
	if err != nil {
		return nil, err
	}
	resp := &conclave.Response{Data: &forceOutput{Count: len(keys), Ended: len(keys) - failed}}
	if failed > 0 {
		resp.Warnings = []string{fmt.Sprintf("%d leases were not ended (%s): they are abandoned, or will be after one more attempt. "+
			"What they stand for may live on: see sys/leases?type=irrevocable and sys/leases/queue.", failed, why)}
	}
	return resp, nil
}
