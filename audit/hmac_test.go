package audit

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"conclave/crypto"
)

func testHasher() *Hasher { return NewHasher(crypto.Key{1, 2, 3}) }

// hashed is the hash written the long way.
func hashed(text string) string {
	key := crypto.Key{1, 2, 3}
	mac := hmac.New(sha256.New, key[:])
	mac.Write([]byte(text))
	return "hmac-sha256:" + hex.EncodeToString(mac.Sum(nil))
}

func TestHashIsHMACInVaultsForm(t *testing.T) {
	h := testHasher()
	for _, text := range []string{"", "s.token", strings.Repeat("x", 10_000), "s.token"} {
		if got, want := h.Hash(text), hashed(text); got != want {
			t.Errorf("Hash(%d bytes) = %s, want %s", len(text), got, want)
		}
	}
}

func TestDataIsHashed(t *testing.T) {
	q := func(text string) string { return `"` + hashed(text) + `"` }
	rows := []struct {
		name, in string
		clear    []string
		want     string
	}{
		{"kv write", `{"data":{"password":"x"},"options":{"cas":1}}`, nil,
			`{"data":{` + q("password") + `:` + q("x") + `},"options":{"cas":` + q("1") + `}}`},
		{"clear field", `{"data":{"password":"x"},"options":{"cas":1}}`, []string{"options"},
			`{"data":{` + q("password") + `:` + q("x") + `},"options":{"cas":1}}`},
		{"clear only outermost", `{"data":{"options":"x"}}`, []string{"options"}, `{"data":{"options":` + q("x") + `}}`},
		{"white space", " { \"ttl\" :\n\t[ true , null , -1.5e+3 ] } \r\n", nil,
			`{"ttl":[` + q("true") + `,null,` + q("-1.5e+3") + `]}`},
		{"escapes", `{"data":"a\"\u00e9\n"}`, nil, `{"data":` + q("a\"é\n") + `}`},
		{"clear escapes", `{"path":"a\u0000\"\\\n\u007f"}`, []string{"path"}, `{"path":"a\u0000\"\\\u000a\u007f"}`},
		{"escaped key", `{"\u0064ata":1}`, nil, `{"data":` + q("1") + `}`},
		{"empty", `{}`, nil, `{}`},
		{"empty array", `[ ]`, nil, `[]`},
		{"null", `null`, nil, `null`},
		{"string", `"a"`, nil, q("a")},
		{"bad UTF-8 in the clear", "{\"path\":\"a\xff\"}", []string{"path"}, `{"path":"a\ufffd"}`},
		{"not JSON", `{"data":`, nil, `{"whole":` + q(`{"data":`) + `}`},
		{"long in the clear", `{"path":"` + strings.Repeat("a", 1025) + `"}`, []string{"path"}, `{"path":` + q(strings.Repeat("a", 1025)) + `}`},
	}
	h := testHasher()
	for _, row := range rows {
		if got := string(h.AppendData([]byte("head"), []byte(row.in), row.clear)); got != "head"+row.want {
			t.Errorf("%s: AppendData(%s) =\n%s, want\n%s", row.name, row.in, got, "head"+row.want)
		}
	}
}

func TestOnlyJSONIsTakenApart(t *testing.T) {
	h := testHasher()
	for _, bad := range []string{"", " ", "{", "}", "[1,]", "[,1]", `{"a"}`, `{"a":}`, `{,}`, `{"a":1,}`, `{a:1}`, "01", "1.", ".5", "1e", "+1", "-",
		"tru", "nul", `"a`, `"\x"`, "\"\n\"", "1 2", "{}x", "[1 2]", `{"a" 1}`, strings.Repeat("[", 100) + strings.Repeat("]", 100)} {
		if got := string(h.AppendData(nil, []byte(bad), nil)); got != `{"whole":"`+hashed(bad)+`"}` {
			t.Errorf("AppendData(%q) = %s, want one hash over the whole", bad, got)
		}
	}
}

func TestManyFieldsAreOneHash(t *testing.T) {
	object := func(n int) []byte {
		var members []string
		for i := range n {
			members = append(members, fmt.Sprintf(`"k%d":"v"`, i))
		}
		return []byte("{" + strings.Join(members, ",") + "}")
	}
	h := testHasher()
	if got := h.AppendData(nil, object(MaxFields), nil); bytes.Contains(got, []byte("whole")) {
		t.Errorf("%d fields became one hash", MaxFields)
	}
	over := object(MaxFields + 1)
	if got, want := string(h.AppendData(nil, over, nil)), `{"whole":"`+hashed(string(over))+`"}`; got != want {
		t.Errorf("%d fields gave %s, want %s", MaxFields+1, got, want)
	}
}

func TestHasherDoesNotPrintItsKey(t *testing.T) {
	if got := fmt.Sprintf("%v %s %#v", testHasher(), testHasher(), testHasher()); got != "[redacted] [redacted] [redacted]" {
		t.Errorf("printed: %s", got)
	}
}

// FuzzAppendData puts a canary where a value and a key are, and looks for it in what comes out.
func FuzzAppendData(f *testing.F) {
	const canary = "cAnArY7391"
	for _, seed := range []string{`{"data":{"password":"x"},"options":{"cas":1}}`, `[1,"a",null,true]`, `{"whole":{}}`, `"\ud800"`, "{", `{"a":{"b":[[]]}}`} {
		f.Add([]byte(seed), "data")
	}
	h := testHasher()
	f.Fuzz(func(t *testing.T, data []byte, clear string) {
		out := h.AppendData(nil, data, []string{clear})
		if !json.Valid(out) || bytes.ContainsAny(out, "\n\r") {
			t.Fatalf("AppendData(%q) = %q, not one line of JSON", data, out)
		}
		if json.Valid(data) && bytes.Contains(out, []byte("whole")) && len(data) < 100 && !bytes.Contains(data, []byte("hole")) &&
			bytes.Count(data, []byte("["))+bytes.Count(data, []byte("{")) < maxNested && bytes.Count(data, []byte(",")) < 30 {
			t.Fatalf("AppendData(%q) = %q: valid JSON was not taken apart", data, out)
		}
		wrapped := append([]byte(`{"`+canary+`":"`+canary+`","data":["`+canary+`",`), data...)
		wrapped = append(wrapped, "]}"...)
		if out := h.AppendData(nil, wrapped, []string{clear}); bytes.Contains(out, []byte(canary)) && clear != canary && clear != "data" {
			t.Fatalf("AppendData(%q) = %q, with the canary", wrapped, out)
		}
	})
}

// body300 is a kv write of about 300 bytes.
func body300() []byte {
	return []byte(`{"data":{"username":"application-user","password":"` + strings.Repeat("p", 40) + `","host":"database.internal.example.org","port":5432,` +
		`"certificate":"` + strings.Repeat("c", 80) + `"},"options":{"cas":7}}`)
}

func BenchmarkAppendData300(b *testing.B) {
	h, body, dst := testHasher(), body300(), make([]byte, 0, 4096)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		dst = h.AppendData(dst[:0], body, nil)
	}
}
