package server

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

	"conclave"
)

// maxPooled is the size in bytes up to which a reply's buffer is kept for the next one.
const maxPooled = 64 << 10

// reply is an answer being built. Nothing is sent before all of it is there, so that an answer that can't be encoded
// becomes an error and not half an answer.
type reply struct {
	buf  bytes.Buffer
	json *json.Encoder
	pool *replies
}

// replies keeps buffers of answers for the next ones.
type replies struct{ free sync.Pool }

func (p *replies) take() *reply {
	if r, ok := p.free.Get().(*reply); ok {
		return r
	}
	r := &reply{pool: p}
	r.json = json.NewEncoder(&r.buf)
	r.json.SetEscapeHTML(false)
	return r
}

// free wipes what the reply held and gives its buffer back.
func (r *reply) free() {
	if r.buf.Cap() > maxPooled {
		return
	}
	clear(r.buf.Bytes())
	r.buf.Reset()
	r.pool.free.Put(r)
}

// The fixed values of answers' headers.
var (
	noStore  = []string{"no-store"}
	jsonType = []string{"application/json"}
)

// send writes the answer. HEAD gets the same headers; net/http leaves out the body.
func (r *reply) send(w http.ResponseWriter, status int) {
	if status != http.StatusNoContent {
		w.Header()["Content-Length"] = []string{strconv.Itoa(r.buf.Len())}
	}
	w.WriteHeader(status)
	if status != http.StatusNoContent {
		_, _ = w.Write(r.buf.Bytes()) // a client that has gone misses its answer, nothing else
	}
}

// setRawHeader gives an answer outside the envelope the headers that it asks for, but those that are set already.
func setRawHeader(header http.Header, raw *conclave.Raw) {
	for name, values := range raw.Header {
		if _, taken := header[name]; !taken {
			header[name] = values
		}
	}
	if raw.ContentType != "" {
		header["Content-Type"] = []string{raw.ContentType}
	}
}

// isEmpty reports whether the answer has nothing to say but that all went well.
func isEmpty(resp *conclave.Response) bool {
	return resp.Data == nil && resp.Auth == nil && resp.Lease == nil && resp.Wrap == nil && resp.Raw == nil && len(resp.Warnings) == 0
}

// success builds the answer to a request that succeeded, and returns its status.
//
//	{"request_id": "…", "lease_id": "", "renewable": false, "lease_duration": 0, "data": …, "wrap_info": …,
//	 "warnings": …, "auth": …, "mount_type": "kv"}
//
// All members are always there, null when empty; a wrapped answer has no request id.
func (r *reply) success(resp *conclave.Response, requestID string) (status int, err error) {
	status = resp.Status
	switch {
	case isEmpty(resp) && (status == 0 || status == http.StatusNoContent):
		return http.StatusNoContent, nil
	case status < 200 || status > 599:
		status = http.StatusOK
	}
	if resp.Raw != nil {
		r.buf.Write(resp.Raw.Body)
		return status, nil
	}
	return status, r.envelope(resp, requestID)
}

// Envelope is the JSON that a client would get for an answer, without a request id: what a wrapping token holds.
func Envelope(resp *conclave.Response) ([]byte, error) {
	r := (&replies{}).take()
	if err := r.envelope(resp, ""); err != nil {
		return nil, err
	}
	return r.buf.Bytes(), nil
}

func (r *reply) envelope(resp *conclave.Response, requestID string) error {
	if resp.Wrap != nil {
		requestID = ""
	}
	var lease conclave.Lease
	if resp.Lease != nil && resp.Wrap == nil {
		lease = *resp.Lease
	}
	r.raw(`{"request_id":`)
	r.text(requestID)
	r.raw(`,"lease_id":`)
	r.text(lease.ID)
	r.raw(`,"renewable":`)
	r.flag(lease.Renewable)
	r.raw(`,"lease_duration":`)
	r.seconds(lease.TTL)
	r.raw(`,"data":`)
	from := r.buf.Len()
	if err := r.data(resp); err != nil {
		return err
	}
	to := r.buf.Len()
	r.raw(`,"wrap_info":`)
	r.wrap(resp.Wrap)
	r.raw(`,"warnings":`)
	r.texts(resp.Warnings, `null`)
	r.raw(`,"auth":`)
	if resp.Wrap != nil {
		r.raw(`null`)
	} else {
		r.auth(resp.Auth)
	}
	r.raw(`,"mount_type":`)
	r.text(resp.MountType)
	if resp.TopLevel {
		if err := r.topLevel(from, to); err != nil {
			return err
		}
	}
	r.raw("}\n")
	return nil
}

func (r *reply) data(resp *conclave.Response) error {
	if resp.Data == nil || resp.Wrap != nil {
		r.raw(`null`)
		return nil
	}
	if raw, ok := resp.Data.(json.RawMessage); ok && len(raw) > 0 {
		r.buf.Write(raw)
		return nil
	}
	if err := r.json.Encode(resp.Data); err != nil {
		return err
	}
	r.buf.Truncate(r.buf.Len() - 1) // the encoder's newline
	return nil
}

// topLevel repeats the members of the data, which is at [from, to) of the buffer, beside the envelope's own.
func (r *reply) topLevel(from, to int) error {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(r.buf.Bytes()[from:to], &members); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		switch name {
		case "request_id", "lease_id", "renewable", "lease_duration", "data", "wrap_info", "warnings", "auth", "mount_type":
			continue // the envelope's own
		}
		r.raw(`,`)
		r.text(name)
		r.raw(`:`)
		r.buf.Write(members[name])
	}
	return nil
}

func (r *reply) wrap(wrap *conclave.Wrap) {
	if wrap == nil {
		r.raw(`null`)
		return
	}
	r.raw(`{"token":`)
	r.text(wrap.Token.Reveal())
	r.raw(`,"accessor":`)
	r.text(wrap.Accessor)
	r.raw(`,"ttl":`)
	r.seconds(wrap.TTL)
	r.raw(`,"creation_time":`)
	r.text(wrap.CreationTime.Format(time.RFC3339Nano))
	r.raw(`,"creation_path":`)
	r.text(wrap.CreationPath)
	if wrap.WrappedAccessor != "" {
		r.raw(`,"wrapped_accessor":`)
		r.text(wrap.WrappedAccessor)
	}
	r.raw(`}`)
}

func (r *reply) auth(auth *conclave.Auth) {
	if auth == nil {
		r.raw(`null`)
		return
	}
	r.raw(`{"client_token":`)
	r.text(auth.ClientToken.Reveal())
	r.raw(`,"accessor":`)
	r.text(auth.Accessor)
	r.raw(`,"policies":`)
	r.texts(auth.Policies, `[]`)
	r.raw(`,"token_policies":`)
	r.texts(auth.TokenPolicies, `[]`)
	if len(auth.Policies) > len(auth.TokenPolicies) {
		r.raw(`,"identity_policies":`)
		r.texts(slices.DeleteFunc(slices.Clone(auth.Policies), func(policy string) bool {
			return slices.Contains(auth.TokenPolicies, policy)
		}), `[]`)
	}
	r.raw(`,"metadata":`)
	r.textMap(auth.Metadata)
	r.raw(`,"lease_duration":`)
	r.seconds(auth.TTL)
	r.raw(`,"renewable":`)
	r.flag(auth.Renewable)
	r.raw(`,"entity_id":`)
	r.text(auth.EntityID)
	r.raw(`,"token_type":`)
	r.text(auth.TokenType)
	r.raw(`,"orphan":`)
	r.flag(auth.Orphan)
	r.raw(`,"mfa_requirement":`)
	r.mfaRequirement(auth.MFARequirement)
	r.raw(`,"num_uses":`)
	r.number(int64(auth.NumUses))
	r.raw(`}`)
}

// mfaRequirement writes {"mfa_request_id": "…", "mfa_constraints": {NAME: {"any": [{"type", "id", "uses_passcode", "name"}]}}}.
func (r *reply) mfaRequirement(m *conclave.MFARequirement) {
	if m == nil {
		r.raw(`null`)
		return
	}
	r.raw(`{"mfa_request_id":`)
	r.text(m.RequestID)
	r.raw(`,"mfa_constraints":{`)
	for i, constraint := range m.Constraints {
		if i > 0 {
			r.raw(`,`)
		}
		r.text(constraint.Name)
		r.raw(`:{"any":[`)
		for j, method := range constraint.Any {
			if j > 0 {
				r.raw(`,`)
			}
			r.raw(`{"type":`)
			r.text(method.Type)
			r.raw(`,"id":`)
			r.text(method.ID)
			r.raw(`,"uses_passcode":`)
			r.flag(method.UsesPasscode)
			r.raw(`,"name":`)
			r.text(method.Name)
			r.raw(`}`)
		}
		r.raw(`]}`)
	}
	r.raw(`}}`)
}

// failed builds the answer to a request that failed. Data takes the place of the error when there is nothing there,
// in the envelope that clients know; otherwise it stands beside the error.
func (r *reply) failed(f failure, requestID string) error {
	if f.data != nil && f.message == "" {
		return r.envelope(&conclave.Response{Data: f.data}, requestID)
	}
	r.raw(`{"errors":[`)
	if f.message != "" {
		r.text(f.message)
	}
	r.raw(`]`)
	if f.data != nil {
		r.raw(`,"data":`)
		if err := r.data(&conclave.Response{Data: f.data}); err != nil {
			return err
		}
	}
	r.raw("}\n")
	return nil
}

func (r *reply) raw(text string) { r.buf.WriteString(text) }

func (r *reply) number(n int64) { r.buf.Write(strconv.AppendInt(r.buf.AvailableBuffer(), n, 10)) }

func (r *reply) seconds(d time.Duration) { r.number(int64(d / time.Second)) }

func (r *reply) flag(set bool) { r.buf.Write(strconv.AppendBool(r.buf.AvailableBuffer(), set)) }

// texts writes a list of strings, and empty for an empty one.
func (r *reply) texts(list []string, empty string) {
	if len(list) == 0 {
		r.raw(empty)
		return
	}
	for i, text := range list {
		if i == 0 {
			r.raw(`[`)
		} else {
			r.raw(`,`)
		}
		r.text(text)
	}
	r.raw(`]`)
}

func (r *reply) textMap(m map[string]string) {
	if m == nil {
		r.raw(`null`)
		return
	}
	r.raw(`{`)
	for i, name := range slices.Sorted(maps.Keys(m)) {
		if i > 0 {
			r.raw(`,`)
		}
		r.text(name)
		r.raw(`:`)
		r.text(m[name])
	}
	r.raw(`}`)
}

// text writes a JSON string (RFC 8259 section 7); what isn't UTF-8 becomes U+FFFD.
func (r *reply) text(text string) {
	const hexDigits = "0123456789abcdef"
	r.buf.WriteByte('"')
	from := 0
	for i := 0; i < len(text); {
		c := text[i]
		if c >= ' ' && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			char, size := utf8.DecodeRuneInString(text[i:])
			if char != utf8.RuneError || size > 1 {
				i += size
				continue
			}
		}
		r.buf.WriteString(text[from:i])
		switch {
		case c == '"' || c == '\\':
			r.buf.WriteByte('\\')
			r.buf.WriteByte(c)
		case c >= utf8.RuneSelf:
			r.buf.WriteString(`\ufffd`)
		default:
			r.buf.WriteString(`\u00`)
			r.buf.WriteByte(hexDigits[c>>4])
			r.buf.WriteByte(hexDigits[c&15])
		}
		i++
		from = i
	}
	r.buf.WriteString(text[from:])
	r.buf.WriteByte('"')
}
