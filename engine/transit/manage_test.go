package transit

import (
	"context"
	"encoding/base64"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"conclave"
	"conclave/engine/enginetest"
	"conclave/engine/transit/keys"
)

func TestAKeyIsShownAsVaultDoes(t *testing.T) {
	h := newTransit(t)
	got := h.Data(conclave.Update, "keys/k", nil)
	want := fields{"name": "k", "type": "aes256-gcm96", "derived": false, "deletion_allowed": false, "exportable": false, "allow_plaintext_backup": false, "imported_key": false,
		"soft_deleted": false, "supports_encryption": true, "supports_decryption": true, "supports_signing": false, "supports_derivation": true}
	for name, value := range want {
		if got[name] != value {
			t.Errorf("%s is %v, want %v", name, got[name], value)
		}
	}
	for name, value := range map[string]int64{"latest_version": 1, "min_decryption_version": 1, "min_encryption_version": 0, "min_available_version": 0, "auto_rotate_period": 0} {
		if number(t, got, name) != value {
			t.Errorf("%s is %v, want %d", name, got[name], value)
		}
	}
	if created := number(t, got["keys"].(fields), "1"); created != h.Now().Unix() {
		t.Errorf("created at %d, want %d", created, h.Now().Unix())
	}
	for kind, public := range map[keys.Type]string{keys.P256: "P-256", keys.P521: "P-521", keys.Ed25519: "ed25519", keys.RSA2048: "rsa-2048"} {
		create(h, string(kind), kind, nil)
		got := h.Data(conclave.Read, "keys/"+string(kind), nil)
		version := got["keys"].(fields)["1"].(fields)
		if version["name"] != public || text(t, version, "public_key") == "" || text(t, version, "creation_time") != "2026-01-02T03:04:05.678901234Z" {
			t.Errorf("%s: %v", kind, version)
		}
	}
	create(h, "mac", keys.HMACOnly, fields{"key_size": 64})
	if got := h.Data(conclave.Read, "keys/mac", nil); number(t, got, "key_size") != 64 || got["keys"] != nil {
		t.Errorf("hmac: %v", got)
	}
	create(h, "derived", keys.AES128, fields{"derived": true, "convergent_encryption": true, "exportable": true, "allow_plaintext_backup": true, "auto_rotate_period": "24h"})
	got = h.Data(conclave.Read, "keys/derived", nil)
	if got["kdf"] != "hkdf_sha256" || got["convergent_encryption"] != true || number(t, got, "convergent_encryption_version") != -1 || got["exportable"] != true ||
		got["allow_plaintext_backup"] != true || number(t, got, "auto_rotate_period") != 86400 {
		t.Errorf("derived: %v", got)
	}
	h.Fails(conclave.Read, "keys/none", nil, conclave.NotFound, "")
	names := h.Data(conclave.List, "keys", nil)["keys"].([]any)
	if len(names) != 7 || names[0] != "derived" {
		t.Errorf("keys are %v", names)
	}
}

func TestPublicKeysOfADerivedKey(t *testing.T) {
	h := newTransit(t)
	create(h, "k", keys.Ed25519, fields{"derived": true})
	shown := h.Data(conclave.Read, "keys/k", nil)["keys"].(fields)["1"].(fields)
	if shown["public_key"] != "" {
		t.Errorf("without a context: %v", shown)
	}
	shown = h.Data(conclave.Read, "keys/k", fields{"context": b64("c")})["keys"].(fields)["1"].(fields)
	made := h.Data(conclave.Update, "sign/k", fields{"input": b64("x"), "context": b64("c")})
	if shown["public_key"] != made["public_key"] || text(t, made, "public_key") == "" {
		t.Errorf("shown %v, signed %v", shown, made)
	}
	h.Fails(conclave.Read, "keys/k", fields{"context": "?"}, conclave.Invalid, "base64")
	h.Fails(conclave.Update, "sign/k", fields{"input": b64("x")}, conclave.Invalid, "context")
}

func TestCreateIsRefused(t *testing.T) {
	h := newTransit(t)
	for _, row := range []struct {
		fields fields
		text   string
	}{
		{fields{"type": "rot13"}, "unknown key type"},
		{fields{"convergent_encryption": true}, "requires derivation"},
		{fields{"type": "rsa-2048", "derived": true}, "derivation not supported"},
		{fields{"type": "ed25519", "derived": true, "convergent_encryption": true}, "convergent encryption not supported"},
		{fields{"key_size": 64}, "key_size is not valid"},
		{fields{"type": "hmac", "key_size": 31}, "between 32 and 512"},
		{fields{"type": "hmac", "key_size": 513}, "between 32 and 512"},
		{fields{"auto_rotate_period": 3599}, "at least an hour"},
		{fields{"auto_rotate_period": -1}, "at least an hour"},
		{fields{"auto_rotate_period": "40000d"}, "hundred years"},
	} {
		h.Fails(conclave.Update, "keys/k", row.fields, conclave.Invalid, row.text)
	}
	h.Fails(conclave.Update, "keys/-k", nil, conclave.Invalid, "name")
	if len(h.Stored()) != 0 {
		t.Errorf("refused keys stored %v", slices.Collect(maps.Keys(h.Stored())))
	}
}

func TestCreateLeavesAKeyThatIsThere(t *testing.T) {
	h := newTransit(t)
	create(h, "k", keys.AES256, nil)
	before := string(h.Stored()["keys/k"])
	response, err := h.Do(conclave.Update, "keys/k", fields{"type": "ed25519", "exportable": true})
	if err != nil || len(response.Warnings) != 1 || response.Data.(*keyOut).Type != keys.AES256 {
		t.Errorf("%+v, %v", response, err)
	}
	if string(h.Stored()["keys/k"]) != before {
		t.Error("the key has changed")
	}
}

func TestVersions(t *testing.T) {
	h := newTransit(t)
	create(h, "k", keys.AES256, nil)
	old := encryptText(t, h, "k", "x", nil)
	mac := h.Data(conclave.Update, "hmac/k", fields{"input": b64("x")})["hmac"]
	rotate(h, "k", 2)
	newest := encryptText(t, h, "k", "x", nil)
	if !strings.HasPrefix(newest, "vault:v3:") {
		t.Errorf("after two rotations: %s", newest)
	}
	if again := h.Data(conclave.Update, "rewrap/k", fields{"ciphertext": old}); !strings.HasPrefix(text(t, again, "ciphertext"), "vault:v3:") {
		t.Errorf("rewrapped: %v", again)
	}
	if second := encryptText(t, h, "k", "x", fields{"key_version": 2}); !strings.HasPrefix(second, "vault:v2:") {
		t.Errorf("with version 2: %s", second)
	}
	config := func(settings fields, text string) {
		t.Helper()
		h.Fails(conclave.Update, "keys/k/config", settings, conclave.Invalid, text)
	}
	config(fields{"min_decryption_version": 4}, "latest key version is 3")
	config(fields{"min_encryption_version": 4}, "latest key version is 3")
	config(fields{"min_decryption_version": -1}, "negative")
	config(fields{"min_encryption_version": -1}, "negative")
	config(fields{"min_decryption_version": 2, "min_encryption_version": 1}, "greater than or equal")
	h.Fails(conclave.Update, "keys/none/config", nil, conclave.Invalid, "could be found")
	h.Fails(conclave.Update, "keys/k/trim", fields{"min_available_version": 2}, conclave.Invalid, "minimum encryption version is not set")

	h.Data(conclave.Update, "keys/k/config", fields{"min_decryption_version": 2, "min_encryption_version": 3})
	h.Fails(conclave.Update, "decrypt/k", fields{"ciphertext": old}, conclave.Invalid, "too old")
	h.Fails(conclave.Update, "rewrap/k", fields{"ciphertext": old}, conclave.Invalid, "too old")
	h.Fails(conclave.Update, "verify/k", fields{"input": b64("x"), "hmac": mac}, conclave.Invalid, "too old")
	h.Fails(conclave.Update, "encrypt/k", fields{"plaintext": b64("x"), "key_version": 2}, conclave.Invalid, "minimum encryption")
	h.Fails(conclave.Update, "hmac/k", fields{"input": b64("x"), "key_version": 2}, conclave.Invalid, "minimum encryption")
	shown := h.Data(conclave.Read, "keys/k", nil)["keys"].(fields)
	if len(shown) != 2 || shown["1"] != nil {
		t.Errorf("shown are %v", shown)
	}
	h.Data(conclave.Update, "keys/k/config", fields{"min_decryption_version": 0, "min_encryption_version": 0})
	if got := h.Data(conclave.Update, "decrypt/k", fields{"ciphertext": old}); got["plaintext"] != b64("x") {
		t.Errorf("allowed again, it decrypts to %v", got)
	}
	if got := h.Data(conclave.Update, "verify/k", fields{"input": b64("x"), "hmac": mac}); got["valid"] != true {
		t.Errorf("allowed again, it verifies %v", got)
	}

	h.Data(conclave.Update, "keys/k/config", fields{"min_decryption_version": 2, "min_encryption_version": 2})
	for _, row := range []struct {
		oldest any
		text   string
	}{{nil, "missing"}, {3, "minimum encryption"}, {0, "positive"}, {-1, "decremented"}} {
		h.Fails(conclave.Update, "keys/k/trim", fields{"min_available_version": row.oldest}, conclave.Invalid, row.text)
	}
	if got := h.Data(conclave.Update, "keys/k/trim", fields{"min_available_version": 2}); number(t, got, "min_available_version") != 2 {
		t.Errorf("trimmed: %v", got)
	}
	h.Fails(conclave.Update, "keys/k/trim", fields{"min_available_version": 1}, conclave.Invalid, "decremented")
	config(fields{"min_decryption_version": 1}, "min available version")
	h.Fails(conclave.Update, "decrypt/k", fields{"ciphertext": old}, conclave.Invalid, "too old")
	if got := h.Data(conclave.Update, "decrypt/k", fields{"ciphertext": newest}); got["plaintext"] != b64("x") {
		t.Errorf("after the trim, version 3 decrypts to %v", got)
	}
	rotate(h, "k", 1)
	if got := encryptText(t, h, "k", "x", nil); !strings.HasPrefix(got, "vault:v4:") {
		t.Errorf("after the trim and another rotation: %s", got)
	}
}

func TestDeletion(t *testing.T) {
	h := newTransit(t)
	create(h, "k", keys.AES256, fields{"auto_rotate_period": "1h"})
	ciphertext := encryptText(t, h, "k", "x", nil)
	h.Fails(conclave.Delete, "keys/k", nil, conclave.Invalid, "not allowed")
	h.Fails(conclave.Delete, "keys/none", nil, conclave.Invalid, "not found")
	h.Data(conclave.Update, "keys/k/config", fields{"deletion_allowed": true})
	if _, err := h.Do(conclave.Delete, "keys/k", nil); err != nil {
		t.Fatal(err)
	}
	h.Fails(conclave.Update, "decrypt/k", fields{"ciphertext": ciphertext}, conclave.Invalid, "not found")
	if len(h.Stored()) != 0 || len(h.Woken()) != 0 {
		t.Errorf("left: %v, %v", h.Stored(), h.Woken())
	}
}

func TestSoftDeletion(t *testing.T) {
	h := newTransit(t)
	create(h, "k", keys.AES256, fields{"exportable": true})
	create(h, "rsa", keys.RSA2048, nil)
	ciphertext := encryptText(t, h, "k", "x", nil)
	const refusal = "soft-deleted"
	if got := h.Data(conclave.Delete, "keys/k/soft-delete", nil); got["soft_deleted"] != true {
		t.Errorf("deleted: %v", got)
	}
	h.Data(conclave.Delete, "keys/rsa/soft-delete", nil)
	for path, given := range map[string]fields{"encrypt/k": {"plaintext": ""}, "decrypt/k": {"ciphertext": ciphertext}, "rewrap/k": {"ciphertext": ciphertext}, "hmac/k": {"input": ""},
		"keys/k/rotate": nil, "datakey/wrapped/k": nil, "sign/rsa": {"input": ""}, "verify/rsa": {"input": "", "signature": "vault:v1:"}, "verify/k": {"input": "", "hmac": "vault:v1:"}, "keys/rsa/csr": nil} {
		h.Fails(conclave.Update, path, given, conclave.Invalid, refusal)
	}
	h.Fails(conclave.Read, "export/encryption-key/k", nil, conclave.Invalid, refusal)
	h.Fails(conclave.Read, "byok-export/rsa/k", nil, conclave.Invalid, refusal)
	h.Data(conclave.Read, "keys/k", nil)
	h.Data(conclave.Update, "keys/k/config", fields{"deletion_allowed": true})
	h.Data(conclave.Update, "keys/k/soft-delete-restore", nil)
	if got := h.Data(conclave.Update, "decrypt/k", fields{"ciphertext": ciphertext}); got["plaintext"] != b64("x") {
		t.Errorf("restored, it decrypts to %v", got)
	}
}

func TestKeysRotateByThemselves(t *testing.T) {
	h := newTransit(t)
	made := h.Now()
	create(h, "k", keys.P256, fields{"auto_rotate_period": "2h"})
	create(h, "still", keys.AES256, nil)
	latest := func() int64 {
		t.Helper()
		return number(t, h.Data(conclave.Read, "keys/k", nil), "latest_version")
	}
	due := func(after time.Duration, want int64) {
		t.Helper()
		if _, err := h.RunDue(made.Add(after)); err != nil {
			t.Fatal(err)
		}
		if got := latest(); got != want {
			t.Errorf("after %s version %d, want %d", after, got, want)
		}
	}
	if at := h.Woken()["rotate/k"]; !at.Equal(made.Add(2*time.Hour)) || len(h.Woken()) != 1 {
		t.Errorf("woken at %v", h.Woken())
	}
	due(119*time.Minute, 1)
	due(120*time.Minute, 2)
	due(121*time.Minute, 2)
	if at := h.Woken()["rotate/k"]; !at.Equal(made.Add(4 * time.Hour)) {
		t.Errorf("then woken at %v", at)
	}
	h.Advance(time.Hour) // 3:01
	rotate(h, "k", 1)    // the period begins anew
	due(4*time.Hour+30*time.Minute, 3)
	due(5*time.Hour+2*time.Minute, 4)
	h.Data(conclave.Update, "keys/k/config", fields{"auto_rotate_period": "1h"})
	due(6*time.Hour+2*time.Minute, 5)
	if err := h.LoseWork("rotate/k"); err != nil { // not due: nothing is lost
		t.Fatal(err)
	}
	h.Advance(time.Hour)
	if err := h.LoseWork("rotate/k"); err != nil {
		t.Fatal(err)
	}
	if got := latest(); got != 5 {
		t.Errorf("a rotation that was lost made version %d", got)
	}
	due(8*time.Hour, 6)
	h.Data(conclave.Delete, "keys/k/soft-delete", nil)
	due(20*time.Hour, 6)
	h.Data(conclave.Update, "keys/k/soft-delete-restore", nil)
	due(20*time.Hour, 7)
	h.Data(conclave.Update, "keys/k/config", fields{"auto_rotate_period": 0})
	due(100*time.Hour, 7)
	if len(h.Woken()) != 0 {
		t.Errorf("left to be woken: %v", h.Woken())
	}
}

// A key that changes while its new version is being made is rotated once, if it is still due.
func TestRotationMeetsAChange(t *testing.T) {
	h := newTransit(t)
	create(h, "k", keys.AES256, fields{"auto_rotate_period": "1h"})
	h.Advance(time.Hour)
	engine := meddler{Engine: quick, meddle: func() { rotate(h, "k", 1) }}
	if _, err := h.Reopen(engine).RunDue(h.Now()); err != nil {
		t.Fatal(err)
	}
	if got := number(t, h.Data(conclave.Read, "keys/k", nil), "latest_version"); got != 2 {
		t.Errorf("version %d, want 2", got)
	}
	if at := h.Woken()["rotate/k"]; !at.Equal(h.Now().Add(time.Hour)) {
		t.Errorf("woken at %v", at)
	}
}

// meddler has something else happen while work is done.
type meddler struct {
	Engine
	meddle func()
}

func (m meddler) Work(ctx context.Context, name string, begun any) (any, error) {
	m.meddle()
	return m.Engine.Work(ctx, name, begun)
}

func TestEventsTellOfKeys(t *testing.T) {
	h := newTransit(t)
	h.Data(conclave.Read, "wrapping_key", nil)
	create(h, "k", keys.AES256, fields{"auto_rotate_period": "1h", "exportable": true, "allow_plaintext_backup": true})
	encryptText(t, h, "k", "x", nil)
	rotate(h, "k", 1)
	h.Data(conclave.Update, "keys/k/config", fields{"deletion_allowed": true})
	backup := h.Data(conclave.Read, "backup/k", nil)
	if _, err := h.RunDue(h.Now().Add(2 * time.Hour)); err != nil {
		t.Fatal(err)
	}
	h.Data(conclave.Delete, "keys/k/soft-delete", nil)
	h.Data(conclave.Update, "keys/k/soft-delete-restore", nil)
	if _, err := h.Do(conclave.Delete, "keys/k", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Do(conclave.Update, "restore", backup); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, event := range h.TakeEvents() {
		got = append(got, event.Type+" "+event.Path+" "+event.Metadata["latest_version"])
	}
	want := []string{"transit/key-create keys/k 1", "transit/key-rotate keys/k 2", "transit/key-config keys/k 2", "transit/key-backup keys/k 2", "transit/key-rotate keys/k 3",
		"transit/key-soft-delete keys/k 3", "transit/key-soft-delete-restore keys/k 3", "transit/key-delete keys/k 3", "transit/key-restore keys/k 2"}
	if !slices.Equal(got, want) {
		t.Errorf("events are\n%q, want\n%q", got, want)
	}
}

func TestConfigs(t *testing.T) {
	h := newTransit(t)
	if got := h.Data(conclave.Read, "cache-config", nil); number(t, got, "size") != 0 {
		t.Errorf("cache: %v", got)
	}
	h.Data(conclave.Update, "cache-config", fields{"size": 456})
	if got := h.Data(conclave.Read, "cache-config", nil); number(t, got, "size") != 456 {
		t.Errorf("cache: %v", got)
	}
	if got := h.Data(conclave.Read, "config/keys", nil); got["disable_upsert"] != false {
		t.Errorf("keys: %v", got)
	}
	h.Data(conclave.Update, "config/keys", fields{"disable_upsert": true})
	if got := h.Data(conclave.Update, "config/keys", nil); got["disable_upsert"] != true {
		t.Errorf("keys: %v", got)
	}
	h.Store("config/keys", []byte("{"))
	if _, err := h.Do(conclave.Read, "config/keys", nil); !conclave.Is(err, conclave.Internal) {
		t.Errorf("damaged settings: %v", err)
	}
	h.Store("keys/bad", []byte("{}"))
	if _, err := h.Do(conclave.Read, "keys/bad", nil); !conclave.Is(err, conclave.Internal) {
		t.Errorf("a damaged key: %v", err)
	}
}

// A caller may encrypt without being able to make keys, to read them or to decrypt.
func TestCapabilitiesAreApart(t *testing.T) {
	h := newTransit(t)
	create(h, "k", keys.AES256, nil)
	only := h.With(enginetest.Authorize(func(op conclave.Operation, path string) bool {
		return op == conclave.Update && path == "encrypt/k"
	}))
	ciphertext := encryptText(t, only, "k", "x", nil)
	only.Fails(conclave.Update, "decrypt/k", fields{"ciphertext": ciphertext}, conclave.Denied, "")
	only.Fails(conclave.Update, "encrypt/other", fields{"plaintext": ""}, conclave.Denied, "")
	only.Fails(conclave.Read, "keys/k", nil, conclave.Denied, "")
}

// No error shows a plaintext or a key.
func TestErrorsShowNothing(t *testing.T) {
	h := newTransit(t)
	create(h, "k", keys.AES256, nil)
	canary := "canary-" + base64.StdEncoding.EncodeToString([]byte("secret!!!"))
	for _, row := range []struct {
		path string
		name string
	}{{"encrypt/k", "plaintext"}, {"decrypt/k", "ciphertext"}, {"hmac/k", "input"}, {"restore", "backup"}, {"hash", "input"}, {"encrypt/k", "context"}, {"keys/i/import", "ciphertext"}, {"keys/i/import", "public_key"}} {
		_, err := h.Do(conclave.Update, row.path, fields{"plaintext": "", row.name: canary})
		if err == nil || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v", row.path, err)
		}
	}
}
