package lease

import (
	"context"
	"encoding/json"
	"errors"
	"strings"

	"conclave"
	"conclave/internal/timeline"
)

// Damage is the note of a lease whose record can't be read: nothing looks at it any more, so that it holds up no other, and a
// person decides. JSON.
type Damage struct {
	ID    string `json:"id"`    // of the lease, "" if only its key is known
	Path  string `json:"path"`  // where the record is
	Since int64  `json:"since"` // Unix nanoseconds
	Error string `json:"error"`
}

// errDamaged is that of a record that is stored as it was written, and makes no sense.
var errDamaged = conclave.Errorf(conclave.Internal, "the stored record of a lease is damaged")

func decodeDamage(value []byte) (*Damage, error) {
	d := &Damage{}
	if err := json.Unmarshal(value, d); err != nil || d.Path == "" || d.Since == 0 {
		return nil, conclave.Errorf(conclave.Internal, "the note of a damaged lease is damaged")
	}
	return d, nil
}

// setAside notes that the record at a path can't be read. Entries of it are the caller's to remove.
func setAside(tx conclave.Tx, key, id, path string, why error) error {
	value, err := json.Marshal(&Damage{ID: id, Path: path, Since: tx.Now().UnixNano(), Error: conclave.Reason(why)})
	if err != nil {
		return err
	}
	return tx.Put(damagedDir+key, value)
}

// SetAside takes entries of the index of expiry out whose leases can't be looked at, without reading their records: for what
// not even the storage can open.
func SetAside(tx conclave.Tx, due Due, why error) error {
	for _, e := range due {
		id, err := tx.Get(e.Dir + e.Key)
		if err != nil {
			return err
		}
		if id == nil {
			continue
		}
		if err := errors.Join(tx.Delete(e.Dir+e.Key), setAside(tx, e.Key, string(id), idDir+string(id), why)); err != nil {
			return err
		}
	}
	return nil
}

// SetEndingAside does so for leases that are over, by their entries in a mount's queue.
func SetEndingAside(tx conclave.Tx, due Due, why error) error {
	for _, e := range due {
		if err := errors.Join(tx.Delete(e.Dir+e.Key), setAside(tx, e.Key, "", endingDir+e.Key, why)); err != nil {
			return err
		}
	}
	return nil
}

// One is the part of what is due that one entry is.
func (d Due) One(i int) Due { return d[i : i+1] }

// FindDueOf finds at most limit entries of a mount's queue that are due, without reading the leases.
func FindDueOf(view conclave.View, mount string, limit int) (Due, error) {
	return dueIndex(mount).Due(view, min(max(limit, 1), MaxStep))
}

// damageRoutes are about leases whose records can't be read.
func (s *Setup) damageRoutes() []conclave.Route {
	return []conclave.Route{
		conclave.ReadRoute(conclave.List, "leases/damaged", "List the leases whose records can't be read, by their keys.", s.listDamaged).With(conclave.Sudo),
		conclave.ReadRoute(conclave.Read, "leases/damaged/{key}", "Read what is known of a lease whose record can't be read.", s.readDamaged).With(conclave.Sudo),
		conclave.WriteRoute(conclave.Update, "leases/damaged/{key}/retry", "Look at the lease again, as after its record was repaired.", s.retryDamaged).With(conclave.Sudo),
		conclave.WriteRoute(conclave.Delete, "leases/damaged/{key}", "Forget a lease whose record can't be read: what it stands for may live on outside.", s.forgetDamaged).With(conclave.Sudo),
	}
}

func (s *Setup) listDamaged(_ context.Context, view conclave.View, in *pageInput) (*conclave.Response, error) {
	return detailed(view, damagedDir, in, func(value []byte) (any, error) {
		d, err := decodeDamage(value)
		if err != nil {
			return nil, err
		}
		return &damageOutput{LeaseID: d.ID, Since: spell(d.Since), Error: d.Error}, nil
	})
}

type damageOutput struct {
	LeaseID string `json:"lease_id" doc:"The lease's id, if it is known."`
	Since   string `json:"since" doc:"When it was noticed."`
	Error   string `json:"error" doc:"Why its record can't be read."`
}

func seekDamage(view conclave.View, key string) (*Damage, error) {
	if !validKey(key) {
		return nil, &conclave.Error{Kind: conclave.NotFound}
	}
	value, err := view.Get(damagedDir + key)
	if err != nil {
		return nil, err
	}
	if value == nil {
		return nil, &conclave.Error{Kind: conclave.NotFound}
	}
	return decodeDamage(value)
}

func (s *Setup) readDamaged(_ context.Context, view conclave.View, in *keyInput) (*damageOutput, error) {
	d, err := seekDamage(view, in.Key)
	if err != nil {
		return nil, err
	}
	return &damageOutput{LeaseID: d.ID, Since: spell(d.Since), Error: d.Error}, nil
}

// retryDamaged reads the record: if that fails again, nothing has changed.
func (s *Setup) retryDamaged(_ context.Context, tx conclave.Tx, in *keyInput) (*conclave.None, error) {
	d, err := seekDamage(tx, in.Key)
	if err != nil {
		return nil, err
	}
	r, err := loadAt(tx, d.Path)
	if err != nil {
		return nil, err
	}
	if err := tx.Delete(damagedDir + in.Key); err != nil || r == nil {
		return nil, err
	}
	if r.Ending != nil {
		return nil, r.queue(tx, 0)
	}
	now := *r
	now.Look = tx.Now().Add(-timeline.SlotTime).UnixNano()
	return nil, errors.Join(expiryIndex.Put(tx, now.Look, now.Key(), now.ID), storeAt(tx, idDir+now.ID, &now))
}

type forgetInput struct {
	keyInput
	Mount string `json:"mount_uuid" doc:"The mount that the lease is of; needed if its path doesn't tell."`
}

// forgetDamaged removes the record unread.
func (s *Setup) forgetDamaged(_ context.Context, tx conclave.Tx, in *forgetInput) (*conclave.None, error) {
	d, err := seekDamage(tx, in.Key)
	if err != nil {
		return nil, err
	}
	mount := in.Mount
	if mount == "" {
		if mount, err = s.mountOf(tx, d.ID); err != nil {
			return nil, err
		}
	}
	known, err := tx.Get(mountDir + mount)
	if err != nil {
		return nil, err
	}
	if mount == "" || known == nil {
		return nil, conclave.Errorf(conclave.Invalid, "which mount is it of? See sys/leases/count, and give its 'mount_uuid'")
	}
	return nil, errors.Join(tx.Delete(d.Path), tx.Delete(damagedDir+in.Key), tx.AddCell(countDir+mount, -1, 0, errUncounted))
}

// mountOf finds the mount that a lease's id begins with, "" if there is none with leases.
func (s *Setup) mountOf(tx conclave.Tx, id string) (string, error) {
	if id == "" {
		return "", nil
	}
	mounts, err := tx.List(mountDir, "", 0)
	if err != nil {
		return "", err
	}
	for _, uuid := range mounts {
		_, inner, err := s.Mounts.Engine(tx, uuid)
		if err != nil {
			continue // it is gone
		}
		if mount := inner.Mount(); mount != nil && strings.HasPrefix(id, mount.Path) {
			return uuid, nil
		}
	}
	return "", nil
}
