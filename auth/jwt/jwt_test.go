package jwt

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"maps"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"conclave"
	"conclave/engine/enginetest"
)

func TestConformance(t *testing.T) { enginetest.Conformance(t, Plugin()) }

func TestConformanceAsOIDC(t *testing.T) { enginetest.Conformance(t, OIDCPlugin()) }

// signer signs tokens as an issuer does.
type signer struct {
	t   testing.TB
	id  string
	key *ecdsa.PrivateKey
}

func newSigner(t testing.TB, id string) *signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &signer{t, id, key}
}

func (s *signer) sign(claims map[string]any) string {
	payload, err := json.Marshal(claims)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.signText(string(payload), nil)
}

// signText signs any payload, with what is given added to the header.
func (s *signer) signText(payload string, header map[string]any) string {
	s.t.Helper()
	options := (&jose.SignerOptions{}).WithType("JWT")
	if s.id != "" {
		options.WithHeader("kid", s.id)
	}
	for name, value := range header {
		options.WithHeader(jose.HeaderKey(name), value)
	}
	made, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: s.key}, options)
	if err != nil {
		s.t.Fatal(err)
	}
	signed, err := made.Sign([]byte(payload))
	if err != nil {
		s.t.Fatal(err)
	}
	text, err := signed.CompactSerialize()
	if err != nil {
		s.t.Fatal(err)
	}
	return text
}

func (s *signer) public() jose.JSONWebKey {
	return jose.JSONWebKey{Key: s.key.Public(), KeyID: s.id, Use: "sig", Algorithm: "ES256"}
}

func publicPEM(t testing.TB, key crypto.PublicKey) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// world is a mount that trusts one key, with the role "app".
type world struct {
	*enginetest.Harness
	t      *testing.T
	engine *Engine
	issuer *signer
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, engine: newEngine("jwt"), issuer: newSigner(t, "")}
	w.Harness = enginetest.New(t, w.engine)
	w.Data(conclave.Update, "config", map[string]any{"jwt_validation_pubkeys": publicPEM(t, w.issuer.key.Public()), "bound_issuer": "issuer", "default_role": "App"})
	w.role(nil)
	return w
}

// role writes the role "app" with what is given beside what it has at least.
func (w *world) role(fields map[string]any) {
	w.t.Helper()
	all := map[string]any{"role_type": "jwt", "bound_audiences": "vault", "user_claim": "sub", "token_policies": "a,b", "token_ttl": "1h"}
	maps.Copy(all, fields)
	w.Data(conclave.Update, "role/app", all)
}

// claims are good ones, with some replaced; nil removes.
func (w *world) claims(changed map[string]any) map[string]any {
	all := map[string]any{"iss": "issuer", "sub": "alice", "aud": "vault", "iat": w.Now().Unix(), "exp": w.Now().Add(time.Hour).Unix()}
	maps.Copy(all, changed)
	maps.DeleteFunc(all, func(_ string, value any) bool { return value == nil })
	return all
}

// login logs in with a token, which must succeed.
func (w *world) login(token string) *conclave.Login {
	w.t.Helper()
	response, err := w.Do(conclave.Update, "login", map[string]any{"role": "app", "jwt": token})
	if err != nil || response.Login == nil {
		w.t.Fatalf("login: %v", err)
	}
	return response.Login
}

// refuses logs in with a token, which must fail with text.
func (w *world) refuses(token, text string) {
	w.t.Helper()
	w.Fails(conclave.Update, "login", map[string]any{"role": "app", "jwt": token}, conclave.Invalid, text)
}
