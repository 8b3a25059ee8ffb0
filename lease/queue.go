package lease

import (
	"context"
	"errors"

	"conclave"
)

// queueRoutes are about leases that are over and not ended outside yet.
func (s *Setup) queueRoutes() []conclave.Route {
	return []conclave.Route{
		conclave.WriteRoute(conclave.Update, "leases/tidy", "Kept for clients. A lease and its entries are written and removed together: there is nothing to tidy.", s.tidy).With(conclave.Sudo),
		conclave.ReadRoute(conclave.Read, "leases/count", "Count leases: those outstanding, by mount, or with type=irrevocable those abandoned, up to 10,000.", s.count),
		conclave.ReadRoute(conclave.Read, "leases", "List the leases that were abandoned (type=irrevocable).", s.irrevocable).With(conclave.Sudo),
		conclave.ReadRoute(conclave.List, "leases/queue", "List the leases that are over and not ended outside yet, by their keys.", s.queued).With(conclave.Sudo),
		conclave.ReadRoute(conclave.Read, "leases/queue/{key}", "Read how far the end of a lease is.", s.readQueued).With(conclave.Sudo),
		conclave.WriteRoute(conclave.Update, "leases/queue/{key}/retry", "Try again at once to end a lease; one that was abandoned is queued again.", s.retry).With(conclave.Sudo),
		conclave.WriteRoute(conclave.Update, "leases/queue/{key}/abandon", "Give up ending a lease: what it stands for may live on outside.", s.abandonOne).With(conclave.Sudo),
		conclave.WriteRoute(conclave.Delete, "leases/abandoned/{key}", "Forget a lease that was abandoned.", s.forget).With(conclave.Sudo),
	}
}

func (s *Setup) tidy(context.Context, conclave.Tx, *conclave.None) (*conclave.None, error) {
	return nil, nil
}

type typeInput struct {
	Type  string `json:"type" doc:"irrevocable: those that were abandoned."`
	Limit int    `json:"limit" doc:"At most this many; 0 is 1000."`
}

type countOutput struct {
	Count  int64            `json:"lease_count" doc:"All of them."`
	Counts map[string]int64 `json:"counts" doc:"By the mount's path, or its UUID where leases are outstanding."`
}

func (s *Setup) count(_ context.Context, view conclave.View, in *typeInput) (*countOutput, error) {
	out := &countOutput{Counts: map[string]int64{}}
	if in.Type == "irrevocable" {
		found, err := abandoned(view, maxPage)
		for _, r := range found {
			out.Count++
			out.Counts[r.MountPath]++
		}
		return out, err
	}
	if in.Type != "" && in.Type != "service" {
		return nil, conclave.Errorf(conclave.Invalid, "unknown lease type")
	}
	mounts, err := view.List(mountDir, "", 0)
	if err != nil {
		return nil, err
	}
	for _, uuid := range mounts {
		n, _, err := view.Cell(countDir + uuid)
		if err != nil {
			return nil, err
		}
		out.Count += n
		out.Counts[uuid] += n
	}
	return out, nil
}

type queuedOutput struct {
	LeaseID  string `json:"lease_id" doc:"The lease's id."`
	Mount    string `json:"mount_uuid" doc:"The mount whose engine is to end it."`
	Why      string `json:"why" doc:"Why it is over: expired, revoked, token, prefix, unconfirmed if its request came to nothing, or unanswered if nobody got the answer."`
	Since    string `json:"since" doc:"When it was over."`
	Attempts int    `json:"attempts" doc:"Attempts that failed."`
	Error    string `json:"error" doc:"Why the last one failed."`
	Next     string `json:"next_attempt,omitempty" doc:"When it is tried again; absent if it was abandoned."`
	Reason   string `json:"reason,omitempty" doc:"Why it was abandoned."`
	By       string `json:"abandoned_by,omitempty" doc:"Who abandoned it."`
}

func describe(r *Record, waits bool) *queuedOutput {
	e := r.Ending
	out := &queuedOutput{LeaseID: r.ID, Mount: r.MountUUID, Why: e.Why, Since: spell(e.Since), Attempts: e.Attempts, Error: e.Error, Reason: e.Reason, By: e.By}
	if waits {
		out.Next = spell(e.Next)
	}
	return out
}

// abandoned returns at most limit leases that were given up.
func abandoned(view conclave.View, limit int) ([]*Record, error) {
	keys, err := conclave.Some(view, abandonedDir, "", limit)
	if err != nil {
		return nil, err
	}
	var found []*Record
	for _, key := range keys {
		r, err := loadAt(view, abandonedDir+key)
		if err != nil {
			return nil, err
		}
		if r != nil && r.Ending != nil {
			found = append(found, r)
		}
	}
	return found, nil
}

type irrevocableOutput struct {
	Count  int             `json:"lease_count" doc:"How many are listed."`
	Leases []*queuedOutput `json:"leases" doc:"The leases."`
}

func (s *Setup) irrevocable(_ context.Context, view conclave.View, in *typeInput) (*irrevocableOutput, error) {
	if in.Type != "irrevocable" {
		return nil, conclave.Errorf(conclave.Invalid, "unknown lease type")
	}
	if in.Limit <= 0 || in.Limit > MaxStep {
		in.Limit = MaxStep
	}
	found, err := abandoned(view, in.Limit)
	if err != nil {
		return nil, err
	}
	out := &irrevocableOutput{Count: len(found), Leases: []*queuedOutput{}}
	for _, r := range found {
		out.Leases = append(out.Leases, describe(r, false))
	}
	return out, nil
}

type pageInput struct {
	After string `json:"after" doc:"Go on after this key, the last one that was listed."`
	Limit int    `json:"limit" doc:"List at most this many; 0 means 1,000, which is the most."`
}

// maxDetails is how many leases one listing has that tells more than their keys.
const maxDetails = 1_000

func (s *Setup) queued(_ context.Context, view conclave.View, in *pageInput) (*conclave.Response, error) {
	return detailed(view, endingDir, in, func(value []byte) (any, error) {
		decoded, err := decode(value)
		if r, ok := decoded.(*Record); ok && r.Ending != nil {
			return describe(r, true), nil
		}
		return nil, err
	})
}

// detailed lists keys with what is stored of each.
func detailed(view conclave.View, dir string, in *pageInput, describe func(value []byte) (any, error)) (*conclave.Response, error) {
	if in.Limit <= 0 || in.Limit > maxDetails {
		in.Limit = maxDetails
	}
	resp, err := page(view, dir, in.After, in.Limit)
	if err != nil {
		return nil, err
	}
	listed, ok := resp.Data.(*conclave.Keys)
	if !ok {
		return resp, nil
	}
	listed.KeyInfo = map[string]any{}
	for _, key := range listed.Keys {
		value, err := view.Get(dir + key)
		if err != nil {
			return nil, err
		}
		details, err := describe(value)
		if err != nil {
			details = map[string]string{"error": err.Error()}
		}
		listed.KeyInfo[key] = details
	}
	return resp, nil
}

type keyInput struct {
	Key string `path:"key" doc:"The last segment of the lease's id."`
}

// seek returns a lease that is over, and whether it waits to be ended or was abandoned.
func seek(view conclave.View, key string) (r *Record, waits bool, err error) {
	r, err = FindEnding(view, key)
	if err != nil || r != nil {
		return r, true, err
	}
	if validKey(key) {
		r, err = loadAt(view, abandonedDir+key)
	}
	if err == nil && r == nil {
		err = &conclave.Error{Kind: conclave.NotFound}
	}
	return r, false, err
}

func (s *Setup) readQueued(_ context.Context, view conclave.View, in *keyInput) (*queuedOutput, error) {
	r, waits, err := seek(view, in.Key)
	if err != nil {
		return nil, err
	}
	return describe(r, waits), nil
}

func (s *Setup) retry(_ context.Context, tx conclave.Tx, in *keyInput) (*conclave.None, error) {
	r, waits, err := seek(tx, in.Key)
	if err != nil {
		return nil, err
	}
	again, ending := *r, *r.Ending
	ending.Force, ending.Reason, ending.By = false, "", ""
	again.Ending = &ending
	if waits {
		if err := dueIndex(r.MountUUID).Remove(tx, r.Ending.Next, r.Key()); err != nil {
			return nil, err
		}
		return nil, again.queue(tx, 0)
	}
	if _, _, err := s.Mounts.Engine(tx, r.MountUUID); err != nil {
		return nil, err // the mount is gone
	}
	return nil, errors.Join(tx.Delete(abandonedDir+in.Key), count(tx, r.MountUUID), again.queue(tx, 0))
}

type abandonInput struct {
	keyInput
	Reason string `json:"reason" doc:"Why; it stays listed."`
}

func (s *Setup) abandonOne(_ context.Context, tx conclave.Tx, in *abandonInput) (*conclave.None, error) {
	if in.Reason == "" || len(in.Reason) > maxError {
		return nil, conclave.Errorf(conclave.Invalid, "'reason' must say why, in at most %d bytes", maxError)
	}
	r, waits, err := seek(tx, in.Key)
	if err != nil || !waits {
		return nil, err
	}
	given, ending := *r, *r.Ending
	ending.Reason, ending.By = in.Reason, callerName(tx)
	given.Ending = &ending
	if err := given.abandon(tx, r); err != nil {
		return nil, err
	}
	return nil, s.Owners.Release(tx, r)
}

func (s *Setup) forget(_ context.Context, tx conclave.Tx, in *keyInput) (*conclave.None, error) {
	if !validKey(in.Key) {
		return nil, nil
	}
	return nil, tx.Delete(abandonedDir + in.Key)
}
