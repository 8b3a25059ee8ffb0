package event

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"conclave"
	"conclave/engine/enginetest"
)

// fakeJudge lets through what is about paths with a prefix, until it fails.
type fakeJudge struct {
	mu     sync.Mutex // guards all below
	prefix string
	fail   error
	index  uint64 // the highest that was asked for
}

func (j *fakeJudge) Judge(_ context.Context, _ *conclave.Request, index uint64, events []*conclave.Occurrence) ([]bool, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.index = max(j.index, index)
	seen := make([]bool, len(events))
	for i, o := range events {
		seen[i] = strings.HasPrefix(o.FullPath(), j.prefix)
	}
	return seen, j.fail
}

func (j *fakeJudge) set(change func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	change()
}

// desk is a service whose subscriptions go through its route.
type desk struct {
	*enginetest.Memory
	t       *testing.T
	log     *fakeLog
	judge   *fakeJudge
	service *Service
}

func newDesk(t *testing.T) *desk {
	log := newFakeLog()
	d := &desk{Memory: enginetest.NewMemory(t), t: t, log: log, judge: &fakeJudge{}}
	stream := running(t, log)
	d.service = New(Config{Stream: stream, Judge: d.judge, Source: func() string { return "conclave://test" }})
	d.SetRequest(&conclave.Request{ID: "subscribe", Operation: conclave.Read})
	d.SetCaller(&conclave.Caller{TokenID: "token-1"})
	return d
}

// ask makes a request to the route for subscriptions.
func (d *desk) ask(fields map[string]any, eventType string) (*conclave.Response, error) {
	route, _, err := conclave.NewRouter(d.service.Routes()).Find(conclave.Read, "events/subscribe/"+eventType)
	if err != nil {
		return nil, err
	}
	in, err := route.Bind(map[string]string{"type": eventType}, fields)
	if err != nil {
		return nil, err
	}
	prepared, err := route.Prepare(d.t.Context(), d.Request(), in)
	if err != nil {
		return nil, err
	}
	return route.Handle(conclave.WithPrepared(d.t.Context(), prepared), d, in)
}

// subscriber is a client that is being sent to.
type subscriber struct {
	t        *testing.T
	messages chan message
	ended    chan error
	cancel   context.CancelFunc
}

func (d *desk) subscribe(fields map[string]any, eventType string) *subscriber {
	d.t.Helper()
	response, err := d.ask(fields, eventType)
	if err != nil {
		d.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(d.t.Context())
	s := &subscriber{d.t, make(chan message), make(chan error, 1), cancel}
	go func() {
		s.ended <- response.Stream(ctx, func(ctx context.Context, raw []byte) error {
			var m message
			if err := json.Unmarshal(raw, &m); err != nil {
				return err
			}
			select {
			case s.messages <- m:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	d.t.Cleanup(cancel)
	return s
}

func (s *subscriber) next() message {
	s.t.Helper()
	select {
	case m := <-s.messages:
		return m
	case err := <-s.ended:
		s.t.Fatalf("the subscription ended: %v", err)
	case <-time.After(10 * time.Second):
		s.t.Fatal("no event came")
	}
	return message{}
}

func (s *subscriber) end() error {
	s.t.Helper()
	select {
	case m := <-s.messages:
		s.t.Fatalf("an event came: %+v", m)
	case err := <-s.ended:
		return err
	case <-time.After(10 * time.Second):
		s.t.Fatal("the subscription didn't end")
	}
	return nil
}

func TestSubscribersGetWhatTheyMayKnow(t *testing.T) {
	d := newDesk(t)
	d.judge.prefix = "m/p2"
	s := d.subscribe(nil, "test/*")
	d.log.add(1, 1, 1) // p0, p1, p2
	m := s.next()
	if m.Data.Event.Metadata["data_path"] != "m/p2/0" || m.Data.EventType != "test/made" || m.Source != "conclave://test" || m.SpecVersion != "1.0" ||
		m.Data.Plugin.Path != "m/" || m.Data.Plugin.Class != "secret" || m.ID == "" || m.Data.Event.ID != m.ID || m.Time.Unix() != 2 {
		t.Errorf("the event is %+v", m)
	}
	d.judge.set(func() {
		if d.judge.index != 102 {
			t.Errorf("judged on a state with index %d, want 102", d.judge.index)
		}
		d.judge.prefix = ""
	})
	d.log.add(1)
	if m := s.next(); m.Data.Event.Metadata["path"] != "m/p3/0" {
		t.Errorf("under other policies the event is %+v", m)
	}
	if _, err := d.ask(nil, "test/made"); err != nil {
		t.Error(err)
	}
	other := d.subscribe(map[string]any{"since": Oldest}, "other/*")
	d.judge.set(func() { d.judge.fail = conclave.Errorf(conclave.Denied, "permission denied") })
	if err := other.end(); !conclave.Is(err, conclave.Denied) {
		t.Errorf("a subscription to nothing ended with %v", err)
	}
	s.end()
}

// The cursor of any event leads to the next, and the last word of a subscription is one, too.
func TestSubscriptionsGoOnFromAnyCursor(t *testing.T) {
	d := newDesk(t)
	d.log.add(2, 0, 1)
	first := d.subscribe(map[string]any{"since": Oldest}, "*")
	var ids, cursors []string
	for range 3 {
		m := first.next()
		ids, cursors = append(ids, m.ID), append(cursors, m.Cursor)
	}
	for i, cursor := range cursors[:2] {
		again := d.subscribe(map[string]any{"since": cursor}, "*")
		for _, want := range ids[i+1:] {
			if m := again.next(); m.ID != want {
				t.Errorf("after cursor %d the event is %s, want %s", i, m.ID, want)
			}
		}
		again.cancel()
		again.end()
	}
	d.judge.set(func() { d.judge.fail = conclave.Errorf(conclave.Denied, "permission denied") })
	err := first.end()
	if !conclave.Is(err, conclave.Denied) {
		t.Fatalf("the subscription ended with %v, want Denied", err)
	}
	d.judge.set(func() { d.judge.fail = nil })
	_, since, _ := strings.Cut(err.Error(), "since=")
	d.log.add(1)
	if m := d.subscribe(map[string]any{"since": since}, "*").next(); m.Data.Event.Metadata["path"] != "m/p3/0" {
		t.Errorf("after the last word the event is %+v", m)
	}
}

func TestSubscriptionsThatCanNotBeAreRefused(t *testing.T) {
	d := newDesk(t)
	d.log.add(1)
	good := start(t, d.service.Stream, "")
	for name, c := range map[string]struct {
		fields    map[string]any
		eventType string
	}{
		"protobuf":            {map[string]any{"json": "false"}, "*"},
		"no such type":        {nil, "kv"},
		"a type with blanks":  {nil, "kv v2/*"},
		"too many stars":      {nil, strings.Repeat("*a", 9)},
		"a long type":         {nil, strings.Repeat("a", 200) + "*"},
		"not a cursor":        {map[string]any{"since": "yesterday"}, "*"},
		"a cut cursor":        {map[string]any{"since": good.String()[:20]}, "*"},
		"a forged cursor":     {map[string]any{"since": Cursor{Seq: 1, Link: [8]byte{1}}.String()}, "*"},
		"a bad filter":        {map[string]any{"filter": "operation = 1"}, "*"},
		"a long filter":       {map[string]any{"filter": strings.Repeat("not ", 300) + "operation is empty"}, "*"},
		"too many namespaces": {map[string]any{"namespaces": strings.Repeat("a,", 17) + "a"}, "*"},
		"an empty namespace":  {map[string]any{"namespaces": []any{"/"}}, "*"},
	} {
		if _, err := d.ask(c.fields, c.eventType); !conclave.Is(err, conclave.Invalid) {
			t.Errorf("%s: %v, want Invalid", name, err)
		}
	}
}

func TestSubscribersAreBounded(t *testing.T) {
	d := newDesk(t)
	var all []*subscriber
	for range MaxOfToken {
		all = append(all, d.subscribe(nil, "*"))
	}
	d.log.add(1)
	for _, s := range all {
		s.next()
	}
	if _, err := d.ask(nil, "*"); !conclave.Is(err, conclave.Limited) {
		t.Errorf("one more: %v, want Limited", err)
	}
	d.SetCaller(&conclave.Caller{TokenID: "token-2"})
	if _, err := d.ask(nil, "*"); err != nil {
		t.Errorf("another token: %v", err)
	}
	d.SetCaller(&conclave.Caller{TokenID: "token-1"})
	all[0].cancel()
	if err := all[0].end(); !errors.Is(err, context.Canceled) {
		t.Errorf("a client that goes: %v", err)
	}
	if _, err := d.ask(nil, "*"); err != nil {
		t.Errorf("in the place of one that went: %v", err)
	}
	if got := d.service.Counters().Subscribers.Load(); got != MaxOfToken-1 {
		t.Errorf("%d subscribers are counted, want %d", got, MaxOfToken-1)
	}
}

// Whoever asks for positions learns how far it is although it gets no events, and can go on from there.
func TestPositionsAreTold(t *testing.T) {
	d := newDesk(t)
	now := time.Unix(0, 0)
	var mu sync.Mutex // guards now
	d.service.Now = func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		now = now.Add(time.Hour)
		return now
	}
	if _, err := d.ask(map[string]any{"positions": "0"}, "*"); !conclave.Is(err, conclave.Invalid) {
		t.Errorf("positions without a pause: %v, want Invalid", err)
	}
	quiet := d.subscribe(map[string]any{"positions": "1h"}, "other/*")
	d.log.add(1, 1)
	m := quiet.next()
	if m.Data.EventType != EventPosition || m.ID == "" || len(m.Data.Event.Metadata) > 0 {
		t.Errorf("the message is %+v", m)
	}
	d.log.add(1)
	after := d.subscribe(map[string]any{"since": m.Cursor}, "test/*")
	first := after.next()
	if c, err := ParseCursor(m.Cursor); err != nil || first.Data.Event.Metadata["path"] != "m/p"+strconv.FormatUint(c.Seq, 10)+"/0" {
		t.Errorf("behind the position %+v, %v is %+v", c, err, first)
	}
}

// A token that is revoked while a slow client takes a batch gets no more than what was judged a moment ago.
func TestSlowClientsAreJudgedAgain(t *testing.T) {
	d := newDesk(t)
	now := time.Unix(0, 0)
	d.service.Now = func() time.Time { return now } // for the one goroutine that streams
	d.log.add(1, 1, 1, 1)
	response, err := d.ask(map[string]any{"since": Oldest}, "*")
	if err != nil {
		t.Fatal(err)
	}
	sent := 0
	err = response.Stream(t.Context(), func(context.Context, []byte) error {
		sent++
		now = now.Add(judgePause)
		d.judge.set(func() {
			if sent == 2 {
				d.judge.fail = conclave.Errorf(conclave.Denied, "permission denied")
			}
		})
		return nil
	})
	if !conclave.Is(err, conclave.Denied) || sent != 2 || !strings.Contains(err.Error(), at(2, d.log.records[1].Link).String()) {
		t.Errorf("after %d events the subscription ended with %v", sent, err)
	}
}

// A client that takes nothing is let go; it doesn't hold up anybody else.
func TestClientsThatTakeNothingAreLetGo(t *testing.T) {
	d := newDesk(t)
	response, err := d.ask(nil, "*")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		ended <- response.Stream(t.Context(), func(context.Context, []byte) error { return errors.New("timeout") })
	}()
	other := d.subscribe(nil, "*")
	d.log.add(1)
	other.next()
	select {
	case err := <-ended:
		if !errors.Is(err, errSend) {
			t.Errorf("the subscription ended with %v, want %v", err, errSend)
		}
	case <-time.After(10 * time.Second):
		t.Error("the subscription goes on")
	}
}

func TestNamespacesOfASubscription(t *testing.T) {
	for _, c := range []struct {
		own        string
		namespaces []string
		happened   string
		want       bool
	}{
		{"", nil, "", true},
		{"", nil, "team/", false},
		{"", []string{"team"}, "team/", true},
		{"", []string{"team/"}, "team/", true},
		{"", []string{"team"}, "team/a/", false},
		{"", []string{"team/*"}, "team/a/", true},
		{"", []string{"*"}, "team/a/", true},
		{"team/", nil, "team/", true},
		{"team/", []string{"*"}, "", false},
		{"team/", []string{"*"}, "teams/", false},
		{"team/", []string{"a"}, "team/a/", true},
		{"team/", []string{"a"}, "other/a/", false},
	} {
		s := Selection{Types: "*", Namespace: c.own, Namespaces: c.namespaces}
		if err := s.Check(); err != nil {
			t.Fatal(err)
		}
		o := &conclave.Occurrence{Event: conclave.Event{Type: "a/b"}, Namespace: conclave.Namespace{Path: c.happened}}
		if got := s.Matches(o); got != c.want {
			t.Errorf("in %q with %q, what happened in %q matches: %v, want %v", c.own, c.namespaces, c.happened, got, c.want)
		}
	}
}
