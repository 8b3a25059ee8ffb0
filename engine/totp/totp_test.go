package totp

import (
	"bytes"
	"encoding/base32"
	"encoding/base64"
	"fmt"
	"image/png"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"conclave"
	"conclave/engine/enginetest"
)

func TestConformance(t *testing.T) { enginetest.Conformance(t, Plugin()) }

// secretText is the key of RFC 6238's examples.
var secretText = base32.StdEncoding.EncodeToString([]byte("12345678901234567890"))

func newKey(t testing.TB, more map[string]any) *enginetest.Harness {
	t.Helper()
	h := enginetest.New(t, Engine{})
	fields := map[string]any{"key": secretText, "issuer": "Example", "account_name": "alice"}
	for name, value := range more {
		fields[name] = value
	}
	h.Data(conclave.Update, "keys/app", fields)
	return h
}

// codeAt is the passcode so many time steps from now.
func codeAt(t testing.TB, h *enginetest.Harness, steps int64) string {
	t.Helper()
	k, err := keyNamed(h.View(), "app")
	if err != nil {
		t.Fatal(err)
	}
	code, err := k.parameters().Code(h.Now().Unix()/int64(k.Period) + steps)
	if err != nil {
		t.Fatal(err)
	}
	return code
}

func valid(t testing.TB, h *enginetest.Harness, code string) bool {
	t.Helper()
	return h.Data(conclave.Update, "code/app", map[string]any{"code": code})["valid"].(bool)
}

func TestOathtoolAgrees(t *testing.T) {
	oathtool, err := exec.LookPath("oathtool")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("package oathtool is not installed")
		}
		t.Skip("package oathtool is not installed")
	}
	for _, algorithm := range []string{"SHA1", "SHA256", "SHA512"} {
		for _, digits := range []int{6, 8} {
			for _, period := range []int{30, 45} {
				h := newKey(t, map[string]any{"algorithm": algorithm, "digits": digits, "period": period})
				out, err := exec.Command(oathtool, "--totp="+algorithm, "--base32", fmt.Sprintf("--digits=%d", digits), fmt.Sprintf("--time-step-size=%ds", period),
					"--now="+h.Now().UTC().Format("2006-01-02 15:04:05 UTC"), secretText).CombinedOutput()
				if err != nil {
					t.Fatalf("oathtool: %v: %s", err, out)
				}
				want := strings.TrimSpace(string(out))
				if got := h.Data(conclave.Read, "code/app", nil)["code"]; got != want {
					t.Errorf("%s, %d digits, %d seconds: %v, oathtool says %s", algorithm, digits, period, got, want)
				}
				if !valid(t, h, want) {
					t.Errorf("%s, %d digits, %d seconds: oathtool's passcode is refused", algorithm, digits, period)
				}
			}
		}
	}
}

func TestPasscodeIsRightOnceInAnySpelling(t *testing.T) {
	h := newKey(t, nil)
	now, last, next := codeAt(t, h, 0), codeAt(t, h, -1), codeAt(t, h, 1)
	for _, text := range []string{codeAt(t, h, -2), codeAt(t, h, 2), now[1:], now + "0", "０" + now[1:], "+" + now[1:], now[:3] + " " + now[3:], "x"} {
		if valid(t, h, text) {
			t.Errorf("%q is taken", text)
		}
	}
	h.Fails(conclave.Update, "code/app", map[string]any{"code": ""}, conclave.Invalid, "the code value is required")
	if !valid(t, h, " "+now+"\n") {
		t.Fatal("the passcode of now is refused")
	}
	for _, text := range []string{now, " " + now, now + " ", "\t" + now + "\r\n"} {
		h.Fails(conclave.Update, "code/app", map[string]any{"code": text}, conclave.Invalid, "code already used")
	}
	if !valid(t, h, next) || !valid(t, h, last) {
		t.Error("passcodes of the steps beside it are refused")
	}
	h.Advance(30 * time.Second)
	h.Fails(conclave.Update, "code/app", map[string]any{"code": now}, conclave.Invalid, "code already used")
	h.Fails(conclave.Update, "code/app", map[string]any{"code": next}, conclave.Invalid, "code already used")
	if valid(t, h, last) {
		t.Error("a passcode of two steps ago is taken")
	}
	// Bringing the same key again, with other settings, doesn't make what was used new.
	h.Data(conclave.Update, "keys/app", map[string]any{"key": strings.ToLower(secretText), "issuer": "Other"})
	h.Fails(conclave.Update, "code/app", map[string]any{"code": next}, conclave.Invalid, "code already used")
	h.Advance(5 * time.Minute)
	if !valid(t, h, codeAt(t, h, 0)) {
		t.Error("the passcode of later is refused")
	}
}

func TestUsedPasscodesStayUsedWhenTheSkewGrows(t *testing.T) {
	h := newKey(t, map[string]any{"skew": 0})
	first := codeAt(t, h, 0)
	if !valid(t, h, first) || valid(t, h, codeAt(t, h, -1)) {
		t.Fatal("without a skew, the passcode of now and no other is right")
	}
	h.Advance(30 * time.Second)
	if !valid(t, h, codeAt(t, h, 0)) {
		t.Fatal("the next passcode is refused")
	}
	h.Data(conclave.Update, "keys/app", map[string]any{"key": secretText, "skew": 1})
	h.Fails(conclave.Update, "code/app", map[string]any{"code": first}, conclave.Invalid, "code already used")
}

func TestWrongPasscodesAreLimited(t *testing.T) {
	h := newKey(t, nil)
	right := map[string]bool{codeAt(t, h, -1): true, codeAt(t, h, 0): true, codeAt(t, h, 1): true}
	wrongs := 0
	for n := 0; wrongs < maxGuesses; n++ {
		if code := fmt.Sprintf("%06d", n); !right[code] {
			wrongs++
			if valid(t, h, code) {
				t.Fatalf("%s is taken", code)
			}
		}
	}
	failure := h.Fails(conclave.Update, "code/app", map[string]any{"code": codeAt(t, h, 0)}, conclave.Limited, "too many wrong codes")
	if failure.RetryAfter != 30*time.Second {
		t.Errorf("to be tried again after %v", failure.RetryAfter)
	}
	h.Advance(30 * time.Second)
	if !valid(t, h, codeAt(t, h, 0)) {
		t.Error("in the next step the right passcode is refused")
	}
}

func TestGeneratedKeyIsShownOnce(t *testing.T) {
	h := enginetest.New(t, Engine{}, enginetest.Fast())
	data := h.Data(conclave.Update, "keys/app", map[string]any{"generate": true, "issuer": "Example: Ltd", "account_name": "alice@example.com", "algorithm": "SHA256", "digits": 8, "period": "1m"})
	set, err := url.Parse(data["url"].(string))
	if err != nil {
		t.Fatal(err)
	}
	query := set.Query()
	if set.Scheme != "otpauth" || set.Host != "totp" || query.Get("algorithm") != "SHA256" || query.Get("digits") != "8" || query.Get("period") != "60" || query.Get("issuer") != "Example: Ltd" {
		t.Errorf("url is %s", set)
	}
	if secret, ok := decodeBase32(query.Get("secret")); !ok || len(secret) != 20 {
		t.Errorf("the key in the URL has %d bytes", len(secret))
	}
	picture, err := base64.StdEncoding.DecodeString(data["barcode"].(string))
	if err != nil {
		t.Fatal(err)
	}
	if image, err := png.Decode(bytes.NewReader(picture)); err != nil || image.Bounds().Dx() != 200 {
		t.Errorf("the picture: %v", err)
	}
	got := h.Data(conclave.Read, "keys/app", nil)
	if encoded := fmt.Sprint(got); encoded != "map[account_name:alice@example.com algorithm:SHA256 digits:8 issuer:Example: Ltd period:60]" {
		t.Errorf("the key is read as %s", encoded)
	}
	// Another vault that is given the URL shows the passcodes that this one takes.
	other := enginetest.New(t, Engine{})
	other.Data(conclave.Update, "keys/theirs", map[string]any{"url": data["url"]})
	if !valid(t, h, other.Data(conclave.Read, "code/theirs", nil)["code"].(string)) {
		t.Error("the passcode of the exported key is refused")
	}
	if data := h.Data(conclave.Update, "keys/hidden", map[string]any{"generate": true, "issuer": "e", "account_name": "a", "exported": false}); data != nil {
		t.Errorf("a key that isn't exported answers %v", data)
	}
	if data := h.Data(conclave.Update, "keys/plain", map[string]any{"generate": true, "issuer": "e", "account_name": "a", "qr_size": 0}); data["barcode"] != nil || data["url"] == nil {
		t.Errorf("without a picture: %v", data)
	}
	if names := h.Data(conclave.List, "keys", nil)["keys"].([]any); !slices.Equal(names, []any{"app", "hidden", "plain"}) {
		t.Errorf("keys are %v", names)
	}
	h.Data(conclave.Delete, "keys/app", nil)
	h.Fails(conclave.Read, "keys/app", nil, conclave.NotFound, "")
	h.Fails(conclave.Read, "code/app", nil, conclave.Invalid, "unknown key")
	h.Fails(conclave.Update, "code/app", map[string]any{"code": "123456"}, conclave.Invalid, "unknown key")
}

func TestBadKeysAreRefused(t *testing.T) {
	h := enginetest.New(t, Engine{})
	generated := func(more map[string]any) map[string]any {
		fields := map[string]any{"generate": true, "issuer": "e", "account_name": "a"}
		for name, value := range more {
			fields[name] = value
		}
		return fields
	}
	h.Data(conclave.Update, "keys/good", generated(nil))
	for _, row := range []struct {
		fields map[string]any
		text   string
	}{
		{map[string]any{}, "the key value is required"},
		{map[string]any{"key": "1"}, "invalid key value"},
		{map[string]any{"key": "===="}, "invalid key value"},
		{map[string]any{"key": strings.Repeat("A", 2*maxKey+1)}, "invalid key value"},
		{map[string]any{"key": secretText, "digits": 7}, "6 or 8"},
		{map[string]any{"key": secretText, "algorithm": "MD5"}, "algorithm"},
		{map[string]any{"key": secretText, "period": 0}, "greater than zero"},
		{map[string]any{"key": secretText, "skew": 2}, "0 or 1"},
		{map[string]any{"url": "otpauth://hotp/a?secret=" + secretText}, "parsing url"},
		{map[string]any{"url": "https://example.com/?secret=" + secretText}, "parsing url"},
		{map[string]any{"url": "otpauth://totp/a?period=x&secret=" + secretText}, "period"},
		{map[string]any{"url": "otpauth://totp/a?digits=x&secret=" + secretText}, "digits"},
		{map[string]any{"url": "otpauth://totp/a"}, "the key value is required"},
		{generated(map[string]any{"key": secretText}), "a key should not be passed"},
		{generated(map[string]any{"url": "otpauth://totp/a"}), "a url should not be passed"},
		{generated(map[string]any{"issuer": ""}), "issuer value is required"},
		{generated(map[string]any{"account_name": ""}), "account_name value is required"},
		{generated(map[string]any{"key_size": 8}), "key_size"},
		{generated(map[string]any{"qr_size": -1}), "qr_size"},
		{generated(map[string]any{"qr_size": 5000}), "qr_size"},
		{generated(map[string]any{"qr_size": 10}), "doesn't fit"},
	} {
		h.Fails(conclave.Update, "keys/app", row.fields, conclave.Invalid, row.text)
	}
	h.Fails(conclave.Update, "keys/-", map[string]any{"key": secretText}, conclave.Invalid, "invalid name")
}

// The first formats of what is stored, which have to be read for ever.
func TestFirstFormatsAreRead(t *testing.T) {
	h := enginetest.New(t, Engine{})
	h.Store("keys/app", []byte(`{"secret":"MTIzNDU2Nzg5MDEyMzQ1Njc4OTA=","issuer":"Example","account_name":"alice","algorithm":"SHA1","digits":6,"period":30,"skew":1}`))
	step := h.Now().Unix() / 30
	h.Store("used/app", fmt.Appendf(nil, `{"steps":[%d],"guessed":%d}`, step, step-1))
	h.Fails(conclave.Update, "code/app", map[string]any{"code": codeAt(t, h, 0)}, conclave.Invalid, "code already used")
	if !valid(t, h, codeAt(t, h, 1)) {
		t.Error("the next passcode is refused")
	}
	h.Store("used/app", []byte(`{"steps":`))
	h.Fails(conclave.Update, "code/app", map[string]any{"code": "123456"}, conclave.Internal, "damaged")
	for _, damaged := range []string{`{`, `{}`, `{"secret":"","algorithm":"SHA1","digits":6,"period":30}`} {
		h.Store("keys/app", []byte(damaged))
		h.Fails(conclave.Read, "keys/app", nil, conclave.Internal, "damaged")
	}
}

func FuzzRecords(f *testing.F) {
	f.Add([]byte(`{"secret":"MTIz","algorithm":"SHA1","digits":6,"period":30}`), "otpauth://totp/a:b?secret=AAAA&issuer=c&period=60")
	f.Add([]byte(`{"steps":[1],"guessed":2}`), "otpauth://totp/%00")
	f.Fuzz(func(t *testing.T, value []byte, text string) {
		if decoded, err := decodeKey(value); err == nil {
			if _, err := decoded.(*key).parameters().Code(1); err != nil {
				t.Errorf("a key that is accepted makes no passcode: %v", err)
			}
		}
		_, _ = decodeUsed(value)
		k := &key{}
		if secret, err := k.takeURL(text); err == nil {
			_, _ = decodeBase32(secret)
		}
	})
}
