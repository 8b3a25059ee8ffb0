package main

import (
	"testing"

	"conclave"
)

func TestKeysOfSecondFactorsGoWithTheirEntities(t *testing.T) {
	v := openVault(t)
	method, _ := v.must(conclave.Update, "identity/mfa/method/totp", map[string]any{"issuer": "Inc", "qr_size": "0"})["method_id"].(string)
	var entities []string
	for _, name := range []string{"kept", "gone", "merged"} {
		id, _ := v.must(conclave.Update, "identity/entity", map[string]any{"name": name})["id"].(string)
		if out := v.must(conclave.Update, "identity/mfa/method/totp/admin-generate", map[string]any{"method_id": method, "entity_id": id}); out["url"] == "" {
			t.Fatalf("no key for %s", name)
		}
		entities = append(entities, id)
	}
	with := func() []string {
		tx, err := v.store.Begin()
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Close()
		names, err := tx.System().List("mfa/entity/", "", 0)
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	sweep := func() {
		var s factorSweep
		if err := v.inNamespace(t.Context(), conclave.Namespace{ID: conclave.RootNamespace}, s.clear); err != nil {
			t.Fatal(err)
		}
	}
	if sweep(); len(with()) != 3 {
		t.Fatalf("entities with keys: %v, want three", with())
	}
	v.must(conclave.Delete, "identity/entity/id/"+entities[1], nil)
	v.must(conclave.Update, "identity/entity/merge", map[string]any{"from_entity_ids": []any{entities[2]}, "to_entity_id": entities[0]})
	if sweep(); len(with()) != 1 || with()[0] != entities[0]+"/" {
		t.Errorf("entities with keys: %v, want that of %s alone", with(), entities[0])
	}
	v.must(conclave.Delete, "identity/mfa/method/totp/"+method, nil)
	if sweep(); len(with()) != 0 {
		t.Errorf("entities with keys of no method: %v", with())
	}
}
