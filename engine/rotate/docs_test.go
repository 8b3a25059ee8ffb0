package rotate

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"conclave"
	"conclave/engine/enginetest"
	"conclave/engine/rotate/handover"
	"conclave/password"
)

// shownIn returns the first block of code in a language of a page of the documentation.
func shownIn(t *testing.T, page, language string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", page))
	if err != nil {
		t.Fatal(err)
	}
	_, after, ok := strings.Cut(string(text), "```"+language+"\n")
	block, _, closed := strings.Cut(after, "\n```")
	if !ok || !closed {
		t.Fatalf("%s shows no %s", page, language)
	}
	return block + "\n"
}

// authentic is what the documentation gives to writers of receivers.
func authentic(key []byte, header string, body []byte, now time.Time) bool {
	stamp, signature, _ := strings.Cut(strings.TrimPrefix(header, "t="), ",v1=")
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(stamp + "."))
	mac.Write(body)
	given, hexErr := hex.DecodeString(signature)
	return err == nil && hexErr == nil && hmac.Equal(given, mac.Sum(nil)) && now.Sub(time.Unix(seconds, 0)).Abs() < 5*time.Minute
}

func TestTheReceiverOfTheDocumentation(t *testing.T) {
	source, err := os.ReadFile("docs_test.go")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(source), "\n"+shownIn(t, "rotate.md", "go")) {
		t.Error("docs/rotate.md shows another receiver than the one that is tested here")
	}
	body, now := []byte(`{"a":1}`), time.Unix(1_700_000_000, 0)
	header := handover.Sign(testKey, now, body)
	if !authentic([]byte(testKey), header, body, now.Add(time.Minute)) {
		t.Fatal("a call that was signed isn't authentic")
	}
	for name, ok := range map[string]bool{
		"another body":  authentic([]byte(testKey), header, []byte(`{"a":2}`), now),
		"another key":   authentic([]byte("x"+testKey[1:]), header, body, now),
		"an old call":   authentic([]byte(testKey), header, body, now.Add(6*time.Minute)),
		"an early call": authentic([]byte(testKey), header, body, now.Add(-6*time.Minute)),
		"another time":  authentic([]byte(testKey), "t=1700000001"+header[12:], body, now),
		"no header":     authentic([]byte(testKey), "", body, now),
	} {
		if ok {
			t.Errorf("%s is authentic", name)
		}
	}
}

func TestTheCommandOfTheDocumentation(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "keep")
	if err := os.WriteFile(path, []byte(shownIn(t, "rotate.md", "sh")), 0o755); err != nil {
		t.Fatal(err)
	}
	programs, err := handover.NewPrograms([]string{dir})
	if err != nil {
		t.Fatal(err)
	}
	h := enginetest.New(t, engineWith(programs))
	kept := filepath.Join(t.TempDir(), "value")
	h.Data(conclave.Update, "entries/app", fields{"command": path, "arguments": []string{kept}})
	runDue(t, h, 0)
	h.Data(conclave.Update, "rotate/app", nil)
	value, err := os.ReadFile(kept)
	if got := creds(h); err != nil || got["value"] != string(value) || got["version"] != json.Number("2") {
		t.Errorf("creds are %v, the file holds %q, %v; status %v", got, value, err, status(h))
	}
}

func TestTheCallAndThePolicyOfTheDocumentation(t *testing.T) {
	var call handover.Call
	decoder := json.NewDecoder(strings.NewReader(shownIn(t, "rotate.md", "json")))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&call); err != nil || call.Version != 7 || call.Value == "" {
		t.Errorf("the call is %+v, %v", call, err)
	}
	p, err := password.Parse(shownIn(t, "password-policies.md", "hcl"))
	if err != nil || p.Length() != 20 || p.Try() != nil {
		t.Errorf("the policy is %v, %v", p, err)
	}
}
