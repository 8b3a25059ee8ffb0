package login

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"conclave/cmd/conclave/client"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
)

// vault answers logins. It keeps what they sent: route → fields.
type vault struct {
	got    map[string]map[string]any
	answer func(route string, fields map[string]any) map[string]any
}

func (v *vault) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	fields := make(map[string]any)
	_ = json.NewDecoder(r.Body).Decode(&fields)
	for name, values := range r.URL.Query() {
		fields[name] = values[0]
	}
	fields["wrapped for"], fields["namespace"] = r.Header.Get("X-Vault-Wrap-TTL"), r.Header.Get("X-Vault-Namespace")
	route := r.Method + " " + strings.TrimPrefix(r.URL.Path, "/v1/")
	v.got[route] = fields
	answer := v.answer(route, fields)
	if answer == nil {
		w.WriteHeader(http.StatusForbidden)
		answer = map[string]any{"errors": []string{"permission denied"}}
	}
	_ = json.NewEncoder(w).Encode(answer)
}

// start is a session with a vault, which reads input; what it prints goes to out.
func start(t *testing.T, input string, out, err io.Writer, answer func(route string, fields map[string]any) map[string]any) (*client.Session, *vault) {
	t.Helper()
	v := &vault{map[string]map[string]any{}, answer}
	server := httptest.NewServer(v)
	t.Cleanup(server.Close)
	environment := map[string]string{"HOME": t.TempDir(), "LOGNAME": "ann"}
	return &client.Session{In: strings.NewReader(input), Out: out, Err: err, Address: server.URL, Getenv: func(name string) string { return environment[name] }}, v
}

func run(ctx context.Context, s *client.Session, cmd *cobra.Command, args ...string) error {
	cmd.SetArgs(args)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	return cmd.ExecuteContext(ctx)
}

var token = map[string]any{"auth": map[string]any{"client_token": "hvs.t", "accessor": "a", "lease_duration": 60}}

func TestMethodsSendWhatTheyTake(t *testing.T) {
	for _, tc := range []struct {
		name, input string
		args        []string
		route       string
		fields      map[string]any
	}{
		{"a password that is asked for", "pw\n", []string{"--method=userpass", "username=Ann"}, "PUT auth/userpass/login/Ann", map[string]any{"password": "pw"}},
		{"a password that is given", "pw", []string{"--method=userpass", "--path=auth/people/", "username=ann", "password=-"}, "PUT auth/people/login/ann", map[string]any{"password": "pw"}},
		{"the name of this machine's user", "pw\n", []string{"--method=LDAP"}, "PUT auth/ldap/login/ann", map[string]any{"password": "pw"}},
		{"a secret-id", "sid\n", []string{"--method=approle", "role_id=r"}, "PUT auth/approle/login", map[string]any{"role_id": "r", "secret_id": "sid"}},
		{"no secret-id", "", []string{"--method=approle", "role_id=r", "secret_id="}, "PUT auth/approle/login", map[string]any{"role_id": "r", "secret_id": ""}},
		{"a JWT", "jot\n", []string{"--method=jwt", "role=ci"}, "PUT auth/jwt/login", map[string]any{"role": "ci", "jwt": "jot"}},
		{"a pod's token", "", []string{"--method=kubernetes", "role=web", "jwt=jot"}, "PUT auth/kubernetes/login", map[string]any{"role": "web", "jwt": "jot"}},
	} {
		var out strings.Builder
		s, v := start(t, tc.input, &out, io.Discard, func(string, map[string]any) map[string]any { return token })
		if err := run(t.Context(), s, Command(s), append(tc.args, "--token-only")...); err != nil {
			t.Errorf("%s: %v", tc.name, err)
		}
		tc.fields["wrapped for"], tc.fields["namespace"] = "", ""
		if got := v.got[tc.route]; fmt.Sprint(got) != fmt.Sprint(tc.fields) || out.String() != "hvs.t" {
			t.Errorf("%s: %v was sent, and %q printed; want %v to %s", tc.name, v.got, out.String(), tc.fields, tc.route)
		}
	}
}

func TestLoginsThatCannotBeAreUsageErrors(t *testing.T) {
	for _, args := range [][]string{{"--method=userpass"}, {"--method=userpas", "username=a"}, {"--method=approle"}, {"--method=cert"}, {"--method=kubernetes", "role=web"},
		{"--method=userpass", "username=a", "username=b"}, {"--path=x", "t"}, {"a", "b"}, {"--method=oidc", "skip_browser=maybe"}} {
		s, v := start(t, "", io.Discard, io.Discard, func(string, map[string]any) map[string]any { return token })
		if err := run(t.Context(), s, Command(s), args...); client.ExitCode(err) != client.ExitLocal || len(v.got) > 0 {
			t.Errorf("login %v: %v, and %v was sent, want a usage error", args, err, v.got)
		}
	}
}

func TestSecondFactorsAreAskedFor(t *testing.T) {
	var out, told strings.Builder
	s, v := start(t, "pw\n123456\n", &out, &told, func(route string, _ map[string]any) map[string]any {
		if strings.HasPrefix(route, "PUT auth/") {
			return map[string]any{"auth": map[string]any{"mfa_requirement": map[string]any{"mfa_request_id": "r", "mfa_constraints": map[string]any{
				"c": map[string]any{"any": []any{map[string]any{"id": "push", "type": "duo"}, map[string]any{"id": "m", "type": "totp", "uses_passcode": true}}}}}}}
		}
		return token
	})
	if err := run(t.Context(), s, Command(s), "--method=userpass", "--no-print", "username=ann"); err != nil {
		t.Fatal(err)
	}
	if got := v.got["POST sys/mfa/validate"]; fmt.Sprint(got["mfa_payload"]) != "map[m:[123456]]" || got["mfa_request_id"] != "r" || out.String() != "" {
		t.Errorf("%v was sent and %q printed", got, out.String())
	}
	files := client.TokenFiles{Own: filepath.Join(s.Getenv("HOME"), ".conclave-token")}
	if kept, err := files.Read(); kept != "hvs.t" || err != nil {
		t.Errorf("%q is kept, %v", kept, err)
	}
}

// terminal is what a person sees, with the address to go to when it has been shown.
type terminal struct {
	strings.Builder
	address chan string
}

var address = regexp.MustCompile(`http://provider\S+`)

func (t *terminal) Write(b []byte) (int, error) {
	if found := address.Find(b); found != nil {
		t.address <- string(found)
	}
	return t.Builder.Write(b)
}

// visitAs begins a login with a browser, has browse come back as it pleases, and returns what the login has come to.
func visitAs(t *testing.T, v func(route string, fields map[string]any) map[string]any, browse func(back *url.URL, state string) error, args ...string) (*vault, string, error) {
	t.Helper()
	var out strings.Builder
	shown := &terminal{address: make(chan string, 1)}
	s, fake := start(t, "", &out, shown, nil)
	s.WrapTTL, s.Namespace = "1m", "team"
	fake.answer = func(route string, fields map[string]any) map[string]any {
		if route == "PUT auth/oidc/oidc/auth_url" {
			query := url.Values{"state": {"st ate,ns=x"}, "redirect_uri": {fields["redirect_uri"].(string)}}
			return map[string]any{"data": map[string]any{"auth_url": "http://provider.example/auth?" + query.Encode()}}
		}
		return v(route, fields)
	}
	var group errgroup.Group
	group.Go(func() error {
		return run(t.Context(), s, Command(s), append([]string{"--method=oidc", "--no-store", "--field=token", "role=dev", "skip_browser=true", "listenaddress=127.0.0.1"}, args...)...)
	})
	select {
	case text := <-shown.address:
		parsed, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		back, err := url.Parse(parsed.Query().Get("redirect_uri"))
		if err != nil {
			t.Fatal(err)
		}
		back.Host = "127.0.0.1:" + back.Port()
		if err := browse(back, parsed.Query().Get("state")); err != nil {
			t.Fatal(err)
		}
	case <-t.Context().Done():
		t.Fatal("no address was shown")
	}
	err := group.Wait()
	return fake, out.String(), err
}
