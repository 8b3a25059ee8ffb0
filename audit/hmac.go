package audit

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"hash"
	"slices"
	"sync"
	"unicode/utf8"

	"conclave/crypto"
)

// Limits of what is written of a body. Beyond them the body is recorded as one HMAC over all of its bytes.
const (
	MaxFields = 64 // members and elements, at all depths
	maxNested = 64 // depth of objects and arrays

	maxClearText = 1024 // bytes of a scalar in a clear field; longer ones are HMACed
)

const (
	hashPrefix = "hmac-sha256:"
	hexDigits  = "0123456789abcdef"
)

// clearKeys are names of API fields that say nothing about what clients store: they are written as they are, wherever they stand. The
// values under them are not.
var clearKeys = map[string]bool{
	"accessor": true, "allowed_policies": true, "audit_non_hmac_request_keys": true, "audit_non_hmac_response_keys": true,
	"auto_rotate_period": true, "bound_cidrs": true, "cas": true, "cas_required": true, "ciphertext": true, "common_name": true,
	"config": true, "context": true, "created_time": true, "creation_path": true, "creation_time": true, "current_version": true,
	"custom_metadata": true, "data": true, "default_lease_ttl": true, "delete_version_after": true, "deletion_time": true,
	"description": true, "destroyed": true, "display_name": true, "entity_id": true, "error": true, "errors": true,
	"expire_time": true, "explicit_max_ttl": true, "exportable": true, "external_id": true, "file_path": true,
	"force_no_cache": true, "format": true, "hash_algorithm": true, "id": true, "increment": true, "input": true, "issue_time": true,
	"key_info": true, "key_type": true, "key_version": true, "keys": true, "last_updated": true, "lease": true, "lease_duration": true,
	"lease_id": true, "leases": true, "listing_visibility": true, "local": true, "max_lease_ttl": true, "max_ttl": true,
	"max_versions": true, "member_entity_ids": true, "meta": true, "metadata": true, "name": true, "namespace": true,
	"no_default_policy": true, "no_parent": true, "num_uses": true, "oldest_version": true, "options": true, "orphan": true,
	"passthrough_request_headers": true, "path": true, "paths": true, "period": true, "plugin_version": true, "policies": true,
	"policy": true, "prefix": true, "public_key": true, "renewable": true, "role": true, "role_id": true, "role_name": true,
	"rules": true, "seal_wrap": true, "secret_id_accessor": true, "secret_id_bound_cidrs": true, "secret_id_num_uses": true,
	"secret_id_ttl": true, "serial_number": true, "signature": true, "signature_algorithm": true, "token_bound_cidrs": true,
	"token_explicit_max_ttl": true, "token_max_ttl": true, "token_no_default_policy": true, "token_num_uses": true,
	"token_period": true, "token_policies": true, "token_ttl": true, "token_type": true, "ttl": true, "type": true,
	"updated_time": true, "uuid": true, "valid": true, "version": true, "versions": true, "wrap_info": true,
}

// Hasher replaces what may be secret by "hmac-sha256:" ‖ hex(HMAC-SHA256(key, text)), the form that Vault's audit log has. Equal texts
// give equal hashes, in all records of a cluster, so that who holds a value can find where it was used. It is safe for concurrent use.
type Hasher struct {
	walkers sync.Pool // of *walker
}

// NewHasher makes the hasher of a cluster's audit HMAC key, which may be wiped afterwards.
func NewHasher(key crypto.Key) *Hasher {
	return &Hasher{walkers: sync.Pool{New: func() any { return &walker{mac: hmac.New(sha256.New, key[:])} }}}
}

// String and the like redact: the pool holds the key.
func (h *Hasher) String() string { return "[redacted]" }

// GoString redacts.
func (h *Hasher) GoString() string { return "[redacted]" }

// Hash is what sys/audit-hash answers for input.
func (h *Hasher) Hash(input string) string { return string(h.appendHash(nil, input)) }

// appendHash appends the hash of text, without quotes.
func (h *Hasher) appendHash(dst []byte, text string) []byte {
	w := h.walkers.Get().(*walker)
	w.text = append(w.text[:0], text...)
	w.dst = dst
	w.hash(w.text)
	return h.giveBack(w)
}

func (h *Hasher) giveBack(w *walker) []byte {
	dst := w.dst
	clear(w.text[:cap(w.text)])
	if cap(w.text) > 4096 {
		w.text = nil
	}
	w.dst, w.in, w.clear = nil, nil, nil
	h.walkers.Put(w)
	return dst
}

// AppendData appends data, one JSON value, with its secrets replaced: every string, number and boolean, and every object key that isn't a
// known name of the API, becomes a hash; null, the empty object and the empty array stay. Members of the outermost object whose names are
// in clear keep key and value; a scalar of more than 1,024 bytes among them is hashed all the same.
//
// With more than [MaxFields] fields, or if data isn't JSON, the result is {"whole":"hmac-sha256:…"}, over data byte for byte. The result
// is one JSON value without line breaks in every case.
func (h *Hasher) AppendData(dst, data []byte, clear []string) []byte {
	w := h.walkers.Get().(*walker)
	start := len(dst)
	w.dst, w.in, w.at, w.fields, w.clear = dst, data, 0, 0, clear
	if !w.document() {
		w.dst = append(w.dst[:start], `{"whole":"`...)
		w.hash(data)
		w.dst = append(w.dst, `"}`...)
	}
	return h.giveBack(w)
}

// walker goes once over a JSON text and writes its replacement. It accepts what RFC 8259 does, up to depth and number of fields.
type walker struct {
	mac    hash.Hash // keyed; reset before each use
	dst    []byte
	in     []byte
	at     int
	fields int
	clear  []string
	text   []byte // scratch: copies of what is hashed
	sum    [sha256.Size]byte
}

// hash appends the hash of text, without quotes.
func (w *walker) hash(text []byte) {
	w.mac.Reset()
	w.mac.Write(text)
	w.dst = append(w.dst, hashPrefix...)
	w.dst = hex.AppendEncode(w.dst, w.mac.Sum(w.sum[:0]))
}

func (w *walker) document() bool {
	return w.value(0, false) && w.next() == 0 && w.at == len(w.in)
}

// next skips white space and returns the byte that follows, 0 at the end. It doesn't consume that byte.
func (w *walker) next() byte {
	for w.at < len(w.in) {
		switch c := w.in[w.at]; c {
		case ' ', '\t', '\n', '\r':
			w.at++
		default:
			return c
		}
	}
	return 0
}

// value replaces one value. In a clear field it copies it.
func (w *walker) value(depth int, clear bool) bool {
	switch w.next() {
	case '{':
		return w.container('}', depth, clear)
	case '[':
		return w.container(']', depth, clear)
	case '"':
		text, ok := w.string()
		if ok {
			w.write(text, clear)
		}
		return ok
	}
	text := w.word()
	switch {
	case !json.Valid(text): // else true, false, null or a number
		return false
	case string(text) == "null", clear && len(text) <= maxClearText:
		w.dst = append(w.dst, text...)
	default:
		w.write(text, false)
	}
	return true
}

// container replaces the members of an object or the elements of an array, up to the byte that closes it.
func (w *walker) container(closing byte, depth int, clear bool) bool {
	if depth == maxNested {
		return false
	}
	w.dst = append(w.dst, w.in[w.at])
	w.at++
	for first := true; first || w.next() != closing; first = false {
		if first && w.next() == closing {
			break
		}
		if !first && !w.copy(',') {
			return false
		}
		if w.fields++; w.fields > MaxFields {
			return false
		}
		inClear := clear
		if closing == '}' {
			key, ok := w.string()
			if !ok {
				return false
			}
			inClear = clear || depth == 0 && slices.Contains(w.clear, string(key))
			w.write(key, inClear || clearKeys[string(key)])
			if !w.copy(':') {
				return false
			}
		}
		if !w.value(depth+1, inClear) {
			return false
		}
	}
	w.at++
	w.dst = append(w.dst, closing)
	return true
}

// copy consumes and writes c, if that is what follows.
func (w *walker) copy(c byte) bool {
	if w.next() != c {
		return false
	}
	w.at++
	w.dst = append(w.dst, c)
	return true
}

// write writes a string as it is, or its hash.
func (w *walker) write(text []byte, clear bool) {
	if clear && len(text) <= maxClearText {
		w.dst = appendQuoted(w.dst, text)
		return
	}
	w.dst = append(w.dst, '"')
	w.hash(text)
	w.dst = append(w.dst, '"')
}

// string consumes a string and returns what it says, valid until the next call. The text is hashed as clients see it, without escapes.
func (w *walker) string() (text []byte, ok bool) {
	if w.next() != '"' {
		return nil, false
	}
	start := w.at
	escaped := false
	for i := start + 1; i < len(w.in); i++ {
		switch c := w.in[i]; {
		case c == '"':
			w.at = i + 1
			if !escaped {
				return w.in[start+1 : i], true
			}
			var decoded string
			if json.Unmarshal(w.in[start:i+1], &decoded) != nil {
				return nil, false
			}
			w.text = append(w.text[:0], decoded...)
			return w.text, true
		case c == '\\':
			escaped = true
			i++
		case c < ' ':
			return nil, false
		}
	}
	return nil, false
}

// word consumes what a number or literal consists of.
func (w *walker) word() []byte {
	start := w.at
	for w.at < len(w.in) {
		c := w.in[w.at]
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && c != '-' && c != '+' && c != '.' && c != 'E' {
			break
		}
		w.at++
	}
	return w.in[start:w.at]
}

// appendQuoted appends text as a JSON string. Bytes that aren't UTF-8 become U+FFFD.
func appendQuoted[T string | []byte](dst []byte, text T) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(text); i++ {
		c := text[i]
		if c >= ' ' && c != '"' && c != '\\' && c < 0x7f {
			continue
		}
		if c >= utf8.RuneSelf {
			if r, size := utf8.DecodeRuneInString(string(text[i:min(len(text), i+utf8.UTFMax)])); r != utf8.RuneError || size > 1 {
				i += size - 1
				continue
			}
		}
		dst = append(dst, text[start:i]...)
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c >= utf8.RuneSelf:
			dst = append(dst, `\ufffd`...)
		default:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
		start = i + 1
	}
	dst = append(dst, text[start:]...)
	return append(dst, '"')
}
