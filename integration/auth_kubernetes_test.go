package integration

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// TestServiceAccountsOnEachNode has a pod log in everywhere. An API server stands in for a cluster's: it answers one review.
func TestServiceAccountsOnEachNode(t *testing.T) {
	const account, uid = "system:serviceaccount:app:web", "3f1c0d9e-0000-4000-8000-000000000001"
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, nil)
	if err != nil {
		t.Fatal(err)
	}
	claims, err := json.Marshal(map[string]any{"iss": "https://kubernetes.default.svc", "aud": []string{"vault"}, "sub": account, "exp": time.Now().Add(time.Hour).Unix(),
		"kubernetes.io": map[string]any{"namespace": "app", "serviceaccount": map[string]any{"name": "web", "uid": uid}}})
	if err != nil {
		t.Fatal(err)
	}
	object, err := signer.Sign(claims)
	if err != nil {
		t.Fatal(err)
	}
	token, err := object.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	var gone atomic.Bool // the account is deleted
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review struct {
			Spec struct{ Token string }
		}
		err := json.NewDecoder(r.Body).Decode(&review)
		status := map[string]any{"authenticated": false}
		if err == nil && r.Header.Get("Authorization") == "Bearer reviewer" && review.Spec.Token == token && !gone.Load() {
			status = map[string]any{"authenticated": true, "audiences": []string{"vault"}, "user": map[string]any{"username": account, "uid": uid}}
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "status": status})
	}))
	defer server.Close()

	l := startLab(t, 3)
	ctx := within(t, 2*time.Minute)
	root := sdk(t, l, 1)
	enableAuth(t, root, "kubernetes")
	mustWrite(t, ctx, root, "auth/kubernetes/config", map[string]any{"kubernetes_host": server.URL, "token_reviewer_jwt": "reviewer",
		"kubernetes_ca_cert": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))})
	mustWrite(t, ctx, root, "auth/kubernetes/role/web", map[string]any{"bound_service_account_names": "web", "bound_service_account_namespaces": "app",
		"audience": "vault", "token_policies": "web", "token_ttl": "10m"})
	login := loginFields{"auth/kubernetes/login", map[string]any{"role": "web", "jwt": token}}
	eachNode(t, ctx, l, nodesOf(t, l), login, "default", "web")
	gone.Store(true)
	for n := 1; n <= 3; n++ {
		_, err := anonymous(t, l, n).Auth().Login(ctx, login)
		wantRefusal(t, err, http.StatusForbidden, "")
	}
}
