package approle

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"

	"conclave"
)

// goldenRole and goldenSecret are what testdata has as the first version stored it. Fields may be added to a format; what
// was ever stored must go on meaning the same.
func goldenRole() *role {
	return &role{Name: "web-1", RoleID: "5e3a2b1c-0000-4000-8000-000000000001", UID: "AAECAwQFBgcICQoLDA0ODw", Key: bytes.Repeat([]byte{7}, keyBytes),
		Settings: settings{BindSecretID: true, SecretIDBoundCIDRs: []string{"192.0.2.0/24"}, SecretIDNumUses: 3, SecretIDTTL: 3600, LocalSecretIDs: true,
			AliasMetadata: map[string]string{"team": "a"},
			TokenTerms: conclave.TokenTerms{BoundCIDRs: []string{"10.0.0.0/8"}, ExplicitMaxTTL: 5, MaxTTL: 4, NoDefaultPolicy: true, NumUses: 3, Period: 2,
				Policies: []string{"a", "b"}, TTL: 1, Type: "service"}}}
}

func goldenSecret() *secretID {
	return &secretID{Accessor: "5e3a2b1c-0000-4000-8000-000000000002", Created: 1767323045678901234, Expires: 1767326645678901234, TTL: 3600, NumUses: 3,
		Metadata: map[string]string{"env": "prod"}, CIDRs: []string{"192.0.2.7"}, TokenCIDRs: []string{"10.0.0.0/16"}}
}

func TestStoredFormatsStayReadable(t *testing.T) {
	r := goldenRole()
	r.internal = json.RawMessage(`{"role_name":"web-1","role_uid":"AAECAwQFBgcICQoLDA0ODw"}`)
	for _, row := range []struct {
		file   string
		decode func([]byte) (any, error)
		want   any
	}{
		{"testdata/role.json", decodeRole, r},
		{"testdata/secret.json", decodeSecret, goldenSecret()},
	} {
		value, err := os.ReadFile(row.file)
		if err != nil {
			t.Fatal(err)
		}
		got, err := row.decode(value)
		if err != nil || !reflect.DeepEqual(got, row.want) {
			t.Errorf("%s is\n%+v, %v; want\n%+v", row.file, got, err, row.want)
		}
		encoded, err := json.Marshal(row.want)
		if err != nil || !bytes.Equal(encoded, bytes.TrimSpace(value)) {
			t.Errorf("%s is written as\n%s, %v; was\n%s", row.file, encoded, err, value)
		}
	}
	if got, want := goldenRole().hash("secret"), "6Pmsx2SYwCimYWLtyeZZem9fV8UER8i-Cp1qrrOmvEY"; got != want {
		t.Errorf("the hash of a secret-id is %s, was %s: secret-ids that were given log in no more", got, want)
	}
}

func FuzzStored(f *testing.F) {
	for _, golden := range []any{goldenRole(), goldenSecret()} {
		value, err := json.Marshal(golden)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		if got, err := decodeRole(value); err == nil {
			r := got.(*role)
			r.hash("x")
			if r.Name == "" || len(r.Key) != keyBytes {
				t.Errorf("accepted %+v", r)
			}
		} else if !conclave.Is(err, conclave.Internal) {
			t.Error(err)
		}
		if got, err := decodeSecret(value); err == nil {
			if s := got.(*secretID); s.Accessor == "" {
				t.Errorf("accepted %+v", s)
			}
		} else if !conclave.Is(err, conclave.Internal) {
			t.Error(err)
		}
	})
}

// FuzzRoutes sends any body to every route of a role with a secret-id. Errors must be the client's, answers must be JSON,
// and nobody logs in with what isn't the secret-id.
func FuzzRoutes(f *testing.F) {
	for _, body := range []string{
		`{}`, `null`, `{"role_id":"a","secret_id":"b"}`, `{"metadata":"{\"a\":1}","cidr_list":["10.0.0.0/8"],"num_uses":"1","ttl":"1h"}`,
		`{"secret_id_accessor":"5e3a2b1c-0000-4000-8000-000000000002"}`, `{"bind_secret_id":false,"secret_id_bound_cidrs":"0.0.0.0/0"}`,
		`{"token_policies":["a"],"token_ttl":-1,"token_type":"batch","alias_metadata":{"a":"b"}}`, `{"secret_id_num_uses":1e3,"secret_id_ttl":"9d"}`,
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		h := mounted(t)
		h.Data(conclave.Update, "role/a", fields{"role_id": "the id"})
		h.Data(conclave.Update, "role/a/custom-secret-id", fields{"secret_id": "the secret"})
		for _, route := range (Engine{}).Routes() {
			response, err := h.DoJSON(route.Operation, strings.ReplaceAll(route.Pattern, "{role_name}", "a"), body)
			if failure, ok := errors.AsType[*conclave.Error](err); err != nil && (!ok || failure.Kind == conclave.Internal) {
				t.Errorf("%s %s: internal error %v", route.Operation, route.Pattern, err)
			}
			if err != nil {
				continue
			}
			if _, err := json.Marshal(response.Data); err != nil {
				t.Errorf("%s %s: %v", route.Operation, route.Pattern, err)
			}
		}
	})
}
