package jsonbody

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"reflect"
	"strings"
	"testing"

	"conclave"
)

func TestDecode(t *testing.T) {
	for _, tc := range []struct {
		in   string
		want map[string]any
	}{
		{`{}`, map[string]any{}},
		{" {\t\"a\" : 1 ,\r\n \"b\":[ ] } ", map[string]any{"a": json.Number("1"), "b": []any{}}},
		{`{"a":-0.5e+10}`, map[string]any{"a": json.Number("-0.5e+10")}},
		{`{"a":"\u00e9\ud83d\ude00\n\/\"\\"}`, map[string]any{"a": "é😀\n/\"\\"}},
		{`{"\u0061":"é"}`, map[string]any{"a": "é"}},
		{`null`, nil},
		{strings.Repeat(`{"a":`, MaxDepth) + `1` + strings.Repeat(`}`, MaxDepth), nested(MaxDepth)},
	} {
		got, _, err := Decode([]byte(tc.in))
		if err != nil || !reflect.DeepEqual(got, tc.want) {
			t.Errorf("Decode(%.60s) = %v, %v, want %v", tc.in, got, err, tc.want)
		}
	}
}

func nested(depth int) map[string]any {
	if depth == 1 {
		return map[string]any{"a": json.Number("1")}
	}
	return map[string]any{"a": nested(depth - 1)}
}

func TestDecodeRefuses(t *testing.T) {
	for _, in := range []string{
		``, ` `, `{`, `}`, `[`, `[1]`, `1`, `"a"`, `true`, `nul`, `{"a"}`, `{"a":}`, `{"a":1,}`, `{,}`, `{a:1}`, `{'a':1}`,
		`{"a":1}x`, `{"a":1}{}`, `{"a":01}`, `{"a":+1}`, `{"a":1.}`, `{"a":.5}`, `{"a":1e}`, `{"a":--1}`, `{"a":NaN}`,
		`{"a":"` + "\n" + `"}`, `{"a":"\x"}`, `{"a":"\u12"}`, `{"a":"\ud800"}`, `{"a":"\ud800\u0041"}`, `{"a":"\udc00"}`, `{"a":"\`,
		"{\"a\":\"\xff\"}", "{\"\xff\":1}", `{"a":1,"a":1}`, `{"a":1,"\u0061":2}`, `{"x":{"a":1,"a":2}}`,
		`{"a":[1 2]}`, `{"a":[1,]}`, "\ufeff{}", `{"a":1}` + "\x00", `{"a":True}`,
		`{"a":` + strings.Repeat("1", MaxNumber+1) + `}`,
		`{"` + strings.Repeat("a", MaxKey+1) + `":1}`,
		`{"` + strings.Repeat(`\n`, MaxKey+1) + `":1}`,
		`{"a":"` + strings.Repeat("a", MaxString+1) + `"}`,
		strings.Repeat(`{"a":`, MaxDepth+1) + `1` + strings.Repeat(`}`, MaxDepth+1),
		`{"a":[` + strings.Repeat("1,", MaxMembers) + `1]}`,
	} {
		if got, _, err := Decode([]byte(in)); !conclave.Is(err, conclave.Invalid) {
			t.Errorf("Decode(%.60q) = %.60v, %v, want an Invalid error", in, got, err)
		}
	}
}

func TestGoldenBody(t *testing.T) {
	body, err := os.ReadFile("testdata/body.json")
	if err != nil {
		t.Fatal(err)
	}
	fields, members, err := Decode(body)
	if err != nil || members != 21 {
		t.Fatalf("Decode(testdata/body.json) = %d members, %v, want 21", members, err)
	}
	if want := standardDecode(t, body); !reflect.DeepEqual(fields, want) {
		t.Errorf("testdata/body.json = %v, want %v", fields, want)
	}
}

func standardDecode(t testing.TB, body []byte) map[string]any {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var want map[string]any
	if err := d.Decode(&want); err != nil {
		t.Fatalf("encoding/json refuses %q, which was accepted: %v", body, err)
	}
	if _, err := d.Token(); err != io.EOF {
		t.Fatalf("encoding/json sees more than one value in %q", body)
	}
	return want
}

func FuzzDecode(f *testing.F) {
	golden, err := os.ReadFile("testdata/body.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(golden)
	for _, seed := range []string{`{}`, `null`, `{"a":1,"a":2}`, `{"\ud83d\ude00":[-1.5E-3,{"b":"\u0000"}]}`, `{"a":"\ud800"}`, "{\"a\":\"\xe2\x28\xa1\"}"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		fields, members, err := Decode(body)
		if err != nil {
			if !conclave.Is(err, conclave.Invalid) {
				t.Fatalf("Decode(%q) = %v, want an Invalid error", body, err)
			}
			return
		}
		if want := standardDecode(t, body); !reflect.DeepEqual(fields, want) {
			t.Fatalf("Decode(%q) = %v, encoding/json has %v", body, fields, want)
		}
		if members > len(body) {
			t.Fatalf("Decode(%q) counts %d members", body, members)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	body := []byte(`{"data":{"username":"app","password":"s3cr3t-s3cr3t-s3cr3t","url":"postgres://db/app"},"options":{"cas":3}}`)
	b.Run("ours", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, _, err := Decode(body); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("encoding-json", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			standardDecode(b, body)
		}
	})
}
