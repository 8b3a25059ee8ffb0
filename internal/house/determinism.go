package house

import (
	"fmt"
	"slices"
	"strconv"
)

// replicated is the package that every node runs alike: from the same log it
// makes the same state, so it has no clock, no randomness and no network.
const replicated = "fsm"

// exemptFiles names files of the replicated package that may use what the rule
// forbids, each with its reason. None does.
var exemptFiles = map[string]string{}

// clocks are the names of package time that read or wait for a clock.
var clocks = []string{"Now", "Since", "Until", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker", "Sleep"}

// chance are the imports that make two runs differ.
var chance = []string{"math/rand", "math/rand/v2", "crypto/rand"}

// CheckDeterminism finds clocks, randomness and network in the replicated
// package. Its tests may use all three.
func CheckDeterminism(t *Tree) []Finding {
	var found []Finding
	for _, f := range t.Files {
		if f.Test || !within(f.Pkg, replicated) || exemptFiles[f.Path] != "" {
			continue
		}
		for _, spec := range f.AST.Imports {
			target, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				continue
			}
			if slices.Contains(chance, target) || within(target, "net") {
				found = append(found, Finding{t.at(spec), "determinism", fmt.Sprintf("%s imports %s", replicated, target)})
			}
			if target == "time" && spec.Name != nil && spec.Name.Name == "." {
				found = append(found, Finding{t.at(spec), "determinism", "a dot import hides uses of the clock"})
			}
		}
		for _, use := range selectors(f, "time") {
			if slices.Contains(clocks, use.Sel.Name) {
				found = append(found, Finding{t.at(use), "determinism", fmt.Sprintf("%s uses time.%s", replicated, use.Sel.Name)})
			}
		}
	}
	return found
}
