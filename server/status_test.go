package server

import (
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"conclave"
)

func TestHealthCodes(t *testing.T) {
	serving := Health{Initialized: true, Reachable: true}
	standby, sealed, cut, removed := serving, serving, serving, serving
	standby.Standby, sealed.Sealed, cut.Reachable, removed.Removed = true, true, false, true
	for _, tc := range []struct {
		name       string
		health     Health
		leaderOnly bool
		query      string
		status     int
	}{
		{"leader", serving, false, "", 200},
		{"leader, own code", serving, false, "?activecode=234", 234},
		{"standby serves too", standby, false, "", 200},
		{"standby has the active code", standby, false, "?activecode=234", 234},
		{"standby, leader only", standby, true, "", 429},
		{"standbyok", standby, true, "?standbyok=true", 200},
		{"standbyok without value", standby, true, "?standbyok", 200},
		{"standbyok=false", standby, true, "?standbyok=false", 429},
		{"perfstandbyok", standby, true, "?perfstandbyok=1&activecode=202", 202},
		{"standbycode", standby, true, "?standbycode=299&performancestandbycode=298", 299},
		{"standbycode, all serve", standby, false, "?standbycode=299", 299},
		{"performancestandbycode", standby, true, "?performancestandbycode=298", 298},
		{"sealed", sealed, false, "", 503},
		{"sealedcode", sealed, false, "?sealedcode=204", 204},
		{"no init", Health{}, false, "", 501},
		{"uninitcode", Health{}, false, "?uninitcode=299", 299},
		{"cut off", cut, false, "", 503},
		{"cut off, own code", cut, false, "?haunhealthycode=474", 474},
		{"removed", removed, false, "", 530},
		{"removedcode", removed, false, "?removedcode=299", 299},
		{"bad code", serving, false, "?activecode=abc", 400},
		{"bad code of another state", serving, false, "?drsecondarycode=99", 400},
		{"code out of range", serving, false, "?sealedcode=1000", 400},
		{"code given twice", serving, false, "?activecode=200&activecode=201", 400},
		{"bad flag", standby, false, "?standbyok=perhaps", 400},
	} {
		vault := &fakeVault{health: tc.health}
		s, _ := newTestServer(t, &recorder{}, vault, func(c *Config) { c.HealthLeaderOnly = tc.leaderOnly })
		for _, method := range []string{"GET", "HEAD"} {
			if w := do(t, plain(s), method, "/v1/sys/health"+tc.query, ""); w.Code != tc.status {
				t.Errorf("%s: %s sys/health%s = %d %s, want %d", tc.name, method, tc.query, w.Code, w.Body, tc.status)
			}
		}
	}
}

// TestGoldenStatus holds the shape of the answers that tools parse before anybody has logged in.
func TestGoldenStatus(t *testing.T) {
	vault := &fakeVault{
		health: Health{Initialized: true, ClusterName: "prod", ClusterID: testCluster},
		seal: SealStatus{Type: "shamir", Initialized: true, Sealed: true, Threshold: 3, Shares: 5, Progress: 1, Nonce: "n",
			Warnings: []string{"old share"}},
		leader: LeaderStatus{HAEnabled: true, ActiveTime: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
			LeaderAddress: "https://a:8200", LeaderClusterAddress: "https://a:8201", CommittedIndex: 9, AppliedIndex: 8},
	}
	s, _ := newTestServer(t, &recorder{}, vault, func(c *Config) { c.Now = func() time.Time { return time.Unix(1767323045, 0) } })
	want, err := os.ReadFile("testdata/status.json")
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for _, path := range []string{"health", "seal-status", "leader", "init"} {
		got.WriteString(do(t, plain(s), "GET", "/v1/sys/"+path, "").Body.String() + "\n")
	}
	if got.String() != string(want) {
		t.Errorf("status answers = %s, want %s", got.String(), want)
	}
}

func TestInit(t *testing.T) {
	var seen InitRequest
	vault := &fakeVault{init: func(req InitRequest) (*InitResult, error) {
		seen = req
		return &InitResult{Shares: []conclave.Secret{conclave.NewSecret("\x01\xff"), conclave.NewSecret("ab")}, RootToken: conclave.NewSecret("hvs.root")}, nil
	}}
	s, _ := newTestServer(t, &recorder{}, vault, nil)
	w := do(t, plain(s), "PUT", "/v1/sys/init", `{"secret_shares":2,"secret_threshold":2,"pgp_keys":["k1","k2"],"root_token_pgp_key":"k3"}`)
	want := InitRequest{Shares: 2, Threshold: 2, PGPKeys: []string{"k1", "k2"}, RootTokenPGPKey: "k3"}
	if !reflect.DeepEqual(seen, want) {
		t.Errorf("request = %+v, want %+v", seen, want)
	}
	if body := `{"keys":["01ff","6162"],"keys_base64":["Af8=","YWI="],"root_token":"hvs.root"}`; w.Code != 200 || w.Body.String() != body {
		t.Errorf("answer = %d %s, want %s", w.Code, w.Body, body)
	}
	vault.init = func(InitRequest) (*InitResult, error) {
		return &InitResult{Members: []InitMember{{NodeID: "a", Address: "192.0.2.1:8201", TLSPublic: []byte("key")}}}, nil
	}
	w = do(t, plain(s), "PUT", "/v1/sys/init", `{"secret_shares":1,"secret_threshold":1}`)
	if want := `"members":[{"node_id":"a","address":"192.0.2.1:8201","tls_public":"a2V5"}]`; !strings.Contains(w.Body.String(), want) {
		t.Errorf("answer = %s, want the members in it: %s", w.Body, want)
	}
	vault.init = func(InitRequest) (*InitResult, error) {
		return nil, conclave.Errorf(conclave.Invalid, "Vault is already initialized")
	}
	for body, status := range map[string]int{`{}`: 400, `{"secret_shares":"many"}`: 400, `{"secret_shares":1`: 400} {
		if w := do(t, plain(s), "POST", "/v1/sys/init", body); w.Code != status {
			t.Errorf("init with %s = %d %s, want %d", body, w.Code, w.Body, status)
		}
	}
}

func TestUnseal(t *testing.T) {
	var seen UnsealRequest
	vault := &fakeVault{unseal: func(req UnsealRequest) (SealStatus, error) {
		seen = req
		if req.Key.Reveal() == "bad" {
			return SealStatus{}, conclave.Errorf(conclave.Invalid, "unknown share")
		}
		return SealStatus{Sealed: true, Progress: 1, Threshold: 3}, nil
	}}
	s, log := newTestServer(t, &recorder{}, vault, nil)
	w := do(t, plain(s), "PUT", "/v1/sys/unseal", `{"key":"canary-share","migrate":true}`)
	if m := asMap(t, w.Body.Bytes()); w.Code != 200 || m["progress"] != 1.0 || m["version"] != "1.20.0" || seen.Key.Reveal() != "canary-share" || !seen.Migrate {
		t.Errorf("unseal = %d %s, request %+v", w.Code, w.Body, seen)
	}
	if strings.Contains(log.String(), "canary-share") {
		t.Errorf("the share is in the log: %s", log)
	}
	for body, status := range map[string]int{`{"reset":true}`: 200, `{}`: 400, ``: 400, `{"key":"bad"}`: 400, `{"key":["x"]}`: 400} {
		if w := do(t, plain(s), "POST", "/v1/sys/unseal", body); w.Code != status {
			t.Errorf("unseal with %s = %d %s, want %d", body, w.Code, w.Body, status)
		}
	}
}

func TestStatusPathsNeverReachThePipeline(t *testing.T) {
	rec := &recorder{resp: &conclave.Response{}}
	s, _ := newTestServer(t, rec, servingVault(), nil)
	for target, status := range map[string]int{
		"GET /v1/sys/health/": 200, "GET /v1/sys/seal-status": 200, "DELETE /v1/sys/health": 405, "GET /v1/sys/unseal": 405,
		"LIST /v1/sys/leader": 405, "POST /v1/sys/seal-status": 405,
	} {
		method, path, _ := strings.Cut(target, " ")
		if w := do(t, plain(s), method, path, "", "X-Vault-Namespace: team"); w.Code != status || !json.Valid(w.Body.Bytes()) {
			t.Errorf("%s = %d %s, want %d", target, w.Code, w.Body, status)
		}
	}
	if rec.seen != nil {
		t.Errorf("the pipeline saw %s", rec.seen.Path)
	}
	if n := len(s.Routes()); n != 6 {
		t.Errorf("%d routes are described, want 6", n)
	}
}
