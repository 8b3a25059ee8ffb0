package handover

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"
)

const key = "0123456789abcdef0123456789abcdef"

func hook(t *testing.T, serve http.HandlerFunc) *Webhook {
	t.Helper()
	server := httptest.NewTLSServer(serve)
	t.Cleanup(server.Close)
	return &Webhook{URL: server.URL + "/x", Key: key, CA: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))}
}

// TestSignature has the signature that another implementation makes:
//
//	printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac 0123456789abcdef0123456789abcdef
func TestSignature(t *testing.T) {
	got := Sign(key, time.Unix(1_700_000_000, 999), []byte(`{"a":1}`))
	if want := "t=1700000000,v1=f05f2539e3ae1c49aec5f8cfdad75ef6b06480b133973ffbb7ec9e18827af177"; got != want {
		t.Errorf("Sign = %s, want %s", got, want)
	}
}

// TestTheFormOfACall: receivers are written by others.
func TestTheFormOfACall(t *testing.T) {
	call := &Call{Mode: Rotate, Namespace: "team/", Mount: "rotate/", Entry: "app", Rotation: "0a", Version: 3, Emergency: true, Value: "v", Current: "c",
		Metadata: map[string]string{"user": "admin"}}
	got, err := call.body()
	if want := `{"mode":"rotate","namespace":"team/","mount":"rotate/","entry":"app","rotation":"0a","version":3,"emergency":true,"value":"v","current":"c","metadata":{"user":"admin"}}`; string(got) != want || err != nil {
		t.Errorf("body = %s, %v\nwant %s", got, err, want)
	}
}

func TestACallIsPostedAndSigned(t *testing.T) {
	at := time.Unix(1_700_000_000, 0)
	w := hook(t, func(out http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var call Call
		if err != nil || json.Unmarshal(body, &call) != nil || call.Value != example.Value || r.Method != http.MethodPost ||
			r.Header.Get("Content-Type") != "application/json" || r.Header.Get(SignatureHeader) != Sign(key, at, body) {
			out.WriteHeader(http.StatusBadRequest)
			return
		}
		out.WriteHeader(http.StatusNoContent)
	})
	if err := w.Send(short(t, 10*time.Second), at, example); err != nil {
		t.Errorf("Send: %v", err)
	}
}

func TestAnswersThatAreNone(t *testing.T) {
	verify := *example
	verify.Mode = Verify
	for _, row := range []struct {
		call   *Call
		status int
		body   string
		want   string // "" is success
	}{
		{example, 200, "s3cr3t", ""},
		{example, 204, "", ""},
		{example, 200, strings.Repeat("x", MaxAnswer), ""},
		{example, 200, strings.Repeat("x", MaxAnswer+1), "longer"},
		{example, 206, "", "status 206"},
		{example, 400, "s3cr3t", "status 400"},
		{example, 301, "", "status 301"},
		{&verify, 200, `{"verified":true}`, ""},
		{&verify, 200, `{"verified":false}`, "not say"},
		{&verify, 200, `{"verified":1}`, "not say"},
		{&verify, 200, `[{"verified":true}]`, "not say"},
		{&verify, 200, `true`, "not say"},
		{&verify, 200, ``, "not say"},
		{&verify, 404, `{"verified":true}`, "status 404"},
	} {
		w := hook(t, func(out http.ResponseWriter, r *http.Request) {
			out.Header().Set("Location", "https://127.0.0.1:1/")
			out.WriteHeader(row.status)
			_, _ = io.WriteString(out, row.body)
		})
		err := w.Send(short(t, 10*time.Second), time.Now(), row.call)
		if (err == nil) != (row.want == "") || err != nil && (!strings.Contains(err.Error(), row.want) || strings.Contains(err.Error(), "s3cr3t")) {
			t.Errorf("%s, status %d, %.20q: %v, want %q", row.call.Mode, row.status, row.body, err, row.want)
		}
	}
}

func TestSlowAndEndlessAnswersEnd(t *testing.T) {
	slow := hook(t, func(out http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	})
	if err := slow.Send(short(t, 100*time.Millisecond), time.Now(), example); err == nil || !strings.Contains(err.Error(), "in time") {
		t.Errorf("a slow answer: %v", err)
	}
	endless := hook(t, func(out http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := io.WriteString(out, "x"); err != nil {
				return
			}
		}
	})
	if err := endless.Send(short(t, 30*time.Second), time.Now(), example); err == nil || !strings.Contains(err.Error(), "longer") {
		t.Errorf("an endless answer: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := slow.Send(ctx, time.Now(), example); err == nil || !strings.Contains(err.Error(), "given up") {
		t.Errorf("a call that was given up: %v", err)
	}
}

func TestServersThatAreNotTrusted(t *testing.T) {
	w := hook(t, func(http.ResponseWriter, *http.Request) { t.Error("the call got there") })
	w.CA = ""
	if err := w.Send(short(t, 10*time.Second), time.Now(), example); err == nil || !strings.Contains(err.Error(), "not trusted") || strings.Contains(err.Error(), "127.0.0.1") {
		t.Errorf("an unknown authority: %v", err)
	}
	plain := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the call got there") }))
	defer plain.Close()
	for _, url := range []string{plain.URL, "https" + strings.TrimPrefix(plain.URL, "http")} {
		if err := (&Webhook{URL: url, Key: key}).Send(short(t, 10*time.Second), time.Now(), example); err == nil {
			t.Errorf("%s is no error", url)
		}
	}
}

// TestAddressesOfNoServerAreRefused also when a name leads there: that is looked at right before the connection.
func TestAddressesOfNoServerAreRefused(t *testing.T) {
	for address, ok := range map[string]bool{"127.0.0.1": true, "10.0.0.1": true, "192.0.2.1": true, "2001:db8::1": true, "::1": true, "169.254.169.254": false,
		"::ffff:169.254.169.254": false, "fe80::1": false, "224.0.0.1": false, "ff02::1": false, "0.0.0.0": false, "::": false, "255.255.255.255": false} {
		parsed := netip.MustParseAddr(address)
		if got := mayCall(parsed); got != ok {
			t.Errorf("mayCall(%s) = %v", address, got)
		}
		if err := guard("tcp", netip.AddrPortFrom(parsed, 443).String(), nil); (err == nil) != ok {
			t.Errorf("guard(%s): %v", address, err)
		}
	}
	if err := guard("tcp", "no address", nil); err == nil {
		t.Error("guard of no address is no error")
	}
}

func TestWebhooksAreChecked(t *testing.T) {
	for _, w := range []Webhook{{}, {URL: "https://h", Key: "short"}, {URL: "https://h", Key: strings.Repeat("x", MaxKey+1)}, {URL: "http://127.0.0.1", Key: key}, {URL: "HTTPS:", Key: key},
		{URL: "https://u@h", Key: key}, {URL: "https://h#f", Key: key}, {URL: "file:///etc/passwd", Key: key}, {URL: "https://" + strings.Repeat("h", maxURL), Key: key},
		{URL: "https://h", Key: key, CA: "none"}, {URL: "https://169.254.169.254", Key: key}, {URL: "https://h\x00", Key: key}} {
		if err := w.Check(); err == nil {
			t.Errorf("%.60q is no error", w.URL)
		}
	}
	if err := (&Webhook{URL: "https://host.example:8443/path?x=y", Key: key}).Check(); err != nil {
		t.Errorf("a good webhook: %v", err)
	}
}
