// Package password makes passwords by policies: how long they are, of which characters, and how many of some kinds they
// must have.
//
// Every password that a policy allows is equally likely to be made. Candidates are drawn character by character, each
// uniform over all characters of the policy, and those that break a rule are thrown away as a whole; nothing of them is
// kept or mended, so what is left is uniform over what the rules allow. The other usual way, to put in what the rules
// want and to shuffle, favours passwords that have more than was wanted. What it costs is that a policy whose rules
// hardly any candidate meets can't be used: [Policy.Try] finds such ones out when they are written.
//
// The package judges no policy's strength: four digits are a policy.
package password

import (
	"slices"
	"strconv"
	"strings"
)

// Limits of a policy.
const (
	MinLength = 4 // characters of a password
	MaxLength = 100
	MaxSource = 64 << 10 // bytes of a policy's text
	MaxRules  = 32
	// MaxCharacters is how many different characters the rules of one policy may name.
	MaxCharacters = 256
)

// Policy says what passwords look like. It doesn't change, and is safe for concurrent use.
type Policy struct {
	length   int
	rules    []rule
	alphabet []rune   // of all rules, sorted, each once
	within   []uint32 // index into alphabet → a bit for each rule whose set has the character
}

// rule wants at least so many characters of a set, which is sorted and has each once.
type rule struct {
	set      []rune
	atLeast  int
	setShown string
}

// Default is the policy of those who name none: 20 letters, digits and hyphens, of which one at least is a small letter,
// one a capital letter, one a digit and one a hyphen.
func Default() *Policy {
	p := &Policy{length: 20}
	for _, set := range []string{"abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789", "-"} {
		p.rules = append(p.rules, newRule([]rune(set), 1))
	}
	p.join()
	return p
}

// Plain is the policy of passwords of a length in characters, made of letters and digits and without any other rule.
func Plain(length int) (*Policy, error) {
	if length < MinLength || length > MaxLength {
		return nil, &SyntaxError{Reason: lengthWanted}
	}
	p := &Policy{length: length, rules: []rule{newRule([]rune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"), 0)}}
	p.join()
	return p, nil
}

func newRule(set []rune, atLeast int) rule {
	set = slices.Clone(set)
	slices.Sort(set)
	set = slices.Compact(set)
	return rule{set, atLeast, string(set)}
}

// join makes the alphabet of the rules.
func (p *Policy) join() {
	for _, r := range p.rules {
		p.alphabet = append(p.alphabet, r.set...)
	}
	slices.Sort(p.alphabet)
	p.alphabet = slices.Compact(p.alphabet)
	p.within = make([]uint32, len(p.alphabet))
	for i, character := range p.alphabet {
		for bit, r := range p.rules {
			if _, has := slices.BinarySearch(r.set, character); has {
				p.within[i] |= 1 << bit
			}
		}
	}
}

// Length is how many characters a password has.
func (p *Policy) Length() int { return p.length }

// Allows reports whether a text is a password that the policy could have made.
func (p *Policy) Allows(text string) bool {
	var counts [MaxRules]int
	length := 0
	for _, character := range text {
		at, known := slices.BinarySearch(p.alphabet, character)
		if !known {
			return false
		}
		length++
		p.count(&counts, at)
	}
	return length == p.length && p.met(&counts)
}

// count adds the character at an index of the alphabet to the rules that it serves.
func (p *Policy) count(counts *[MaxRules]int, at int) {
	for bit := range p.rules {
		counts[bit] += int(p.within[at] >> bit & 1)
	}
}

func (p *Policy) met(counts *[MaxRules]int) bool {
	for bit := range p.rules {
		if counts[bit] < p.rules[bit].atLeast {
			return false
		}
	}
	return true
}

// String is the policy in its canonical form: HCL with the rules in their order, and the characters of each sorted.
func (p *Policy) String() string {
	var b strings.Builder
	b.WriteString("length = " + strconv.Itoa(p.length) + "\n")
	for _, r := range p.rules {
		b.WriteString("rule \"charset\" {\n  charset = " + quote(r.setShown) + "\n  min-chars = " + strconv.Itoa(r.atLeast) + "\n}\n")
	}
	return b.String()
}

// quote writes a text as HCL reads it: a brace after a dollar begins an interpolation there, unless it is written by its
// number.
func quote(text string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `${`, `$\u007b`).Replace(text) + `"`
}
