package seal

import (
	"context"
	"testing"
	"time"

	"conclave"
	"conclave/cluster"
	"conclave/crypto"
)

// pair is a cluster in which n1 is under test and n2 answers calls as the test says.
type pair struct {
	*solo
	public []byte // n2's
	answer func(method string) error
}

func (p *pair) Members() []cluster.Member {
	return []cluster.Member{p.Self(), p.other()}
}

func (p *pair) other() cluster.Member { return cluster.Member{NodeID: "n2", HPKEPublic: p.public} }

func (p *pair) Call(_ context.Context, _, method string, _ []byte) ([]byte, error) {
	return nil, p.answer(method)
}

// lent is how many shares n1 lends n2.
func (p *pair) lent(t *testing.T, v *Vault, private []byte) int {
	t.Helper()
	sealed, err := v.lendShares(t.Context(), p.other(), nil)
	if err != nil {
		t.Fatal(err)
	}
	reader := &Vault{Config: Config{HPKEPrivate: private, Node: named{p, "n2"}}}
	m, err := reader.unsealFrom(sealed)
	if err != nil {
		t.Fatal(err)
	}
	return len(m.Shares)
}

// named is a node by another name.
type named struct {
	Node
	id string
}

func (n named) Self() cluster.Member { return cluster.Member{NodeID: n.id} }

// A member that lags when the last share is passed on opens as well: the others keep the shares for it, and for it alone.
func TestMemberThatMissedTheSharesGetsThemLater(t *testing.T) {
	v, node := newVault(t)
	private, public, err := crypto.GenerateHPKE()
	if err != nil {
		t.Fatal(err)
	}
	p := &pair{solo: node, public: public, answer: func(string) error { return conclave.Errorf(conclave.Unavailable, "behind") }}
	v.Node = p
	shares := initVault(t, v, 3, 2)
	for _, share := range shares[:2] {
		if _, err := v.Submit(t.Context(), share); err != nil {
			t.Fatal(err)
		}
	}
	if v.Sealed() {
		t.Fatal("n1 isn't open")
	}
	if got := p.lent(t, v, private); got != 2 {
		t.Fatalf("n2 is lent %d shares, want 2", got)
	}
	if _, err := v.receiveOpened(t.Context(), p.other(), nil); err != nil {
		t.Fatal(err)
	}
	if got := p.lent(t, v, private); got != 0 {
		t.Errorf("n2 is lent %d shares after it has opened, want 0", got)
	}
}

// A node that opens by what it has fetched from a member, while it passes the last share on, keeps what the others lack.
func TestSharesAreKeptForAMemberThatMissesThemWhileThisNodeOpens(t *testing.T) {
	v, node := newVault(t)
	private, public, err := crypto.GenerateHPKE()
	if err != nil {
		t.Fatal(err)
	}
	p := &pair{solo: node, public: public, answer: func(string) error { return nil }}
	v.Node = p
	shares := initVault(t, v, 3, 2)
	if _, err := v.Submit(t.Context(), shares[0]); err != nil {
		t.Fatal(err)
	}
	p.answer = func(string) error {
		if err := v.adopt(t.Context(), shareMessage{Shares: [][]byte{append([]byte(nil), shares[1]...)}}); err != nil || v.Sealed() {
			t.Errorf("opening with the shares that are here: sealed %t, %v", v.Sealed(), err)
		}
		return conclave.Errorf(conclave.Unavailable, "behind")
	}
	if _, err := v.Submit(t.Context(), shares[1]); err != nil {
		t.Fatal(err)
	}
	if got := p.lent(t, v, private); got != 2 {
		t.Errorf("n2 is lent %d shares, want 2", got)
	}
	p.answer = func(string) error { return nil }
	if _, err := v.Submit(t.Context(), shares[2]); err != nil || len(v.shares) != 0 {
		t.Errorf("%d shares are kept although all have them: %v", len(v.shares), err)
	}
}

func TestOpenNodeKeepsNoSharesThatAllHave(t *testing.T) {
	v, node := newVault(t)
	private, public, err := crypto.GenerateHPKE()
	if err != nil {
		t.Fatal(err)
	}
	p := &pair{solo: node, public: public, answer: func(string) error { return nil }}
	v.Node = p
	for _, share := range initVault(t, v, 3, 2)[:2] {
		if _, err := v.Submit(t.Context(), share); err != nil {
			t.Fatal(err)
		}
	}
	if got := p.lent(t, v, private); v.Sealed() || got != 0 || len(v.shares) != 0 {
		t.Errorf("sealed %t, %d shares are lent and %d kept, want none", v.Sealed(), got, len(v.shares))
	}
}

func TestOwedSharesAreForgottenInTime(t *testing.T) {
	v, node := newVault(t)
	private, public, err := crypto.GenerateHPKE()
	if err != nil {
		t.Fatal(err)
	}
	p := &pair{solo: node, public: public, answer: func(string) error { return conclave.Errorf(conclave.Unavailable, "away") }}
	v.Node = p
	if _, err := v.Submit(t.Context(), initVault(t, v, 1, 1)[0]); err != nil {
		t.Fatal(err)
	}
	node.mu.Lock()
	node.now = node.now.Add(shareLife + time.Second)
	node.mu.Unlock()
	if got := p.lent(t, v, private); got != 0 {
		t.Errorf("%d shares are lent after their time, want 0", got)
	}
}

// A node that doesn't know of the initialisation yet says so, so that the shares are kept for it.
func TestSharesThatComeTooEarlyAreRefused(t *testing.T) {
	v, _ := newVault(t)
	if err := v.adopt(t.Context(), shareMessage{Shares: [][]byte{make([]byte, 33)}}); !conclave.Is(err, conclave.Unavailable) {
		t.Errorf("%v, want Unavailable", err)
	}
}
