package revoke

import (
	"context"
	"errors"
	"slices"
	"strings"

	"conclave"
	"conclave/lease"
	"conclave/store"
)

// revokeEverything goes on with the jobs of a namespace.
func (r *Reaper) revokeEverything(ctx context.Context, path string) error {
	var ids []string
	err := r.Store.Look(path, func(system conclave.Tx) (err error) {
		ids, err = conclave.Some(system, everythingDir, "", maxEverything+1)
		return err
	})
	for _, id := range ids {
		for range stepsInTurn {
			done, stepErr := r.everythingStep(ctx, path, id)
			err = errors.Join(err, stepErr)
			if done || stepErr != nil {
				break
			}
		}
	}
	return err
}

// everythingStep takes a job on. What can't be revoked is passed over, and noted in the report.
func (r *Reaper) everythingStep(ctx context.Context, path, id string) (done bool, err error) {
	change := func(work func(e *Everything, tx conclave.Tx) error) error {
		return r.Store.Change(ctx, path, func(_ *store.Tx, system conclave.System) error {
			e, err := loadEverything(system, id)
			if err != nil {
				return err
			}
			if done = e == nil || e.Phase == atEnd; done {
				return nil
			}
			if err := work(e, system); err != nil {
				return err
			}
			done = e.Phase == atEnd
			return nil
		})
	}
	for _, limit := range []int{itemBatch, 1} {
		if err = change(func(e *Everything, tx conclave.Tx) error { return e.step(tx, r.Engines, limit) }); !isLasting(err) {
			return done, err
		}
	}
	why := err
	return done, change(func(e *Everything, tx conclave.Tx) error { return e.skip(tx, r.Engines, why) })
}

// isLasting reports whether an error would come again.
func isLasting(err error) bool {
	switch conclave.KindOf(err) {
	case conclave.Unavailable, conclave.Unknown, conclave.Sealed, conclave.Limited:
		return false
	}
	return err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded)
}

// EverythingRoutes are those below sys/revoke-everything.
func EverythingRoutes() []conclave.Route {
	const doc = "Revoke everything of an entity, of a token, or below a path or mount: tokens, leases, and what engines can take back.\n\n" +
		"With dry_run, which is the default, nothing is changed: the report tells what would be. The work is done in the background, step by step, and goes on after a " +
		"crash; but an entity is disabled, a token revoked, and all leases below a path are over, when this is answered. The caller's own token stays."
	return []conclave.Route{
		conclave.WriteRoute(conclave.Update, "revoke-everything", doc, startEverything).With(conclave.Sudo),
		conclave.ReadRoute(conclave.List, "revoke-everything", "List the last jobs that revoke everything.", listEverything).With(conclave.Sudo),
		conclave.ReadRoute(conclave.Read, "revoke-everything/{id}", "Read how far a job is, or its report.", readEverything).With(conclave.Sudo),
		conclave.WriteRoute(conclave.Delete, "revoke-everything/{id}", "Forget a report. A job that runs is stopped: what it has revoked stays revoked.", dropEverything).With(conclave.Sudo),
	}
}

type everythingInput struct {
	Entity   string `json:"entity" doc:"Id of an entity: it is disabled, and its tokens are revoked."`
	Accessor string `json:"accessor" doc:"Accessor of a token: it is revoked with all tokens below it."`
	Path     string `json:"path" doc:"A path that leases, credentials or tokens were given for, or one above."`
	Mount    string `json:"mount" doc:"A mount; as path, but it must be there."`
	DryRun   *bool  `json:"dry_run" doc:"Only tell what would be revoked; true unless it is said to be false."`
	Reason   string `json:"reason" doc:"Why; it stays in the report."`
}

type startedOutput struct {
	ID string `json:"id" doc:"Read revoke-everything/<id> for how far it is."`
}

func startEverything(_ context.Context, tx conclave.Tx, in *everythingInput) (*startedOutput, error) {
	scope := Scope{Entity: in.Entity, Accessor: in.Accessor, Path: strings.Trim(in.Path, "/"), Mount: strings.Trim(in.Mount, "/")}
	given := 0
	for _, text := range []string{scope.Entity, scope.Accessor, scope.Path, scope.Mount} {
		if text != "" {
			given++
		}
	}
	switch {
	case given != 1:
		return nil, conclave.Errorf(conclave.Invalid, "give one of 'entity', 'accessor', 'path' and 'mount'")
	case len(in.Reason) > maxReason:
		return nil, conclave.Errorf(conclave.Invalid, "a reason has at most %d bytes", maxReason)
	case len(scope.Entity) > 256 || len(scope.path()) > conclave.MaxName:
		return nil, conclave.Errorf(conclave.Invalid, "there is no such thing")
	case slices.Contains(strings.Split(scope.path(), "/"), "") && scope.path() != "":
		return nil, conclave.Errorf(conclave.Invalid, "a path has no empty segments")
	}
	if err := checkMount(tx, &scope); err != nil {
		return nil, err
	}
	request, caller := tx.Request(), tx.Caller()
	if request == nil || request.ID == "" || strings.Contains(request.ID, "/") || caller == nil {
		return nil, conclave.Errorf(conclave.Internal, "everything is revoked by a request")
	}
	e := &Everything{ID: request.ID, Scope: scope, Dry: in.DryRun == nil || *in.DryRun, Reason: in.Reason, By: caller.DisplayName, Phase: atTokens, Started: tx.Now().UnixNano()}
	if caller.Home.ID == tx.Namespace().ID && caller.Type != "batch" {
		e.Except = caller.TokenID
	}
	if err := makeRoom(tx); err != nil {
		return nil, err
	}
	if err := e.begin(tx); err != nil {
		return nil, err
	}
	if e.Scope.Accessor != "" && !e.Dry { // what is below it has ended with it
		e.Phase = atLeases
	}
	return &startedOutput{e.ID}, e.store(tx)
}

const maxReason = 512

// makeRoom drops the oldest report that is complete, if there are as many as may be.
func makeRoom(tx conclave.Tx) error {
	ids, err := conclave.Some(tx, everythingDir, "", maxEverything+1)
	if err != nil || len(ids) < maxEverything {
		return err
	}
	var oldest *Everything
	for _, id := range ids {
		e, err := loadEverything(tx, id)
		if err != nil {
			return err
		}
		if e != nil && e.Phase == atEnd && (oldest == nil || e.Finished < oldest.Finished) {
			oldest = e
		}
	}
	if oldest == nil {
		return conclave.Errorf(conclave.Limited, "%d jobs run already: wait, or stop one", maxEverything)
	}
	return tx.Delete(everythingDir + oldest.ID)
}

func listEverything(_ context.Context, view conclave.View, _ *conclave.None) (*conclave.Keys, error) {
	ids, err := view.List(everythingDir, "", 0)
	return &conclave.Keys{Keys: ids}, err
}

type everythingIDInput struct {
	ID string `path:"id" doc:"The job's id."`
}

type everythingOutput struct {
	ID       string         `json:"id" doc:"The job's id."`
	Scope    Scope          `json:"scope" doc:"What everything is."`
	DryRun   bool           `json:"dry_run" doc:"Nothing is changed: this is what would be."`
	Done     bool           `json:"done" doc:"Whether it is complete."`
	Phase    string         `json:"phase" doc:"What it is at: tokens, leases, mounts or done."`
	Started  string         `json:"started" doc:"When it was asked for."`
	Finished string         `json:"finished,omitempty" doc:"When it was complete."`
	By       string         `json:"by" doc:"Who asked for it."`
	Reason   string         `json:"reason,omitempty" doc:"Why."`
	Tokens   int            `json:"tokens" doc:"Tokens that are revoked. In a run that changes something those below them aren't counted."`
	Leases   int            `json:"leases" doc:"Leases that are over."`
	Waiting  int            `json:"leases_waiting" doc:"Leases of the namespace that are over and not ended outside yet, up to 1,000: see sys/leases/queue."`
	Taken    map[string]int `json:"taken_back" doc:"What engines have taken back, by its kind."`
	Items    []Item         `json:"items" doc:"The first 200 of all that."`
	Kept     []Item         `json:"kept" doc:"What is in scope and stays: the token that asked, and those above it."`
	Failed   int            `json:"failed" doc:"What could not be taken back."`
	Failures []Item         `json:"failures" doc:"The first 100 of those."`
}

func readEverything(_ context.Context, view conclave.View, in *everythingIDInput) (*everythingOutput, error) {
	e, err := loadEverything(view, in.ID)
	if err != nil {
		return nil, err
	}
	if e == nil {
		return nil, &conclave.Error{Kind: conclave.NotFound}
	}
	waiting, err := lease.Queued(view, holdsCounted)
	if err != nil {
		return nil, err
	}
	out := &everythingOutput{ID: e.ID, Scope: e.Scope, DryRun: e.Dry, Done: e.Phase == atEnd, Phase: string(e.Phase), Started: spell(e.Started), By: e.By, Reason: e.Reason,
		Tokens: e.Tokens, Leases: e.Leases, Waiting: waiting, Taken: e.Taken, Items: e.Items, Kept: e.Kept, Failed: e.Failed, Failures: e.Failures}
	if e.Finished != 0 {
		out.Finished = spell(e.Finished)
	}
	return out, nil
}

func dropEverything(_ context.Context, tx conclave.Tx, in *everythingIDInput) (*conclave.None, error) {
	e, err := loadEverything(tx, in.ID)
	if err != nil || e == nil {
		return nil, err
	}
	if e.Phase != atEnd {
		if err := lease.Uncount(tx, e.ID); err != nil {
			return nil, err
		}
	}
	return nil, tx.Delete(everythingDir + e.ID)
}
