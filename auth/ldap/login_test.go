package ldap

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	ldapv3 "github.com/go-ldap/ldap/v3"

	"conclave"
	"conclave/engine/enginetest"
)

// searching is a configuration that finds users with an account.
func searching(d *slapd, more map[string]any) map[string]any {
	fields := map[string]any{"url": d.plain, "binddn": "cn=search,dc=example,dc=org", "bindpass": "search-secret", "userdn": people, "userattr": "uid",
		"groupdn": groups, "token_policies": "base"}
	for name, value := range more {
		fields[name] = value
	}
	return fields
}

func configured(t testing.TB, fields map[string]any) *enginetest.Harness {
	t.Helper()
	h := enginetest.New(t, Engine{}, enginetest.Request(func(req *conclave.Request) {
		req.Remote = netip.MustParseAddrPort("192.0.2.1:4711")
	}))
	h.Data(conclave.Update, "config", fields)
	return h
}

// attempt logs in and returns who that is, or why not.
func attempt(h *enginetest.Harness, name, password string) (*conclave.Login, error) {
	resp, err := h.Do(conclave.Update, "login/"+name, map[string]any{"password": password})
	if err != nil {
		return nil, err
	}
	return resp.Login, nil
}

func logIn(t testing.TB, h *enginetest.Harness, name, password string) *conclave.Login {
	t.Helper()
	login, err := attempt(h, name, password)
	if err != nil {
		t.Fatalf("login as %q: %v", name, err)
	}
	return login
}

// refused wants a login to be answered as every wrong one is.
func refused(t testing.TB, h *enginetest.Harness, name, password string) {
	t.Helper()
	if _, err := attempt(h, name, password); err != error(errLogin) {
		t.Errorf("login as %q with %q: %v, want %q", name, password, err, errLogin)
	}
}

// TestDirectory runs against one real directory, since to start one takes longer than most of what is asked of it.
func TestDirectory(t *testing.T) {
	d := startSlapd(t, "")
	for _, row := range []struct {
		name string
		test func(*testing.T, *slapd)
	}{
		{"Users are found in every way", usersAreFoundInEveryWay},
		{"One user has one spelling", oneUserHasOneSpelling},
		{"Names are never part of a filter or a DN", namesAreNeverPartOfAFilterOrADN},
		{"Empty passwords never reach a directory", emptyPasswordsNeverReachADirectory},
		{"Ambiguous users are refused", ambiguousUsersAreRefused},
		{"Groups give policies", groupsGivePolicies},
		{"Broken directories are unavailable", brokenDirectoriesAreUnavailable},
		{"Searches are bounded", searchesAreBounded},
		{"Logins come from bound networks", loginsComeFromBoundNetworks},
		{"Renewal looks at policies again", renewalLooksAtPoliciesAgain},
		{"Renewal asks the directory again", renewalAsksTheDirectoryAgain},
		{"Renewal without an account goes by the login", renewalWithoutAnAccountGoesByTheLogin},
	} {
		t.Run(row.name, func(t *testing.T) { row.test(t, d) })
	}
}

func usersAreFoundInEveryWay(t *testing.T, d *slapd) {
	for what, fields := range map[string]map[string]any{
		"account":             searching(d, nil),
		"discovery":           {"url": d.plain, "discoverdn": true, "userdn": people, "userattr": "uid"},
		"constructed name":    {"url": d.plain, "userdn": people, "userattr": "UID"},
		"filter":              searching(d, map[string]any{"userfilter": "(&(objectClass=inetOrgPerson)({{.UserAttr}}={{.Username}}))"}),
		"pages":               searching(d, map[string]any{"max_page_size": 1}),
		"second server":       searching(d, map[string]any{"url": "ldap://" + freeAddress(t) + "," + d.plain}),
		"with all defaults":   {"url": d.plain, "userdn": people, "userattr": "uid", "userfilter": "", "groupfilter": ""},
		"dereferencing":       searching(d, map[string]any{"dereference_aliases": "always"}),
		"without group names": searching(d, map[string]any{"groupdn": ""}),
	} {
		h := configured(t, fields)
		if login, err := attempt(h, "alice", "alice-secret"); err != nil || login.Alias.Name != "alice" || login.Metadata["username"] != "alice" || login.DisplayName != "alice" {
			t.Errorf("%s: %+v, %v", what, login, err)
		}
		for name, password := range map[string]string{"alice": "wrong", "nobody": "alice-secret", "bob": "alice-secret"} {
			if _, err := attempt(h, name, password); err != error(errLogin) {
				t.Errorf("%s: %s with a wrong password: %v, want %q", what, name, err, errLogin)
			}
		}
	}
	conn := make(chan bool, 1)
	go func() {
		c, err := d.referred.Accept()
		if err == nil {
			_ = c.Close()
		}
		conn <- err == nil
	}()
	logIn(t, configured(t, searching(d, nil)), "alice", "alice-secret")
	_ = d.referred.Close()
	if <-conn {
		t.Error("a referral was followed")
	}
}

func oneUserHasOneSpelling(t *testing.T, d *slapd) {
	h := configured(t, searching(d, nil))
	var guesses []string
	for _, name := range []string{"alice", "ALICE", "Alice", " alice ", "ａｌｉｃｅ", "Ⓐlice", "\u2003alice"} {
		login := logIn(t, h, name, "alice-secret")
		if login.Alias.Name != "alice" || login.Metadata["username"] != "alice" {
			t.Errorf("login as %q is of %q, metadata %v", name, login.Alias.Name, login.Metadata)
		}
		guesses = append(guesses, guessed(nil, &loginIn{Username: name}))
	}
	if got := slices.Compact(guesses); !slices.Equal(got, []string{"alice"}) {
		t.Errorf("guesses are counted for %q", got)
	}
	for _, name := range []string{"álice", "al\u00adice", "ali\u200bce", "alice\x00", "ali ce", "alice*", "*", "a*", strings.Repeat("a", 2000), "ali\u034fce", "alice\ufe0f"} {
		refused(t, h, name, "alice-secret")
	}
	// The directory compares telephone numbers without hyphens and blanks; we don't.
	h = configured(t, searching(d, map[string]any{"userattr": "telephoneNumber"}))
	logIn(t, h, "555-1234", "alice-secret")
	for _, name := range []string{"5551234", "555 1234", "5-5-5-1-2-3-4"} {
		refused(t, h, name, "alice-secret")
	}
	h = configured(t, searching(d, map[string]any{"case_sensitive_names": true}))
	if login := logIn(t, h, "Alice", "alice-secret"); login.Alias.Name != "Alice" {
		t.Errorf("alias = %q, want Alice", login.Alias.Name)
	}
	refused(t, h, "alice", "alice-secret")
}

func namesAreNeverPartOfAFilterOrADN(t *testing.T, d *slapd) {
	for _, fields := range []map[string]any{searching(d, nil), {"url": d.plain, "userdn": people, "userattr": "uid"}} {
		h := configured(t, fields)
		for name, password := range map[string]string{"star*(x)": "star-secret", "a,b+c": "comma-secret"} {
			if login := logIn(t, h, name, password); login.Alias.Name != name {
				t.Errorf("alias = %q, want %q", login.Alias.Name, name)
			}
		}
		for _, name := range []string{"*", "star*", "x)(uid=bob", "bob)(|(uid=*", "alice,ou=people", "bob+cn=Bob", "bob,ou=people,dc=example,dc=org#", "\\62ob"} {
			refused(t, h, name, "bob-secret")
		}
	}
	h := configured(t, searching(d, nil))
	if login := logIn(t, h, "star*(x)", "star-secret"); !reflect.DeepEqual(login.Groups, []string{"stars"}) {
		t.Errorf("groups = %v, want stars", login.Groups)
	}
}

func emptyPasswordsNeverReachADirectory(t *testing.T, d *slapd) {
	h := configured(t, searching(d, map[string]any{"deny_null_bind": false}))
	refused(t, h, "alice", strings.Repeat("x", maxPassword+1))
	for _, name := range []string{"alice", "nobody"} {
		if _, err := attempt(h, name, ""); err != error(errEmpty) {
			t.Errorf("%s with an empty password: %v, want %q", name, err, errEmpty)
		}
	}
}

func ambiguousUsersAreRefused(t *testing.T, d *slapd) {
	refused(t, configured(t, searching(d, nil)), "twin", "twin-secret")                            // two entries
	refused(t, configured(t, searching(d, map[string]any{"userattr": "cn"})), "bob", "bob-secret") // two names
	either := configured(t, searching(d, map[string]any{"userfilter": "(|(uid={{.Username}})(mail={{.Username}}))"}))
	either.Data(conclave.Update, "users/carol@example.org", map[string]any{"policies": "carols"})
	either.Data(conclave.Update, "users/bob", map[string]any{"policies": "bobs"})
	// Bob has entered the address of somebody else as his own. He stays Bob.
	if login := logIn(t, either, "carol@example.org", "bob-secret"); login.Alias.Name != "bob" || !slices.Equal(login.Policies, []string{"bobs"}) {
		t.Errorf("login = %+v", login)
	}
	typed := configured(t, searching(d, map[string]any{"username_as_alias": true, "userfilter": "(mail={{.Username}})"}))
	if login := logIn(t, typed, "Alice@example.org", "alice-secret"); login.Alias.Name != "alice@example.org" {
		t.Errorf("alias = %q", login.Alias.Name)
	}
}

func groupsGivePolicies(t *testing.T, d *slapd) {
	h := configured(t, searching(d, nil))
	h.Data(conclave.Update, "groups/ADMINS", map[string]any{"policies": "Admin, base"})
	h.Data(conclave.Update, "groups/local", map[string]any{"policies": []string{"local"}})
	h.Data(conclave.Update, "users/Alice", map[string]any{"groups": "Local", "policies": "alices"})
	login := logIn(t, h, "alice", "alice-secret")
	if !slices.Equal(login.Groups, []string{"admins", "devs", "local"}) || !slices.Equal(login.Policies, []string{"admin", "alices", "base", "local"}) || !slices.Equal(login.Terms.Policies, []string{"base"}) {
		t.Errorf("groups %v, policies %v, terms %v", login.Groups, login.Policies, login.Terms.Policies)
	}
	// A group whose name looks like the distinguished name of another isn't the other.
	if login := logIn(t, h, "bob", "bob-secret"); !slices.Equal(login.Groups, []string{"cn=admins,dc=x", "devs"}) || len(login.Policies) != 0 {
		t.Errorf("Bob's groups %v, policies %v", login.Groups, login.Policies)
	}
	open := map[string]any{"groupdn": "ou=open,dc=example,dc=org"}
	for what, row := range map[string]struct {
		fields map[string]any
		want   []string
	}{
		"by nobody":           {map[string]any{"anonymous_group_search": true, "groupdn": "ou=open,dc=example,dc=org"}, []string{"everybody"}},
		"by nobody, unseen":   {map[string]any{"anonymous_group_search": true}, []string{}},
		"by the account":      {open, []string{"everybody"}},
		"named by DNs":        {map[string]any{"groupattr": "seeAlso", "groupdn": "ou=open,dc=example,dc=org"}, []string{"ou=other,dc=example,dc=org", "seen"}},
		"without attribute":   {map[string]any{"groupattr": "description"}, []string{"admins", "devs"}},
		"in an absent place":  {map[string]any{"groupdn": "ou=absent,dc=example,dc=org"}, []string{}},
		"by another filter":   {map[string]any{"groupfilter": "(&(objectClass=groupOfNames)(member={{.UserDN}}))"}, []string{"admins"}},
		"of the user's entry": {map[string]any{"groupdn": people, "groupfilter": "(uid={{.Username}})", "groupattr": "mail"}, []string{"alice@example.org"}},
	} {
		if login, err := attempt(configured(t, searching(d, row.fields)), "alice", "alice-secret"); err != nil || !slices.Equal(login.Groups, row.want) {
			t.Errorf("groups %s: %+v, %v, want %v", what, login, err, row.want)
		}
	}
	h = configured(t, map[string]any{"url": d.plain, "userdn": people, "userattr": "uid", "groupdn": "ou=open,dc=example,dc=org"})
	if login := logIn(t, h, "alice", "alice-secret"); len(login.Groups) != 0 { // she may not see them herself
		t.Errorf("groups = %v", login.Groups)
	}
}

func TestConnectionsAreEncrypted(t *testing.T) {
	d := startSlapd(t, "security simple_bind=64\n")
	other := makeCertificates(t, t.TempDir())
	withKey := func(fields map[string]any) map[string]any {
		cert, _ := os.ReadFile(filepath.Join(d.dir, "cert.pem"))
		key, _ := os.ReadFile(filepath.Join(d.dir, "key.pem"))
		fields["client_tls_cert"], fields["client_tls_key"] = string(cert), string(key)
		return fields
	}
	for what, row := range map[string]struct {
		fields map[string]any
		works  bool
	}{
		"in clear":                {map[string]any{}, false},
		"StartTLS":                {map[string]any{"starttls": true, "certificate": d.ca}, true},
		"StartTLS 1.3":            {map[string]any{"starttls": true, "certificate": d.ca, "tls_min_version": "tls13"}, true},
		"StartTLS 1.2":            {map[string]any{"starttls": true, "certificate": d.ca, "tls_max_version": "tls12"}, true},
		"StartTLS, another CA":    {map[string]any{"starttls": true, "certificate": other}, false},
		"StartTLS, the system's":  {map[string]any{"starttls": true}, false},
		"StartTLS, unchecked":     {map[string]any{"starttls": true, "insecure_tls": true}, true},
		"ldaps":                   {map[string]any{"url": d.secured, "certificate": d.ca}, true},
		"ldaps, another CA":       {map[string]any{"url": d.secured, "certificate": other}, false},
		"ldaps, another name":     {map[string]any{"url": strings.Replace(d.secured, "127.0.0.1", "localhost", 1), "certificate": d.ca}, false},
		"ldaps with a client key": {withKey(map[string]any{"url": d.secured, "certificate": d.ca}), true},
	} {
		_, err := attempt(configured(t, searching(d, row.fields)), "alice", "alice-secret")
		if row.works && err != nil || !row.works && !conclave.Is(err, conclave.Unavailable) {
			t.Errorf("%s: %v, works: want %v", what, err, row.works)
		}
	}
	for what, row := range map[string]struct {
		fields   map[string]any
		warnings int
	}{"in clear": {map[string]any{}, 1}, "StartTLS": {map[string]any{"starttls": true}, 0}, "unchecked": {map[string]any{"url": d.secured, "insecure_tls": true}, 1}} {
		resp, err := enginetest.New(t, Engine{}).Do(conclave.Update, "config", searching(d, row.fields))
		if err != nil || len(resp.Warnings) != row.warnings {
			t.Errorf("%s: %v, %v, want %d warnings", what, resp.Warnings, err, row.warnings)
		}
	}
}

func brokenDirectoriesAreUnavailable(t *testing.T, d *slapd) {
	flood := func(conn net.Conn) {
		_, _ = conn.Write([]byte{0x30, 0x84, 0x7f, 0xff, 0xff, 0xff, 0x04, 0x84, 0x7f, 0xff, 0xff, 0xf0}) // one message of 2 GiB
		block := make([]byte, 1<<16)
		for {
			if _, err := conn.Write(block); err != nil {
				return
			}
		}
	}
	for what, fields := range map[string]map[string]any{
		"nobody listens":       searching(d, map[string]any{"url": "ldap://" + freeAddress(t)}),
		"silence":              searching(d, map[string]any{"url": silentServer(t, readAll), "request_timeout": 1}),
		"silence to StartTLS":  searching(d, map[string]any{"url": silentServer(t, readAll), "starttls": true, "connection_timeout": 1}),
		"a flood":              searching(d, map[string]any{"url": silentServer(t, flood)}),
		"nonsense":             searching(d, map[string]any{"url": silentServer(t, func(c net.Conn) { _, _ = c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")); readAll(c) }), "request_timeout": 1}),
		"the account is wrong": searching(d, map[string]any{"bindpass": "wrong"}),
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			if _, err := attempt(configured(t, fields), "alice", "alice-secret"); !conclave.Is(err, conclave.Unavailable) || strings.Contains(err.Error(), "secret") {
				t.Errorf("%v, want Unavailable", err)
			}
		})
	}
	if _, err := attempt(enginetest.New(t, Engine{}), "alice", "alice-secret"); err != error(errNotReady) {
		t.Errorf("without a configuration: %v", err)
	}
}

func searchesAreBounded(t *testing.T, d *slapd) {
	for _, pages := range []int{0, 2} {
		c := &config{settings: settings{URL: d.plain, MaxPageSize: pages, TLSMinVersion: "tls12", TLSMaxVersion: "tls13"}}
		conn, err := c.connect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for limit, want := range map[int]bool{3: false, 100: true} {
			entries, err := conn.search(people, 2, "(&(objectClass=inetOrgPerson)(!(uid=temp)))", limit, "uid")
			if (err == nil) != want || want && len(entries) != 6 || !want && !errors.Is(err, errTooMany) {
				t.Errorf("pages of %d, limit %d: %d entries, %v", pages, limit, len(entries), err)
			}
		}
		conn.close()
	}
}

func TestConnectionEndsWhenItsPeerSendsTooMuch(t *testing.T) {
	server, client := net.Pipe()
	go func() {
		_, _ = server.Write(make([]byte, 100))
		_ = server.Close()
	}()
	conn := &bounded{Conn: client}
	conn.left.Store(99)
	if n, err := io.Copy(io.Discard, conn); err != errTooMuch || n > 99 {
		t.Errorf("read %d bytes, %v, want %v", n, err, errTooMuch)
	}
}

func loginsComeFromBoundNetworks(t *testing.T, d *slapd) {
	h := configured(t, searching(d, map[string]any{"token_bound_cidrs": "192.0.2.0/24"}))
	logIn(t, h, "alice", "alice-secret")
	elsewhere := h.With(enginetest.Request(func(req *conclave.Request) { req.Remote = netip.MustParseAddrPort("198.51.100.1:1") }))
	elsewhere.Fails(conclave.Update, "login/alice", map[string]any{"password": "alice-secret"}, conclave.Denied, "permission denied")
}

func renewalLooksAtPoliciesAgain(t *testing.T, d *slapd) {
	h := configured(t, searching(d, nil))
	h.Data(conclave.Update, "groups/devs", map[string]any{"policies": "dev"})
	login := logIn(t, h, "alice", "alice-secret")
	if strings.Contains(string(login.Internal), "secret") {
		t.Errorf("the token keeps the password: %s", login.Internal)
	}
	h.Data(conclave.Update, "config", map[string]any{"token_ttl": 60})
	if terms, err := h.RenewLogin(login); err != nil || terms.TTL != 60 {
		t.Errorf("renewal = %+v, %v, want a TTL of 60", terms, err)
	}
	for _, row := range []struct {
		what   string
		change func()
	}{
		{"a group gets more", func() { h.Data(conclave.Update, "groups/devs", map[string]any{"policies": "dev,more"}) }},
		{"a group is gone", func() { h.Data(conclave.Delete, "groups/devs", nil) }},
		{"the user gets more", func() {
			h.Data(conclave.Update, "groups/devs", map[string]any{"policies": "dev"})
			h.Data(conclave.Update, "users/alice", map[string]any{"policies": "more"})
		}},
		{"all get less", func() {
			h.Data(conclave.Delete, "users/alice", nil)
			h.Data(conclave.Update, "config", map[string]any{"token_policies": ""})
		}},
	} {
		row.change()
		if _, err := h.RenewLogin(login); err != error(errPolicies) {
			t.Errorf("renewal when %s: %v, want %q", row.what, err, errPolicies)
		}
	}
	h.Data(conclave.Update, "config", map[string]any{"token_policies": "base"})
	if _, err := h.RenewLogin(login); err != nil {
		t.Errorf("renewal when all is as before: %v", err)
	}
}

func renewalAsksTheDirectoryAgain(t *testing.T, d *slapd) {
	h := configured(t, searching(d, nil))
	login := logIn(t, h, "temp", "temp-secret")
	if !slices.Equal(login.Groups, []string{"temps"}) {
		t.Fatalf("groups = %q", login.Groups)
	}
	d.change(t, func(conn *ldapv3.Conn) error {
		leave := ldapv3.NewModifyRequest("cn=temps,"+groups, nil)
		leave.Delete("member", []string{"uid=temp," + people})
		return conn.Modify(leave)
	})
	if _, err := h.RenewLogin(login); err != nil || login.Groups == nil || len(login.Groups) > 0 {
		t.Errorf("renewal after the user left a group that gives nothing: %v, groups %q", err, login.Groups)
	}
	h.Data(conclave.Update, "config", map[string]any{"url": "ldap://127.0.0.1:1"})
	if _, err := h.RenewLogin(login); !conclave.Is(err, conclave.Unavailable) {
		t.Errorf("renewal when the directory can't be reached: %v", err)
	}
	h.Data(conclave.Update, "config", searching(d, nil))
	d.change(t, func(conn *ldapv3.Conn) error { return conn.Del(ldapv3.NewDelRequest("uid=temp,"+people, nil)) })
	if _, err := h.RenewLogin(login); err != error(errUserGone) {
		t.Errorf("renewal when the user is gone: %v, want %q", err, errUserGone)
	}
}

func renewalWithoutAnAccountGoesByTheLogin(t *testing.T, d *slapd) {
	h := configured(t, searching(d, map[string]any{"binddn": "", "bindpass": ""}))
	login := logIn(t, h, "bob", "bob-secret")
	login.Groups = nil
	if _, err := h.RenewLogin(login); err != nil || login.Groups != nil {
		t.Errorf("renewal: %v, groups %q, want none", err, login.Groups)
	}
}
