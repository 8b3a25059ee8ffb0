package conclave

import (
	"encoding/json"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"
)

// field is how one member of an input struct is bound.
type field struct {
	index    []int
	name     string
	fromPath bool
}

// plans caches the fields of each input type: reflect.Type → []field.
var plans sync.Map

func planFor(t reflect.Type) []field {
	if plan, ok := plans.Load(t); ok {
		return plan.([]field)
	}
	var plan []field
	for _, f := range reflect.VisibleFields(t) {
		if f.Anonymous || !f.IsExported() {
			continue
		}
		if name, ok := f.Tag.Lookup("path"); ok {
			plan = append(plan, field{f.Index, name, true})
			continue
		}
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" && name != "-" {
			plan = append(plan, field{f.Index, name, false})
		}
	}
	plans.Store(t, plan)
	return plan
}

// bind fills the struct that in points to. A member tagged `path:"name"` takes the path parameter of that name, one
// tagged `json:"name"` the field. Fields are converted as Vault's clients rely on: numbers and booleans may be strings,
// durations are seconds or "1h30m", lists may be comma-separated strings, and a list of "key=value" is a map. What is
// not given keeps its zero value; a pointer tells absence from zero. A member `Fields map[string]any` tagged
// `json:"*"` takes all fields.
func bind(in any, params map[string]string, fields map[string]any) error {
	v := reflect.ValueOf(in).Elem()
	for _, f := range planFor(v.Type()) {
		target := v.FieldByIndex(f.index)
		switch {
		case f.fromPath:
			target.SetString(params[f.name])
		case f.name == "*":
			target.Set(reflect.ValueOf(fields))
		default:
			raw, given := fields[f.name]
			if !given || raw == nil && target.Kind() != reflect.Pointer && target.Kind() != reflect.Interface {
				continue
			}
			if err := assign(target, raw); err != nil {
				return Errorf(Invalid, "field %q: %s", f.name, err.Error())
			}
		}
	}
	return nil
}

// Merge overwrites the members of a stored struct that fields name, and keeps the others: what writing a role does. into
// points to a struct with `json` tags; fields are converted as those of requests are.
func Merge(into any, fields map[string]any) error { return bind(into, nil, fields) }

type bindError string

func (e bindError) Error() string { return string(e) }

var (
	durationType = reflect.TypeFor[time.Duration]()
	secondsType  = reflect.TypeFor[Seconds]()
	secretType   = reflect.TypeFor[Secret]()
	rawType      = reflect.TypeFor[json.RawMessage]()
)

func assign(target reflect.Value, raw any) error {
	switch target.Type() {
	case durationType:
		d, err := asDuration(raw)
		target.SetInt(int64(d))
		return err
	case secondsType:
		d, err := asDuration(raw)
		target.SetInt(int64(InSeconds(d)))
		return err
	case secretType:
		s, err := asString(raw)
		target.Set(reflect.ValueOf(NewSecret(s)))
		return err
	case rawType:
		b, err := json.Marshal(raw)
		target.SetBytes(b)
		return err
	}
	switch target.Kind() {
	case reflect.Pointer:
		if raw == nil {
			return nil
		}
		target.Set(reflect.New(target.Type().Elem()))
		return assign(target.Elem(), raw)
	case reflect.String:
		s, err := asString(raw)
		target.SetString(s)
		return err
	case reflect.Bool:
		b, err := asBool(raw)
		target.SetBool(b)
		return err
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n, err := asInt(raw)
		if err == nil && target.OverflowInt(n) {
			return bindError("number out of range")
		}
		target.SetInt(n)
		return err
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		n, err := asInt(raw)
		if err == nil && (n < 0 || target.OverflowUint(uint64(n))) {
			return bindError("number out of range")
		}
		target.SetUint(uint64(n))
		return err
	case reflect.Float32, reflect.Float64:
		f, err := asFloat(raw)
		if err == nil && target.OverflowFloat(f) {
			return bindError("number out of range")
		}
		target.SetFloat(f)
		return err
	case reflect.Interface:
		if raw != nil {
			target.Set(reflect.ValueOf(raw))
		}
		return nil
	case reflect.Slice:
		return assignSlice(target, raw)
	case reflect.Map:
		return assignMap(target, raw)
	case reflect.Struct:
		members, ok := raw.(map[string]any)
		if !ok {
			return bindError("must be an object")
		}
		return bind(target.Addr().Interface(), nil, members)
	}
	return bindError("has a type that can't be given")
}

func assignSlice(target reflect.Value, raw any) error {
	var items []any
	switch raw := raw.(type) {
	case []any:
		items = raw
	case string:
		if kind := target.Type().Elem().Kind(); kind == reflect.Struct || kind == reflect.Map || kind == reflect.Uint8 {
			return bindError("must be a list")
		}
		for part := range strings.SplitSeq(raw, ",") {
			if part = strings.TrimSpace(part); part != "" {
				items = append(items, part)
			}
		}
	default:
		if target.Type().Elem().Kind() == reflect.Struct {
			return bindError("must be a list")
		}
		items = []any{raw}
	}
	list := reflect.MakeSlice(target.Type(), len(items), len(items))
	for i, item := range items {
		if err := assign(list.Index(i), item); err != nil {
			return err
		}
	}
	target.Set(list)
	return nil
}

func assignMap(target reflect.Value, raw any) error {
	members, err := asMap(raw)
	if err != nil {
		return err
	}
	m := reflect.MakeMapWithSize(target.Type(), len(members))
	for key, item := range members {
		value := reflect.New(target.Type().Elem()).Elem()
		if err := assign(value, item); err != nil {
			return err
		}
		m.SetMapIndex(reflect.ValueOf(key).Convert(target.Type().Key()), value)
	}
	target.Set(m)
	return nil
}

func asMap(raw any) (map[string]any, error) {
	switch raw := raw.(type) {
	case map[string]any:
		return raw, nil
	case string:
		if raw == "" {
			return nil, nil
		}
		return asMap(splitList(raw))
	case []any:
		m := make(map[string]any, len(raw))
		for _, item := range raw {
			pair, _ := item.(string)
			key, value, ok := strings.Cut(pair, "=")
			if !ok {
				return nil, bindError("must be an object or a list of key=value")
			}
			m[strings.TrimSpace(key)] = strings.TrimSpace(value)
		}
		return m, nil
	}
	return nil, bindError("must be an object")
}

func splitList(s string) []any {
	var items []any
	for part := range strings.SplitSeq(s, ",") {
		items = append(items, part)
	}
	return items
}

func asString(raw any) (string, error) {
	switch raw := raw.(type) {
	case string:
		return raw, nil
	case json.Number:
		return raw.String(), nil
	case bool:
		return strconv.FormatBool(raw), nil
	}
	return "", bindError("must be a string")
}

func asBool(raw any) (bool, error) {
	switch raw := raw.(type) {
	case bool:
		return raw, nil
	case string:
		if raw == "" {
			return false, nil
		}
		if b, err := strconv.ParseBool(raw); err == nil {
			return b, nil
		}
	case json.Number:
		if raw == "0" || raw == "1" {
			return raw == "1", nil
		}
	}
	return false, bindError("must be true or false")
}

func asInt(raw any) (int64, error) {
	var text string
	switch raw := raw.(type) {
	case json.Number:
		text = raw.String()
	case string:
		if text = strings.TrimSpace(raw); text == "" {
			return 0, nil
		}
	default:
		return 0, bindError("must be a whole number")
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return n, nil
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || f != float64(int64(f)) || f > 1<<53 || f < -1<<53 {
		return 0, bindError("must be a whole number")
	}
	return int64(f), nil
}

func asFloat(raw any) (float64, error) {
	var text string
	switch raw := raw.(type) {
	case json.Number:
		text = raw.String()
	case string:
		if text = strings.TrimSpace(raw); text == "" {
			return 0, nil
		}
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || f-f != 0 { // infinities and NaN
		return 0, bindError("must be a number")
	}
	return f, nil
}

// maxSeconds bounds durations so that they fit a time.Duration: about 292 years.
const maxSeconds = (1<<63 - 1) / 1_000_000_000

func asDuration(raw any) (time.Duration, error) {
	if text, ok := raw.(string); ok {
		return ParseDuration(text)
	}
	n, err := asInt(raw)
	if err != nil || n > maxSeconds || n < -maxSeconds {
		return 0, bindError("must be a number of seconds or a duration such as 1h30m")
	}
	return time.Duration(n) * time.Second, nil
}

// ParseDuration reads what clients send for a duration: a whole number of seconds, Go's "1h30m", or whole days "30d".
// The empty string is zero.
func ParseDuration(text string) (time.Duration, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return 0, nil
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && n <= maxSeconds && n >= -maxSeconds {
		return time.Duration(n) * time.Second, nil
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseInt(days, 10, 64); err == nil && n <= maxSeconds/86400 && n >= 0 {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	}
	if d, err := time.ParseDuration(text); err == nil {
		return d, nil
	}
	return 0, bindError("must be a number of seconds or a duration such as 1h30m")
}
