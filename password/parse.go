package password

import (
	"encoding/json"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/hcl/hcl/ast"
	hclparser "github.com/hashicorp/hcl/hcl/parser"
	"github.com/hashicorp/hcl/hcl/scanner"
	"github.com/hashicorp/hcl/hcl/token"
	jsonparser "github.com/hashicorp/hcl/json/parser"
)

// maxNesting bounds how deep braces and brackets of a text stand in each other: parsers recurse.
const maxNesting = 8

const lengthWanted = "length must be from 4 to 100 characters"

// SyntaxError says what is wrong with a policy's text, and in which line, 0 if none in particular.
type SyntaxError struct {
	Line   int
	Reason string
}

// Error names the line.
func (e *SyntaxError) Error() string {
	if e.Line <= 0 {
		return e.Reason
	}
	return "line " + strconv.Itoa(e.Line) + ": " + e.Reason
}

func at(node ast.Node, reason string) error { return &SyntaxError{node.Pos().Line, reason} }

// Parse reads a policy in Vault's form, HCL or JSON:
//
//	length = 20
//	rule "charset" {
//	  charset   = "abcdefghijklmnopqrstuvwxyz"
//	  min-chars = 1
//	}
//
// The error is a *SyntaxError. That the rules can be met is for [Policy.Try] to say.
func Parse(text string) (*Policy, error) {
	if len(text) > MaxSource {
		return nil, &SyntaxError{Reason: "a password policy has at most " + strconv.Itoa(MaxSource) + " bytes"}
	}
	if !utf8.ValidString(text) {
		return nil, &SyntaxError{Reason: "not valid UTF-8"}
	}
	file, err := parseSyntax(text)
	if err != nil {
		return nil, err
	}
	return read(file)
}

// parseSyntax makes the syntax tree. HCL's parsers panic on some malformed texts.
func parseSyntax(text string) (file *ast.File, err error) {
	defer func() {
		if recover() != nil {
			file, err = nil, &SyntaxError{Reason: "malformed text"}
		}
	}()
	isJSON := strings.HasPrefix(strings.TrimSpace(text), "{")
	if isJSON {
		err = checkJSON(text)
	} else {
		err = checkNesting(text)
	}
	if err != nil {
		return nil, err
	}
	if isJSON {
		file, err = jsonparser.Parse([]byte(text))
	} else {
		file, err = hclparser.ParseDontErrorOnDuplicateKeys([]byte(text)) // which read finds, with the line
	}
	if at, ok := err.(*hclparser.PosError); ok {
		return nil, &SyntaxError{at.Pos.Line, at.Err.Error()}
	}
	if err != nil {
		return nil, &SyntaxError{Reason: "malformed text"}
	}
	return file, nil
}

// checkJSON wants one object that isn't nested deeply, before a parser that recurses sees it.
func checkJSON(text string) error {
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	line := func() int { return 1 + strings.Count(text[:min(int(decoder.InputOffset()), len(text))], "\n") }
	for depth := 0; ; {
		next, err := decoder.Token()
		if err != nil {
			return &SyntaxError{line(), "not valid JSON"}
		}
		switch next {
		case json.Delim('{'), json.Delim('['):
			if depth++; depth > maxNesting {
				return &SyntaxError{line(), "nested too deeply"}
			}
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth == 0 {
			break
		}
	}
	if strings.TrimSpace(text[decoder.InputOffset():]) != "" {
		return &SyntaxError{line(), "text after the end of the JSON object"}
	}
	return nil
}

func checkNesting(text string) error {
	var failure error
	s := scanner.New([]byte(text))
	s.Error = func(pos token.Pos, reason string) {
		if failure == nil {
			failure = &SyntaxError{pos.Line, reason}
		}
	}
	for depth := 0; ; {
		next := s.Scan()
		switch next.Type {
		case token.EOF:
			return failure
		case token.ILLEGAL:
			if failure == nil {
				failure = &SyntaxError{next.Pos.Line, "illegal character"}
			}
			return failure
		case token.LBRACE, token.LBRACK:
			if depth++; depth > maxNesting {
				return &SyntaxError{next.Pos.Line, "nested too deeply"}
			}
		case token.RBRACE, token.RBRACK:
			depth--
		}
	}
}

// read turns the tree into a policy.
func read(file *ast.File) (p *Policy, err error) {
	defer func() {
		if recover() != nil {
			p, err = nil, &SyntaxError{Reason: "malformed value"}
		}
	}()
	top, ok := file.Node.(*ast.ObjectList)
	if !ok {
		return nil, &SyntaxError{Reason: "a password policy has a length and rules"}
	}
	p = &Policy{}
	for _, item := range top.Items {
		switch keyAt(item, 0) {
		case "length":
			if p.length != 0 {
				return nil, at(item, "length is given twice")
			}
			if p.length, err = number(item); err != nil || len(item.Keys) != 1 {
				return nil, at(item, "length must be a whole number")
			}
			if p.length < MinLength || p.length > MaxLength {
				return nil, at(item, lengthWanted)
			}
		case "rule":
			if err := p.readRules(item.Keys[1:], item.Val, item); err != nil {
				return nil, err
			}
		default:
			return nil, at(item, "unknown key "+strconv.Quote(keyAt(item, 0))+": a password policy has length and rule")
		}
	}
	if p.length == 0 {
		return nil, &SyntaxError{Reason: "there is no length"}
	}
	if len(p.rules) == 0 {
		return nil, &SyntaxError{Reason: "there is no rule with a charset"}
	}
	if p.join(); len(p.alphabet) > MaxCharacters {
		return nil, &SyntaxError{Reason: "the rules name more than " + strconv.Itoa(MaxCharacters) + " different characters"}
	}
	for _, r := range p.rules {
		if r.atLeast > p.length {
			return nil, &SyntaxError{Reason: "a rule wants more characters than a password has"}
		}
	}
	return p, nil
}

// readRules reads `rule "charset" {…}`; JSON may have the kinds as members of an object, or a list of such objects.
func (p *Policy) readRules(keys []*ast.ObjectKey, value ast.Node, where ast.Node) error {
	switch value := value.(type) {
	case *ast.ListType:
		for _, element := range value.List {
			if err := p.readRules(keys, element, where); err != nil {
				return err
			}
		}
		return nil
	case *ast.ObjectType:
		switch len(keys) {
		case 0:
			for _, item := range value.List.Items {
				if err := p.readRules(item.Keys, item.Val, item); err != nil {
					return err
				}
			}
			return nil
		case 1:
			if kind := keyText(keys[0]); kind != "charset" {
				return at(where, "unknown kind of rule "+strconv.Quote(kind)+", only charset is known")
			}
			return p.readCharset(value, where)
		}
	}
	return at(where, `a rule is a block: rule "charset" { … }`)
}

func (p *Policy) readCharset(body *ast.ObjectType, where ast.Node) error {
	if len(p.rules) == MaxRules {
		return at(where, "too many rules, at most "+strconv.Itoa(MaxRules))
	}
	var set []rune
	least, hasLeast := 0, false
	for _, item := range body.List.Items {
		if len(item.Keys) != 1 {
			return at(item, "a rule's members are charset and min-chars")
		}
		switch key := keyAt(item, 0); key {
		case "charset":
			if set != nil {
				return at(item, "charset is given twice")
			}
			text, err := characters(item)
			if err != nil {
				return err
			}
			set = text
		case "min-chars":
			n, err := number(item)
			if err != nil || n < 0 || n > MaxLength {
				return at(item, "min-chars must be a whole number from 0 to 100")
			}
			if hasLeast {
				return at(item, "min-chars is given twice")
			}
			least, hasLeast = n, true
		default:
			return at(item, "unknown key "+strconv.Quote(key)+": a rule has charset and min-chars")
		}
	}
	if set == nil {
		return at(where, "the rule has no charset")
	}
	p.rules = append(p.rules, newRule(set, least))
	return nil
}

func characters(item *ast.ObjectItem) ([]rune, error) {
	literal, ok := item.Val.(*ast.LiteralType)
	if !ok || literal.Token.Type != token.STRING && literal.Token.Type != token.HEREDOC {
		return nil, at(item, "charset must be text")
	}
	text, _ := literal.Token.Value().(string)
	if literal.Token.Type == token.HEREDOC {
		text = strings.TrimSuffix(text, "\n")
	}
	if text == "" {
		return nil, at(item, "charset is empty")
	}
	for _, character := range text {
		if character == utf8.RuneError || !unicode.IsPrint(character) {
			return nil, at(item, "charset has a character that can't be printed")
		}
	}
	return []rune(text), nil
}

func number(item *ast.ObjectItem) (int, error) {
	literal, ok := item.Val.(*ast.LiteralType)
	if !ok || literal.Token.Type != token.NUMBER && literal.Token.Type != token.STRING {
		return 0, strconv.ErrSyntax
	}
	switch value := literal.Token.Value().(type) {
	case int64:
		if value != int64(int(value)) {
			return 0, strconv.ErrRange
		}
		return int(value), nil
	case string:
		return strconv.Atoi(value)
	}
	return 0, strconv.ErrSyntax
}

func keyAt(item *ast.ObjectItem, i int) string {
	if i >= len(item.Keys) {
		return ""
	}
	return keyText(item.Keys[i])
}

// keyText is the text of a key, quoted or not.
func keyText(key *ast.ObjectKey) string {
	text, _ := key.Token.Value().(string)
	return text
}
