package kubernetes

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"conclave"
	"conclave/engine/enginetest"
	"conclave/internal/jws"
)

func encode(t testing.TB, value any) string {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestConfig(t *testing.T) {
	h := enginetest.New(t, &Engine{})
	h.Fails(conclave.Read, "config", nil, conclave.NotFound, "")
	h.Data(conclave.Update, "config", map[string]any{"kubernetes_host": "https://k8s.example:6443", "token_reviewer_jwt": "canary", "issuer": "a"})
	got := h.Data(conclave.Read, "config", nil)
	want := `{"disable_iss_validation":true,"disable_local_ca_jwt":false,"issuer":"a","kubernetes_ca_cert":"","kubernetes_host":"https://k8s.example:6443","pem_keys":[],"token_reviewer_jwt_set":true,"use_annotations_as_alias_metadata":false}`
	if encode(t, got) != want {
		t.Errorf("configuration is %s", encode(t, got))
	}
	h.Data(conclave.Update, "config", map[string]any{"kubernetes_host": "https://k8s.example", "disable_iss_validation": false})
	got = h.Data(conclave.Read, "config", nil)
	if got["issuer"] != "" || got["token_reviewer_jwt_set"] != false || got["disable_iss_validation"] != false {
		t.Errorf("after another write the configuration is %v", got)
	}
	for _, c := range []struct {
		fields map[string]any
		text   string
	}{
		{map[string]any{}, "no host provided"},
		{map[string]any{"kubernetes_host": "k8s.example"}, "invalid 'kubernetes_host'"},
		{map[string]any{"kubernetes_host": "http://k8s.example"}, "must begin with https://"},
		{map[string]any{"kubernetes_host": "https://k8s.example", "disable_local_ca_jwt": true}, "kubernetes_ca_cert must be given when disable_local_ca_jwt is true"},
		{map[string]any{"kubernetes_host": "https://k8s.example", "kubernetes_ca_cert": "x"}, "invalid 'kubernetes_ca_cert'"},
		{map[string]any{"kubernetes_host": "https://k8s.example", "pem_keys": "x"}, "error parsing pem_keys"},
		{map[string]any{"kubernetes_host": "https://k8s.example", "pem_keys": strings.Repeat("x,", 100)}, "at most"},
		{map[string]any{"kubernetes_host": "https://k8s.example", "use_annotations_as_alias_metadata": true}, "not supported"},
		{map[string]any{"kubernetes_host": "https://k8s.example", "token_reviewer_jwt": strings.Repeat("x", maxConfig)}, "too large"},
	} {
		h.Fails(conclave.Update, "config", c.fields, conclave.Invalid, c.text)
	}
}

func TestRoles(t *testing.T) {
	h := enginetest.New(t, &Engine{})
	h.Data(conclave.Update, "role/App", map[string]any{"bound_service_account_names": "a,b", "bound_service_account_namespaces": "c", "policies": "x", "ttl": "5m"})
	h.Data(conclave.Update, "role/app", map[string]any{"audience": "vault", "token_max_ttl": 600})
	got := h.Data(conclave.Read, "role/APP", nil)
	for name, want := range map[string]string{"bound_service_account_names": `["a","b"]`, "bound_service_account_namespaces": `["c"]`, "token_policies": `["x"]`, "token_ttl": "300",
		"token_max_ttl": "600", "audience": `"vault"`, "alias_name_source": `"serviceaccount_uid"`, "token_bound_cidrs": "[]", "bound_service_account_namespace_selector": `""`} {
		if encode(t, got[name]) != want {
			t.Errorf("%s is %v, want %s", name, got[name], want)
		}
	}
	if keys := h.Data(conclave.List, "role", nil)["keys"]; encode(t, keys) != `["app"]` {
		t.Errorf("roles are %v", keys)
	}
	for _, c := range []struct {
		change map[string]any
		text   string
	}{
		{map[string]any{"bound_service_account_names": []string{}}, `"bound_service_account_names" can not be empty`},
		{map[string]any{"bound_service_account_namespaces": []string{}}, `"bound_service_account_namespaces" can not be empty`},
		{map[string]any{"bound_service_account_names": "a,*"}, "can not mix"},
		{map[string]any{"bound_service_account_namespaces": "*,a"}, "can not mix"},
		{map[string]any{"alias_name_source": "name"}, "invalid alias_name_source"},
		{map[string]any{"bound_service_account_namespace_selector": "{"}, "invalid \"bound_service_account_namespace_selector\""},
		{map[string]any{"bound_service_account_namespace_selector": "{}"}, "invalid \"bound_service_account_namespace_selector\""},
		{map[string]any{"bound_service_account_namespace_selector": `{"matchExpressions":[]}`}, "invalid \"bound_service_account_namespace_selector\""},
		{map[string]any{"bound_service_account_namespace_selector": `{"matchLabels":{"a":"b"},"matchExpressions":[{"key":"c","operator":"Exists"}]}`}, "invalid \"bound_service_account_namespace_selector\""},
		{map[string]any{"bound_service_account_namespace_selector": `{"matchLabels":{"a":"` + strings.Repeat("b", maxSelector) + `"}}`}, "invalid \"bound_service_account_namespace_selector\""},
		{map[string]any{"token_policies": "root"}, "root"},
		{map[string]any{"audience": strings.Repeat("a", maxRole)}, "too large"},
	} {
		h.Fails(conclave.Update, "role/app", c.change, conclave.Invalid, c.text)
	}
	for _, name := range []string{".", "-a", "a b", "é", strings.Repeat("a", 300)} {
		h.Fails(conclave.Update, "role/"+name, map[string]any{"bound_service_account_names": "*", "bound_service_account_namespaces": "*"}, conclave.Invalid, "invalid role name")
	}
	h.Data(conclave.Delete, "role/app", nil)
	h.Fails(conclave.Read, "role/app", nil, conclave.NotFound, "")
}

// TestFormatsStillLoad has what earlier versions have stored, and what a Kubernetes API server answers.
func TestFormatsStillLoad(t *testing.T) {
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	loaded, err := decodeConfig(read("config.json"))
	if err != nil || loaded.(*config).Reviewer != "reviewer" || len(loaded.(*config).keys) != 1 || !loaded.(*config).AnyIssuer {
		t.Errorf("configuration is %+v, %v", loaded, err)
	}
	if loaded, err = decodeRole(read("role.json")); err != nil || loaded.(*role).Audience != "vault" || loaded.(*role).TTL != 300 || loaded.(*role).check() != nil {
		t.Errorf("role is %+v, %v", loaded, err)
	}
	outcome, err := decodeReview(read("review.json"))
	if err != nil || !outcome.Authenticated || outcome.User.Username != "system:serviceaccount:app:web" || len(outcome.Audiences) != 1 {
		t.Errorf("review is %+v, %v", outcome, err)
	}
	labels, err := decodeLabels(read("namespace.json"), "app")
	if err != nil || labels["kubernetes.io/metadata.name"] != "app" {
		t.Errorf("labels are %v, %v", labels, err)
	}
	if _, err := decodeLabels(read("namespace.json"), "other"); err == nil {
		t.Error("the labels of one namespace are taken for those of another")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"kind":"TokenReview","status":{"authenticated":true,"user":{"username":"system:serviceaccount:a:b"}}}`))
	f.Add([]byte(`{"kind":"Namespace","metadata":{"name":"app","labels":{"a":"b"}}}`))
	f.Add([]byte(`{"bound_service_account_names":["*"],"kubernetes_host":"x"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if outcome, err := decodeReview(data); err == nil {
			if namespace, name, ok := parseUser(outcome.User.Username); ok && "system:serviceaccount:"+namespace+":"+name != outcome.User.Username {
				t.Errorf("%q is taken apart wrongly", outcome.User.Username)
			}
		}
		_, _ = decodeLabels(data, "app")
		_, _ = decodeConfig(data)
		if loaded, err := decodeRole(data); err == nil {
			_ = loaded.(*role).check()
		}
	})
}

func FuzzAccountOf(f *testing.F) {
	f.Add([]byte(`{"kubernetes.io":{"namespace":"a","serviceaccount":{"name":"b","uid":"c"}}}`))
	f.Add([]byte(`{"kubernetes.io/serviceaccount/namespace":"a"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		claims, err := jws.ParseClaims(data)
		if err != nil {
			return
		}
		if who, err := accountOf(claims); err == nil && strings.ContainsAny(who.namespace+who.name+who.uid, "/:?#%\\ ") {
			t.Errorf("%s is %+v", data, who)
		}
	})
}

func FuzzParseSelector(f *testing.F) {
	f.Add(`{"matchLabels":{"a":"b"}}`)
	f.Add("matchLabels:\n  a: b\n")
	f.Fuzz(func(t *testing.T, text string) {
		if labels, err := parseSelector(text); err == nil && len(labels) == 0 {
			t.Errorf("%q selects everything", text)
		}
	})
}
