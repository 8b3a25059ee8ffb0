package event

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"maps"
	"strings"
	"sync"
	"time"

	"conclave"
)

// Record is a record of the audit log, as far as the stream is concerned.
type Record struct {
	Seq    uint64
	Index  uint64   // of the Raft entry that it is in
	Link   [32]byte // of the hash chain, after the record
	Digest [32]byte
	Time   time.Time // cluster time when the transaction began
	Events []conclave.Occurrence

	once     sync.Once
	messages [][]byte // of the events, once anybody has asked for one
}

// message is an event as clients get it: in the form of CloudEvents 1.0, with the members that Vault's clients know.
type message struct {
	ID          string      `json:"id"`
	Source      string      `json:"source"`
	SpecVersion string      `json:"specversion"`
	Type        string      `json:"type"`
	Data        messageData `json:"data"`
	// ContentType is named as Vault's messages have it, and as the specification does.
	ContentType     string    `json:"datacontentype"`
	DataContentType string    `json:"datacontenttype"`
	Time            time.Time `json:"time"`
	// Cursor is where to go on after this event; an extension attribute.
	Cursor string `json:"cursor"`
}

type messageData struct {
	Event struct {
		ID       string            `json:"id"`
		Metadata map[string]string `json:"metadata"`
	} `json:"event"`
	EventType string      `json:"event_type"`
	Plugin    *pluginInfo `json:"plugin_info,omitempty"`
	Namespace string      `json:"namespace"`
}

type pluginInfo struct {
	Class    string `json:"mount_class"`
	Accessor string `json:"mount_accessor"`
	Path     string `json:"mount_path"`
	Plugin   string `json:"plugin"`
	Version  string `json:"version,omitempty"`
}

// EventPosition is the type of messages that tell no more than a cursor.
const EventPosition = "conclave/position"

// position tells a client where it is, so that its cursor doesn't grow old while nothing happens that it may know of.
func position(c Cursor, now time.Time, source string) []byte {
	m := message{ID: c.String(), Source: source, SpecVersion: "1.0", Type: "*", ContentType: "application/cloudevents",
		DataContentType: "application/json", Time: now.UTC(), Cursor: c.String()}
	m.Data.Event.ID, m.Data.Event.Metadata, m.Data.EventType = m.ID, map[string]string{}, EventPosition
	return m.encode()
}

// Metadata that messages have beside what the event says itself.
const (
	metadataPath      = "path"
	metadataDataPath  = "data_path"
	metadataOperation = "operation"
)

// message is that of event i of a record. It is made once for all who get it, and must not be changed. source is always the
// same.
func (r *Record) message(i int, source string) []byte {
	r.once.Do(func() {
		r.messages = make([][]byte, len(r.Events))
		for i := range r.Events {
			r.messages[i] = r.encode(i, source)
		}
	})
	return r.messages[i]
}

func (r *Record) encode(i int, source string) []byte {
	o := &r.Events[i]
	m := message{ID: r.id(i), Source: source, SpecVersion: "1.0", Type: "*", ContentType: "application/cloudevents",
		DataContentType: "application/json", Time: r.Time.UTC(), Cursor: r.after(i).String()}
	m.Data.Event.ID, m.Data.EventType, m.Data.Namespace = m.ID, o.Type, o.Namespace.Path
	m.Data.Event.Metadata = metadataOf(o)
	if o.Mount != nil {
		class := "secret"
		if strings.HasPrefix(o.Mount.Path, "auth/") {
			class = "auth"
		}
		m.Data.Plugin = &pluginInfo{class, o.Mount.Accessor, o.Mount.Path, o.Mount.Kind, o.Mount.Options["version"]}
	}
	return m.encode()
}

func (m *message) encode() []byte {
	encoded, err := json.Marshal(m)
	if err != nil { // there is no time, text or map of texts that this happens to, but a year beyond 9999
		panic("event: encode a message: " + err.Error())
	}
	return encoded
}

// metadataOf is an event's metadata with what all events have: Vault's path and data_path, which are both what the event
// is about, and the operation.
func metadataOf(o *conclave.Occurrence) map[string]string {
	all := maps.Clone(o.Metadata)
	if all == nil {
		all = map[string]string{}
	}
	all[metadataPath], all[metadataDataPath] = o.FullPath(), o.FullPath()
	if all[metadataOperation] == "" {
		all[metadataOperation] = operationOf(o)
	}
	return all
}

// operationOf is what happened: by the event's own word, or the last part of its type.
func operationOf(o *conclave.Occurrence) string {
	if named := o.Metadata[metadataOperation]; named != "" {
		return named
	}
	return o.Type[strings.LastIndexByte(o.Type, '/')+1:]
}

// after is the cursor behind event i: before the next of the record, or before the next record. The cursor within a record
// has the link after it, since the record must be there.
func (r *Record) after(i int) Cursor {
	c := at(r.Seq+1, r.Link)
	if i+1 < len(r.Events) {
		c.Seq, c.Done = r.Seq, uint16(i+1)
	}
	return c
}

// id is the same for the same event on every node and for every reader: a UUID of version 8 (RFC 9562), the beginning of
// SHA-256("conclave event" ‖ digest of the record ‖ number of the event (2, big-endian)).
func (r *Record) id(i int) string {
	h := sha256.New()
	h.Write([]byte("conclave event"))
	h.Write(r.Digest[:])
	var number [2]byte
	binary.BigEndian.PutUint16(number[:], uint16(i))
	h.Write(number[:])
	b := h.Sum(nil)[:16]
	b[6], b[8] = b[6]&0x0f|0x80, b[8]&0x3f|0x80
	text := hex.EncodeToString(b)
	return text[:8] + "-" + text[8:12] + "-" + text[12:16] + "-" + text[16:20] + "-" + text[20:]
}
