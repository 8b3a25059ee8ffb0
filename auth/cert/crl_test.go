package cert

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"conclave"
	"conclave/engine/enginetest"
)

// hour is a validity that holds at the start of a harness.
var hour = start.Add(time.Hour)

func TestRevokedCertificatesDontLogIn(t *testing.T) {
	h, ca, other := newHarness(t), newCA(t, "CA"), newCA(t, "other CA")
	for name, anchor := range map[string]*holder{"a": ca, "b": other} {
		h.Data(conclave.Update, "certs/"+name, map[string]any{"certificate": anchor.pem()})
	}
	between := ca.issue("between", 20, isCA)
	good, bad, below, elsewhere := ca.issue("good", 2), ca.issue("bad", 3), between.issue("below", 3), other.issue("elsewhere", 3)
	for _, client := range [][]*holder{{good}, {bad}, {below, between}, {elsewhere}} {
		logIn(t, presenting(h, client...), "")
	}
	h.Data(conclave.Update, "crls/Main", map[string]any{"crl": ca.crl(start, hour, 3, 20)})
	logIn(t, presenting(h, good), "")
	refused(t, presenting(h, bad), "", "revoked")
	refused(t, presenting(h, below, between), "", "revoked")
	logIn(t, presenting(h, elsewhere), "") // the same number, of another issuer
	h.Data(conclave.Update, "crls/main", map[string]any{"crl": ca.crl(start, hour, 2)})
	logIn(t, presenting(h, bad), "")
	refused(t, presenting(h, good), "", "revoked")
	got := h.Data(conclave.Read, "crls/main", nil)
	if want := map[string]any{"2": map[string]any{}}; !reflect.DeepEqual(got["serials"], want) || got["issuer"] != "CN=CA" || got["next_update"] != hour.Truncate(time.Second).Format(time.RFC3339) {
		t.Errorf("read %v", got)
	}
	h.Data(conclave.Delete, "crls/MAIN", nil)
	logIn(t, presenting(h, good), "")
	h.Fails(conclave.Read, "crls/main", nil, conclave.NotFound, "")
	for path := range h.Stored() {
		if path != "certs/a" && path != "certs/b" {
			t.Errorf("%s is left behind", path)
		}
	}
}

func TestPinnedCertificatesAreRevokedToo(t *testing.T) {
	h, ca := newHarness(t), newCA(t, "CA")
	pinned := ca.issue("a", 2)
	h.Data(conclave.Update, "certs/a", map[string]any{"certificate": pinned.pem()})
	h.Data(conclave.Update, "crls/a", map[string]any{"crl": ca.crl(start, hour, 2)})
	refused(t, presenting(h, pinned), "a", "revoked")
}

func TestListThatHasEndedVouchesForNobody(t *testing.T) {
	h, ca := newHarness(t), newCA(t, "CA")
	h.Data(conclave.Update, "certs/a", map[string]any{"certificate": ca.pem()})
	good, bad := presenting(h, ca.issue("good", 2)), presenting(h, ca.issue("bad", 3))
	crl := ca.crl(start, hour, 3)
	h.Data(conclave.Update, "crls/a", map[string]any{"crl": crl})
	h.Advance(time.Hour - time.Second)
	logIn(t, good, "")
	h.Advance(time.Second)
	refused(t, good, "", "has expired")
	refused(t, bad, "", "revoked")
	h.Fails(conclave.Update, "crls/a", map[string]any{"crl": crl, "accept_expired": true}, conclave.Invalid, "isn't valid now")
	h.Data(conclave.Update, "crls/a", map[string]any{"crl": ca.crl(start, h.Now().Add(time.Hour), 3), "accept_expired": true})
	h.Advance(2 * time.Hour)
	logIn(t, good, "")
	refused(t, bad, "", "revoked")
	h.Fails(conclave.Update, "crls/a", map[string]any{"crl": ca.crl(h.Now().Add(time.Minute), h.Now().Add(time.Hour))}, conclave.Invalid, "isn't valid now")
}

func TestListsAreCheckedBeforeTheyAreStored(t *testing.T) {
	h, ca, forger := newHarness(t), newCA(t, "CA"), newCA(t, "CA")
	h.Data(conclave.Update, "crls/unknown-issuer", map[string]any{"crl": forger.crl(start, hour, 3)})
	h.Data(conclave.Update, "certs/a", map[string]any{"certificate": ca.pem()})
	critical := func(oid asn1.ObjectIdentifier, value []byte) string {
		return ca.crlWith(&x509.RevocationList{Number: big.NewInt(1), ThisUpdate: start, NextUpdate: hour,
			ExtraExtensions: []pkix.Extension{{Id: oid, Critical: true, Value: value}}})
	}
	for text, crl := range map[string]string{
		"isn't signed by":     forger.crl(start, hour, 3),
		"failed to parse CRL": "x",
		"failed to parse":     "",
		"a delta":             critical(oidDelta, []byte{2, 1, 1}),
		"an indirect":         critical(oidDistribution, []byte{0x30, 3, 0x84, 1, 0xff}),
		"indirect one":        critical(oidDistribution, []byte{1}),
	} {
		h.Fails(conclave.Update, "crls/a", map[string]any{"crl": crl}, conclave.Invalid, text)
	}
	h.Data(conclave.Update, "crls/users", map[string]any{"crl": critical(oidDistribution, []byte{0x30, 3, 0x81, 1, 0xff})})
	block, _ := pem.Decode([]byte(ca.crl(start, hour, 3)))
	h.Data(conclave.Update, "crls/der", map[string]any{"crl": base64.StdEncoding.EncodeToString(block.Bytes)})
	refused(t, presenting(h, ca.issue("a", 3)), "", "revoked")
	if keys := h.Data(conclave.List, "crls", nil)["keys"]; !reflect.DeepEqual(keys, []any{"der", "unknown-issuer", "users"}) {
		t.Errorf("keys = %v", keys)
	}
}

func TestLongListsAreStoredInParts(t *testing.T) {
	h, ca := newHarness(t), newCA(t, "CA")
	h.Data(conclave.Update, "certs/a", map[string]any{"certificate": ca.pem()})
	serials := make([]int64, 3*perShard)
	for i := range serials {
		serials[i] = int64(1000 + i)
	}
	h.Data(conclave.Update, "crls/a", map[string]any{"crl": ca.crl(start, hour, serials...)})
	if got := len(h.Stored()); got != 1+1+4 {
		t.Errorf("%d values are stored, want 6", got)
	}
	for _, serial := range []int64{1000, 1001, serials[len(serials)-1]} {
		refused(t, presenting(h, ca.issue("a", serial)), "", "revoked")
	}
	logIn(t, presenting(h, ca.issue("a", 999)), "")
	if got := h.Data(conclave.Read, "crls/a", nil); len(got["serials"].(map[string]any)) != shown || got["count"] != json.Number("24000") {
		t.Errorf("%d serials are shown, count %v", len(got["serials"].(map[string]any)), got["count"])
	}
	h.Data(conclave.Update, "crls/a", map[string]any{"crl": ca.crl(start, hour)})
	if got := len(h.Stored()); got != 1+1+1 {
		t.Errorf("%d values are stored after a short list, want 3", got)
	}
}

// publisher serves a revocation list on loopback.
type publisher struct {
	*httptest.Server
	list    atomic.Pointer[string]
	fetched atomic.Int32
}

func publish(t testing.TB, list string) *publisher {
	p := &publisher{}
	p.list.Store(&list)
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		p.fetched.Add(1)
		_, _ = io.WriteString(w, *p.list.Load())
	}))
	t.Cleanup(p.Close)
	return p
}

func TestListsAreFetchedAgainWhenTheyEnd(t *testing.T) {
	h, ca, other := newHarness(t), newCA(t, "CA"), newCA(t, "other")
	for name, anchor := range map[string]*holder{"a": ca, "b": other} {
		h.Data(conclave.Update, "certs/"+name, map[string]any{"certificate": anchor.pem()})
	}
	good, bad := presenting(h, ca.issue("good", 2)), presenting(h, ca.issue("bad", 3))
	p := publish(t, ca.crl(start, hour, 9))
	h.Data(conclave.Update, "crls/a", map[string]any{"url": p.URL})
	logIn(t, good, "")
	logIn(t, bad, "")
	if got := h.Data(conclave.Read, "crls/a", nil); got["url"] != p.URL || p.fetched.Load() != 1 {
		t.Errorf("read %v, fetched %d times", got, p.fetched.Load())
	}
	h.Advance(time.Hour)
	now := h.Now()
	part := ca.crlWith(&x509.RevocationList{Number: big.NewInt(1), ThisUpdate: now, NextUpdate: now.Add(time.Hour),
		ExtraExtensions: []pkix.Extension{{Id: oidDistribution, Critical: true, Value: []byte{0x30, 3, 0x82, 1, 0xff}}}})
	for what, list := range map[string]string{
		"the same, which has ended": ca.crl(start, hour, 9),
		"one of the future":         ca.crl(now.Add(time.Minute), now.Add(time.Hour)),
		"one from before":           ca.crl(start.Add(-time.Hour), now.Add(time.Hour)),
		"a forged one":              newCA(t, "CA").crl(now, now.Add(time.Hour)),
		"another authority's":       other.crl(now, now.Add(time.Hour)),
		"one of authorities only":   part,
		"nonsense":                  "nonsense",
	} {
		p.list.Store(&list)
		if _, err := good.Do(conclave.Update, "login", nil); err != error(errOutdated) {
			t.Errorf("%s is published: %v, want %q", what, err, errOutdated)
		}
	}
	next := ca.crl(now, now.Add(time.Hour), 3)
	p.list.Store(&next)
	logIn(t, presenting(h, other.issue("x", 2)), "")
	before := p.fetched.Load()
	refused(t, bad, "", "revoked") // nothing is stored by a login that fails
	logIn(t, good, "")
	logIn(t, good, "")
	refused(t, bad, "", "revoked")
	if got := p.fetched.Load() - before; got != 2 {
		t.Errorf("fetched %d times, want 2", got)
	}
	h.Advance(time.Hour)
	p.Close()
	refused(t, good, "", "has expired")
}

func TestListsAreFetchedFromTheirAuthorityOnly(t *testing.T) {
	h, ca, unknown := newHarness(t), newCA(t, "CA"), newCA(t, "unknown")
	h.Data(conclave.Update, "certs/a", map[string]any{"certificate": ca.pem()})
	list := ca.crl(start, hour, 3)
	redirect := httptest.NewServer(http.RedirectHandler(publish(t, list).URL, http.StatusFound))
	t.Cleanup(redirect.Close)
	absent := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(absent.Close)
	for _, tc := range []struct {
		fields map[string]any
		text   string
	}{
		{map[string]any{"url": publish(t, unknown.crl(start, hour)).URL}, "must be signed by"},
		{map[string]any{"url": redirect.URL}, "failed to fetch"},
		{map[string]any{"url": absent.URL}, "failed to fetch"},
		{map[string]any{"url": "file:///etc/passwd"}, "either crl, or a url"},
		{map[string]any{"url": publish(t, list).URL, "crl": list}, "either crl, or a url"},
	} {
		h.Fails(conclave.Update, "crls/a", tc.fields, conclave.Invalid, tc.text)
	}
}

func TestListsAreTakenBesideAnyNumberOfRoles(t *testing.T) {
	h, ca := newHarness(t).With(enginetest.Fast()), newCA(t, "CA")
	h.Data(conclave.Update, "certs/0", map[string]any{"certificate": ca.pem()})
	role := h.Stored()["certs/0"]
	for i := range maxRoles {
		h.Store("certs/"+strconv.Itoa(1+i), role)
	}
	h.Data(conclave.Update, "crls/a", map[string]any{"crl": ca.crl(start, hour, 3)})
	refused(t, presenting(h, ca.issue("a", 3)), "7", "revoked")
	refused(t, presenting(h, ca.issue("b", 2)), "", "more than 1000 roles")
	logIn(t, presenting(h, ca.issue("b", 2)), "7")
}

// TestStoredFormatIsRead reads what the first version stored: a role that pins an authority and a list that revokes number 7.
func TestStoredFormatIsRead(t *testing.T) {
	golden, err := os.ReadFile("testdata/stored.json")
	if err != nil {
		t.Fatal(err)
	}
	var stored map[string]json.RawMessage
	if err := json.Unmarshal(golden, &stored); err != nil {
		t.Fatal(err)
	}
	h := newHarness(t)
	for path, value := range stored {
		h.Store(path, value)
	}
	if got := h.Data(conclave.Read, "certs/web", nil); got["token_ttl"] != json.Number("60") || got["ocsp_this_update_max_age"] != json.Number("30") {
		t.Errorf("role = %v", got)
	}
	if got := h.Data(conclave.Read, "crls/main", nil)["serials"]; !reflect.DeepEqual(got, map[string]any{"7": map[string]any{}}) {
		t.Errorf("revoked = %v", got)
	}
	if got := h.Data(conclave.Read, "config", nil)["disable_binding"]; got != true {
		t.Errorf("disable_binding = %v", got)
	}
}

// TestGoldenList reads a list as an authority made it.
func TestGoldenList(t *testing.T) {
	golden, err := os.ReadFile("testdata/list.pem")
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := parseCRL(golden)
	if err != nil || parsed.list.IssuerName != "CN=golden" || !reflect.DeepEqual(parsed.shards, [][]string{{"18446744073709551616", "7"}}) {
		t.Errorf("parseCRL = %+v, %v", parsed, err)
	}
}

func FuzzParseCRL(f *testing.F) {
	golden, err := os.ReadFile("testdata/list.pem")
	if err != nil {
		f.Fatal(err)
	}
	block, _ := pem.Decode(golden)
	f.Add(golden)
	f.Add(block.Bytes)
	f.Fuzz(func(t *testing.T, text []byte) {
		parsed, err := parseCRL(text)
		if err != nil {
			if kind := conclave.KindOf(err); kind != conclave.Invalid && kind != conclave.TooLarge {
				t.Errorf("error %v isn't the caller's", err)
			}
			return
		}
		total := 0
		for i, shard := range parsed.shards {
			total += len(shard)
			for _, text := range shard {
				serial, ok := new(big.Int).SetString(text, 10)
				if !ok || parsed.list.shard(serial) != i {
					t.Errorf("serial %q is in shard %d", text, i)
				}
			}
		}
		if total != parsed.list.Count {
			t.Errorf("%d serials, count %d", total, parsed.list.Count)
		}
	})
}

func BenchmarkLoginWithLongList(b *testing.B) {
	h, ca := enginetest.New(b, Engine{}, enginetest.Fast()), newCA(b, "CA")
	h.Data(conclave.Update, "certs/a", map[string]any{"certificate": ca.pem()})
	serials := make([]int64, 50_000)
	for i := range serials {
		serials[i] = int64(1000 + i)
	}
	h.Data(conclave.Update, "crls/a", map[string]any{"crl": ca.crl(start, hour, serials...)})
	client := presenting(h, ca.issue("a", 2))
	for b.Loop() {
		logIn(b, client, "a")
	}
}
