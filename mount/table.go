package mount

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"conclave"
)

// Limits of the table.
const (
	MaxEntries  = 4000
	maxPath     = 512                        // bytes of a mount's path
	maxSegments = 16                         // segments of a mount's path
	maxText     = 4096                       // bytes of a description
	maxOptions  = 64                         // options, and names in each list of the configuration
	maxMoves    = 64                         // moves that are remembered
	maxTTL      = 100 * 365 * 24 * time.Hour // so that times fit 64 bits of nanoseconds
)

const (
	recordPath = "mounts"
	authPrefix = "auth/"
)

// Entry is one mount. Entries of a table are shared: they must not be changed.
type Entry struct {
	UUID        string            `json:"uuid"`
	Path        string            `json:"path"` // ends in "/"; of auth methods with "auth/" before it
	Kind        string            `json:"kind"` // of the plug-in
	Accessor    string            `json:"accessor"`
	Description string            `json:"description,omitempty"`
	Options     map[string]string `json:"options,omitempty"`
	Config      Config            `json:"config"`
	Space       conclave.Space    `json:"space"` // zero for those that use the system space: sys/ and auth/token/
	Created     int64             `json:"created"`
	Local       bool              `json:"local,omitempty"`
	SealWrap    bool              `json:"seal_wrap,omitempty"`
	Builtin     bool              `json:"builtin,omitempty"` // made by Initial; can't be moved or disabled

	mount *conclave.Mount
}

// Config is what can be tuned. The zero value is the default.
type Config struct {
	DefaultTTL                int64    `json:"default_lease_ttl" doc:"Lifetime where a request asks for none, seconds; 0 is the server's default."`
	MaxTTL                    int64    `json:"max_lease_ttl" doc:"The longest lifetime, seconds; 0 is the server's."`
	ForceNoCache              bool     `json:"force_no_cache" doc:"Kept for clients; nothing is cached without a check here."`
	AuditNonHMACRequestKeys   []string `json:"audit_non_hmac_request_keys,omitempty" doc:"Request fields that are written to the audit log as they are."`
	AuditNonHMACResponseKeys  []string `json:"audit_non_hmac_response_keys,omitempty" doc:"Response fields that are written to the audit log as they are."`
	ListingVisibility         string   `json:"listing_visibility,omitempty" doc:"unauth shows the mount to callers without a token."`
	PassthroughRequestHeaders []string `json:"passthrough_request_headers,omitempty" doc:"Request headers that the plug-in sees."`
	AllowedResponseHeaders    []string `json:"allowed_response_headers,omitempty" doc:"Response headers that the plug-in may set."`
	TokenType                 string   `json:"token_type,omitempty" doc:"The type of token that logins get."`
	UserLockout               *Lockout `json:"user_lockout_config,omitempty" doc:"How wrong guesses at accounts lock them; null is the default."`
}

// Lockout is how wrong guesses at the accounts of an auth method lock them. Zero values are the defaults.
type Lockout struct {
	Threshold int64 `json:"lockout_threshold" doc:"Wrong guesses that lock; 0 is 5."`
	Duration  int64 `json:"lockout_duration" doc:"How long, seconds; 0 is 15 minutes."`
	Reset     int64 `json:"lockout_counter_reset_duration" doc:"Time without a wrong guess after which all are forgotten, seconds; 0 is 15 minutes."`
	Disable   bool  `json:"lockout_disable" doc:"Don't lock accounts."`
}

// Mount describes the entry to handlers. It must not be changed.
func (e *Entry) Mount() *conclave.Mount { return e.mount }

// Auth reports whether the entry is an auth method.
func (e *Entry) Auth() bool { return strings.HasPrefix(e.Path, authPrefix) }

// Defaults are the server's lifetimes, for mounts that have none of their own. Zero values are 768 hours, as in Vault.
type Defaults struct{ DefaultTTL, MaxTTL time.Duration }

func (d Defaults) fill() Defaults {
	const usual = 768 * time.Hour
	return Defaults{cmp.Or(d.DefaultTTL, usual), cmp.Or(d.MaxTTL, usual)}
}

// ttls resolves a mount's lifetimes: a maximum below the server's default pulls that down.
func (c *Config) ttls(d Defaults) (defaultTTL, maxTTL time.Duration) {
	d = d.fill()
	maxTTL = cmp.Or(time.Duration(c.MaxTTL)*time.Second, d.MaxTTL)
	return min(cmp.Or(time.Duration(c.DefaultTTL)*time.Second, d.DefaultTTL), maxTTL), maxTTL
}

// move is one finished move of a mount.
type move struct {
	ID   string `json:"id"`
	From string `json:"from"`
	To   string `json:"to"`
}

// Table is a namespace's mount table. It is immutable.
type Table struct {
	defaults Defaults
	entries  []*Entry
	// byPath maps the path without its last slash → entry.
	byPath map[string]*Entry
	moves  []move
}

// record is how a table is stored.
type record struct {
	Entries []*Entry `json:"entries"`
	Moves   []move   `json:"moves,omitempty"`
}

// decoded is the record of one version, and the tables made of it for the defaults that were asked for lately: requests
// have those of the server, the vault's own work has none. Entries must stay the same for as long as the record does,
// since what is made of an entry is kept by it.
type decoded struct {
	record
	tables atomic.Pointer[[]*Table]
}

// maxTables bounds the tables of one record.
const maxTables = 4

// Load returns the namespace's table. It is decoded once per version.
func Load(view conclave.View, defaults Defaults) (*Table, error) {
	loaded, err := view.Load(recordPath, func(value []byte) (any, error) { return decode(value) })
	if err != nil {
		return nil, err
	}
	if d, ok := loaded.(*decoded); ok {
		return d.with(defaults), nil
	}
	return newTable(record{}, defaults), nil
}

func decode(value []byte) (*decoded, error) {
	d := &decoded{}
	if err := json.Unmarshal(value, &d.record); err != nil {
		return nil, conclave.Errorf(conclave.Internal, "the stored mount table is damaged")
	}
	for _, e := range d.Entries {
		if e == nil || !strings.HasSuffix(e.Path, "/") || e.Kind == "" {
			return nil, conclave.Errorf(conclave.Internal, "the stored mount table has a damaged entry")
		}
	}
	return d, nil
}

func (d *decoded) with(defaults Defaults) *Table {
	for {
		known := d.tables.Load()
		var tables []*Table
		if known != nil {
			tables = *known
		}
		if at := slices.IndexFunc(tables, func(t *Table) bool { return t.defaults == defaults }); at >= 0 {
			return tables[at]
		}
		if len(tables) == maxTables {
			tables = nil
		}
		t := newTable(d.record, defaults)
		if tables = append(slices.Clip(tables), t); d.tables.CompareAndSwap(known, &tables) {
			return t
		}
	}
}

func newTable(r record, defaults Defaults) *Table {
	t := &Table{defaults: defaults, entries: make([]*Entry, len(r.Entries)), byPath: make(map[string]*Entry, len(r.Entries)), moves: r.Moves}
	for i, stored := range r.Entries {
		e := *stored
		defaultTTL, maxTTL := e.Config.ttls(defaults)
		e.mount = &conclave.Mount{UUID: e.UUID, Path: e.Path, Kind: e.Kind, Accessor: e.Accessor, Description: e.Description,
			Options: e.Options, DefaultTTL: defaultTTL, MaxTTL: maxTTL, Local: e.Local, SealWrap: e.SealWrap, TokenType: e.Config.TokenType}
		t.entries[i], t.byPath[strings.TrimSuffix(e.Path, "/")] = &e, &e
	}
	return t
}

// Entries are all mounts, sorted by path. The slice must not be changed.
func (t *Table) Entries() []*Entry { return t.entries }

// Find returns the mount that serves a path, and the rest of the path below it.
func (t *Table) Find(path string) (entry *Entry, rest string, ok bool) {
	for at := strings.TrimSuffix(path, "/"); at != ""; {
		if e := t.byPath[at]; e != nil {
			return e, path[min(len(at)+1, len(path)):], true
		}
		at = at[:max(0, strings.LastIndexByte(at, '/'))]
	}
	return nil, "", false
}

// ByUUID returns the mount that a UUID names, wherever it is now; nil if it is gone.
func (t *Table) ByUUID(uuid string) *Entry {
	at := slices.IndexFunc(t.entries, func(e *Entry) bool { return e.UUID == uuid })
	if at < 0 {
		return nil
	}
	return t.entries[at]
}

// ByAccessor returns the mount that an accessor names; nil if there is none.
func (t *Table) ByAccessor(accessor string) *Entry {
	at := slices.IndexFunc(t.entries, func(e *Entry) bool { return e.Accessor == accessor })
	if at < 0 {
		return nil
	}
	return t.entries[at]
}

// Uses reports whether a mount lies at, over or under a path that ends in "/".
func (t *Table) Uses(path string) bool { return t.conflict(path, nil) != nil }

// at returns the mount with exactly this path, nil if there is none.
func (t *Table) at(path string) *Entry { return t.byPath[strings.TrimSuffix(path, "/")] }

// conflict returns a mount that lies at, over or under a path that ends in "/", passing over one entry.
func (t *Table) conflict(path string, except *Entry) *Entry {
	for _, e := range t.entries {
		if e != except && (strings.HasPrefix(e.Path, path) || strings.HasPrefix(path, e.Path)) {
			return e
		}
	}
	return nil
}

// save stores the table with one entry taken out and another put in; either may be nil.
func (t *Table) save(tx conclave.Tx, out, in *Entry, moves []move) error {
	entries := slices.DeleteFunc(slices.Clone(t.entries), func(e *Entry) bool { return e == out })
	if in != nil {
		at, _ := slices.BinarySearchFunc(entries, in.Path, func(e *Entry, path string) int { return strings.Compare(e.Path, path) })
		entries = slices.Insert(entries, at, in)
	}
	if len(entries) > MaxEntries {
		return conclave.Errorf(conclave.Invalid, "a namespace has at most %d mounts", MaxEntries)
	}
	return put(tx, entries, moves)
}

func put(tx conclave.Tx, entries []*Entry, moves []move) error {
	value, err := json.Marshal(record{entries, moves})
	if err != nil {
		return err
	}
	if len(value) > conclave.MaxValue {
		return conclave.Errorf(conclave.TooLarge, "the mount table is full: it has at most %d bytes", conclave.MaxValue)
	}
	return tx.Put(recordPath, value)
}
