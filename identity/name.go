package identity

import (
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"conclave"
)

// Limits of identities.
const (
	MaxName        = 256  // bytes of the name of an entity or group
	MaxAliasName   = 1024 // bytes of the name of an alias
	MaxAliases     = 256  // aliases of an entity
	MaxPolicies    = 256  // policies of an entity or group
	MaxMerged      = 1000 // entities that were merged into one
	MaxMembers     = 10_000
	MaxSubgroups   = 1000 // groups that are members of one
	MaxParents     = 64   // groups that one is a member of
	MaxNesting     = 32   // groups on a chain of memberships
	MaxGroups      = 1024 // groups of an entity, inherited ones too
	MaxLoginGroups = 4096 // groups that an auth method may report at a login
	MaxBatch       = 1000 // entities that one request deletes
	MaxMerge       = 100  // entities that one request merges

	maxMetadata   = 64     // entries
	maxMetaKey    = 128    // bytes
	maxMetaValue  = 512    // bytes
	maxPolicyName = 256    // bytes
	maxConnected  = 4096   // groups that are looked at to see whether a change of groups is sound
	maxInfo       = 1000   // entries of a listing that come with details
	maxNames      = 20_000 // names in one answer
	maxID         = 64     // bytes
)

// spell brings a name into its one spelling. It refuses what could be taken for another name: blanks at the ends,
// characters that aren't seen or aren't assigned, and those that Unicode calls compatible with others, such as full-width
// letters and ligatures (UAX #15: the name must be its own NFKC form). An accent may be typed with its letter or after it.
func spell(what, name string, limit int) (string, error) {
	switch {
	case name == "":
		return "", conclave.Errorf(conclave.Invalid, "the name of %s is missing", what)
	case len(name) > limit:
		return "", conclave.Errorf(conclave.Invalid, "the name of %s has at most %d bytes", what, limit)
	case !utf8.ValidString(name):
		return "", conclave.Errorf(conclave.Invalid, "the name of %s is not UTF-8", what)
	case strings.TrimSpace(name) != name:
		return "", conclave.Errorf(conclave.Invalid, "the name of %s has blanks at its ends", what)
	case strings.ContainsFunc(name, unseen):
		return "", conclave.Errorf(conclave.Invalid, "the name of %s has characters that can't be seen", what)
	}
	name = norm.NFC.String(name)
	if norm.NFKC.String(name) != name || len(name) > limit {
		return "", conclave.Errorf(conclave.Invalid, "the name of %s has characters that look like others", what)
	}
	return name, nil
}

// unseen reports whether a character leaves no trace in print: controls, formats, blanks other than the space, fillers,
// and what isn't assigned.
func unseen(r rune) bool {
	return r == utf8.RuneError || !unicode.IsPrint(r) || unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

// spellPath is spell for names that are part of a request's path, as those of entities and groups are.
func spellPath(what, name string) (string, error) {
	name, err := spell(what, name, MaxName)
	if err != nil {
		return "", err
	}
	for segment := range strings.SplitSeq(name, "/") {
		if segment == "" || segment == "." || segment == ".." {
			return "", conclave.Errorf(conclave.Invalid, "the name of %s can't have an empty segment, . or ..", what)
		}
	}
	return name, nil
}

// keyOf is the form of a spelled name that names are compared in: case doesn't matter where a letter's two cases are a
// pair. A capital that shares its small letter with another, as U+0130 does with I, stays itself.
func keyOf(name string) string {
	return norm.NFC.String(strings.Map(func(r rune) rune {
		if small := unicode.ToLower(r); unicode.ToUpper(small) == r {
			return small
		}
		return r
	}, name))
}

// segment makes a key one segment of a storage path.
func segment(key string) string {
	return strings.NewReplacer("%", "%25", "/", "%2F").Replace(key)
}

// factors names an alias by the mount and the name that it is known by there.
func factors(accessor, name string) string {
	sum := sha256.Sum256([]byte(accessor + "\x00" + keyOf(name)))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// isID reports whether a text could be an id; what can't isn't looked up.
func isID(text string) bool {
	return text != "" && len(text) <= maxID && strings.Trim(text, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_") == ""
}

// normalPolicies are the names in their one spelling, sorted, each once; never nil.
func normalPolicies(names []string) ([]string, error) {
	list := make([]string, 0, len(names))
	for _, name := range names {
		name = strings.ToLower(strings.TrimSpace(name))
		switch {
		case name == "root":
			return nil, conclave.Errorf(conclave.Invalid, "policies cannot contain root")
		case len(name) > maxPolicyName:
			return nil, conclave.Errorf(conclave.Invalid, "the name of a policy has at most %d bytes", maxPolicyName)
		case name != "":
			list = append(list, name)
		}
	}
	return bounded(list)
}

// bounded sorts policies and holds their number against the limit.
func bounded(policies []string) ([]string, error) {
	slices.Sort(policies)
	policies = slices.Compact(policies)
	if len(policies) > MaxPolicies {
		return nil, conclave.Errorf(conclave.Invalid, "at most %d policies", MaxPolicies)
	}
	return policies, nil
}

// checkMetadata holds metadata against the limits.
func checkMetadata(metadata map[string]string) error {
	if len(metadata) > maxMetadata {
		return conclave.Errorf(conclave.Invalid, "metadata cannot contain more than %d key/value pairs", maxMetadata)
	}
	for key, value := range metadata {
		switch {
		case key == "" || len(key) > maxMetaKey || !utf8.ValidString(key) || strings.ContainsFunc(key, unseen):
			return conclave.Errorf(conclave.Invalid, "a key of metadata is plain text of 1 to %d bytes", maxMetaKey)
		case len(value) > maxMetaValue || !utf8.ValidString(value):
			return conclave.Errorf(conclave.Invalid, "a value of metadata is text of at most %d bytes", maxMetaValue)
		}
	}
	return nil
}
