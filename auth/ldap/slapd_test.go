package ldap

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	ldapv3 "github.com/go-ldap/ldap/v3"
)

const (
	people = "ou=people,dc=example,dc=org"
	groups = "ou=groups,dc=example,dc=org"
)

// directoryEntries are what the test's directory holds. All passwords are the name with "-secret".
const directoryEntries = `dn: dc=example,dc=org
objectClass: domain
dc: example

dn: ou=people,dc=example,dc=org
objectClass: organizationalUnit
ou: people

dn: ou=groups,dc=example,dc=org
objectClass: organizationalUnit
ou: groups

dn: ou=open,dc=example,dc=org
objectClass: organizationalUnit
ou: open

dn: cn=search,dc=example,dc=org
objectClass: organizationalRole
objectClass: simpleSecurityObject
cn: search
userPassword: search-secret

dn: uid=Alice,ou=people,dc=example,dc=org
objectClass: inetOrgPerson
uid: Alice
cn: Alice Liddell
sn: Liddell
mail: alice@example.org
telephoneNumber: 555-1234
userPassword: alice-secret

dn: uid=bob,ou=people,dc=example,dc=org
objectClass: inetOrgPerson
uid: bob
cn: Bob
cn: Robert
sn: Builder
mail: carol@example.org
userPassword: bob-secret

dn: uid=star*\28x\29,ou=people,dc=example,dc=org
objectClass: inetOrgPerson
uid: star*(x)
cn: Star
sn: Star
userPassword: star-secret

dn: uid=a\2cb\2bc,ou=people,dc=example,dc=org
objectClass: inetOrgPerson
uid: a,b+c
cn: Comma
sn: Comma
userPassword: comma-secret

dn: uid=twin,ou=people,dc=example,dc=org
objectClass: inetOrgPerson
uid: twin
cn: Twin
sn: One
userPassword: twin-secret

dn: cn=Twin,ou=people,dc=example,dc=org
objectClass: inetOrgPerson
uid: twin
cn: Twin
sn: Two
userPassword: twin-secret

dn: ou=elsewhere,ou=people,dc=example,dc=org
objectClass: referral
objectClass: extensibleObject
ou: elsewhere
ref: ldap://127.0.0.1:REFERRED/ou=people,dc=example,dc=org

dn: cn=Admins,ou=groups,dc=example,dc=org
objectClass: groupOfNames
cn: Admins
member: uid=Alice,ou=people,dc=example,dc=org

dn: cn=devs,ou=groups,dc=example,dc=org
objectClass: posixGroup
cn: devs
gidNumber: 1
memberUid: Alice
memberUid: bob

dn: cn=cn\3dadmins\2cdc\3dx,ou=groups,dc=example,dc=org
objectClass: groupOfNames
cn: cn=admins,dc=x
member: uid=bob,ou=people,dc=example,dc=org

dn: uid=temp,ou=people,dc=example,dc=org
objectClass: inetOrgPerson
uid: temp
cn: temp
sn: temp
userPassword: temp-secret

dn: cn=temps,ou=groups,dc=example,dc=org
objectClass: groupOfNames
cn: temps
member: uid=temp,ou=people,dc=example,dc=org
member: uid=nobody,ou=people,dc=example,dc=org

dn: cn=stars,ou=groups,dc=example,dc=org
objectClass: groupOfNames
cn: stars
member: uid=star*(x),ou=people,dc=example,dc=org

dn: cn=everybody,ou=open,dc=example,dc=org
objectClass: groupOfNames
cn: everybody
member: uid=Alice,ou=people,dc=example,dc=org
seeAlso: cn=Seen,dc=example,dc=org
seeAlso: ou=other,dc=example,dc=org
`

const directoryConf = `include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
include /etc/ldap/schema/nis.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile DIR/pid
# What a careless directory does: a name without a password binds as nobody, and succeeds.
allow bind_anon_cred bind_anon_dn
TLSCACertificateFile DIR/ca.pem
TLSCertificateFile DIR/cert.pem
TLSCertificateKeyFile DIR/key.pem
TLSVerifyClient try
database mdb
suffix "dc=example,dc=org"
rootdn "cn=root,dc=example,dc=org"
rootpw root-secret
directory DIR/data
maxsize 67108864
access to attrs=userPassword by anonymous auth by * none
access to dn.subtree="ou=groups,dc=example,dc=org" by dn.exact="cn=search,dc=example,dc=org" read by * none
access to dn.subtree="ou=open,dc=example,dc=org" by anonymous read by dn.exact="cn=search,dc=example,dc=org" read by * none
access to * by * read
`

// slapd is a real directory on loopback.
type slapd struct {
	plain, secured string // URLs
	ca             string // PEM
	dir            string // with cert.pem and key.pem, which are good for a client too
	referred       net.Listener
}

// slapdPath finds the server. In continuous integration it must be there.
func slapdPath(t testing.TB) string {
	t.Helper()
	for _, path := range []string{"slapd", "/usr/sbin/slapd", "/usr/lib/openldap/slapd"} {
		if found, err := exec.LookPath(path); err == nil {
			if _, err := os.Stat("/etc/ldap/schema/core.schema"); err == nil {
				return found
			}
		}
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("slapd is not installed: apt-get install slapd")
	}
	t.Skip("slapd is not installed (Debian: apt-get install slapd): no real directory to test against")
	return ""
}

// change alters the directory as its administrator.
func (d *slapd) change(t testing.TB, what func(conn *ldapv3.Conn) error) {
	t.Helper()
	conn, err := ldapv3.DialURL(d.plain)
	if err == nil {
		defer conn.Close()
		err = conn.Bind("cn=root,dc=example,dc=org", "root-secret")
	}
	if err == nil {
		err = what(conn)
	}
	if err != nil {
		t.Fatalf("change the directory: %v", err)
	}
}

// startSlapd starts a directory with the test's entries, with what is added to its configuration. It ends with the test.
func startSlapd(t testing.TB, added string) *slapd {
	t.Helper()
	path, dir := slapdPath(t), t.TempDir()
	d := &slapd{dir: dir}
	var err error
	if d.referred, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.referred.Close() })
	d.ca = makeCertificates(t, dir)
	_, port, _ := net.SplitHostPort(d.referred.Addr().String())
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(strings.ReplaceAll(strings.ReplaceAll(text, "DIR", dir), "REFERRED", port)), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	if err := os.Mkdir(filepath.Join(dir, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	conf, ldif := write("slapd.conf", directoryConf+added), write("entries.ldif", directoryEntries)
	// A copy runs where the distribution confines its own to its own directories.
	binary := filepath.Join(dir, "slapd")
	program, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(binary, program, 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(binary, "-Tadd", "-f", conf, "-l", ldif).CombinedOutput(); err != nil {
		t.Fatalf("fill the directory: %v\n%s", err, out)
	}
	for range 5 { // a port that is free now may not be a moment later
		if d.run(t, binary, conf) {
			return d
		}
	}
	t.Fatal("slapd doesn't start")
	return nil
}

// run starts the server on free ports and waits until it answers or ends.
func (d *slapd) run(t testing.TB, binary, conf string) bool {
	addresses := [2]string{freeAddress(t), freeAddress(t)}
	d.plain, d.secured = "ldap://"+addresses[0], "ldaps://"+addresses[1]
	var log bytes.Buffer
	cmd := exec.Command(binary, "-f", conf, "-h", d.plain+" "+d.secured, "-d", "0")
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })
	deadline, tick := time.NewTimer(20*time.Second), time.NewTicker(10*time.Millisecond)
	defer deadline.Stop()
	defer tick.Stop()
	for {
		if conn, err := net.Dial("tcp", addresses[1]); err == nil {
			_ = conn.Close()
			return true
		}
		select {
		case <-ended:
			t.Logf("slapd ended: %s", log.Bytes())
			return false
		case <-deadline.C:
			t.Fatal("slapd doesn't answer")
		case <-tick.C:
		}
	}
}

func freeAddress(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// makeCertificates makes an authority, and a certificate for 127.0.0.1, in dir. It returns the authority.
func makeCertificates(t testing.TB, dir string) string {
	t.Helper()
	newKey := func() *ecdsa.PrivateKey {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	now := time.Now()
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "directory CA"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	rootKey := newKey()
	save := func(name string, made *x509.Certificate, key *ecdsa.PrivateKey) []byte {
		der, err := x509.CreateCertificate(rand.Reader, made, root, key.Public(), rootKey)
		if err != nil {
			t.Fatal(err)
		}
		text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
		if err := os.WriteFile(filepath.Join(dir, name+".pem"), text, 0o600); err != nil {
			t.Fatal(err)
		}
		pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, strings.Replace(name+"-key.pem", "cert-key", "key", 1)), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	ca := save("ca", root, rootKey)
	save("cert", &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "directory"}, NotBefore: root.NotBefore, NotAfter: root.NotAfter,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}, newKey())
	return string(ca)
}

// silentServer accepts connections and does with them what serve does.
func silentServer(t testing.TB, serve func(net.Conn)) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() { serve(conn); _ = conn.Close() }()
		}
	}()
	return fmt.Sprintf("ldap://%s", l.Addr())
}

func readAll(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }
