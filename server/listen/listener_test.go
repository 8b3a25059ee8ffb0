package listen

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"conclave/server/config"
)

func TestOpenSaysWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte("neither a socket nor a certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	taken, err := Open(config.Listener{Kind: "tcp", Address: "127.0.0.1:0"})
	if err != nil {
		t.Fatalf("Open of a free port = %v", err)
	}
	defer func() { _ = taken.Close() }()
	for _, tc := range []struct {
		name     string
		settings config.Listener
		says     string
	}{
		{"port in use", config.Listener{Kind: "tcp", Address: taken.Addr().String()}, "in use"},
		{"no certificate", config.Listener{Kind: "tcp", Address: "127.0.0.1:0", TLS: &config.TLS{CertFile: filepath.Join(dir, "none"), KeyFile: text}}, "load certificate"},
		{"not a certificate", config.Listener{Kind: "tcp", Address: "127.0.0.1:0", TLS: &config.TLS{CertFile: text, KeyFile: text}}, "load certificate"},
		{"not a socket", config.Listener{Kind: "unix", Address: text}, "not a socket"},
		{"no folder", config.Listener{Kind: "unix", Address: filepath.Join(dir, "none", "s")}, "no such file"},
		{"unknown user", config.Listener{Kind: "unix", Address: filepath.Join(dir, "u"), SocketUser: "no-such-user"}, `no user "no-such-user"`},
		{"unknown group", config.Listener{Kind: "unix", Address: filepath.Join(dir, "g"), SocketGroup: "no-such-group"}, `no group "no-such-group"`},
	} {
		l, err := Open(tc.settings)
		if err == nil {
			_ = l.Close()
		}
		if err == nil || !strings.Contains(err.Error(), tc.says) || !strings.Contains(err.Error(), tc.settings.Address) {
			t.Errorf("%s: Open = %v, want an error with the address and %q", tc.name, err, tc.says)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "u")); !os.IsNotExist(err) {
		t.Errorf("a socket that could not be given away was left behind: %v", err)
	}
}

func TestSocketsAreClosedToOthersUnlessTheConfigurationSaysSo(t *testing.T) {
	for mode, want := range map[os.FileMode]os.FileMode{0: 0o600, 0o666: 0o666} {
		path := filepath.Join(t.TempDir(), "s")
		own := strconv.Itoa(os.Getgid())
		l, err := Open(config.Listener{Kind: "unix", Address: path, SocketMode: mode, SocketUser: strconv.Itoa(os.Getuid()), SocketGroup: own})
		if err != nil {
			t.Fatalf("Open = %v", err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("mode %o gives %v, %v, want %o", mode, info, err, want)
		}
		if conn, err := net.Dial("unix", path); err != nil {
			t.Errorf("connect = %v", err)
		} else {
			_ = conn.Close()
		}
		if err := l.Reload(); err != nil {
			t.Errorf("Reload of a plain listener = %v", err)
		}
		_ = l.Close()
	}
}
