package identity

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"conclave"
)

// formats are one of each kind of what is stored. The files in testdata hold the bytes of the formats as first shipped.
var formats = map[string]struct {
	record any
	decode func(value []byte) (any, error)
}{
	"entity": {entity{Name: "Ann", Policies: []string{"a", "b"}, Metadata: map[string]string{"k": "v"}, Disabled: true, Merged: []string{"m1"}, Created: 1, Updated: 2, Aliases: []alias{
		{ID: "a1", Name: "ann", Accessor: "auth_x_1", Metadata: map[string]string{"m": "1"}, Custom: map[string]string{"c": "2"}, MergedFrom: []string{"m1"}, Created: 3, Updated: 4},
		{ID: "a2", Name: "ann", Accessor: "auth_x_2", Created: 5, Updated: 5}}},
		func(value []byte) (any, error) {
			k, err := decodeEntity("", value)
			if err != nil {
				return nil, err
			}
			return k.entity, nil
		}},
	"entity-least": {entity{Name: "Ann", Created: 1, Updated: 1}, func(value []byte) (any, error) {
		k, err := decodeEntity("", value)
		if err != nil {
			return nil, err
		}
		return k.entity, nil
	}},
	"group": {group{Name: "Ops", External: true, Policies: []string{"a"}, Metadata: map[string]string{"k": "v"}, Parents: []string{"g1", "g2"}, Revision: 7, Created: 1, Updated: 2,
		Alias: &alias{ID: "a1", Name: "cn=ops", Accessor: "auth_x_1", Created: 3, Updated: 4}}, func(value []byte) (any, error) { return plain(decodeGroup("", value)) }},
	"group-least": {group{Name: "Ops", Revision: 1, Created: 1, Updated: 1}, func(value []byte) (any, error) { return plain(decodeGroup("", value)) }},
	"name":        {ref{ID: "e1", Name: "Ann"}, func(value []byte) (any, error) { return plain(decodeRef(value)) }},
	"alias":       {ref{ID: "e1", Alias: "a1"}, func(value []byte) (any, error) { return plain(decodeRef(value)) }},
	"groups-of": {[]string{"g1", "g2"}, func(value []byte) (any, error) {
		m, err := decodeMemberships(value)
		return m.list(), err
	}},
}

func plain[T any](record *T, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return *record, nil
}

func TestFormatsAreAsShipped(t *testing.T) {
	for name, format := range formats {
		path := filepath.Join("testdata", name+".json")
		shipped, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		shipped = bytes.TrimSpace(shipped)
		if got, err := json.Marshal(format.record); err != nil || !bytes.Equal(got, shipped) {
			t.Errorf("%s is stored as\n%s, want\n%s", name, got, shipped)
		}
		if got, err := format.decode(shipped); err != nil || !reflect.DeepEqual(got, format.record) {
			t.Errorf("%s decodes as\n%+v, %v, want\n%+v", name, got, err, format.record)
		}
	}
	if got := factors("auth_x_1", "Andr\u00e9/x"); got != "VNfD2I9Zp2MtS0pozyfCbUfjOY-vmEXAVCKYd3w2e9Y" {
		t.Errorf("factors are %s", got)
	}
	if got := segment(keyOf("A%/B")); got != "a%25%2Fb" {
		t.Errorf("the segment is %s", got)
	}
}

func FuzzDecode(f *testing.F) {
	for _, format := range formats {
		value, err := json.Marshal(format.record)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(value)
	}
	f.Add([]byte(`{"name":"x","created":1,"aliases":[{}]}`))
	f.Fuzz(func(t *testing.T, value []byte) {
		for name, format := range formats {
			record, err := format.decode(value)
			if err != nil {
				if !conclave.Is(err, conclave.Internal) {
					t.Errorf("%s: %v is not Internal", name, err)
				}
				continue
			}
			encoded, err := json.Marshal(record)
			if err != nil {
				t.Fatal(err)
			}
			again, err := format.decode(encoded)
			if err != nil {
				t.Errorf("%s: %s decodes, its encoding %s doesn't: %v", name, value, encoded, err)
				continue
			}
			if twice, err := json.Marshal(again); err != nil || !bytes.Equal(twice, encoded) {
				t.Errorf("%s: encoded as %s, then as %s, %v", name, encoded, twice, err)
			}
		}
	})
}

func TestDamageIsAnInternalError(t *testing.T) {
	b := newBench(t)
	ann := b.mustLogin(ldap, "ann").EntityID
	group := b.group("g", object{"member_entity_ids": ann})
	for _, path := range []string{entityDir + ann, groupsOfDir + ann, groupDir + group, aliasDir + factors(ldap, "ann")} {
		good := bytes.Clone(b.Values()[path])
		for _, damaged := range []string{"", "{", "{}", "[]", "null", `"x"`, `{"name":1}`} {
			if err := b.Put(path, []byte(damaged)); err != nil {
				t.Fatal(err)
			}
			if err := b.Commit(); err != nil {
				t.Fatal(err)
			}
			if _, err := b.login(ldap, "ann"); !conclave.Is(err, conclave.Internal) {
				t.Errorf("login with %q at %s: %v", damaged, path, err)
			}
			if _, err := Of(b, ann); path != aliasDir+factors(ldap, "ann") && !conclave.Is(err, conclave.Internal) {
				t.Errorf("Of with %q at %s: %v", damaged, path, err)
			}
			b.Rollback()
		}
		if err := b.Put(path, good); err != nil {
			t.Fatal(err)
		}
		if err := b.Commit(); err != nil {
			t.Fatal(err)
		}
		b.mustLogin(ldap, "ann")
	}
	if err := b.End(b.Delete(entityDir + ann)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.login(ldap, "ann"); !conclave.Is(err, conclave.Internal) {
		t.Errorf("login by an alias of nobody: %v", err)
	}
}

// tracing is a Tx that notes what is read and written.
type tracing struct {
	conclave.Tx
	reads, listed, writes map[string]bool
}

func newTracing(tx conclave.Tx) *tracing {
	return &tracing{tx, map[string]bool{}, map[string]bool{}, map[string]bool{}}
}

func (tr *tracing) Get(path string) ([]byte, error) {
	tr.reads[path] = true
	return tr.Tx.Get(path)
}

func (tr *tracing) Load(path string, decode func([]byte) (any, error)) (any, error) {
	tr.reads[path] = true
	return tr.Tx.Load(path, decode)
}

func (tr *tracing) List(dir, after string, limit int) ([]string, error) {
	tr.listed[dir] = true
	return tr.Tx.List(dir, after, limit)
}

func (tr *tracing) Put(path string, value []byte) error {
	tr.writes[path] = true
	return tr.Tx.Put(path, value)
}

func (tr *tracing) Delete(path string) error {
	tr.writes[path] = true
	return tr.Tx.Delete(path)
}

func TestLoginsIntoOneGroupDoNotConflict(t *testing.T) {
	b := newBench(t)
	b.must(conclave.Update, "group-alias", object{"name": "all", "mount_accessor": ldap})
	var traces []*tracing
	for n := range 3 {
		ids, err := Mint(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		trace := newTracing(b)
		login := &conclave.Login{Alias: conclave.Alias{Name: fmt.Sprint("user", n)}, Groups: []string{"all"}}
		if got, err := Attach(trace, ldap, login, ids); err != nil || len(got.GroupIDs) != 1 {
			t.Fatalf("attached %+v, %v", got, err)
		}
		traces = append(traces, trace)
		b.Rollback()
	}
	for i, one := range traces {
		if len(one.writes) == 0 || len(one.listed) > 0 {
			t.Errorf("a first login writes %v and lists %v", one.writes, one.listed)
		}
		for j, other := range traces {
			for path := range one.writes {
				if i != j && (other.reads[path] || other.writes[path]) {
					t.Errorf("logins meet at %s", path)
				}
			}
		}
	}
}

func TestOfReadsTheEntityItsMembershipsAndItsGroups(t *testing.T) {
	b, id := benchOf(t)
	for _, when := range []string{"first", "later"} {
		trace := newTracing(b)
		i, err := Of(trace, id)
		if err != nil || len(i.GroupIDs) != 5 {
			t.Fatalf("%s: %+v, %v", when, i, err)
		}
		if len(trace.reads) != 7 || len(trace.listed)+len(trace.writes) > 0 {
			t.Errorf("%s: reads %v, lists %v, writes %v; want 7 reads", when, trace.reads, trace.listed, trace.writes)
		}
	}
}

// benchOf makes an entity that is in three groups and inherits two.
func benchOf(t testing.TB) (*bench, string) {
	b := newBench(t)
	id := b.entity("ann", "own")
	var groups []any
	for n := range 3 {
		groups = append(groups, b.group(fmt.Sprint("direct", n), object{"member_entity_ids": id, "policies": list(fmt.Sprint("p", n), "shared")}))
	}
	for n := range 2 {
		groups = []any{b.group(fmt.Sprint("above", n), object{"member_group_ids": groups, "policies": fmt.Sprint("q", n)})}
	}
	if got := b.of(id).Policies; !slices.Equal(got, []string{"own", "p0", "p1", "p2", "q0", "q1", "shared"}) {
		t.Fatalf("policies are %v", got)
	}
	if i := b.of(id); cap(i.Policies) != len(i.Policies) || cap(i.GroupIDs) != len(i.GroupIDs) {
		t.Error("appending to what is shared would write into it")
	}
	return b, id
}

// BenchmarkOf is what each request of a token with an entity in five groups costs beside the storage: the view here
// compares values, where the real one compares versions.
func BenchmarkOf(b *testing.B) {
	bench, id := benchOf(b)
	b.ReportAllocs()
	for b.Loop() {
		if i, err := Of(bench, id); err != nil || len(i.GroupIDs) != 5 {
			b.Fatal(err)
		}
	}
}

// BenchmarkRepeatedLogin is what a login that changes nothing adds to the making of its token.
func BenchmarkRepeatedLogin(b *testing.B) {
	bench := newBench(b)
	login := &conclave.Login{Alias: conclave.Alias{Name: "ann"}}
	for n := range 5 {
		name := fmt.Sprint("g", n)
		bench.must(conclave.Update, "group-alias", object{"name": name, "mount_accessor": ldap})
		login.Groups = append(login.Groups, name)
	}
	bench.mustLogin(ldap, "ann", login.Groups...)
	ids, err := Mint(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if a, err := Attach(bench, ldap, login, ids); err != nil || len(a.GroupIDs) != 5 {
			b.Fatal(err)
		}
	}
}
