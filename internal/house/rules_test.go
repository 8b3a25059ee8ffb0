package house

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/fstest"
)

// sound is a small tree that breaks no rule, and uses what the rules allow.
// Every case below starts from it.
var sound = map[string]string{
	"doc.go":                       "// Package conclave is the vocabulary.\npackage conclave\n\nimport _ \"context\"\n",
	"crypto/seal.go":               "// Package crypto seals.\npackage crypto\n\nimport _ \"conclave/internal/bytesize\"\n",
	"internal/bytesize/size.go":    "// Package bytesize counts.\npackage bytesize\n\nimport _ \"conclave\"\n\nfunc run() { go run() }\n",
	"engine/kv/kv.go":              "// Package kv keeps values.\npackage kv\n\nimport (\n\t_ \"conclave\"\n\t_ \"conclave/engine/kv/codec\"\n)\n",
	"engine/kv/kv_test.go":         "package kv_test\n\nimport (\n\t_ \"conclave/engine/enginetest\"\n\t_ \"conclave/engine/kv\"\n\t\"testing\"\n)\n\nfunc TestX(t *testing.T) { t.Skip(\"needs a disk\"); go TestX(t) }\n",
	"engine/kv/codec/codec.go":     "// Package codec codes.\npackage codec\n\nimport _ \"conclave/crypto\"\n",
	"engine/enginetest/kit.go":     "// Package enginetest tests engines.\npackage enginetest\n\nimport _ \"conclave\"\n",
	"fsm/fsm.go":                   "// Package fsm applies.\npackage fsm\n\nimport (\n\t_ \"conclave/audit\"\n\t\"time\"\n)\n\nconst Second = time.Second\n",
	"fsm/fsm_test.go":              "package fsm\n\nimport (\n\t_ \"math/rand\"\n\t\"time\"\n)\n\nvar start = time.Now()\n",
	"audit/audit.go":               "// Package audit records.\npackage audit\n",
	"cluster/cluster.pb.go":        "package cluster\n\nfunc init() {}\n" + strings.Repeat("\n", maxPackageLines+1),
	"cluster/cluster.go":           "// Package cluster orders.\npackage cluster\n\nimport _ \"conclave/fsm\"\n\nfunc run() { go run() }\n",
	"cmd/conclave/main.go":         "// Command conclave is the program.\npackage main\n\nimport (\n\t_ \"conclave/cluster\"\n\t_ \"conclave/cmd/conclave/local\"\n\t_ \"example.org/cobra\"\n)\n\nfunc main() { go main() }\n",
	"cmd/conclave/local/local.go":  "// Package local is a lab.\npackage local\n\nimport _ \"conclave/cluster\"\n",
	"integration/doc.go":           "// Package integration runs clusters.\npackage integration\n",
	"integration/spine_test.go":    "package integration\n\nimport _ \"conclave/cmd/conclave/local\"\n",
	"never.go":                     "//go:build ignore\n\npackage main\n\nimport _ \"conclave/cluster\"\n",
	"engine/kv/testdata/seed.go":   "package broken {",
	"go.mod":                       "module conclave\n\nrequire (\n\texample.org/cobra v1.0.0\n\texample.org/other v1.0.0 // indirect\n)\n",
	"CHANGELOG.md":                 "# Changelog\n",
	"README.md":                    "[design](docs/architecture.md#floors) [site](https://example.org/x) [docs](docs)\n```\n[not](a/link)\n```\n",
	"docs/architecture.md":         "# Floors\n```\n" + Floors + "```\n",
	"docs/dependencies.md":         "`example.org/cobra`: TODO is a word documents may use.\n",
	"packaging/script.sh":          "mktemp /tmp/XXXXXX\n",
	"bin/generated.go":             "package common\n",
	".git/config":                  "path = /wor" + "k/x\n",
	"engine/kv/lexer.go":           "package kv\n\ntype dec struct{}\n\nfunc (dec) Skip() {}\n\nfunc use(d dec) { d.Skip() }\n",
	"internal/onlytests/x_test.go": "// Package onlytests has nothing but tests.\npackage onlytests\n",
	"docs/decisions/0001-first.md": "[up](../architecture.md)\n",
}

func treeOf(t *testing.T, changes map[string]string) *Tree {
	t.Helper()
	files := maps.Clone(sound)
	maps.Copy(files, changes)
	fsys := make(fstest.MapFS)
	for name, body := range files {
		if body != "" {
			fsys[name] = &fstest.MapFile{Data: []byte(body)}
		}
	}
	tree, err := ReadTree(fsys)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func TestSoundTreePasses(t *testing.T) {
	for name, check := range rules {
		for _, f := range check(treeOf(t, nil)) {
			t.Errorf("rule %s found %s in a tree that breaks no rule", name, f)
		}
	}
}

// pkg is a Go file of package name that imports the given paths.
func pkg(name string, imports ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "// Package %s is planted.\npackage %s\n", name, name)
	for _, path := range imports {
		fmt.Fprintf(&b, "import _ %q\n", path)
	}
	return b.String()
}

// seeds are violations: each must be found, by its own rule and by no other.
var seeds = []struct {
	name, rule, file, body string
	where, says            string
}{
	{"upwards", "floors", "fsm/up.go", pkg("fsm", "conclave/cluster"), "fsm/up.go:3", "(floor 2) imports cluster (floor 3)"},
	{"upwards from a test", "floors", "fsm/up_test.go", pkg("fsm", "conclave/cluster"), "fsm/up_test.go:3", "(floor 2) imports cluster (floor 3)"},
	{"sideways", "floors", "cluster/side.go", pkg("cluster", "conclave/store"), "cluster/side.go:3", "are both on floor 3"},
	{"engine to engine", "floors", "engine/totp/totp.go", pkg("totp", "conclave/engine/kv"), "engine/totp/totp.go:3", "are both on floor 1"},
	{"another's sub-package", "floors", "pipeline/p.go", pkg("pipeline", "conclave/engine/kv/codec"), "pipeline/p.go:3", "belongs to engine/kv"},
	{"another command group's", "floors", "integration/x.go", pkg("integration", "conclave/cmd/conclave/local"), "integration/x.go:3", "belongs to cmd/conclave"},
	{"child to parent", "floors", "engine/kv/codec/up.go", pkg("codec", "conclave/engine/kv"), "engine/kv/codec/up.go:3", "imports its parent"},
	{"test kit in code", "floors", "pipeline/p.go", pkg("pipeline", "conclave/engine/enginetest"), "pipeline/p.go:3", "is for tests only"},
	{"root to ours", "floors", "root.go", pkg("conclave", "conclave/crypto"), "root.go:3", "standard library only"},
	{"root to theirs", "floors", "root.go", pkg("conclave", "example.org/x"), "root.go:3", "standard library only"},
	{"crypto to root", "floors", "crypto/x.go", pkg("crypto", "conclave"), "crypto/x.go:3", "are both on floor 0"},
	{"internal to a domain", "floors", "internal/bytesize/x.go", pkg("bytesize", "conclave/audit"), "internal/bytesize/x.go:3", "only the root and crypto"},
	{"off the table", "floors", "backup/b.go", pkg("backup"), "backup/b.go", "not in the table"},
	{"sub-package of a plain package", "floors", "store/cache/c.go", pkg("cache"), "store/cache/c.go", "not in the table"},
	{"import off the table", "floors", "store/s.go", pkg("store", "conclave/gone"), "store/s.go:3", "gone is not in the table"},
	{"built elsewhere", "floors", "fsm/up_windows.go", "//go:build windows\n\n" + pkg("fsm", "conclave/cluster"), "fsm/up_windows.go:5", "imports cluster"},
	{"built for torture", "floors", "fsm/up_test.go", "//go:build torture\n\n" + pkg("fsm", "conclave/cluster"), "fsm/up_test.go:5", "imports cluster"},

	{"long function", "sizes", "audit/f.go", "package audit\n\nfunc long() {\n" + strings.Repeat("\n", maxFuncLines-1) + "}\n", "audit/f.go:3", "long has 101 lines"},
	{"long literal", "sizes", "audit/f.go", "package audit\n\nvar long = func() {\n" + strings.Repeat("\n", maxFuncLines-1) + "}\n", "audit/f.go:3", "literal has 101 lines"},
	{"long file", "sizes", "audit/f_test.go", "package audit\n" + strings.Repeat("\n", maxFileLines), "audit/f_test.go", "at most 700"},

	{"empty noun", "names", "internal/util/u.go", pkg("util"), "internal/util/u.go:2", "no noun"},
	{"empty noun for a folder", "names", "internal/core/u.go", pkg("nucleus"), "internal/core/u.go:2", "no noun"},
	{"no comment", "comments", "lease/l.go", "package lease\n", "lease/l.go", "no package comment"},
	{"init", "init", "audit/i.go", "package audit\n\nfunc init() {}\n", "audit/i.go:3", "no init"},
	{"bare go", "goroutines", "audit/g.go", "package audit\n\nfunc f() {\n\tgo f()\n}\n", "audit/g.go:4", "bare go"},
	{"bare go in an engine called cluster", "goroutines", "engine/cluster/g.go", pkg("cluster") + "func f() {\n\tgo f()\n}\n", "engine/cluster/g.go:4", "bare go"},

	{"sleep", "tests", "audit/a_test.go", "package audit\n\nimport \"time\"\n\nfunc f() { time.Sleep(1) }\n", "audit/a_test.go:5", "Sleep"},
	{"sleep under another name", "tests", "audit/a_test.go", "package audit\n\nimport clock \"time\"\n\nfunc f() { clock.Sleep(1) }\n", "audit/a_test.go:5", "Sleep"},
	{"sleep in a test kit", "tests", "engine/enginetest/s.go", "package enginetest\n\nimport \"time\"\n\nfunc f() { time.Sleep(1) }\n", "engine/enginetest/s.go:5", "Sleep"},
	{"silent skip", "tests", "audit/a_test.go", "package audit\n\nimport \"testing\"\n\nfunc TestA(t *testing.T) { t.Skip() }\n", "audit/a_test.go:5", "reason"},
	{"blank skip", "tests", "audit/a_test.go", "package audit\n\nimport \"testing\"\n\nfunc TestA(t *testing.T) { t.Skip(\" \") }\n", "audit/a_test.go:5", "reason"},
	{"SkipNow", "tests", "audit/a_test.go", "package audit\n\nimport \"testing\"\n\nfunc TestA(t *testing.T) { t.SkipNow() }\n", "audit/a_test.go:5", "reason"},

	{"unfinished code", "words", "audit/w.go", "package audit\n\n// TO" + "DO: later\n", "audit/w.go:3", "finish it"},
	{"unfinished script", "words", "packaging/x.sh", "# FIX" + "ME\n", "packaging/x.sh:1", "finish it"},
	{"a machine's path", "words", "docs/x.md", "\nin /wor" + "k/main\n", "docs/x.md:2", "somebody's machine"},
	{"a machine's host", "words", "Makefile", "GOPROXY=https://proxy.golang" + ".org\n", "Makefile:1", "somebody's machine"},

	{"clock", "determinism", "fsm/t.go", "package fsm\n\nimport \"time\"\n\nvar now = time.Now()\n", "fsm/t.go:5", "time.Now"},
	{"clock handed on", "determinism", "fsm/t.go", "package fsm\n\nimport clock \"time\"\n\nvar now = clock.Since\n", "fsm/t.go:5", "time.Since"},
	{"hidden clock", "determinism", "fsm/t.go", "package fsm\n\nimport . \"time\"\n\nvar now = Now()\n", "fsm/t.go:3", "dot import"},
	{"chance", "determinism", "fsm/t.go", "package fsm\n\nimport _ \"math/rand/v2\"\n", "fsm/t.go:3", "imports math/rand/v2"},
	{"network", "determinism", "fsm/t.go", "package fsm\n\nimport _ \"net/http\"\n", "fsm/t.go:3", "imports net/http"},

	{"no changelog", "documents", "CHANGELOG.md", "", "CHANGELOG.md", "no changelog"},
	{"dead link", "documents", "README.md", "see [it](docs/gone.md)\n", "README.md", "docs/gone.md"},
	{"dead link beside", "documents", "docs/decisions/0001-first.md", "[up](architecture.md)\n", "docs/decisions/0001-first.md", "architecture.md"},
	{"floors differ", "documents", "docs/architecture.md", "# Floors\n" + strings.Replace(Floors, "2  fsm", "2  fsm  store", 1), "docs/architecture.md", "table of floors"},
	{"test that nobody wrote", "documents", "docs/tested.md", "shown by `audit.TestGone`\n", "docs/tested.md", "audit.TestGone"},
	{"no reason for a dependency", "documents", "docs/dependencies.md", "none\n", "docs/dependencies.md", "example.org/cobra"},

	{"no Go", "syntax", "audit/s.go", "package audit {", "audit/s.go", "expected"},
}

func TestSeededViolationIsFound(t *testing.T) {
	seeded := make(map[string]bool)
	for _, s := range seeds {
		t.Run(s.rule+"/"+s.name, func(t *testing.T) {
			seeded[s.rule] = true
			tree := treeOf(t, map[string]string{s.file: s.body})
			for rule, check := range rules {
				found := check(tree)
				if rule != s.rule {
					for _, f := range found {
						t.Errorf("rule %s found %s", rule, f)
					}
					continue
				}
				if len(found) != 1 || found[0].Where != s.where || found[0].Rule != s.rule || !strings.Contains(found[0].What, s.says) {
					t.Errorf("found %v, want one at %s saying %q", found, s.where, s.says)
				}
			}
		})
	}
	for rule := range rules {
		if !seeded[rule] {
			t.Errorf("no violation of rule %s is planted", rule)
		}
	}
}

func TestPackageGrownTooLongIsFound(t *testing.T) {
	changes := make(map[string]string)
	for i := range maxPackageLines/maxFileLines + 1 {
		changes[fmt.Sprintf("audit/part%d.go", i)] = "package audit\n" + strings.Repeat("\n", maxFileLines-2)
	}
	found := CheckSizes(treeOf(t, changes))
	if len(found) != 1 || !strings.Contains(found[0].What, `package "audit"`) {
		t.Errorf("found %v, want the package audit", found)
	}
}

func TestLimitsThemselvesAreAllowed(t *testing.T) {
	body := "package audit\n\nfunc long() {\n" + strings.Repeat("\n", maxFuncLines-2) + "}\n"
	body += strings.Repeat("\n", maxFileLines-strings.Count(body, "\n")-1)
	if found := CheckSizes(treeOf(t, map[string]string{"audit/f.go": body})); len(found) != 0 {
		t.Errorf("found %v in a file at the limits", found)
	}
}

func TestFloorsTableNamesEveryFloor(t *testing.T) {
	entries := parseFloors(Floors)
	floors := make(map[int]int)
	for _, e := range entries {
		floors[e.floor]++
	}
	for floor, want := range []int{3, 18, 1, 2, 7, 2, 2} {
		if floors[floor] != want {
			t.Errorf("floor %d has %d packages, want %d", floor, floors[floor], want)
		}
	}
	for _, pkg := range []string{"", "crypto", "engine/kv", "auth/approle", "store", "server", "cmd/conclave"} {
		if !locate(entries, pkg).found {
			t.Errorf("package %q has no floor", pkg)
		}
	}
	for _, pkg := range []string{"engine", "auth", "cmd", "storeroom", "store/cache"} {
		if locate(entries, pkg).found {
			t.Errorf("package %q has a floor", pkg)
		}
	}
}
