package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// shown are the blocks of a Markdown document in a language.
func shown(document, language string) (blocks []string) {
	for {
		_, rest, found := strings.Cut(document, "\n```"+language+"\n")
		if !found {
			return blocks
		}
		block, after, _ := strings.Cut(rest, "\n```")
		blocks, document = append(blocks, block+"\n"), after
	}
}

// needed is what a part of a configuration lacks to be one.
const needed = "\nlistener \"tcp\" {\n  tls_disable = true\n}\nstorage \"raft\" {\n  path = \"/data\"\n}\n"

func TestConfigurationsInTheManualLoad(t *testing.T) {
	manual, err := os.ReadFile("../../docs/install.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := shown(string(manual), "hcl")
	if len(blocks) < 2 {
		t.Fatalf("docs/install.md shows %d configurations, want a whole one and a seal at least", len(blocks))
	}
	for i, block := range blocks {
		if i > 0 { // only the first is whole
			block += needed
		}
		loadShown(t, "docs/install.md", write(t, map[string]string{"shown.hcl": block}), nil)
	}
	whole := loadShown(t, "docs/install.md", write(t, map[string]string{"shown.hcl": blocks[0]}), nil)
	if whole.Cluster.BootstrapExpect != len(whole.Cluster.Join)+1 {
		t.Errorf("a node of %d is told of %d others", whole.Cluster.BootstrapExpect, len(whole.Cluster.Join))
	}
}

func TestConfigurationsOfTheContainersLoad(t *testing.T) {
	files, err := filepath.Glob("../../packaging/compose/*.hcl")
	if err != nil || len(files) != 3 {
		t.Fatalf("configurations = %v, %v; want three", files, err)
	}
	for _, file := range files {
		node := strings.TrimSuffix(filepath.Base(file), ".hcl")
		c := loadShown(t, file, file, map[string]string{"CONCLAVE_SEAL_KEY": "x"})
		if c.Storage.NodeID != node || c.ClusterAddr != node+":8201" || c.APIAddr != "https://"+node+":8200" {
			t.Errorf("%s is of node %q at %q and %q", file, c.Storage.NodeID, c.ClusterAddr, c.APIAddr)
		}
		if c.Cluster.BootstrapExpect != len(files) || len(c.Cluster.Join) != len(files)-1 {
			t.Errorf("%s expects %d nodes and knows %v", file, c.Cluster.BootstrapExpect, c.Cluster.Join)
		}
		if c.Seal.Key.Env != "CONCLAVE_SEAL_KEY" {
			t.Errorf("%s takes the seal's key from %+v, want what docker-compose.yml sets", file, c.Seal.Key)
		}
	}
}

func loadShown(t *testing.T, name, path string, variables map[string]string) *Config {
	t.Helper()
	c, warnings, err := Load([]string{path}, environ(variables))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	for _, w := range warnings {
		t.Errorf("%s shows a setting without effect: %s", name, w)
	}
	return c
}
