package kv

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"conclave"
)

func TestMetadataTellsAll(t *testing.T) {
	h := newVersioned(t)
	h.Data(conclave.Update, "metadata/a", fields{"max_versions": "7", "cas_required": false, "delete_version_after": "3h25m19s", "custom_metadata": fields{"owner": "team", "n": 1}})
	checkJSON(t, "new", h.Data(conclave.Read, "metadata/a", nil), `{"cas_required":false,"created_time":"`+began+`","current_version":0,"custom_metadata":{"owner":"team","n":"1"},
		"delete_version_after":"3h25m19s","max_versions":7,"oldest_version":0,"updated_time":"`+began+`","versions":{}}`)
	h.Fails(conclave.Read, "data/a", nil, conclave.NotFound, "")
	h.Advance(time.Second)
	put(h, "a", 1)
	checkJSON(t, "written", h.Data(conclave.Read, "metadata/a", nil), `{"cas_required":false,"created_time":"`+began+`","current_version":1,"custom_metadata":{"owner":"team","n":"1"},
		"delete_version_after":"3h25m19s","max_versions":7,"oldest_version":0,"updated_time":"2026-01-02T03:04:06.678901234Z",
		"versions":{"1":{"created_time":"2026-01-02T03:04:06.678901234Z","deletion_time":"2026-01-02T06:29:25.678901234Z","destroyed":false}}}`)
	checkJSON(t, "data", h.Data(conclave.Read, "data/a", nil)["metadata"].(map[string]any)["custom_metadata"], `{"owner":"team","n":"1"}`)
}

func TestMetadataWriteChangesWhatIsGiven(t *testing.T) {
	h := newVersioned(t)
	h.Data(conclave.Update, "metadata/none", nil)
	h.Fails(conclave.Read, "metadata/none", nil, conclave.NotFound, "")
	h.Data(conclave.Update, "metadata/a", fields{"max_versions": 3, "cas_required": true, "custom_metadata": fields{"a": "1"}})
	h.Data(conclave.Update, "metadata/a", fields{"delete_version_after": 60})
	h.Data(conclave.Update, "metadata/a", fields{"custom_metadata": fields{"b": "2"}})
	got := h.Data(conclave.Read, "metadata/a", nil)
	if got["cas_required"] != true || got["delete_version_after"] != "1m0s" || !reflect.DeepEqual(got["custom_metadata"], fields{"b": "2"}) {
		t.Errorf("metadata is %v", got)
	}
	h.Data(conclave.Update, "metadata/a", fields{"custom_metadata": fields{}})
	if got := h.Data(conclave.Read, "metadata/a", nil)["custom_metadata"]; got != nil {
		t.Errorf("custom_metadata is %v, want null", got)
	}
}

func TestMetadataPatch(t *testing.T) {
	h := newVersioned(t)
	h.Fails(conclave.Patch, "metadata/a", fields{"max_versions": 1}, conclave.NotFound, "")
	h.Data(conclave.Update, "metadata/a", fields{"max_versions": 3, "cas_required": true, "delete_version_after": 60, "custom_metadata": fields{"a": "1", "b": "2"}})
	h.Data(conclave.Patch, "metadata/a", fields{"custom_metadata": fields{"a": nil, "c": "3"}, "max_versions": nil})
	got := h.Data(conclave.Read, "metadata/a", nil)
	if got["max_versions"].(fmt.Stringer).String() != "0" || got["cas_required"] != true || !reflect.DeepEqual(got["custom_metadata"], fields{"b": "2", "c": "3"}) {
		t.Errorf("patched metadata is %v", got)
	}
	h.Data(conclave.Patch, "metadata/a", fields{"custom_metadata": nil, "cas_required": nil, "delete_version_after": nil})
	got = h.Data(conclave.Read, "metadata/a", nil)
	if got["custom_metadata"] != nil || got["cas_required"] != false || got["delete_version_after"] != "0s" {
		t.Errorf("metadata patched with nulls is %v", got)
	}
	h.Data(conclave.Patch, "metadata/a", fields{"custom_metadata": fields{"d": "4"}})
	h.Data(conclave.Patch, "metadata/a", nil)
}

func TestMetadataLimits(t *testing.T) {
	h := newVersioned(t)
	many := fields{}
	for i := range maxCustomKeys {
		many[fmt.Sprintf("%0*d", maxCustomKey, i)] = strings.Repeat("v", maxCustomValue)
	}
	h.Data(conclave.Update, "metadata/full", fields{"custom_metadata": many})
	h.Fails(conclave.Patch, "metadata/full", fields{"custom_metadata": fields{"more": "x"}}, conclave.Invalid, "at most 64 keys")
	for text, bad := range map[string]fields{
		"length of a key is 129":          {"custom_metadata": fields{strings.Repeat("k", 129): "v"}},
		"length of a key is 0":            {"custom_metadata": fields{"": "v"}},
		"length of the value is 513":      {"custom_metadata": fields{"k": strings.Repeat("v", 513)}},
		"length of the value is 0":        {"custom_metadata": fields{"k": ""}},
		"key contains unprintable":        {"custom_metadata": fields{"k\n": "v"}},
		"value contains unprintable":      {"custom_metadata": fields{"k": "v\x00"}},
		"must be a string":                {"custom_metadata": fields{"k": fields{}}},
		"max_versions must be between":    {"max_versions": -1},
		"between 0 and 10000":             {"max_versions": 10001},
		"whole number":                    {"max_versions": "many"},
		"delete_version_after can't be":   {"delete_version_after": "-1s"},
		`field "delete_version_after": m`: {"delete_version_after": "soon"},
	} {
		h.Fails(conclave.Update, "metadata/a", bad, conclave.Invalid, text)
	}
	h.Fails(conclave.Update, "config", fields{"max_versions": -1}, conclave.Invalid, "max_versions must be")
	h.Fails(conclave.Read, "metadata/a", nil, conclave.NotFound, "")
}

func TestConfig(t *testing.T) {
	h := newVersioned(t)
	checkJSON(t, "default", h.Data(conclave.Read, "config", nil), `{"max_versions":0,"cas_required":false,"delete_version_after":"0s"}`)
	h.Data(conclave.Update, "config", fields{"max_versions": 5})
	h.Data(conclave.Update, "config", fields{"delete_version_after": 90, "cas_required": true})
	h.Data(conclave.Update, "config", nil)
	checkJSON(t, "changed", h.Data(conclave.Read, "config", nil), `{"max_versions":5,"cas_required":true,"delete_version_after":"1m30s"}`)
	response, err := h.Do(conclave.Update, "metadata/a", fields{"cas_required": false})
	if err != nil || len(response.Warnings) != 1 {
		t.Errorf("a secret less strict than its mount: %v, %v, want a warning", response, err)
	}
}
