package passwordpolicy

import (
	"context"
	"encoding/base64"
	"strings"
	"testing"

	"conclave"
	"conclave/engine/enginetest"
	"conclave/password"
)

// folderRoutes has the routes tested by the kit for engines: they are typed, documented and pure like those.
type folderRoutes struct{}

func (folderRoutes) Kind() string             { return "passwordpolicy" }
func (folderRoutes) Routes() []conclave.Route { return Routes() }

var plugin = conclave.Plugin{Kind: "passwordpolicy", Doc: "Password policies.", Open: func(map[string]string) (conclave.Engine, error) { return folderRoutes{}, nil }}

const digits = `length = 6 rule "charset" { charset = "0123456789" min-chars = 6 }`

func TestConformance(t *testing.T) { enginetest.Conformance(t, plugin) }

func TestPasswordPolicyLivesThroughItsRoutes(t *testing.T) {
	h := enginetest.New(t, folderRoutes{})
	h.Fails(conclave.List, "policies/password/", nil, conclave.NotFound, "")
	h.Data(conclave.Update, "policies/password/pin", map[string]any{"policy": digits})
	h.Data(conclave.Update, "policies/password/Pin", map[string]any{"policy": base64.StdEncoding.EncodeToString([]byte(digits)), "entropy_source": "platform"})
	for _, name := range []string{"pin", "Pin"} {
		if got := h.Data(conclave.Read, "policies/password/"+name, nil)["policy"]; got != digits {
			t.Errorf("policy %s is %v", name, got)
		}
	}
	if keys := h.Data(conclave.List, "policies/password/", map[string]any{"limit": 1, "after": "Pin"})["keys"]; len(keys.([]any)) != 1 || keys.([]any)[0] != "pin" {
		t.Errorf("names after Pin are %v", keys)
	}
	first := h.Data(conclave.Read, "policies/password/pin/generate", nil)["password"].(string)
	if len(first) != 6 || strings.Trim(first, "0123456789") != "" {
		t.Errorf("password is %q", first)
	}
	if text, err := Text(h.View(), "pin"); text != digits || err != nil {
		t.Errorf("Text = %q, %v", text, err)
	}
	h.Data(conclave.Delete, "policies/password/pin", nil)
	h.Data(conclave.Delete, "policies/password/pin", nil)
	h.Fails(conclave.Read, "policies/password/pin", nil, conclave.NotFound, "")
	h.Fails(conclave.Read, "policies/password/pin/generate", nil, conclave.NotFound, "")
	if text, err := Text(h.View(), "pin"); text != "" || err != nil {
		t.Errorf("Text of what was deleted = %q, %v", text, err)
	}
	for _, name := range []string{"", "a/b", "a\x00", " pin", strings.Repeat("a", maxName+1)} {
		if text, err := Text(h.View(), name); text != "" || err != nil {
			t.Errorf("Text(%q) = %q, %v", name, text, err)
		}
	}
}

func TestBadPoliciesAreNotStored(t *testing.T) {
	h := enginetest.New(t, folderRoutes{})
	for _, row := range []struct {
		fields map[string]any
		want   string
	}{
		{nil, "missing policy"},
		{map[string]any{"policy": " "}, "missing policy"},
		{map[string]any{"policy": "length = 3"}, "line 1: length"},
		{map[string]any{"policy": `length = 4 rule "charset" { charset = "ab" min-chars = 3 } rule "charset" { charset = "01" min-chars = 2 }`}, "hardly any"},
		{map[string]any{"policy": digits, "entropy_source": "seal"}, "entropy_source"},
	} {
		h.Fails(conclave.Update, "policies/password/p", row.fields, conclave.Invalid, row.want)
	}
	h.Fails(conclave.Update, "policies/password/"+strings.Repeat("a", maxName+1), map[string]any{"policy": digits}, conclave.Invalid, "name")
	if stored := h.Stored(); len(stored) > 0 {
		t.Errorf("stored: %v", stored)
	}
}

// TestStoredFormat loads the format as it was shipped first.
func TestStoredFormat(t *testing.T) {
	h := enginetest.New(t, folderRoutes{})
	h.Store("password-policy/old", []byte(`{"policy":"length = 5\nrule \"charset\" { charset = \"x\" }","entropy_source":"platform"}`))
	if got := h.Data(conclave.Read, "policies/password/old/generate", nil)["password"]; got != "xxxxx" {
		t.Errorf("password is %v", got)
	}
	if got := h.Data(conclave.Read, "policies/password/old", nil)["entropy_source"]; got != "platform" {
		t.Errorf("entropy_source is %v", got)
	}
	h.Store("password-policy/broken", []byte(`{"policy":`))
	if _, err := Text(h.View(), "broken"); !conclave.Is(err, conclave.Internal) {
		t.Errorf("a damaged record: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"policy":"length = 5"}`))
	f.Add([]byte(`{"policy":7}`))
	f.Fuzz(func(t *testing.T, value []byte) {
		if got, err := decode(value); err == nil && got.(*record).Policy == "" || err != nil && !conclave.Is(err, conclave.Internal) {
			t.Errorf("decode = %v, %v", got, err)
		}
	})
}

func TestPasswordsAreMadeOfWhatWasGathered(t *testing.T) {
	ctx := conclave.WithGathered(context.Background(), password.Default().String())
	made, err := makePassword(ctx, nil, nil)
	if text, ok := made.(string); err != nil || !ok || !password.Default().Allows(text) {
		t.Errorf("made %v, %v", made, err)
	}
}
