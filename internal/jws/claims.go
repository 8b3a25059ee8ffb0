package jws

import (
	"bytes"
	"encoding/json"
	"io"
	"strconv"
	"time"
	"unicode/utf8"

	"conclave"
)

// maxDepth bounds how deep the JSON of a token nests.
const maxDepth = 32

// lastTime is the largest time of a claim, the end of the year 9999 in seconds since 1970.
const lastTime = 253402300799

// Default leeways: how far the clocks of issuers may be off. They are those of Vault.
const (
	DefaultSkew   = time.Minute
	defaultLeeway = 150 * time.Second
)

// Claims are the members of a token's payload: name → string, json.Number, bool, []any, map[string]any or nil.
type Claims map[string]any

// decodeObject reads a JSON object, refusing names that occur twice in one object.
func decodeObject(data []byte) (map[string]any, error) {
	if !utf8.Valid(data) {
		return nil, errForm
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	value, err := decodeValue(decoder, 0)
	if err != nil {
		return nil, errForm
	}
	if _, err := decoder.Token(); err != io.EOF {
		return nil, errForm
	}
	object, ok := value.(map[string]any)
	if !ok {
		return nil, errForm
	}
	return object, nil
}

func decodeValue(decoder *json.Decoder, depth int) (any, error) {
	token, err := decoder.Token()
	if err != nil || depth > maxDepth {
		return nil, errForm
	}
	switch token {
	case json.Delim('{'):
		object := map[string]any{}
		for decoder.More() {
			name, err := decoder.Token()
			if err != nil {
				return nil, errForm
			}
			if _, twice := object[name.(string)]; twice {
				return nil, errForm
			}
			if object[name.(string)], err = decodeValue(decoder, depth+1); err != nil {
				return nil, err
			}
		}
		_, err = decoder.Token()
		return object, err
	case json.Delim('['):
		list := []any{}
		for decoder.More() {
			item, err := decodeValue(decoder, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, item)
		}
		_, err = decoder.Token()
		return list, err
	}
	return token, nil
}

// Text returns a claim that is a string, empty if it isn't there or is something else.
func (c Claims) Text(name string) string {
	text, _ := c[name].(string)
	return text
}

// Time returns a claim that is a NumericDate (RFC 7519 section 2), and whether it is there. Zero counts as absent, as it
// does for Vault.
func (c Claims) Time(name string) (at time.Time, given bool, err error) {
	value, given := c[name]
	if !given || value == nil {
		return time.Time{}, false, nil
	}
	number, ok := value.(json.Number)
	if !ok {
		return time.Time{}, false, conclave.Errorf(conclave.Invalid, "the token's claim %q is not a time", name)
	}
	seconds, err := strconv.ParseFloat(number.String(), 64)
	if err != nil || seconds < 0 || seconds > lastTime {
		return time.Time{}, false, conclave.Errorf(conclave.Invalid, "the token's claim %q is not a time", name)
	}
	whole := int64(seconds)
	return time.Unix(whole, int64((seconds-float64(whole))*1e9)), seconds != 0, nil
}

// Audiences returns the claim aud: one string or a list of them.
func (c Claims) Audiences() ([]string, error) {
	switch value := c["aud"].(type) {
	case nil:
		return nil, nil
	case string:
		return []string{value}, nil
	case []any:
		audiences := make([]string, len(value))
		for i, item := range value {
			text, ok := item.(string)
			if !ok {
				return nil, conclave.Errorf(conclave.Invalid, "the token's claim \"aud\" is not a list of strings")
			}
			audiences[i] = text
		}
		return audiences, nil
	}
	return nil, conclave.Errorf(conclave.Invalid, "the token's claim \"aud\" is neither a string nor a list")
}

// Leeway is how generously times are judged. Zero is the default, less is none.
type Leeway struct {
	Expiry    time.Duration // what a token without exp lives for after iat and nbf; 150 s
	NotBefore time.Duration // how long before exp a token without nbf and iat begins; 150 s
	Skew      time.Duration // how far the issuer's clock may be off; 1 min
}

func or(leeway, otherwise time.Duration) time.Duration {
	switch {
	case leeway == 0:
		return otherwise
	case leeway < 0:
		return 0
	}
	return leeway
}

// CheckTimes judges exp, nbf and iat by a clock that tells whether a moment has been reached. A token without exp ends
// some time after it began, one that says nothing of its beginning began some time before its end; a token that has none
// of the three is refused. The moments are those at which Vault's plug-in judges.
func (c Claims) CheckTimes(reached func(at time.Time) bool, leeway Leeway) error {
	issued, hasIssued, err := c.Time("iat")
	if err != nil {
		return err
	}
	begins, hasBegin, err := c.Time("nbf")
	if err != nil {
		return err
	}
	expires, hasExpiry, err := c.Time("exp")
	if err != nil {
		return err
	}
	if !hasExpiry && !hasBegin && !hasIssued {
		return conclave.Errorf(conclave.Invalid, "no issued at (iat), not before (nbf), or expiration time (exp) claims in token")
	}
	if !hasExpiry {
		expires = begins
		if !hasBegin || hasIssued && issued.After(begins) {
			expires = issued
		}
		expires = expires.Add(or(leeway.Expiry, defaultLeeway))
	}
	if !hasBegin {
		begins = issued
		if !hasIssued {
			begins = expires.Add(-or(leeway.NotBefore, defaultLeeway))
		}
	}
	skew := or(leeway.Skew, DefaultSkew)
	switch {
	case reached(expires.Add(skew)):
		return conclave.Errorf(conclave.Invalid, "token is expired (exp)")
	case !reached(begins.Add(-skew)):
		return conclave.Errorf(conclave.Invalid, "token not valid yet (nbf)")
	case hasIssued && !reached(issued.Add(-skew)):
		return conclave.Errorf(conclave.Invalid, "token issued in the future (iat)")
	}
	return nil
}

// CheckGivenTimes is CheckTimes for tokens that somebody else judges as well: what isn't given isn't judged.
func (c Claims) CheckGivenTimes(reached func(at time.Time) bool) error {
	for _, name := range []string{"exp", "nbf", "iat"} {
		at, given, err := c.Time(name)
		switch {
		case err != nil:
			return err
		case !given:
		case name == "exp" && reached(at.Add(DefaultSkew)):
			return conclave.Errorf(conclave.Invalid, "token is expired (exp)")
		case name != "exp" && !reached(at.Add(-DefaultSkew)):
			return conclave.Errorf(conclave.Invalid, "token not valid yet (%s)", name)
		}
	}
	return nil
}

// ParseClaims reads claims that weren't signed, as strictly as those that were.
func ParseClaims(data []byte) (Claims, error) { return decodeObject(data) }
