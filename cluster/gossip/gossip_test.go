package gossip

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/memberlist"
)

func TestGoldenMeta(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("testdata", "meta.json"))
	if err != nil {
		t.Fatal(err)
	}
	want := Meta{Cluster: strings.Repeat("0a", 16), Address: "192.0.2.1:8201", API: "https://192.0.2.1:8200", Ready: true, Version: "1.0.0"}
	got, err := decodeMeta([]byte(strings.TrimSpace(string(b))))
	if err != nil || got != want {
		t.Errorf("decoded %+v, %v; want %+v", got, err, want)
	}
	again, err := json.Marshal(want)
	if err != nil || string(again) != strings.TrimSpace(string(b)) {
		t.Errorf("encoded as %s, want %s", again, b)
	}
}

func FuzzMeta(f *testing.F) {
	f.Add([]byte(`{"a":"192.0.2.1:8201"}`))
	f.Add([]byte(`{"c":"zz","a":"x"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeMeta(b)
		if err == nil && (m.Address == "" || len(b) > memberlist.MetaMaxSize) {
			t.Errorf("accepted %+v", m)
		}
	})
}
