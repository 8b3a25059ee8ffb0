package keys

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"conclave"
)

// vaultKey is a key of two versions with what it has made: testdata/vault.json was written by helper/keysutil of
// github.com/hashicorp/vault/sdk v0.25.1, which is what Vault's own transit engine works with.
type vaultKey struct {
	Type        Type
	Backup      string
	Context     []byte
	Plaintext   []byte
	Ciphertexts []string
	Signatures  []struct{ Hash, Padding, Marshaling, Text string }
}

func vaultKeys(t testing.TB) []vaultKey {
	t.Helper()
	var all []vaultKey
	readTestdata(t, "vault.json", &all)
	return all
}

func TestVaultsBackupsAreRestored(t *testing.T) {
	for _, row := range vaultKeys(t) {
		k, err := DecodeBackup(row.Backup)
		if err != nil {
			t.Errorf("%s: %v", row.Type, err)
			continue
		}
		if k.Type != row.Type || k.Latest() != 2 || k.MinDecryption != 2 || k.Derived != (len(row.Context) > 0) {
			t.Errorf("%s: restored as %+v", row.Type, k)
		}
		for i, text := range row.Ciphertexts {
			if _, err := k.Decrypt(text, Sealing{Context: row.Context}); (err == nil) != (i == 1) {
				t.Errorf("%s: version %d decrypts with %v, want an error for version 1 only", row.Type, i+1, err)
			}
		}
		older := k.Clone()
		older.MinDecryption = 1 // version 1 is in the archive
		for i, text := range row.Ciphertexts {
			if got, err := older.Decrypt(text, Sealing{Context: row.Context}); err != nil || string(got) != string(row.Plaintext) {
				t.Errorf("%s: decrypts to %q, %v", row.Type, got, err)
			}
			if again, _, err := older.Encrypt(i+1, row.Plaintext, Sealing{Context: row.Context}); err != nil || (again == text) != k.Convergent {
				t.Errorf("%s: encrypts to %s, %v, Vault to %s, convergent %v", row.Type, again, err, text, k.Convergent)
			}
		}
		for _, made := range row.Signatures {
			scheme, err := NewScheme(made.Hash, made.Padding, made.Marshaling, false, SaltAuto)
			if err != nil {
				t.Fatal(err)
			}
			if valid, err := older.Verify(made.Text, scheme, row.Context, row.Plaintext); err != nil || !valid {
				t.Errorf("%s, %+v: verifies %v, %v", row.Type, made, valid, err)
			}
		}
	}
}

// TestBackupsSayWhatVaultsSay compares the members of our backups with those of Vault's, for the same key.
func TestBackupsSayWhatVaultsSay(t *testing.T) {
	for _, row := range vaultKeys(t) {
		k, err := DecodeBackup(row.Backup)
		if err != nil {
			t.Fatal(err)
		}
		text, err := k.EncodeBackup()
		if err != nil {
			t.Fatal(err)
		}
		ours, theirs := backupMembers(t, text), backupMembers(t, row.Backup)
		if !reflect.DeepEqual(ours, theirs) {
			got, _ := json.Marshal(ours)
			want, _ := json.Marshal(theirs)
			t.Errorf("%s: backup is\n%s\nVault's is\n%s", row.Type, got, want)
		}
		again, err := DecodeBackup(text)
		if err != nil {
			t.Fatal(err)
		}
		if a, b := encoded(t, k), encoded(t, again); a != b {
			t.Errorf("%s: restored as\n%s, then as\n%s", row.Type, a, b)
		}
	}
}

// backupMembers is a backup without what says nothing, and without what Vault computes when it restores.
func backupMembers(t *testing.T, text string) map[string]any {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	var members map[string]any
	decoder := json.NewDecoder(bytes.NewReader(b))
	decoder.UseNumber() // RSA keys are numbers
	if err := decoder.Decode(&members); err != nil {
		t.Fatal(err)
	}
	return prune(members)
}

func prune(members map[string]any) map[string]any {
	for name, value := range members {
		switch value := value.(type) {
		case map[string]any:
			if len(prune(value)) == 0 {
				delete(members, name)
			}
		case []any:
			for _, item := range value {
				if item, ok := item.(map[string]any); ok {
					prune(item)
				}
			}
		}
		switch value := members[name].(type) {
		case nil:
			delete(members, name)
		case string:
			if value == "" {
				delete(members, name)
			}
		case json.Number:
			if value == "0" {
				delete(members, name)
			}
		case bool:
			if !value {
				delete(members, name)
			}
		}
		if name == "Precomputed" {
			delete(members, name)
		}
	}
	return members
}

func encoded(t *testing.T, k *Key) string {
	t.Helper()
	value, err := k.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return string(value)
}

func TestBadBackupsAreRefused(t *testing.T) {
	good := vaultKeys(t)[0].Backup
	text, err := base64.StdEncoding.DecodeString(good)
	if err != nil {
		t.Fatal(err)
	}
	for old, changed := range map[string]string{
		`"type":8`:                      `"type":99`,
		`"latest_version":2`:            `"latest_version":3`,
		`"min_decryption_version":2`:    `"min_decryption_version":3`,
		`"min_encryption_version":0`:    `"min_encryption_version":1`,
		`"version_template":""`:         `"version_template":"mine{{version}}:"`,
		`"min_available_version":0`:     `"min_available_version":-1`,
		`"convergent_encryption":false`: `"convergent_encryption":true`,
		`"auto_rotate_period":0`:        `"auto_rotate_period":-1`,
		`"derived":false,"kdf":0`:       `"derived":true,"kdf":0`,
		`"policy":`:                     `"other":`,
		`{"policy"`:                     `["policy"`,
	} {
		bad := strings.Replace(string(text), old, changed, 1)
		if bad == string(text) {
			t.Fatalf("%s isn't in the backup", old)
		}
		if _, err := DecodeBackup(base64.StdEncoding.EncodeToString([]byte(bad))); !conclave.Is(err, conclave.Invalid) {
			t.Errorf("with %s: %v, want Invalid", changed, err)
		}
	}
	if _, err := DecodeBackup("?" + good); !conclave.Is(err, conclave.Invalid) {
		t.Errorf("no base64: %v", err)
	}
	if _, err := DecodeBackup(strings.Repeat("A", maxBackup+1)); !conclave.Is(err, conclave.TooLarge) {
		t.Errorf("too long: %v", err)
	}
}

// FuzzDecodeBackup restores anything: no panic, and what is restored can be stored, read again and used.
func FuzzDecodeBackup(f *testing.F) {
	for _, row := range vaultKeys(f) {
		text, err := base64.StdEncoding.DecodeString(row.Backup)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		k, err := DecodeBackup(base64.StdEncoding.EncodeToString(text))
		if err != nil {
			return
		}
		value, err := k.Encode()
		if err != nil {
			return
		}
		again, err := Decode(value)
		if err != nil {
			t.Fatalf("restored, stored as %s, and then: %v", value, err)
		}
		for _, v := range again.Versions {
			if _, err := v.PublicKey(); err != nil {
				t.Fatalf("restored, stored as %s, and then: %v", value, err)
			}
		}
	})
}
