package pipeline

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"conclave"
	"conclave/flood"
	"conclave/gap"
)

func quiet() conclave.Route {
	return conclave.WriteRoute(conclave.Update, "probe", "Does nothing.",
		func(context.Context, conclave.Tx, *conclave.None) (*conclave.None, error) { return nil, nil })
}

// What is refused while nothing can commit is counted, and recorded once it can.
func TestUnrecordedAnswersBecomeAGapRecord(t *testing.T) {
	b := newBench(t, quiet())
	start := time.Unix(1_800_000_000, 0).UTC()
	now := start
	gaps := gap.New(func() time.Time { return now })
	b.pipeline.gaps = gaps
	if err := b.pipeline.gate.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := b.probe(t); !conclave.Is(err, conclave.Sealed) {
			t.Fatalf("a closed gate answers %v", err)
		}
	}
	now = start.Add(time.Minute)
	gaps.Note(gap.Malformed)
	b.pipeline.gate.Resume()
	if list := b.records(b.store); len(list) != 0 {
		t.Fatalf("records = %+v, want none yet", list)
	}

	b.fail.Store(true)
	if err := b.pipeline.recorder.RecordGap(t.Context(), b.store, gaps); err == nil {
		t.Fatal("a gap record without a quorum")
	}
	b.fail.Store(false)
	if err := b.pipeline.recorder.RecordGap(t.Context(), b.store, gaps); err != nil {
		t.Fatal(err)
	}
	if err := b.pipeline.recorder.RecordGap(t.Context(), b.store, gaps); err != nil {
		t.Fatal(err)
	}
	list := b.records(b.store)
	if len(list) != 1 || list[0].Request.Path != gapPath {
		t.Fatalf("records = %+v, want one of the gap", list)
	}
	want := "map[counts:map[malformed:1 sealed:3] from:2027-01-15T08:00:00Z to:2027-01-15T08:01:00Z]"
	if got := fmt.Sprint(list[0].Request.Data["unrecorded"]); got != want {
		t.Errorf("the gap record says %s, want %s", got, want)
	}
	if gaps.Recorded() != 1 || gaps.Total(gap.Sealed) != 3 || len(gaps.Open().Counts) != 0 {
		t.Errorf("%d gap records, %d sealed, open %+v", gaps.Recorded(), gaps.Total(gap.Sealed), gaps.Open())
	}
}

func TestRecordedAnswersAreNoGap(t *testing.T) {
	b := newBench(t, quiet())
	for _, token := range []conclave.Secret{b.root, conclave.NewSecret("wrong"), {}} {
		_, _ = b.pipeline.Handle(t.Context(), &conclave.Request{ID: "r", Operation: conclave.Update, Path: "sys/probe", Token: token})
	}
	if open := b.pipeline.gaps.Open(); len(open.Counts) != 0 || len(b.records(b.store)) != 3 {
		t.Errorf("%+v is unrecorded, and there are %d records", open, len(b.records(b.store)))
	}
}

func TestCommitThatFailsIsCounted(t *testing.T) {
	b := newBench(t, quiet())
	b.fail.Store(true)
	if _, err := b.probe(t); !conclave.Is(err, conclave.Unavailable) {
		t.Fatalf("without a quorum: %v", err)
	}
	if n := b.pipeline.gaps.Total(gap.Unavailable); n != 1 {
		t.Errorf("%d answers are counted as unavailable, want 1", n)
	}
}

// Who fails to log in too often is refused before another token of his is looked at; who is known is not.
func TestFloodIsRefusedUnread(t *testing.T) {
	b := newBench(t, quiet())
	now := time.Unix(1_800_000_000, 0)
	b.pipeline.flood = flood.New(func() time.Time { return now })
	from := func(address string, token conclave.Secret) error {
		_, err := b.pipeline.Handle(t.Context(), &conclave.Request{ID: "r", Operation: conclave.Update, Path: "sys/probe",
			Token: token, Remote: netip.AddrPortFrom(netip.MustParseAddr(address), 4711)})
		return err
	}
	wrong := conclave.NewSecret("wrong")
	if err := from("2001:db8::1", b.root); err != nil {
		t.Fatal(err)
	}
	for i := range flood.AddressBurst {
		if err := from(fmt.Sprintf("2001:db8::%x", i), wrong); !conclave.Is(err, conclave.Denied) {
			t.Fatalf("failure %d: %v", i, err)
		}
	}
	records := len(b.records(b.store))
	for _, token := range []conclave.Secret{wrong, {}, conclave.NewSecret("right, for all one knows")} {
		if err := from("2001:db8::1", token); !conclave.Is(err, conclave.Limited) {
			t.Errorf("after %d failures: %v, want a refusal", flood.AddressBurst, err)
		}
	}
	if len(b.records(b.store)) != records || b.pipeline.gaps.Total(gap.Flooded) != 3 {
		t.Errorf("%d records more, %d refusals are counted", len(b.records(b.store))-records, b.pipeline.gaps.Total(gap.Flooded))
	}
	if err := from("2001:db8::1", b.root); err != nil {
		t.Errorf("a token that was good is refused: %v", err)
	}
	if err := from("2001:db8:1::1", wrong); !conclave.Is(err, conclave.Denied) {
		t.Errorf("another network: %v", err)
	}
	now = now.Add(time.Second)
	if err := from("2001:db8::1", wrong); !conclave.Is(err, conclave.Denied) {
		t.Errorf("a second later: %v", err)
	}
}

// A login that fails counts whatever its error is.
func TestFailedLoginsCountAsFailures(t *testing.T) {
	b := newBench(t, conclave.WriteRoute(conclave.Update, "probe", "Logs in.",
		func(context.Context, conclave.Tx, *conclave.None) (*conclave.None, error) {
			return nil, conclave.Errorf(conclave.Invalid, "invalid role or secret id")
		}).With(conclave.Public))
	b.pipeline.flood = flood.New(func() time.Time { return time.Unix(0, 0) })
	login := func() error {
		_, err := b.pipeline.Handle(t.Context(), &conclave.Request{ID: "r", Operation: conclave.Update, Path: "sys/probe"})
		return err
	}
	for i := range flood.AddressBurst {
		if err := login(); !conclave.Is(err, conclave.Invalid) {
			t.Fatalf("login %d: %v", i, err)
		}
	}
	if err := login(); !conclave.Is(err, conclave.Limited) {
		t.Errorf("after %d failures: %v", flood.AddressBurst, err)
	}
}

// What anybody may do fills the log no faster than what fails.
func TestCeremoniesCountAsFailures(t *testing.T) {
	b := newBench(t, conclave.WriteRoute(conclave.Update, "probe", "Begins something.",
		func(context.Context, conclave.Tx, *conclave.None) (*conclave.None, error) { return nil, nil }).With(conclave.Public, conclave.OfCluster))
	b.pipeline.flood = flood.New(func() time.Time { return time.Unix(0, 0) })
	begin := func() error {
		_, err := b.pipeline.Handle(t.Context(), &conclave.Request{ID: "r", Operation: conclave.Update, Path: "sys/probe"})
		return err
	}
	for i := range flood.AddressBurst {
		if err := begin(); err != nil {
			t.Fatalf("attempt %d: %v", i, err)
		}
	}
	if err := begin(); !conclave.Is(err, conclave.Limited) {
		t.Errorf("after %d attempts: %v", flood.AddressBurst, err)
	}
}
