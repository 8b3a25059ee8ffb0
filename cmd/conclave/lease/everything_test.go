package lease

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"conclave/cmd/conclave/client"
)

// emergency answers as the vault does: each job is done at its second look.
func emergency(t *testing.T, sent *[]string) *httptest.Server {
	looks := map[string]int{}
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		if r.Method == http.MethodPut {
			*sent = append(*sent, string(bytes.TrimSpace(body)))
			fmt.Fprintf(w, `{"data":{"id":"job%d"}}`, len(*sent))
			return
		}
		looks[r.URL.Path]++
		dry := strings.HasSuffix(r.URL.Path, "job1")
		fmt.Fprintf(w, `{"data":{"id":"j","done":%v,"dry_run":%v,"phase":"leases","tokens":1,"leases":2,"leases_waiting":2,"taken_back":{"certificate":3},"failed":1,`+
			`"items":[{"kind":"token","name":"abc"}],"failures":[{"kind":"certificate","name":"pki/7","error":"closed"}],"kept":[{"kind":"token","name":"mine"}]}}`,
			looks[r.URL.Path] > 1, dry)
	}))
}

func run(t *testing.T, address string, args ...string) (out, diagnostics string, err error) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	s := &client.Session{Out: &stdout, Err: &stderr, In: strings.NewReader(""), Address: address, Getenv: func(string) string { return "" }}
	cmd := Everything(s)
	s.AddFlags(cmd)
	cmd.SetArgs(append(args, "--address="+address))
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	err = cmd.ExecuteContext(t.Context())
	return stdout.String(), stderr.String(), err
}

func TestEverythingIsADryRunFirst(t *testing.T) {
	var sent []string
	server := emergency(t, &sent)
	defer server.Close()
	out, told, err := run(t, server.URL, "--path=database/creds")
	if err != nil || len(sent) != 1 || sent[0] != `{"dry_run":true,"path":"database/creds"}` {
		t.Fatalf("%v; sent %q", err, sent)
	}
	for _, text := range []string{"Would be revoked", "certificate: 3", "pki/7", "closed", "mine"} {
		if !strings.Contains(out, text) {
			t.Errorf("%q isn't in\n%s", text, out)
		}
	}
	if !strings.Contains(told, "Nothing was changed") || !strings.Contains(told, "at leases: 1 tokens, 2 leases, certificate: 3") {
		t.Errorf("told:\n%s", told)
	}
}

func TestEverythingIsRevokedOnRequest(t *testing.T) {
	var sent []string
	server := emergency(t, &sent)
	defer server.Close()
	out, _, err := run(t, server.URL, "--entity=e1", "--reason=leaked", "--yes", "--format=json")
	if err != nil || len(sent) != 2 || sent[1] != `{"dry_run":false,"entity":"e1","reason":"leaked"}` {
		t.Fatalf("%v; sent %q", err, sent)
	}
	if strings.Count(out, `"dry_run": false`) != 1 || strings.Contains(out, `"dry_run": true`) {
		t.Errorf("the output is not one report:\n%s", out)
	}
	out, _, err = run(t, server.URL, "--entity=e1", "--yes")
	if err != nil || !strings.Contains(out, "Revoked") || !strings.Contains(out, "2 leases wait to be ended outside") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestEverythingNeedsOneScope(t *testing.T) {
	var sent []string
	server := emergency(t, &sent)
	defer server.Close()
	for _, args := range [][]string{{"--yes"}, {"--yes", "--path=a", "--mount=b"}} {
		if _, _, err := run(t, server.URL, args...); client.ExitCode(err) != client.ExitLocal || len(sent) != 0 {
			t.Errorf("%v: %v; sent %q", args, err, sent)
		}
	}
}
