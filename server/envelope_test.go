package server

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"conclave"
)

func TestEnvelope(t *testing.T) {
	long := strings.Repeat("x", maxPooled+1)
	for _, tc := range []struct {
		name   string
		resp   *conclave.Response
		status int
		body   string // of the envelope, without the request id
	}{
		{"nothing", &conclave.Response{}, 204, ``},
		{"no response", nil, 204, ``},
		{"nothing, with a status", &conclave.Response{Status: 200}, 200, `"lease_id":"","renewable":false,"lease_duration":0,"data":null,"wrap_info":null,"warnings":null,"auth":null,"mount_type":""}`},
		{"warnings alone", &conclave.Response{Warnings: []string{"a\"b", "c\u2028\x01"}}, 200,
			`"lease_id":"","renewable":false,"lease_duration":0,"data":null,"wrap_info":null,"warnings":["a\"b","c` + "\u2028" + `\u0001"],"auth":null,"mount_type":""}`},
		{"data", &conclave.Response{Data: map[string]any{"a": 1, "h": "<&>"}, MountType: "kv", Lease: &conclave.Lease{TTL: time.Hour}}, 200,
			`"lease_id":"","renewable":false,"lease_duration":3600,"data":{"a":1,"h":"<&>"},"wrap_info":null,"warnings":null,"auth":null,"mount_type":"kv"}`},
		{"raw message", &conclave.Response{Data: json.RawMessage(`{"a":1}`), Status: 202}, 202,
			`"lease_id":"","renewable":false,"lease_duration":0,"data":{"a":1},"wrap_info":null,"warnings":null,"auth":null,"mount_type":""}`},
		{"large data", &conclave.Response{Data: long}, 200,
			`"lease_id":"","renewable":false,"lease_duration":0,"data":"` + long + `","wrap_info":null,"warnings":null,"auth":null,"mount_type":""}`},
		{"lease", &conclave.Response{Data: 1, Lease: &conclave.Lease{ID: "pki/x/1", TTL: time.Minute, Renewable: true}}, 200,
			`"lease_id":"pki/x/1","renewable":true,"lease_duration":60,"data":1,"wrap_info":null,"warnings":null,"auth":null,"mount_type":""}`},
		{"top level", &conclave.Response{Data: map[string]any{"secret/": map[string]any{"type": "kv"}, "auth": 7}, TopLevel: true}, 200,
			`"lease_id":"","renewable":false,"lease_duration":0,"data":{"auth":7,"secret/":{"type":"kv"}},"wrap_info":null,"warnings":null,"auth":null,"mount_type":"","secret/":{"type":"kv"}}`},
	} {
		s, _ := newTestServer(t, &recorder{resp: tc.resp}, servingVault(), nil)
		w := do(t, plain(s), "GET", "/v1/kv/a", "")
		want := tc.body
		if want != "" {
			want = `{"request_id":"11111111-2222-4333-8444-555555555555",` + want + "\n"
		}
		if got := w.Body.String(); w.Code != tc.status || got != want {
			t.Errorf("%s = %d %.300s, want %d %.300s", tc.name, w.Code, got, tc.status, want)
		}
		if tc.status != 204 && !json.Valid(w.Body.Bytes()) {
			t.Errorf("%s: the answer is not JSON: %s", tc.name, w.Body)
		}
	}
}

func TestGoldenAuthAndWrap(t *testing.T) {
	auth := &conclave.Auth{ClientToken: conclave.NewSecret("hvs.token"), Accessor: "acc", Policies: []string{"default", "dev", "group"},
		TokenPolicies: []string{"default", "dev"}, Metadata: map[string]string{"b": "2", "a": "1"}, EntityID: "ent", TokenType: "service",
		TTL: time.Hour, Renewable: true, NumUses: 3}
	wrap := &conclave.Wrap{Token: conclave.NewSecret("hvs.wrap"), Accessor: "wacc", TTL: 5 * time.Minute,
		CreationTime: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC), CreationPath: "auth/approle/login", WrappedAccessor: "acc"}
	for file, resp := range map[string]*conclave.Response{
		"auth.json": {Auth: auth},
		"mfa.json": {Auth: &conclave.Auth{MFARequirement: &conclave.MFARequirement{RequestID: "request", Constraints: []conclave.MFAConstraint{
			{Name: `all "staff"`, Any: []conclave.MFAMethod{{Type: "totp", ID: "m-1", Name: "phone", UsesPasscode: true}, {Type: "totp", ID: "m-2", UsesPasscode: true}}},
			{Name: "door", Any: []conclave.MFAMethod{{Type: "totp", ID: "m-1", Name: "phone", UsesPasscode: true}}}}}}},
		"wrap.json": {Wrap: wrap, Auth: auth, Data: map[string]string{"password": "canary"}, Lease: &conclave.Lease{ID: "canary"}},
	} {
		s, _ := newTestServer(t, &recorder{resp: resp}, servingVault(), nil)
		w := do(t, plain(s), "POST", "/v1/auth/approle/login", "")
		want, err := os.ReadFile("testdata/" + file)
		if err != nil {
			t.Fatal(err)
		}
		if got := w.Body.String(); w.Code != 200 || got != string(want) {
			t.Errorf("%s = %d %s, want %s", file, w.Code, got, want)
		}
	}
}

func TestNotFoundWithDataKeepsTheEnvelope(t *testing.T) {
	s, _ := newTestServer(t, &recorder{err: &conclave.Error{Kind: conclave.NotFound, Data: map[string]any{"data": nil}}}, servingVault(), nil)
	w := do(t, plain(s), "GET", "/v1/secret/data/a", "")
	m := asMap(t, w.Body.Bytes())
	if data, ok := m["data"].(map[string]any); w.Code != 404 || !ok || len(data) != 1 || m["errors"] != nil || m["request_id"] == "" {
		t.Errorf("answer = %d %s, want 404 with data in the envelope", w.Code, w.Body)
	}
}

func TestRawAnswersLeaveTheEnvelopeOut(t *testing.T) {
	rec := &recorder{resp: &conclave.Response{Raw: &conclave.Raw{ContentType: "application/pkix-cert", Body: []byte{0x30, 0, 0xff}}}}
	s, _ := newTestServer(t, rec, servingVault(), nil)
	w := do(t, plain(s), "GET", "/v1/pki/ca", "")
	if w.Code != 200 || w.Header().Get("Content-Type") != "application/pkix-cert" || w.Body.String() != "\x30\x00\xff" {
		t.Errorf("raw answer = %d %q %q", w.Code, w.Header().Get("Content-Type"), w.Body)
	}
}

func TestRawAnswersHaveHeadersOfTheirOwn(t *testing.T) {
	raw := &conclave.Raw{ContentType: "application/problem+json", Body: []byte("{}"), Header: map[string][]string{"Replay-Nonce": {"n"}, "Link": {"<a>", "<b>"},
		"Cache-Control": {"public"}, "X-Request-Id": {"mine"}, "Content-Type": {"text/html"}}}
	s, _ := newTestServer(t, &recorder{resp: &conclave.Response{Status: 403, Raw: raw}}, servingVault(), nil)
	for _, method := range []string{"GET", "HEAD", "POST"} {
		w := do(t, plain(s), method, "/v1/pki/acme/new-nonce", "")
		h := w.Header()
		if w.Code != 403 || h.Get("Replay-Nonce") != "n" || len(h["Link"]) != 2 || h.Get("Cache-Control") != "no-store" || h.Get("X-Request-Id") == "mine" || h.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %d %v", method, w.Code, h)
		}
	}
}

func TestAnAnswerThatCannotBeEncodedIsAnError(t *testing.T) {
	s, log := newTestServer(t, &recorder{resp: &conclave.Response{Data: map[string]any{"f": func() {}}}}, servingVault(), nil)
	w := do(t, plain(s), "GET", "/v1/kv/a", "")
	if w.Code != 500 || !strings.HasPrefix(w.Body.String(), `{"errors":["internal error, request `) || !strings.Contains(log.String(), "encode the answer") {
		t.Errorf("answer = %d %s, log %s", w.Code, w.Body, log)
	}
	s, _ = newTestServer(t, &recorder{err: &conclave.Error{Kind: conclave.Invalid, Message: "no", Data: func() {}}}, servingVault(), nil)
	if w := do(t, plain(s), "GET", "/v1/kv/a", ""); w.Code != 400 || !json.Valid(w.Body.Bytes()) {
		t.Errorf("an error with data that can't be encoded = %d %s", w.Code, w.Body)
	}
}

func FuzzText(f *testing.F) {
	f.Add("plain")
	f.Add("\"\\\x00\x1f\x7f\u2028é😀\xff\xc3")
	f.Fuzz(func(t *testing.T, text string) {
		r := (&replies{}).take()
		defer r.free()
		r.text(text)
		var got string
		if err := json.Unmarshal(r.buf.Bytes(), &got); err != nil || got != strings.ToValidUTF8(text, "\ufffd") && !strings.Contains(got, "\ufffd") {
			t.Fatalf("text(%q) = %s, read back as %q, %v", text, r.buf.Bytes(), got, err)
		}
	})
}

func BenchmarkEdge(b *testing.B) {
	data := json.RawMessage(`{"data":{"username":"app","password":"s3cr3t-s3cr3t-s3cr3t"},"metadata":{"version":3,"destroyed":false}}`)
	s, _ := newTestServer(b, &recorder{resp: &conclave.Response{Data: data, MountType: "kv", Index: 4711}}, servingVault(), func(c *Config) {
		c.Logger, c.NewID = nil, nil
	})
	for _, bm := range []struct{ name, method, body string }{
		{"read", "GET", ""},
		{"write", "POST", `{"data":{"username":"app","password":"s3cr3t-s3cr3t-s3cr3t"},"options":{"cas":3}}`},
	} {
		b.Run(bm.name, func(b *testing.B) {
			e := plain(s)
			r := benchRequest(b, bm.method, bm.body)
			w := &discard{header: map[string][]string{}}
			b.ReportAllocs()
			for b.Loop() {
				r.rewind(bm.body)
				clear(w.header)
				e.ServeHTTP(w, r.Request)
				if w.status != 200 {
					b.Fatalf("status = %d", w.status)
				}
			}
		})
	}
}
