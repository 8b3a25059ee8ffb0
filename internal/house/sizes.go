package house

import (
	"fmt"
	"go/ast"
)

// The limits in lines. Half of a limit is where to start thinking about a cut.
const (
	maxFuncLines    = 100
	maxFileLines    = 700
	maxPackageLines = 3000 // without tests
)

// CheckSizes finds functions, files and packages that have grown too long.
// Generated files (.pb.go) are exempt; tests count for functions and files.
func CheckSizes(t *Tree) []Finding {
	var found []Finding
	for pkg, files := range t.packages() {
		lines := 0
		for _, f := range files {
			if f.PB {
				continue
			}
			if !f.Test {
				lines += f.Lines
			}
			if f.Lines > maxFileLines {
				found = append(found, Finding{f.Path, "sizes", fmt.Sprintf("file has %d lines, at most %d are allowed", f.Lines, maxFileLines)})
			}
			found = append(found, t.longFuncs(f)...)
		}
		if lines > maxPackageLines {
			found = append(found, Finding{files[0].Path, "sizes", fmt.Sprintf("package %q has %d lines without tests, at most %d are allowed", pkg, lines, maxPackageLines)})
		}
	}
	return found
}

func (t *Tree) longFuncs(f *File) []Finding {
	var found []Finding
	ast.Inspect(f.AST, func(n ast.Node) bool {
		name := "function literal"
		switch fn := n.(type) {
		case *ast.FuncDecl:
			name = fn.Name.Name
		case *ast.FuncLit:
		default:
			return true
		}
		lines := t.Fset.Position(n.End()).Line - t.Fset.Position(n.Pos()).Line + 1
		if lines <= maxFuncLines {
			return false // nothing inside can be longer
		}
		found = append(found, Finding{t.at(n), "sizes", fmt.Sprintf("%s has %d lines, at most %d are allowed", name, lines, maxFuncLines)})
		return false
	})
	return found
}
