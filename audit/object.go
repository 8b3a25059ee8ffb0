package audit

import (
	"encoding/binary"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"conclave"
)

// object writes JSON objects, member by member. Text that is empty, zero numbers and empty lists are left out.
type object struct {
	dst     []byte
	hash    *Hasher
	reduced bool // what is long becomes one HMAC over it
}

// Limits of what stays as it is in a reduced record.
const (
	reducedText = 256 // bytes
	reducedList = 8   // elements
)

// value writes a string, or its hash if it is too long for a reduced record.
func (o *object) value(text string) {
	if o.reduced && len(text) > reducedText {
		o.dst = append(o.hash.appendHash(append(o.dst, '"'), text), '"')
		return
	}
	o.dst = appendQuoted(o.dst, text)
}

// whole writes one HMAC over something as JSON has it, if it has too many elements for a reduced record.
func (o *object) whole(elements int, something any, opening, closing string) bool {
	if !o.reduced || elements <= reducedList {
		return false
	}
	text, err := json.Marshal(something)
	if err != nil { // there is no list or map of strings that this happens to
		text = nil
	}
	o.dst = append(o.hash.appendHash(append(append(o.dst, opening...), '"'), string(text)), '"')
	o.dst = append(o.dst, closing...)
	return true
}

// begin leaves room for the length of a part; end fills it in.
func (o *object) begin() int {
	o.dst = append(o.dst, 0, 0, 0, 0)
	return len(o.dst)
}

func (o *object) end(mark int) { binary.BigEndian.PutUint32(o.dst[mark-4:], uint32(len(o.dst)-mark)) }

func (o *object) open()  { o.dst = append(o.dst, '{') }
func (o *object) close() { o.dst = append(o.dst, '}') }

// name begins a member. name must need no escapes.
func (o *object) name(name string) {
	if o.dst[len(o.dst)-1] != '{' {
		o.dst = append(o.dst, ',')
	}
	o.dst = append(append(append(o.dst, '"'), name...), `":`...)
}

func (o *object) text(name, value string) {
	if value != "" {
		o.name(name)
		o.value(value)
	}
}

func (o *object) hashed(name, value string) {
	if value != "" {
		o.name(name)
		o.dst = append(o.hash.appendHash(append(o.dst, '"'), value), '"')
	}
}

func (o *object) number(name string, value int64) {
	if value != 0 {
		o.name(name)
		o.dst = strconv.AppendInt(o.dst, value, 10)
	}
}

func (o *object) time(name string, value time.Time) {
	if !value.IsZero() {
		o.name(name)
		o.dst = appendTime(o.dst, value)
	}
}

func (o *object) texts(name string, values []string) {
	if len(values) > 0 {
		o.name(name)
		if o.whole(len(values), values, "[", "]") {
			return
		}
		o.dst = append(o.dst, '[')
		for i, value := range values {
			if i > 0 {
				o.dst = append(o.dst, ',')
			}
			o.value(value)
		}
		o.dst = append(o.dst, ']')
	}
}

func (o *object) data(data []byte, clear []string) {
	if len(data) == 0 {
		return
	}
	o.name("data")
	if o.reduced {
		o.dst = append(o.hash.appendHash(append(o.dst, `{"whole":"`...), string(data)), `"}`...)
		return
	}
	o.dst = o.hash.AppendData(o.dst, data, clear)
}

// auth writes who somebody is, and why that wasn't enough. token and accessor are hashes already.
func (o *object) auth(a *conclave.Auth, token, accessor string, issued time.Time, denial *Denial) {
	o.open()
	o.text("client_token", token)
	o.text("accessor", accessor)
	o.text("display_name", a.DisplayName)
	o.texts("policies", a.Policies)
	o.texts("token_policies", a.TokenPolicies)
	o.metadata(a.Metadata)
	o.text("entity_id", a.EntityID)
	o.number("num_uses", int64(a.NumUses))
	o.text("token_type", a.TokenType)
	o.number("token_ttl", int64(a.TTL/time.Second))
	o.time("token_issue_time", issued)
	if denial != nil {
		o.denial(denial)
	}
	o.close()
}

func (o *object) denial(d *Denial) {
	o.name("policy_results")
	o.dst = append(o.dst, `{"allowed":false`...)
	o.text("reason", d.Reason)
	o.texts("capabilities", d.Capabilities)
	o.text("path", d.Path)
	o.text("namespace_id", d.NamespaceID)
	o.text("pattern", d.Pattern)
	o.texts("rules", d.Rules)
	o.text("field", d.Field)
	o.hashed("unlisted_field", d.Unlisted)
	o.close()
}

func (o *object) metadata(metadata map[string]string) {
	if len(metadata) == 0 {
		return
	}
	o.name("metadata")
	if o.whole(len(metadata), metadata, `{"whole":`, "}") {
		return
	}
	o.open()
	for i, key := range slices.Sorted(maps.Keys(metadata)) {
		if i > 0 {
			o.dst = append(o.dst, ',')
		}
		o.value(key)
		o.dst = append(o.dst, ':')
		o.value(metadata[key])
	}
	o.close()
}

func (o *object) request(e *Entry, token, accessor string) {
	o.open()
	o.text("id", e.RequestID)
	if e.Auth != nil {
		o.text("client_id", e.Auth.EntityID)
	}
	o.text("operation", e.Operation.String())
	if e.Mount != nil {
		o.text("mount_point", e.Mount.Path)
		o.text("mount_type", e.Mount.Kind)
		o.text("mount_accessor", e.Mount.Accessor)
	}
	o.text("client_token", token)
	o.text("client_token_accessor", accessor)
	o.name("namespace")
	o.open()
	o.text("id", e.NamespaceID)
	o.text("path", e.NamespacePath)
	o.close()
	o.text("path", e.Path)
	o.data(e.Data, e.Clear)
	if e.Remote.IsValid() {
		o.text("remote_address", e.Remote.Addr().Unmap().String())
		o.number("remote_port", int64(e.Remote.Port()))
	}
	o.text("client_certificate_serial_number", e.Certificate)
	o.number("wrap_ttl", int64(e.WrapTTL/time.Second))
	o.headers(e.Header)
	o.text("node", e.Node)
	o.number("attempt", int64(e.Attempt))
	o.close()
}

func (o *object) headers(header map[string][]string) {
	if len(header) == 0 {
		return
	}
	o.name("headers")
	values := len(header)
	for _, of := range header {
		values += len(of)
	}
	if o.whole(values, header, `{"whole":[`, "]}") {
		return
	}
	o.open()
	for i, name := range slices.Sorted(maps.Keys(header)) {
		if i > 0 {
			o.dst = append(o.dst, ',')
		}
		o.value(strings.ToLower(name))
		o.dst = append(o.dst, ":["...)
		for j, value := range header[name] {
			if j > 0 {
				o.dst = append(o.dst, ',')
			}
			if clearHeaders[name] && len(value) <= maxClearText {
				o.value(value)
			} else {
				o.dst = append(o.hash.appendHash(append(o.dst, '"'), value), '"')
			}
		}
		o.dst = append(o.dst, ']')
	}
	o.close()
}

func (o *object) answer(a *Answer) {
	o.open()
	if a.Auth != nil {
		token, accessor := "", ""
		if !a.Auth.ClientToken.Empty() {
			token = o.hash.Hash(a.Auth.ClientToken.Reveal())
		}
		if a.Auth.Accessor != "" {
			accessor = o.hash.Hash(a.Auth.Accessor)
		}
		o.name("auth")
		o.auth(a.Auth, token, accessor, time.Time{}, nil)
	}
	if a.Lease != nil {
		o.name("secret")
		o.open()
		o.text("lease_id", a.Lease.ID)
		o.close()
	}
	if a.Raw != nil {
		o.name("data")
		o.open()
		o.text("http_content_type", a.Raw.ContentType)
		o.hashed("http_raw_body", string(a.Raw.Body))
		o.number("http_status_code", int64(a.Status))
		o.close()
	} else {
		o.data(a.Data, a.Clear)
	}
	if a.Wrap != nil {
		o.name("wrap_info")
		o.open()
		o.number("ttl", int64(a.Wrap.TTL/time.Second))
		o.hashed("token", a.Wrap.Token.Reveal())
		o.hashed("accessor", a.Wrap.Accessor)
		o.time("creation_time", a.Wrap.CreationTime)
		o.text("creation_path", a.Wrap.CreationPath)
		o.hashed("wrapped_accessor", a.Wrap.WrappedAccessor)
		o.close()
	}
	if warnings := a.Warnings[:min(len(a.Warnings), maxWarnings)]; len(warnings) > 0 {
		short := make([]string, len(warnings))
		for i, warning := range warnings {
			short[i] = shorten(warning)
		}
		o.texts("warnings", short)
	}
	o.close()
}
