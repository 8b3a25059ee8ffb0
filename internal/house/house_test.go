package house

import (
	"cmp"
	"os"
	"slices"
	"testing"
)

// rules are all checks of the house, each under the name of its findings.
var rules = map[string]func(*Tree) []Finding{
	"floors":      CheckFloors,
	"sizes":       CheckSizes,
	"names":       CheckPackageNames,
	"comments":    CheckPackageComments,
	"init":        CheckInit,
	"goroutines":  CheckGoroutines,
	"tests":       CheckTests,
	"words":       CheckWords,
	"determinism": CheckDeterminism,
	"documents":   CheckDocuments,
	"syntax":      CheckSyntax,
}

// TestHouse applies every rule to the tree this test lies in.
func TestHouse(t *testing.T) {
	tree, err := ReadTree(os.DirFS("../.."))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(tree.Files, func(f *File) bool { return f.Path == "internal/house/house_test.go" }) {
		t.Fatalf("the tree read has %d Go files, but not this one", len(tree.Files))
	}
	for name, check := range rules {
		t.Run(name, func(t *testing.T) {
			found := check(tree)
			slices.SortFunc(found, func(a, b Finding) int { return cmp.Compare(a.Where, b.Where) })
			for _, f := range found {
				t.Error(f)
			}
		})
	}
}
