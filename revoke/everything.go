package revoke

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"conclave"
	"conclave/identity"
	"conclave/lease"
	"conclave/mount"
	"conclave/token"
)

// everythingDir is where jobs that revoke everything are, in the system space of their namespace: JSON, by id.
const everythingDir = "everything/"

// Limits of jobs that revoke everything.
const (
	maxEverything = 32  // jobs of a namespace that are kept
	maxListed     = 200 // items that a report names
	maxFailures   = 100 // failures that a report names
	itemBatch     = 32  // what an engine takes back in one transaction
	holdsCounted  = 1000
)

// Scope is what everything is: that of an entity, of the token of an accessor, or below a path or mount. One is set.
type Scope struct {
	Entity   string `json:"entity,omitempty"`
	Accessor string `json:"accessor,omitempty"`
	Path     string `json:"path,omitempty"` // without slashes around it
	Mount    string `json:"mount,omitempty"`
}

// phase is what a job is at.
type phase string

// The phases, in their order.
const (
	atTokens phase = "tokens"
	atLeases phase = "leases"
	atMounts phase = "mounts"
	atEnd    phase = "done"
)

// Everything is a job that revokes everything of a scope, or tells what it would revoke. Times are Unix nanoseconds.
type Everything struct {
	ID       string         `json:"id"`
	Scope    Scope          `json:"scope"`
	Dry      bool           `json:"dry_run,omitempty"`
	Reason   string         `json:"reason,omitempty"`
	By       string         `json:"by,omitempty"`       // display name of who asked for it
	Except   string         `json:"except,omitempty"`   // the name of the token that asked for it: it isn't revoked
	Phase    phase          `json:"phase"`              //
	Cursor   string         `json:"cursor,omitempty"`   // of the phase
	Mount    string         `json:"mount,omitempty"`    // UUID of the mount that atMounts is at, "" before the first
	Started  int64          `json:"started"`            //
	Finished int64          `json:"finished,omitempty"` // 0 while it runs
	Tokens   int            `json:"tokens,omitempty"`   // revoked; those below them end as well
	Leases   int            `json:"leases,omitempty"`   //
	Taken    map[string]int `json:"taken,omitempty"`    // kind → what engines have taken back
	Items    []Item         `json:"items,omitempty"`    // the first of all that
	Kept     []Item         `json:"kept,omitempty"`     // what is in scope and stays
	Failures []Item         `json:"failures,omitempty"` // the first that couldn't be taken back
	Failed   int            `json:"failed,omitempty"`   //
}

// Item is something that is revoked, or taken back.
type Item struct {
	Kind  string `json:"kind" doc:"token, lease, or what the engine calls it."`
	Name  string `json:"name" doc:"A token's accessor, or the name that it has in its mount."`
	Error string `json:"error,omitempty" doc:"Why it could not be taken back."`
}

func decodeEverything(value []byte) (*Everything, error) {
	e := &Everything{}
	if err := json.Unmarshal(value, e); err != nil || e.ID == "" || e.Started == 0 || !slices.Contains([]phase{atTokens, atLeases, atMounts, atEnd}, e.Phase) {
		return nil, conclave.Errorf(conclave.Internal, "a stored job that revokes everything is damaged")
	}
	return e, nil
}

func loadEverything(view conclave.View, id string) (*Everything, error) {
	if id == "" || len(id) > 128 || strings.Contains(id, "/") {
		return nil, nil
	}
	value, err := view.Get(everythingDir + id)
	if err != nil || value == nil {
		return nil, err
	}
	return decodeEverything(value)
}

func (e *Everything) store(tx conclave.Tx) error {
	value, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return tx.Put(everythingDir+e.ID, value)
}

func (e *Everything) list(kind, name string) {
	if len(e.Items) < maxListed {
		e.Items = append(e.Items, Item{Kind: kind, Name: name})
	}
}

func (e *Everything) fail(kind, name string, why error) {
	e.Failed++
	if len(e.Failures) < maxFailures {
		e.Failures = append(e.Failures, Item{Kind: kind, Name: name, Error: conclave.Reason(why)})
	}
}

func (e *Everything) next(p phase) { e.Phase, e.Cursor = p, "" }

// path is what leases and mounts are in scope by, "" if none is.
func (s *Scope) path() string {
	if s.Mount != "" {
		return s.Mount
	}
	return s.Path
}

// begin does at once what makes everything unusable, in the transaction that answers: what follows clears it away.
func (e *Everything) begin(tx conclave.Tx) error {
	switch path := e.Scope.path(); {
	case e.Scope.Accessor != "":
		r, err := token.ByAccessor(tx, e.Scope.Accessor)
		if err != nil {
			return err
		}
		if r == nil {
			return conclave.Errorf(conclave.Invalid, "there is no token with that accessor")
		}
		if e.Dry {
			return nil
		}
		kept, err := e.spares(tx, r)
		if err != nil || kept {
			return err
		}
		return e.revoke(tx, r)
	case e.Scope.Entity != "":
		if who, err := identity.Of(tx, e.Scope.Entity); err != nil || who == nil {
			return orElse(err, conclave.Errorf(conclave.Invalid, "there is no such entity"))
		}
		if e.Dry {
			return nil
		}
		_, err := identity.Disable(tx, e.Scope.Entity)
		return err
	default:
		if e.Dry || strings.HasPrefix(path+"/", "auth/") {
			return nil
		}
		return lease.StartCounted(tx, e.ID, path, e.By)
	}
}

// checkMount wants a mount to be there, and completes the scope by it.
func checkMount(view conclave.View, s *Scope) error {
	if s.Mount == "" {
		return nil
	}
	table, err := mount.Load(view, mount.Defaults{})
	if err != nil {
		return err
	}
	if entry, _, ok := table.Find(s.Mount + "/"); !ok || entry.Path != s.Mount+"/" {
		return conclave.Errorf(conclave.Invalid, "nothing is mounted at %s/", s.Mount)
	}
	return nil
}

func spell(nanos int64) string { return time.Unix(0, nanos).UTC().Format(time.RFC3339Nano) }

func orElse(err, other error) error {
	if err != nil {
		return err
	}
	return other
}

// step takes the job on by a bounded amount, in one transaction. limit bounds what engines take back in it; with 1 it does as
// little as it can.
func (e *Everything) step(tx conclave.Tx, engines lease.Mounts, limit int) (err error) {
	switch e.Phase {
	case atTokens:
		err = e.tokens(tx, batchOf(limit))
	case atLeases:
		err = e.leases(tx)
	case atMounts:
		err = e.mounts(tx, engines, limit)
	}
	if err != nil {
		return err
	}
	if e.Phase == atEnd && e.Finished == 0 {
		e.Finished = tx.Now().UnixNano()
	}
	return e.store(tx)
}

// tokens looks at some more tokens.
func (e *Everything) tokens(tx conclave.Tx, limit int) error {
	if path := e.Scope.path(); path != "" && !strings.HasPrefix(path+"/", "auth/") {
		e.next(atLeases) // a secrets engine makes no tokens
		return nil
	}
	found, next, err := token.Scan(tx, e.Cursor, limit)
	if err != nil {
		return err
	}
	for _, r := range found {
		in, err := e.covers(tx, r)
		if err != nil {
			return err
		}
		if !in {
			continue
		}
		kept, err := e.spares(tx, r)
		if err != nil {
			return err
		}
		if kept {
			continue
		}
		if err := e.revoke(tx, r); err != nil {
			return err
		}
	}
	if e.Cursor = next; next == "" {
		e.next(atLeases)
	}
	return nil
}

// batchOf is how many tokens are looked at where engines take back at most limit items.
func batchOf(limit int) int {
	if limit == 1 {
		return 1
	}
	return stepBatch
}

// skip passes over the next thing, which can't be revoked, and notes it.
func (e *Everything) skip(tx conclave.Tx, engines lease.Mounts, why error) error {
	switch e.Phase {
	case atTokens:
		name, err := token.NextName(tx, e.Cursor)
		if err != nil {
			return err
		}
		e.fail("token", name, why)
		if e.Cursor = name; name == "" {
			e.next(atLeases)
		}
	case atLeases:
		e.fail("leases", e.Scope.path(), why)
		e.next(atMounts)
	case atMounts:
		if err := e.skipItem(tx, engines, why); err != nil {
			return err
		}
	}
	return e.store(tx)
}

// skipItem passes over the next item of an engine, or all of the mount if that can't tell.
func (e *Everything) skipItem(tx conclave.Tx, engines lease.Mounts, why error) error {
	table, err := mount.Load(tx, mount.Defaults{})
	if err != nil {
		return err
	}
	entry := e.mountAt(table)
	if entry == nil {
		e.next(atEnd)
		return nil
	}
	e.Mount = entry.UUID
	if engine, inner, err := engines.Engine(tx, entry.UUID); err == nil {
		if able, ok := engine.(conclave.Emergency); ok {
			items, next, err := able.Exposed(inner, e.exposure(entry), e.Cursor, 1)
			if err == nil && len(items) == 1 && next != "" {
				e.fail(items[0].Kind, entry.Path+items[0].Name, why)
				e.Cursor = next
				return nil
			}
		}
	}
	e.fail("mount", entry.Path, why)
	return e.passMount(table)
}

func (e *Everything) exposure(entry *mount.Entry) conclave.Exposure {
	exposure := conclave.Exposure{EntityID: e.Scope.Entity, Accessor: e.Scope.Accessor}
	if path := e.Scope.path(); path != "" && len(path) > len(entry.Path) {
		exposure.Path = path[len(entry.Path):]
	}
	return exposure
}

// covers reports whether a token is in scope, itself or by one above it.
func (e *Everything) covers(view conclave.View, r *token.Record) (in bool, err error) {
	walkErr := token.Above(view, r, func(at *token.Record) bool {
		switch s := &e.Scope; {
		case s.Accessor != "":
			in = at.Accessor == s.Accessor
		case s.Entity != "":
			in = at.EntityID == s.Entity
			if !in && at.EntityID != "" { // it may be one that was merged into this one
				var who *identity.Identity
				who, err = identity.Of(view, at.EntityID)
				in = who != nil && who.ID == s.Entity
			}
		default:
			in = at.Path == s.path() || strings.HasPrefix(at.Path, s.path()+"/")
		}
		return in || err != nil
	})
	return in, orElse(err, walkErr)
}

// spares notes a token that stays although it is in scope: that of whoever asked, and those above it.
func (e *Everything) spares(view conclave.View, r *token.Record) (spared bool, err error) {
	if e.Except == "" {
		return false, nil
	}
	caller, err := token.Find(view, e.Except)
	if err != nil || caller == nil {
		return false, err
	}
	err = token.Above(view, caller, func(at *token.Record) bool {
		spared = at.Name == r.Name
		return spared
	})
	if spared && !slices.Contains(e.Kept, Item{Kind: "token", Name: r.Accessor}) && len(e.Kept) < maxListed {
		e.Kept = append(e.Kept, Item{Kind: "token", Name: r.Accessor})
	}
	return spared, err
}

func (e *Everything) revoke(tx conclave.Tx, r *token.Record) error {
	holds, err := token.Holds(tx, r.Name, holdsCounted)
	if err != nil {
		return err
	}
	e.Tokens++
	e.Leases += holds
	e.list("token", r.Accessor)
	if e.Dry {
		return nil
	}
	return token.Revoke(tx, r.Name)
}

// leases queues some more leases, or counts them.
func (e *Everything) leases(tx conclave.Tx) error {
	path := e.Scope.path()
	if path == "" || strings.HasPrefix(path+"/", "auth/") { // they end with their tokens
		e.next(atMounts)
		return nil
	}
	if e.Dry {
		n, next, err := lease.CountBelow(tx, path, e.Cursor, stepBatch)
		if err != nil {
			return err
		}
		e.Leases += n
		if e.Cursor = next; next == "" {
			e.next(atMounts)
		}
		return nil
	}
	keys, done, err := lease.Step(tx, e.ID, stepBatch)
	if err != nil {
		return err
	}
	e.Leases += len(keys)
	if done {
		e.next(atMounts)
	}
	return nil
}

// servedHere are kinds of mounts that have nothing to take back.
var servedHere = []string{"system", "token", "identity", "cubbyhole"}

// mounts has an engine take back some more of what it has given out.
func (e *Everything) mounts(tx conclave.Tx, engines lease.Mounts, limit int) error {
	table, err := mount.Load(tx, mount.Defaults{})
	if err != nil {
		return err
	}
	entry := e.mountAt(table)
	if entry == nil {
		e.next(atEnd)
		return nil
	}
	e.Mount = entry.UUID
	engine, inner, err := engines.Engine(tx, entry.UUID)
	if err != nil {
		return err
	}
	able, ok := engine.(conclave.Emergency)
	if !ok {
		return e.passMount(table)
	}
	items, next, err := able.Exposed(inner, e.exposure(entry), e.Cursor, limit)
	if err != nil {
		return err
	}
	for _, item := range items {
		if !e.Dry {
			if err := guarded(func() error { return able.TakeBack(inner, item) }); err != nil {
				return err
			}
		}
		if e.Taken == nil {
			e.Taken = map[string]int{}
		}
		e.Taken[item.Kind]++
		e.list(item.Kind, entry.Path+item.Name)
	}
	if e.Cursor = next; next == "" {
		return e.passMount(table)
	}
	return nil
}

// mountAt is the mount that the job is at, nil if it has been at all that are in scope.
func (e *Everything) mountAt(table *mount.Table) *mount.Entry {
	all := e.inScope(table)
	if e.Mount == "" {
		if len(all) == 0 {
			return nil
		}
		return all[0]
	}
	if e.Mount == passedAll {
		return nil
	}
	for _, entry := range all {
		if entry.UUID == e.Mount {
			return entry
		}
	}
	return nil // it was disabled meanwhile
}

// passedAll stands for the mount after the last one.
const passedAll = "-"

// passMount goes on with the next mount.
func (e *Everything) passMount(table *mount.Table) error {
	all := e.inScope(table)
	at := slices.IndexFunc(all, func(entry *mount.Entry) bool { return entry.UUID == e.Mount })
	e.Cursor = ""
	if at < 0 || at == len(all)-1 {
		e.Mount = passedAll
		e.next(atEnd)
		return nil
	}
	e.Mount = all[at+1].UUID
	return nil
}

// inScope are the mounts that may have to take something back, always in the same order.
func (e *Everything) inScope(table *mount.Table) []*mount.Entry {
	var found []*mount.Entry
	path := e.Scope.path()
	for _, entry := range table.Entries() {
		if entry.Auth() || slices.Contains(servedHere, entry.Kind) {
			continue
		}
		if path == "" || strings.HasPrefix(path+"/", entry.Path) || strings.HasPrefix(entry.Path, path+"/") {
			found = append(found, entry)
		}
	}
	slices.SortFunc(found, func(a, b *mount.Entry) int { return strings.Compare(a.UUID, b.UUID) })
	return found
}
