package main

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"sync"
)

// fakeVault answers what the scripts ask, as the Vault API has it: a seal of 3 shares of which 2 open it, kv version 2
// at secret/, version 1 at old/, the tokens "root" and "weak", which may do nothing.
type fakeVault struct {
	mu          sync.Mutex // guards all
	initialised bool
	progress    int
	unsealed    bool
	secrets     map[string][]any // path → versions, nil for a deleted one
	device      bool
	wrapped     object // what the token "wrapping" stands for, nil once it was used
}

var fakeShares = []string{"c2hhcmUgMQ==", "c2hhcmUgMg==", "c2hhcmUgMw=="}

func (v *fakeVault) open() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.initialised, v.unsealed = true, true
}

type object = map[string]any

func (v *fakeVault) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v.mu.Lock()
	defer v.mu.Unlock()
	body := object{}
	_ = json.NewDecoder(r.Body).Decode(&body)
	path := strings.TrimPrefix(r.URL.Path, "/v1/")
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Request-Id", "request-4711")
	status, answer := v.answer(r, path, body)
	if r.Header.Get("X-Vault-Wrap-TTL") != "" && status == http.StatusOK {
		v.wrapped, answer = answer, object{"wrap_info": object{"token": "wrapping", "ttl": 60, "creation_time": "2026-01-02T03:04:05Z"}}
	}
	w.WriteHeader(status)
	if answer != nil {
		_ = json.NewEncoder(w).Encode(answer)
	}
}

func refusal(text ...string) object { return object{"errors": append([]string{}, text...)} }

func data(fields any) object { return object{"request_id": "request-4711", "data": fields} }

func (v *fakeVault) seal() object {
	return object{"type": "shamir", "initialized": v.initialised, "sealed": !v.unsealed, "t": 2, "n": 3, "progress": v.progress, "version": "1.20.0", "conclave_version": "9.8.7", "storage_type": "raft"}
}

func (v *fakeVault) answer(r *http.Request, path string, body object) (int, object) {
	switch path {
	case "sys/seal-status":
		return 200, v.seal()
	case "sys/leader":
		return 200, object{"ha_enabled": true, "is_self": true, "leader_address": "https://node1:8200"}
	case "sys/init":
		return v.init(r)
	case "sys/unseal":
		return v.unseal(body)
	}
	if !v.unsealed {
		return 503, refusal("Vault is sealed")
	}
	switch r.Header.Get("X-Vault-Token") {
	case "wrapping":
		held := v.wrapped
		if v.wrapped = nil; held == nil || path != "sys/wrapping/unwrap" {
			return 400, refusal("wrapping token is not valid or does not exist")
		}
		return 200, held
	case "root":
	case "weak":
		return 403, refusal("permission denied")
	default:
		return 403, refusal("permission denied", "invalid token")
	}
	if rest, ok := strings.CutPrefix(path, "sys/internal/ui/mounts/"); ok {
		switch mount, _, _ := strings.Cut(rest, "/"); mount {
		case "secret":
			return 200, data(object{"path": "secret/", "type": "kv", "options": object{"version": "2"}})
		case "old":
			return 200, data(object{"path": "old/", "type": "kv", "options": nil})
		}
		return 403, refusal("preflight capability check returned 403, please ensure client's policies grant access to path \"" + rest + "/\"")
	}
	if rest, ok := strings.CutPrefix(path, "secret/"); ok {
		part, path, _ := strings.Cut(rest, "/")
		return v.kv(r, part, path, body)
	}
	return v.system(r, path, body)
}

func (v *fakeVault) init(r *http.Request) (int, object) {
	switch {
	case r.Method == http.MethodGet:
		return 200, object{"initialized": v.initialised}
	case v.initialised:
		return 400, refusal("Vault is already initialized")
	}
	v.initialised = true
	return 200, object{"keys": []string{"01", "02", "03"}, "keys_base64": fakeShares, "root_token": "root"}
}

func (v *fakeVault) unseal(body object) (int, object) {
	if body["reset"] == true {
		v.progress = 0
		return 200, v.seal()
	}
	for _, share := range fakeShares {
		if body["key"] == share {
			if v.progress++; v.progress == 2 {
				v.progress, v.unsealed = 0, true
			}
			return 200, v.seal()
		}
	}
	return 400, refusal("this share is damaged, or of another vault")
}

func (v *fakeVault) system(r *http.Request, path string, body object) (int, object) {
	switch {
	case path == "auth/token/lookup-self":
		return 200, data(object{"id": "root", "accessor": "acc", "policies": []string{"root"}, "ttl": 0, "renewable": false})
	case path == "sys/access/explain":
		return 200, data(object{"request_id": "4712", "time": "2026-01-02T03:04:05Z", "node": "node1", "operation": "read", "path": "secret/data/x", "display_name": "token-ann",
			"policies": []string{"default", "team"}, "denied": true, "error": "permission denied", "because": "the rule decides, and lacks read", "reason": "capability",
			"needed": object{"path": "secret/data/x", "capabilities": []string{"read"}}, "suggestion": "path \"secret/data/x\" {}"})
	case path == "sys/access/list" && body["kind"] == "tokens":
		if next := body["after"]; next != "" {
			return 200, data(object{"results": []object{{"id": next, "name": "token-ann", "policies": []string{"team"}, "capabilities": []string{"read"}}}, "next": ""})
		}
		return 200, data(object{"results": []object{}, "next": "acc"})
	case path == "sys/access/list" && body["kind"] == "roles":
		return 200, data(object{"results": []object{{"id": "auth/people/users/ann", "policies": []string{"default", "team"}, "capabilities": []string{"list", "read"}}}, "next": ""})
	case path == "sys/access/list":
		return 200, data(object{"results": []object{}, "next": ""})
	case path == "sys/access/simulate":
		return 200, data(object{"policies": []string{"default", "team"}, "results": []object{{"path": "secret/data/x", "operation": "read", "allowed": false, "because": "no rule matches"}}})
	case path == "sys/policies/acl/stored":
		return 200, data(object{"name": "stored", "policy": "path \"secret/*\" { capabilities = [\"read\", \"list\"] }"})
	case path == "sys/audit" && v.device:
		return 200, data(object{"file/": object{"type": "file", "options": object{"file_path": "/a"}}})
	case path == "sys/audit":
		return 200, data(object{})
	case path == "sys/audit/file":
		v.device = r.Method != http.MethodDelete
		return 204, nil
	case path == "sys/auth":
		return 200, data(object{"token/": object{"type": "token", "accessor": "auth_token_1"}})
	case path == "sys/auth/people", path == "sys/auth/people/tune":
		return 204, nil
	case path == "sys/mounts":
		return 200, data(object{"secret/": object{"type": "kv", "accessor": "kv_1", "options": object{"version": "2"}}})
	}
	return 404, refusal("no handler for route \"" + path + "\"")
}

func (v *fakeVault) kv(r *http.Request, part, path string, body object) (int, object) {
	versions := v.secrets[path]
	number := len(versions)
	meta := func(n int) object {
		deletion := ""
		if n > 0 && versions[n-1] == nil {
			deletion = "2026-01-02T03:04:05Z"
		}
		return object{"version": n, "created_time": "2026-01-01T00:00:00Z", "deletion_time": deletion, "destroyed": false, "custom_metadata": nil}
	}
	switch {
	case r.URL.Query().Get("list") == "true":
		keys := []string{}
		for name := range v.secrets {
			keys = append(keys, strings.TrimPrefix(name, strings.TrimSuffix(path, "/")+"/"))
		}
		if len(keys) == 0 {
			return 404, refusal()
		}
		return 200, data(object{"keys": keys})
	case part == "data" && r.Method == http.MethodGet:
		if text := r.URL.Query().Get("version"); text != "" {
			number, _ = strconv.Atoi(text)
		}
		if number < 1 || number > len(versions) {
			return 404, refusal()
		}
		status := 200
		if versions[number-1] == nil {
			status = 404
		}
		return status, data(object{"data": versions[number-1], "metadata": meta(number)})
	case part == "data" && r.Method == http.MethodDelete:
		versions[number-1] = nil
		return 204, nil
	case part == "data":
		given, _ := body["options"].(object)
		if cas, ok := given["cas"].(float64); ok && int(cas) != number {
			return 400, refusal("check-and-set parameter did not match the current version")
		}
		versions = append(versions, body["data"])
		v.secrets[path] = versions
		return 200, data(meta(number + 1))
	}
	return 404, refusal()
}
