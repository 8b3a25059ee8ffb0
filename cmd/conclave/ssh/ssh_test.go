package ssh

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"conclave/cmd/conclave/client"
)

// outcome is what one call of the command did.
type outcome struct {
	sent     []string // "METHOD path body"
	out, err string
	failure  error
}

// call runs the command against a vault that is made up, with a program in ssh's place that shows its arguments.
func call(t *testing.T, args ...string) outcome {
	t.Helper()
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	write("key.pub", "ssh-ed25519 AAAA me\n", 0o600)
	write("ssh", "#!/bin/sh\nfor a in \"$@\"; do echo \"<$a>\"; case $a in CertificateFile=*|UserKnownHostsFile=/*) cat \"${a#*=}\";; esac; done\nexit ${SSH_EXIT:-0}\n", 0o700)
	t.Setenv("PATH", dir+":/usr/bin:/bin")
	var o outcome
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		o.sent = append(o.sent, strings.TrimSpace(r.Method+" "+r.URL.Path+" "+string(body)))
		data := map[string]any{"signed_key": "the certificate\n", "serial_number": "1"}
		switch {
		case strings.Contains(r.URL.Path, "/creds/"):
			data = map[string]any{"key": "the-password", "port": 2222, "ip": "192.0.2.7", "username": "ubuntu", "key_type": "otp"}
		case strings.HasSuffix(r.URL.Path, "/config/ca"):
			data = map[string]any{"public_key": "ssh-ed25519 HOSTS\n"}
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"data": data})
	}))
	defer server.Close()
	var out, errs bytes.Buffer
	s := &client.Session{In: strings.NewReader(""), Out: &out, Err: &errs, Address: server.URL, Getenv: func(string) string { return "" }}
	cmd := Command(s)
	cmd.SetArgs(append([]string{"--public-key-path=" + filepath.Join(dir, "key.pub")}, args...))
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	o.failure = cmd.ExecuteContext(t.Context())
	o.out, o.err = strings.ReplaceAll(out.String(), dir, "DIR"), errs.String()
	return o
}

func TestModeCASignsAndLogsIn(t *testing.T) {
	o := call(t, "--mode=ca", "--role=ops", "deploy@server", "-p", "2200", "ls", "-l")
	if want := `PUT /v1/ssh/sign/ops {"cert_type":"user","public_key":"ssh-ed25519 AAAA me\n","valid_principals":"deploy"}`; len(o.sent) != 1 || o.sent[0] != want {
		t.Errorf("sent %q, want %s", o.sent, want)
	}
	for _, want := range []string{"<-i>\n<DIR/key>\n", "the certificate\n", "<-l>\n<deploy>\n<server>\n<-p>\n<2200>\n<ls>\n<-l>\n", "<StrictHostKeyChecking=ask>"} {
		if o.failure != nil || !strings.Contains(o.out, want) {
			t.Errorf("ssh was started with\n%s%v\nwant %q in it", o.out, o.failure, want)
		}
	}
	o = call(t, "--mode=ca", "--role=ops", "--mount-point=/other/", "--valid-principals=a,b", "--extensions=permit-pty", "--host-key-mount-point=hosts", "--host-key-hostnames=*.example.com", "deploy@server")
	if want := `"extensions":{"permit-pty":""},"public_key":"ssh-ed25519 AAAA me\n","valid_principals":"a,b"}`; len(o.sent) != 2 || !strings.HasPrefix(o.sent[0], "PUT /v1/other/sign/ops ") || !strings.HasSuffix(o.sent[0], want) || o.sent[1] != "GET /v1/hosts/config/ca" {
		t.Errorf("sent %q", o.sent)
	}
	if want := "@cert-authority *.example.com ssh-ed25519 HOSTS\n"; !strings.Contains(o.out, want) {
		t.Errorf("known hosts aren't %q:\n%s", want, o.out)
	}
	if o = call(t, "--mode=ca", "--role=ops", "--no-exec", "deploy@server"); !strings.Contains(o.out, "the certificate") || strings.Contains(o.out, "<-i>") {
		t.Errorf("without ssh, shown is\n%s", o.out)
	}
	t.Setenv("SSH_EXIT", "7")
	if o = call(t, "--mode=ca", "--role=ops", "deploy@server"); client.ExitCode(o.failure) != 7 {
		t.Errorf("ssh ends with 7, the command with %d: %v", client.ExitCode(o.failure), o.failure)
	}
}

func TestModeOTPGetsAPassword(t *testing.T) {
	o := call(t, "--mode=otp", "--role=legacy", "ubuntu@192.0.2.7", "uptime")
	if want := `PUT /v1/ssh/creds/legacy {"ip":"192.0.2.7","username":"ubuntu"}`; len(o.sent) != 1 || o.sent[0] != want {
		t.Errorf("sent %q, want %s", o.sent, want)
	}
	if o.failure != nil || strings.Contains(o.out, "the-password") {
		t.Errorf("the password is among the arguments, or %v:\n%s", o.failure, o.out)
	}
	if want := "<-p>\n<2222>\n<-l>\n<ubuntu>\n<192.0.2.7>\n<uptime>\n"; !strings.Contains(o.out, want) {
		t.Errorf("ssh was started with\n%s", o.out)
	}
	if o = call(t, "--mode=otp", "--role=legacy", "ubuntu@192.0.2.7", "-p", "22"); strings.Contains(o.out, "2222") {
		t.Errorf("with a port of one's own, ssh was started with\n%s", o.out)
	}
}

func TestWhatCantBeALoginIsRefused(t *testing.T) {
	for _, args := range [][]string{
		{"--mode=ca", "deploy@server"}, {"--role=ops", "deploy@server"}, {"--mode=dynamic", "--role=ops", "deploy@server"},
		{"--mode=ca", "--role=ops", "deploy@"}, {"--mode=ca", "--role=ops", "@server"}, {"--mode=ca", "--role=ops", "deploy@-oProxyCommand=x"}, {"--mode=ca", "--role=ops", "-oProxyCommand=x@server"},
		{"--mode=ca", "--role=ops"},
	} {
		if o := call(t, args...); o.failure == nil || len(o.sent) > 0 || o.out != "" {
			t.Errorf("%q: %v, sent %q, shown %q", args, o.failure, o.sent, o.out)
		}
	}
}
