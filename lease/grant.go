package lease

import (
	"encoding/json"
	"time"

	"conclave"
)

// Grant is what a new lease is made of.
type Grant struct {
	Mount *conclave.Mount
	Path  string // of the request, relative to the mount
	Lease *conclave.Lease
	// Letters are what [Mint] made.
	Letters string
	// Owner is the token that the lease ends with, nil if there is none.
	Owner *Owner
	// OwnerEnds is when that token ends at the latest, 0 if it has no end; for batch tokens, Within, the lease itself ends then.
	OwnerEnds int64
	Within    bool
	Counted   string // by which lease count
}

// New stores a lease, in the transaction of the request that gets it. tx is the system space of the mount's namespace. The
// lease lives for what the engine wants or the mount's default, within the mount's maximum.
func New(tx conclave.Tx, g Grant) (*Record, error) { return g.store(tx, false) }

func (g *Grant) store(tx conclave.Tx, intent bool) (*Record, error) {
	if len(g.Lease.Data) > maxData {
		return nil, errTooMuch
	}
	now := tx.Now()
	key := g.Letters
	if !tx.Namespace().IsRoot() {
		key += "." + tx.Namespace().ID
	}
	r := &Record{ID: g.Mount.Path + trimmed(g.Path) + key, MountUUID: g.Mount.UUID, MountPath: g.Mount.Path, Path: g.Path,
		Issued: now.UnixNano(), Renewable: g.Lease.Renewable, MaxTTL: g.Lease.MaxTTL, Owner: g.Owner, Counted: g.Counted,
		Intent: intent, Data: g.Lease.Data}
	if !validID(r.ID) {
		return nil, conclave.Errorf(conclave.Invalid, "the path is too long or too deep for a lease")
	}
	r.last(g, now)
	if err := count(tx, r.MountUUID); err != nil {
		return nil, err
	}
	if err := expiryIndex.Put(tx, r.Look, key, r.ID); err != nil {
		return nil, err
	}
	value, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	return r, tx.PutNew(idDir+r.ID, value)
}

// last sets how long a new lease lives, and when it must be looked at.
func (r *Record) last(g *Grant, now time.Time) {
	ttl := min(firstOf(g.Lease.TTL, g.Mount.DefaultTTL), r.maxTTL(g.Mount))
	if r.Intent {
		ttl, r.Renewable = intentTime, false
	}
	r.Expires = now.Add(ttl).UnixNano()
	if g.Within && g.OwnerEnds != 0 && !r.Intent { // an intent is over when its request is
		r.Expires, r.Renewable = min(r.Expires, g.OwnerEnds), false
	}
	r.lookBy(g.OwnerEnds)
}

var errTooMuch = conclave.Errorf(conclave.Internal, "the engine keeps more than %d bytes in a lease", maxData)

// trimmed is a path as the middle of an id.
func trimmed(path string) string {
	for len(path) > 0 && path[len(path)-1] == '/' {
		path = path[:len(path)-1]
	}
	if path == "" {
		return ""
	}
	return path + "/"
}

func firstOf(a, b time.Duration) time.Duration {
	if a > 0 {
		return a
	}
	return b
}

func (r *Record) maxTTL(mount *conclave.Mount) time.Duration {
	if r.MaxTTL > 0 {
		return min(r.MaxTTL, mount.MaxTTL)
	}
	return mount.MaxTTL
}

// lookBy sets when the lease must be looked at: at its end, or that of its owner.
func (r *Record) lookBy(ownerEnds int64) {
	r.Look = r.Expires
	if ownerEnds != 0 {
		r.Look = min(r.Look, ownerEnds)
	}
}

// TTL is the time that the lease has left.
func (r *Record) TTL(now time.Time) time.Duration { return max(0, time.Unix(0, r.Expires).Sub(now)) }

// Answer is the lease as the client that gets or renews it is answered.
func (r *Record) Answer(now time.Time) *conclave.Lease {
	return &conclave.Lease{ID: r.ID, TTL: r.TTL(now), Renewable: r.Renewable}
}

var errUncounted = conclave.Errorf(conclave.Internal, "the count of a mount's leases is damaged")

// count adds one to a mount's leases. The mark tells that there is a cell, so that transactions that count don't conflict.
func count(tx conclave.Tx, mount string) error {
	known, err := tx.Get(mountDir + mount)
	if err != nil {
		return err
	}
	if known != nil {
		return tx.AddCell(countDir+mount, 1, 0, errUncounted)
	}
	if err := tx.Put(mountDir+mount, []byte{1}); err != nil {
		return err
	}
	return tx.SetCell(countDir+mount, 1, true)
}

// Outstanding is how many leases of a mount run or are still to be ended.
func Outstanding(view conclave.View, mount string) (int64, error) {
	known, err := view.Get(mountDir + mount)
	if err != nil || known == nil {
		return 0, err
	}
	n, _, err := view.Cell(countDir + mount)
	return n, err
}

// Close refuses to disable a mount that has leases, and otherwise forgets that it ever had any, in the transaction that
// disables it. What was abandoned stays listed.
func Close(tx conclave.Tx, mount *conclave.Mount) error {
	known, err := tx.Get(mountDir + mount.UUID)
	if err != nil || known == nil {
		return err
	}
	n, _, err := tx.Cell(countDir + mount.UUID)
	if err != nil {
		return err
	}
	if n > 0 {
		return conclave.Errorf(conclave.Invalid, "%d leases of %s are outstanding: end them first with sys/leases/revoke-prefix/%s (what can't be ended is in "+
			"sys/leases/queue, and can be abandoned)", n, mount.Path, mount.Path)
	}
	if err := tx.SetCell(countDir+mount.UUID, 0, false); err != nil {
		return err
	}
	return tx.Delete(mountDir + mount.UUID)
}

// Empty refuses to delete a namespace that has leases. tx is its system space.
func Empty(view conclave.View) error {
	mounts, err := view.List(mountDir, "", 0)
	if err != nil {
		return err
	}
	var total int64
	for _, mount := range mounts {
		n, _, err := view.Cell(countDir + mount)
		if err != nil {
			return err
		}
		total += n
	}
	if total > 0 {
		return conclave.Errorf(conclave.Invalid, "the namespace has %d outstanding leases: end them first with sys/leases/revoke-prefix, mount by mount", total)
	}
	return nil
}
