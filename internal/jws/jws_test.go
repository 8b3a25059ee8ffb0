package jws

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"conclave"
)

// keys of a test: one of each kind.
type keys struct {
	rsa         *rsa.PrivateKey
	p256, p384  *ecdsa.PrivateKey
	ed          ed25519.PrivateKey
	edPublic    ed25519.PublicKey
	public      []Key
	byAlgorithm map[string]crypto.Signer
	stranger    *ecdsa.PrivateKey // P-256, not in public
	weak        *rsa.PrivateKey
}

func newKeys(t testing.TB) *keys {
	t.Helper()
	k := &keys{}
	var errs [6]error
	k.rsa, errs[0] = rsa.GenerateKey(rand.Reader, 2048)
	k.stranger, errs[1] = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	k.weak, errs[2] = rsa.GenerateKey(rand.Reader, 1024)
	k.p256, errs[3] = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	k.p384, errs[4] = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	k.edPublic, k.ed, errs[5] = ed25519.GenerateKey(rand.Reader)
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
	k.public = []Key{{ID: "rsa", Public: &k.rsa.PublicKey}, {ID: "p256", Public: &k.p256.PublicKey}, {ID: "p384", Public: &k.p384.PublicKey}, {ID: "ed", Public: k.edPublic}}
	k.byAlgorithm = map[string]crypto.Signer{"RS256": k.rsa, "RS384": k.rsa, "RS512": k.rsa, "PS256": k.rsa, "PS384": k.rsa, "PS512": k.rsa,
		"ES256": k.p256, "ES384": k.p384, "EdDSA": k.ed}
	return k
}

// sign makes a token with any header.
func sign(t testing.TB, key any, algorithm string, header map[string]any, payload string) string {
	t.Helper()
	options := &jose.SignerOptions{}
	for name, value := range header {
		options.WithHeader(jose.HeaderKey(name), value)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(algorithm), Key: key}, options)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign([]byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	text, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func part(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }

// verify is what a user of the package does.
func verify(text string, keys []Key, allowed ...string) (*Token, error) {
	if len(allowed) == 0 {
		allowed = Algorithms
	}
	token, err := Parse(text)
	if err != nil {
		return nil, err
	}
	return token, token.Verify(keys, allowed)
}

func TestEveryAlgorithmVerifies(t *testing.T) {
	k := newKeys(t)
	for algorithm, key := range k.byAlgorithm {
		for _, header := range []map[string]any{nil, {"typ": "JWT"}, {"kid": k.public[0].ID}} {
			if header["kid"] != nil && key != crypto.Signer(k.rsa) {
				continue
			}
			token, err := verify(sign(t, key, algorithm, header, `{"sub":"a","n":12345678901234567890}`), k.public)
			if err != nil {
				t.Errorf("%s %v: %v", algorithm, header, err)
				continue
			}
			if token.Claims.Text("sub") != "a" || token.Claims["n"] != json.Number("12345678901234567890") {
				t.Errorf("%s: claims are %v", algorithm, token.Claims)
			}
		}
	}
}

// TestTricksFail has each token that somebody might make without a private key of ours, beside the one that works.
func TestTricksFail(t *testing.T) {
	k := newKeys(t)
	const payload = `{"sub":"a"}`
	good := sign(t, k.rsa, "RS256", map[string]any{"kid": "rsa"}, payload)
	if _, err := verify(good, k.public); err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(good, ".")
	pkix, err := x509.MarshalPKIXPublicKey(&k.rsa.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	publicPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pkix})
	withHMAC := func(secret []byte) string {
		signed := part(`{"alg":"HS256","kid":"rsa"}`) + "." + parts[1]
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(signed))
		return signed + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
	}
	embedded := jose.JSONWebKey{Key: &k.stranger.PublicKey, KeyID: "p256"}
	byStranger := func(header map[string]any) string { return sign(t, k.stranger, "ES256", header, payload) }
	// The last character of 256 bytes has four bits that nothing is in.
	next := string(good[len(good)-1] + 1)
	for name, text := range map[string]string{
		"empty":                         "",
		"not a token":                   "token",
		"none":                          part(`{"alg":"none"}`) + "." + parts[1] + ".",
		"None":                          part(`{"alg":"None"}`) + "." + parts[1] + ".",
		"none with a signature":         part(`{"alg":"none"}`) + "." + parts[1] + "." + parts[2],
		"no algorithm":                  part(`{"kid":"rsa"}`) + "." + parts[1] + "." + parts[2],
		"algorithm is no string":        part(`{"alg":["RS256"]}`) + "." + parts[1] + "." + parts[2],
		"no signature":                  parts[0] + "." + parts[1] + ".",
		"two parts":                     parts[0] + "." + parts[1],
		"four parts":                    good + ".AAAA",
		"encrypted":                     good + ".AAAA.AAAA",
		"HMAC with the key in PEM":      withHMAC(publicPEM),
		"HMAC with the key in DER":      withHMAC(pkix),
		"HMAC with nothing":             withHMAC(nil),
		"another key of that name":      byStranger(map[string]any{"kid": "p256"}),
		"another key":                   byStranger(nil),
		"embedded key":                  byStranger(map[string]any{"jwk": embedded}),
		"embedded key of that name":     byStranger(map[string]any{"jwk": embedded, "kid": "p256"}),
		"link to keys":                  byStranger(map[string]any{"jku": "https://127.0.0.1:1/keys", "kid": "p256"}),
		"link to a certificate":         byStranger(map[string]any{"x5u": "https://127.0.0.1:1/cert"}),
		"key named like a file":         byStranger(map[string]any{"kid": "../../../../dev/null"}),
		"key named like a query":        byStranger(map[string]any{"kid": "x' UNION SELECT 'a"}),
		"unknown name of the right key": sign(t, k.rsa, "RS256", map[string]any{"kid": "other"}, payload),
		"empty header":                  part(`{}`) + "." + parts[1] + "." + parts[2],
		"algorithm twice":               part(`{"alg":"RS256","alg":"none","kid":"rsa"}`) + "." + parts[1] + "." + parts[2],
		"changed payload":               parts[0] + "." + part(`{"sub":"b"}`) + "." + parts[2],
		"changed algorithm":             part(`{"alg":"RS512","kid":"rsa"}`) + "." + parts[1] + "." + parts[2],
		"changed padding":               part(`{"alg":"PS256","kid":"rsa"}`) + "." + parts[1] + "." + parts[2],
		"curve for an RSA key":          part(`{"alg":"ES256","kid":"rsa"}`) + "." + parts[1] + "." + parts[2],
		"line break":                    good[:10] + "\n" + good[10:],
		"space":                         " " + good,
		"padded":                        parts[0] + "=." + parts[1] + "." + parts[2],
		"unused bits":                   good[:len(good)-1] + next,
		"zero ECDSA signature":          part(`{"alg":"ES256","kid":"p256"}`) + "." + parts[1] + "." + part(string(make([]byte, 64))),
		"critical extension":            sign(t, k.rsa, "RS256", map[string]any{"crit": []string{"exp"}, "exp": 1}, payload),
		"critical extension unknown":    sign(t, k.rsa, "RS256", map[string]any{"crit": []string{"x"}, "x": 1}, payload),
		"nothing critical":              sign(t, k.rsa, "RS256", map[string]any{"crit": []string{}}, payload),
		"unencoded payload":             sign(t, k.rsa, "RS256", map[string]any{"b64": true}, payload),
		"claim twice":                   sign(t, k.rsa, "RS256", nil, `{"sub":"a","sub":"b"}`),
		"claim twice, escaped":          sign(t, k.rsa, "RS256", nil, `{"sub":"a","s\u0075b":"b"}`),
		"claim twice, inside":           sign(t, k.rsa, "RS256", nil, `{"a":[{"b":1,"b":2}]}`),
		"payload is a list":             sign(t, k.rsa, "RS256", nil, `["a"]`),
		"payload is null":               sign(t, k.rsa, "RS256", nil, `null`),
		"two payloads":                  sign(t, k.rsa, "RS256", nil, `{"sub":"a"}{"sub":"b"}`),
		"bad UTF-8":                     sign(t, k.rsa, "RS256", nil, "{\"sub\":\"\xff\"}"),
		"deep":                          sign(t, k.rsa, "RS256", nil, `{"a":`+strings.Repeat("[", 100)+strings.Repeat("]", 100)+`}`),
		"long":                          sign(t, k.rsa, "RS256", nil, `{"a":"`+strings.Repeat("a", MaxToken)+`"}`),
		"name is no string":             sign(t, k.rsa, "RS256", map[string]any{"kid": 7}, payload),
	} {
		_, err := verify(text, k.public)
		if err == nil {
			t.Errorf("%s: verified", name)
		} else if !conclave.Is(err, conclave.Invalid) || strings.Contains(err.Error(), parts[1]) {
			t.Errorf("%s: error is %v", name, err)
		}
	}
}

func TestOnlyAllowedAlgorithmsAndKeys(t *testing.T) {
	k := newKeys(t)
	text := sign(t, k.rsa, "RS256", nil, `{}`)
	if _, err := verify(text, k.public, "ES256", "RS512"); err == nil {
		t.Error("an algorithm that isn't allowed verifies")
	}
	if _, err := verify(text, k.public, "none", "RS256"); err != nil {
		t.Errorf("an allowed algorithm: %v", err)
	}
	if _, err := verify(text, []Key{{Public: &k.rsa.PublicKey, Algorithm: "PS256"}}); err == nil {
		t.Error("a key for another algorithm verifies")
	}
	if _, err := verify(sign(t, k.p256, "ES256", nil, `{}`), []Key{{Public: &k.p384.PublicKey}}); err == nil {
		t.Error("a key on another curve verifies")
	}
	if _, err := verify(text, nil); err == nil {
		t.Error("verified without any key")
	}
}

func TestParseSet(t *testing.T) {
	k := newKeys(t)
	set := func(members ...any) []byte {
		data, err := json.Marshal(map[string]any{"keys": members})
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	good := jose.JSONWebKey{Key: &k.rsa.PublicKey, KeyID: "a", Use: "sig", Algorithm: "RS256"}
	found, err := ParseSet(set(good, jose.JSONWebKey{Key: k.edPublic}, map[string]any{"kty": "unknown"}, "text",
		jose.JSONWebKey{Key: []byte("shared secret shared secret"), KeyID: "a"}, jose.JSONWebKey{Key: k.stranger, KeyID: "private"},
		jose.JSONWebKey{Key: &k.stranger.PublicKey, Use: "enc"}, jose.JSONWebKey{Key: &k.weak.PublicKey}))
	if err != nil || len(found) != 2 || found[0].ID != "a" || found[0].Algorithm != "RS256" {
		t.Errorf("ParseSet = %v, %v, want the two public keys for signatures", found, err)
	}
	for _, bad := range []string{"", "{}", "[]", `{"keys":[]}`, `{"keys":7}`, `{"keys":[{"kty":"oct","k":"AAAA"}]}`, `{"keys":[` + strings.Repeat(`{},`, 200) + `{}]}`} {
		if _, err := ParseSet([]byte(bad)); err == nil {
			t.Errorf("ParseSet(%.40q) succeeds", bad)
		}
	}
}

func TestParsePEM(t *testing.T) {
	k := newKeys(t)
	block := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	pkix := func(public any) []byte {
		der, err := x509.MarshalPKIXPublicKey(public)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, k.p256.Public(), k.p256)
	if err != nil {
		t.Fatal(err)
	}
	for _, good := range []string{block("PUBLIC KEY", pkix(&k.rsa.PublicKey)), block("PUBLIC KEY", pkix(k.edPublic)) + "\n",
		block("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&k.rsa.PublicKey)), block("CERTIFICATE", certificate)} {
		if key, err := ParsePEM(good); err != nil || key.Public == nil {
			t.Errorf("ParsePEM: %v", err)
		}
	}
	one := block("PUBLIC KEY", pkix(k.edPublic))
	for name, bad := range map[string]string{"empty": "", "text": "key", "two": one + one, "weak": block("PUBLIC KEY", pkix(&k.weak.PublicKey)),
		"private": block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(k.rsa)), "damaged": block("PUBLIC KEY", []byte{1, 2})} {
		if _, err := ParsePEM(bad); !conclave.Is(err, conclave.Invalid) {
			t.Errorf("%s: %v, want Invalid", name, err)
		}
	}
}

func TestTimes(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	reached := func(at time.Time) bool { return !now.Before(at) }
	for _, c := range []struct {
		claims string // %d are seconds after now
		leeway Leeway
		want   string
	}{
		{`{}`, Leeway{}, "no issued at"},
		{`{"exp":0,"iat":0,"nbf":0}`, Leeway{}, "no issued at"},
		{`{"exp":@-59}`, Leeway{}, ""},
		{`{"exp":@-60}`, Leeway{}, "expired"},
		{`{"exp":@1}`, Leeway{Skew: -1}, ""},
		{`{"exp":@0}`, Leeway{Skew: -1}, "expired"},
		{`{"exp":@1000}`, Leeway{}, "not valid yet"}, // it began 150 s before
		{`{"exp":@1000}`, Leeway{NotBefore: time.Hour}, ""},
		{`{"exp":@1000,"nbf":@60}`, Leeway{}, ""},
		{`{"exp":@1000,"nbf":@61}`, Leeway{}, "not valid yet"},
		{`{"exp":@1000,"iat":@61}`, Leeway{}, "not valid yet"},
		{`{"exp":@1000,"iat":@61,"nbf":@0}`, Leeway{}, "in the future"},
		{`{"iat":@-209}`, Leeway{}, ""},
		{`{"iat":@-210}`, Leeway{}, "expired"},
		{`{"iat":@-500}`, Leeway{Expiry: time.Hour}, ""},
		{`{"iat":@-61}`, Leeway{Expiry: -1}, "expired"},
		{`{"nbf":@-210,"iat":@-300}`, Leeway{}, "expired"},
		{`{"exp":"@1000"}`, Leeway{}, "not a time"},
		{`{"exp":-1}`, Leeway{}, "not a time"},
		{`{"exp":1e300}`, Leeway{}, "not a time"},
		{`{"exp":[]}`, Leeway{}, "not a time"},
		{`{"iat":@0,"exp":@0.5}`, Leeway{Skew: -1}, ""},
	} {
		text := c.claims
		for strings.Contains(text, "@") {
			before, rest, _ := strings.Cut(text, "@")
			var offset float64
			if _, err := fmt.Sscanf(rest, "%g", &offset); err != nil {
				t.Fatal(err)
			}
			rest = strings.TrimLeft(rest, "-0123456789.")
			text = before + fmt.Sprintf("%.1f", float64(now.Unix())+offset) + rest
		}
		claims, err := ParseClaims([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		err = claims.CheckTimes(reached, c.leeway)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("CheckTimes(%s, %v) = %v, want %q", c.claims, c.leeway, err, c.want)
		}
	}
	if err := (Claims{}).CheckGivenTimes(reached); err != nil {
		t.Errorf("nothing given: %v", err)
	}
	for name, offset := range map[string]int64{"exp": -60, "nbf": 61, "iat": 61} {
		claims := Claims{name: json.Number(fmt.Sprint(now.Unix() + offset))}
		if err := claims.CheckGivenTimes(reached); err == nil {
			t.Errorf("%s %d s from now passes", name, offset)
		}
	}
}

// FuzzParse looks for panics, and for a token that verifies with a key that never signed anything.
func FuzzParse(f *testing.F) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sign(f, private, "EdDSA", map[string]any{"kid": "a"}, `{"sub":"a","aud":["b"],"exp":1}`))
	f.Add(part(`{"alg":"none"}`) + ".e30.")
	idle, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		token, err := Parse(text)
		if err != nil {
			return
		}
		_, _ = token.Claims.Audiences()
		_ = token.Claims.CheckTimes(func(time.Time) bool { return true }, Leeway{})
		_ = token.Verify([]Key{{Public: public}}, Algorithms)
		if token.Verify([]Key{{Public: idle}}, Algorithms) == nil {
			t.Errorf("%q verifies", text)
		}
	})
}

// FuzzParseSet looks for panics, and for keys that are no public keys.
func FuzzParseSet(f *testing.F) {
	f.Add([]byte(`{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`))
	f.Add([]byte(`{"keys":[{"kty":"oct","k":"AAAA"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		found, err := ParseSet(data)
		if err != nil {
			return
		}
		for _, key := range found {
			if checkPublic(key.Public) != nil {
				t.Errorf("%s gives a key of type %T", data, key.Public)
			}
		}
	})
}

func BenchmarkVerifyRS256(b *testing.B) {
	k := newKeys(b)
	text := sign(b, k.rsa, "RS256", nil, `{"sub":"a","aud":["b"],"exp":1}`)
	for b.Loop() {
		if _, err := verify(text, k.public); err != nil {
			b.Fatal(err)
		}
	}
}
