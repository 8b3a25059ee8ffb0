// Package house holds the rules of this source tree as code: which package may
// import which, how long a function, a file and a package may grow, and what
// may not be written at all. Its tests apply every rule to the tree, and prove
// of every rule that it finds a violation planted for it.
//
// The rules read syntax only. They need no build, see every platform's files,
// and do not follow values through variables: a rule that can be fooled on
// purpose is still a rule that is never broken by accident.
package house

import (
	"fmt"
	"go/ast"
	"go/build/constraint"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strings"
	"unicode/utf8"
)

// Module is the path under which packages of the tree import each other.
const Module = "conclave"

// maxTextBytes bounds what is read as text; larger files are data.
const maxTextBytes = 4 << 20

// Tree is a source tree, read once.
type Tree struct {
	Fset  *token.FileSet
	Files []*File // Go files that some build includes, in path order
	Texts []Text  // every text file, Go files included, in path order
	bad   []Finding
}

// File is one parsed Go file.
type File struct {
	Path  string // relative to the root, with slashes
	Pkg   string // the package's directory relative to the root; "" is the root package
	Test  bool   // the name ends in _test.go
	PB    bool   // generated from a .proto file
	Lines int
	AST   *ast.File
}

// Text is one text file as it lies in the tree.
type Text struct {
	Path string
	Body string
}

// Finding is one violation: where, which rule, and what is wrong.
type Finding struct {
	Where string // path, or path:line
	Rule  string // the name of the rule, for example "floors"
	What  string
}

func (f Finding) String() string { return fmt.Sprintf("%s: %s: %s", f.Where, f.Rule, f.What) }

// ReadTree reads the tree under fsys. Directories that builds write (bin, dist)
// and hidden ones other than .ci are left out, and so are Go files that no build
// includes. A Go file that does not parse is left to CheckSyntax.
func ReadTree(fsys fs.FS) (*Tree, error) {
	t := &Tree{Fset: token.NewFileSet()}
	err := fs.WalkDir(fsys, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if skipDir(p) {
				return fs.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() {
			return nil
		}
		return t.read(fsys, p, d)
	})
	if err != nil {
		return nil, fmt.Errorf("read the source tree: %w", err)
	}
	return t, nil
}

func (t *Tree) read(fsys fs.FS, p string, d fs.DirEntry) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	if info.Size() > maxTextBytes {
		return nil
	}
	body, err := fs.ReadFile(fsys, p)
	if err != nil {
		return err
	}
	if !utf8.Valid(body) {
		return nil
	}
	t.Texts = append(t.Texts, Text{Path: p, Body: string(body)})
	if !strings.HasSuffix(p, ".go") || slices.Contains(strings.Split(p, "/"), "testdata") {
		return nil
	}
	parsed, err := parser.ParseFile(t.Fset, p, body, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.bad = append(t.bad, Finding{p, "syntax", err.Error()})
		return nil
	}
	if !everBuilt(parsed) {
		return nil
	}
	dir := path.Dir(p)
	if dir == "." {
		dir = ""
	}
	t.Files = append(t.Files, &File{
		Path:  p,
		Pkg:   dir,
		Test:  strings.HasSuffix(p, "_test.go"),
		PB:    strings.HasSuffix(p, ".pb.go"),
		Lines: t.Fset.File(parsed.FileStart).LineCount(),
		AST:   parsed,
	})
	return nil
}

func skipDir(p string) bool {
	if p == "bin" || p == "dist" {
		return true
	}
	return p != "." && p != ".ci" && strings.HasPrefix(path.Base(p), ".")
}

// everBuilt reports whether one of the builds we make includes the file.
func everBuilt(f *ast.File) bool {
	expr := buildConstraint(f)
	if expr == nil {
		return true
	}
	builds := [][]string{
		{"linux", "unix", "amd64"},
		{"darwin", "unix", "arm64", "cgo", "race"},
		{"linux", "unix", "amd64", "cgo", "race", "torture"},
		{"windows", "amd64"},
	}
	return slices.ContainsFunc(builds, func(tags []string) bool {
		return expr.Eval(func(tag string) bool {
			return slices.Contains(tags, tag) || tag == "gc" || strings.HasPrefix(tag, "go1.")
		})
	})
}

func buildConstraint(f *ast.File) constraint.Expr {
	for _, group := range f.Comments {
		if group.Pos() > f.Package {
			return nil
		}
		for _, c := range group.List {
			if !constraint.IsGoBuild(c.Text) {
				continue
			}
			if expr, err := constraint.Parse(c.Text); err == nil {
				return expr
			}
		}
	}
	return nil
}

// packages groups the Go files by directory.
func (t *Tree) packages() map[string][]*File {
	pkgs := make(map[string][]*File)
	for _, f := range t.Files {
		pkgs[f.Pkg] = append(pkgs[f.Pkg], f)
	}
	return pkgs
}

// at names the place of a node.
func (t *Tree) at(n ast.Node) string {
	pos := t.Fset.Position(n.Pos())
	return fmt.Sprintf("%s:%d", pos.Filename, pos.Line)
}

// within reports whether package pkg is dir or lies under it.
func within(pkg, dir string) bool { return pkg == dir || strings.HasPrefix(pkg, dir+"/") }

// CheckSyntax finds Go files that do not parse, and that no other rule saw.
func CheckSyntax(t *Tree) []Finding { return t.bad }
