package house

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Floors is the table of floors, lowest last, as docs/architecture.md shows it.
// A package imports only lower floors; packages of one floor do not import each
// other. A star stands for one folder per plug-in. The table is not edited to
// make a build pass: code that does not fit it is in the wrong place.
const Floors = `6  cmd/conclave  integration
5  server  ui
4  pipeline  seal  access  revoke  worker  snapshot  server/config
3  store  cluster
2  fsm
1  audit  policy  passwordpolicy  identity  mount  namespace  token  lease  lockout  mfa  quota  flood  gap  openapi  event  schedule  engine/*  auth/*
0  conclave (the root package)  crypto  password
`

const (
	// testSupport may be imported by tests only.
	testSupport = "engine/enginetest"
	// house packages serve every floor and stand on the lowest.
	houseDir = "internal"
	// wholeTests is where tests may import anything.
	wholeTests = "integration"
)

// place is where a package stands.
type place struct {
	floor int
	owner string // the table's entry that it belongs to: "engine/kv" for "engine/kv/codec"
	found bool
}

// parents are the entries whose packages may have sub-packages of their own.
// Those of cmd/conclave are the CLI's command groups; see docs/decisions/0002.
var parents = []string{"engine/*", "auth/*", "cluster", "server", "cmd/conclave", "integration"}

type entry struct {
	floor   int
	pattern string
}

func parseFloors(table string) []entry {
	var entries []entry
	for line := range strings.Lines(table) {
		number, rest, _ := strings.Cut(strings.TrimSpace(line), "  ")
		floor, err := strconv.Atoi(number)
		if err != nil {
			continue
		}
		for name := range strings.SplitSeq(rest, "  ") {
			name = strings.TrimSpace(name)
			if strings.HasPrefix(name, Module+" (") {
				name = ""
			}
			entries = append(entries, entry{floor, name})
		}
	}
	return entries
}

// locate finds the place of a package by its directory.
// A package with an entry of its own does not belong to its parent's.
func locate(entries []entry, pkg string) place {
	for _, e := range entries {
		if pkg == e.pattern {
			return place{e.floor, pkg, true}
		}
	}
	for _, e := range entries {
		owner := e.pattern
		if stem, star := strings.CutSuffix(e.pattern, "/*"); star {
			rest, under := strings.CutPrefix(pkg, stem+"/")
			if !under {
				continue
			}
			first, _, _ := strings.Cut(rest, "/")
			owner = stem + "/" + first
		}
		if pkg == owner || (slices.Contains(parents, e.pattern) && within(pkg, owner)) {
			return place{e.floor, owner, true}
		}
	}
	return place{}
}

// CheckFloors finds imports that the table of floors forbids, and packages that
// are not on it.
func CheckFloors(t *Tree) []Finding {
	entries := parseFloors(Floors)
	var found []Finding
	for pkg, files := range t.packages() {
		if !within(pkg, houseDir) && !locate(entries, pkg).found {
			found = append(found, Finding{files[0].Path, "floors", fmt.Sprintf("package %s is not in the table of floors", pkg)})
			continue
		}
		for _, f := range files {
			for _, spec := range f.AST.Imports {
				target, err := strconv.Unquote(spec.Path.Value)
				if err != nil {
					continue
				}
				if why := forbiddenImport(entries, f, target); why != "" {
					found = append(found, Finding{t.at(spec), "floors", why})
				}
			}
		}
	}
	return found
}

// forbiddenImport says why f may not import target, or "".
func forbiddenImport(entries []entry, f *File, target string) string {
	ours := within(target, Module)
	if !ours {
		first, _, _ := strings.Cut(target, "/")
		if f.Pkg == "" && strings.Contains(first, ".") {
			return fmt.Sprintf("the root package imports the standard library only, not %s", target)
		}
		return ""
	}
	to := strings.TrimPrefix(strings.TrimPrefix(target, Module), "/")
	switch {
	case to == f.Pkg:
		return "" // an external test of its own package
	case f.Test && within(f.Pkg, wholeTests):
		return ""
	case f.Pkg == "":
		return fmt.Sprintf("the root package imports the standard library only, not %s", target)
	case within(f.Pkg, houseDir):
		if to == "" || to == "crypto" || within(to, houseDir) {
			return ""
		}
		return fmt.Sprintf("packages under %s import only the root and crypto, not %s", houseDir, target)
	case within(to, houseDir):
		return ""
	case to == testSupport && f.Test:
		return ""
	case within(to, testSupport) && !within(f.Pkg, testSupport):
		return fmt.Sprintf("%s is for tests only", target)
	}
	return crossesFloors(locate(entries, f.Pkg), locate(entries, to), f.Pkg, to)
}

// crossesFloors says why package from may not import package to, or "".
func crossesFloors(a, b place, from, to string) string {
	switch {
	case !b.found:
		return fmt.Sprintf("%s is not in the table of floors", to)
	case a.owner == b.owner:
		// Inside one plug-in or command group: downwards, and to its siblings.
		if within(from, to) {
			return fmt.Sprintf("%s imports its parent %s", from, to)
		}
		return ""
	case to != b.owner:
		return fmt.Sprintf("%s belongs to %s, which alone may import it", to, b.owner)
	case b.floor == a.floor:
		return fmt.Sprintf("%s and %s are both on floor %d", from, to, a.floor)
	case b.floor > a.floor:
		return fmt.Sprintf("%s (floor %d) imports %s (floor %d)", from, a.floor, to, b.floor)
	}
	return ""
}
