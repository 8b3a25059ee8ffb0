package rotate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"conclave"
	"conclave/engine/enginetest"
	"conclave/engine/rotate/handover"
)

// world is a source in memory that fails at random, in each of the ways in which one can.
type world struct {
	t        *testing.T
	random   *rand.Rand
	calm     bool
	works    string          // the value that works
	newest   int             // the highest version that was taken
	values   map[int]string  // version → the value that came with it
	verified map[string]bool // values that were shown to work
	ended    map[string]bool // values that were retired
}

func (w *world) call(_ context.Context, _ *entry, _ time.Time, call *handover.Call) error {
	if known, again := w.values[call.Version]; again && known != call.Value {
		w.t.Errorf("version %d came with two values", call.Version)
	}
	w.values[call.Version] = call.Value
	lost, deaf := !w.calm && w.random.IntN(4) == 0, !w.calm && w.random.IntN(4) == 0
	if deaf {
		return &handover.Failure{Reason: "the source is away"}
	}
	switch call.Mode {
	case handover.Rotate:
		if call.Version < w.newest {
			w.t.Errorf("version %d came after %d", call.Version, w.newest)
		}
		w.works, w.newest = call.Value, call.Version
	case handover.Verify:
		if call.Value != w.works {
			w.t.Errorf("version %d is to be verified, and another value works", call.Version)
			return &handover.Failure{Reason: "that doesn't work"}
		}
		w.verified[call.Value] = true // though the answer may be lost
	case handover.Retire:
		if call.Value == w.works {
			w.t.Errorf("version %d works, and is to be retired", call.Version)
		}
		w.ended[call.Value] = true
	}
	if lost {
		return &handover.Failure{Reason: "the answer is lost"}
	}
	return nil
}

// TestRandomHistories runs rotations, emergencies, pauses and changes while the source fails and nodes die, and looks
// after each step at what must always hold, and at the end, when all is calm, that the vault and the source agree.
func TestRandomHistories(t *testing.T) {
	for seed := range uint64(60) {
		w := &world{t: t, random: rand.New(rand.NewPCG(seed, 7)), values: map[int]string{}, verified: map[string]bool{"brought": true}, ended: map[string]bool{}, works: "brought"}
		engine := newEngine(Settings{Random: rand.NewChaCha8([32]byte{byte(seed)})})
		engine.call = w.call
		h := enginetest.New(t, engine, enginetest.Fast())
		settings := fields{"webhook_url": "https://source.example", "webhook_key": testKey, "rotation_period": "10m"}
		for name, values := range map[string][]any{"grace_period": {0, 60, 3600}, "retire": {true, false}, "value": {"", "brought"}, "rotation_schedule": {"", "*/5 * * * *"}} {
			settings[name] = values[w.random.IntN(len(values))]
		}
		if settings["rotation_schedule"] != "" {
			settings["rotation_period"], settings["rotation_window"] = 0, 3600
		}
		h.Data(conclave.Update, "entries/app", settings)
		version := 0
		for range 60 {
			step(t, h, w.random)
			version = holds(t, h, w, version)
		}
		w.calm = true
		h.Data(conclave.Update, "resume/app", nil)
		for range 40 {
			woken := h.Woken()["app"]
			if woken.IsZero() {
				break
			}
			if _, err := h.RunDue(woken); err != nil {
				t.Fatal(err)
			}
			version = holds(t, h, w, version)
		}
		st := status(h)
		if got := creds(h)["value"]; got != w.works || st["failures"] != json.Number("0") || st["pending_version"] != nil {
			t.Errorf("at last the value is %v, and %q works; status %v", got, w.works, st)
		}
		if settings["retire"] == true && !w.ended[w.works] && st["retiring"] == nil {
			for number, value := range w.values {
				if st["previous_version"] != json.Number(fmt.Sprint(number)) && value != w.works && w.verified[value] && !w.ended[value] && number > version-maxRetiring {
					t.Errorf("version %d was never retired", number)
				}
			}
		}
		if t.Failed() {
			t.Fatalf("seed %d, settings %v", seed, settings)
		}
	}
}

// step does something at random. What it is told doesn't matter, but it must never be a defect.
func step(t *testing.T, h *enginetest.Harness, random *rand.Rand) {
	t.Helper()
	var err error
	switch random.IntN(13) {
	case 0:
		_, err = h.Do(conclave.Update, "rotate/app", nil)
	case 1:
		_, err = h.Do(conclave.Update, "rotate/app", fields{"new_value": true})
	case 2:
		_, err = h.Do(conclave.Update, "emergency/app", fields{"reason": "at random"})
	case 3:
		_, err = h.Do(conclave.Update, "pause/app", nil)
	case 4, 5:
		_, err = h.Do(conclave.Update, "resume/app", nil)
	case 6:
		err = h.Interrupt([]enginetest.Stage{enginetest.AfterIntend, enginetest.AfterPrepare}[random.IntN(2)], conclave.Update, []string{"rotate/app", "emergency/app"}[random.IntN(2)], nil)
	case 7:
		err = h.LoseWork("app")
	case 8:
		_, err = h.Do(conclave.Update, "entries/app", fields{"grace_period": random.IntN(1000)})
	case 9:
		h.Advance(time.Duration(random.IntN(300)) * time.Second) // and nobody does what is due
	default:
		at := h.Now().Add(time.Duration(random.IntN(300)) * time.Second)
		if woken := h.Woken()["app"]; !woken.IsZero() && random.IntN(2) == 0 {
			at = woken
		}
		_, err = h.RunDue(at)
	}
	if failure, ok := errors.AsType[*conclave.Error](err); err != nil && (!ok || failure.Kind == conclave.Internal) {
		t.Errorf("a defect: %v", err)
	}
}

// holds looks at what readers get: only what was shown to work, and never less than before. It returns the version.
func holds(t *testing.T, h *enginetest.Harness, w *world, version int) int {
	t.Helper()
	response, err := h.Do(conclave.Read, "creds/app", nil)
	if conclave.Is(err, conclave.NotFound) && version == 0 {
		return 0
	}
	if err != nil {
		t.Errorf("after version %d: %v", version, err)
		return version
	}
	out := response.Data.(*credsOut)
	if !w.verified[out.Value] || out.Version < version {
		t.Errorf("version %d is given after %d, verified: %v", out.Version, version, w.verified[out.Value])
	}
	if w.ended[out.Value] || out.Previous != nil && (w.ended[out.Previous.Value] || out.Previous.Version >= out.Version || !out.Previous.ValidUntil.After(h.Now())) {
		t.Errorf("creds are %+v, of which something has ended", out)
	}
	st, err := loadState(h.View(), "app")
	if err != nil || st.Pending == nil && !st.isPaused() && st.Claim == nil && h.Woken()["app"].IsZero() {
		t.Errorf("nothing will happen to %+v, %v", st, err)
	}
	return out.Version
}
