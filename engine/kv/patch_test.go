package kv

import (
	"encoding/json"
	"testing"

	"conclave"
)

// The examples of RFC 7386, appendix A.
func TestMergePatchOfTheRFC(t *testing.T) {
	for _, row := range [][3]string{
		{`{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`},
		{`{"a":"b"}`, `{"a":null}`, `{}`},
		{`{"a":"b","b":"c"}`, `{"a":null}`, `{"b":"c"}`},
		{`{"a":["b"]}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"c"}`, `{"a":["b"]}`, `{"a":["b"]}`},
		{`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d"}}`},
		{`{"a":[{"b":"c"}]}`, `{"a":[1]}`, `{"a":[1]}`},
		{`["a","b"]`, `["c","d"]`, `["c","d"]`},
		{`{"a":"b"}`, `["c"]`, `["c"]`},
		{`{"a":"foo"}`, `null`, `null`},
		{`{"a":"foo"}`, `"bar"`, `"bar"`},
		{`{"e":null}`, `{"a":1}`, `{"a":1,"e":null}`},
		{`[1,2]`, `{"a":"b","c":null}`, `{"a":"b"}`},
		{`{}`, `{"a":{"bb":{"ccc":null}}}`, `{"a":{"bb":{}}}`},
	} {
		got, err := mergePatch([]byte(row[0]), []byte(row[1]))
		if err != nil || string(got) != row[2] {
			t.Errorf("patch %s with %s = %s, %v, want %s", row[0], row[1], got, err, row[2])
		}
	}
}

func TestPatchMakesAVersion(t *testing.T) {
	h := newVersioned(t)
	h.Data(conclave.Update, "data/a", fields{"data": fields{"keep": 1.50, "gone": 1, "deep": fields{"a": 1, "b": 2}}})
	got := h.Data(conclave.Patch, "data/a", fields{"data": fields{"gone": nil, "deep": fields{"b": nil, "c": 3}}})
	if got["version"] != json.Number("2") {
		t.Errorf("patch answers %v", got)
	}
	checkJSON(t, "patched", h.Data(conclave.Read, "data/a", nil)["data"], `{"keep":1.50,"deep":{"a":1,"c":3}}`)
	checkJSON(t, "before", h.Data(conclave.Read, "data/a", fields{"version": 1})["data"], `{"keep":1.50,"gone":1,"deep":{"a":1,"b":2}}`)
	h.Data(conclave.Update, "metadata/bare", fields{"max_versions": 1})
	h.Fails(conclave.Patch, "data/bare", fields{"data": fields{}}, conclave.NotFound, "")
}

func TestSubkeys(t *testing.T) {
	h := newVersioned(t)
	h.Data(conclave.Update, "data/a", fields{"data": fields{"s": "secret", "l": []any{fields{"x": 1}}, "e": fields{}, "o": fields{"p": fields{"q": "secret"}}}})
	put(h, "a", 1)
	for depth, want := range map[int]string{
		0:  `{"s":null,"l":null,"e":null,"o":{"p":{"q":null}}}`,
		1:  `{"s":null,"l":null,"e":null,"o":null}`,
		2:  `{"s":null,"l":null,"e":null,"o":{"p":null}}`,
		-1: `{"s":null,"l":null,"e":null,"o":{"p":{"q":null}}}`,
	} {
		got := h.Data(conclave.Read, "subkeys/a", fields{"depth": depth, "version": 1})
		checkJSON(t, "subkeys", got, `{"subkeys":`+want+`,"metadata":{"created_time":"`+began+`","custom_metadata":null,"deletion_time":"","destroyed":false,"version":1}}`)
	}
	h.Fails(conclave.Read, "subkeys/a", fields{"version": 7}, conclave.NotFound, "")
	h.Fails(conclave.Read, "subkeys/none", nil, conclave.NotFound, "")
}
