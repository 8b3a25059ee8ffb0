package conclave

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
)

type label string

type nested struct {
	CAS *int64 `json:"cas"`
}

type everything struct {
	Name    string            `path:"name"`
	Text    string            `json:"text"`
	Flag    bool              `json:"flag"`
	Int     int               `json:"int"`
	Small   int8              `json:"small"`
	Uint    uint16            `json:"uint"`
	Float   float64           `json:"float"`
	TTL     time.Duration     `json:"ttl"`
	Secret  Secret            `json:"secret"`
	Raw     json.RawMessage   `json:"raw"`
	List    []string          `json:"list"`
	Ints    []int64           `json:"ints"`
	Structs []nested          `json:"structs"`
	Map     map[string]string `json:"map"`
	Labels  map[label]int     `json:"labels"`
	Nulls   map[string]*int   `json:"nulls"`
	Pointer *bool             `json:"pointer"`
	Nested  *nested           `json:"nested"`
	Any     any               `json:"any"`
	Fields  map[string]any    `json:"*"`
	Ignored string            `json:"-"`
	Untaged string
	private string
}

// decode makes fields as the edge does.
func decode(t testing.TB, text string) map[string]any {
	t.Helper()
	var fields map[string]any
	decoder := json.NewDecoder(bytes.NewReader([]byte(text)))
	decoder.UseNumber()
	if err := decoder.Decode(&fields); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return fields
}

func TestBindConvertsAsClientsRelyOn(t *testing.T) {
	yes, one, cas := true, 1, int64(0)
	for text, want := range map[string]everything{
		`{}`: {},
		`{"text":null,"int":null,"ttl":null,"list":null,"map":null,"raw":null,"pointer":null,"nested":null,"any":null,"secret":null}`: {},
		`{"text":"a"}`:   {Text: "a"},
		`{"text":1.50}`:  {Text: "1.50"},
		`{"text":true}`:  {Text: "true"},
		`{"flag":"1"}`:   {Flag: true},
		`{"flag":1}`:     {Flag: true},
		`{"flag":"f"}`:   {},
		`{"flag":""}`:    {},
		`{"int":" 12 "}`: {Int: 12}, `{"int":1e3}`: {Int: 1000}, `{"int":"5.0"}`: {Int: 5}, `{"int":""}`: {}, `{"int":-9223372036854775808}`: {Int: math.MinInt64},
		`{"small":-128}`:   {Small: -128},
		`{"uint":"65535"}`: {Uint: 65535},
		`{"float":12.5}`:   {Float: 12.5}, `{"float":"-1e3"}`: {Float: -1000}, `{"float":""}`: {},
		`{"ttl":90}`: {TTL: 90 * time.Second}, `{"ttl":"90"}`: {TTL: 90 * time.Second}, `{"ttl":"1h30m"}`: {TTL: 90 * time.Minute}, `{"ttl":"30d"}`: {TTL: 720 * time.Hour},
		`{"ttl":""}`: {}, `{"ttl":"-1s"}`: {TTL: -time.Second}, `{"ttl":-5}`: {TTL: -5 * time.Second},
		`{"secret":"s"}`:                      {Secret: NewSecret("s")},
		`{"raw":{"b":1.0,"a":null}}`:          {Raw: json.RawMessage(`{"a":null,"b":1.0}`)},
		`{"raw":"x"}`:                         {Raw: json.RawMessage(`"x"`)},
		`{"list":["a",1,"b,c"]}`:              {List: []string{"a", "1", "b,c"}},
		`{"list":"a, b,,c"}`:                  {List: []string{"a", "b", "c"}},
		`{"list":""}`:                         {List: []string{}},
		`{"list":7}`:                          {List: []string{"7"}},
		`{"ints":"1,2"}`:                      {Ints: []int64{1, 2}},
		`{"ints":["1",2]}`:                    {Ints: []int64{1, 2}},
		`{"ints":3}`:                          {Ints: []int64{3}},
		`{"structs":[{"cas":0},{}]}`:          {Structs: []nested{{&cas}, {}}},
		`{"map":{"a":"b","n":1}}`:             {Map: map[string]string{"a": "b", "n": "1"}},
		`{"map":["a=b"," c = d=e "]}`:         {Map: map[string]string{"a": "b", "c": "d=e"}},
		`{"map":"a=b,c=d"}`:                   {Map: map[string]string{"a": "b", "c": "d"}},
		`{"map":""}`:                          {Map: map[string]string{}},
		`{"map":{}}`:                          {Map: map[string]string{}},
		`{"labels":{"a":1}}`:                  {Labels: map[label]int{"a": 1}},
		`{"nulls":{"a":null,"b":1}}`:          {Nulls: map[string]*int{"a": nil, "b": &one}},
		`{"pointer":true,"nested":{"cas":0}}`: {Pointer: &yes, Nested: &nested{&cas}},
		`{"any":[1]}`:                         {Any: []any{json.Number("1")}},
		`{"unknown":1,"Ignored":"x","-":"x","private":"x","Untaged":"x","name":"x","*":"x"}`: {},
	} {
		fields := decode(t, text)
		want.Name, want.Fields = "from the path", fields
		var got everything
		if err := bind(&got, map[string]string{"name": "from the path"}, fields); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s binds to\n%+v, %v, want\n%+v", text, got, err, want)
		}
	}
}

func TestBindRefusesWhatDoesntFit(t *testing.T) {
	for _, text := range []string{
		`{"text":{}}`, `{"text":[]}`, `{"flag":"yes"}`, `{"flag":2}`, `{"flag":[]}`, `{"int":1.5}`, `{"int":"a"}`, `{"int":true}`, `{"int":9223372036854775808}`, `{"int":1e400}`,
		`{"int":"NaN"}`, `{"int":"Inf"}`, `{"small":128}`, `{"uint":-1}`, `{"uint":65536}`, `{"float":"x"}`, `{"float":"NaN"}`, `{"float":"-Inf"}`, `{"float":1e400}`, `{"float":true}`, `{"float":{}}`,
		`{"ttl":"soon"}`, `{"ttl":1.5}`, `{"ttl":9223372037}`, `{"ttl":"9223372037"}`, `{"ttl":"106752d"}`, `{"ttl":"-1d"}`, `{"ttl":[]}`, `{"ttl":true}`,
		`{"secret":{}}`, `{"list":{}}`, `{"list":[null]}`, `{"list":[[]]}`, `{"ints":"1,x"}`, `{"ints":{}}`, `{"structs":"a"}`, `{"structs":{}}`, `{"structs":[1]}`,
		`{"map":"a"}`, `{"map":["a"]}`, `{"map":[1]}`, `{"map":1}`, `{"map":{"a":[]}}`, `{"labels":{"a":"x"}}`, `{"pointer":"x"}`, `{"nested":1}`, `{"nested":{"cas":"x"}}`,
	} {
		fields := decode(t, text)
		var in everything
		err := bind(&in, nil, fields)
		for name := range fields {
			if !Is(err, Invalid) || !strings.Contains(err.Error(), fmt.Sprintf("field %q", name)) {
				t.Errorf("%s: %v, want Invalid that names the field", text, err)
			}
		}
	}
}

func TestBindErrorsDontShowValues(t *testing.T) {
	const canary = "canary-9d1f"
	typ := reflect.TypeFor[everything]()
	for i := range typ.NumField() {
		name := typ.Field(i).Tag.Get("json")
		for _, value := range []any{canary, []any{canary}, []any{[]any{canary}}, map[string]any{canary: canary}, map[string]any{"cas": canary}, json.Number("1e99" + "0")} {
			var in everything
			if err := bind(&in, nil, map[string]any{name: value}); err != nil && strings.Contains(err.Error(), canary) {
				t.Errorf("field %q: the error shows the value: %v", name, err)
			}
		}
	}
}

func TestParseDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{"": 0, " 5 ": 5 * time.Second, "0": 0, "-1": -time.Second, "1m": time.Minute, "0d": 0, "106751d": 106751 * 24 * time.Hour, "9223372036": 9223372036 * time.Second} {
		if got, err := ParseDuration(text); got != want || err != nil {
			t.Errorf("ParseDuration(%q) = %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"x", "1.5", "5 s", "d", "1.5d", "9223372037", "-9223372037", "1e3", "0x10"} {
		if got, err := ParseDuration(text); err == nil {
			t.Errorf("ParseDuration(%q) = %v, want an error", text, got)
		}
	}
}

// FuzzBind binds any JSON object: no panic, errors are the client's, and binding twice gives the same.
func FuzzBind(f *testing.F) {
	for _, text := range []string{`{}`, `{"text":1,"flag":"true","int":"1e3","ttl":"1h","list":"a,b","map":["a=b"],"nested":{"cas":null}}`, `{"raw":[[[]]],"any":{"a":[1]},"float":1e308,"ints":[1,"2"],"nulls":{"a":null}}`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var fields map[string]any
		decoder := json.NewDecoder(bytes.NewReader(body))
		decoder.UseNumber()
		if decoder.Decode(&fields) != nil {
			return
		}
		var first, second everything
		err := bind(&first, map[string]string{"name": "n"}, fields)
		if err != nil && !Is(err, Invalid) {
			t.Errorf("%s: %v, want Invalid", body, err)
		}
		if again := bind(&second, map[string]string{"name": "n"}, fields); err == nil && (again != nil || !reflect.DeepEqual(first, second)) {
			t.Errorf("%s binds to\n%+v, then to\n%+v, %v", body, first, second, again)
		}
	})
}

func BenchmarkBind(b *testing.B) {
	fields := decode(b, `{"text":"service","flag":true,"ttl":"1h","list":["a","b"],"nested":{"cas":1}}`)
	b.ReportAllocs()
	for b.Loop() {
		var in everything
		if err := bind(&in, map[string]string{"name": "n"}, fields); err != nil {
			b.Fatal(err)
		}
	}
}
