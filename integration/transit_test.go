package integration

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"conclave/engine/transit/wrap"
)

// b64 is a text as transit takes it.
func b64(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

// mountTransit mounts the engine as Vault's SDK does.
func mountTransit(t *testing.T, ctx context.Context, client *api.Client) {
	t.Helper()
	if err := client.Sys().MountWithContext(ctx, "transit", &api.MountInput{Type: "transit"}); err != nil {
		t.Fatalf("mount transit: %v", err)
	}
}

// batchResult is an item of a batch's answer.
func batchResult(t *testing.T, data map[string]any, i int) map[string]any {
	t.Helper()
	results, _ := data["batch_results"].([]any)
	if i >= len(results) {
		t.Fatalf("the answer is %v, want at least %d results", data, i+1)
	}
	result, _ := results[i].(map[string]any)
	return result
}

// TestTransitOnEachNode has each node use keys that another one has made, by Vault's SDK.
func TestTransitOnEachNode(t *testing.T) {
	l := startLab(t, 3)
	ctx := within(t, 2*time.Minute)
	clients := []*api.Client{sdk(t, l, 1), sdk(t, l, 2), sdk(t, l, 3)}
	mountTransit(t, ctx, clients[0])
	for i, kind := range []string{"aes128-gcm96", "aes256-gcm96", "chacha20-poly1305", "xchacha20-poly1305", "rsa-2048"} {
		first, second, third := clients[i%3], clients[(i+1)%3], clients[(i+2)%3]
		mustWrite(t, ctx, first, "transit/keys/"+kind, map[string]any{"type": kind})
		made := mustWrite(t, ctx, second, "transit/encrypt/"+kind, map[string]any{"plaintext": b64("a text")})
		mustWrite(t, ctx, third, "transit/keys/"+kind+"/rotate", nil)
		again := mustWrite(t, ctx, first, "transit/rewrap/"+kind, map[string]any{"ciphertext": made["ciphertext"]})
		if text, _ := again["ciphertext"].(string); !strings.HasPrefix(text, "vault:v2:") {
			t.Errorf("%s: rewrapped to %v", kind, again)
		}
		for _, client := range clients {
			for _, ciphertext := range []any{made["ciphertext"], again["ciphertext"]} {
				if got := mustWrite(t, ctx, client, "transit/decrypt/"+kind, map[string]any{"ciphertext": ciphertext}); got["plaintext"] != b64("a text") {
					t.Errorf("%s: decrypts to %v", kind, got)
				}
			}
		}
	}
	// What one node has changed holds on all others at once.
	mustWrite(t, ctx, clients[0], "transit/keys/fresh", nil)
	for version := 2; version <= 10; version++ {
		old := mustWrite(t, ctx, clients[version%3], "transit/encrypt/fresh", map[string]any{"plaintext": b64("a text")})
		mustWrite(t, ctx, clients[version%3], "transit/keys/fresh/rotate", nil)
		for _, client := range clients {
			made := mustWrite(t, ctx, client, "transit/encrypt/fresh", map[string]any{"plaintext": b64("a text")})
			if text, _ := made["ciphertext"].(string); !strings.HasPrefix(text, fmt.Sprintf("vault:v%d:", version)) {
				t.Errorf("after the rotation to version %d: %v", version, made)
			}
		}
		mustWrite(t, ctx, clients[(version+1)%3], "transit/keys/fresh/config", map[string]any{"min_decryption_version": version})
		for _, client := range clients {
			_, err := client.Logical().WriteWithContext(ctx, "transit/decrypt/fresh", map[string]any{"ciphertext": old["ciphertext"]})
			wantRefusal(t, err, http.StatusBadRequest, "too old")
		}
	}
	for i, kind := range []string{"ed25519", "ecdsa-p256", "ecdsa-p384", "ecdsa-p521", "rsa-2048", "hmac"} {
		first, second, third := clients[i%3], clients[(i+1)%3], clients[(i+2)%3]
		mustWrite(t, ctx, first, "transit/keys/sign-"+kind, map[string]any{"type": kind})
		doing, name := "sign", "signature"
		if kind == "hmac" {
			doing, name = "hmac", "hmac"
		}
		made := mustWrite(t, ctx, second, "transit/"+doing+"/sign-"+kind, map[string]any{"input": b64("a text")})
		for text, valid := range map[string]bool{"a text": true, "another": false} {
			if got := mustWrite(t, ctx, third, "transit/verify/sign-"+kind, map[string]any{"input": b64(text), name: made[name]}); got["valid"] != valid {
				t.Errorf("%s: %q verifies as %v", kind, text, got)
			}
		}
	}
}

// TestTransitAnswersAsClientsExpect is about statuses, capabilities and errors.
func TestTransitAnswersAsClientsExpect(t *testing.T) {
	l := startLab(t, 1)
	ctx := within(t, 2*time.Minute)
	root := sdk(t, l, 1)
	root.SetMaxRetries(0)
	mountTransit(t, ctx, root)
	mustWrite(t, ctx, root, "transit/keys/k", map[string]any{"type": "aes256-gcm96"})
	mustWrite(t, ctx, root, "transit/keys/k/config", map[string]any{"exportable": true, "min_encryption_version": 1})

	bad := []any{map[string]any{"plaintext": b64("a")}, map[string]any{"plaintext": "?"}}
	_, err := root.Logical().WriteWithContext(ctx, "transit/encrypt/k", map[string]any{"batch_input": bad})
	wantRefusal(t, err, http.StatusBadRequest, "")
	partly, err := root.Logical().WriteWithContext(ctx, "transit/encrypt/k", map[string]any{"batch_input": bad, "partial_failure_response_code": 202})
	if err != nil {
		t.Fatal(err)
	}
	ciphertext, failed := batchResult(t, partly.Data, 0)["ciphertext"], batchResult(t, partly.Data, 1)["error"]
	if got := mustWrite(t, ctx, root, "transit/decrypt/k", map[string]any{"ciphertext": ciphertext}); got["plaintext"] != b64("a") || failed == nil {
		t.Errorf("the good item decrypts to %v, the other failed with %v", got, failed)
	}
	_, err = root.Logical().WriteWithContext(ctx, "transit/decrypt/k", map[string]any{"ciphertext": "vault:v1:AAAA"})
	wantRefusal(t, err, http.StatusBadRequest, "authentication failed")
	_, err = root.Logical().WriteWithContext(ctx, "transit/decrypt/none", map[string]any{"ciphertext": "vault:v1:AAAA"})
	wantRefusal(t, err, http.StatusBadRequest, "encryption key not found")
	if _, err := root.Logical().DeleteWithContext(ctx, "transit/keys/k"); err == nil {
		t.Error("a key that may not be deleted is")
	}
	if secret, err := root.Logical().ReadWithContext(ctx, "transit/keys/none"); err != nil || secret != nil {
		t.Errorf("no key: %+v, %v", secret, err)
	}
	exported, err := root.Logical().ReadWithContext(ctx, "transit/export/encryption-key/k/latest")
	if err != nil || exported.Data["keys"].(map[string]any)["1"] == "" {
		t.Errorf("exported %+v, %v", exported, err)
	}

	mustWrite(t, ctx, root, "sys/policies/acl/user", map[string]any{"policy": `path "transit/encrypt/*" { capabilities = ["update"] }
path "transit/encrypt/new-*" { capabilities = ["create"] }
path "transit/datakey/wrapped/*" { capabilities = ["update"] }`})
	token, err := root.Auth().Token().CreateWithContext(ctx, &api.TokenCreateRequest{Policies: []string{"user"}})
	if err != nil {
		t.Fatal(err)
	}
	user := anonymous(t, l, 1)
	user.SetToken(token.Auth.ClientToken)
	mustWrite(t, ctx, user, "transit/encrypt/k", map[string]any{"plaintext": b64("x")})
	mustWrite(t, ctx, user, "transit/encrypt/new-1", map[string]any{"plaintext": b64("x")})
	mustWrite(t, ctx, user, "transit/datakey/wrapped/k", nil)
	for path, fields := range map[string]map[string]any{"encrypt/other": {"plaintext": ""}, "encrypt/new-1": {"plaintext": ""}, "datakey/plaintext/k": nil, "decrypt/k": {"ciphertext": ciphertext}} {
		_, err := user.Logical().WriteWithContext(ctx, "transit/"+path, fields)
		wantRefusal(t, err, http.StatusForbidden, "permission denied")
	}
}

// TestTransitImportsAndBacksUp brings a key with its wrapping key, and takes one along in a backup.
func TestTransitImportsAndBacksUp(t *testing.T) {
	l := startLab(t, 1)
	ctx := within(t, 2*time.Minute)
	client := sdk(t, l, 1)
	mountTransit(t, ctx, client)
	wrapping, err := client.Logical().ReadWithContext(ctx, "transit/wrapping_key")
	if err != nil {
		t.Fatal(err)
	}
	text, _ := wrapping.Data["public_key"].(string)
	block, _ := pem.Decode([]byte(text))
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil || public.(*rsa.PublicKey).N.BitLen() != 4096 {
		t.Fatalf("the wrapping key is %s, %v", text, err)
	}
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	sealed, err := wrap.Seal(public.(*rsa.PublicKey), crypto.SHA256, key)
	if err != nil {
		t.Fatal(err)
	}
	mustWrite(t, ctx, client, "transit/keys/mine/import", map[string]any{"type": "aes256-gcm96", "ciphertext": base64.StdEncoding.EncodeToString(sealed), "exportable": true, "allow_plaintext_backup": true})
	exported, err := client.Logical().ReadWithContext(ctx, "transit/export/encryption-key/mine")
	if err != nil || exported.Data["keys"].(map[string]any)["1"] != base64.StdEncoding.EncodeToString(key) {
		t.Fatalf("exported %+v, %v", exported, err)
	}
	made := mustWrite(t, ctx, client, "transit/encrypt/mine", map[string]any{"plaintext": b64("x")})
	backup, err := client.Logical().ReadWithContext(ctx, "transit/backup/mine")
	if err != nil {
		t.Fatal(err)
	}
	mustWrite(t, ctx, client, "transit/restore/copy", map[string]any{"backup": backup.Data["backup"]})
	if got := mustWrite(t, ctx, client, "transit/decrypt/copy", map[string]any{"ciphertext": made["ciphertext"]}); got["plaintext"] != b64("x") {
		t.Errorf("the copy decrypts to %v", got)
	}
	wrapped := sdk(t, l, 1)
	wrapped.SetWrappingLookupFunc(func(string, string) string { return "5m" })
	secret, err := wrapped.Logical().WriteWithContext(ctx, "transit/datakey/plaintext/mine", nil)
	if err != nil || secret.WrapInfo == nil {
		t.Fatalf("a wrapped data key: %+v, %v", secret, err)
	}
	unwrapped, err := client.Logical().UnwrapWithContext(ctx, secret.WrapInfo.Token)
	if err != nil || unwrapped.Data["plaintext"] == nil {
		t.Errorf("unwrapped %+v, %v", unwrapped, err)
	}
}

// TestTransitsPageRuns runs what docs/transit.md shows.
func TestTransitsPageRuns(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("there is no openssl: install the package openssl")
		}
		t.Skip("needs the package openssl")
	}
	page, err := os.ReadFile(filepath.Join("..", "docs", "transit.md"))
	if err != nil {
		t.Fatal(err)
	}
	var script strings.Builder
	for _, block := range regexp.MustCompile("(?ms)^```console\n(.*?)^```$").FindAllSubmatch(page, -1) {
		script.Write(block[1])
	}
	l, dir := startLab(t, 1), t.TempDir()
	ctx := within(t, 2*time.Minute)
	if err := os.Symlink(os.Getenv(binaryVariable), filepath.Join(dir, "conclave")); err != nil {
		t.Fatal(err)
	}
	shell := func(text string) string {
		t.Helper()
		command := exec.CommandContext(ctx, "sh", "-euc", text)
		command.Dir = dir
		command.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "HOME="+dir, "CONCLAVE_ADDR="+l.Addrs[0], "CONCLAVE_CACERT="+l.CA, "CONCLAVE_TOKEN="+l.RootToken)
		out, err := command.CombinedOutput()
		if err != nil {
			t.Fatalf("%s\n%v\n%s", text, err, out)
		}
		return string(out)
	}
	shell("openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out key.pem")
	if out := shell(script.String()); !strings.Contains(out, b64("a text")) || !strings.Contains(out, "vault:v2:") {
		t.Errorf("the page's commands say\n%s", out)
	}
	shell("conclave transit import transit/keys/other @key.pem type=ecdsa-p384")
	for _, name := range []string{"mine", "other"} {
		shown := shell("conclave read -field=keys transit/export/public-key/" + name)
		if line := strings.TrimSpace(shell("openssl pkey -in key.pem -pubout | sed 1d | head -1")); !strings.Contains(shown, line) {
			t.Errorf("%s is %s, want the key with %s", name, shown, line)
		}
	}
}
