// Package jsonbody reads the JSON bodies of requests, within limits and so narrowly that no two readers of one body
// see different things. It keeps nothing and knows no field.
package jsonbody

import (
	"encoding/json"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"conclave"
)

// What one body may hold. A body beyond one of these is refused whole.
const (
	MaxDepth   = 64       // objects and lists inside each other
	MaxMembers = 100_000  // members of objects and elements of lists, all together
	MaxString  = 16 << 20 // bytes of one string
	MaxKey     = 64 << 10 // bytes of one member's name
	MaxNumber  = 256      // characters of one number

	// MemberCost is what a decoded member is taken to occupy beside its text, in bytes.
	MemberCost = 256
)

// Decode reads a JSON body (RFC 8259) in one pass: an object, or null for no fields. It is narrower than
// encoding/json, whose results it shares: a name given twice, a string that isn't Unicode, a lone surrogate, anything
// after the value and whatever exceeds a limit is refused, so that no two readers of one body see different things.
// Memory is proportional to the input plus MemberCost for each of the returned number of members.
func Decode(body []byte) (fields map[string]any, members int, err error) {
	d := decoder{in: body}
	d.space()
	var value any
	if value, err = d.value(); err != nil {
		return nil, d.members, err
	}
	d.space()
	if d.at != len(d.in) {
		return nil, d.members, d.fail("unexpected text after the value")
	}
	if value == nil {
		return nil, d.members, nil
	}
	fields, isObject := value.(map[string]any)
	if !isObject {
		return nil, d.members, conclave.Errorf(conclave.Invalid, "body: must be a JSON object")
	}
	return fields, d.members, nil
}

type decoder struct {
	in      []byte
	at      int
	depth   int
	members int
}

func (d *decoder) fail(reason string) error {
	return conclave.Errorf(conclave.Invalid, "body: %s at byte %d", reason, d.at)
}

// peek is the next byte, 0 at the end: no JSON token begins with 0.
func (d *decoder) peek() byte {
	if d.at < len(d.in) {
		return d.in[d.at]
	}
	return 0
}

func (d *decoder) space() {
	for d.at < len(d.in) {
		switch d.in[d.at] {
		case ' ', '\t', '\n', '\r':
			d.at++
		default:
			return
		}
	}
}

func (d *decoder) value() (any, error) {
	switch c := d.peek(); {
	case c == '{':
		return d.object()
	case c == '[':
		return d.list()
	case c == '"':
		return d.text(MaxString)
	case c == '-' || c >= '0' && c <= '9':
		return d.number()
	case c == 't':
		return true, d.word("true")
	case c == 'f':
		return false, d.word("false")
	case c == 'n':
		return nil, d.word("null")
	}
	return nil, d.fail("not a JSON value")
}

func (d *decoder) word(word string) error {
	if len(d.in)-d.at < len(word) || string(d.in[d.at:d.at+len(word)]) != word {
		return d.fail("not a JSON value")
	}
	d.at += len(word)
	return nil
}

// enter steps over an opening bracket, and over the closing one if nothing is between them.
func (d *decoder) enter(closing byte) (empty bool, err error) {
	if d.depth == MaxDepth {
		return false, d.fail("nested more than " + strconv.Itoa(MaxDepth) + " deep")
	}
	d.at++
	d.space()
	if d.peek() == closing {
		d.at++
		return true, nil
	}
	d.depth++
	return false, nil
}

// next steps over what follows a member: a comma, or the closing bracket.
func (d *decoder) next(closing byte) (done bool, err error) {
	d.space()
	switch d.peek() {
	case closing:
		d.at++
		d.depth--
		return true, nil
	case ',':
		d.at++
		d.space()
		return false, nil
	}
	return false, d.fail("expected , or " + string(rune(closing)))
}

func (d *decoder) count() error {
	if d.members++; d.members > MaxMembers {
		return d.fail("more than " + strconv.Itoa(MaxMembers) + " members")
	}
	return nil
}

func (d *decoder) object() (map[string]any, error) {
	object := map[string]any{}
	empty, err := d.enter('}')
	if empty || err != nil {
		return object, err
	}
	for done := false; !done; {
		if err := d.count(); err != nil {
			return nil, err
		}
		if d.peek() != '"' {
			return nil, d.fail("expected a name in quotes")
		}
		name, err := d.text(MaxKey)
		if err != nil {
			return nil, err
		}
		d.space()
		if d.peek() != ':' {
			return nil, d.fail("expected :")
		}
		d.at++
		d.space()
		if _, twice := object[name]; twice {
			return nil, d.fail("a name is given twice")
		}
		if object[name], err = d.value(); err != nil {
			return nil, err
		}
		if done, err = d.next('}'); err != nil {
			return nil, err
		}
	}
	return object, nil
}

func (d *decoder) list() ([]any, error) {
	list := []any{}
	empty, err := d.enter(']')
	if empty || err != nil {
		return list, err
	}
	for done := false; !done; {
		if err := d.count(); err != nil {
			return nil, err
		}
		value, err := d.value()
		if err != nil {
			return nil, err
		}
		list = append(list, value)
		if done, err = d.next(']'); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func (d *decoder) digits() int {
	start := d.at
	for c := d.peek(); c >= '0' && c <= '9'; c = d.peek() {
		d.at++
	}
	return d.at - start
}

func (d *decoder) number() (json.Number, error) {
	start := d.at
	if d.peek() == '-' {
		d.at++
	}
	if d.peek() == '0' {
		d.at++
	} else if d.digits() == 0 {
		return "", d.fail("not a number")
	}
	if d.peek() == '.' {
		d.at++
		if d.digits() == 0 {
			return "", d.fail("not a number")
		}
	}
	if c := d.peek(); c == 'e' || c == 'E' {
		d.at++
		if c := d.peek(); c == '+' || c == '-' {
			d.at++
		}
		if d.digits() == 0 {
			return "", d.fail("not a number")
		}
	}
	if d.at-start > MaxNumber {
		return "", d.fail("number of more than " + strconv.Itoa(MaxNumber) + " characters")
	}
	return json.Number(d.in[start:d.at]), nil
}

// text reads a string of at most limit bytes, the quotes not counted.
func (d *decoder) text(limit int) (string, error) {
	d.at++
	start := d.at
	for d.at < len(d.in) {
		switch c := d.in[d.at]; {
		case c == '"':
			raw := d.in[start:d.at]
			d.at++
			if len(raw) > limit {
				return "", d.fail("string of more than " + strconv.Itoa(limit) + " bytes")
			}
			if !utf8.Valid(raw) {
				return "", d.fail("string that is not UTF-8")
			}
			return string(raw), nil
		case c == '\\':
			return d.escaped(start, limit)
		case c < ' ':
			return "", d.fail("control character in a string")
		}
		d.at++
	}
	return "", d.fail("string without an end")
}

// escaped reads on after the first backslash of a string that began at start.
func (d *decoder) escaped(start, limit int) (string, error) {
	text := append(make([]byte, 0, d.at-start+32), d.in[start:d.at]...)
	for d.at < len(d.in) {
		switch c := d.in[d.at]; {
		case c == '"':
			d.at++
			if len(text) > limit {
				return "", d.fail("string of more than " + strconv.Itoa(limit) + " bytes")
			}
			if !utf8.Valid(text) {
				return "", d.fail("string that is not UTF-8")
			}
			return string(text), nil
		case c == '\\':
			var err error
			if text, err = d.escape(text); err != nil {
				return "", err
			}
		case c < ' ':
			return "", d.fail("control character in a string")
		default:
			text = append(text, c)
			d.at++
		}
	}
	return "", d.fail("string without an end")
}

// escape appends what the escape sequence at the backslash stands for.
func (d *decoder) escape(text []byte) ([]byte, error) {
	d.at++
	c := d.peek()
	d.at++
	switch c {
	case '"', '\\', '/':
		return append(text, c), nil
	case 'b':
		return append(text, '\b'), nil
	case 'f':
		return append(text, '\f'), nil
	case 'n':
		return append(text, '\n'), nil
	case 'r':
		return append(text, '\r'), nil
	case 't':
		return append(text, '\t'), nil
	case 'u':
		unit, ok := d.hex4()
		if ok && utf16.IsSurrogate(unit) {
			if ok = d.peek() == '\\'; ok {
				d.at++
				ok = d.peek() == 'u'
				d.at++
			}
			if ok {
				var low rune
				low, ok = d.hex4()
				unit = utf16.DecodeRune(unit, low)
				ok = ok && unit != utf8.RuneError
			}
		}
		if ok {
			return utf8.AppendRune(text, unit), nil
		}
	}
	return nil, d.fail("bad escape in a string")
}

func (d *decoder) hex4() (rune, bool) {
	if len(d.in)-d.at < 4 {
		return 0, false
	}
	var unit rune
	for _, c := range d.in[d.at : d.at+4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		unit = unit<<4 | rune(c)
	}
	d.at += 4
	return unit, true
}
