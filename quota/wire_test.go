package quota

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"testing"
	"time"

	"conclave"
)

const (
	goldenAsk    = `{"seat":7,"items":[{"rule":"a@1","client":"192.0.2.1","rate":2,"burst":10,"block":5,"used":1.5,"back":3,"need":4,"ahead":5}]}`
	goldenAnswer = `{"seat":7,"grants":[{"tokens":4,"left":6,"wait":9}]}`
)

func TestNodesOfOtherVersionsUnderstandEachOther(t *testing.T) {
	asked, err := decodeAsk([]byte(goldenAsk))
	if err != nil {
		t.Fatal(err)
	}
	if text, err := json.Marshal(asked); err != nil || string(text) != goldenAsk {
		t.Errorf("an ask is written as %s, %v", text, err)
	}
	answered, err := decodeAnswer([]byte(goldenAnswer), 1)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := json.Marshal(answered); err != nil || string(text) != goldenAnswer {
		t.Errorf("an answer is written as %s, %v", text, err)
	}
	if _, err := decodeAnswer([]byte(goldenAnswer), 2); !conclave.Is(err, conclave.Invalid) {
		t.Errorf("an answer to another ask: %v, want Invalid", err)
	}
}

func TestLedgerAnswersOnlyWhileItsNodeLeads(t *testing.T) {
	l := NewLedger(time.Now, rand.Reader)
	if _, err := l.Answer([]byte(goldenAsk)); !conclave.Is(err, conclave.Unavailable) {
		t.Errorf("a ledger of a follower: %v, want Unavailable", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := l.Lead(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Answer([]byte(goldenAsk)); !conclave.Is(err, conclave.Unavailable) {
		t.Errorf("a ledger of a former leader: %v, want Unavailable", err)
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte(goldenAsk))
	f.Add([]byte(`{"seat":7,"items":[{"rule":"a","rate":1e-300,"burst":1,"need":1073741824,"back":1073741824,"used":1e300}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		now := time.Unix(1000, 0)
		l := NewLedger(func() time.Time { return now }, rand.Reader)
		l.seat, l.buckets = 7, map[bucketKey]*bucket{}
		for range 2 {
			now = now.Add(time.Second)
			reply, err := l.Answer(body)
			if err != nil {
				if !conclave.Is(err, conclave.Invalid) {
					t.Errorf("Answer: %v, want Invalid", err)
				}
				return
			}
			asked, _ := decodeAsk(body)
			items := len(asked.Items)
			if asked.Seat != 7 {
				items = 0
			}
			if _, err := decodeAnswer(reply, items); err != nil {
				t.Errorf("the answer %s can't be read: %v", reply, err)
			}
		}
		for key, b := range l.buckets {
			if !(b.level >= -1e-5 && b.level <= b.burst) {
				t.Errorf("bucket %v holds %v of %v", key, b.level, b.burst)
			}
		}
	})
}
