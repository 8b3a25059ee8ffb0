package store

import (
	"testing"

	"conclave"
	"conclave/fsm"
)

// TestPasswordPoliciesAreThoseOfTheMountsNamespace and what was read of one is judged.
func TestPasswordPoliciesAreThoseOfTheMountsNamespace(t *testing.T) {
	w := newWorld(t)
	var team, inTeam, inRoot conclave.Space
	w.update(t, func(v *View) {
		for _, space := range []*conclave.Space{&team, &inTeam, &inRoot} {
			made, err := v.CreateSpace()
			if err != nil {
				t.Fatal(err)
			}
			*space = made
		}
		put(t, v, "password-policy/p", `{"policy":"of the root"}`)
		put(t, v, "password-policy/root-only", `{"policy":"of the root"}`)
	})
	within := func(tx *Tx) (root, below *View) {
		system, err := tx.Space(team, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		if root, err = tx.System().Mounted(inRoot, "", &conclave.Mount{}); err != nil {
			t.Fatal(err)
		}
		if below, err = system.Mounted(inTeam, "a/", nil); err != nil {
			t.Fatal(err)
		}
		return root, below.WithMount(&conclave.Mount{})
	}
	w.update(t, func(v *View) {
		system, err := v.tx.Space(team, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		put(t, system, "password-policy/p", `{"policy":"of the team"}`)
		_, below := within(v.tx)
		put(t, below, "password-policy/p", `{"policy":"of the mount itself"}`)
	})
	check := func(v *View, name, want string) {
		t.Helper()
		if got, err := v.PasswordPolicy(name); got != want || err != nil {
			t.Errorf("PasswordPolicy(%q) = %q, %v, want %q", name, got, err, want)
		}
	}
	tx := w.begin(t)
	root, below := within(tx)
	check(root, "p", "of the root")
	check(below, "p", "of the team")
	check(below, "root-only", "")
	check(below, "../p", "")
	check(tx.System(), "p", "of the root")

	for _, name := range []string{"p", "absent"} {
		tx := w.begin(t)
		root, _ := within(tx)
		if _, err := root.PasswordPolicy(name); err != nil {
			t.Fatal(err)
		}
		put(t, root, "made/by/"+name, "x")
		w.update(t, func(v *View) { put(t, v, "password-policy/"+name, `{"policy":"another"}`) })
		if _, err := tx.Commit(t.Context(), fsm.AuditRecord{}); !conflicts(err) {
			t.Errorf("a transaction that read the policy %s, which has changed: %v, want a conflict", name, err)
		}
	}
}
