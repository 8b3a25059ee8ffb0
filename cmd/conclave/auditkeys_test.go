package main

import (
	"crypto/rand"
	"strings"
	"testing"
	"time"

	"conclave"
	"conclave/crypto"
	"conclave/store"
)

func (v *vault) auditKeys() int {
	v.t.Helper()
	tx, err := v.store.Begin()
	if err != nil {
		v.t.Fatal(err)
	}
	defer tx.Close()
	return len(tx.Keyring().AuditData)
}

// Keys whose records were pruned go, and only they; what is left can be read.
func TestAuditKeysGoWithTheirRecords(t *testing.T) {
	v := openVault(t)
	drop := func(life time.Duration) {
		t.Helper()
		if err := v.internalTx(t.Context(), func(tx *store.Tx) error { return v.dropUnusedAuditKeys(t.Context(), tx, life) }); err != nil {
			t.Fatal(err)
		}
	}
	v.must(conclave.Update, "sys/rotate", nil)
	drop(-time.Hour)
	if n := v.auditKeys(); n != 2 {
		t.Fatalf("%d keys, want 2: nothing was pruned", n)
	}
	if err := v.prune("0", v.closeEpoch(), false); err != nil {
		t.Fatal(err)
	}
	drop(auditKeyLife)
	if n := v.auditKeys(); n != 2 {
		t.Errorf("%d keys, want 2: the old one has not been out of use for long", n)
	}
	drop(-time.Hour)
	if n := v.auditKeys(); n != 1 {
		t.Errorf("%d keys, want 1", n)
	}
	if out := v.must(conclave.Read, "sys/audit-verify", nil); out["ok"] != true {
		t.Errorf("verify: %v", out)
	}
}

func TestRotationSaysWhyThereAreTooManyAuditKeys(t *testing.T) {
	v := openVault(t)
	err := v.internalTx(t.Context(), func(tx *store.Tx) error {
		keyring := tx.Keyring().Clone()
		for len(keyring.AuditData) < crypto.MaxAuditKeys {
			if err := keyring.RotateAudit(rand.Reader); err != nil {
				return err
			}
		}
		return tx.PutKeyring(keyring)
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = v.do(v.root, conclave.Update, "sys/rotate", nil)
	if !conclave.Is(err, conclave.Invalid) || !strings.Contains(err.Error(), "1024 keys of audit records") || !strings.Contains(err.Error(), "prune") {
		t.Errorf("sys/rotate = %v, want that it names the limit and what to do", err)
	}
}
