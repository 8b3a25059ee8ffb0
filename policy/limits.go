package policy

import (
	"encoding/json"
	"strconv"
	"strings"

	"conclave"
)

// check holds a request against the limits of the rule that decides it.
func (l *Limits) check(c *Check) (Reason, string) {
	if l.MaxWrap > 0 && (c.WrapTTL <= 0 || c.WrapTTL > l.MaxWrap) || l.MinWrap > 0 && c.WrapTTL < l.MinWrap {
		return WrapTTL, ""
	}
	switch c.Operation {
	case conclave.Read, conclave.Create, conclave.Update, conclave.Patch:
		return l.checkFields(c.Fields)
	case conclave.List, conclave.Scan:
		return l.checkPage(c.Fields)
	}
	return Granted, ""
}

func (l *Limits) checkPage(fields map[string]any) (Reason, string) {
	raw, given := fields["limit"]
	for _, name := range l.Required {
		if name == "limit" && !given {
			return Field, name
		}
	}
	if l.PageLimit == 0 || !given {
		return Granted, ""
	}
	texts := asTexts(raw)
	n, err := strconv.Atoi(strings.Join(texts, ","))
	if err != nil || n <= 0 || n > l.PageLimit {
		return PageLimit, "limit"
	}
	return Granted, ""
}

func (l *Limits) checkFields(fields map[string]any) (Reason, string) {
	for _, name := range l.Required {
		if !has(fields, name) {
			return Field, name
		}
	}
	if len(l.Denied) > 0 && len(fields) > 0 {
		if _, all := l.Denied["*"]; all {
			return Field, "*"
		}
		for name, value := range fields {
			lower := strings.ToLower(name)
			if values, listed := l.Denied[lower]; listed && anyIn(value, values) {
				return Field, lower
			}
		}
	}
	if len(l.Allowed) == 0 {
		return Granted, ""
	}
	_, others := l.Allowed["*"]
	for name, value := range fields {
		lower := strings.ToLower(name)
		values, listed := l.Allowed[lower]
		switch {
		case !listed && !others:
			return Unlisted, name
		case listed && !allIn(value, values):
			return Field, lower
		}
	}
	return Granted, ""
}

func has(fields map[string]any, lower string) bool {
	if _, ok := fields[lower]; ok {
		return true
	}
	for name := range fields {
		if strings.ToLower(name) == lower {
			return true
		}
	}
	return false
}

// anyIn reports whether value, one of its elements, or one part of a comma-separated text is among values: handlers
// take lists in all these forms, and a denial must hold for each.
func anyIn(value any, values []string) bool {
	if len(values) == 0 {
		return true
	}
	for _, text := range asTexts(value) {
		if among(text, values) {
			return true
		}
		if strings.Contains(text, ",") {
			for part := range strings.SplitSeq(text, ",") {
				if among(strings.TrimSpace(part), values) {
					return true
				}
			}
		}
	}
	return false
}

// allIn reports whether value, or each of its elements, is among values.
func allIn(value any, values []string) bool {
	if len(values) == 0 {
		return true
	}
	texts := asTexts(value)
	for _, text := range texts {
		if !among(text, values) {
			return false
		}
	}
	return len(texts) > 0
}

// among compares with each of values, which may begin or end in "*".
func among(text string, values []string) bool {
	for _, value := range values {
		tail, front := strings.CutPrefix(value, "*")
		if value == "*" {
			return true
		}
		middle, back := strings.CutSuffix(tail, "*")
		switch {
		case front && back && strings.Contains(text, middle),
			front && !back && strings.HasSuffix(text, tail),
			back && !front && strings.HasPrefix(text, middle),
			!front && !back && text == value:
			return true
		}
	}
	return false
}

// asTexts spells a field's value as policies do; a list gives one text per element, however nested.
func asTexts(value any) []string {
	switch value := value.(type) {
	case string:
		return []string{value}
	case json.Number:
		if f, err := value.Float64(); err == nil && f == float64(int64(f)) && f > -1<<53 && f < 1<<53 {
			return []string{strconv.FormatInt(int64(f), 10)}
		}
		return []string{value.String()}
	case bool:
		return []string{strconv.FormatBool(value)}
	case []any:
		var texts []string
		for _, element := range value {
			texts = append(texts, asTexts(element)...)
		}
		return texts
	case nil:
		return []string{""}
	}
	encoded, err := json.Marshal(value)
	if err != nil {
		return nil
	}
	return []string{string(encoded)}
}
