package mfa

import (
	"encoding/json"
	"slices"
	"time"

	"conclave"
)

// Limits of unfinished logins.
const (
	// PendingTime is how long a login waits for its second factor, in cluster time.
	PendingTime = 5 * time.Minute
	// MaxPending bounds the unfinished logins of an entity. One more takes the place of the oldest: whoever knows somebody's
	// password can't keep him from logging in for longer than he goes on trying.
	MaxPending = 16
)

const pendingDir = "mfa/pending/"

func pendingPath(entityID string) string { return entityDir + entityID + "/pending" }

// Pending is a login whose first factor was right.
type Pending struct {
	EntityID  string
	MountUUID string
	Path      string // of the request that logged in
	Login     *conclave.Login
}

// stored is a pending login as it is stored.
type stored struct {
	Until  int64       `json:"until"`
	Entity string      `json:"entity"`
	Mount  string      `json:"mount"`
	Path   string      `json:"path"`
	Login  storedLogin `json:"login"`
}

type storedLogin struct {
	Alias         string              `json:"alias"`
	AliasMetadata map[string]string   `json:"alias_metadata,omitempty"`
	Groups        []string            `json:"groups,omitempty"`
	Terms         conclave.TokenTerms `json:"terms"`
	Policies      []string            `json:"policies,omitempty"`
	Metadata      map[string]string   `json:"metadata,omitempty"`
	DisplayName   string              `json:"display_name,omitempty"`
	Role          string              `json:"role,omitempty"`
	Renewable     bool                `json:"renewable,omitempty"`
	Internal      json.RawMessage     `json:"internal,omitempty"`
}

// waiting is which logins of an entity are unfinished.
type waiting struct {
	Logins []waitingLogin `json:"logins"`
}

type waitingLogin struct {
	ID    string `json:"id"`
	Until int64  `json:"until"`
}

var errPendingDamaged = conclave.Errorf(conclave.Internal, "a stored unfinished login is damaged")

func decodePending(value []byte) (*stored, error) {
	s := &stored{}
	if json.Unmarshal(value, s) != nil || !isID(s.Entity) {
		return nil, errPendingDamaged
	}
	return s, nil
}

func decodeWaiting(value []byte) (*waiting, error) {
	w := &waiting{}
	if json.Unmarshal(value, w) != nil || slices.ContainsFunc(w.Logins, func(l waitingLogin) bool { return !isID(l.ID) }) {
		return nil, errPendingDamaged
	}
	return w, nil
}

// Keep stores an unfinished login under a new id, which lets whoever knows it finish the login with the second factor.
func Keep(tx conclave.Tx, id string, p *Pending) error {
	w, err := loadWaiting(tx, p.EntityID)
	if err != nil {
		return err
	}
	if err := w.prune(tx, MaxPending-1); err != nil {
		return err
	}
	until := tx.Now().Add(PendingTime).UnixNano()
	l := p.Login
	value, err := json.Marshal(&stored{Until: until, Entity: p.EntityID, Mount: p.MountUUID, Path: p.Path,
		Login: storedLogin{l.Alias.Name, l.Alias.Metadata, l.Groups, l.Terms, l.Policies, l.Metadata, l.DisplayName, l.Role, l.Renewable, l.Internal}})
	if err != nil {
		return err
	}
	if err := tx.Put(pendingDir+id, value); err != nil {
		return err
	}
	w.Logins = append(w.Logins, waitingLogin{id, until})
	return w.save(tx, p.EntityID)
}

// Take removes an unfinished login and returns it, nil if there is none by that id any more.
func Take(tx conclave.Tx, id string) (*Pending, error) {
	if !isID(id) {
		return nil, nil
	}
	value, err := tx.Get(pendingDir + id)
	if err != nil || value == nil {
		return nil, err
	}
	s, err := decodePending(value)
	if err != nil {
		return nil, err
	}
	if tx.Reached(time.Unix(0, s.Until)) {
		return nil, nil
	}
	w, err := loadWaiting(tx, s.Entity)
	if err != nil {
		return nil, err
	}
	w.Logins = slices.DeleteFunc(w.Logins, func(l waitingLogin) bool { return l.ID == id })
	if err := w.save(tx, s.Entity); err != nil {
		return nil, err
	}
	if err := tx.Delete(pendingDir + id); err != nil {
		return nil, err
	}
	l := &s.Login
	return &Pending{EntityID: s.Entity, MountUUID: s.Mount, Path: s.Path, Login: &conclave.Login{
		Alias: conclave.Alias{Name: l.Alias, Metadata: l.AliasMetadata}, Groups: l.Groups, Terms: l.Terms, Policies: l.Policies,
		Metadata: l.Metadata, DisplayName: l.DisplayName, Role: l.Role, Renewable: l.Renewable, Internal: l.Internal}}, nil
}

func loadWaiting(view conclave.View, entityID string) (*waiting, error) {
	value, err := view.Get(pendingPath(entityID))
	if err != nil || value == nil {
		return &waiting{}, err
	}
	return decodeWaiting(value)
}

// prune removes what is over, and the oldest ones beyond a number.
func (w *waiting) prune(tx conclave.Tx, most int) error {
	var kept []waitingLogin
	for i, l := range w.Logins {
		if i >= len(w.Logins)-most && !tx.Reached(time.Unix(0, l.Until)) {
			kept = append(kept, l)
			continue
		}
		if err := tx.Delete(pendingDir + l.ID); err != nil {
			return err
		}
	}
	w.Logins = kept
	return nil
}

func (w *waiting) save(tx conclave.Tx, entityID string) error {
	if len(w.Logins) == 0 {
		return tx.Delete(pendingPath(entityID))
	}
	value, err := json.Marshal(w)
	if err != nil {
		return err
	}
	return tx.Put(pendingPath(entityID), value)
}

// Tidy removes what is left of entities and methods that are no more, and logins that nobody finished: a bounded step at a
// time. It looks at no more than limit entities after the one that the last step ended with, and returns where this one
// ended, "" after the last. exists reports whether an entity is there under this very id.
func Tidy(tx conclave.Tx, after string, limit int, exists func(entityID string) (bool, error)) (next string, err error) {
	dirs, err := tx.List(entityDir, after, limit)
	if err != nil || len(dirs) == 0 {
		return "", err
	}
	c, err := load(tx)
	if err != nil {
		return "", err
	}
	for _, dir := range dirs {
		entityID := dir[:len(dir)-1]
		there, err := exists(entityID)
		if err != nil {
			return "", err
		}
		if err := tidyEntity(tx, entityID, func(methodID string) bool { return there && c.method(methodID) != nil }, there); err != nil {
			return "", err
		}
	}
	return dirs[len(dirs)-1], nil
}

func tidyEntity(tx conclave.Tx, entityID string, keep func(methodID string) bool, there bool) error {
	methods, err := tx.List(entityDir+entityID+"/totp/", "", 0)
	if err != nil {
		return err
	}
	for _, methodID := range methods {
		if keep(methodID) {
			continue
		}
		if err := tx.Delete(secretPath(entityID, methodID)); err != nil {
			return err
		}
	}
	w, err := loadWaiting(tx, entityID)
	if err != nil || len(w.Logins) == 0 {
		return err
	}
	before, most := len(w.Logins), MaxPending
	if !there {
		most = 0
	}
	if err := w.prune(tx, most); err != nil || len(w.Logins) == before {
		return err
	}
	return w.save(tx, entityID)
}
