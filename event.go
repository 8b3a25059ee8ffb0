package conclave

import "strings"

// Limits of events.
const (
	MaxEvents        = 64       // of one transaction
	MaxEventBytes    = 24 << 10 // of all events of one transaction, as Size counts
	MaxEventType     = 128      // bytes
	MaxEventMetadata = 16       // entries
)

// Event is something that happened in a mount, for those who may know of it. It is kept in the audit record of the
// transaction that made it happen, in the clear: nothing of it may be secret.
type Event struct {
	Type     string            // "kv-v2/data-write", "database/rotate": Vault's names where it has them
	Path     string            // what it is about, relative to the mount: "data/app"
	Metadata map[string]string // small: "operation", "current_version", "modified"
}

// Occurrence is an event with where it happened.
type Occurrence struct {
	Event
	Namespace Namespace
	Mount     *Mount // Path, Kind, Accessor and Options["version"] of it; nil for what the vault itself tells, whose Path is relative to the namespace
}

// FullPath is what the event is about, relative to its namespace: the path that policies are asked about.
func (o *Occurrence) FullPath() string {
	if o.Mount == nil {
		return o.Path
	}
	return o.Mount.Path + o.Path
}

// Size is what the event counts against MaxEventBytes, with where it happened.
func (o *Occurrence) Size() int {
	size := len(o.Type) + len(o.Path) + len(o.Namespace.ID) + len(o.Namespace.Path)
	for name, value := range o.Metadata {
		size += len(name) + len(value)
	}
	if o.Mount != nil {
		size += len(o.Mount.Path) + len(o.Mount.Kind) + len(o.Mount.Accessor)
	}
	return size
}

// Check reports what is wrong with an event.
func (e *Event) Check() error {
	switch {
	case !IsEventType(e.Type):
		return Errorf(Internal, "%q can't be the type of an event", e.Type)
	case len(e.Metadata) > MaxEventMetadata:
		return Errorf(Internal, "an event has more than %d metadata", MaxEventMetadata)
	}
	return nil
}

// IsEventType reports whether text can be an event's type: two or more segments of letters, digits, "-", "_" and ".".
func IsEventType(text string) bool {
	if len(text) > MaxEventType || !strings.Contains(text, "/") {
		return false
	}
	for segment := range strings.SplitSeq(text, "/") {
		if segment == "" {
			return false
		}
		for _, c := range []byte(segment) {
			letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
			if !letter && c != '-' && c != '_' && c != '.' {
				return false
			}
		}
	}
	return true
}
