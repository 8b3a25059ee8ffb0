package audit

import (
	"encoding/binary"
	"errors"
	"net/netip"
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
	Data          []byte                // the request's body or query, as JSON
	Clear         []string              // members of Data that are written as they are: Route.ClearRequest
	Answer        *Answer               // nil if there is none
	Err           error                 // what the client was told instead
	Denial        *Denial               // why policies denied it; nil if they didn't. Auth is there too
	Events        []conclave.Occurrence // what came of it; they hold nothing secret, and are written as they are
}

// Denial is the decision that denied a request, for those who may ask for it later. The client isn't told.
type Denial struct {
	Reason       string   // one word: the code of a policy.Reason, or DeniedIdentity
	Capabilities []string // that were needed
	Path         string   // where, as the policies see it: relative to the namespace that they are in
	NamespaceID  string   // of that namespace
	Pattern      string   // of the rule that decided; empty if no rule matches
	Rules        []string // where that rule was written, each as policy:line
	Field        string   // that failed, as the rule names it
	Unlisted     string   // the field that no rule names; it is hashed
}

// DeniedIdentity is the reason that the entity behind a token is disabled or gone.
const DeniedIdentity = "identity"

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
//	record:  format 1 or 2 (1 byte) ‖ flags (1) ‖ 5 or 6 × { length (4, big-endian) ‖ part }
//	parts:   time, auth, request, response, error; only time and request are never empty.
//	         Format 2 has a sixth, events, which is never empty: a record without events has format 1
//	flags:   1 if the request was refused before it was executed, so that its error is in the first line too
const (
	formatRecord = 1
	formatEvents = 2
	flagDenied   = 1
	recordHead   = 2
)

// ErrRecord means that bytes are not a record of a format that this version knows.
var ErrRecord = errors.New("audit: malformed record")

// Record is a decoded record. Its parts are JSON and alias what it was decoded from.
type Record struct {
	Denied                               bool
	Time, Auth, Request, Response, Error []byte
	Events                               []byte // see DecodeEvents; empty if there are none
}

// parts are those of a format, in their order.
func (r *Record) parts(format byte) []*[]byte {
	parts := []*[]byte{&r.Time, &r.Auth, &r.Request, &r.Response, &r.Error, &r.Events}
	if format == formatEvents {
		return parts
	}
	return parts[:len(parts)-1]
}

// Encode appends the record of e to dst. Tokens, accessors, and all of the data but what is known to be harmless are hashed on the way.
//
// A record that would have more than MaxRecord bytes is made in its reduced form: data as one HMAC over the whole, texts of more than 256
// bytes and more than 8 elements of a list, metadata or headers as one HMAC each. So there is no request whose record doesn't fit.
func Encode(dst []byte, e *Entry, h *Hasher) []byte {
	start := len(dst)
	if dst = encode(dst, e, h, false); len(dst)-start > MaxRecord {
		dst = encode(dst[:start], e, h, true)
	}
	return dst
}

func encode(dst []byte, e *Entry, h *Hasher, reduced bool) []byte {
	flags := byte(0)
	if e.Err != nil && conclave.KindOf(e.Err) == conclave.Denied {
		flags = flagDenied
	}
	format := byte(formatRecord)
	if len(e.Events) > 0 {
		format = formatEvents
	}
	o := &object{append(dst, format, flags), h, reduced}
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
		o.auth(e.Auth, token, accessor, e.TokenIssued, e.Denial)
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
		o.dst = appendQuoted(o.dst, shorten(e.Err.Error())) // at most 12 KiB
	}
	o.end(mark)

	if format == formatEvents {
		mark = o.begin()
		o.dst = appendEvents(o.dst, e.Events)
		o.end(mark)
	}
	return o.dst
}

// DecodeRecord takes a record apart. It checks the framing, not that parts are JSON: what was encrypted is what Encode made.
func DecodeRecord(b []byte) (Record, error) {
	var r Record
	if len(b) < recordHead || len(b) > MaxRecord || (b[0] != formatRecord && b[0] != formatEvents) || b[1]&^flagDenied != 0 {
		return Record{}, ErrRecord
	}
	format := b[0]
	r.Denied = b[1] == flagDenied
	b = b[recordHead:]
	for _, part := range r.parts(format) {
		if len(b) < 4 || uint64(binary.BigEndian.Uint32(b)) > uint64(len(b)-4) {
			return Record{}, ErrRecord
		}
		n := int(binary.BigEndian.Uint32(b))
		*part, b = b[4:4+n:4+n], b[4+n:]
	}
	if len(b) > 0 || len(r.Time) == 0 || len(r.Request) == 0 || (format == formatEvents && len(r.Events) == 0) {
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
	format := byte(formatRecord)
	if len(r.Events) > 0 {
		format = formatEvents
	}
	dst = append(dst, format, flags)
	for _, part := range r.parts(format) {
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
			dst = appendMember(dst, "events", r.Events)
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
