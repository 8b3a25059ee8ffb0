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
		{shares: 2, threshold: 2, recoveryShares: 2, recoveryPGPKeys: []string{"a"}}} {
		if request, err := flags.request(); err == nil {
			t.Errorf("request of %+v = %+v, want an error", flags, request)
		}
	}
	if request, err := (&initFlags{shares: 5, threshold: 3}).request(); err != nil || request.SecretShares != 5 || request.SecretThreshold != 3 {
		t.Errorf("request of 5 shares, threshold 3 = %+v, %v", request, err)
	}
}
