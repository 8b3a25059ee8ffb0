package event

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"conclave"
)

// Times and limits of deliveries.
const (
	webhookPoll  = 750 * time.Millisecond // between looks at which webhooks there are
	savePause    = time.Second            // between two notes of how far a webhook has come
	saveFailing  = 30 * time.Second       // the same while nothing gets through
	saveIdle     = time.Minute            // the same while nothing is to be sent
	saveTime     = 3 * time.Second        // to write it down
	saveSent     = 256                    // events after which it is noted even sooner
	firstBackOff = time.Second
	lastBackOff  = 5 * time.Minute
	maxDeliverer = 256 // webhooks that are sent to at once
	maxError     = 256 // bytes of a status' last error
	maxGone      = 10_000
)

// courier sends to one webhook.
type courier struct {
	*Webhooks
	at   conclave.Namespace
	name string
	hook *webhook

	progress progress
	saved    time.Time // when progress was last written down
	unsaved  int       // events that were sent since
	counted  bool      // as failing
}

// Run sends to all webhooks until ctx ends: this node leads.
func (h *Webhooks) Run(ctx context.Context) error {
	group, inner := errgroup.WithContext(ctx)
	running := map[string]context.CancelFunc{} // key of a courier → what stops it
	var mu sync.Mutex                          // guards running
	for failing := false; ctx.Err() == nil; {
		hooks, err := h.all(inner)
		if err != nil && !failing && ctx.Err() == nil && !conclave.Is(err, conclave.Sealed) {
			h.report("webhooks can't be looked up", "error", err)
		}
		if failing = err != nil; !failing {
			mu.Lock()
			for key, stop := range running {
				if hooks[key] == nil {
					stop() // it removes itself when it has ended, and may be started anew after that
				}
			}
			for key, c := range hooks {
				if running[key] != nil || len(running) >= maxDeliverer {
					continue
				}
				own, stop := context.WithCancel(inner)
				running[key] = stop
				group.Go(func() error {
					defer func() {
						stop()
						mu.Lock()
						defer mu.Unlock()
						delete(running, key)
					}()
					c.run(own)
					return nil
				})
			}
			mu.Unlock()
		}
		if h.pause(ctx, webhookPoll) != nil {
			break
		}
	}
	return group.Wait()
}

// there reports whether a namespace still is: what happened in one that is gone concerns nobody who has its name now.
func (h *Webhooks) there(ctx context.Context, index uint64, id string) (bool, error) {
	h.mu.Lock()
	there := h.namespaces[id]
	gone := h.gone[id]
	h.mu.Unlock()
	if there || gone {
		return there, nil
	}
	namespaces := map[string]bool{} // of a state that has the event, and so its namespace
	err := h.spaces.Look(ctx, index, func(at conclave.Namespace, _ conclave.View) error {
		namespaces[at.ID] = true
		return nil
	})
	if err != nil {
		return false, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if there = namespaces[id]; there {
		h.namespaces = namespaces
		return true, nil
	}
	if len(h.gone) >= maxGone || h.gone == nil {
		h.gone = map[string]bool{}
	}
	h.gone[id] = true // ids are never given twice
	return false, nil
}

// all are the couriers of all webhooks, by what makes them differ.
func (h *Webhooks) all(ctx context.Context) (map[string]*courier, error) {
	all := map[string]*courier{}
	namespaces := map[string]bool{}
	err := h.spaces.Look(ctx, 0, func(at conclave.Namespace, system conclave.View) error {
		namespaces[at.ID] = true
		names, err := system.List(webhookDir, "", MaxWebhooks)
		if err != nil {
			return err
		}
		for _, name := range names {
			value, err := system.Get(webhookDir + name)
			if err != nil {
				return err
			}
			decoded, err := decodeWebhook(value)
			hook, ok := decoded.(*webhook)
			if err != nil || !ok {
				continue // whoever reads it is told; it holds up no other
			}
			// A webhook that is changed gets a courier that knows the change.
			all[at.ID+"\x00"+at.Path+"\x00"+name+"\x00"+string(value)] = &courier{Webhooks: h, at: at, name: name, hook: hook}
		}
		return nil
	})
	if err == nil {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.namespaces = namespaces
	}
	return all, err
}

// run sends what there is until ctx ends, or until the webhook has changed.
func (c *courier) run(ctx context.Context) {
	err := c.follow(ctx)
	c.count(false)
	if ctx.Err() != nil {
		c.note(context.WithoutCancel(ctx)) // best effort: what isn't noted is sent again
		return
	}
	if err != nil {
		c.report("a webhook is not sent to for now", "webhook", c.name, "namespace", c.at.Path, "error", err)
	}
}

func (c *courier) follow(ctx context.Context) error {
	selection, err := c.hook.selection(c.at.Path)
	if err != nil {
		return err
	}
	from, err := c.begin(ctx)
	if err != nil {
		return err
	}
	l := c.stream.listen(from)
	defer l.close()
	for {
		b, err := l.next(ctx, savePause)
		if err != nil {
			return err
		}
		var chosen []item
		for _, it := range b.items {
			o := it.event()
			if !selection.Matches(o) {
				continue
			}
			there, err := c.there(ctx, it.record.Index, o.Namespace.ID)
			if err != nil {
				return err
			}
			if there {
				chosen = append(chosen, it)
			}
		}
		for len(chosen) > 0 {
			n := min(len(chosen), c.hook.Batch)
			if err := c.deliver(ctx, chosen[:n]); err != nil {
				return err
			}
			last := chosen[n-1]
			l.cursor = last.record.after(last.number)
			c.sent(ctx, n, l.cursor)
			chosen = chosen[n:]
		}
		l.cursor = b.next
		c.idle(ctx, l.cursor)
	}
}

// begin finds out how far the webhook has come, and passes over what is no longer kept.
func (c *courier) begin(ctx context.Context) (from Cursor, err error) {
	err = c.spaces.Change(ctx, c.at, func(system conclave.Tx) error {
		p, err := load[progress](system, progressDir+c.name, decodeProgress)
		if p != nil && p.ID == c.hook.ID {
			c.progress = *p
		}
		return err
	})
	if err != nil {
		return from, err
	}
	from, err = c.stream.Start(ctx, c.progress.Cursor)
	if conclave.Is(err, conclave.Invalid) {
		c.report("events were dropped from the log before a webhook was sent them", "webhook", c.name, "namespace", c.at.Path)
		from, err = c.stream.Start(ctx, Oldest)
		c.progress.Lost = c.now()
		c.progress.Cursor = from.String()
		c.note(ctx)
	}
	c.progress.ID = c.hook.ID
	return from, err
}

// deliver sends events as one, again and again until they are taken.
func (c *courier) deliver(ctx context.Context, items []item) error {
	body, id := c.body(items)
	for wait := firstBackOff; ; wait = min(2*wait, lastBackOff) {
		err := c.post(ctx, id, body)
		if err == nil {
			c.recovered()
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		c.failed(ctx, err)
		if err := c.pause(ctx, wait); err != nil {
			return err
		}
	}
}

// body is what is sent: one message, or a list of them; and the id of the delivery, which is that of its first event.
func (c *courier) body(items []item) (body []byte, id string) {
	var b bytes.Buffer
	if c.hook.Batch > 1 {
		b.WriteByte('[')
	}
	for i, it := range items {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(it.record.message(it.number, c.source()))
	}
	if c.hook.Batch > 1 {
		b.WriteByte(']')
	}
	return b.Bytes(), items[0].record.id(items[0].number)
}

func (c *courier) post(ctx context.Context, id string, body []byte) error {
	client, err := c.clients.Get(c.hook.CA)
	if err != nil {
		return err
	}
	key, err := secretKey(c.hook.Secret)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.hook.URL, bytes.NewReader(body))
	if err != nil {
		return conclave.Errorf(conclave.Invalid, "malformed URL")
	}
	kind := "application/cloudevents+json"
	if c.hook.Batch > 1 {
		kind = "application/cloudevents-batch+json"
	}
	now := c.now()
	req.Header.Set("Content-Type", kind+"; charset=utf-8")
	req.Header.Set("Webhook-Id", id)
	req.Header.Set("Webhook-Timestamp", strconv.FormatInt(now.Unix(), 10))
	req.Header.Set("Webhook-Signature", sign(key, id, now, body))
	answer, err := client.Do(req)
	if err != nil {
		return err
	}
	if answer.Status < 200 || answer.Status > 299 {
		return conclave.Errorf(conclave.Unavailable, "the server answers with status %d", answer.Status)
	}
	return nil
}

// sent notes that events were taken.
func (c *courier) sent(ctx context.Context, n int, behind Cursor) {
	c.counters.Sent.Add(uint64(n))
	c.progress.Cursor, c.progress.Sent, c.progress.LastSent = behind.String(), c.progress.Sent+uint64(n), c.now()
	if c.unsaved += n; c.unsaved >= saveSent || c.now().Sub(c.saved) >= savePause {
		c.note(ctx)
	}
}

// idle notes where the webhook stands when there is nothing more to send.
func (c *courier) idle(ctx context.Context, behind Cursor) {
	since := c.now().Sub(c.saved)
	moved := c.progress.Cursor != behind.String()
	c.progress.Cursor = behind.String()
	if c.unsaved > 0 && since >= savePause || moved && since >= saveIdle {
		c.note(ctx)
	}
}

func (c *courier) failed(ctx context.Context, failure error) {
	c.counters.Failures.Add(1)
	c.count(true)
	first := c.progress.Failing.IsZero()
	if first {
		c.progress.Failing = c.now()
		c.report("a webhook fails: it is tried again until it succeeds", "webhook", c.name, "namespace", c.at.Path, "error", failure)
	}
	c.progress.Attempts++
	text := failure.Error()
	c.progress.Error = text[:min(len(text), maxError)]
	if first || c.now().Sub(c.saved) >= saveFailing {
		c.note(ctx)
	}
}

func (c *courier) recovered() {
	c.count(false)
	if c.progress.Failing.IsZero() {
		return
	}
	c.progress.Failing, c.progress.Attempts, c.progress.Error = time.Time{}, 0, ""
	c.saved = time.Time{} // it is worth knowing at once
}

// count has the webhook among those that fail, or not.
func (c *courier) count(failing bool) {
	switch {
	case failing && !c.counted:
		c.counters.Failing.Add(1)
	case !failing && c.counted:
		c.counters.Failing.Add(-1)
	}
	c.counted = failing
}

// note writes down how far the webhook has come, unless it has changed. What can't be written down is sent again by whoever
// goes on.
func (c *courier) note(ctx context.Context) {
	brief, cancel := context.WithTimeout(ctx, saveTime)
	defer cancel()
	err := c.spaces.Change(brief, c.at, func(system conclave.Tx) error {
		hook, err := named(system, c.name)
		if err != nil || hook == nil || hook.ID != c.hook.ID {
			return errors.Join(err, errChanged)
		}
		return store(system, progressDir+c.name, &c.progress)
	})
	c.saved, c.unsaved = c.now(), 0
	if err != nil && !errors.Is(err, errChanged) && ctx.Err() == nil {
		c.report("how far a webhook has come isn't written down", "webhook", c.name, "namespace", c.at.Path, "error", err)
	}
}

var errChanged = errors.New("the webhook is another one")
