package rotate

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"conclave/cmd/conclave/client"
)

// run runs a command against a server that answers with data, and returns what was sent and printed.
func run(t *testing.T, data string, args ...string) (sent, printed string, err error) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		sent += strings.TrimSpace(r.Method + " " + r.URL.Path + " " + string(bytes.TrimSpace(body)))
		if data == "" {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		_, _ = io.WriteString(w, data)
	}))
	defer server.Close()
	var out bytes.Buffer
	s := &client.Session{Out: &out, Err: io.Discard, Address: server.URL, Getenv: func(string) string { return "" }}
	cmd := Command(s)
	cmd.SetArgs(args)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	err = cmd.ExecuteContext(t.Context())
	return sent, out.String(), err
}

func TestCommandsSendOneRequest(t *testing.T) {
	const done = `{"data":{"version":3}}`
	for _, tc := range []struct {
		args, data, sent string // no sent: wrong use
	}{
		{"now app", done, "PUT /v1/rotate/rotate/app {}"},
		{"now --new-value --reason=left app", done, `PUT /v1/rotate/rotate/app {"new_value":true,"reason":"left"}`},
		{"--mount=/team/keys/ emergency --reason leaked app", done, `PUT /v1/team/keys/emergency/app {"reason":"leaked"}`},
		{"pause --reason=holidays app", "", `PUT /v1/rotate/pause/app {"reason":"holidays"}`},
		{"resume app", "", `PUT /v1/rotate/resume/app {}`},
		{"status app", done, "GET /v1/rotate/status/app"},
		{"history app", `{"data":{"history":[]}}`, "GET /v1/rotate/history/app"},
		{"list", `{"data":{"keys":["app"]}}`, "GET /v1/rotate/entries"},
		{"now app/other", done, ""},
		{"now --mount=/ app", done, ""},
	} {
		sent, _, err := run(t, tc.data, strings.Fields(tc.args)...)
		if sent != tc.sent || (err == nil) != (tc.sent != "") || err != nil && client.ExitCode(err) != client.ExitLocal {
			t.Errorf("%s: %s was sent, %v, want %s", tc.args, sent, err, tc.sent)
		}
	}
}

func TestHistoryIsATable(t *testing.T) {
	_, printed, err := run(t, `{"data":{"history":[{"version":3,"what":"request","at":"2026-01-02T03:04:05Z","who":"ann","reason":"bob has left","attempts":1},
		{"version":2,"what":"schedule","at":"2026-01-01T03:00:00Z","attempts":4,"failure":"hand-over: the webhook can't be reached"}]}}`, "history", "app")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(printed), "\n")
	if len(lines) != 4 || !strings.Contains(lines[2], "bob has left") || !strings.Contains(lines[3], "can't be reached") {
		t.Errorf("printed:\n%s", printed)
	}
}

func TestAbsentEntriesAreErrors(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"errors":[]}`)
	}))
	defer server.Close()
	for _, args := range [][]string{{"status", "app"}, {"history", "app"}, {"list"}} {
		s := &client.Session{Out: io.Discard, Err: io.Discard, Address: server.URL, Getenv: func(string) string { return "" }}
		cmd := Command(s)
		cmd.SetArgs(args)
		cmd.SilenceErrors, cmd.SilenceUsage = true, true
		if err := cmd.ExecuteContext(t.Context()); err == nil || client.ExitCode(err) == client.ExitLocal {
			t.Errorf("%v: %v", args, err)
		}
	}
}
