package gap

import (
	"fmt"
	"testing"
	"time"
)

func TestGapOfAnEarlierProcessIsAdded(t *testing.T) {
	at := time.Unix(1_800_000_000, 0)
	g := New(func() time.Time { return at })
	g.Note(Sealed)
	g.Add(Gap{From: at.Add(-time.Hour), To: at.Add(-time.Minute), Counts: map[string]uint64{"sealed": 4, "made up": 9}})
	open := g.Open()
	if !open.From.Equal(at.Add(-time.Hour)) || !open.To.Equal(at) || len(open.Counts) != 1 || open.Counts["sealed"] != 5 {
		t.Errorf("open = %+v", open)
	}
}

func TestGapGolden(t *testing.T) {
	const stored = `{"from":"2027-01-15T08:00:00Z","to":"2027-01-15T08:01:00Z","counts":{"malformed":1,"sealed":3}}` + "\n"
	g, err := Decode([]byte(stored))
	if err != nil {
		t.Fatal(err)
	}
	if again := Encode(g); string(again) != stored {
		t.Errorf("decoded and encoded again: %s, want %s", again, stored)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"from":"2027-01-15T08:00:00Z","to":"2027-01-15T08:01:00Z","counts":{"sealed":18446744073709551615}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		g, err := Decode(b)
		if err != nil {
			return
		}
		if len(g.Counts) > int(classes) {
			t.Fatalf("%d classes", len(g.Counts))
		}
		if len(g.Counts) == 0 {
			return
		}
		if again, err := Decode(Encode(g)); err != nil || fmt.Sprint(again.Counts) != fmt.Sprint(g.Counts) {
			t.Fatalf("decoded and encoded again: %+v, %v, want %+v", again, err, g)
		}
	})
}
