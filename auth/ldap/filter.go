package ldap

import (
	"bytes"
	"strings"
	"text/template"
	"text/template/parse"

	ber "github.com/go-asn1-ber/asn1-ber"
	ldapv3 "github.com/go-ldap/ldap/v3"

	"conclave"
)

// maxFilter bounds a filter with names in it, in bytes: 16 times a longest name with each byte escaped to three.
const maxFilter = 16 << 10

// names are what a template may put into a filter. They are escaped (RFC 4515, 3): whatever they are, they are values.
type names struct {
	UserAttr, Username, UserDN string
}

// calls are the functions that a filter's template may call: enough to choose, too little to compute without end.
var calls = map[string]bool{"and": true, "or": true, "not": true, "eq": true, "ne": true}

// filterOf puts names into a filter's template.
func filterOf(text string, with names) (string, error) {
	made, err := template.New("filter").Option("missingkey=error").Parse(text)
	if err != nil || made.Tree == nil || !isPlain(made.Root) || len(made.Templates()) > 1 {
		return "", conclave.Errorf(conclave.Invalid, "a filter is a template that holds .UserAttr, .Username, .UserDN and conditions at most")
	}
	with = names{ldapv3.EscapeFilter(with.UserAttr), ldapv3.EscapeFilter(with.Username), ldapv3.EscapeFilter(with.UserDN)}
	var filter bytes.Buffer
	if err := made.Execute(&filter, with); err != nil || filter.Len() > maxFilter {
		return "", conclave.Errorf(conclave.Invalid, "a filter's template can't be filled in")
	}
	return strings.TrimSpace(filter.String()), nil
}

// isPlain reports whether a template ends for sure: it has no loops and no templates in it.
func isPlain(node parse.Node) bool {
	switch node := node.(type) {
	case *parse.ListNode:
		if node == nil {
			return true
		}
		for _, child := range node.Nodes {
			if !isPlain(child) {
				return false
			}
		}
		return true
	case *parse.ActionNode:
		return len(node.Pipe.Decl) == 0 && isPlain(node.Pipe)
	case *parse.IfNode:
		return len(node.Pipe.Decl) == 0 && isPlain(node.Pipe) && isPlain(node.List) && isPlain(node.ElseList)
	case *parse.PipeNode:
		for _, command := range node.Cmds {
			for _, arg := range command.Args {
				if !isPlain(arg) {
					return false
				}
			}
		}
		return true
	case *parse.IdentifierNode:
		return calls[node.Ident]
	case *parse.TextNode, *parse.FieldNode, *parse.StringNode, *parse.BoolNode, *parse.CommentNode:
		return true
	}
	return false
}

// comparison is an attribute that a filter wants to be equal to a value.
type comparison struct{ attribute, value string }

// comparisons are those of a filter that must or may hold for an entry to be found, and whose value holds name.
func comparisons(filter, name string) ([]comparison, error) {
	compiled, err := ldapv3.CompileFilter(filter)
	if err != nil {
		return nil, conclave.Errorf(conclave.Invalid, "a filter isn't an LDAP filter")
	}
	var found []comparison
	collect(compiled, name, &found)
	return found, nil
}

func collect(filter *ber.Packet, name string, found *[]comparison) {
	switch filter.Tag {
	case ldapv3.FilterAnd, ldapv3.FilterOr:
		for _, child := range filter.Children {
			collect(child, name, found)
		}
	case ldapv3.FilterEqualityMatch:
		if len(filter.Children) != 2 {
			return
		}
		c := comparison{filter.Children[0].Data.String(), filter.Children[1].Data.String()}
		if strings.Contains(c.value, name) {
			*found = append(*found, c)
		}
	}
}

// checkFilters tries both filters with a name that would break out of one.
func (c *config) checkFilters() error {
	const probe = `x)(cn=*`
	filter, err := filterOf(c.UserFilter, names{UserAttr: c.UserAttr, Username: probe})
	if err != nil {
		return err
	}
	compared, err := comparisons(filter, probe)
	if err != nil {
		return err
	}
	if len(compared) == 0 {
		return conclave.Errorf(conclave.Invalid, "userfilter must compare an attribute with {{.Username}}")
	}
	if c.GroupFilter == "" {
		return nil
	}
	if filter, err = filterOf(c.GroupFilter, names{Username: probe, UserDN: "cn=" + probe}); err != nil {
		return err
	}
	_, err = comparisons(filter, probe)
	return err
}
