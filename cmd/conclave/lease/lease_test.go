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
		{"revoke --force db/creds/a/1", ""},
		{"revoke --prefix /", ""},
	} {
		sent := ""
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			sent += r.Method + " " + r.URL.Path + " " + string(bytes.TrimSpace(body))
			_, _ = io.WriteString(w, `{"lease_id":"db/creds/a/1","lease_duration":60,"renewable":true,"data":{"id":"db/creds/a/1"}}`)
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
