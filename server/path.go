package server

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"conclave"
)

const apiPrefix = "/v1/"

var (
	errNoPath        = &conclave.Error{Kind: conclave.NotFound}
	errPath          = conclave.Errorf(conclave.Invalid, "path is not canonical: no empty, . or .. segment, no encoded slash, no control character, UTF-8 only")
	errPathLong      = conclave.Errorf(conclave.Invalid, "path of more than %d bytes", MaxPath)
	errNamespace     = conclave.Errorf(conclave.Invalid, "namespace is not canonical: no empty, . or .. segment, no control character, UTF-8 only")
	errMethod        = conclave.Errorf(conclave.Unsupported, "unsupported method")
	errQuery         = conclave.Errorf(conclave.Invalid, "malformed query")
	errListAndScan   = conclave.Errorf(conclave.Invalid, "list and scan exclude each other")
	errSeveralTokens = conclave.Errorf(conclave.Invalid, "more than one token or namespace was sent")
)

// requestPath returns the path below /v1/, decoded once and canonical but for one slash at its end. What has several
// spellings is refused, never cleaned or redirected, so that a path means the same to everyone who sees it.
func requestPath(u *url.URL) (string, error) {
	path, found := strings.CutPrefix(u.Path, apiPrefix)
	if !found || path == "" {
		return "", errNoPath
	}
	if len(path) > MaxPath {
		return "", errPathLong
	}
	if !hasEncodedSlash(u.RawPath) && canonical(strings.TrimSuffix(path, "/")) {
		return path, nil
	}
	if path, isOCSP := ocspPath(path); isOCSP {
		return path, nil
	}
	return "", errPath
}

// hasEncodedSlash looks at RawPath, which is set only when the client's spelling isn't the usual one, as with every encoded
// slash.
func hasEncodedSlash(raw string) bool {
	for raw != "" {
		at := strings.IndexByte(raw, '%')
		if at < 0 || len(raw) < at+3 {
			return false
		}
		if raw[at+1] == '2' && raw[at+2]|0x20 == 'f' {
			return true
		}
		raw = raw[at+3:]
	}
	return false
}

// minOCSP is what an OCSP request has at least, in bytes of base64: its two hashes have 40 in binary.
const minOCSP = 54

// ocspPath gives an OCSP request in a path its one spelling. Clients put it there in the base64 that has slashes (RFC 6960,
// A.1), some encoded, some not; behind the edge it is one segment, in the base64 of RFC 4648, section 5. No other path may
// be spelled like that.
func ocspPath(path string) (string, bool) {
	mount, request, found := strings.Cut(path, "/ocsp/")
	if !found || !canonical(mount) || len(request) < minOCSP {
		return "", false
	}
	segment := []byte(strings.TrimRight(request, "="))
	for i, c := range segment {
		switch {
		case c == '/':
			segment[i] = '_'
		case c == '+':
			segment[i] = '-'
		case c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_':
		default:
			return "", false
		}
	}
	return mount + "/ocsp/" + string(segment), true
}

// canonical reports whether path is one or more segments that are neither empty nor "." or "..", in UTF-8 without
// control characters.
func canonical(path string) bool {
	start, ascii := 0, true
	for i := 0; i <= len(path); i++ {
		if i < len(path) && path[i] != '/' {
			if c := path[i]; c < ' ' || c == 0x7f {
				return false
			} else if c >= utf8.RuneSelf {
				ascii = false
			}
			continue
		}
		if segment := path[start:i]; segment == "" || segment == "." || segment == ".." {
			return false
		}
		start = i + 1
	}
	return ascii || utf8.ValidString(path) && strings.IndexFunc(path, unicode.IsControl) < 0
}

// requestNamespace returns the namespace that the header names, in canonical form.
func requestNamespace(h http.Header) (string, error) {
	values := h["X-Vault-Namespace"]
	if len(values) == 0 {
		return "", nil
	}
	if len(values) > 1 {
		return "", errSeveralTokens
	}
	name := strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(values[0]), "/"), "/")
	if name == "" || name == "root" {
		return "", nil
	}
	if len(name) > MaxPath || !canonical(name) {
		return "", errNamespace
	}
	return name + "/", nil
}

// requestToken returns the client's token: X-Vault-Token, else a bearer token.
func requestToken(h http.Header) (conclave.Secret, error) {
	for _, name := range [...]string{"X-Vault-Token", "Authorization"} {
		values := h[name]
		if len(values) > 1 {
			return conclave.Secret{}, errSeveralTokens
		}
		if len(values) == 0 || values[0] == "" {
			continue
		}
		if name == "X-Vault-Token" {
			return conclave.NewSecret(strings.TrimSpace(values[0])), nil
		}
		if scheme, token, _ := strings.Cut(values[0], " "); strings.EqualFold(scheme, "bearer") {
			return conclave.NewSecret(strings.TrimSpace(token)), nil
		}
	}
	return conclave.Secret{}, nil
}

// requestQuery returns the query's parameters.
func requestQuery(raw string) (url.Values, error) {
	if raw == "" {
		return nil, nil
	}
	query, err := url.ParseQuery(raw)
	if err != nil {
		return nil, errQuery
	}
	for name, values := range query {
		for _, text := range append(values, name) {
			if !utf8.ValidString(text) {
				return nil, errQuery
			}
		}
	}
	return query, nil
}

// operation decides what a request does, and takes the parameters that say so out of the query. A GET or HEAD may be
// a listing or ask for help.
func operation(method string, query url.Values) (op conclave.Operation, help bool, err error) {
	switch method {
	case http.MethodGet, http.MethodHead:
		list, err := flag(query, "list")
		if err != nil {
			return 0, false, err
		}
		scan, err := flag(query, "scan")
		if err != nil {
			return 0, false, err
		}
		if help, err = flag(query, "help"); err != nil {
			return 0, false, err
		}
		switch {
		case list && scan:
			return 0, false, errListAndScan
		case list:
			return conclave.List, help, nil
		case scan:
			return conclave.Scan, help, nil
		}
		return conclave.Read, help, nil
	case http.MethodPost, http.MethodPut:
		return conclave.Update, false, nil
	case http.MethodPatch:
		return conclave.Patch, false, nil
	case http.MethodDelete:
		return conclave.Delete, false, nil
	case "LIST":
		return conclave.List, false, nil
	case "SCAN":
		return conclave.Scan, false, nil
	}
	return 0, false, errMethod
}

// flag takes a boolean parameter out of the query.
func flag(query url.Values, name string) (bool, error) {
	values, given := query[name]
	if !given {
		return false, nil
	}
	delete(query, name)
	if len(values) != 1 {
		return false, conclave.Errorf(conclave.Invalid, "query parameter %s is given twice", name)
	}
	if values[0] == "" {
		return false, nil
	}
	set, err := strconv.ParseBool(values[0])
	if err != nil {
		return false, conclave.Errorf(conclave.Invalid, "query parameter %s must be true or false", name)
	}
	return set, nil
}

// queryFields are the parameters as fields: a string, or a list of them when one is repeated.
func queryFields(query url.Values) map[string]any {
	if len(query) == 0 {
		return nil
	}
	fields := make(map[string]any, len(query))
	for name, values := range query {
		if len(values) == 1 {
			fields[name] = values[0]
			continue
		}
		list := make([]any, len(values))
		for i, value := range values {
			list[i] = value
		}
		fields[name] = list
	}
	return fields
}
