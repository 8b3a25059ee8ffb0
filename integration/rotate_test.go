package integration

import (
	"context"
	"encoding/base64"
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
	"time"

	"github.com/hashicorp/vault/api"
)

// appliance is a server that takes passwords over HTTPS. It holds the first hand-over of each entry until the test lets go.
type appliance struct {
	*httptest.Server
	hold  chan struct{}
	asked chan string // the entry of each call that is held

	mu     sync.Mutex          // guards all below
	taken  map[string][]string // entry → values, in the order in which they came
	newest map[string]int      // entry → the highest version
}

func newAppliance(t *testing.T) *appliance {
	a := &appliance{hold: make(chan struct{}), asked: make(chan string, 8), taken: map[string][]string{}, newest: map[string]int{}}
	a.Server = httptest.NewTLSServer(http.HandlerFunc(a.serve))
	t.Cleanup(a.Close)
	return a
}

func (a *appliance) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var call struct {
		Mode, Entry, Value string
		Version            int
	}
	if err != nil || json.Unmarshal(body, &call) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	a.mu.Lock()
	first := call.Mode == "rotate" && len(a.taken[call.Entry]) == 0
	if call.Mode == "rotate" && call.Version >= a.newest[call.Entry] {
		a.newest[call.Entry] = call.Version
		a.taken[call.Entry] = append(a.taken[call.Entry], call.Value)
	}
	a.mu.Unlock()
	if first {
		a.asked <- call.Entry
		<-a.hold
	}
	if call.Mode == "verify" {
		fmt.Fprintf(w, `{"verified":%v}`, call.Value == a.value(call.Entry))
	}
}

func (a *appliance) value(entry string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.taken[entry]) == 0 {
		return ""
	}
	return a.taken[entry][len(a.taken[entry])-1]
}

// TestRotationSurvivesItsNode kills a node that is in the middle of two hand-overs: of a scheduled one, as the leader, and of
// a client's. It waits for the schedule for up to 80 seconds. Their sources have taken the values and nobody knows; the same values are handed over again, and become current
// on all nodes. Nobody is told a value in between that its source doesn't take any more, or not yet.
func TestRotationSurvivesItsNode(t *testing.T) {
	l := startLab(t, 3)
	ctx := within(t, 5*time.Minute)
	a := newAppliance(t)
	leader, err := l.Leader(ctx)
	if err != nil {
		t.Fatal(err)
	}
	onLeader := sdk(t, l, leader)
	onLeader.SetMaxRetries(0)
	if err := onLeader.Sys().Mount("rotate", &api.MountInput{Type: "rotate"}); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, ctx, onLeader, "sys/policies/password/pin", map[string]any{"policy": "length = 12 rule \"charset\" { charset = \"0123456789\" }"})
	entry := func(more map[string]any) map[string]any {
		fields := map[string]any{"webhook_url": a.URL, "webhook_key": strings.Repeat("k", 32), "timeout": "2s", "password_policy": "pin",
			"webhook_ca_pem": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Certificate().Raw}))}
		for name, value := range more {
			fields[name] = value
		}
		return fields
	}
	begun := func() {
		t.Helper()
		select {
		case <-a.asked:
		case <-ctx.Done():
			t.Fatal("no hand-over has begun")
		}
	}
	due := time.Now().UTC().Add(80 * time.Second).Truncate(time.Minute) // once, and not again for an hour
	mustWrite(t, ctx, onLeader, "rotate/entries/own", entry(map[string]any{"value": "as it was", "rotation_schedule": fmt.Sprintf("%d * * * *", due.Minute())}))
	mustWrite(t, ctx, onLeader, "rotate/entries/asked", entry(map[string]any{"value": "as it was"}))
	begun()
	asked := make(chan error, 1)
	go func() {
		_, err := onLeader.Logical().WriteWithContext(ctx, "rotate/rotate/asked", map[string]any{"reason": "a test"})
		asked <- err
	}()
	begun()
	if err := l.Kill(leader); err != nil {
		t.Fatal(err)
	}
	if err := <-asked; err == nil {
		t.Error("the client of the killed node got an answer")
	}
	close(a.hold)
	first := map[string]string{"own": a.value("own"), "asked": a.value("asked")}

	other := sdk(t, l, 1+leader%3)
	for name := range first {
		if answer, err := other.Logical().ReadWithContext(ctx, "rotate/creds/"+name); err != nil || answer.Data["value"] != "as it was" {
			t.Errorf("before the hand-over is repeated: %v, %v", answer, err)
		}
	}
	current := func(n int, name string) func(context.Context) error {
		client := sdk(t, l, n)
		return func(ctx context.Context) error {
			answer, err := client.Logical().ReadWithContext(ctx, "rotate/creds/"+name)
			switch {
			case err != nil:
				return err
			case answer == nil:
				return errors.New("there is no value yet")
			case answer.Data["value"] != first[name]:
				return fmt.Errorf("the value is of version %v", answer.Data["version"])
			}
			return nil
		}
	}
	for name := range first {
		eventually(t, 90*time.Second, current(1+leader%3, name))
		if got := a.value(name); got != first[name] {
			t.Errorf("%s: the source has taken %q after %q", name, got, first[name])
		}
	}
	if err := l.Start(ctx, leader); err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= 3; n++ {
		for name := range first {
			eventually(t, 30*time.Second, current(n, name))
		}
	}
	history, err := other.Logical().ReadWithContext(ctx, "rotate/history/asked")
	if err != nil || !strings.Contains(fmt.Sprint(history.Data), "a test") {
		t.Errorf("history: %v, %v", history, err)
	}
}

// TestPasswordPoliciesByVaultsClient does what Vault's documentation shows, through Vault's client, on several nodes.
func TestPasswordPoliciesByVaultsClient(t *testing.T) {
	l := startLab(t, 3)
	ctx := within(t, time.Minute)
	one, two := sdk(t, l, 1), sdk(t, l, 2)
	two.SetMaxRetries(0)
	const text = `length = 20
rule "charset" {
  charset = "abcdefghijklmnopqrstuvwxyz"
  min-chars = 1
}
rule "charset" {
  charset = "0123456789"
  min-chars = 1
}
`
	mustWrite(t, ctx, one, "sys/policies/password/plain", map[string]any{"policy": text})
	mustWrite(t, ctx, one, "sys/policies/password/coded", map[string]any{"policy": base64.StdEncoding.EncodeToString([]byte(text))})
	for _, name := range []string{"plain", "coded"} {
		read, err := two.Logical().ReadWithContext(ctx, "sys/policies/password/"+name)
		if err != nil || len(read.Data) != 1 || read.Data["policy"] != text {
			t.Errorf("%s: %v, %v", name, read, err)
		}
		made, err := two.Logical().ReadWithContext(ctx, "sys/policies/password/"+name+"/generate")
		if err != nil {
			t.Fatal(err)
		}
		password, _ := made.Data["password"].(string)
		if len(password) != 20 || !strings.ContainsAny(password, "0123456789") || strings.Trim(password, "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
			t.Errorf("%s makes %q", name, password)
		}
	}
	listed, err := two.Logical().ListWithContext(ctx, "sys/policies/password")
	if err != nil || fmt.Sprint(listed.Data["keys"]) != "[coded plain]" {
		t.Errorf("names: %v, %v", listed, err)
	}
	_, err = two.Logical().WriteWithContext(ctx, "sys/policies/password/bad", map[string]any{"policy": "length = 20\nrule \"charset\" {\n  charset = 7\n}"})
	wantRefusal(t, err, 400, "line 3")
	_, err = two.Logical().WriteWithContext(ctx, "sys/policies/password/bad", map[string]any{"policy": `length = 50 rule "charset" { charset = "a" min-chars = 49 } rule "charset" { charset = "bcdefgh" }`})
	wantRefusal(t, err, 400, "hardly any")
	if _, err := one.Logical().DeleteWithContext(ctx, "sys/policies/password/plain"); err != nil {
		t.Error(err)
	}
	if gone, err := two.Logical().ReadWithContext(ctx, "sys/policies/password/plain"); gone != nil || err != nil {
		t.Errorf("after the delete: %v, %v", gone, err)
	}
}
