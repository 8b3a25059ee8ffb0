package flood

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"conclave"
)

func TestTokenThatIsNoLongerGoodIsForgotten(t *testing.T) {
	f := New(func() time.Time { return time.Unix(0, 0) })
	req := &conclave.Request{Token: conclave.NewSecret("t")}
	f.Judge(req, true, false)
	for range AddressBurst {
		f.Judge(req, false, true)
	}
	if f.Refuse(req) == nil {
		t.Error("a revoked token passes")
	}
}

func TestFloodFromEverywhereIsBounded(t *testing.T) {
	now := time.Unix(0, 0)
	f := New(func() time.Time { return now })
	for i := range 3 * maxFlooders {
		f.fail(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), conclave.Secret{})
		f.Judge(&conclave.Request{Token: conclave.NewSecret(fmt.Sprint(i))}, true, false)
	}
	if len(f.failing) > maxFlooders || len(f.proved)+len(f.previous) > 2*maxProved {
		t.Errorf("%d addresses and %d tokens are kept", len(f.failing), len(f.proved)+len(f.previous))
	}
	if f.Refuse(&conclave.Request{Remote: netip.MustParseAddrPort("192.0.2.1:1")}) == nil {
		t.Error("failures of all together have no limit")
	}
}

func BenchmarkFlood(b *testing.B) {
	f := New(time.Now)
	req := &conclave.Request{Token: conclave.NewSecret("hvs.0123456789abcdef0123456789abcdef"), Remote: netip.MustParseAddrPort("192.0.2.1:1")}
	b.ReportAllocs()
	for b.Loop() {
		if f.Refuse(req) != nil {
			b.Fatal("refused")
		}
		f.Judge(req, true, false)
	}
}

// A token that was good is let in through a flood from its own address, until it fails itself.
func TestGoodTokensGetThrough(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	g := New(func() time.Time { return now })
	from := netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), 1)
	good := &conclave.Request{Remote: from, Token: conclave.NewSecret("good")}
	g.Judge(good, true, false)
	for range AddressBurst + 1 {
		g.Judge(&conclave.Request{Remote: from}, false, true)
	}
	if err := g.Refuse(&conclave.Request{Remote: from}); !conclave.Is(err, conclave.Limited) {
		t.Fatalf("a flood isn't refused: %v", err)
	}
	if err := g.Refuse(good); err != nil {
		t.Errorf("a good token: %v", err)
	}
	g.Judge(good, false, true)
	if err := g.Refuse(good); !conclave.Is(err, conclave.Limited) {
		t.Errorf("a token that isn't good any more: %v", err)
	}
	now = now.Add(AddressBurst * time.Second)
	if err := g.Refuse(&conclave.Request{Remote: from}); err != nil {
		t.Errorf("after a while: %v", err)
	}
}
