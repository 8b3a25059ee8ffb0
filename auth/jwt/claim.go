package jwt

import (
	"encoding/json"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"conclave"
	"conclave/internal/glob"
	"conclave/internal/jws"
)

// claimAt returns the claim of a name, or what a JSON pointer (RFC 6901) points to if the name begins with a slash; nil
// if nothing is there.
func claimAt(claims jws.Claims, name string) any {
	if !strings.HasPrefix(name, "/") {
		return claims[name]
	}
	var at any = map[string]any(claims)
	for step := range strings.SplitSeq(name[1:], "/") {
		step = strings.NewReplacer("~1", "/", "~0", "~").Replace(step)
		switch inner := at.(type) {
		case map[string]any:
			at = inner[step]
		case []any:
			index, err := strconv.Atoi(step)
			if err != nil || index < 0 || index >= len(inner) || strconv.Itoa(index) != step {
				return nil
			}
			at = inner[index]
		default:
			return nil
		}
	}
	return at
}

// listOf returns a list as it is and a single value as a list of one. Objects and nothing aren't values.
func listOf(value any) ([]any, bool) {
	switch value := value.(type) {
	case []any:
		return value, true
	case string, bool, json.Number:
		return []any{value}, true
	}
	return nil, false
}

// checkBound checks that each of the bound claims has one of the wanted values.
func (r *role) checkBound(claims jws.Claims) error {
	for name, wanted := range r.BoundClaims {
		got := claimAt(claims, name)
		if got == nil {
			return conclave.Errorf(conclave.Invalid, "error validating claims: claim %q is missing", name)
		}
		values, ok := listOf(got)
		if !ok {
			return conclave.Errorf(conclave.Invalid, "error validating claims: claim %q is not a string, bool, int or list", name)
		}
		if !r.matches(wanted, values) {
			return conclave.Errorf(conclave.Invalid, "error validating claims: claim %q does not match any associated bound claim values", name)
		}
	}
	return nil
}

func (r *role) matches(wanted any, values []any) bool {
	allowed, _ := listOf(wanted)
	for _, want := range allowed {
		for _, value := range values {
			if r.BoundClaimsType == "glob" {
				pattern, _ := want.(string)
				text, isText := value.(string)
				if isText && glob.Match(pattern, text) {
					return true
				}
				continue
			}
			if equal(want, value) {
				return true
			}
		}
	}
	return false
}

// equal compares strings, booleans and numbers; nothing else is equal to anything.
func equal(a, b any) bool {
	switch a := a.(type) {
	case string:
		text, ok := b.(string)
		return ok && a == text
	case bool:
		truth, ok := b.(bool)
		return ok && a == truth
	case json.Number:
		number, ok := b.(json.Number)
		if !ok {
			return false
		}
		x, errX := strconv.ParseFloat(a.String(), 64)
		y, errY := strconv.ParseFloat(number.String(), 64)
		isWhole := !strings.ContainsAny(a.String()+number.String(), ".eE")
		return a == number || !isWhole && errX == nil && errY == nil && x == y
	}
	return false
}

// identify makes a login of verified claims: who it is, in which groups, with which metadata.
func (r *role) identify(claims jws.Claims, name string) (*conclave.Login, error) {
	user := claims[r.UserClaim]
	if r.UserClaimPointer {
		user = claimAt(claims, r.UserClaim)
	}
	if user == nil {
		return nil, conclave.Errorf(conclave.Invalid, "claim %q not found in token", r.UserClaim)
	}
	alias, ok := user.(string)
	if !ok {
		return nil, conclave.Errorf(conclave.Invalid, "claim %q could not be converted to string", r.UserClaim)
	}
	if !isName(alias) {
		return nil, conclave.Errorf(conclave.Invalid, "claim %q is not a name: it is empty, too long or not plain text", r.UserClaim)
	}
	metadata := map[string]string{reservedMetadata: name}
	for from, to := range r.ClaimMappings {
		value := claimAt(claims, from)
		if value == nil {
			continue
		}
		text, ok := value.(string)
		if !ok {
			return nil, conclave.Errorf(conclave.Invalid, "error converting claim '%s' to string", from)
		}
		if len(text) > maxMetadata {
			return nil, conclave.Errorf(conclave.Invalid, "claim '%s' is too long for metadata", from)
		}
		metadata[to] = text
	}
	groups, err := r.groups(claims)
	if err != nil {
		return nil, err
	}
	internal, err := json.Marshal(remembered{Role: name})
	return &conclave.Login{
		Alias: conclave.Alias{Name: alias, Metadata: metadata}, Groups: groups, Terms: r.TokenTerms, Metadata: metadata,
		DisplayName: alias, Role: name, Renewable: true, Internal: internal,
	}, err
}

func (r *role) groups(claims jws.Claims) ([]string, error) {
	if r.GroupsClaim == "" {
		return nil, nil
	}
	value := claimAt(claims, r.GroupsClaim)
	if value == nil {
		return nil, conclave.Errorf(conclave.Invalid, "failed to fetch groups: %q claim not found in token", r.GroupsClaim)
	}
	items, ok := listOf(value)
	if !ok || len(items) > maxGroups {
		return nil, conclave.Errorf(conclave.Invalid, "%q claim could not be converted to string list", r.GroupsClaim)
	}
	var groups []string
	for _, item := range items {
		group, ok := item.(string)
		if !ok || group != "" && !isName(group) {
			return nil, conclave.Errorf(conclave.Invalid, "value in groups claim could not be parsed as string")
		}
		if group != "" {
			groups = append(groups, group)
		}
	}
	return groups, nil
}

// isName reports whether text can name somebody: readable, not empty, not too long.
func isName(text string) bool {
	return text != "" && len(text) <= maxName && utf8.ValidString(text) &&
		!strings.ContainsFunc(text, func(c rune) bool { return unicode.IsControl(c) || unicode.Is(unicode.Bidi_Control, c) })
}
