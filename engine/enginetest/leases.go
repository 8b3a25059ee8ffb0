package enginetest

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"time"

	"conclave"
)

// Stage is how far a request comes before its node dies.
type Stage int

// The stages at which [Harness.Interrupt] leaves a request.
const (
	answered     Stage = iota
	AfterIntend        // what is intended is committed, nothing is done
	AfterPrepare       // it is done, and nobody knows
)

// Interrupt runs a request as Do does, until its node dies. The lease that was intended, if any, is among Leases; as the
// vault does in time, the test ends it with EndLease. The error is that of the stages that ran.
func (h *Harness) Interrupt(stage Stage, op conclave.Operation, path string, fields map[string]any) error {
	h.t.Helper()
	body, err := json.Marshal(fields)
	if err != nil {
		h.t.Fatalf("fields for %s %s: %v", op, path, err)
	}
	_, err = h.run(op, path, body, stage)
	return err
}

// Leases are those that run, and those that couldn't be ended, in the order of their ids.
func (h *Harness) Leases() []*conclave.GrantedLease {
	var leases []*conclave.GrantedLease
	for _, id := range slices.Sorted(maps.Keys(h.state.leases)) {
		lease := *h.state.leases[id]
		leases = append(leases, &lease)
	}
	return leases
}

// EndLease has the engine end a lease once, as when its time has come or it is revoked, and forget it. One that fails stays.
func (h *Harness) EndLease(id string) error {
	h.t.Helper()
	leaser, lease := h.leaser(), h.lease(id)
	view := h.begin(nil, false)
	gathered, err := leaser.GatherRevoke(view, lease)
	view.checkLent()
	if err != nil {
		return err
	}
	if err := leaser.Revoke(context.Background(), lease, gathered); err != nil {
		return err
	}
	t := h.begin(nil, true)
	if err := leaser.ForgetLease(t, lease); err != nil {
		return err
	}
	t.checkLent()
	if err := t.commit(); err != nil {
		return err
	}
	delete(h.state.leases, id)
	return nil
}

// RenewLease has the engine renew a lease, in a request to do so, and returns what it answers. The lease is changed by it.
func (h *Harness) RenewLease(id string, increment time.Duration) (*conclave.Lease, error) {
	h.t.Helper()
	leaser, lease := h.leaser(), h.lease(id)
	view := h.begin(&conclave.Request{ID: "renewal", Operation: conclave.Update, Path: "sys/leases/renew"}, false)
	given, err := leaser.RenewLease(context.Background(), view, lease, increment)
	view.checkLent()
	if err != nil || given == nil {
		return given, err
	}
	next := *lease
	next.Renewed = h.Now()
	next.Expires = h.end(given)
	if given.Data != nil {
		next.Data = given.Data
	}
	h.state.leases[id] = &next
	return given, nil
}

func (h *Harness) leaser() conclave.Leaser {
	h.t.Helper()
	leaser, ok := h.engine.(conclave.Leaser)
	if !ok {
		h.t.Fatalf("%s gives a lease and ends none", h.engine.Kind())
	}
	return leaser
}

// lease is a copy, as the engine gets it.
func (h *Harness) lease(id string) *conclave.GrantedLease {
	h.t.Helper()
	kept := h.state.leases[id]
	if kept == nil {
		h.t.Fatalf("there is no lease %q", id)
	}
	lease := *kept
	lease.Data = slices.Clone(kept.Data)
	return &lease
}

func (h *Harness) end(lease *conclave.Lease) time.Time {
	ttl := lease.TTL
	if ttl <= 0 {
		ttl = h.mount.DefaultTTL
	}
	return h.Now().Add(min(ttl, h.mount.MaxTTL))
}

// keep adds a lease under a new id.
func (h *Harness) keep(request *conclave.Request, lease *conclave.Lease, expires time.Time) (id string) {
	h.t.Helper()
	h.leaser()
	path := request.Path[len(h.mount.Path):]
	id = request.Path + "/" + strconv.Itoa(len(h.state.leases)) + "-" + request.ID
	h.state.leases[id] = &conclave.GrantedLease{ID: id, Path: path, Issued: h.Now(), Expires: expires, Data: slices.Clone(lease.Data)}
	return id
}

// intended is a request with the lease of what it intends, "" if there is none.
type intended struct {
	request *conclave.Request
	lease   string
}

// intend runs a route's Intend and commits what it wrote.
func (h *Harness) intend(ctx context.Context, route *conclave.Route, request *conclave.Request, in any) (context.Context, *intended, error) {
	h.t.Helper()
	with := &intended{request: request}
	if route.Intend == nil {
		return ctx, with, nil
	}
	t := h.begin(request, true)
	intent, err := route.Intend(ctx, t, in)
	t.checkLent()
	if err == nil && t.failed != nil {
		h.t.Errorf("%s %s: Intend went on after an error of its Tx: %v", request.Operation, request.Path, t.failed)
		err = t.failed
	}
	if err == nil {
		err = t.commit()
	}
	if err != nil || intent == nil {
		return ctx, with, err
	}
	if intent.Lease != nil {
		with.lease = h.keep(request, intent.Lease, h.Now().Add(2*time.Minute))
	}
	return conclave.WithIntended(ctx, intent), with, nil
}

// settle confirms, ends or keeps the lease of a request that was answered or has failed.
func (h *Harness) settle(with *intended, response *conclave.Response, failure error) {
	h.t.Helper()
	if failure == nil && response.Lease != nil && (response.Lease.Data != nil || with.lease != "") {
		if with.lease == "" {
			with.lease = h.keep(with.request, response.Lease, h.end(response.Lease))
		}
		kept := h.state.leases[with.lease]
		kept.Issued, kept.Expires = h.Now(), h.end(response.Lease)
		if response.Lease.Data != nil {
			kept.Data = slices.Clone(response.Lease.Data)
		}
		response.Lease.ID = with.lease
		return
	}
	if with.lease != "" {
		_ = h.EndLease(with.lease) // one that fails stays among Leases
	}
}
