package policy

import (
	"encoding/json"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/hcl/ast"
	"github.com/hashicorp/hcl/hcl/token"
)

// jsonReader turns JSON into the syntax tree of the same policy in HCL. HCL's own JSON parser isn't used: it drops
// booleans from lists, which turns "only true is allowed" into "everything is allowed".
type jsonReader struct {
	source  string
	decoder *json.Decoder
	line    int
	counted int // bytes of source whose newlines are in line
}

func parseJSON(source string) (*ast.File, error) {
	r := &jsonReader{source: source, decoder: json.NewDecoder(strings.NewReader(source)), line: 1}
	r.decoder.UseNumber()
	node, err := r.value(0)
	if err != nil {
		return nil, err
	}
	top, ok := node.(*ast.ObjectType)
	if !ok {
		return nil, syntaxError{r.line, "must be a JSON object"}
	}
	if strings.TrimSpace(source[r.decoder.InputOffset():]) != "" {
		return nil, syntaxError{r.line, "text after the end of the JSON object"}
	}
	return &ast.File{Node: top.List}, nil
}

func (r *jsonReader) next() (json.Token, token.Pos, error) {
	next, err := r.decoder.Token()
	offset := min(int(r.decoder.InputOffset()), len(r.source))
	r.line += strings.Count(r.source[r.counted:offset], "\n")
	r.counted = offset
	if err != nil {
		// What is wrong stands after the blanks that follow the last good token.
		blank := len(r.source[offset:]) - len(strings.TrimLeft(r.source[offset:], " \t\r\n,:"))
		r.line += strings.Count(r.source[offset:offset+blank], "\n")
		return nil, token.Pos{}, syntaxError{r.line, "not valid JSON"}
	}
	return next, token.Pos{Line: r.line}, nil
}

func (r *jsonReader) value(depth int) (ast.Node, error) {
	next, pos, err := r.next()
	if err != nil {
		return nil, err
	}
	if depth > maxNesting {
		return nil, syntaxError{pos.Line, "nested too deeply"}
	}
	literal := func(kind token.Type, text string) (ast.Node, error) {
		return &ast.LiteralType{Token: token.Token{Type: kind, Pos: pos, Text: text, JSON: true}}, nil
	}
	switch next := next.(type) {
	case json.Delim:
		if next == '{' {
			return r.object(pos, depth)
		}
		return r.list(pos, depth)
	case string:
		return literal(token.STRING, quoteJSON(next))
	case json.Number:
		if _, err := strconv.ParseInt(next.String(), 10, 64); err == nil {
			return literal(token.NUMBER, next.String())
		}
		return literal(token.FLOAT, next.String())
	case bool:
		return literal(token.BOOL, strconv.FormatBool(next))
	}
	return nil, syntaxError{pos.Line, "null is not a value"}
}

func (r *jsonReader) object(pos token.Pos, depth int) (ast.Node, error) {
	object := &ast.ObjectType{Lbrace: pos, List: &ast.ObjectList{}}
	for r.decoder.More() {
		next, pos, err := r.next()
		if err != nil {
			return nil, err
		}
		name, _ := next.(string)
		value, err := r.value(depth + 1)
		if err != nil {
			return nil, err
		}
		key := &ast.ObjectKey{Token: token.Token{Type: token.STRING, Pos: pos, Text: quoteJSON(name), JSON: true}}
		object.List.Add(&ast.ObjectItem{Keys: []*ast.ObjectKey{key}, Val: value})
	}
	_, _, err := r.next()
	return object, err
}

func (r *jsonReader) list(pos token.Pos, depth int) (ast.Node, error) {
	list := &ast.ListType{Lbrack: pos}
	for r.decoder.More() {
		value, err := r.value(depth + 1)
		if err != nil {
			return nil, err
		}
		list.Add(value)
	}
	_, _, err := r.next()
	return list, err
}

func quoteJSON(text string) string {
	quoted, _ := json.Marshal(text) // a string can always be marshalled
	return string(quoted)
}
