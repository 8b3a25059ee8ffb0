package policy

import (
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"conclave"

	"github.com/hashicorp/hcl/hcl/ast"
	hclparser "github.com/hashicorp/hcl/hcl/parser"
	"github.com/hashicorp/hcl/hcl/scanner"
	"github.com/hashicorp/hcl/hcl/token"
)

// Parse reads a policy in HCL or JSON. An error is Invalid and names the line. The name root is for the built-in
// policy only.
func Parse(name, source string) (*Policy, error) {
	name = NormalName(name)
	if err := checkName(name); err != nil {
		return nil, err
	}
	if name == Root {
		return nil, conclave.Errorf(conclave.Invalid, "the policy root can't be changed")
	}
	if len(source) > MaxSource {
		return nil, conclave.Errorf(conclave.TooLarge, "a policy has at most %d bytes", MaxSource)
	}
	if !utf8.ValidString(source) {
		return nil, conclave.Errorf(conclave.Invalid, "policy %q: not valid UTF-8", name)
	}
	p := &Policy{Name: name, Source: source}
	file, err := parseSyntax(source)
	if err == nil {
		err = p.read(file)
	}
	if err != nil {
		return nil, conclave.Errorf(conclave.Invalid, "policy %q: %s", name, err.Error())
	}
	for i := range p.Rules {
		p.templated = p.templated || strings.Contains(p.Rules[i].Pattern, templateOpen)
	}
	return p, nil
}

type syntaxError struct {
	line   int
	reason string
}

func (e syntaxError) Error() string {
	if e.line <= 0 {
		return e.reason
	}
	return "line " + strconv.Itoa(e.line) + ": " + e.reason
}

func at(node ast.Node, reason string) error { return syntaxError{node.Pos().Line, reason} }

// parseSyntax makes the syntax tree. Nesting is bounded first, since the parser recurses. The HCL parser
// panics on some malformed literals, which is an error of the text like any other.
func parseSyntax(source string) (file *ast.File, err error) {
	defer func() {
		if recover() != nil {
			file, err = nil, syntaxError{reason: "malformed text"}
		}
	}()
	if strings.HasPrefix(strings.TrimSpace(source), "{") {
		return parseJSON(source)
	}
	if err := checkNesting(source); err != nil {
		return nil, err
	}
	file, err = hclparser.Parse([]byte(source))
	if at, ok := err.(*hclparser.PosError); ok {
		return nil, syntaxError{at.Pos.Line, at.Err.Error()}
	}
	return file, err
}

func checkNesting(source string) error {
	var failure error
	s := scanner.New([]byte(source))
	s.Error = func(pos token.Pos, msg string) {
		if failure == nil {
			failure = syntaxError{pos.Line, msg}
		}
	}
	for depth := 0; ; {
		next := s.Scan()
		switch next.Type {
		case token.EOF:
			return failure
		case token.ILLEGAL:
			if failure == nil {
				failure = syntaxError{next.Pos.Line, "illegal character"}
			}
			return failure
		case token.LBRACE, token.LBRACK:
			if depth++; depth > maxNesting {
				return syntaxError{next.Pos.Line, "nested too deeply"}
			}
		case token.RBRACE, token.RBRACK:
			depth--
		}
	}
}

// read turns the tree into rules.
func (p *Policy) read(file *ast.File) (err error) {
	defer func() {
		if recover() != nil {
			err = syntaxError{reason: "malformed value"}
		}
	}()
	top, ok := file.Node.(*ast.ObjectList)
	if !ok {
		return syntaxError{reason: "must be a list of path blocks"}
	}
	for _, item := range top.Items {
		if len(item.Keys) == 0 {
			return at(item, "must be a path block")
		}
		switch key := keyText(item.Keys[0]); key {
		case "name":
		case "path":
			if err := p.readPaths(item.Keys[1:], item.Val, item); err != nil {
				return err
			}
		default:
			return at(item, "unknown key "+strconv.Quote(key)+", only path is known")
		}
	}
	return nil
}

// readPaths reads `path "pattern" {…}`. JSON may have one key path whose members are the patterns.
func (p *Policy) readPaths(keys []*ast.ObjectKey, value ast.Node, where ast.Node) error {
	body, ok := value.(*ast.ObjectType)
	if !ok {
		if list, isList := value.(*ast.ListType); isList && len(keys) == 0 {
			for _, element := range list.List {
				if err := p.readPaths(nil, element, where); err != nil {
					return err
				}
			}
			return nil
		}
		return at(where, "path must be a block")
	}
	switch len(keys) {
	case 1:
		return p.readRule(keyText(keys[0]), body, where)
	case 0:
		for _, item := range body.List.Items {
			if len(item.Keys) == 0 {
				return at(item, "path needs a pattern")
			}
			if _, isBlock := item.Val.(*ast.ObjectType); !isBlock || len(item.Keys) != 1 {
				return at(item, "path needs a pattern and a block")
			}
			if err := p.readPaths(item.Keys, item.Val, item); err != nil {
				return err
			}
		}
		return nil
	}
	return at(where, "path has one pattern")
}

func (p *Policy) readRule(pattern string, body *ast.ObjectType, where ast.Node) error {
	if len(p.Rules) >= MaxRules {
		return at(where, "too many rules, at most "+strconv.Itoa(MaxRules))
	}
	pattern = strings.TrimPrefix(pattern, "/")
	if err := checkPattern(pattern); err != nil {
		return at(where, "path "+strconv.Quote(pattern)+": "+err.Error())
	}
	rule := Rule{Pattern: pattern, Line: where.Pos().Line}
	seen := map[string]bool{}
	for _, item := range body.List.Items {
		if len(item.Keys) == 0 {
			return at(item, "a rule's members are key = value")
		}
		key := keyText(item.Keys[0])
		if len(item.Keys) == 1 && seen[key] {
			return at(item, "key "+strconv.Quote(key)+" is given twice")
		}
		seen[key] = true
		if err := rule.readMember(key, item); err != nil {
			return at(item, "path "+strconv.Quote(pattern)+": "+key+": "+err.Error())
		}
	}
	l := &rule.Limits
	if l.MinWrap > 0 && l.MaxWrap > 0 && l.MaxWrap < l.MinWrap {
		return at(where, "path "+strconv.Quote(pattern)+": max_wrapping_ttl is less than min_wrapping_ttl")
	}
	if rule.Capabilities&Deny != 0 {
		rule.Capabilities, rule.Limits = Deny, Limits{}
	}
	p.Rules = append(p.Rules, rule)
	return nil
}

type valueError string

func (e valueError) Error() string { return string(e) }

func (r *Rule) readMember(key string, item *ast.ObjectItem) (err error) {
	if len(item.Keys) > 1 && key != "allowed_parameters" && key != "denied_parameters" {
		return valueError("must not be a block")
	}
	switch key {
	case "comment":
	case "policy":
		name, err := oneText(item.Val)
		bits, known := legacyCapabilities[name]
		if err == nil && !known {
			err = valueError("must be read, write, sudo or deny")
		}
		r.Capabilities |= bits
		return err
	case "capabilities":
		names, err := texts(item.Val)
		for _, name := range names {
			bit := capabilityByName(strings.ToLower(name))
			if bit == 0 {
				return valueError("unknown capability " + strconv.Quote(name))
			}
			r.Capabilities |= bit
		}
		return err
	case "required_parameters":
		r.Limits.Required, err = texts(item.Val)
		for i, name := range r.Limits.Required {
			r.Limits.Required[i] = strings.ToLower(name)
		}
	case "allowed_parameters":
		r.Limits.Allowed, err = parameters(r.Limits.Allowed, item)
	case "denied_parameters":
		r.Limits.Denied, err = parameters(r.Limits.Denied, item)
	case "min_wrapping_ttl":
		r.Limits.MinWrap, err = duration(item.Val)
	case "max_wrapping_ttl":
		r.Limits.MaxWrap, err = duration(item.Val)
	case "pagination_limit":
		text, textErr := oneText(item.Val)
		n, parseErr := strconv.Atoi(text)
		if textErr != nil || parseErr != nil || n < 0 {
			return valueError("must be a whole number, zero or more")
		}
		r.Limits.PageLimit = n
	case "subscribe_event_types":
		r.Limits.Events, err = texts(item.Val)
		for _, text := range r.Limits.Events {
			if len(text) > conclave.MaxEventType || strings.Count(text, "*") > maxEventStars {
				return valueError("a type of events has at most " + strconv.Itoa(conclave.MaxEventType) + " bytes and " + strconv.Itoa(maxEventStars) + " stars")
			}
		}
	default:
		return valueError("unknown key")
	}
	return err
}

// parameters reads `{ "field" = ["value", …] }`, or one block per field.
func parameters(into map[string][]string, item *ast.ObjectItem) (map[string][]string, error) {
	if into == nil {
		into = map[string][]string{}
	}
	if len(item.Keys) == 2 {
		return into, parameter(into, keyText(item.Keys[1]), item.Val)
	}
	body, ok := item.Val.(*ast.ObjectType)
	if !ok || len(item.Keys) != 1 {
		return nil, valueError("must map fields to lists of values")
	}
	for _, member := range body.List.Items {
		if len(member.Keys) != 1 {
			return nil, valueError("must map fields to lists of values")
		}
		if err := parameter(into, keyText(member.Keys[0]), member.Val); err != nil {
			return nil, err
		}
	}
	return into, nil
}

func parameter(into map[string][]string, field string, value ast.Node) error {
	values, err := texts(value)
	field = strings.ToLower(field)
	if _, twice := into[field]; twice && err == nil {
		return valueError("field " + strconv.Quote(field) + " is given twice")
	}
	if values == nil {
		values = []string{}
	}
	into[field] = values
	return err
}

// keyText is the text of a key, quoted or not.
func keyText(key *ast.ObjectKey) string {
	text, _ := key.Token.Value().(string)
	return text
}

func oneText(node ast.Node) (string, error) {
	literal, ok := node.(*ast.LiteralType)
	if !ok {
		return "", valueError("must be a single value")
	}
	switch value := literal.Token.Value().(type) {
	case string:
		return value, nil
	case bool:
		return strconv.FormatBool(value), nil
	case int64:
		return strconv.FormatInt(value, 10), nil
	case float64:
		return strconv.FormatFloat(value, 'g', -1, 64), nil
	}
	return "", valueError("must be text, a number or a boolean")
}

// texts reads a list of values, or one value as a list of one.
func texts(node ast.Node) ([]string, error) {
	list, ok := node.(*ast.ListType)
	if !ok {
		text, err := oneText(node)
		return []string{text}, err
	}
	var values []string
	for _, element := range list.List {
		text, err := oneText(element)
		if err != nil {
			return nil, err
		}
		values = append(values, text)
	}
	return values, nil
}

func duration(node ast.Node) (time.Duration, error) {
	text, err := oneText(node)
	if err != nil {
		return 0, err
	}
	d, err := conclave.ParseDuration(text)
	if err == nil && d < 0 {
		err = valueError("must not be negative")
	}
	return d, err
}
