package server

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/hashicorp/vault/api"

	"conclave"
)

func TestIndexGoesOutAndComesBack(t *testing.T) {
	rec := &recorder{resp: &conclave.Response{Index: 41}}
	vault := servingVault()
	vault.applied = 41
	s, _ := newTestServer(t, rec, vault, nil)
	value := do(t, plain(s), "POST", "/v1/kv/a", "{}").Header().Get(indexHeader)
	if state, err := api.ParseReplicationState(value, nil); err != nil || state.ClusterID != testCluster || state.LocalIndex != 41 || state.ReplicatedIndex != 41 {
		t.Fatalf("the SDK reads %q as %+v, %v", value, state, err)
	}
	for _, tc := range []struct {
		name   string
		values []string
		status int
		index  uint64
	}{
		{"ours", []string{value}, 204, 41},
		{"several", []string{formatIndex(testCluster, 7), value}, 204, 41},
		{"ahead of this node", []string{formatIndex(testCluster, 42)}, 412, 0},
		{"one of several ahead", []string{value, formatIndex(testCluster, 42)}, 412, 0},
		{"another cluster's", []string{formatIndex("other", 1)}, 412, 0},
		{"not base64", []string{"%"}, 400, 0},
		{"not ours", []string{base64.StdEncoding.EncodeToString([]byte("v2:a:1:1:00"))}, 400, 0},
		{"no number", []string{resigned("v1:" + testCluster + ":x:1")}, 400, 0},
		{"negative", []string{resigned("v1:" + testCluster + ":1:-1")}, 400, 0},
		{"damaged", []string{base64.StdEncoding.EncodeToString([]byte("v1:" + testCluster + ":1:1:0000"))}, 400, 0},
		{"too many", []string{value, value, value, value, value}, 400, 0},
	} {
		rec.seen = nil
		var lines []string
		for _, v := range tc.values {
			lines = append(lines, indexHeader+": "+v)
		}
		w := do(t, plain(s), "GET", "/v1/kv/a", "", lines...)
		if w.Code != tc.status || tc.status == 204 && rec.seen.MinIndex != tc.index {
			t.Errorf("%s = %d %s, want %d with index %d", tc.name, w.Code, w.Body, tc.status, tc.index)
		}
		if tc.status != 204 && rec.seen != nil {
			t.Errorf("%s: the request was executed", tc.name)
		}
	}
}

// resigned is a header value with a right HMAC over whatever state is.
func resigned(state string) string {
	const digits = "0123456789abcdef"
	text := state + ":"
	for _, b := range indexMAC(testCluster, state) {
		text += string(digits[b>>4]) + string(digits[b&15])
	}
	return base64.StdEncoding.EncodeToString([]byte(text))
}

func TestTheSDKMergesIndexes(t *testing.T) {
	merged := api.MergeReplicationStates([]string{formatIndex(testCluster, 9)}, formatIndex(testCluster, 7))
	if len(merged) != 1 || merged[0] != formatIndex(testCluster, 9) {
		t.Errorf("merge of 9 and 7 = %v, want 9", merged)
	}
}

func FuzzParseIndex(f *testing.F) {
	f.Add(formatIndex(testCluster, 1))
	f.Add(resigned("v1:" + testCluster + ":5:0009"))
	f.Add(base64.StdEncoding.EncodeToString([]byte("v1:a:b:c:d")))
	f.Add("")
	f.Fuzz(func(t *testing.T, value string) {
		index, err := parseIndex(value, testCluster)
		if err != nil {
			if !conclave.Is(err, conclave.Invalid) && !conclave.Is(err, conclave.Precondition) {
				t.Fatalf("parseIndex(%q) = %v", value, err)
			}
			return
		}
		state, err := api.ParseReplicationState(value, nil)
		if err != nil || max(state.LocalIndex, state.ReplicatedIndex) != index || strings.TrimSpace(value) == "" {
			t.Fatalf("parseIndex(%q) = %d, the SDK has %+v, %v", value, index, state, err)
		}
	})
}
