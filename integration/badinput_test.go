package integration

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"conclave/integration/lab"
)

// maxGrowth is how much more memory a hostile body may cost a node, in bytes.
const maxGrowth = 64 << 20

// TestBadInputIsRefused sends what no client should. Each row says what a node may answer.
func TestBadInputIsRefused(t *testing.T) {
	l := startLab(t, 1)
	mountKV(t, l, "bad")
	w := &wire{lab: l, node: 1}
	t.Cleanup(w.close)
	post := func(target, body string, headers ...string) (string, io.Reader) {
		return w.head("POST", target, len(body), headers...), strings.NewReader(body)
	}
	// The legitimate request first.
	head, body := post("/v1/bad/data/a", `{"data":{"a":"b"}}`)
	w.wantStatus(t, "a good write", "POST", head, body, 200)
	w.wantStatus(t, "a good read", "GET", w.head("GET", "/v1/bad/data/a", -1), nil, 200)

	for _, target := range []string{
		"/v1/bad/data/../a", "/v1/bad/data/./a", "/v1/bad//data/a", "/v1/bad/data/%2e%2e/a", "/v1/bad/data/a%2fb", "/v1/bad/data/a%00b",
		"/v1/bad/data/a%0ab", "/v1/bad/data/%ff", "/v1/bad/data/%c0%af", "/v1/bad/data/%zz", "/v1/../v1/bad/data/a", "/v1/%2e%2e/sys/mounts",
		"/v1/bad/data/a%7f", "/v1/bad/data/%ed%a0%80", "/v1/bad/data/" + strings.Repeat("a/", 4100) + "a", `/v1/bad/data/a\..\b`,
	} {
		w.wantStatus(t, "path "+target[:min(len(target), 40)], "GET", w.head("GET", target, -1), nil, 400, 404, 414)
	}
	for _, body := range []string{
		`{`, `[`, `{"data":`, `{"data":{"a":"b"}`, `{"data":{"a":"b"}}}`, `{"data":{"a":1,"a":2}}`, "null", `"text"`, `12`, `[]`, "\x00", "\xff\xfe",
		`{"data":{"\ud800":1}}`, `{"data":{"a":` + strings.Repeat("9", 5000) + `}}`, `{"data":"text"}`, `{"data":[1]}`,
		`{"data":{"a":"b"},"options":{"cas":"x"}}`, `{"data":{"a":"b"},"options":{"cas":-1}}`, `{"data":{"a":"b"},"options":[]}`,
		`{"data":{"a":"b"},"options":{"cas":9223372036854775808}}`, "{\"data\":{\"a\":\"\n\"}}", `{"data":{"a":"` + "\xff" + `"}}`, `{'data':{}}`,
	} {
		head, content := post("/v1/bad/data/b", body)
		w.wantStatus(t, "body "+body[:min(len(body), 40)], "POST", head, content, 400)
	}
	get := func(headers ...string) string { return w.head("GET", "/v1/bad/data/a", -1, headers...) }
	w.wantStatus(t, "a huge header", "GET", get("X-Long: "+strings.Repeat("x", 200_000)), nil, 431, 0)
	w.wantStatus(t, "a negative wrap time", "GET", get("X-Vault-Wrap-TTL: -5"), nil, 400)
	w.wantStatus(t, "a malformed wrap time", "GET", get("X-Vault-Wrap-TTL: soon"), nil, 400)
	w.wantStatus(t, "a header that smuggles", "POST", w.head("POST", "/v1/bad/data/a", 5, "Transfer-Encoding: chunked"), strings.NewReader("0\r\n\r\n"), 400)
	w.wantStatus(t, "an unknown encoding", "POST", w.head("POST", "/v1/bad/data/a", -1, "Transfer-Encoding: rot13"), nil, 400, 501)
	w.wantStatus(t, "a header without a name", "GET", get(": x"), nil, 400)
	w.wantStatus(t, "a namespace that goes up", "GET", get("X-Vault-Namespace: ../x"), nil, 400, 403, 404)
	w.wantStatus(t, "an unknown method", "BREW", w.head("BREW", "/v1/bad/data/a", -1), nil, 400, 405, 501)
	w.wantStatus(t, "another protocol", "GET", "GARBAGE\r\n\r\n", nil, 400, 0)
	w.wantStatus(t, "list=maybe", "GET", w.head("GET", "/v1/bad/metadata?list=maybe", -1), nil, 400)
	patch := `{"data":{"a":"b"}}`
	w.wantStatus(t, "a patch of another type", "PATCH", w.head("PATCH", "/v1/bad/data/a", len(patch), "Content-Type: text/plain"),
		strings.NewReader(patch), 400, 415)
	wantSane(t, l)
}

// TestHostileBodiesCostLittle sends bodies that are made to use up a node's memory.
func TestHostileBodiesCostLittle(t *testing.T) {
	l := startLab(t, 1)
	mountKV(t, l, "bad")
	w := &wire{lab: l, node: 1}
	t.Cleanup(w.close)
	deep := strings.Repeat(`{"a":`, 100_000) + "1" + strings.Repeat("}", 100_000)
	lists := `{"data":{"a":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + "}}"
	var members, elements bytes.Buffer
	members.WriteString(`{"data":{"x":0`)
	for i := range 1_000_000 {
		fmt.Fprintf(&members, `,"m%d":1`, i)
	}
	members.WriteString("}}")
	elements.WriteString(`{"data":{"x":[0` + strings.Repeat(",1", 1_000_000) + "]}}")
	huge := 33 << 20
	tests := []struct {
		name string
		head string
		body io.Reader
		want []int
	}{
		{"100,000 objects deep", w.head("POST", "/v1/bad/data/a", len(deep)), strings.NewReader(deep), []int{400}},
		{"100,000 lists deep", w.head("POST", "/v1/bad/data/a", len(lists)), strings.NewReader(lists), []int{400}},
		{"a million members", w.head("POST", "/v1/bad/data/a", members.Len()), &members, []int{400}},
		{"a million elements", w.head("POST", "/v1/bad/data/a", elements.Len()), &elements, []int{400}},
		{"33 MiB", w.head("POST", "/v1/bad/data/a", huge), io.LimitReader(blanks{}, int64(huge)), []int{413}},
		{"a terabyte, announced", w.head("POST", "/v1/bad/data/a", 1<<40), nil, []int{413}},
	}
	for _, test := range tests {
		before, err := l.Peak(1, true)
		if err != nil {
			t.Skipf("the memory of a process can't be measured here: %v", err)
		}
		w.wantStatus(t, test.name, "POST", test.head, test.body, test.want...)
		after, err := l.Peak(1, false)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %.1f MiB more", test.name, float64(after-before)/(1<<20))
		if after-before > maxGrowth {
			t.Errorf("%s: the node grew by %d MiB, want at most %d", test.name, (after-before)>>20, maxGrowth>>20)
		}
	}
	wantSane(t, l)
}

// blanks is an endless body that says nothing.
type blanks struct{}

func (blanks) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

// TestRandomRequestsNeverFailTheServer sends requests that are put together by chance. No answer may be a 500.
func TestRandomRequestsNeverFailTheServer(t *testing.T) {
	requests := 5000
	if testing.Short() {
		requests = 1000
	}
	l := startLab(t, 1)
	mountKV(t, l, "bad")
	w := &wire{lab: l, node: 1}
	t.Cleanup(w.close)
	g := &generator{rand.New(rand.NewPCG(pickSeed(t), 3))}
	statuses := make(map[int]int) // status → how often
	for range requests {
		method, target, body := g.pick(methods), g.target(), g.body()
		length := len(body)
		if g.chance(20) {
			length = -1
			body = ""
		}
		head := w.head(method, target, length, g.headers()...)
		status, answer, err := w.exchange(method, head, strings.NewReader(body))
		if err != nil {
			t.Fatalf("%q %q: %v", head, body, err)
		}
		statuses[status]++
		if status >= 500 && status != 501 {
			t.Fatalf("status %d: %s\n%q\n%q", status, answer, head, body)
		}
	}
	t.Logf("answers: %v", statuses)
	if statuses[200] == 0 || statuses[400] == 0 {
		t.Error("chance made no good, or no bad, request")
	}
	wantSane(t, l)
}

// wantSane fails the test unless all nodes still run, serve, and have never panicked.
func wantSane(t *testing.T, l *lab.Lab) {
	t.Helper()
	if err := l.WaitServing(within(t, 10*time.Second)); err != nil {
		t.Errorf("after bad input: %v", err)
	}
	for _, file := range l.LogFiles {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if at := bytes.Index(text, []byte("panic")); at >= 0 {
			t.Errorf("%s has a panic:\n%s", file, text[at:min(len(text), at+2000)])
		}
	}
}

var (
	methods  = []string{"GET", "GET", "POST", "POST", "PUT", "DELETE", "PATCH", "LIST", "SCAN", "HEAD", "OPTIONS"}
	segments = []string{"v1", "bad", "data", "metadata", "delete", "undelete", "destroy", "subkeys", "config", "a", "b", "auth", "token",
		"create", "lookup", "lookup-self", "sys", "mounts", "policies", "acl", "capabilities-self", "internal", "ui", "specs", "openapi",
		"cubbyhole", "..", ".", "", "%2e%2e", "%00", "%ff", "%2f", "ü", "😀", "a b", "+", "*", "~", "data%20", ";", "%25", "\u202e"}
	whole = []string{"/v1/bad/data/a", "/v1/bad/metadata/a", "/v1/bad/metadata?list=true", "/v1/auth/token/create", "/v1/bad/config",
		"/v1/sys/capabilities-self", "/v1/auth/token/lookup", "/v1/cubbyhole/a", "/v1/sys/policies/acl/a", "/v1/sys/mounts/bad/tune"}
	queries = []string{"", "", "", "?list=true", "?version=1", "?version=-1", "?version=x", "?help=1", "?scan=true", "?after=a&limit=2", "?limit=-1",
		"?%zz", "?a=%ff", "?version=99999999999999999999"}
	bodies = []string{`{"data":{"a":"b"}}`, `{"data":{"a":"b"},"options":{"cas":1}}`, `{"versions":[1,2]}`, `{"versions":["x"]}`, `{"versions":"1,2"}`,
		`{"policies":["default"],"ttl":"1h"}`, `{"token":"x"}`, `{"paths":["bad/data/a"]}`, `{"policy":"path \"a\" {}"}`, `{"max_versions":-1}`,
		`{"custom_metadata":{"a":null}}`, `{"ttl":"-1h","num_uses":-5}`, `{"data":null}`, `{}`, ``, `{"max_versions":1e3}`, `{"delete_version_after":"x"}`,
		`{"id":"s.x","display_name":"\u0000"}`, `{"meta":{"a":1}}`, `{"accessor":[]}`, `{"description":{"a":[]}}`}
	extras = []string{"Content-Type: application/json", "Content-Type: application/merge-patch+json", "Content-Type: application/x-www-form-urlencoded",
		"X-Vault-Wrap-TTL: 60", "X-Vault-Wrap-TTL: x", "X-Vault-Namespace: a/b", "X-Vault-Index: AAAA", "X-Vault-Request: true",
		"X-Forwarded-For: ::1, x", "Authorization: Bearer x", "Connection: keep-alive", "Accept-Encoding: gzip", "X-Vault-MFA: a:b", "Expect: 100-continue"}
)

// generator puts requests together by chance.
type generator struct{ *rand.Rand }

func (g *generator) chance(percent int) bool { return g.IntN(100) < percent }

func (g *generator) pick(from []string) string { return from[g.IntN(len(from))] }

func (g *generator) target() string {
	if g.chance(50) {
		return g.pick(whole) + g.pick(queries)
	}
	target := "/v1"
	for range g.IntN(6) {
		target += "/" + g.pick(segments)
	}
	if g.chance(30) {
		target += "/"
	}
	// A space would end the request's target: that is another request, not another path.
	return strings.ReplaceAll(target, " ", "%20") + g.pick(queries)
}

func (g *generator) body() string {
	body := []byte(g.pick(bodies))
	if g.chance(50) {
		return string(body)
	}
	for range 1 + g.IntN(4) {
		if len(body) == 0 {
			break
		}
		at := g.IntN(len(body))
		switch g.IntN(4) {
		case 0:
			body[at] = byte(g.IntN(256))
		case 1:
			body = append(body[:at], body[min(len(body), at+1+g.IntN(8)):]...)
		case 2:
			body = append(body[:at:at], append([]byte(g.pick(bodies)), body[at:]...)...)
		default:
			body = append(body[:at:at], append(bytes.Repeat(body[at:at+1], 1+g.IntN(200)), body[at:]...)...)
		}
	}
	return string(body)
}

func (g *generator) headers() []string {
	var headers []string
	for range g.IntN(3) {
		headers = append(headers, g.pick(extras))
	}
	return headers
}
