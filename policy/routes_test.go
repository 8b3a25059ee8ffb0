package policy

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"testing"

	"conclave"
	"conclave/engine/enginetest"
)

// call runs a route in a transaction as the pipeline would, and returns its data as JSON. What a refused request wrote
// can be seen until the next call.
func call(t *testing.T, tx *enginetest.Memory, op conclave.Operation, path string, fields map[string]any) (string, error) {
	t.Helper()
	tx.Rollback()
	route, params, err := conclave.NewRouter(Routes()).Find(op, path)
	if err != nil {
		return "", err
	}
	in, err := route.Bind(params, fields)
	if err != nil {
		return "", err
	}
	response, err := route.Handle(context.Background(), tx, in)
	if err == nil {
		err = tx.Commit()
	}
	if err != nil {
		return "", err
	}
	data, err := json.Marshal(response.Data)
	return string(data), err
}

func TestPolicyLivesThroughItsRoutes(t *testing.T) {
	tx := enginetest.NewMemory(t)
	text := `path "secret/*" { capabilities = ["read"] }`
	steps := []struct {
		op     conclave.Operation
		path   string
		fields map[string]any
		want   string
	}{
		{conclave.Update, "policies/acl/Ops", map[string]any{"policy": text}, "null"},
		{conclave.Update, "policy/dev", map[string]any{"rules": base64.StdEncoding.EncodeToString([]byte(text))}, "null"},
		{conclave.Read, "policies/acl/ops", nil, `{"name":"ops","policy":"path \"secret/*\" { capabilities = [\"read\"] }"}`},
		{conclave.Read, "policy/DEV", nil, `{"name":"dev","rules":"path \"secret/*\" { capabilities = [\"read\"] }"}`},
		{conclave.List, "policies/acl/", nil, `{"keys":["default","dev","ops","root"]}`},
		{conclave.List, "policies/acl/", map[string]any{"after": "default", "limit": "1"}, `{"keys":["dev"]}`},
		{conclave.Read, "policy", nil, `{"keys":["default","dev","ops","root"],"policies":["default","dev","ops","root"]}`},
		{conclave.Read, "policies/acl/root", nil, `{"name":"root","policy":""}`},
		{conclave.Delete, "policies/acl/OPS", nil, "null"},
		{conclave.Delete, "policy/unknown", nil, "null"},
		{conclave.List, "policy/", nil, `{"keys":["default","dev","root"],"policies":["default","dev","root"]}`},
	}
	for _, step := range steps {
		got, err := call(t, tx, step.op, step.path, step.fields)
		if err != nil || got != step.want {
			t.Errorf("%v %s = %s, %v, want %s", step.op, step.path, got, err, step.want)
		}
	}
}

func TestPolicyRoutesRefuse(t *testing.T) {
	tests := []struct {
		op     conclave.Operation
		path   string
		fields map[string]any
		want   conclave.Kind
	}{
		{conclave.Update, "policies/acl/root", map[string]any{"policy": "path \"*\" {}"}, conclave.Invalid},
		{conclave.Update, "policies/acl/rOOt", map[string]any{"policy": "path \"*\" {}"}, conclave.Invalid},
		{conclave.Update, "policies/acl/p", nil, conclave.Invalid},
		{conclave.Update, "policies/acl/p", map[string]any{"policy": "nonsense {"}, conclave.Invalid},
		{conclave.Update, "policy/p", map[string]any{"policy": map[string]any{}}, conclave.Invalid},
		{conclave.Update, "policies/acl/a*", map[string]any{"policy": "path \"*\" {}"}, conclave.Invalid},
		{conclave.Delete, "policies/acl/root", nil, conclave.Invalid},
		{conclave.Delete, "policies/acl/Default", nil, conclave.Invalid},
		{conclave.Delete, "policy/default", nil, conclave.Invalid},
		{conclave.Delete, "policy/a+", nil, conclave.Invalid},
		{conclave.Read, "policies/acl/none", nil, conclave.NotFound},
		{conclave.Read, "policy/none", nil, conclave.NotFound},
		{conclave.Patch, "policies/acl/p", nil, conclave.NotFound},
		{conclave.Patch, "policies/acl/root", nil, conclave.Invalid},
		{conclave.Patch, "policy/p", nil, conclave.Unsupported},
		{conclave.Read, "policies/acl/a/b", nil, conclave.NotFound},
	}
	for _, test := range tests {
		tx := enginetest.NewMemory(t)
		if _, err := call(t, tx, test.op, test.path, test.fields); !conclave.Is(err, test.want) {
			t.Errorf("%v %s = %v, want %v", test.op, test.path, err, test.want)
		}
		if len(tx.Values()) != 0 {
			t.Errorf("%v %s wrote", test.op, test.path)
		}
	}
}

func TestListAndReadOldFormsAreTopLevel(t *testing.T) {
	for _, path := range []string{"policy", "policy/default"} {
		route, params, err := conclave.NewRouter(Routes()).Find(conclave.Read, path)
		if err != nil {
			t.Fatal(err)
		}
		in, _ := route.Bind(params, nil)
		response, err := route.Handle(context.Background(), enginetest.NewMemory(t), in)
		if err != nil || !response.TopLevel {
			t.Errorf("%s: %+v, %v", path, response, err)
		}
	}
}

func TestCacheSeesEveryChange(t *testing.T) {
	tx, cache := enginetest.NewMemory(t), NewCache()
	read := func() bool {
		t.Helper()
		acl, err := cache.ACL(tx, []string{"default", "ops", "missing"})
		if err != nil {
			t.Fatal(err)
		}
		return acl.Allows(Check{Path: "secret/a", Operation: conclave.Read}).Allowed
	}
	if read() {
		t.Error("allowed before the policy was there")
	}
	if err := tx.End(Store(tx, mustParse(t, "ops", source("secret/* read")))); err != nil {
		t.Fatal(err)
	}
	one, _ := cache.ACL(tx, []string{"default", "ops"})
	two, _ := cache.ACL(tx, []string{"default", "ops"})
	if !read() || one != two {
		t.Error("not allowed, or compiled twice")
	}
	if err := tx.End(tx.Delete("policy/ops")); err != nil {
		t.Fatal(err)
	}
	if read() {
		t.Error("allowed after the policy was deleted")
	}
	if root, _ := cache.ACL(tx, []string{"ops", "root"}); !root.Allows(Check{Path: "x", Operation: conclave.Read}).Root {
		t.Error("root was not root")
	}
}

func TestDamagedRecordIsAnError(t *testing.T) {
	tx := enginetest.NewMemory(t)
	for _, damage := range []string{"", "{", `{"policy":"nonsense {"}`} {
		if err := tx.End(tx.Put("policy/x", []byte(damage))); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(tx, "x"); !conclave.Is(err, conclave.Internal) {
			t.Errorf("%q: %v", damage, err)
		}
		tx.Rollback()
	}
}

// TestStoredFormStays loads a record as the first version wrote it.
func TestStoredFormStays(t *testing.T) {
	tx := enginetest.NewMemory(t)
	if err := tx.End(tx.Put("policy/ops", []byte(`{"policy":"path \"a\" { policy = \"read\" }"}`))); err != nil {
		t.Fatal(err)
	}
	p, err := Load(tx, "OPS")
	if err != nil || len(p.Rules) != 1 || p.Rules[0].Capabilities != CanRead|CanList {
		t.Errorf("%+v, %v", p, err)
	}
}

func BenchmarkCache(b *testing.B) {
	tx, cache := enginetest.NewMemory(b), NewCache()
	for _, name := range []string{"ops", "dev"} {
		if err := tx.End(Store(tx, mustParse(b, name, source("secret/* read")))); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := cache.ACL(tx, []string{"default", "dev", "ops"}); err != nil {
			b.Fatal(err)
		}
	}
}
