package operator

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestKeysAreReadInEachForm(t *testing.T) {
	raw := []byte{0x99, 0x01, 0x0d, 0x04, 0x60, 0, 0xff, 0x10, 0x42}
	encoded := base64.StdEncoding.EncodeToString(raw)
	armour := func(head string) string {
		return "-----BEGIN PGP PUBLIC KEY BLOCK-----\n" + head + "\n" + encoded[:5] + "\n" + encoded[5:] + "\n=AbCd\n-----END PGP PUBLIC KEY BLOCK-----\n"
	}
	for name, text := range map[string]string{
		"binary": string(raw), "base64": encoded + "\n", "armoured": armour("Version: 1\nComment: a b\n"), "armoured without headers": armour(""),
		"armoured by another system": strings.ReplaceAll(armour("Version: 1\n"), "\n", "\r\n"),
	} {
		file := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := readKey(file); got != encoded || err != nil {
			t.Errorf("%s: readKey = %q, %v, want %q", name, got, err, encoded)
		}
	}
	private := filepath.Join(t.TempDir(), "private")
	if err := os.WriteFile(private, []byte("-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nAAAA\n-----END PGP PRIVATE KEY BLOCK-----\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := readKey(private); err == nil {
		t.Errorf("readKey of a private key = %q, want an error", got)
	}
}

func FuzzDearmour(f *testing.F) {
	f.Add("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAAA\n=AbCd\n-----END PGP PUBLIC KEY BLOCK-----")
	f.Add("-----BEGIN PGP PUBLIC KEY BLOCK-----")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := dearmour("file", text)
		if _, bad := base64.StdEncoding.DecodeString(got); err == nil && (bad != nil || got == "") {
			t.Errorf("dearmour(%q) = %q, which isn't base64", text, got)
		}
	})
}

func TestInitRefusesFlagsThatContradict(t *testing.T) {
	for _, flags := range []initFlags{{shares: 3, threshold: 4}, {shares: 3}, {shares: 2, threshold: 2, pgpKeys: []string{"a"}},
		{shares: 2, threshold: 2, recoveryShares: 2, recoveryThreshold: 2, recoveryPGPKeys: []string{"a"}, recoveryNamed: true}} {
		if request, err := flags.request(flags.recoveryNamed); err == nil {
			t.Errorf("request of %+v = %+v, want an error", flags, request)
		}
	}
	if request, err := (&initFlags{shares: 5, threshold: 3}).request(false); err != nil || request.SecretShares != 5 || request.SecretThreshold != 3 {
		t.Errorf("request of 5 shares, threshold 3 = %+v, %v", request, err)
	}
}

// What has no effect is refused: shares of a vault that opens by itself are recovery shares, and only those.
func TestInitAsksForTheSharesThatTheSealHas(t *testing.T) {
	standard := initFlags{shares: 5, threshold: 3, recoveryShares: 5, recoveryThreshold: 3}
	if r, err := standard.request(true); err != nil || r.RecoveryShares != 5 || r.RecoveryThreshold != 3 || r.SecretShares != 0 || r.SecretThreshold != 0 {
		t.Errorf("of a vault that opens by itself: %+v, %v, want recovery shares alone", r, err)
	}
	if r, err := standard.request(false); err != nil || r.RecoveryShares != 0 || r.RecoveryThreshold != 0 || r.SecretShares != 5 || r.SecretThreshold != 3 {
		t.Errorf("of a vault with shares: %+v, %v, want unseal shares alone", r, err)
	}
	named, recovery := standard, standard
	named.named, recovery.recoveryNamed = true, true
	if _, err := named.request(true); err == nil || !strings.Contains(err.Error(), "-recovery-shares") {
		t.Errorf("unseal shares of a vault that opens by itself: %v", err)
	}
	if _, err := recovery.request(false); err == nil || !strings.Contains(err.Error(), "-key-shares") {
		t.Errorf("recovery shares of one that doesn't: %v", err)
	}
}
