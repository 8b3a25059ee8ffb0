package pipeline

import (
	"strings"

	"conclave"
	"conclave/namespace"
	"conclave/store"
	"conclave/token"
)

// level is one namespace on the way from the root to the request's own.
type level struct {
	conclave.Namespace
	system *store.View
}

// unlockPath is what a locked namespace still serves.
const unlockPath = "sys/namespaces/api-lock/unlock"

var errLocked = conclave.Errorf(conclave.Unavailable, "API access to this namespace has been locked by an administrator")

// descend opens the levels down to the namespace that the request's header names. A name that leads nowhere ends the way:
// found is false.
func descend(tx *store.Tx, req *conclave.Request) (levels []level, found bool, err error) {
	levels = make([]level, 1, 4)
	levels[0] = level{conclave.Namespace{ID: conclave.RootNamespace}, tx.System()}
	for rest := req.Namespace; rest != ""; {
		name, below, _ := strings.Cut(rest, "/")
		next, err := levels[len(levels)-1].child(tx, name, req)
		if err != nil || next == nil {
			return levels, false, err
		}
		levels, rest = append(levels, *next), below
	}
	return levels, true, nil
}

// child opens the namespace of a name directly below, nil if there is none.
func (l *level) child(tx *store.Tx, name string, req *conclave.Request) (*level, error) {
	table, err := namespace.Load(l.system)
	if err != nil {
		return nil, err
	}
	e := table.Find(name)
	if e == nil {
		return nil, nil
	}
	if e.Locked() && !strings.HasPrefix(req.Path, unlockPath) {
		return nil, errLocked
	}
	system, err := tx.Space(e.Space, "", nil)
	if err != nil {
		return nil, err
	}
	return &level{conclave.Namespace{ID: e.ID, Path: l.Path + name + "/"}, system}, nil
}

// within is the request as it is in a namespace that its path began with.
func within(req *conclave.Request, inner conclave.Namespace, rest string) *conclave.Request {
	moved := *req
	moved.Namespace, moved.Path = inner.Path, rest
	return &moved
}

// homeOf is the level that a token lives on: that of the request or one above it, as the token itself says.
func homeOf(secret conclave.Secret, levels []level) *level {
	id := token.NamespaceID(secret)
	for i := range levels[1:] {
		if levels[1+i].ID == id {
			return &levels[1+i]
		}
	}
	return &levels[0]
}
