package rotate

import (
	"crypto/hmac"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"conclave"
	"conclave/engine/enginetest"
	"conclave/engine/rotate/handover"
)

const testKey = "0123456789abcdef0123456789abcdef"

// source is a real HTTPS server that keeps a password, as an appliance would.
type source struct {
	*httptest.Server
	t  testing.TB
	mu sync.Mutex // guards all below
	// taken is the password that works, with its version.
	taken   string
	version int
	calls   []handover.Call
	answer  func(call *handover.Call) (status int, body string) // nil: do it
	key     string
}

func newSource(t testing.TB) *source {
	s := &source{t: t, key: testKey}
	s.Server = httptest.NewTLSServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	return s
}

func (s *source) ca() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
}

func (s *source) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	var seconds int64
	header := r.Header.Get(handover.SignatureHeader)
	if _, scanned := fmt.Sscanf(header, "t=%d,", &seconds); err != nil || scanned != nil ||
		!hmac.Equal([]byte(header), []byte(handover.Sign(s.key, time.Unix(seconds, 0), body))) {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	var call handover.Call
	if err := json.Unmarshal(body, &call); err != nil {
		s.t.Errorf("the call is no JSON: %v", err)
	}
	s.calls = append(s.calls, call)
	if s.answer != nil {
		if status, text := s.answer(&call); status != 0 {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, text)
			return
		}
	}
	switch call.Mode {
	case handover.Rotate:
		if call.Version < s.version {
			w.WriteHeader(http.StatusConflict)
			return
		}
		s.taken, s.version = call.Value, call.Version
	case handover.Verify:
		fmt.Fprintf(w, `{"verified":%v}`, call.Value == s.taken)
	}
}

func (s *source) set(answer func(call *handover.Call) (int, string)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

func (s *source) password() (string, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.taken, s.version
}

// modes are the calls that were taken since the last time, such as "rotate 2".
func (s *source) modes() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	for _, call := range s.calls {
		all = append(all, fmt.Sprintf("%s %d", call.Mode, call.Version))
	}
	s.calls = nil
	return all
}

func engineWith(programs *handover.Programs) *Engine {
	return newEngine(Settings{Programs: programs, Random: rand.NewChaCha8([32]byte{1})})
}

type fields = map[string]any

// entryOf are the settings of an entry whose source is s.
func entryOf(s *source, more fields) fields {
	given := fields{"webhook_url": s.URL + "/password", "webhook_ca_pem": s.ca(), "webhook_key": testKey}
	for name, value := range more {
		given[name] = value
	}
	return given
}

// mounted has an entry "app" whose first value its source has taken.
func mounted(t testing.TB, s *source, more fields) *enginetest.Harness {
	t.Helper()
	h := enginetest.New(t, engineWith(nil))
	h.Data(conclave.Update, "entries/app", entryOf(s, more))
	runDue(t, h, 0)
	if got := creds(h); got["version"] != json.Number("1") {
		t.Fatalf("after the first rotation: %v, status %v", got, status(h))
	}
	s.modes()
	h.TakeEvents()
	return h
}

func runDue(t testing.TB, h *enginetest.Harness, later time.Duration) int {
	t.Helper()
	names, err := h.RunDue(h.Now().Add(later))
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

func creds(h *enginetest.Harness) map[string]any  { return h.Data(conclave.Read, "creds/app", nil) }
func status(h *enginetest.Harness) map[string]any { return h.Data(conclave.Read, "status/app", nil) }

func want(t testing.TB, what string, got, want any) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// row is values as they are printed, with blanks between them.
func row(values ...any) string { return strings.TrimSuffix(fmt.Sprintln(values...), "\n") }

func TestConformance(t *testing.T) {
	settings, err := Allow(nil)
	if err != nil {
		t.Fatal(err)
	}
	enginetest.Conformance(t, Plugin(settings))
}

func TestAFirstValueIsMadeAndHandedOver(t *testing.T) {
	s := newSource(t)
	h := enginetest.New(t, engineWith(nil), enginetest.PasswordPolicies(map[string]string{"digits": `length = 12 rule "charset" { charset = "0123456789" }`}))
	h.Data(conclave.Update, "entries/app", entryOf(s, fields{"password_policy": "digits", "rotation_period": "1h", "metadata": fields{"user": "admin"}, "send_current": true}))
	h.Fails(conclave.Read, "creds/app", nil, conclave.NotFound, "no value")
	want(t, "work done", runDue(t, h, 0), 1)
	got := creds(h)
	taken, version := s.password()
	want(t, "value", got["value"], taken)
	want(t, "version", got["version"], version)
	want(t, "metadata", got["metadata"], "map[user:admin]")
	want(t, "previous", got["previous"], nil)
	if len(taken) != 12 || strings.Trim(taken, "0123456789") != "" {
		t.Errorf("%q isn't by the password policy", taken)
	}
	want(t, "calls", s.modes(), "[rotate 1 verify 1]")
	want(t, "next", got["next_rotation"], h.Now().Add(time.Hour).UTC().Format(time.RFC3339Nano))
	if shown := h.Data(conclave.Read, "entries/app", nil); shown["webhook_key"] != nil || shown["webhook_url"] != s.URL+"/password" {
		t.Errorf("the entry shows %v", shown)
	}
	want(t, "names", h.Data(conclave.List, "entries/", nil)["keys"], "[app]")
	events := h.TakeEvents()
	if len(events) != 1 || events[0].Type != "rotate/rotate" || events[0].Path != "creds/app" || events[0].Metadata["version"] != "1" || events[0].Metadata["cause"] != "initial" {
		t.Errorf("events are %v", events)
	}
	h.Data(conclave.Delete, "entries/app", nil)
	if left := h.Stored(); len(left) > 0 || len(h.Woken()) > 0 {
		t.Errorf("a deleted entry leaves %v, %v", left, h.Woken())
	}
	h.Fails(conclave.Read, "creds/app", nil, conclave.NotFound, "")
}

func TestABroughtValueIsServedUntilItsFirstRotation(t *testing.T) {
	s := newSource(t)
	h := enginetest.New(t, engineWith(nil))
	h.Data(conclave.Update, "entries/app", entryOf(s, fields{"value": "what it has", "rotation_period": 3600, "send_current": true}))
	want(t, "value", creds(h)["value"], "what it has")
	want(t, "work done", runDue(t, h, time.Hour-time.Second), 0)
	want(t, "calls", s.modes(), "[]")
	want(t, "work done", runDue(t, h, time.Second), 1)
	want(t, "version", creds(h)["version"], 2)
	s.mu.Lock()
	want(t, "current that was sent", s.calls[0].Current+s.calls[1].Current, "what it has")
	s.mu.Unlock()
	h.Fails(conclave.Update, "entries/app", fields{"value": "another"}, conclave.Invalid, "new entries only")
}

func TestTheValueBeforeIsReadableForItsGracePeriod(t *testing.T) {
	s := newSource(t)
	h := mounted(t, s, fields{"grace_period": "10m", "rotation_period": "1h"})
	first := creds(h)["value"]
	runDue(t, h, time.Hour)
	got := creds(h)
	previous, _ := got["previous"].(map[string]any)
	if previous["value"] != first || got["value"] == first || row(previous["version"], got["version"]) != "1 2" {
		t.Fatalf("after a rotation: %v, the first value was %v", got, first)
	}
	h.Advance(10*time.Minute - time.Second)
	if creds(h)["previous"] == nil {
		t.Error("the value before is gone early")
	}
	h.Advance(time.Second)
	want(t, "previous", creds(h)["previous"], nil) // before anybody has cleared it away
	runDue(t, h, 0)
	for path, value := range h.Stored() {
		if strings.Contains(string(value), first.(string)) {
			t.Errorf("%s still has the value", path)
		}
	}
}

func TestRotationsOnDemandSayWhoAndWhy(t *testing.T) {
	s := newSource(t)
	h := mounted(t, s, nil)
	got := h.Data(conclave.Update, "rotate/app", fields{"reason": "someone has left"})
	want(t, "version", got["version"], 2)
	want(t, "calls", s.modes(), "[rotate 2 verify 2]")
	taken, _ := s.password()
	want(t, "value", creds(h)["value"], taken)
	lines := h.Data(conclave.Read, "history/app", nil)["history"].([]any)
	if len(lines) != 2 {
		t.Fatalf("history is %v", lines)
	}
	top := lines[0].(map[string]any)
	want(t, "line", row(top["version"], top["what"], top["who"], top["entity_id"], top["reason"], top["failure"]), "2 request tester entity-1 someone has left <nil>")
	h.Fails(conclave.Update, "rotate/app", fields{"reason": "two\nlines"}, conclave.Invalid, "reason")
	h.Fails(conclave.Update, "rotate/none", nil, conclave.NotFound, "")
	for range 2 * maxHistory {
		h.Data(conclave.Update, "rotate/app", nil)
	}
	want(t, "lines", len(h.Data(conclave.Read, "history/app", nil)["history"].([]any)), maxHistory)
}

// TestAFailedVerificationKeepsTheOldValue: the source has the new value and denies it, or says yes without looking.
func TestAFailedVerificationKeepsTheOldValue(t *testing.T) {
	for _, lie := range []string{`{"verified":false}`, `{}`, `OK`, `{"verified":"true"}`, ""} {
		s := newSource(t)
		h := mounted(t, s, fields{"rotation_period": "1h"})
		before := creds(h)["value"]
		s.set(func(call *handover.Call) (int, string) {
			if call.Mode == handover.Verify {
				return 200, lie
			}
			return 0, ""
		})
		runDue(t, h, time.Hour)
		want(t, "value after "+lie, creds(h)["value"], before)
		st := status(h)
		want(t, "status", row(st["failures"], st["last_failure"], st["pending_version"]), "1 verification: the webhook does not say that the value is verified 2")
		events := h.TakeEvents()
		if len(events) != 1 || events[0].Type != "rotate/rotate-fail" {
			t.Errorf("events are %v", events)
		}
		// The same value is handed over again, not another.
		first, _ := s.password()
		s.set(nil)
		want(t, "work before its time", runDue(t, h, 9*time.Second), 0)
		runDue(t, h, time.Second)
		second, version := s.password()
		want(t, "value of the second attempt", second, first)
		want(t, "creds", row(creds(h)["value"], creds(h)["version"]), row(second, version))
		want(t, "failures", status(h)["failures"], 0)
	}
}

func TestSourcesThatRefuseChangeNothing(t *testing.T) {
	for name, answer := range map[string]func(*handover.Call) (int, string){
		"status 500":       func(*handover.Call) (int, string) { return 500, "secret details" },
		"status 302":       func(*handover.Call) (int, string) { return 302, "" },
		"longer than 4096": func(*handover.Call) (int, string) { return 200, strings.Repeat("x", handover.MaxAnswer+1) },
	} {
		s := newSource(t)
		h := mounted(t, s, nil)
		before := creds(h)["value"]
		s.set(answer)
		h.Data(conclave.Update, "rotate/app", nil) // the kit doesn't run Finish, which makes an error of it
		st := status(h)
		if text := fmt.Sprint(st["last_failure"]); !strings.Contains(text, name) || strings.Contains(text, "details") || strings.Contains(text, s.URL[8:]) {
			t.Errorf("%s: last failure is %q", name, text)
		}
		want(t, "value", creds(h)["value"], before)
	}
	s := newSource(t)
	h := mounted(t, s, nil)
	s.key = strings.Repeat("x", 32) // the source has another key
	h.Data(conclave.Update, "rotate/app", nil)
	want(t, "failure", status(h)["last_failure"], "hand-over: the webhook answers with status 401")
	want(t, "version", creds(h)["version"], 1)
	s.key = testKey
	runDue(t, h, time.Minute)
	want(t, "version", creds(h)["version"], 2)

	other := newSource(t) // a server whose certificate is another's
	h.Data(conclave.Update, "entries/app", fields{"webhook_url": strings.Replace(other.URL, "127.0.0.1", "localhost", 1)})
	h.Data(conclave.Update, "rotate/app", nil)
	want(t, "failure", status(h)["last_failure"], "hand-over: the webhook's certificate is not trusted")
	s.Close()
	h.Data(conclave.Update, "entries/app", fields{"webhook_url": s.URL})
	h.Data(conclave.Update, "rotate/app", nil)
	want(t, "failure", status(h)["last_failure"], "hand-over: the webhook can't be reached")
	want(t, "version", creds(h)["version"], 2)
}

// TestFailuresBackOff: attempts become rarer up to one in an hour, and the current value is never lost.
func TestFailuresBackOff(t *testing.T) {
	s := newSource(t)
	h := mounted(t, s, fields{"rotation_period": "1h"})
	s.set(func(*handover.Call) (int, string) { return 503, "" })
	runDue(t, h, time.Hour)
	last := h.Now()
	for n, pause := range []time.Duration{10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600, 3600} {
		next := h.Woken()["app"]
		want(t, fmt.Sprintf("pause %d", n), next.Sub(last), pause*time.Second)
		want(t, "work", runDue(t, h, next.Sub(h.Now())), 1)
		last = h.Now()
	}
	want(t, "status", row(status(h)["failures"], creds(h)["version"], status(h)["attempts"]), "13 1 13")
	want(t, "lines", len(h.Data(conclave.Read, "history/app", nil)["history"].([]any)), 2) // attempts at one value are one line
	s.set(nil)
	want(t, "rotated", h.Data(conclave.Update, "rotate/app", nil)["version"], 2)
	want(t, "next", h.Woken()["app"].Sub(h.Now()), time.Hour)
}

func TestAttemptsEndWithTheWindow(t *testing.T) {
	s := newSource(t)
	h := mounted(t, s, fields{"rotation_schedule": "0 3 * * *", "rotation_window": "1h"})
	due, _ := time.Parse(time.RFC3339, fmt.Sprint(status(h)["next_rotation"]))
	if due.Hour() != 3 || due.Minute() != 0 || !due.After(h.Now()) {
		t.Fatalf("due at %v", due)
	}
	s.set(func(*handover.Call) (int, string) { return 503, "" })
	runDue(t, h, due.Sub(h.Now()))
	for h.Woken()["app"].Before(due.Add(time.Hour)) {
		runDue(t, h, h.Woken()["app"].Sub(h.Now()))
	}
	want(t, "next attempt", h.Woken()["app"].UTC(), due.AddDate(0, 0, 1).UTC())
	s.set(nil)
	runDue(t, h, h.Woken()["app"].Sub(h.Now()))
	want(t, "version", creds(h)["version"], 2)
	want(t, "next", h.Woken()["app"].UTC(), due.AddDate(0, 0, 2).UTC())
}

// TestAnEmergencyDropsTheValueBefore, and goes on through a pause.
func TestAnEmergencyDropsTheValueBefore(t *testing.T) {
	s := newSource(t)
	h := mounted(t, s, fields{"grace_period": "1h", "retire": true})
	h.Data(conclave.Update, "rotate/app", nil)
	first, second := creds(h)["previous"].(map[string]any)["value"].(string), creds(h)["value"].(string)
	h.Data(conclave.Update, "pause/app", fields{"reason": "holidays"})
	h.Fails(conclave.Update, "rotate/app", nil, conclave.Invalid, "paused")
	s.modes()
	want(t, "version", h.Data(conclave.Update, "emergency/app", fields{"reason": "leaked"})["version"], 3)
	want(t, "previous", creds(h)["previous"], nil)
	want(t, "calls", s.modes(), "[rotate 3 verify 3]")
	for range 2 {
		runDue(t, h, 0)
	}
	want(t, "calls", s.modes(), "[retire 1 retire 2]")
	for path, value := range h.Stored() {
		if strings.Contains(string(value), first) || strings.Contains(string(value), second) {
			t.Errorf("%s still has a value that was dropped", path)
		}
	}
	want(t, "paused", row(status(h)["paused"], status(h)["paused_by"], status(h)["paused_reason"]), "true tester holidays")

	// If the source is away, it goes on by itself, though the entry is paused.
	s.set(func(*handover.Call) (int, string) { return 503, "" })
	h.Data(conclave.Update, "emergency/app", nil)
	want(t, "version", creds(h)["version"], 3)
	s.set(nil)
	runDue(t, h, 10*time.Second)
	want(t, "version", creds(h)["version"], 4)
	want(t, "previous", creds(h)["previous"], nil)
}

func TestAPausedEntryRotatesWhenItIsResumed(t *testing.T) {
	s := newSource(t)
	h := mounted(t, s, fields{"rotation_period": "1h"})
	h.Data(conclave.Update, "pause/app", nil)
	h.Data(conclave.Update, "pause/app", nil)
	if woken := h.Woken(); len(woken) > 0 {
		t.Errorf("a paused entry is woken: %v", woken)
	}
	h.Advance(5 * time.Hour)
	h.Data(conclave.Update, "resume/app", nil)
	runDue(t, h, 0)
	want(t, "version", creds(h)["version"], 2)
	want(t, "next", h.Woken()["app"].Sub(h.Now()), time.Hour)
	var types []string
	for _, event := range h.TakeEvents() {
		types = append(types, event.Type)
	}
	want(t, "events", types, "[rotate/pause rotate/resume rotate/rotate]")
}

// TestACrashHandsTheSameValueOverAgain, wherever it happens.
func TestACrashHandsTheSameValueOverAgain(t *testing.T) {
	for name, crash := range map[string]func(h *enginetest.Harness) error{
		"after what is intended was written": func(h *enginetest.Harness) error {
			return h.Interrupt(enginetest.AfterIntend, conclave.Update, "rotate/app", nil)
		},
		"between hand-over and result": func(h *enginetest.Harness) error {
			return h.Interrupt(enginetest.AfterPrepare, conclave.Update, "rotate/app", nil)
		},
		"of the leader between hand-over and result": func(h *enginetest.Harness) error {
			h.Advance(time.Hour)
			return h.LoseWork("app")
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSource(t)
			h := mounted(t, s, fields{"rotation_period": "1h"})
			before := creds(h)["value"]
			if err := crash(h); err != nil {
				t.Fatal(err)
			}
			handed, version := s.password()
			want(t, "current", creds(h)["value"], before)
			h.Fails(conclave.Update, "rotate/app", nil, conclave.Unavailable, "under way")
			h.Fails(conclave.Update, "emergency/app", nil, conclave.Unavailable, "under way")
			want(t, "under way", status(h)["under_way"], true)
			runDue(t, h, 0)
			want(t, "current", creds(h)["value"], before)
			runDue(t, h, time.Minute)
			taken, now := s.password()
			if version == 2 && taken != handed {
				t.Errorf("%q was handed over, and then %q", handed, taken)
			}
			want(t, "creds", row(creds(h)["value"], creds(h)["version"]), row(taken, now))
			want(t, "version", now, 2)
			want(t, "under way", status(h)["under_way"], false)
		})
	}
}

// TestASourceThatCannotRetireHoldsUpNothing: rotations go on, and the value is ended later, or by nobody if that isn't wanted
// any more.
func TestASourceThatCannotRetireHoldsUpNothing(t *testing.T) {
	s := newSource(t)
	h := mounted(t, s, fields{"retire": true, "rotation_period": "2h"})
	s.set(func(call *handover.Call) (int, string) {
		if call.Mode == handover.Retire {
			return 500, ""
		}
		return 0, ""
	})
	runDue(t, h, 2*time.Hour)
	runDue(t, h, 0)
	want(t, "calls", s.modes(), "[rotate 2 verify 2 retire 1]")
	st := status(h)
	want(t, "status", row(st["version"], st["failures"], st["last_failure"], st["retiring"]), "2 1 retire: the webhook answers with status 500 1")
	for creds(h)["version"] == json.Number("2") {
		runDue(t, h, h.Woken()["app"].Sub(h.Now()))
	}
	want(t, "version", row(creds(h)["version"], status(h)["retiring"]), "3 2")
	s.set(nil)
	s.modes()
	for status(h)["retiring"] != nil {
		runDue(t, h, h.Woken()["app"].Sub(h.Now()))
	}
	want(t, "calls", s.modes(), "[retire 1 retire 2]")
	want(t, "failures", status(h)["failures"], 0)
	s.set(func(*handover.Call) (int, string) { return 500, "" })
	h.Data(conclave.Update, "rotate/app", nil)
	h.Data(conclave.Update, "entries/app", fields{"retire": false})
	want(t, "retiring", status(h)["retiring"], nil)
}

func TestARefusedValueCanBeReplaced(t *testing.T) {
	s := newSource(t)
	h := mounted(t, s, nil)
	s.set(func(call *handover.Call) (int, string) {
		if call.Version == 2 {
			return 400, ""
		}
		return 0, ""
	})
	h.Data(conclave.Update, "rotate/app", nil)
	h.Data(conclave.Update, "rotate/app", nil)
	want(t, "version", creds(h)["version"], 1)
	want(t, "version", h.Data(conclave.Update, "rotate/app", fields{"new_value": true})["version"], 3)
	want(t, "calls", s.modes(), "[rotate 2 rotate 2 rotate 3 verify 3]")
}

// TestAValueThatWasGivenUpIsRetired, since its source may have taken it, but not before another one works.
func TestAValueThatWasGivenUpIsRetired(t *testing.T) {
	s := newSource(t)
	h := mounted(t, s, fields{"retire": true, "grace_period": "1h"})
	s.set(func(call *handover.Call) (int, string) {
		if call.Mode == handover.Verify && call.Version < 4 {
			return 500, ""
		}
		return 0, ""
	})
	for range 2 {
		h.Data(conclave.Update, "rotate/app", fields{"new_value": true})
	}
	want(t, "calls", s.modes(), "[rotate 2 verify 2 rotate 3 verify 3]")
	want(t, "retiring", status(h)["retiring"], nil)
	want(t, "version", h.Data(conclave.Update, "rotate/app", fields{"new_value": true})["version"], 4)
	for range 2 {
		runDue(t, h, 0)
	}
	want(t, "calls", s.modes(), "[rotate 4 verify 4 retire 2 retire 3]")
	want(t, "previous", creds(h)["previous"].(map[string]any)["version"], 1)
}

// TestAnEmergencyStaysOne whoever asks for the next attempt.
func TestAnEmergencyStaysOne(t *testing.T) {
	for _, more := range []fields{nil, {"new_value": true}} {
		s := newSource(t)
		h := mounted(t, s, fields{"grace_period": "1h"})
		s.set(func(*handover.Call) (int, string) { return 500, "" })
		h.Data(conclave.Update, "emergency/app", nil)
		s.set(nil)
		h.Data(conclave.Update, "rotate/app", more)
		if got := creds(h); got["version"] == json.Number("1") || got["previous"] != nil {
			t.Errorf("after an emergency and a rotation: %v", got)
		}
	}
}

func TestAMissingPasswordPolicyShows(t *testing.T) {
	s := newSource(t)
	h := enginetest.New(t, engineWith(nil), enginetest.PasswordPolicies(map[string]string{"p": `length = 8 rule "charset" { charset = "ab" }`}))
	h.Fails(conclave.Update, "entries/app", entryOf(s, fields{"password_policy": "q"}), conclave.Invalid, "no password policy")
	h.Data(conclave.Update, "entries/app", entryOf(s, fields{"password_policy": "p", "rotation_period": "1h", "value": "v"}))
	without := h.With(enginetest.PasswordPolicies(nil))
	runDue(t, without, time.Hour)
	want(t, "status", row(status(h)["last_failure"], status(h)["version"]), "there is no password policy of that name 1")
	without.Fails(conclave.Update, "rotate/app", nil, conclave.Invalid, "no password policy")
	runDue(t, h, time.Minute)
	want(t, "version", creds(h)["version"], 2)
}

func TestSettingsAreChecked(t *testing.T) {
	s := newSource(t)
	h := enginetest.New(t, engineWith(nil))
	for _, r := range []struct {
		more fields
		want string
	}{
		{fields{"webhook_url": strings.Replace(s.URL, "https", "http", 1)}, "https://"},
		{fields{"webhook_url": "https://user:pass@127.0.0.1/"}, "https://"},
		{fields{"webhook_url": "https://169.254.169.254/latest"}, "address"},
		{fields{"webhook_url": "https://[fe80::1]/"}, "address"},
		{fields{"webhook_url": "https://[::ffff:169.254.169.254]/"}, "address"},
		{fields{"webhook_url": "https://0.0.0.0/"}, "address"},
		{fields{"webhook_url": ""}, "exactly one"},
		{fields{"command": "/bin/true"}, "exactly one"},
		{fields{"webhook_key": "short"}, "key"},
		{fields{"webhook_ca_pem": "no PEM"}, "PEM"},
		{fields{"rotation_period": "30s"}, "rotation_period"},
		{fields{"rotation_period": "-1h"}, "rotation_period"},
		{fields{"rotation_schedule": "@daily"}, "cron"},
		{fields{"rotation_schedule": "0 0 * * *", "rotation_period": "1h"}, "both"},
		{fields{"rotation_window": "1h"}, "rotation_window"},
		{fields{"rotation_schedule": "0 0 * * *", "rotation_window": "1m"}, "rotation_window"},
		{fields{"timeout": "1m"}, "timeout"},
		{fields{"timeout": 0}, "timeout"},
		{fields{"grace_period": -1}, "grace_period"},
		{fields{"length": 3}, "length"},
		{fields{"length": 101}, "length"},
		{fields{"password_policy": "p", "length": 20}, "both"},
		{fields{"metadata": fields{"a": "b\nc"}}, "metadata"},
		{fields{"value": "a\x00b"}, "value"},
		{fields{"value": strings.Repeat("x", maxValue+1)}, "value"},
	} {
		h.Fails(conclave.Update, "entries/app", entryOf(s, r.more), conclave.Invalid, r.want)
	}
	h.Fails(conclave.Update, "entries/"+strings.Repeat("x", maxName+1), entryOf(s, nil), conclave.Invalid, "name")
	if stored := h.Stored(); len(stored) > 0 {
		t.Errorf("stored: %v", stored)
	}
	h.Data(conclave.Update, "entries/app", entryOf(s, fields{"metadata": fields{"a": "b"}, "rotation_period": "1h"}))
	h.Data(conclave.Update, "entries/app", fields{"grace_period": "1h"})
	shown := h.Data(conclave.Read, "entries/app", nil)
	want(t, "settings", row(shown["grace_period"], shown["rotation_period"], shown["metadata"], shown["verify"]), "3600 3600 map[a:b] true")
}

// program writes a shell script into a directory that only we can write to, and returns its path.
func program(t *testing.T, dir, name, script string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCommandsOfAllowedDirectoriesTakeValues(t *testing.T) {
	dir := t.TempDir()
	kept := filepath.Join(t.TempDir(), "kept")
	path := program(t, dir, "set", `[ "$1" = --strict ] && exec cat > `+kept)
	programs, err := handover.NewPrograms([]string{dir})
	if err != nil {
		t.Fatal(err)
	}
	h := enginetest.New(t, engineWith(programs))
	h.Data(conclave.Update, "entries/app", fields{"command": path, "arguments": []string{"--strict"}, "rotation_period": "1h"})
	runDue(t, h, 0)
	text, err := os.ReadFile(kept)
	var call handover.Call
	if err != nil || json.Unmarshal(text, &call) != nil {
		t.Fatalf("the command got %q, %v; status %v", text, err, status(h))
	}
	want(t, "call", row(call.Mode, call.Value, call.Mount, call.Entry, call.Version), row("verify", creds(h)["value"], "test/", "app", 1))
	// On a node that doesn't allow it, nothing happens, and what doesn't touch the command can still be changed.
	elsewhere := h.Reopen(engineWith(nil))
	elsewhere.Data(conclave.Update, "entries/app", fields{"grace_period": 60})
	elsewhere.Fails(conclave.Update, "entries/app", fields{"arguments": []string{"other"}}, conclave.Invalid, "rotate.command_directories")
	elsewhere.Data(conclave.Update, "rotate/app", nil)
	want(t, "version", creds(h)["version"], 1)
	if text := fmt.Sprint(status(h)["last_failure"]); !strings.Contains(text, "none of the directories") {
		t.Errorf("last failure is %q", text)
	}
}
