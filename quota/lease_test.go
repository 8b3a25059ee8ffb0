package quota

import (
	"errors"
	"testing"

	"conclave"
	"conclave/engine/enginetest"
)

// space is a namespace's system space beside the root's, within the open transaction of m.
func space(t *testing.T, m *enginetest.Memory, s conclave.Space) conclave.Tx {
	t.Helper()
	tx, err := m.Open(s)
	if err != nil {
		t.Fatal(err)
	}
	return tx
}

func TestLeasesAreCountedAndGivenBack(t *testing.T) {
	m := enginetest.NewMemory(t)
	team, err := m.CreateSpace()
	if err != nil {
		t.Fatal(err)
	}
	rules := record{Leases: []*LeaseRule{{Place: Place{Inheritable: true}, Name: "all", Max: 3, ID: "a"},
		{Place: Place{Mount: "auth/approle/", Role: "web"}, Name: "web", Max: 1, ID: "w"}}}
	set := func() error {
		return errors.Join(rules.store(m), m.SetCell(countersDir+"a", 3, true), m.SetCell(countersDir+"w", 1, true))
	}
	if err := m.End(set()); err != nil {
		t.Fatal(err)
	}
	root := conclave.Namespace{ID: conclave.RootNamespace}
	inTeam := Lease{Namespace: conclave.Namespace{ID: "t", Path: "team/"}, Mount: "db/", Path: "db/creds/x"}
	login := Lease{Namespace: root, Mount: "auth/approle/", Path: "auth/approle/login", Role: "web"}
	take := func(lease Lease) (counted string, err error) {
		local := conclave.Tx(m)
		if !lease.Namespace.IsRoot() {
			local = space(t, m, team)
		}
		counted, err = TakeLease(m, local, lease)
		return counted, m.End(err)
	}
	want := func(lease Lease, counted string, kind error) {
		t.Helper()
		if got, err := take(lease); !errors.Is(err, kind) || err == nil && got != counted {
			t.Errorf("TakeLease(%v) = %q, %v, want %q, %v", lease, got, err, counted, kind)
		}
	}
	want(login, "w", nil)
	want(login, "", ErrLeases)
	want(Lease{Namespace: root, Mount: "db/", Path: "db/creds/x"}, "a", nil)
	want(inTeam, "a", nil)
	want(inTeam, "a", nil)
	want(inTeam, "", ErrLeases)
	if err := LeasesLeft(m, inTeam); err != ErrLeases {
		t.Errorf("LeasesLeft = %v, want ErrLeases", err)
	}
	if err := m.End(GiveBack(m, space(t, m, team), "a")); err != nil {
		t.Fatal(err)
	}
	if err := LeasesLeft(m, inTeam); err != nil {
		t.Errorf("LeasesLeft after one was given back: %v", err)
	}
	if err := m.End(ForgetNamespace(m, space(t, m, team))); err != nil {
		t.Fatal(err)
	}
	if left := m.Cells()[countersDir+"a"]; left != 2 {
		t.Errorf("%d places are left when the namespace is gone, want 2", left)
	}
	for _, counted := range []string{"", "gone"} {
		if err := m.End(GiveBack(m, m, counted)); err != nil {
			t.Errorf("GiveBack(%q): %v", counted, err)
		}
	}
}

func TestCountThatIsGoneLeavesNothing(t *testing.T) {
	m := enginetest.NewMemory(t)
	team, err := m.CreateSpace()
	if err != nil {
		t.Fatal(err)
	}
	rules := record{Leases: []*LeaseRule{{Place: Place{Inheritable: true}, Name: "all", Max: 3, ID: "a"}}}
	if err := m.End(errors.Join(rules.store(m), m.SetCell(countersDir+"a", 3, true))); err != nil {
		t.Fatal(err)
	}
	lease := Lease{Namespace: conclave.Namespace{ID: "t", Path: "team/"}, Mount: "db/", Path: "db/creds/x"}
	for range 2 {
		if _, err := TakeLease(m, space(t, m, team), lease); m.End(err) != nil {
			t.Fatal(err)
		}
	}
	if err := m.End(errors.Join(record{}.store(m), m.SetCell(countersDir+"a", 0, false))); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := m.End(GiveBack(m, space(t, m, team), "a")); err != nil {
			t.Fatal(err)
		}
	}
	local := space(t, m, team)
	if known, err := local.Get(knownDir + "a"); err != nil || known != nil {
		t.Errorf("the namespace still knows the count: %v, %v", known, err)
	}
	if _, there, err := local.Cell(hereDir + "a"); err != nil || there {
		t.Errorf("the namespace still counts: %v, %v", there, err)
	}
}
