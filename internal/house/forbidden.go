package house

import (
	"fmt"
	"go/ast"
	"go/token"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// emptyNouns are package names that say nothing about what is inside.
var emptyNouns = []string{"util", "utils", "common", "base", "manager", "core", "helper", "helpers", "misc", "shared"}

// spawners are the packages that may start goroutines on their own account;
// every other one takes an errgroup, or hands a func(ctx) error to the cluster.
var spawners = []string{"cluster", "server", "cmd"}

// CheckPackageNames finds packages named for nothing in particular.
func CheckPackageNames(t *Tree) []Finding {
	var found []Finding
	for _, f := range t.Files {
		name := strings.TrimSuffix(f.AST.Name.Name, "_test")
		dir := path.Base(f.Pkg)
		if slices.Contains(emptyNouns, name) || slices.Contains(emptyNouns, dir) {
			found = append(found, Finding{t.at(f.AST.Name), "names", fmt.Sprintf("package %s in %s has no noun for a name", name, f.Pkg)})
		}
	}
	return found
}

// CheckPackageComments finds packages that do not say what they are. A package
// of tests alone says it in a test file.
func CheckPackageComments(t *Tree) []Finding {
	var found []Finding
	for pkg, files := range t.packages() {
		code := slices.DeleteFunc(slices.Clone(files), func(f *File) bool { return f.Test })
		if len(code) == 0 {
			code = files
		}
		says := func(f *File) bool { return f.AST.Doc != nil && strings.TrimSpace(f.AST.Doc.Text()) != "" }
		if !slices.ContainsFunc(code, says) {
			found = append(found, Finding{code[0].Path, "comments", fmt.Sprintf("package %q has no package comment", pkg)})
		}
	}
	return found
}

// CheckInit finds init functions: wiring happens once, in cmd/conclave.
func CheckInit(t *Tree) []Finding {
	var found []Finding
	for _, f := range t.Files {
		if f.PB {
			continue // protoc-gen-go registers its types in one
		}
		for _, d := range f.AST.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				found = append(found, Finding{t.at(fn), "init", "no init functions"})
			}
		}
	}
	return found
}

// CheckGoroutines finds go statements where goroutines are not started.
// Tests, internal and integration may.
func CheckGoroutines(t *Tree) []Finding {
	var found []Finding
	for _, f := range t.Files {
		free := slices.ContainsFunc(append([]string{houseDir, wholeTests}, spawners...), func(dir string) bool { return within(f.Pkg, dir) })
		if f.Test || f.PB || free {
			continue
		}
		ast.Inspect(f.AST, func(n ast.Node) bool {
			if g, ok := n.(*ast.GoStmt); ok {
				found = append(found, Finding{t.at(g), "goroutines", "a bare go statement; only cluster, server and cmd start goroutines"})
			}
			return true
		})
	}
	return found
}

// CheckTests finds tests that sleep, and tests skipped without saying why.
func CheckTests(t *Tree) []Finding {
	var found []Finding
	for _, f := range t.Files {
		if !f.Test && !within(f.Pkg, wholeTests) && !within(f.Pkg, testSupport) {
			continue
		}
		for _, use := range selectors(f, "time") {
			if use.Sel.Name == "Sleep" {
				found = append(found, Finding{t.at(use), "tests", "time.Sleep in a test: wait on an event with a deadline"})
			}
		}
		ast.Inspect(f.AST, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok && silentSkip(call) {
				found = append(found, Finding{t.at(call), "tests", "skips without a printed reason"})
			}
			return true
		})
	}
	return found
}

func silentSkip(call *ast.CallExpr) bool {
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	switch sel.Sel.Name {
	case "SkipNow":
		return true
	case "Skip", "Skipf":
	default:
		return false
	}
	// Skip is also a method of decoders; those of tests hang on t, b, f or tb.
	recv, ok := sel.X.(*ast.Ident)
	if !ok || !slices.Contains([]string{"t", "b", "f", "tb"}, recv.Name) {
		return false
	}
	if len(call.Args) == 0 {
		return true
	}
	lit, ok := call.Args[0].(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return false
	}
	text, err := strconv.Unquote(lit.Value)
	return err == nil && strings.TrimSpace(text) == ""
}

// selectors lists the uses of a package's names in a file, under whatever name
// the file imports it.
func selectors(f *File, importPath string) []*ast.SelectorExpr {
	name := ""
	for _, spec := range f.AST.Imports {
		if p, err := strconv.Unquote(spec.Path.Value); err != nil || p != importPath {
			continue
		}
		name = path.Base(importPath)
		if spec.Name != nil {
			name = spec.Name.Name
		}
	}
	if name == "" {
		return nil
	}
	var uses []*ast.SelectorExpr
	ast.Inspect(f.AST, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if x, ok := sel.X.(*ast.Ident); ok && x.Name == name {
			uses = append(uses, sel)
		}
		return true
	})
	return uses
}

// unfinished are the marks of work left undone. Documents may speak of them,
// source may not.
var unfinished = regexp.MustCompile(`\b(TODO|FIXME|XXX)\b`)

// elsewhere are words of one particular machine or network. They are put
// together here so that this file does not contain them.
var elsewhere = []string{"/wor" + "k/", "proxy.golang" + ".org"}

// CheckWords finds marks of unfinished work in source files, and words in any
// file that belong to the machine it was written on.
func CheckWords(t *Tree) []Finding {
	var found []Finding
	for _, text := range t.Texts {
		source := !strings.HasSuffix(text.Path, ".md") && !strings.HasSuffix(text.Path, ".pb.go") && !within(text.Path, "internal/house")
		number := 0
		for line := range strings.Lines(text.Body) {
			number++
			where := fmt.Sprintf("%s:%d", text.Path, number)
			if mark := unfinished.FindString(line); source && mark != "" {
				found = append(found, Finding{where, "words", mark + ": finish it, or leave it out and say so in an issue"})
			}
			for _, word := range elsewhere {
				if strings.Contains(line, word) {
					found = append(found, Finding{where, "words", fmt.Sprintf("%q is a word of somebody's machine", word)})
				}
			}
		}
	}
	return found
}
