package event

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"conclave"
	"conclave/internal/outbound"
)

// Spaces are the system spaces of the namespaces, in transactions of the vault's own.
type Spaces interface {
	// Look shows each namespace that there is on a state that has the Raft entry index.
	Look(ctx context.Context, index uint64, visit func(at conclave.Namespace, system conclave.View) error) error
	// Change changes one. A namespace that is gone is passed over.
	Change(ctx context.Context, at conclave.Namespace, change func(system conclave.Tx) error) error
}

// Webhooks sends events to webhooks while this node leads. Its routes work on every node.
type Webhooks struct {
	stream   *Stream
	spaces   Spaces
	source   func() string
	random   io.Reader
	now      func() time.Time
	pause    func(ctx context.Context, d time.Duration) error
	report   func(msg string, args ...any)
	clients  outbound.Pool
	counters WebhookCounters

	mu         sync.Mutex      // guards both below
	namespaces map[string]bool // ids of namespaces that were there when this was last looked at
	gone       map[string]bool // ids of some that aren't any more
}

// WebhookCounters count deliveries, for metrics.
type WebhookCounters struct {
	Sent     atomic.Uint64 // events
	Failures atomic.Uint64 // attempts that failed
	Failing  atomic.Int64  // webhooks to which nothing gets through, as this node knows
}

// WebhooksConfig is what webhooks work with.
type WebhooksConfig struct {
	Stream *Stream
	Spaces Spaces
	Source func() string
	Random io.Reader        // default: crypto/rand
	Now    func() time.Time // cluster time
	// Pause waits, or ends with ctx. Default: by the clock.
	Pause func(ctx context.Context, d time.Duration) error
	// Report is told what an operator should know, as a logger is.
	Report func(msg string, args ...any)
}

// NewWebhooks makes webhooks.
func NewWebhooks(c WebhooksConfig) *Webhooks {
	if c.Random == nil {
		c.Random = rand.Reader
	}
	if c.Pause == nil {
		c.Pause = pause
	}
	return &Webhooks{stream: c.Stream, spaces: c.Spaces, source: c.Source, random: c.Random, now: c.Now, pause: c.Pause, report: c.Report}
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// Counters returns the live counters.
func (h *Webhooks) Counters() *WebhookCounters { return &h.counters }

func (h *Webhooks) routes() []conclave.Route {
	write := conclave.WriteRoute(conclave.Update, "events/webhooks/{name}", "Make or change a webhook, to which events are sent by HTTPS.\n\n"+
		"Each delivery is signed as Standard Webhooks has it, and made again until it is answered with a status of 2xx. A webhook gets all events of its namespace "+
		"that it selects, whoever made it.", h.write).With(conclave.Sudo)
	write.Prepare = h.prepare
	write.ClearRequest = []string{"event_type", "namespaces", "path", "filter", "max_batch", "since"}
	return []conclave.Route{
		conclave.ReadRoute(conclave.List, "events/webhooks", "List the webhooks.", h.list),
		conclave.ReadRoute(conclave.Read, "events/webhooks/{name}", "Show a webhook, without its secret, and how far it has come.", h.read),
		write,
		conclave.WriteRoute(conclave.Delete, "events/webhooks/{name}", "Remove a webhook. What wasn't sent isn't sent any more.", h.remove).With(conclave.Sudo),
	}
}

type webhookName struct {
	Name string `path:"name" doc:"The webhook's name."`
}

type webhookInput struct {
	Name       string          `path:"name" doc:"The webhook's name."`
	URL        *string         `json:"url" doc:"Where events are sent to. It begins with https://."`
	Type       *string         `json:"event_type" doc:"The type of events. A star stands for any text; * alone, the default, for all."`
	Namespaces *[]string       `json:"namespaces" doc:"Namespaces below the webhook's own whose events are sent as well, relative to it; a star stands for any text."`
	Path       *string         `json:"path" doc:"What the events are about, such as secret/data/app/*. Default: anything."`
	Filter     *string         `json:"filter" doc:"Which events are sent; see sys/events/subscribe."`
	Secret     conclave.Secret `json:"secret" doc:"Key of the signatures: whsec_ and 24 to 64 bytes in base64. If none is given, a new webhook gets one at random, which is answered."`
	CA         *string         `json:"ca_cert" doc:"The only authorities whose certificate the server may show, in PEM. Default: those of the system."`
	Batch      *int            `json:"max_batch" doc:"How many events one delivery may have. 1, the default: each is sent by itself; else deliveries are lists."`
	Since      *string         `json:"since" doc:"Where to begin: a cursor, now or oldest. Default: a new webhook begins now, another goes on."`
}

// webhookMade is what Prepare makes for a webhook.
type webhookMade struct {
	id, secret string
	from       *Cursor // where it was asked to begin
	now        Cursor
}

func (h *Webhooks) prepare(ctx context.Context, _ *conclave.Request, in any) (any, error) {
	given := in.(*webhookInput)
	var made webhookMade
	b := make([]byte, 8+32)
	if _, err := io.ReadFull(h.random, b); err != nil {
		return nil, err
	}
	made.id, made.secret = hex.EncodeToString(b[:8]), secretPrefix+base64.StdEncoding.EncodeToString(b[8:])
	var err error
	if made.now, err = h.stream.Start(ctx, Now); err != nil || given.Since == nil {
		return &made, err
	}
	from, err := h.stream.Start(ctx, *given.Since)
	made.from = &from
	return &made, err
}

type webhookSecret struct {
	Secret string `json:"secret" doc:"The key of the signatures, if it was made just now. It is not shown again."`
}

func (h *Webhooks) write(ctx context.Context, tx conclave.Tx, in *webhookInput) (*webhookSecret, error) {
	made, ok := conclave.Prepared[*webhookMade](ctx)
	if !ok {
		return nil, conclave.Errorf(conclave.Internal, "a webhook that was not prepared")
	}
	old, err := named(tx, in.Name)
	if err != nil {
		return nil, err
	}
	w := &webhook{ID: made.id, Types: "*", Batch: 1}
	if old != nil {
		changed := *old
		w = &changed
	} else if err := h.room(tx); err != nil {
		return nil, err
	}
	answer := in.apply(w, made)
	if made.from != nil { // whoever sends now must not write down its own place any more
		w.ID = made.id
	}
	if err := w.check(); err != nil {
		return nil, err
	}
	if err := store(tx, webhookDir+in.Name, w); err != nil {
		return nil, err
	}
	from := made.from
	if old == nil && from == nil {
		from = &made.now
	}
	if from == nil {
		return answer, nil
	}
	p := progress{ID: w.ID, Cursor: from.String()}
	return answer, store(tx, progressDir+in.Name, &p)
}

// apply changes a webhook as is asked for. It answers the secret if it is a new one.
func (in *webhookInput) apply(w *webhook, made *webhookMade) *webhookSecret {
	set := func(member, given *string) {
		if given != nil {
			*member = *given
		}
	}
	set(&w.URL, in.URL)
	set(&w.Types, in.Type)
	set(&w.Paths, in.Path)
	set(&w.Filter, in.Filter)
	set(&w.CA, in.CA)
	if in.Namespaces != nil {
		w.Namespaces = *in.Namespaces
	}
	if in.Batch != nil {
		w.Batch = *in.Batch
	}
	switch {
	case !in.Secret.Empty():
		w.Secret = in.Secret.Reveal()
	case w.Secret == "":
		w.Secret = made.secret
		return &webhookSecret{made.secret}
	}
	return nil
}

func checkName(name string) error {
	if name == "" || len(name) > maxWebhookName || strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") != "" {
		return conclave.Errorf(conclave.Invalid, "a webhook's name has 1 to %d letters, digits, dashes, underscores and dots", maxWebhookName)
	}
	return nil
}

// named returns the webhook of a name, nil if there is none. It must not be changed.
func named(view conclave.View, name string) (*webhook, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	return load[webhook](view, webhookDir+name, decodeWebhook)
}

func (h *Webhooks) room(view conclave.View) error {
	names, err := view.List(webhookDir, "", MaxWebhooks)
	if err == nil && len(names) == MaxWebhooks {
		err = conclave.Errorf(conclave.Limited, "a namespace has at most %d webhooks", MaxWebhooks)
	}
	return err
}

func (h *Webhooks) list(_ context.Context, view conclave.View, _ *conclave.None) (*conclave.Keys, error) {
	names, err := view.List(webhookDir, "", 0)
	return &conclave.Keys{Keys: names}, err
}

type webhookOutput struct {
	URL        string         `json:"url" doc:"Where events are sent to."`
	Type       string         `json:"event_type" doc:"The type of events."`
	Namespaces []string       `json:"namespaces" doc:"Namespaces below whose events are sent as well."`
	Path       string         `json:"path" doc:"What the events are about; empty: anything."`
	Filter     string         `json:"filter" doc:"Which events are sent; empty: all."`
	CA         string         `json:"ca_cert" doc:"The authorities; empty: those of the system."`
	Batch      int            `json:"max_batch" doc:"How many events one delivery may have."`
	Status     *webhookStatus `json:"status" doc:"How far it has come, as the leader last wrote it down."`
}

type webhookStatus struct {
	Cursor   string `json:"cursor" doc:"What follows it is not sent yet."`
	Sent     uint64 `json:"sent" doc:"Events that were sent; after a change of leaders, some twice."`
	LastSent string `json:"last_sent" doc:"When."`
	Failing  string `json:"failing_since" doc:"Since when nothing gets through; empty: all is well."`
	Attempts int    `json:"attempts" doc:"How often the next delivery was tried."`
	Error    string `json:"last_error" doc:"Why it failed."`
	Lost     string `json:"lost_at" doc:"When events were dropped from the log before they could be sent; empty: never."`
}

func (h *Webhooks) read(_ context.Context, view conclave.View, in *webhookName) (*webhookOutput, error) {
	w, err := named(view, in.Name)
	if err != nil {
		return nil, err
	}
	if w == nil {
		return nil, &conclave.Error{Kind: conclave.NotFound}
	}
	p, err := load[progress](view, progressDir+in.Name, decodeProgress)
	if err != nil {
		return nil, err
	}
	out := &webhookOutput{URL: w.URL, Type: w.Types, Namespaces: w.Namespaces, Path: w.Paths, Filter: w.Filter, CA: w.CA, Batch: w.Batch}
	if out.Namespaces == nil {
		out.Namespaces = []string{}
	}
	if p != nil {
		out.Status = &webhookStatus{p.Cursor, p.Sent, spell(p.LastSent), spell(p.Failing), p.Attempts, p.Error, spell(p.Lost)}
	}
	return out, nil
}

func spell(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return at.UTC().Format(time.RFC3339)
}

func (h *Webhooks) remove(_ context.Context, tx conclave.Tx, in *webhookName) (*conclave.None, error) {
	if err := checkName(in.Name); err != nil {
		return nil, err
	}
	if err := tx.Delete(webhookDir + in.Name); err != nil { // whatever is there, and readable or not
		return nil, err
	}
	return nil, tx.Delete(progressDir + in.Name)
}
