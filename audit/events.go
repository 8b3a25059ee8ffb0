package audit

import (
	"encoding/json"
	"maps"
	"slices"

	"conclave"
)

// Events are in a record as a JSON array, each with where it happened:
//
//	{"type":"kv-v2/data-write","path":"data/app","metadata":{…},"namespace":{"id":"root","path":"…"},
//	 "mount":{"path":"secret/","type":"kv","accessor":"kv_12345678","version":"2"}}
//
// The path is relative to the mount. What is empty is left out, and so is the mount of what is of none.
type storedEvent struct {
	Type      string            `json:"type"`
	Path      string            `json:"path"`
	Metadata  map[string]string `json:"metadata"`
	Namespace struct {
		ID   string `json:"id"`
		Path string `json:"path"`
	} `json:"namespace"`
	Mount *struct {
		Path     string `json:"path"`
		Type     string `json:"type"`
		Accessor string `json:"accessor"`
		Version  string `json:"version"`
	} `json:"mount"`
}

// mountVersion is the option of a mount that says which version of its engine runs.
const mountVersion = "version"

func appendEvents(dst []byte, events []conclave.Occurrence) []byte {
	o := &object{dst: append(dst, '[')}
	for i := range events {
		if i > 0 {
			o.dst = append(o.dst, ',')
		}
		o.event(&events[i])
	}
	return append(o.dst, ']')
}

func (o *object) event(e *conclave.Occurrence) {
	o.open()
	o.text("type", e.Type)
	o.text("path", e.Path)
	if len(e.Metadata) > 0 {
		o.name("metadata")
		o.open()
		for i, key := range slices.Sorted(maps.Keys(e.Metadata)) {
			if i > 0 {
				o.dst = append(o.dst, ',')
			}
			o.dst = append(appendQuoted(o.dst, key), ':')
			o.dst = appendQuoted(o.dst, e.Metadata[key])
		}
		o.close()
	}
	o.name("namespace")
	o.open()
	o.text("id", e.Namespace.ID)
	o.text("path", e.Namespace.Path)
	o.close()
	if e.Mount != nil {
		o.name("mount")
		o.open()
		o.text("path", e.Mount.Path)
		o.text("type", e.Mount.Kind)
		o.text("accessor", e.Mount.Accessor)
		o.text("version", e.Mount.Options[mountVersion])
		o.close()
	}
	o.close()
}

// DecodeEvents reads the events of a record. There are at most conclave.MaxEvents, and each has a type.
func DecodeEvents(part []byte) ([]conclave.Occurrence, error) {
	if len(part) == 0 {
		return nil, nil
	}
	var stored []storedEvent
	if len(part) > MaxRecord || json.Unmarshal(part, &stored) != nil || len(stored) == 0 || len(stored) > conclave.MaxEvents {
		return nil, ErrRecord
	}
	events := make([]conclave.Occurrence, len(stored))
	for i := range stored {
		s, e := &stored[i], &events[i]
		e.Event = conclave.Event{Type: s.Type, Path: s.Path, Metadata: s.Metadata}
		e.Namespace = conclave.Namespace{ID: s.Namespace.ID, Path: s.Namespace.Path}
		if s.Mount != nil {
			e.Mount = &conclave.Mount{Path: s.Mount.Path, Kind: s.Mount.Type, Accessor: s.Mount.Accessor}
			if s.Mount.Version != "" {
				e.Mount.Options = map[string]string{mountVersion: s.Mount.Version}
			}
		}
		if e.Check() != nil || s.Namespace.ID == "" {
			return nil, ErrRecord
		}
	}
	return events, nil
}
