package token

import (
	"encoding/binary"
	"encoding/hex"
	"time"

	"conclave"
)

// MaxStep is the most that one step of clearing may be asked to do.
const MaxStep = 1000

// Revoke ends a token and all tokens below it, at once. What the tokens below have stored is cleared by [Tidy]. Revoking
// a token that isn't there does nothing.
func Revoke(tx conclave.Tx, name string) error {
	r, err := load(tx, name)
	if err != nil || r == nil {
		return err
	}
	if err := removeEntries(tx, r); err != nil {
		return err
	}
	if err := noteRemains(tx, r); err != nil {
		return err
	}
	return tx.Delete(idPath(name))
}

// RevokeOrphan ends a token alone: those directly below it become orphans.
func RevokeOrphan(tx conclave.Tx, name string) error {
	r, err := load(tx, name)
	if err != nil || r == nil {
		return err
	}
	if err := removeEntries(tx, r); err != nil {
		return err
	}
	if err := tx.Put(deadPath(name), mark()); err != nil {
		return err
	}
	if err := tx.Put(bridgePath(name), mark()); err != nil {
		return err
	}
	return tx.Delete(idPath(name))
}

// removeEntries deletes all that a token has beside its record.
func removeEntries(tx conclave.Tx, r *Record) error {
	if r.Accessor != r.Name {
		if err := tx.Delete(accessorPath(r.Accessor)); err != nil {
			return err
		}
	}
	if r.Parent != "" {
		if err := tx.Delete(childPath(r.Parent, r.Name)); err != nil {
			return err
		}
	}
	if err := free(tx, r); err != nil {
		return err
	}
	if err := leave(tx, r.Name); err != nil {
		return err
	}
	return schedule(tx, r.Name, r.Expires, 0)
}

// noteRemains leaves word for Tidy if a dead token has children, or a cell of uses: that can't go in the transaction
// that revokes, since a token that revokes itself takes a use of itself in it.
func noteRemains(tx conclave.Tx, r *Record) error {
	if r.NumUses == 0 {
		children, err := tx.List(childDir(r.Name), "", 1)
		if err != nil || len(children) == 0 {
			return err
		}
	}
	return tx.Put(deadPath(r.Name), mark())
}

// Tidy clears what the dead have left: it revokes, or makes orphans of, at most limit children of tokens that were
// revoked. It returns how many, and whether there is more to do. A crash between steps loses nothing.
func Tidy(tx conclave.Tx, limit int) (done int, more bool, err error) {
	limit = min(max(limit, 1), MaxStep)
	dead, err := tx.List(deadDir, "", limit+1)
	if err != nil {
		return 0, false, err
	}
	for i, name := range dead {
		if done >= limit || i >= limit {
			return done, true, nil
		}
		children, err := tx.List(childDir(name), "", limit-done+1)
		if err != nil {
			return done, false, err
		}
		all := len(children) <= limit-done
		if !all {
			children = children[:limit-done]
		}
		if err := clearChildren(tx, name, children); err != nil {
			return done, false, err
		}
		done += len(children)
		if !all {
			return done, true, nil
		}
		if err := clearDead(tx, name); err != nil {
			return done, false, err
		}
	}
	dead, err = tx.List(deadDir, "", 1)
	return done, len(dead) > 0, err
}

// clearDead removes the last traces of a token without children.
func clearDead(tx conclave.Tx, name string) error {
	if err := tx.Delete(bridgePath(name)); err != nil { // if it is there
		return err
	}
	if _, there, err := tx.Cell(usesPath(name)); err != nil || there {
		if err = orElse(err, tx.SetCell(usesPath(name), 0, false)); err != nil {
			return err
		}
	}
	return tx.Delete(deadPath(name))
}

func clearChildren(tx conclave.Tx, parent string, children []string) error {
	bridge, err := isBridge(tx, parent)
	if err != nil {
		return err
	}
	for _, name := range children {
		child, err := load(tx, name)
		if err != nil {
			return err
		}
		switch {
		case child == nil || child.Parent != parent:
			err = nil
		case bridge:
			orphan := *child
			orphan.Parent = ""
			err = store(tx, &orphan)
		default:
			err = Revoke(tx, name)
		}
		if err != nil {
			return err
		}
		if err := tx.Delete(childPath(parent, name)); err != nil {
			return err
		}
	}
	return nil
}

// hourOf names the hour that a time lies in: eight bytes, big-endian, in hex, so that names sort by time.
func hourOf(nanos int64) string {
	var raw [8]byte
	binary.BigEndian.PutUint64(raw[:], uint64(nanos/int64(time.Hour)))
	return hex.EncodeToString(raw[:])
}

// schedule moves a token in the index of expiry from one time to another; 0 is never.
func schedule(tx conclave.Tx, name string, from, to int64) error {
	if from != 0 && to != 0 && hourOf(from) == hourOf(to) {
		return nil
	}
	if from != 0 {
		if err := tx.Delete(expiryPath(from, name)); err != nil {
			return err
		}
	}
	if to == 0 {
		return nil
	}
	return tx.Put(expiryPath(to, name), mark())
}

func expiryPath(at int64, name string) string { return expiryDir + hourOf(at) + "/" + name }

// Due lists at most limit tokens that expired in hours that are over, the earliest first. Expiry holds without this; it
// is for clearing away. It reads listings that every new token changes: run it in a transaction of its own, and hand
// what it found to [Expire].
func Due(view conclave.View, limit int) ([]string, error) {
	limit = min(max(limit, 1), MaxStep)
	var due []string
	hours, err := view.List(expiryDir, "", limit)
	if err != nil {
		return nil, err
	}
	for _, hour := range hours {
		raw, err := hex.DecodeString(hour[:max(0, len(hour)-1)])
		if err != nil || len(raw) != 8 {
			return nil, conclave.Errorf(conclave.Internal, "the index of expiring tokens is damaged")
		}
		end := time.Unix(0, 0).Add(time.Duration(binary.BigEndian.Uint64(raw)+1) * time.Hour)
		if len(due) >= limit || !view.Reached(end) {
			break
		}
		names, err := view.List(expiryDir+hour, "", limit-len(due))
		if err != nil {
			return nil, err
		}
		due = append(due, names...)
	}
	return due, nil
}

// Expire revokes those of the named tokens that have expired, at most MaxStep of them, and returns how many it did.
func Expire(tx conclave.Tx, names []string) (int, error) {
	done := 0
	for _, name := range names[:min(len(names), MaxStep)] {
		r, err := load(tx, name)
		if err != nil {
			return done, err
		}
		if r == nil || !r.expired(tx) {
			continue
		}
		if err := Revoke(tx, name); err != nil {
			return done, err
		}
		done++
	}
	return done, nil
}
