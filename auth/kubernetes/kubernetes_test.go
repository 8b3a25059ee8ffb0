package kubernetes

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"conclave"
	"conclave/engine/enginetest"
)

func TestConformance(t *testing.T) { enginetest.Conformance(t, Plugin()) }

// cluster is an API server that knows some tokens: it stands in for a real one, over TLS.
type cluster struct {
	*httptest.Server
	t      *testing.T
	key    *ecdsa.PrivateKey
	mu     sync.Mutex
	asked  []string                     // method, path and who asks
	change func(status map[string]any)  // of the next reviews
	refuse int                          // status instead of an answer
	labels map[string]map[string]string // namespace → its labels
}

const reviewer = "reviewer-token"

func newCluster(t *testing.T) *cluster {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{t: t, key: key, labels: map[string]map[string]string{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /apis/authentication.k8s.io/v1/tokenreviews", c.review)
	mux.HandleFunc("GET /api/v1/namespaces/{name}", func(w http.ResponseWriter, r *http.Request) {
		c.note(r)
		c.answer(w, map[string]any{"kind": "Namespace", "apiVersion": "v1", "metadata": map[string]any{"name": r.PathValue("name"), "labels": c.labels[r.PathValue("name")]}})
	})
	c.Server = httptest.NewTLSServer(mux)
	t.Cleanup(c.Close)
	return c
}

func (c *cluster) note(r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = append(c.asked, r.Method+" "+r.URL.Path+" "+r.Header.Get("Authorization"))
}

func (c *cluster) answer(w http.ResponseWriter, object any) {
	w.Header().Set("Content-Type", "application/json")
	if c.refuse != 0 {
		w.WriteHeader(c.refuse)
		object = map[string]any{"kind": "Status", "status": "Failure", "code": c.refuse}
	}
	_ = json.NewEncoder(w).Encode(object)
}

// review does as Kubernetes does: audiences that were asked for and that the token has are confirmed.
func (c *cluster) review(w http.ResponseWriter, r *http.Request) {
	c.note(r)
	var asked tokenReview
	if err := json.NewDecoder(r.Body).Decode(&asked); err != nil || asked.Kind != "TokenReview" {
		c.t.Errorf("asked for %+v, %v", asked, err)
	}
	status := map[string]any{}
	signed, err := jose.ParseSignedCompact(asked.Spec.Token, []jose.SignatureAlgorithm{jose.ES256})
	if err == nil {
		var payload []byte
		if payload, err = signed.Verify(&c.key.PublicKey); err == nil {
			var claims struct {
				Audiences []string       `json:"aud"`
				Object    map[string]any `json:"kubernetes.io"`
			}
			_ = json.Unmarshal(payload, &claims)
			inner := claims.Object["serviceaccount"].(map[string]any)
			confirmed := slices.DeleteFunc(claims.Audiences, func(a string) bool {
				return len(asked.Spec.Audiences) > 0 && !slices.Contains(asked.Spec.Audiences, a)
			})
			status = map[string]any{"authenticated": true, "audiences": confirmed, "user": map[string]any{
				"username": "system:serviceaccount:" + claims.Object["namespace"].(string) + ":" + inner["name"].(string), "uid": inner["uid"]}}
		}
	}
	if c.change != nil {
		c.change(status)
	}
	c.answer(w, map[string]any{"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "status": status})
}

// token is one that the cluster has given to the account app/web, with some claims replaced; nil removes.
func (c *cluster) token(changed map[string]any) string { return c.signed(c.key, changed) }

func (c *cluster) signed(key *ecdsa.PrivateKey, changed map[string]any) string {
	c.t.Helper()
	claims := map[string]any{"iss": "https://kubernetes.default.svc", "aud": []string{"vault", "other"}, "sub": "system:serviceaccount:app:web",
		"kubernetes.io": map[string]any{"namespace": "app", "serviceaccount": map[string]any{"name": "web", "uid": "3f1c0d9e-0000-4000-8000-000000000001"}}}
	maps.Copy(claims, changed)
	maps.DeleteFunc(claims, func(_ string, value any) bool { return value == nil })
	payload, err := json.Marshal(claims)
	if err != nil {
		c.t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	made, err := signer.Sign(payload)
	if err != nil {
		c.t.Fatal(err)
	}
	text, err := made.CompactSerialize()
	if err != nil {
		c.t.Fatal(err)
	}
	return text
}

func publicPEM(t testing.TB, key crypto.PublicKey) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func authority(server *httptest.Server) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
}

// world is a mount for one cluster, with the role "app".
type world struct {
	*enginetest.Harness
	t       *testing.T
	cluster *cluster
	engine  *Engine
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, cluster: newCluster(t), engine: &Engine{local: t.TempDir()}}
	w.Harness = enginetest.New(t, w.engine)
	w.configure(nil)
	w.role(nil)
	return w
}

func (w *world) configure(changed map[string]any) {
	w.t.Helper()
	all := map[string]any{"kubernetes_host": w.cluster.URL + "/", "kubernetes_ca_cert": authority(w.cluster.Server), "token_reviewer_jwt": reviewer}
	maps.Copy(all, changed)
	w.Data(conclave.Update, "config", all)
}

func (w *world) role(changed map[string]any) {
	w.t.Helper()
	all := map[string]any{"bound_service_account_names": "web", "bound_service_account_namespaces": "app", "token_policies": "a", "token_ttl": "1h"}
	maps.Copy(all, changed)
	w.Data(conclave.Update, "role/app", all)
}

func (w *world) login(token string) *conclave.Login {
	w.t.Helper()
	response, err := w.Do(conclave.Update, "login", map[string]any{"role": "App", "jwt": token})
	if err != nil || response.Login == nil {
		w.t.Fatalf("login: %v", err)
	}
	return response.Login
}

func (w *world) refuses(token string, kind conclave.Kind, text string) {
	w.t.Helper()
	w.Fails(conclave.Update, "login", map[string]any{"role": "app", "jwt": token}, kind, text)
}

// requests returns what the cluster was asked since the last call.
func (w *world) requests() []string {
	w.cluster.mu.Lock()
	defer w.cluster.mu.Unlock()
	asked := w.cluster.asked
	w.cluster.asked = nil
	return asked
}

func (w *world) in(d time.Duration) int64 { return w.Now().Add(d).Unix() }
