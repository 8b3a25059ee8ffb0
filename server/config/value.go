package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/hcl/ast"
	hclstrconv "github.com/hashicorp/hcl/hcl/strconv"
	"github.com/hashicorp/hcl/hcl/token"

	"conclave"
)

// spot is a place in a file.
type spot struct {
	file string
	line int
}

// value is what one setting was given, and where.
type value struct {
	*loader
	spot
	path   string   // of the setting, unique: `listener "tcp" 2.address`
	name   string   // the path's last member
	labels []string // of a block: "tcp"
	node   ast.Node
	env    *string // instead of a node: a variable of the environment
}

func (v value) fail(format string, args ...any) {
	v.failAt(v.spot, v.name+": "+fmt.Sprintf(format, args...))
}

func (v value) warn(reason string) {
	v.warnings = append(v.warnings, Warning{v.file, v.line, v.name, reason})
}

// literal is the text of a scalar.
func (v value) literal() (string, bool) {
	if v.env != nil {
		return *v.env, true
	}
	return literalText(v.node)
}

func literalText(node ast.Node) (string, bool) {
	lit, ok := node.(*ast.LiteralType)
	if !ok {
		return "", false
	}
	switch lit.Token.Type {
	case token.NUMBER, token.FLOAT, token.BOOL:
		return lit.Token.Text, true
	case token.STRING:
		return unquote(lit.Token)
	}
	return "", false
}

func unquote(tok token.Token) (text string, ok bool) {
	if tok.Text == "" {
		return "", true
	}
	var err error
	if tok.JSON {
		text, err = strconv.Unquote(tok.Text)
	} else {
		text, err = hclstrconv.Unquote(tok.Text)
	}
	return text, err == nil
}

func (v value) scalar(what string) (string, bool) {
	text, ok := v.literal()
	if !ok {
		v.fail("must be %s", what)
	}
	return text, ok
}

// A setter stores a value that was given, or complains about it.
type setter func(value)

func text(target *string) setter {
	return func(v value) {
		if s, ok := v.scalar("a string"); ok {
			*target = s
		}
	}
}

// oneOf is text of a closed set, in lower case.
func oneOf(target *string, choices ...string) setter {
	return func(v value) {
		s, ok := v.scalar("a string")
		if s = strings.ToLower(s); ok && !slices.Contains(choices, s) {
			v.fail("must be one of %s", strings.Join(choices, ", "))
			return
		}
		*target = s
	}
}

func flag(target *bool) setter {
	return func(v value) {
		s, ok := v.scalar("true or false")
		if !ok {
			return
		}
		set, err := strconv.ParseBool(s)
		if err != nil {
			v.fail("must be true or false")
			return
		}
		*target = set
	}
}

func number[N int | int64](target *N, least, most N) setter {
	return func(v value) {
		s, ok := v.scalar("a whole number")
		if !ok {
			return
		}
		n, err := strconv.ParseInt(s, 0, 64)
		if err != nil || n < int64(least) || n > int64(most) {
			v.fail("must be a whole number from %d to %d", least, most)
			return
		}
		*target = N(n)
	}
}

func duration(target *time.Duration) setter {
	return func(v value) {
		s, ok := v.scalar("a duration")
		if !ok {
			return
		}
		d, err := conclave.ParseDuration(s)
		if err != nil || d <= 0 {
			v.fail("must be a positive number of seconds or a duration such as 1h30m")
			return
		}
		*target = d
	}
}

// list takes a list of strings, or one string of several with commas between them.
func list(target *[]string) setter {
	return func(v value) {
		if items, ok := v.strings(); ok {
			*target = items
		}
	}
}

func (v value) strings() (items []string, ok bool) {
	if nodes, isList := v.node.(*ast.ListType); isList {
		for _, node := range nodes.List {
			s, ok := literalText(node)
			if !ok {
				v.fail("must be a list of strings")
				return nil, false
			}
			items = append(items, s)
		}
		return items, true
	}
	s, ok := v.scalar("a list of strings")
	if !ok {
		return nil, false
	}
	for part := range strings.SplitSeq(s, ",") {
		if part = strings.TrimSpace(part); part != "" {
			items = append(items, part)
		}
	}
	return items, true
}

// prefixes takes a list of addresses and CIDR blocks.
func prefixes(target *Prefixes) setter {
	return func(v value) {
		items, ok := v.strings()
		if !ok {
			return
		}
		*target = nil
		for _, item := range items {
			prefix, err := netip.ParsePrefix(item)
			if addr, e := netip.ParseAddr(item); e == nil {
				prefix, err = netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen()), nil
			}
			if err != nil {
				v.fail("must be a list of IP addresses and CIDR blocks")
				return
			}
			*target = append(*target, prefix.Masked())
		}
	}
}

// ignored takes a setting that Vault has and that means nothing here.
func ignored(reason string) setter { return func(v value) { v.warn(reason) } }

// refused takes a setting that Vault has, and that must not be passed over in silence.
func refused(reason string) setter { return func(v value) { v.fail("%s", reason) } }

// refusedIfTrue lets pass what asks for nothing.
func refusedIfTrue(reason string) setter {
	return func(v value) {
		var set bool
		if flag(&set)(v); set {
			v.fail("%s", reason)
		}
	}
}

// read hands the members of a block to their setters. path is the block's.
func (l *loader) read(file, path string, members *ast.ObjectList, known map[string]setter) {
	for _, item := range members.Items {
		at := spot{file, item.Pos().Line}
		var keys []string
		for _, key := range item.Keys {
			name := key.Token.Text
			if key.Token.Type == token.STRING {
				name, _ = unquote(key.Token)
			}
			keys = append(keys, name)
		}
		if len(keys) == 0 {
			l.failAt(at, "expected a setting")
			continue
		}
		v := value{loader: l, spot: at, path: path + keys[0], name: keys[0], labels: keys[1:], node: item.Val}
		set, ok := known[v.name]
		switch {
		case !ok && path == "":
			v.fail("unknown setting")
		case !ok:
			v.fail("unknown setting in %s", strings.TrimSuffix(path, "."))
		default:
			set(v)
		}
	}
}

// once lets a setting be given one time, whatever the number of files.
func once(set setter) setter {
	return func(v value) {
		if first, twice := v.seen[v.path]; twice && v.env == nil {
			v.fail("is already set at %s", strings.TrimSuffix(place(first.file, first.line), ": "))
			return
		}
		v.seen[v.path] = v.spot
		set(v)
	}
}

func allOnce(known map[string]setter) map[string]setter {
	for name, set := range known {
		known[name] = once(set)
	}
	return known
}

// block reads the members of a block that takes the given number of labels.
func (v value) block(labels int, known map[string]setter) {
	object, ok := v.node.(*ast.ObjectType)
	if !ok || len(v.labels) != labels {
		v.fail("must be a block with %d labels", labels)
		return
	}
	v.read(v.file, v.path+".", object.List, known)
}
