package login

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"runtime"
	"strconv"
	"time"

	"conclave/cmd/conclave/client"

	"github.com/hashicorp/vault/api"
	"golang.org/x/sync/errgroup"
)

// Limits of a login with a browser.
const (
	browserTime   = 10 * time.Minute // as long as the vault keeps one that has begun
	pageTime      = 5 * time.Second  // for the browser to get its last page
	maxCallback   = 64 << 10         // bytes of what the browser brings
	callbackRoute = "/oidc/callback"
)

// browserFields are those that say how the browser comes back, with their defaults. They aren't sent.
var browserFields = map[string]string{"listenaddress": "localhost", "port": "8250", "callbackmethod": "http", "callbackhost": "localhost",
	"callbackport": "", "skip_browser": "false"}

// withBrowser has the vault begin a login to an OpenID provider, and waits for the browser that the provider sends back.
func withBrowser(ctx context.Context, a *attempt) (*api.Secret, error) {
	set := make(map[string]string)
	for name, value := range browserFields {
		given, err := a.field(name)
		if err != nil {
			return nil, err
		}
		if set[name] = value; given != "" {
			set[name] = given
		}
		delete(a.fields, name)
	}
	if set["callbackport"] == "" {
		set["callbackport"] = set["port"]
	}
	skip, err := strconv.ParseBool(set["skip_browser"])
	if err != nil {
		return nil, client.Usagef("skip_browser is true or false")
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(set["listenaddress"], set["port"]))
	if err != nil {
		return nil, client.Usagef("wait for the browser: %w; port=PORT names another port", err)
	}
	defer listener.Close()
	back := url.URL{Scheme: set["callbackmethod"], Host: net.JoinHostPort(set["callbackhost"], set["callbackport"]), Path: callbackRoute}
	v := &visit{attempt: a, nonce: rand.Text(), wrap: a.c.CurrentWrappingLookupFunc(), came: make(chan outcome, 1)}
	address, err := v.begin(ctx, back.String())
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(a.s.Err, "Log in with the browser. If none opens, go to:\n\n    %s\n\n", address)
	if !skip && !a.s.NonInteractive {
		openBrowser(ctx, address)
	}
	return v.wait(ctx, listener)
}

// openBrowser shows address in this machine's browser, if there is one. The address is on the terminal as well.
func openBrowser(ctx context.Context, address string) {
	var cmd *exec.Cmd
	switch runtime.GOOS {
	case "darwin":
		cmd = exec.CommandContext(ctx, "open", address)
	case "windows":
		cmd = exec.CommandContext(ctx, "rundll32", "url.dll,FileProtocolHandler", address)
	default:
		cmd = exec.CommandContext(ctx, "xdg-open", address)
	}
	if cmd.Start() == nil {
		_ = cmd.Process.Release()
	}
}

// outcome is how a login ended.
type outcome struct {
	secret *api.Secret
	err    error
}

// visit is a browser's way to the provider and back. It serves the page that the provider sends the browser to.
type visit struct {
	*attempt
	nonce string // binds the end of the login to this program
	state string // what the browser has to bring
	wrap  api.WrappingLookupFunc
	came  chan outcome // of one element: later visits find it taken
}

// begin asks the vault for the provider's address.
func (v *visit) begin(ctx context.Context, back string) (string, error) {
	v.c.SetWrappingLookupFunc(nil) // the token is wrapped, not the way to it
	v.fields["redirect_uri"], v.fields["client_nonce"] = back, v.nonce
	begun, err := v.send(ctx, "oidc/auth_url")
	if err != nil {
		return "", err
	}
	address := ""
	if begun != nil {
		address, _ = begun.Data["auth_url"].(string)
	}
	if address == "" {
		return "", client.Remotef("the role doesn't let browsers come back to %s: it has to be one of the role's allowed_redirect_uris", back)
	}
	parsed, err := url.Parse(address)
	if err != nil || parsed.Scheme != "https" && parsed.Scheme != "http" {
		return "", client.Remotef("the provider's address can't be opened")
	}
	if v.state = parsed.Query().Get("state"); v.state == "" {
		return "", client.Remotef("the provider's address has no state")
	}
	return address, nil
}

// wait serves the browser until the login has ended.
func (v *visit) wait(ctx context.Context, listener net.Listener) (*api.Secret, error) {
	ctx, cancel := context.WithTimeout(ctx, browserTime)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	server := &http.Server{Handler: v, ReadHeaderTimeout: pageTime, ReadTimeout: pageTime, MaxHeaderBytes: maxCallback,
		BaseContext: func(net.Listener) context.Context { return ctx }}
	group.Go(func() error {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return client.Usagef("wait for the browser: %w", err)
		}
		return nil
	})
	var ended outcome
	select {
	case ended = <-v.came:
	case <-ctx.Done():
		if ended.err = ctx.Err(); errors.Is(ended.err, context.DeadlineExceeded) {
			ended.err = client.Remotef("the browser didn't come back within %v", browserTime)
		}
	}
	closing, stop := context.WithTimeout(context.WithoutCancel(ctx), pageTime)
	defer stop()
	_ = server.Shutdown(closing) // a page that isn't fetched changes nothing
	_ = server.Close()
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return ended.secret, ended.err
}

// The pages that the browser ends with. They show nothing of what it brought.
const (
	pageDone    = "<!DOCTYPE html><title>Conclave</title><p>You are logged in. You can close this window and go back to the terminal.\n"
	pageFailed  = "<!DOCTYPE html><title>Conclave</title><p>The login failed. The terminal says why.\n"
	pageUnknown = "<!DOCTYPE html><title>Conclave</title><p>This is not the login that the terminal waits for.\n"
)

// ServeHTTP takes the browser that comes back from the provider. Whoever doesn't bring the state is turned away.
func (v *visit) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxCallback)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	isCallback := r.URL.Path == callbackRoute && (r.Method == http.MethodGet || r.Method == http.MethodPost) && r.ParseForm() == nil
	if !isCallback || subtle.ConstantTimeCompare([]byte(r.Form.Get("state")), []byte(v.state)) != 1 {
		w.WriteHeader(http.StatusNotFound)
		_, _ = w.Write([]byte(pageUnknown))
		return
	}
	secret, err := v.end(r)
	select {
	case v.came <- outcome{secret, err}:
	default: // it came before
	}
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write([]byte(pageFailed))
		return
	}
	_, _ = w.Write([]byte(pageDone))
}

// end has the vault make a token of what the browser brought.
func (v *visit) end(r *http.Request) (*api.Secret, error) {
	ctx := r.Context()
	if r.Method == http.MethodPost { // response_mode=form_post: the vault gets the form first
		form := map[string]any{"state": v.state, "code": r.PostForm.Get("code"), "id_token": r.PostForm.Get("id_token")}
		if _, err := v.c.Logical().WriteWithContext(ctx, v.mount+"oidc/callback", form); err != nil {
			return nil, err
		}
	}
	v.c.SetWrappingLookupFunc(v.wrap)
	query := url.Values{"state": {v.state}, "client_nonce": {v.nonce}}
	for _, name := range []string{"code", "error"} {
		if value := r.Form.Get(name); value != "" {
			query.Set(name, value)
		}
	}
	return v.c.Logical().ReadWithDataWithContext(ctx, v.mount+"oidc/callback", query)
}
