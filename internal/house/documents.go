package house

import (
	"fmt"
	"go/ast"
	"path"
	"regexp"
	"strings"
)

const (
	changelog    = "CHANGELOG.md"
	architecture = "docs/architecture.md"
	dependencies = "docs/dependencies.md"
)

var (
	fence  = regexp.MustCompile("(?ms)^```.*?^```$")
	link   = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	direct = regexp.MustCompile(`(?m)^\t(\S+) v\S+$`)
	proof  = regexp.MustCompile("`([a-z0-9_/]+)\\.((?:Test|Fuzz)[A-Z0-9]\\w*)`") // package.Test
)

// CheckDocuments finds links of Markdown files that lead nowhere, a changelog
// that is missing, a picture of the floors that differs from the table, and a
// direct dependency that docs/dependencies.md gives no reason for, and a test
// that a page names (`server.TestX`) and nobody has written.
func CheckDocuments(t *Tree) []Finding {
	bodies := make(map[string]string) // path → text
	dirs := make(map[string]bool)     // path → is a directory
	for _, text := range t.Texts {
		bodies[text.Path] = text.Body
		for dir := path.Dir(text.Path); dir != "."; dir = path.Dir(dir) {
			dirs[dir] = true
		}
	}
	var found []Finding
	if strings.TrimSpace(bodies[changelog]) == "" {
		found = append(found, Finding{changelog, "documents", "there is no changelog"})
	}
	if body, ok := bodies[architecture]; ok && !strings.Contains(body, "\n"+Floors) {
		found = append(found, Finding{architecture, "documents", "does not show the table of floors as internal/house has it"})
	}
	for _, m := range direct.FindAllStringSubmatch(bodies["go.mod"], -1) {
		if !strings.Contains(bodies[dependencies], "`"+m[1]+"`") {
			found = append(found, Finding{dependencies, "documents", fmt.Sprintf("gives no reason for %s", m[1])})
		}
	}
	for _, text := range t.Texts {
		if !strings.HasSuffix(text.Path, ".md") || strings.Contains(text.Path, "testdata/") {
			continue
		}
		for _, m := range link.FindAllStringSubmatch(fence.ReplaceAllString(text.Body, ""), -1) {
			target, _, _ := strings.Cut(m[1], "#")
			if target == "" || strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			to := path.Join(path.Dir(text.Path), target)
			if _, ok := bodies[to]; !ok && !dirs[to] {
				found = append(found, Finding{text.Path, "documents", fmt.Sprintf("links to %s, which is not there", target)})
			}
		}
		for _, m := range proof.FindAllStringSubmatch(text.Body, -1) {
			if !t.hasTest(m[1], m[2]) {
				found = append(found, Finding{text.Path, "documents", fmt.Sprintf("names %s.%s, which is no test", m[1], m[2])})
			}
		}
	}
	return found
}

// hasTest reports whether a package has a test, or fuzz test, of that name.
func (t *Tree) hasTest(pkg, name string) bool {
	for _, f := range t.Files {
		if !f.Test || f.Pkg != pkg {
			continue
		}
		for _, decl := range f.AST.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == name {
				return true
			}
		}
	}
	return false
}
