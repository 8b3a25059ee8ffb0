package integration

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
)

// holder is who a share is encrypted to.
type holder struct {
	public  string // file of the public key
	decrypt func(t *testing.T, message []byte) string
}

// keyOfGnuPG makes a key with gpg, as a person would, and shows it in ASCII armour.
func keyOfGnuPG(t *testing.T, name string) holder {
	t.Helper()
	home, err := os.MkdirTemp("", "gpg-") // the agent's socket needs a short path
	if err != nil {
		t.Fatal(err)
	}
	gpg := func(input []byte, args ...string) []byte {
		t.Helper()
		command := exec.Command("gpg", append([]string{"--homedir", home, "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""}, args...)...)
		command.Stdin = bytes.NewReader(input)
		var said bytes.Buffer
		command.Stderr = &said
		out, err := command.Output()
		if err != nil {
			t.Fatalf("gpg %v: %v\n%s", args, err, said.Bytes())
		}
		return out
	}
	t.Cleanup(func() {
		if out, err := exec.Command("gpgconf", "--homedir", home, "--kill", "gpg-agent").CombinedOutput(); err != nil {
			t.Errorf("end gpg's agent: %v\n%s", err, out)
		}
		if err := os.RemoveAll(home); err != nil {
			t.Error(err)
		}
	})
	gpg(nil, "--quick-generate-key", name, "default", "default", "never")
	file := filepath.Join(t.TempDir(), name+".asc")
	if err := os.WriteFile(file, gpg(nil, "--armor", "--export", name), 0o600); err != nil {
		t.Fatal(err)
	}
	return holder{file, func(t *testing.T, message []byte) string { return string(gpg(message, "--decrypt")) }}
}

// keyOfLibrary makes a key with the library, in binary form or in ASCII armour.
func keyOfLibrary(t *testing.T, name string, armoured bool) holder {
	t.Helper()
	entity, err := openpgp.NewEntity(name, "", name+"@example.org", nil)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	var w io.Writer = &out
	if armoured {
		lines, err := armor.Encode(&out, openpgp.PublicKeyType, nil)
		if err != nil {
			t.Fatal(err)
		}
		w = lines
	}
	if err := entity.Serialize(w); err != nil {
		t.Fatal(err)
	}
	if closer, ok := w.(io.Closer); ok {
		if err := closer.Close(); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(t.TempDir(), name+".gpg")
	if err := os.WriteFile(file, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return holder{file, func(t *testing.T, message []byte) string {
		t.Helper()
		opened, err := openpgp.ReadMessage(bytes.NewReader(message), openpgp.EntityList{entity}, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(opened.UnverifiedBody)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}}
}

// TestSharesEncryptedToPGPKeysOpenTheVault goes the way of the holders: the command encrypts to their keys, they decrypt
// with their own tools, and what they find opens the vault.
func TestSharesEncryptedToPGPKeysOpenTheVault(t *testing.T) {
	first := func() holder { return keyOfLibrary(t, "ann", true) }
	if _, err := exec.LookPath("gpg"); err == nil {
		first = func() holder { return keyOfGnuPG(t, "ann@example.org") }
	}
	holders := []holder{first(), keyOfLibrary(t, "bob", false)}
	l := startLab(t, 1)
	if err := l.Kill(1); err != nil {
		t.Fatal(err)
	}
	if err := l.Wipe(1); err != nil {
		t.Fatal(err)
	}
	l.RootToken = ""
	launch(t, l, 1)

	if out, err := cli(within(t, 20*time.Second), l, 1, "operator", "init", "-key-shares=3", "-key-threshold=2", "-pgp-keys="+holders[0].public); err == nil {
		t.Fatalf("one key is enough for three shares: %s", out)
	}
	var made struct {
		Keys      []string `json:"unseal_keys_b64"`
		Hex       []string `json:"unseal_keys_hex"`
		RootToken string   `json:"root_token"`
	}
	eventually(t, 20*time.Second, func(ctx context.Context) error { // until the node has founded its cluster
		out, err := cli(ctx, l, 1, "operator", "init", "-format=json", "-key-shares=2", "-key-threshold=2",
			"-pgp-keys="+holders[0].public+","+holders[1].public, "-root-token-pgp-key="+holders[1].public)
		if err != nil {
			return err
		}
		return json.Unmarshal(out, &made)
	})
	if len(made.Keys) != 2 || len(made.Hex) != 2 {
		t.Fatalf("init gave %d and %d shares, want 2", len(made.Keys), len(made.Hex))
	}
	wantHealth(t, l, 1, 503, health{Initialized: true, Sealed: true})
	for i, of := range holders {
		message, err := base64.StdEncoding.DecodeString(made.Keys[i])
		if err != nil || hex.EncodeToString(message) != made.Hex[i] {
			t.Fatalf("share %d is not the same in base64 and hex: %v", i+1, err)
		}
		if out, err := cli(within(t, 20*time.Second), l, 1, "operator", "unseal", made.Keys[i]); err == nil {
			t.Fatalf("the encrypted share %d is taken for a share: %s", i+1, out)
		}
		command := exec.CommandContext(within(t, 20*time.Second), os.Getenv(binaryVariable), "operator", "unseal", "-")
		command.Env = append(os.Environ(), "VAULT_ADDR="+l.Addrs[0], "VAULT_CACERT="+l.CA)
		command.Stdin = strings.NewReader(of.decrypt(t, message))
		if out, err := command.CombinedOutput(); err != nil {
			t.Fatalf("submit the decrypted share %d: %v\n%s", i+1, err, out)
		}
	}
	wantHealth(t, l, 1, 200, health{Initialized: true})
	message, err := base64.StdEncoding.DecodeString(made.RootToken)
	if err != nil {
		t.Fatal(err)
	}
	l.RootToken = holders[1].decrypt(t, message)
	mountKV(t, l, "secret")
	mustPut(t, l, 1, "a", "kept")
	mustRead(t, l, 1, "a", "kept")
}
