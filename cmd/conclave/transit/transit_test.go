package transit

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"conclave"
	"conclave/cmd/conclave/client"
	"conclave/engine/enginetest"
	"conclave/engine/transit"
)

// serve has the engine answer at team/transit/.
func serve(t *testing.T) (*enginetest.Harness, string) {
	t.Helper()
	engine, err := transit.Plugin().Open(nil)
	if err != nil {
		t.Fatal(err)
	}
	h := enginetest.New(t, engine, enginetest.Fast())
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		op := conclave.Update
		body, _ := io.ReadAll(r.Body)
		if r.Method == http.MethodGet {
			op, body = conclave.Read, []byte("{}")
		}
		path, found := strings.CutPrefix(r.URL.Path, "/v1/team/transit/")
		response, err := (*conclave.Response)(nil), error(conclave.Errorf(conclave.NotFound, "no handler"))
		if found {
			response, err = h.DoJSON(op, path, body)
		}
		var failure *conclave.Error
		switch {
		case errors.As(err, &failure) && failure.Kind == conclave.NotFound:
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"errors":[]}`)
		case err != nil:
			w.WriteHeader(http.StatusBadRequest)
			_ = json.NewEncoder(w).Encode(map[string]any{"errors": []string{err.Error()}})
		default:
			_ = json.NewEncoder(w).Encode(map[string]any{"data": response.Data})
		}
	}))
	t.Cleanup(server.Close)
	return h, server.URL
}

// run runs the command with a standard input.
func run(t *testing.T, address, input string, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	s := &client.Session{In: strings.NewReader(input), Out: &out, Err: io.Discard, Address: address, Getenv: func(string) string { return "" }}
	command := Command(s)
	command.SetArgs(args)
	command.SilenceErrors, command.SilenceUsage = true, true
	err := command.ExecuteContext(context.Background())
	return out.String(), err
}

func TestKeysAreImported(t *testing.T) {
	h, address := serve(t)
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	file := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return "@" + path
	}
	privatePEM, publicPEM := file("private.pem", "PRIVATE KEY", private), file("public.pem", "PUBLIC KEY", public)
	raw := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32))
	exported := func(what, name string) any {
		t.Helper()
		return h.Data(conclave.Read, "export/"+what+"/"+name+"/latest", map[string]any{"format": "der"})["keys"].(map[string]any)["1"]
	}
	for _, row := range []struct {
		input string
		args  []string
	}{
		{"", []string{"import", "team/transit/keys/typed", raw, "exportable=true"}},
		{raw[:20] + "\n" + raw[20:] + "\n", []string{"import", "team/transit/keys/piped", "-", "hash_function=SHA1", "exportable=true"}},
		{"", []string{"import", "/team/transit/keys/ec/", privatePEM, "type=ecdsa-p256", "exportable=true"}},
		{"", []string{"import", "team/transit/keys/half", publicPEM, "type=ecdsa-p256", "exportable=true"}},
		{"", []string{"import-version", "team/transit/keys/half", privatePEM, "version=1"}},
	} {
		if out, err := run(t, address, row.input, row.args...); err != nil || !strings.HasPrefix(out, "Success! Imported: team/transit/keys/") {
			t.Errorf("%q: %q, %v", row.args, out, err)
		}
	}
	for _, name := range []string{"typed", "piped"} {
		if got := h.Data(conclave.Read, "export/encryption-key/"+name, nil)["keys"].(map[string]any)["1"]; got != raw {
			t.Errorf("%s is %v, want %s", name, got, raw)
		}
	}
	for _, name := range []string{"ec", "half"} {
		if got := exported("signing-key", name); got != base64.StdEncoding.EncodeToString(private) {
			t.Errorf("%s is %v", name, got)
		}
	}
	sec1, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		text string
		args []string
	}{
		{"MOUNT/keys/NAME", []string{"import", "team/transit/typed", raw}},
		{"MOUNT/keys/NAME", []string{"import", "keys/typed", raw}},
		{"neither base64 nor PEM", []string{"import", "team/transit/keys/x", "???"}},
		{"neither base64 nor PEM", []string{"import", "team/transit/keys/x", ""}},
		{"no such file", []string{"import", "team/transit/keys/x", "@" + dir + "/none"}},
		{"PKCS #8", []string{"import", "team/transit/keys/x", file("sec1.pem", "EC PRIVATE KEY", sec1)}},
		{"unknown hash function", []string{"import", "team/transit/keys/x", raw, "hash_function=MD5"}},
		{"no transit engine", []string{"import", "other/keys/x", raw}},
		{"isn't of type", []string{"import", "team/transit/keys/x", privatePEM, "type=ed25519"}},
		{"existing key", []string{"import", "team/transit/keys/typed", raw}},
		{"no key found", []string{"import-version", "team/transit/keys/x", raw}},
		{"key=value", []string{"import", "team/transit/keys/x", raw, "exportable"}},
	} {
		out, err := run(t, address, "", row.args...)
		if err == nil || !strings.Contains(err.Error(), row.text) || strings.Contains(err.Error(), raw) {
			t.Errorf("%.60q: %q, %v, want an error with %q", row.args, out, err, row.text)
		}
	}
}
