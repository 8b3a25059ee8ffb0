package main

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"conclave"
)

// appliance is a source of secrets: a server that takes passwords over HTTPS.
type appliance struct {
	*httptest.Server
	mu     sync.Mutex // guards all below
	broken bool
	values map[string]string // entry → the value that works
	hold   chan struct{}     // if not nil, answers wait until it is closed
	asked  chan struct{}     // gets one for each call that waits
}

func newAppliance(t *testing.T) *appliance {
	a := &appliance{values: map[string]string{}, asked: make(chan struct{}, 16)}
	a.Server = httptest.NewTLSServer(http.HandlerFunc(a.serve))
	t.Cleanup(a.Close)
	return a
}

func (a *appliance) serve(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	var call struct{ Mode, Namespace, Entry, Value string }
	if err := json.Unmarshal(body, &call); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	a.mu.Lock()
	hold := a.hold
	a.mu.Unlock()
	if hold != nil {
		a.asked <- struct{}{}
		<-hold
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	name := call.Namespace + call.Entry
	switch {
	case a.broken:
		w.WriteHeader(http.StatusInternalServerError)
	case call.Mode == "rotate":
		a.values[name] = call.Value
	case call.Mode == "verify":
		fmt.Fprintf(w, `{"verified":%v}`, a.values[name] == call.Value)
	}
}

func (a *appliance) change(change func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change()
}

func (a *appliance) value(name string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.values[name]
}

func (a *appliance) entry(more map[string]any) map[string]any {
	fields := map[string]any{"webhook_url": a.URL, "webhook_key": strings.Repeat("k", 32),
		"webhook_ca_pem": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Certificate().Raw}))}
	for name, value := range more {
		fields[name] = value
	}
	return fields
}

// openRotation is a vault with the engine at rotate/ and at team/rotate/, whose work is done.
func openRotation(t *testing.T) (*lodge, *appliance) {
	l := openLodge(t, false)
	l.must(conclave.Update, "sys/namespaces/team", nil)
	l.must(conclave.Update, "sys/mounts/rotate", map[string]any{"type": "rotate"})
	l.must(conclave.Update, "team/sys/mounts/rotate", map[string]any{"type": "rotate"})
	l.startWork(t)
	return l, newAppliance(t)
}

func policyOf(length int, charset string) map[string]any {
	return map[string]any{"policy": fmt.Sprintf("length = %d\nrule \"charset\" {\n charset = %q\n}", length, charset)}
}

func TestValuesAreMadeByThePoliciesOfTheirNamespaces(t *testing.T) {
	l, a := openRotation(t)
	l.must(conclave.Update, "sys/policies/password/pin", policyOf(6, "01"))
	l.must(conclave.Update, "team/sys/policies/password/pin", policyOf(8, "ab"))
	l.must(conclave.Update, "sys/policies/password/root-only", policyOf(8, "ab"))
	for prefix, form := range map[string]struct {
		length  int
		charset string
	}{"": {6, "01"}, "team/": {8, "ab"}} {
		l.must(conclave.Update, prefix+"rotate/entries/app", a.entry(map[string]any{"password_policy": "pin"}))
		waitFor(t, "the first value", func() bool {
			_, err := l.do(l.root, conclave.Read, prefix+"rotate/creds/app", nil)
			return err == nil
		})
		value := l.must(conclave.Read, prefix+"rotate/creds/app", nil)["value"].(string)
		if len(value) != form.length || strings.Trim(value, form.charset) != "" || value != a.value(prefix+"app") {
			t.Errorf("%sapp has the value %q, its source %q", prefix, value, a.value(prefix+"app"))
		}
		made := l.must(conclave.Read, prefix+"sys/policies/password/pin/generate", nil)["password"].(string)
		if len(made) != form.length || strings.Trim(made, form.charset) != "" {
			t.Errorf("%spin makes %q", prefix, made)
		}
	}
	l.refuses(t, conclave.Invalid, "no password policy", conclave.Update, "team/rotate/entries/other", a.entry(map[string]any{"password_policy": "root-only"}))
	l.refuses(t, conclave.NotFound, "", conclave.Read, "team/sys/policies/password/root-only", nil)
	reader := l.token(map[string]any{"policies": []any{"default"}})
	if _, err := l.do(reader, conclave.Read, "sys/policies/password/pin/generate", nil); !conclave.Is(err, conclave.Denied) {
		t.Errorf("generate without a policy that grants it: %v", err)
	}
}

// TestAFailedRotationIsAnErrorThatIsRemembered: the answer is an error, and yet what came of it is committed; the vault
// goes on by itself.
func TestAFailedRotationIsAnErrorThatIsRemembered(t *testing.T) {
	l, a := openRotation(t)
	l.must(conclave.Update, "rotate/entries/app", a.entry(map[string]any{"value": "as it was"}))
	a.change(func() { a.broken = true })
	from := l.state.Audit().Shown().Seq
	l.refuses(t, conclave.Unknown, "the current value stays", conclave.Update, "rotate/rotate/app", map[string]any{"reason": "someone has left"})
	if got := l.must(conclave.Read, "rotate/creds/app", nil); got["value"] != "as it was" || got["version"] != 1.0 {
		t.Errorf("creds are %v", got)
	}
	if got := l.must(conclave.Read, "rotate/status/app", nil); got["failures"] != 1.0 || got["pending_version"] != 2.0 || got["last_failure"] != "hand-over: the webhook answers with status 500" {
		t.Errorf("status is %v", got)
	}
	told := false
	for _, r := range l.records(from) {
		told = told || strings.Contains(string(r.Request), "someone has left") && len(r.Error) > 0
	}
	if !told {
		t.Error("the audit log doesn't say that and why the rotation was asked for and failed")
	}
	a.change(func() { a.broken = false })
	if got := l.must(conclave.Update, "rotate/rotate/app", nil); got["version"] != 2.0 {
		t.Errorf("rotate answers %v", got)
	}
	if got := l.must(conclave.Read, "rotate/creds/app", nil)["value"]; got != a.value("app") || got == "as it was" {
		t.Errorf("the value is %v", got)
	}
}

// TestOneHandOverAtATime: while a source takes its time, others are told to wait, and readers get the old value.
func TestOneHandOverAtATime(t *testing.T) {
	l, a := openRotation(t)
	l.must(conclave.Update, "rotate/entries/app", a.entry(map[string]any{"value": "as it was", "rotation_period": "1m"}))
	hold := make(chan struct{})
	a.change(func() { a.hold = hold })
	first := make(chan error, 1)
	go func() {
		_, err := l.do(l.root, conclave.Update, "rotate/rotate/app", nil)
		first <- err
	}()
	<-a.asked
	l.refuses(t, conclave.Unavailable, "under way", conclave.Update, "rotate/rotate/app", nil)
	l.refuses(t, conclave.Unavailable, "under way", conclave.Update, "rotate/emergency/app", nil)
	if got := l.must(conclave.Read, "rotate/creds/app", nil)["value"]; got != "as it was" {
		t.Errorf("the value is %v during a hand-over", got)
	}
	// Settings may change meanwhile; the hand-over still counts.
	l.must(conclave.Update, "rotate/entries/app", map[string]any{"grace_period": "1h"})
	a.change(func() { a.hold = nil })
	close(hold)
	if err := <-first; err != nil {
		t.Fatalf("the first rotation: %v", err)
	}
	got := l.must(conclave.Read, "rotate/creds/app", nil)
	previous, _ := got["previous"].(map[string]any)
	if got["value"] != a.value("app") || previous["value"] != "as it was" {
		t.Errorf("creds are %v", got)
	}
}

// TestADeletedEntryIsNotRevived by a hand-over that was under way, and neither is its namesake.
func TestADeletedEntryIsNotRevived(t *testing.T) {
	l, a := openRotation(t)
	l.must(conclave.Update, "rotate/entries/app", a.entry(map[string]any{"value": "as it was"}))
	hold := make(chan struct{})
	a.change(func() { a.hold = hold })
	first := make(chan error, 1)
	go func() {
		_, err := l.do(l.root, conclave.Update, "rotate/rotate/app", nil)
		first <- err
	}()
	<-a.asked
	l.must(conclave.Delete, "rotate/entries/app", nil)
	l.must(conclave.Update, "rotate/entries/app", a.entry(map[string]any{"value": "another"}))
	a.change(func() { a.hold = nil })
	close(hold)
	if err := <-first; !conclave.Is(err, conclave.Unknown) {
		t.Errorf("the rotation of what was deleted: %v", err)
	}
	if got := l.must(conclave.Read, "rotate/creds/app", nil); got["value"] != "another" || got["version"] != 1.0 {
		t.Errorf("creds are %v", got)
	}
}

// TestAClientThatGoesAwayLeavesThePendingValue to the vault's own work.
func TestAClientThatGoesAwayLeavesThePendingValue(t *testing.T) {
	l, a := openRotation(t)
	l.must(conclave.Update, "rotate/entries/app", a.entry(map[string]any{"value": "as it was", "timeout": "1s"}))
	hold := make(chan struct{})
	a.change(func() { a.hold = hold })
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() {
		_, err := l.pipeline.Handle(ctx, &conclave.Request{ID: "gone", Operation: conclave.Update, Path: "rotate/rotate/app", Token: l.root})
		first <- err
	}()
	<-a.asked
	cancel()
	if err := <-first; err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the client that went away got %v", err)
	}
	a.change(func() { a.hold = nil })
	close(hold)
	status := l.must(conclave.Read, "rotate/status/app", nil)
	recorded := status["failures"] == 1.0 // or the claim is left to run out, if what came of it couldn't be recorded any more
	if status["pending_version"] != 2.0 || status["version"] != 1.0 || status["next_attempt"] == nil || recorded == (status["under_way"] == true) {
		t.Errorf("status is %v", status)
	}
}
