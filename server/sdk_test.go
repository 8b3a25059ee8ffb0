package server

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"conclave"
	"conclave/server/config"
)

// tinyKV is a pipeline that keeps values of "secret/".
type tinyKV struct {
	mu     sync.Mutex
	values map[string]map[string]any // path → fields
	index  uint64
	seen   conclave.Request
}

func (k *tinyKV) Handle(_ context.Context, req *conclave.Request) (*conclave.Response, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.index++
	k.seen = *req
	if req.Token.Reveal() != "hvs.good" {
		return nil, conclave.Errorf(conclave.Denied, "permission denied")
	}
	resp := &conclave.Response{Index: k.index, MountType: "kv"}
	switch req.Operation {
	case conclave.Update:
		k.values[req.Path] = req.Fields
		return resp, nil
	case conclave.Read:
		if k.values[req.Path] == nil {
			return nil, &conclave.Error{Kind: conclave.NotFound}
		}
		if resp.Data = k.values[req.Path]; req.WrapTTL > 0 {
			resp.Wrap = &conclave.Wrap{Token: conclave.NewSecret("hvs.wrap"), TTL: req.WrapTTL, CreationTime: time.Unix(0, 0)}
		}
		return resp, nil
	case conclave.List:
		resp.Data = conclave.Keys{Keys: []string{"a"}}
		return resp, nil
	case conclave.Delete:
		delete(k.values, req.Path)
		return resp, nil
	}
	return nil, conclave.Errorf(conclave.Unsupported, "unsupported operation")
}

func sdkClient(t *testing.T, pipeline Handler, vault Vault) *api.Client {
	t.Helper()
	ca := newAuthority(t, "test CA")
	cert, key := ca.issue("server")
	s, _ := newTestServer(t, pipeline, vault, func(c *Config) { c.NewID = nil })
	l, _ := serve(t, s, config.Listener{TLS: &config.TLS{CertFile: cert, KeyFile: key}})
	conf := api.DefaultConfig()
	if err := conf.ConfigureTLS(&api.TLSConfig{CACert: ca.caFile()}); err != nil {
		t.Fatal(err)
	}
	conf.Address, conf.ReadYourWrites, conf.MaxRetries = "https://"+l.Addr().String(), true, 0
	client, err := api.NewClient(conf)
	if err != nil {
		t.Fatal(err)
	}
	client.SetToken("hvs.good")
	t.Cleanup(conf.HttpClient.CloseIdleConnections)
	return client
}

func TestTheVaultSDKWorks(t *testing.T) {
	kv := &tinyKV{values: map[string]map[string]any{}}
	vault := servingVault()
	vault.applied = 1 << 40
	vault.seal = SealStatus{Type: "shamir", Initialized: true, Threshold: 3, Shares: 5}
	client := sdkClient(t, kv, vault)

	if health, err := client.Sys().Health(); err != nil || !health.Initialized || health.Version != "1.20.0" {
		t.Errorf("Health = %+v, %v", health, err)
	}
	if seal, err := client.Sys().SealStatus(); err != nil || seal.T != 3 || seal.N != 5 || seal.StorageType != "raft" {
		t.Errorf("SealStatus = %+v, %v", seal, err)
	}
	if _, err := client.Sys().Leader(); err != nil {
		t.Errorf("Leader = %v", err)
	}
	if done, err := client.Sys().InitStatus(); err != nil || !done {
		t.Errorf("InitStatus = %v, %v", done, err)
	}
	logical := client.Logical()
	if secret, err := logical.Read("secret/a"); err != nil || secret != nil {
		t.Errorf("read of what is absent = %v, %v, want nil", secret, err)
	}
	if _, err := logical.Write("secret/a", map[string]any{"n": 1, "s": "x"}); err != nil {
		t.Errorf("write = %v", err)
	}
	secret, err := logical.Read("secret/a")
	if err != nil || secret == nil || secret.Data["s"] != "x" || secret.Data["n"] != json.Number("1") || secret.MountType != "kv" || secret.RequestID == "" {
		t.Errorf("read = %+v, %v", secret, err)
	}
	if kv.seen.MinIndex == 0 {
		t.Error("the SDK's read did not carry the index of its write")
	}
	if list, err := logical.List("secret"); err != nil || list == nil || len(list.Data["keys"].([]any)) != 1 || kv.seen.Path != "secret/" {
		t.Errorf("list = %+v, %v at %q", list, err, kv.seen.Path)
	}
	if _, err := logical.Delete("secret/a"); err != nil {
		t.Errorf("delete = %v", err)
	}
	var failed *api.ResponseError
	if _, err := logical.JSONMergePatch(context.Background(), "secret/a", map[string]any{}); !errors.As(err, &failed) || failed.StatusCode != 405 {
		t.Errorf("patch = %v, want 405", err)
	}
	stranger, err := client.Clone()
	if err != nil {
		t.Fatal(err)
	}
	stranger.SetToken("hvs.bad")
	if _, err := stranger.Logical().Read("secret/a"); !errors.As(err, &failed) || failed.StatusCode != 403 || failed.Errors[0] != "permission denied" {
		t.Errorf("read with a bad token = %v, want 403", err)
	}
}

func TestTheVaultSDKWrapsAndNamesNamespaces(t *testing.T) {
	kv := &tinyKV{values: map[string]map[string]any{"secret/a": {"password": "canary"}}}
	client := sdkClient(t, kv, servingVault())
	client.SetNamespace("team/a")
	client.SetWrappingLookupFunc(func(string, string) string { return "90s" })
	secret, err := client.Logical().Read("secret/a")
	if err != nil || secret.WrapInfo == nil || secret.WrapInfo.Token != "hvs.wrap" || secret.WrapInfo.TTL != 90 || secret.Data != nil {
		t.Errorf("wrapped read = %+v, %v", secret, err)
	}
	if kv.seen.Namespace != "team/a/" {
		t.Errorf("namespace = %q, want team/a/", kv.seen.Namespace)
	}
}

func TestTheVaultSDKUnderstandsASealedVault(t *testing.T) {
	client := sdkClient(t, &recorder{err: &conclave.Error{Kind: conclave.Sealed}}, &fakeVault{health: Health{Initialized: true, Sealed: true}})
	var failed *api.ResponseError
	if _, err := client.Logical().Read("secret/a"); !errors.As(err, &failed) || failed.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("read of a sealed vault = %v, want 503", err)
	}
	if health, err := client.Sys().Health(); err != nil || !health.Sealed {
		t.Errorf("Health = %+v, %v, want sealed", health, err)
	}
}
