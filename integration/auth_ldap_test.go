package integration

import (
	"context"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// directoryText is the configuration of a directory server, and directoryPeople what it holds.
const directoryText = `include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
database mdb
suffix "dc=example"
directory DIR/data
maxsize 16777216
access to attrs=userPassword by anonymous auth
access to * by * read
`

const directoryPeople = `dn: dc=example
objectClass: domain
dc: example

dn: uid=ann,dc=example
objectClass: inetOrgPerson
uid: ann
cn: Ann
sn: Ant
userPassword: correct horse

dn: cn=devs,dc=example
objectClass: groupOfNames
cn: devs
member: uid=ann,dc=example
`

// startDirectory starts a real directory server, which ends with the test, and returns its address.
func startDirectory(t *testing.T) string {
	t.Helper()
	program, err := os.ReadFile("/usr/sbin/slapd")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("slapd is not installed: apt-get install slapd")
		}
		t.Skip("slapd is not installed (Debian: apt-get install slapd): no real directory to test against")
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	binary, conf, people := filepath.Join(dir, "slapd"), filepath.Join(dir, "conf"), filepath.Join(dir, "people")
	for file, text := range map[string]string{binary: string(program), conf: strings.ReplaceAll(directoryText, "DIR", dir), people: directoryPeople} {
		// The server is a copy, since a distribution may confine its own to its own directories.
		if err := os.WriteFile(file, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command(binary, "-Tadd", "-f", conf, "-l", people).CombinedOutput(); err != nil {
		t.Fatalf("fill the directory: %v\n%s", err, out)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	server := exec.Command(binary, "-f", conf, "-h", "ldap://"+address, "-d", "0")
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	})
	eventually(t, 20*time.Second, func(ctx context.Context) error {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err == nil {
			err = conn.Close()
		}
		return err
	})
	return "ldap://" + address
}

// TestPeopleOfADirectoryOnEachNode has a person whom a real directory knows log in everywhere.
func TestPeopleOfADirectoryOnEachNode(t *testing.T) {
	address := startDirectory(t)
	l := startLab(t, 3)
	ctx := within(t, 2*time.Minute)
	root := sdk(t, l, 1)
	enableAuth(t, root, "ldap")
	mustWrite(t, ctx, root, "auth/ldap/config", map[string]any{"url": address, "userdn": "dc=example", "userattr": "uid", "groupdn": "dc=example", "discoverdn": true, "token_ttl": "10m"})
	mustWrite(t, ctx, sdk(t, l, 2), "auth/ldap/groups/devs", map[string]any{"policies": "dev"})
	mustWrite(t, ctx, sdk(t, l, 3), "auth/ldap/users/ann", map[string]any{"policies": "ann"})
	login := loginFields{"auth/ldap/login/ann", map[string]any{"password": "correct horse"}}
	eachNode(t, ctx, l, nodesOf(t, l), login, "ann", "default", "dev")
	for n := 1; n <= 3; n++ {
		for _, wrong := range []loginFields{{"auth/ldap/login/ann", map[string]any{"password": "wrong"}}, {"auth/ldap/login/nobody", login.fields}} {
			_, err := anonymous(t, l, n).Auth().Login(ctx, wrong)
			wantRefusal(t, err, http.StatusBadRequest, "")
		}
	}
}
