package mount

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"conclave"
	"conclave/engine/enginetest"
)

// kinds are the plug-ins of tests: kv takes versions 1 and 2, cubbyhole is a singleton, userpass is an auth method.
type kinds struct{}

func (kinds) Plugin(kind string, auth bool) (conclave.Plugin, bool) {
	p := conclave.Plugin{Kind: kind, Singleton: kind == "cubbyhole", Open: func(options map[string]string) (conclave.Engine, error) {
		for key, value := range options {
			if key != "version" || value != "1" && value != "2" {
				return nil, conclave.Errorf(conclave.Invalid, "unknown option %s=%s", key, value)
			}
		}
		return nil, nil
	}}
	known := []string{"kv", "cubbyhole"}
	if auth {
		known = []string{"userpass"}
	}
	return p, slices.Contains(known, kind)
}

// touching answers for policies: the mounts that a caller who isn't root has capabilities on.
type touching []string

func (t touching) Touches(_ context.Context, path string) bool {
	return slices.Contains(t, path)
}

type bench struct {
	t testing.TB
	*enginetest.Memory
	access touching
}

func newBench(t testing.TB) *bench {
	b := &bench{t, enginetest.NewMemory(t), nil}
	b.SetCaller(&conclave.Caller{Root: true})
	if err := b.End(Initial(b, rand.Reader)); err != nil {
		t.Fatal(err)
	}
	return b
}

// call runs a route in a transaction. What a refused request wrote can be seen until the next call.
func (b *bench) call(op conclave.Operation, path string, fields map[string]any) (*conclave.Response, error) {
	b.t.Helper()
	b.Rollback()
	router := conclave.NewRouter(Routes(Setup{Plugins: kinds{}, Access: b.access, Random: rand.Reader}))
	route, params, err := router.Find(op, path)
	if err != nil {
		return nil, err
	}
	in, err := route.Bind(params, fields)
	if err != nil {
		return nil, err
	}
	ctx := context.Background()
	if route.Prepare != nil {
		prepared, err := route.Prepare(ctx, nil, in)
		if err != nil {
			return nil, err
		}
		ctx = conclave.WithPrepared(ctx, prepared)
	}
	response, err := route.Handle(ctx, b, in)
	if err != nil {
		return nil, err
	}
	return response, b.Commit()
}

func (b *bench) must(op conclave.Operation, path string, fields map[string]any) map[string]any {
	b.t.Helper()
	response, err := b.call(op, path, fields)
	if err != nil {
		b.t.Fatalf("%v %s: %v", op, path, err)
	}
	if response.Data == nil {
		return nil
	}
	encoded, err := json.Marshal(response.Data)
	var m map[string]any
	if err == nil {
		err = json.Unmarshal(encoded, &m)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return m
}

func (b *bench) table() *Table {
	b.t.Helper()
	table, err := Load(b, Defaults{})
	if err != nil {
		b.t.Fatal(err)
	}
	return table
}

type object = map[string]any

func TestFindGoesBySegments(t *testing.T) {
	b := newBench(t)
	b.must(conclave.Update, "mounts/secret", object{"type": "kv"})
	b.must(conclave.Update, "mounts/team/a/kv", object{"type": "kv"})
	b.must(conclave.Update, "auth/userpass", object{"type": "userpass"})
	for _, test := range []struct{ path, mount, rest string }{
		{"secret/data/x", "secret/", "data/x"}, {"secret/metadata/", "secret/", "metadata/"}, {"secret/", "secret/", ""}, {"secret", "secret/", ""},
		{"secrets/x", "", ""}, {"team/a/kv/x/y", "team/a/kv/", "x/y"}, {"team/a", "", ""}, {"auth/userpass/login/ann", "auth/userpass/", "login/ann"},
		{"auth/token/create", "auth/token/", "create"}, {"auth", "", ""}, {"auth/tokens/x", "", ""}, {"sys/mounts", "sys/", "mounts"},
		{"cubbyhole/a", "cubbyhole/", "a"}, {"", "", ""}, {"/", "", ""}, {"Secret/x", "", ""},
	} {
		e, rest, ok := b.table().Find(test.path)
		if ok != (test.mount != "") || ok && (e.Path != test.mount || rest != test.rest) {
			t.Errorf("Find(%q) = %+v, %q, %v; want %q, %q", test.path, e, rest, ok, test.mount, test.rest)
		}
	}
	if _, _, ok := newTable(record{}, Defaults{}).Find("x/y"); ok {
		t.Error("an empty table found a mount")
	}
}

func TestMountIsListedAsVaultDoes(t *testing.T) {
	b := newBench(t)
	b.must(conclave.Update, "mounts/secret", object{"type": "kv-v2", "description": "ours", "config": object{"default_lease_ttl": "1h", "max_lease_ttl": json.Number("7200")}})
	got := b.must(conclave.Read, "mounts", nil)
	want := object{"accessor": got["secret/"].(object)["accessor"], "uuid": got["secret/"].(object)["uuid"], "type": "kv", "description": "ours",
		"options": object{"version": "2"}, "local": false, "seal_wrap": false, "external_entropy_access": false, "plugin_version": "",
		"running_plugin_version": "v1.0.0+builtin", "running_sha256": "", "deprecation_status": "supported",
		"config": object{"default_lease_ttl": 3600.0, "max_lease_ttl": 7200.0, "force_no_cache": false}}
	if !reflect.DeepEqual(got["secret/"], any(want)) {
		t.Errorf("%v, want %v", got["secret/"], want)
	}
	if len(got) != 4 || got["sys/"] == nil || got["identity/"] == nil || got["cubbyhole/"] == nil {
		t.Errorf("mounts = %v", got)
	}
	if form := regexp.MustCompile(`^kv_[0-9a-f]{8}$`); !form.MatchString(want["accessor"].(string)) {
		t.Errorf("accessor = %v", want["accessor"])
	}
	if form := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`); !form.MatchString(want["uuid"].(string)) {
		t.Errorf("uuid = %v", want["uuid"])
	}
	if one := b.must(conclave.Read, "mounts/secret", nil); !reflect.DeepEqual(one, want) {
		t.Errorf("one = %v", one)
	}
	if auth := b.must(conclave.Read, "auth", nil); len(auth) != 1 || auth["token/"].(object)["type"] != "token" {
		t.Errorf("auth = %v", auth)
	}
	for _, path := range []string{"mounts", "auth", "mounts/secret"} {
		if response, _ := b.call(conclave.Read, path, nil); !response.TopLevel {
			t.Errorf("%s isn't at the top level", path)
		}
	}
}

func TestEnableRefuses(t *testing.T) {
	tests := []struct {
		path   string
		fields object
		want   string
	}{
		{"mounts/secret", object{"type": "kv"}, "path is already in use at secret/"},
		{"mounts/secret/sub", object{"type": "kv"}, "path is already in use at secret/"},
		{"mounts/deep", object{"type": "kv"}, "path is already in use at deep/er/"},
		{"mounts/sys", object{"type": "kv"}, "vault's own"},
		{"mounts/sys/x", object{"type": "kv"}, "vault's own"},
		{"mounts/cubbyhole", object{"type": "kv"}, "vault's own"},
		{"mounts/identity", object{"type": "kv"}, "vault's own"},
		{"mounts/auth/x", object{"type": "kv"}, "vault's own"},
		{"auth/token", object{"type": "userpass"}, "path is already in use at auth/token/"},
		{"auth/token/x", object{"type": "userpass"}, "path is already in use at auth/token/"},
		{"mounts/x", object{}, "type"},
		{"mounts/x", object{"type": "nope"}, "there is no secrets engine"},
		{"mounts/x", object{"type": "userpass"}, "there is no secrets engine"},
		{"auth/x", object{"type": "kv"}, "there is no auth method"},
		{"auth/x", object{"type": "kv-v2"}, "there is no auth method"},
		{"mounts/x", object{"type": "cubbyhole"}, "not mountable"},
		{"mounts/x", object{"type": "kv", "options": object{"version": "3"}}, "unknown option"},
		{"mounts/x", object{"type": "kv-v2", "options": object{"version": "1"}}, "contradicts"},
		{"mounts/x*", object{"type": "kv"}, "wildcards"},
		{"mounts/+/x", object{"type": "kv"}, "wildcards"},
		{"mounts/tune", object{"type": "kv"}, "tune"},
		{"mounts/x", object{"type": "kv", "config": object{"default_lease_ttl": "2h", "max_lease_ttl": "1h"}}, "exceeds"},
		{"mounts/x", object{"type": "kv", "config": object{"default_lease_ttl": "9000h"}}, "exceeds"},
		{"mounts/x", object{"type": "kv", "config": object{"max_lease_ttl": "-1h"}}, "between"},
		{"mounts/x", object{"type": "kv", "config": object{"max_lease_ttl": "soon"}}, "max_lease_ttl"},
		{"mounts/x", object{"type": "kv", "config": object{"listing_visibility": "all"}}, "listing_visibility"},
		{"mounts/x", object{"type": "kv", "config": object{"token_type": "service"}}, "auth methods"},
		{"auth/x", object{"type": "userpass", "config": object{"token_type": "odd"}}, "token_type"},
		{"mounts/" + strings.Repeat("a/", 20) + "b", object{"type": "kv"}, "segments"},
		{"mounts/x", object{"type": "kv", "description": strings.Repeat("x", maxText+1)}, "description"},
		{"mounts/x", object{"type": "kv", "config": "odd"}, "config"},
	}
	for _, test := range tests {
		b := newBench(t)
		b.must(conclave.Update, "mounts/secret", object{"type": "kv"})
		b.must(conclave.Update, "mounts/deep/er", object{"type": "kv"})
		before, spaces := string(b.Values()["mounts"]), b.Spaces()
		_, err := b.call(conclave.Update, test.path, test.fields)
		if !conclave.Is(err, conclave.Invalid) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s %v: %v, want %q", test.path, test.fields, err, test.want)
		}
		if string(b.Values()["mounts"]) != before || !slices.Equal(b.Spaces(), spaces) {
			t.Errorf("%s %v left something", test.path, test.fields)
		}
	}
}

func TestDisableDestroysTheSpace(t *testing.T) {
	for base, kind := range map[string]string{"mounts": "kv", "auth": "userpass"} {
		b := newBench(t)
		b.must(conclave.Update, base+"/x", object{"type": kind})
		prefix := map[string]string{"mounts": "", "auth": "auth/"}[base]
		e, _, ok := b.table().Find(prefix + "x/y")
		if !ok || !slices.Contains(b.Spaces(), e.Space.ID) {
			t.Fatalf("%s: not mounted", base)
		}
		if e.Mount().Kind != kind || e.Mount().DefaultTTL != 768*time.Hour {
			t.Errorf("mount = %+v", e.Mount())
		}
		b.must(conclave.Delete, base+"/x", nil)
		if _, _, ok := b.table().Find(prefix + "x/y"); ok || slices.Contains(b.Spaces(), e.Space.ID) {
			t.Errorf("%s: mounted %v, spaces %v after disable", base, ok, b.Spaces())
		}
		b.must(conclave.Delete, base+"/x", nil)
	}
	b := newBench(t)
	for _, path := range []string{"mounts/sys", "mounts/cubbyhole", "auth/token"} {
		if _, err := b.call(conclave.Delete, path, nil); !conclave.Is(err, conclave.Invalid) {
			t.Errorf("%s: %v", path, err)
		}
	}
	before := len(b.table().Entries())
	b.must(conclave.Delete, "mounts/auth/token", nil) // no secrets engine is there
	if len(b.table().Entries()) != before {
		t.Error("the token method was unmounted as a secrets engine")
	}
}

func TestTuneChangesWhatIsGiven(t *testing.T) {
	b := newBench(t)
	b.must(conclave.Update, "mounts/secret", object{"type": "kv", "description": "old", "options": object{"version": "2"}})
	b.must(conclave.Update, "mounts/secret/tune", object{"max_lease_ttl": "3h", "audit_non_hmac_request_keys": "a,b", "options": object{"version": json.Number("2")}})
	got := b.must(conclave.Read, "mounts/secret/tune", nil)
	want := object{"default_lease_ttl": 10800.0, "max_lease_ttl": 10800.0, "force_no_cache": false, "description": "old",
		"options": object{"version": "2"}, "audit_non_hmac_request_keys": []any{"a", "b"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	b.must(conclave.Update, "mounts/secret/tune", object{"max_lease_ttl": "system", "description": "", "audit_non_hmac_request_keys": []any{}})
	got = b.must(conclave.Read, "mounts/secret/tune", nil)
	if got["max_lease_ttl"] != 2764800.0 || got["description"] != "" || got["audit_non_hmac_request_keys"] != nil {
		t.Errorf("%v", got)
	}
	b.must(conclave.Update, "auth/token/tune", object{"max_lease_ttl": "24h"})
	if e, _, _ := b.table().Find("auth/token/x"); e.Mount().MaxTTL != 24*time.Hour {
		t.Errorf("mount = %+v", e.Mount())
	}
	if got := b.must(conclave.Read, "auth/token/tune", nil); got["token_type"] != "default-service" {
		t.Errorf("%v", got)
	}
}

func TestAuthMethodsAreTunedBelowMountsToo(t *testing.T) {
	b := newBench(t)
	b.must(conclave.Update, "auth/people", object{"type": "userpass"})
	b.must(conclave.Update, "mounts/auth/people/tune", object{"max_lease_ttl": "3h"})
	for _, path := range []string{"", "/tune"} {
		if got, want := b.must(conclave.Read, "mounts/auth/people"+path, nil), b.must(conclave.Read, "auth/people"+path, nil); !reflect.DeepEqual(got, want) {
			t.Errorf("mounts/auth/people%s is %v, auth/people%s is %v", path, got, path, want)
		}
	}
	if got := b.must(conclave.Read, "mounts/auth/people/tune", nil); got["max_lease_ttl"] != 10800.0 {
		t.Errorf("%v", got)
	}
	for _, path := range []string{"mounts/auth/nobody", "mounts/people", "mounts/auth", "auth/auth/people"} {
		if _, err := b.call(conclave.Read, path, nil); err == nil {
			t.Errorf("%s is there", path)
		}
	}
	if _, err := b.call(conclave.Update, "mounts/auth/other", object{"type": "userpass"}); err == nil {
		t.Error("an auth method was mounted as a secrets engine")
	}
}

func TestTuneLeavesTheRestOfTheLockout(t *testing.T) {
	b := newBench(t)
	b.must(conclave.Update, "auth/people", object{"type": "userpass", "config": object{"user_lockout_config": object{"lockout_duration": "90s"}}})
	for _, change := range []object{{"lockout_threshold": "3"}, {"lockout_counter_reset_duration": "60"}, {"lockout_disable": "true"}, {"lockout_threshold": nil}} {
		b.must(conclave.Update, "auth/people/tune", object{"user_lockout_config": change})
	}
	e, _, _ := b.table().Find("auth/people/x")
	if got, want := e.Config.UserLockout, (Lockout{3, 90, 60, true}); got == nil || *got != want {
		t.Errorf("the lockout is %+v, want %+v", got, want)
	}
}

func TestTuneRefuses(t *testing.T) {
	b := newBench(t)
	b.must(conclave.Update, "mounts/one", object{"type": "kv"})
	b.must(conclave.Update, "mounts/two", object{"type": "kv-v2"})
	before := string(b.Values()["mounts"])
	for _, test := range []struct {
		path   string
		fields object
		want   string
	}{
		{"mounts/one/tune", object{"options": object{"version": "2"}}, "can't be changed"},
		{"mounts/two/tune", object{"options": object{"version": "1"}}, "can't be changed"},
		{"mounts/two/tune", object{"options": object{"odd": "1"}}, "unknown option"},
		{"mounts/none/tune", object{}, "No secret engine mount at none/"},
		{"auth/none/tune", object{}, "No auth engine at none/"},
		{"mounts/auth/none/tune", object{}, "No auth engine at none/"},
		{"mounts/one/tune", object{"default_lease_ttl": "5h", "max_lease_ttl": "1h"}, "exceeds"},
		{"mounts/one/tune", object{"default_lease_ttl": "-5"}, "between"},
		{"mounts/one/tune", object{"listing_visibility": "x"}, "listing_visibility"},
		{"mounts/one/tune", object{"passthrough_request_headers": []any{""}}, "names"},
	} {
		if _, err := b.call(conclave.Update, test.path, test.fields); !conclave.Is(err, conclave.Invalid) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s %v: %v, want %q", test.path, test.fields, err, test.want)
		}
		if string(b.Values()["mounts"]) != before {
			t.Errorf("%s %v changed the table", test.path, test.fields)
		}
	}
	for _, path := range []string{"mounts/none", "mounts/none/tune", "auth/none"} {
		if _, err := b.call(conclave.Read, path, nil); !conclave.Is(err, conclave.Invalid) {
			t.Errorf("read %s: %v", path, err)
		}
		if string(b.Values()["mounts"]) != before {
			t.Errorf("reading %s changed the table", path)
		}
	}
}

func TestRemountMovesTheSpace(t *testing.T) {
	b := newBench(t)
	b.must(conclave.Update, "mounts/secret", object{"type": "kv"})
	old, _, _ := b.table().Find("secret/x")
	id := b.must(conclave.Update, "remount", object{"from": "secret", "to": "/secret/inner/"})["migration_id"].(string)
	moved, rest, ok := b.table().Find("secret/inner/x")
	if !ok || rest != "x" || moved.UUID != old.UUID || moved.Accessor != old.Accessor || moved.Space.ID != old.Space.ID || !slices.Contains(b.Spaces(), old.Space.ID) {
		t.Errorf("moved to %+v", moved)
	}
	if _, _, ok := b.table().Find("secret/x"); ok {
		t.Error("the old path still serves")
	}
	want := object{"migration_id": id, "migration_info": object{"source_mount": "secret/", "target_mount": "secret/inner/", "status": "success"}}
	if got := b.must(conclave.Read, "remount/status/"+id, nil); !reflect.DeepEqual(got, want) {
		t.Errorf("status = %v", got)
	}
	for i := range maxMoves + 1 {
		b.must(conclave.Update, "remount", object{"from": []string{"secret/inner", "b"}[i%2], "to": []string{"b", "secret/inner"}[i%2]})
	}
	if len(b.table().moves) != maxMoves {
		t.Errorf("%d moves are remembered", len(b.table().moves))
	}
	if _, err := b.call(conclave.Read, "remount/status/"+id, nil); !conclave.Is(err, conclave.NotFound) {
		t.Errorf("a forgotten move: %v", err)
	}
}

func TestRemountRefuses(t *testing.T) {
	b := newBench(t)
	b.must(conclave.Update, "mounts/a", object{"type": "kv"})
	b.must(conclave.Update, "mounts/b", object{"type": "kv"})
	b.must(conclave.Update, "auth/up", object{"type": "userpass"})
	for _, move := range [][2]string{{"", "x"}, {"a", ""}, {"none", "x"}, {"a", "b"}, {"a", "a"}, {"a", "b/c"}, {"a", "sys/x"}, {"sys", "x"}, {"cubbyhole", "x"},
		{"auth/token", "auth/x"}, {"a", "auth/x"}, {"auth/up", "x"}, {"a", "x/../sys"}, {"a", "x//y"}, {"a", "x/tune"}, {"a", "x\x00"}, {"a", "\xff"}} {
		if _, err := b.call(conclave.Update, "remount", object{"from": move[0], "to": move[1]}); !conclave.Is(err, conclave.Invalid) {
			t.Errorf("%q: %v", move, err)
		}
	}
}

func TestDiscoveryShowsOnlyWhatIsOpen(t *testing.T) {
	b := newBench(t)
	b.must(conclave.Update, "mounts/open", object{"type": "kv-v2"})
	b.must(conclave.Update, "mounts/closed", object{"type": "kv"})
	b.must(conclave.Update, "auth/shown", object{"type": "userpass", "config": object{"listing_visibility": "unauth"}})
	if got := b.must(conclave.Read, "internal/ui/mounts/closed/x", nil); got["path"] != "closed/" {
		t.Errorf("root: %v", got)
	}
	b.SetCaller(&conclave.Caller{})
	b.access = touching{"open/"}
	got := b.must(conclave.Read, "internal/ui/mounts/open/data/x", nil)
	if got["path"] != "open/" || got["type"] != "kv" || got["options"].(object)["version"] != "2" {
		t.Errorf("open: %v", got)
	}
	var messages []string
	for _, path := range []string{"closed/x", "nothing/x"} {
		_, err := b.call(conclave.Read, "internal/ui/mounts/"+path, nil)
		if !conclave.Is(err, conclave.Denied) {
			t.Fatalf("%s: %v", path, err)
		}
		messages = append(messages, strings.ReplaceAll(err.Error(), path, ""))
	}
	if messages[0] != messages[1] {
		t.Errorf("a closed mount differs from none: %q", messages)
	}
	all := b.must(conclave.Read, "internal/ui/mounts", nil)
	if len(all["secret"].(object)) != 1 || all["secret"].(object)["open/"] == nil || all["auth"].(object)["shown/"] == nil || len(all["auth"].(object)) != 1 {
		t.Errorf("all = %v", all)
	}
}

func TestWhichRoutesNeedSudo(t *testing.T) {
	for _, route := range Routes(Setup{}) {
		want := strings.HasPrefix(route.Pattern, "auth/") || route.Pattern == "remount"
		if route.Sudo != want || route.Public {
			t.Errorf("%v %s: sudo %v, want %v", route.Operation, route.Pattern, route.Sudo, want)
		}
	}
}

func TestDefaultsOfTheServerHold(t *testing.T) {
	b := newBench(t)
	for _, d := range []Defaults{{time.Hour, 2 * time.Hour}, {}, {3 * time.Hour, 2 * time.Hour}} {
		table, err := Load(b, d)
		if err != nil {
			t.Fatal(err)
		}
		again, _ := Load(b, d)
		e, _, _ := table.Find("sys/x")
		wantDefault, wantMax := e.Config.ttls(d)
		if again != table || e.Mount().DefaultTTL != wantDefault || e.Mount().MaxTTL != wantMax || wantDefault > wantMax {
			t.Errorf("%v: %+v", d, e.Mount())
		}
	}
}

// What is made of an entry is kept by its address: the vault's own work, which asks without the server's defaults, must not
// give requests new entries each time.
func TestEntriesStayTheSameBesideTheVaultsOwnWork(t *testing.T) {
	b := newBench(t)
	server := Defaults{DefaultTTL: time.Hour, MaxTTL: 2 * time.Hour}
	find := func() *Entry {
		t.Helper()
		table, err := Load(b, server)
		if err != nil {
			t.Fatal(err)
		}
		entry, _, _ := table.Find("cubbyhole/x")
		return entry
	}
	before := find()
	if _, err := Spaces(b); err != nil {
		t.Fatal(err)
	}
	if after := find(); after != before || after == nil {
		t.Error("the table was made anew though nothing changed")
	}
	for i := range 3 * maxTables {
		if _, err := Load(b, Defaults{DefaultTTL: time.Duration(i+1) * time.Minute}); err != nil {
			t.Fatal(err)
		}
	}
	table, err := Load(b, server)
	if err != nil || table.entries[0].Mount().DefaultTTL != time.Hour {
		t.Errorf("%v, default %v", err, table.entries[0].Mount().DefaultTTL)
	}
}

func TestTableIsBounded(t *testing.T) {
	b := newBench(t)
	entries := slices.Clone(b.table().Entries())
	for i := len(entries); i < MaxEntries; i++ {
		entries = append(entries, &Entry{Path: fmt.Sprintf("z%04d/", i), Kind: "kv"})
	}
	if err := b.End(put(b, entries, nil)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.call(conclave.Update, "mounts/one-more", object{"type": "kv"}); !conclave.Is(err, conclave.Invalid) {
		t.Errorf("beyond the limit: %v", err)
	}
	for _, e := range entries[3:] {
		e.Description = strings.Repeat("x", 300)
	}
	if err := b.End(put(b, entries, nil)); !conclave.Is(err, conclave.TooLarge) {
		t.Errorf("beyond a megabyte: %v", err)
	}
}

func TestDamagedTableIsAnError(t *testing.T) {
	for _, damage := range []string{"", "{", `{"entries":[null]}`, `{"entries":[{"path":"a","kind":"kv"}]}`, `{"entries":[{"path":"a/"}]}`} {
		b := newBench(t)
		if err := b.End(b.Put("mounts", []byte(damage))); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(b, Defaults{}); !conclave.Is(err, conclave.Internal) {
			t.Errorf("%q: %v", damage, err)
		}
	}
}

// golden is a table as the first version wrote it.
const golden = `{"entries":[{"uuid":"u","path":"secret/","kind":"kv","accessor":"kv_01234567","description":"d","options":{"version":"2"},` +
	`"config":{"default_lease_ttl":60,"max_lease_ttl":3600,"force_no_cache":false,"listing_visibility":"unauth"},"space":{"id":7,"keys":"a2V5cw=="},` +
	`"created":1700000000000000000,"local":true}],"moves":[{"id":"m","from":"a/","to":"secret/"}]}`

func TestStoredFormStays(t *testing.T) {
	d, err := decode([]byte(golden))
	if err != nil {
		t.Fatal(err)
	}
	table := d.with(Defaults{})
	e, _, ok := table.Find("secret/x")
	if !ok || e.Space.ID != 7 || string(e.Space.Keys) != "keys" || e.Mount().DefaultTTL != time.Minute || e.Mount().MaxTTL != time.Hour {
		t.Errorf("%+v", e)
	}
	m := enginetest.NewMemory(t)
	if err := m.End(put(m, table.entries, table.moves)); err != nil || string(m.Values()["mounts"]) != golden {
		t.Errorf("%s, %v", m.Values()["mounts"], err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(golden), "secret/x")
	f.Fuzz(func(t *testing.T, value []byte, path string) {
		if d, err := decode(value); err == nil {
			if e, rest, ok := d.with(Defaults{}).Find(path); ok && !strings.HasPrefix(e.Path+rest, strings.TrimSuffix(path, "/")) {
				t.Errorf("Find(%q) = %q, %q", path, e.Path, rest)
			}
		}
	})
}

func BenchmarkFind(b *testing.B) {
	var entries []*Entry
	for i := range 1000 {
		entries = append(entries, &Entry{Path: fmt.Sprintf("team%d/kv/", i), Kind: "kv"})
	}
	table := newTable(record{Entries: entries}, Defaults{})
	b.ReportAllocs()
	for b.Loop() {
		if _, _, ok := table.Find("team500/kv/data/app/production/database"); !ok {
			b.Fatal("not found")
		}
	}
}
