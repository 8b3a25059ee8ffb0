package audit

import (
	"encoding/binary"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"conclave"
)

// Entry is what is recorded of one request: everything that the lines of the audit log will say, still in the clear. It borrows its
// members; [Encode] doesn't keep them.
type Entry struct {
	Time          time.Time // cluster time when the request began
	RequestID     string
	Attempt       int    // from 1; the last attempt of a request is what was answered
	Node          string // id of the executing node
	NamespaceID   string
	NamespacePath string
	Operation     conclave.Operation
	Path          string
	Mount         *conclave.Mount // nil if the path led to none
	Remote        netip.AddrPort
	Certificate   string // serial number of the client's TLS certificate
	WrapTTL       time.Duration
	Header        map[string][]string // those that were asked for; values are hashed but for a few names that carry no secret
	Token         conclave.Secret     // as the client sent it
	Auth          *conclave.Auth      // of the caller; nil without one. Its ClientToken is not looked at, Token is
	TokenIssued   time.Time
	Data          []byte   // the request's body or query, as JSON
	Clear         []string // members of Data that are written as they are: Route.ClearRequest
	Answer        *Answer  // nil if there is none
	Err           error    // what the client was told instead
}

// Answer is the recorded part of a response.
type Answer struct {
	Data     []byte   // as JSON; nil if there is none
	Clear    []string // members of Data that are written as they are: Route.ClearResponse
	Raw      *conclave.Raw
	Status   int // of a raw answer
	Auth     *conclave.Auth
	Lease    *conclave.Lease
	Wrap     *conclave.Wrap
	Warnings []string
}

// Limits of free text in a record.
const (
	maxMessage  = 2048 // bytes of an error or a warning; the rest is cut off
	maxWarnings = 32
)

// clearHeaders carry no secret. Keys are canonical names.
var clearHeaders = map[string]bool{
	"Correlation-Id": true, "Traceparent": true, "User-Agent": true, "X-Correlation-Id": true, "X-Request-Id": true,
}

// A record is what is encrypted and, with its salt, digested: the parts of Vault's two lines, each one JSON value without line breaks, so
// that lines are put together without parsing.
//
//	record:  format 1 (1 byte) ‖ flags (1) ‖ 5 × { length (4, big-endian) ‖ part }
//	parts:   time, auth, request, response, error; only time and request are never empty
//	flags:   1 if the request was refused before it was executed, so that its error is in the first line too
const (
	formatRecord = 1
	flagDenied   = 1
	partCount    = 5
	recordHead   = 2
)

// ErrRecord means that bytes are not a record of a format that this version knows.
var ErrRecord = errors.New("audit: malformed record")

// Record is a decoded record. Its parts are JSON and alias what it was decoded from.
type Record struct {
	Denied                               bool
	Time, Auth, Request, Response, Error []byte
}

func (r *Record) parts() [partCount]*[]byte {
	return [...]*[]byte{&r.Time, &r.Auth, &r.Request, &r.Response, &r.Error}
}

// Encode appends the record of e to dst. Tokens, accessors, and all of the data but what is known to be harmless are hashed on the way.
func Encode(dst []byte, e *Entry, h *Hasher) []byte {
	flags := byte(0)
	if e.Err != nil && conclave.KindOf(e.Err) == conclave.Denied {
		flags = flagDenied
	}
	o := &object{append(dst, formatRecord, flags), h}
	token, accessor := "", ""
	if !e.Token.Empty() {
		token = h.Hash(e.Token.Reveal())
	}
	if e.Auth != nil && e.Auth.Accessor != "" {
		accessor = h.Hash(e.Auth.Accessor)
	}

	mark := o.begin()
	o.dst = appendTime(o.dst, e.Time)
	o.end(mark)

	mark = o.begin()
	if e.Auth != nil {
		o.auth(e.Auth, token, accessor, e.TokenIssued)
	}
	o.end(mark)

	mark = o.begin()
	o.request(e, token, accessor)
	o.end(mark)

	mark = o.begin()
	if e.Answer != nil {
		o.answer(e.Answer)
	}
	o.end(mark)

	mark = o.begin()
	if e.Err != nil {
		o.dst = appendQuoted(o.dst, shorten(e.Err.Error()))
	}
	o.end(mark)
	return o.dst
}

// DecodeRecord takes a record apart. It checks the framing, not that parts are JSON: what was encrypted is what Encode made.
func DecodeRecord(b []byte) (Record, error) {
	var r Record
	if len(b) < recordHead || len(b) > MaxRecord || b[0] != formatRecord || b[1]&^flagDenied != 0 {
		return Record{}, ErrRecord
	}
	r.Denied = b[1] == flagDenied
	b = b[recordHead:]
	for _, part := range r.parts() {
		if len(b) < 4 || uint64(binary.BigEndian.Uint32(b)) > uint64(len(b)-4) {
			return Record{}, ErrRecord
		}
		n := int(binary.BigEndian.Uint32(b))
		*part, b = b[4:4+n:4+n], b[4+n:]
	}
	if len(b) > 0 || len(r.Time) == 0 || len(r.Request) == 0 {
		return Record{}, ErrRecord
	}
	return r, nil
}

// append is the inverse of DecodeRecord.
func (r *Record) append(dst []byte) []byte {
	flags := byte(0)
	if r.Denied {
		flags = flagDenied
	}
	dst = append(dst, formatRecord, flags)
	for _, part := range r.parts() {
		dst = binary.BigEndian.AppendUint32(dst, uint32(len(*part)))
		dst = append(dst, *part...)
	}
	return dst
}

// AppendLines appends Vault's two lines for a request, {"type":"request",…} and {"type":"response",…}, each with its line feed.
func (r *Record) AppendLines(dst []byte) []byte {
	for _, kind := range []string{"request", "response"} {
		dst = append(append(dst, `{"time":`...), r.Time...)
		dst = append(append(append(dst, `,"type":"`...), kind...), '"')
		dst = appendMember(dst, "auth", r.Auth)
		dst = appendMember(dst, "request", r.Request)
		if kind == "response" {
			dst = appendMember(dst, "response", r.Response)
		}
		if kind == "response" || r.Denied {
			dst = appendMember(dst, "error", r.Error)
		}
		dst = append(dst, "}\n"...)
	}
	return dst
}

func appendMember(dst []byte, name string, value []byte) []byte {
	if len(value) == 0 {
		return dst
	}
	dst = append(append(append(dst, `,"`...), name...), `":`...)
	return append(dst, value...)
}

func appendTime(dst []byte, t time.Time) []byte {
	dst = t.UTC().AppendFormat(append(dst, '"'), time.RFC3339Nano)
	return append(dst, '"')
}

func shorten(text string) string {
	if len(text) <= maxMessage {
		return text
	}
	return strings.ToValidUTF8(text[:maxMessage], "") + "…"
}

// object writes JSON objects, member by member. Text that is empty, zero numbers and empty lists are left out.
type object struct {
	dst  []byte
	hash *Hasher
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
		o.dst = appendQuoted(o.dst, value)
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
		o.dst = append(o.dst, '[')
		for i, value := range values {
			if i > 0 {
				o.dst = append(o.dst, ',')
			}
			o.dst = appendQuoted(o.dst, value)
		}
		o.dst = append(o.dst, ']')
	}
}

func (o *object) data(data []byte, clear []string) {
	if len(data) > 0 {
		o.name("data")
		o.dst = o.hash.AppendData(o.dst, data, clear)
	}
}

// auth writes who somebody is. token and accessor are hashes already.
func (o *object) auth(a *conclave.Auth, token, accessor string, issued time.Time) {
	o.open()
	o.text("client_token", token)
	o.text("accessor", accessor)
	o.text("display_name", a.DisplayName)
	o.texts("policies", a.Policies)
	o.texts("token_policies", a.TokenPolicies)
	if len(a.Metadata) > 0 {
		o.name("metadata")
		o.open()
		for i, key := range slices.Sorted(maps.Keys(a.Metadata)) {
			if i > 0 {
				o.dst = append(o.dst, ',')
			}
			o.dst = append(appendQuoted(o.dst, key), ':')
			o.dst = appendQuoted(o.dst, a.Metadata[key])
		}
		o.close()
	}
	o.text("entity_id", a.EntityID)
	o.number("num_uses", int64(a.NumUses))
	o.text("token_type", a.TokenType)
	o.number("token_ttl", int64(a.TTL/time.Second))
	o.time("token_issue_time", issued)
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
	o.open()
	for i, name := range slices.Sorted(maps.Keys(header)) {
		if i > 0 {
			o.dst = append(o.dst, ',')
		}
		o.dst = append(appendQuoted(o.dst, strings.ToLower(name)), ":["...)
		for j, value := range header[name] {
			if j > 0 {
				o.dst = append(o.dst, ',')
			}
			if clearHeaders[name] && len(value) <= maxClearText {
				o.dst = appendQuoted(o.dst, value)
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
		o.auth(a.Auth, token, accessor, time.Time{})
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
