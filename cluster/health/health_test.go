package health

import (
	"testing"
	"time"

	"conclave/cluster/roster"
	"conclave/cluster/wire"
)

func TestReportsSayHowFarBehindANodeWas(t *testing.T) {
	h := New(func() time.Duration { return time.Minute })
	const applied, lacks = 10_000, 64
	const committed = applied + 1
	h.Note("near", &wire.Beat{Applied: applied - lacks, LastIndex: committed - lacks}, applied, committed)
	h.Note("far", &wire.Beat{Applied: applied - lacks - 1, LastIndex: committed - lacks - 1}, applied, committed)
	h.Note("ahead", &wire.Beat{Applied: applied + 1, LastIndex: committed + 1}, applied, committed)
	for id, want := range map[string]uint64{"near": lacks, "far": lacks + 1, "ahead": 0} {
		if r, fresh := h.Of(id); !fresh || r.Behind != want || r.Lag != want {
			t.Errorf("%s is %d entries behind and lacks %d, fresh: %v, want %d", id, r.Behind, r.Lag, fresh, want)
		}
	}
}

func TestRoomIsAnnounced(t *testing.T) {
	h := New(func() time.Duration { return time.Minute })
	h.NoRoom("stranger")
	h.Note("a", &wire.Beat{}, 0, 0)
	room := h.NoRoom("a")
	if r, _ := h.Of("a"); !r.Full {
		t.Error("a node that can't store an entry doesn't count as full")
	}
	h.Note("b", &wire.Beat{}, 0, 0)
	h.Note("a", &wire.Beat{Full: true}, 0, 0)
	select {
	case <-room:
		t.Error("room was announced while the node was full")
	default:
	}
	h.Note("a", &wire.Beat{}, 0, 0)
	select {
	case <-room:
	default:
		t.Error("room was not announced")
	}
}

func TestReportsAgeAndAreForgotten(t *testing.T) {
	now := time.Minute
	h := New(func() time.Duration { return now })
	if _, fresh := h.Of("a"); fresh {
		t.Error("a report that never came is fresh")
	}
	h.Note("a", &wire.Beat{Full: true, Version: "1"}, 0, 0)
	h.Note("b", &wire.Beat{}, 0, 0)
	if r, fresh := h.Of("a"); !fresh || !r.Full || r.Version != "1" || r.Heard != now {
		t.Errorf("a said %+v, fresh: %v", r, fresh)
	}
	now += staleAfter
	if _, fresh := h.Of("a"); fresh {
		t.Errorf("a report is fresh after %v", staleAfter)
	}
	h.Keep(&roster.List{Members: []roster.Member{{NodeID: "a"}}})
	if r, _ := h.Of("b"); r.Heard != 0 {
		t.Error("a node that isn't a member is remembered")
	}
	if r, _ := h.Of("a"); r.Heard == 0 {
		t.Error("a member is forgotten")
	}
}
