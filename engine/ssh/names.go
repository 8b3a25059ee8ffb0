package ssh

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"conclave"
)

const (
	templateOpen  = "{{"
	templateClose = "}}"
)

// splitNames takes a list with commas apart. Names are trimmed, empty ones and repetitions left out.
func splitNames(list string) []string {
	var names []string
	for name := range strings.SplitSeq(list, ",") {
		if name = strings.TrimSpace(name); name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// printable reports whether a text is valid UTF-8 without control characters or others that can't be seen.
func printable(text string) bool {
	return utf8.ValidString(text) && strings.IndexFunc(text, func(c rune) bool { return !unicode.IsPrint(c) }) < 0
}

// closed reports whether each template of a text has an end.
func closed(text string) bool {
	for {
		_, rest, found := strings.Cut(text, templateOpen)
		if !found {
			return true
		}
		if _, text, found = strings.Cut(rest, templateClose); !found {
			return false
		}
	}
}

// render puts values for the identity templates of a name, in one pass: what a value holds is never a template itself. ok
// is false if a template has no value, or one that isn't a single plain name: values may be chosen by those whom the role
// is to hold in bounds, so they can't make two names of one, nor a wildcard.
func render(name string, values conclave.TemplateValues) (rendered string, ok bool) {
	var out strings.Builder
	for {
		before, rest, found := strings.Cut(name, templateOpen)
		out.WriteString(before)
		if !found {
			return out.String(), true
		}
		template, after, isClosed := strings.Cut(rest, templateClose)
		if !isClosed || values == nil {
			return "", false
		}
		value, known := values.Resolve(strings.TrimSpace(template))
		if !known || value == "" || strings.TrimSpace(value) != value || !printable(value) || strings.ContainsAny(value, ",*?!{}") {
			return "", false
		}
		out.WriteString(value)
		name = after
	}
}

// renderNames is a list's names with templates rendered; those without a value are left out.
func renderNames(list string, templated bool, values conclave.TemplateValues) []string {
	names := splitNames(list)
	if !templated {
		return names
	}
	rendered := make([]string, 0, len(names))
	for _, name := range names {
		if name, ok := render(name, values); ok && !slices.Contains(rendered, name) {
			rendered = append(rendered, name)
		}
	}
	return rendered
}

// everything is what a list says that allows all. It must be the whole of the list, as written: a value that happens to
// be a "*", or one beside others, is none.
func everything(list string) bool { return strings.TrimSpace(list) == "*" }

// principals are the users or hosts that a certificate is for. given is what the request asks for, nil if it asks for none.
func (r *role) principals(isHost bool, given *string, values conclave.TemplateValues) ([]string, error) {
	allowed, templated := r.AllowedUsers, r.AllowedUsersTemplate
	if isHost {
		allowed, templated = r.AllowedDomains, r.AllowedDomainsTemplate
	}
	var wanted []string
	if given != nil {
		wanted = splitNames(*given)
	} else if !isHost {
		wanted = renderNames(r.DefaultUser, r.DefaultUserTemplate, values)
	}
	if len(wanted) == 0 {
		if r.AllowEmptyPrincipals {
			return nil, nil
		}
		return nil, conclave.Errorf(conclave.Invalid, "refusing to sign a certificate without principals, which could be good for everybody: set valid_principals or default_user")
	}
	if len(wanted) > maxList {
		return nil, conclave.Errorf(conclave.Invalid, "a certificate has at most %d principals", maxList)
	}
	for _, name := range wanted {
		if len(name) > maxPrincipal || !printable(name) {
			return nil, conclave.Errorf(conclave.Invalid, "a principal has at most %d bytes and no control characters", maxPrincipal)
		}
	}
	if everything(allowed) {
		return wanted, nil
	}
	known := renderNames(allowed, templated, values)
	if len(known) == 0 {
		return nil, conclave.Errorf(conclave.Invalid, "role is not configured to allow any principals")
	}
	for _, name := range wanted {
		if isHost && !r.allowsHost(known, name) || !isHost && !slices.Contains(known, name) {
			return nil, conclave.Errorf(conclave.Invalid, "%s is not a valid value for valid_principals", name)
		}
	}
	return wanted, nil
}

func (r *role) allowsHost(domains []string, host string) bool {
	return slices.ContainsFunc(domains, func(domain string) bool {
		return r.AllowBareDomains && host == domain || r.AllowSubdomains && len(host) > len(domain)+1 && strings.HasSuffix(host, "."+domain)
	})
}
