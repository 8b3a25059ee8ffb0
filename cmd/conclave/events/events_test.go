package events

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/hashicorp/vault/api"

	"conclave/cmd/conclave/client"
)

// fakeServer has one script for each connection.
type fakeServer struct {
	t       *testing.T
	scripts []func(conn *websocket.Conn)
	since   []string // that the connections asked for
}

func (f *fakeServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("X-Vault-Token") != "root" || r.URL.Path != "/v1/sys/events/subscribe/kv*" {
		f.t.Errorf("%s %s with token %q", r.Method, r.URL, r.Header.Get("X-Vault-Token"))
	}
	if r.Header.Get("Upgrade") == "" {
		fmt.Fprint(w, `{"data":{"cursor":"start"}}`)
		return
	}
	f.since = append(f.since, r.URL.Query().Get("since"))
	if len(f.scripts) == 0 {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `{"errors":["permission denied"]}`)
		return
	}
	script := f.scripts[0]
	f.scripts = f.scripts[1:]
	if script == nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		f.t.Error(err)
		return
	}
	script(conn)
}

func (f *fakeServer) send(conn *websocket.Conn, cursors ...string) {
	for _, cursor := range cursors {
		if err := conn.Write(f.t.Context(), websocket.MessageText, []byte(`{"cursor":"`+cursor+`"}`)); err != nil {
			f.t.Error(err)
		}
	}
}

// The command goes on where it was when its connection is lost, and ends when it may not go on.
func TestSubscribeGoesOn(t *testing.T) {
	f := &fakeServer{t: t}
	f.scripts = []func(*websocket.Conn){
		func(c *websocket.Conn) { _ = c.CloseNow() },
		func(c *websocket.Conn) {
			f.send(c, "one", "two")
			_ = c.Close(websocket.StatusGoingAway, "the server stops")
		},
		nil,
		func(c *websocket.Conn) {
			f.send(c, "three")
			_ = c.Close(websocket.StatusTryAgainLater, "no quorum")
		},
	}
	server := httptest.NewServer(f)
	defer server.Close()
	config := api.DefaultConfig()
	config.Address = server.URL
	config.MaxRetries = 0
	c, err := api.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	c.SetToken("root")
	var out, told bytes.Buffer
	s := &client.Session{Out: &out, Err: &told}
	w := &wish{types: "kv*"}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err = w.follow(ctx, s, c)
	answer, refused := errors.AsType[*api.ResponseError](err)
	if !refused || answer.StatusCode != http.StatusForbidden || len(answer.Errors) != 1 {
		t.Errorf("follow = %v, want that it is refused", err)
	}
	if got, want := strings.Join(f.since, " "), "start start two two three"; got != want {
		t.Errorf("connections began at %q, want %q", got, want)
	}
	if got, want := out.String(), "{\"cursor\":\"one\"}\n{\"cursor\":\"two\"}\n{\"cursor\":\"three\"}\n"; got != want {
		t.Errorf("printed %q, want %q", got, want)
	}
	for _, reason := range []string{"the server stops", "no quorum", "503"} {
		if !strings.Contains(told.String(), reason) {
			t.Errorf("told %q, want %q in it", told.String(), reason)
		}
	}
}

func TestSubscribeEndsWhenItMayNotGoOn(t *testing.T) {
	f := &fakeServer{t: t}
	f.scripts = []func(*websocket.Conn){func(c *websocket.Conn) {
		_ = c.Close(websocket.StatusPolicyViolation, "permission denied; since=x")
	}}
	server := httptest.NewServer(f)
	defer server.Close()
	config := api.DefaultConfig()
	config.Address = server.URL
	c, err := api.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	c.SetToken("root")
	var out bytes.Buffer
	err = (&wish{types: "kv*"}).follow(t.Context(), &client.Session{Out: &out, Err: &out}, c)
	if client.ExitCode(err) != client.ExitRemote || !strings.Contains(err.Error(), "since=x") {
		t.Errorf("follow = %v", err)
	}
}
