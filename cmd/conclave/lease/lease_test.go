package lease

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"conclave/cmd/conclave/client"
)

// TestCommandsSendWhatVaultsDo has each command send one request.
func TestCommandsSendWhatVaultsDo(t *testing.T) {
	for _, tc := range []struct{ args, sent string }{
		{"lookup db/creds/a/1", `PUT /v1/sys/leases/lookup {"lease_id":"db/creds/a/1"}`},
		{"renew db/creds/a/1", `PUT /v1/sys/leases/renew {"lease_id":"db/creds/a/1"}`},
		{"renew -i 1h /db/creds/a/1/", `PUT /v1/sys/leases/renew {"increment":"1h","lease_id":"db/creds/a/1"}`},
		{"revoke db/creds/a/1", `PUT /v1/sys/leases/revoke/db/creds/a/1 {"sync":false}`},
		{"revoke --sync db/creds/a/1", `PUT /v1/sys/leases/revoke/db/creds/a/1 {"sync":true}`},
		{"revoke --prefix --sync db/creds", `PUT /v1/sys/leases/revoke-prefix/db/creds {"sync":true}`},
		{"revoke --prefix --force db/creds/", `PUT /v1/sys/leases/revoke-force/db/creds `},
		{"revoke --prefix --force --reason moved db/creds/", `PUT /v1/sys/leases/revoke-force/db/creds {"reason":"moved"}`},
		{"list", `GET /v1/sys/leases/lookup?list=true `},
		{"list --limit 5 --after x /db/creds/", `GET /v1/sys/leases/lookup/db/creds?after=x&limit=5&list=true `},
		{"queue list --limit 5", `GET /v1/sys/leases/queue?limit=5&list=true `},
		{"queue read k", `GET /v1/sys/leases/queue/k `},
		{"queue retry k", `PUT /v1/sys/leases/queue/k/retry `},
		{"queue abandon k", ""},
		{"queue abandon --reason moved k", `PUT /v1/sys/leases/queue/k/abandon {"reason":"moved"}`},
		{"count", `GET /v1/sys/leases/count `},
		{"count --type irrevocable", `GET /v1/sys/leases/count?type=irrevocable `},
		{"irrevocable list", `GET /v1/sys/leases?type=irrevocable `},
		{"irrevocable forget k", `DELETE /v1/sys/leases/abandoned/k `},
		{"damaged list", `GET /v1/sys/leases/damaged?list=true `},
		{"damaged read k", `GET /v1/sys/leases/damaged/k `},
		{"damaged retry k", `PUT /v1/sys/leases/damaged/k/retry `},
		{"damaged forget k", `DELETE /v1/sys/leases/damaged/k `},
		{"tidy", `PUT /v1/sys/leases/tidy `},
		{"revoke --force db/creds/a/1", ""},
		{"revoke --prefix /", ""},
	} {
		sent := ""
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			sent += r.Method + " " + r.URL.RequestURI() + " " + string(bytes.TrimSpace(body))
			_, _ = io.WriteString(w, `{"lease_id":"db/creds/a/1","lease_duration":60,"renewable":true,"data":{"id":"db/creds/a/1","keys":["a"]}}`)
		}))
		s := &client.Session{Out: io.Discard, Err: io.Discard, Address: server.URL, Getenv: func(string) string { return "" }}
		cmd := Command(s)
		cmd.SetArgs(strings.Fields(tc.args))
		cmd.SilenceErrors, cmd.SilenceUsage = true, true
		err := cmd.ExecuteContext(t.Context())
		server.Close()
		if sent != tc.sent || (err == nil) != (tc.sent != "") || err != nil && client.ExitCode(err) != client.ExitLocal {
			t.Errorf("%s: %s was sent, %v, want %s", tc.args, sent, err, tc.sent)
		}
	}
}
