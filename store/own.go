package store

import (
	"context"
	"errors"

	"conclave"
	"conclave/fsm"
	"conclave/namespace"
)

// ownAttempts bounds how often the vault's own work runs because others change what it reads.
const ownAttempts = 8

// Look runs work of the vault's own on a namespace, given by its path. It isn't judged, and can't write. A namespace that is
// gone is passed over.
func (s *Store) Look(path string, work func(system conclave.Tx) error) error {
	tx, err := s.Begin()
	if err != nil {
		return err
	}
	defer tx.Close()
	system, err := tx.within(path)
	if err != nil || system == nil {
		return err
	}
	return work(system)
}

// Namespaces lists all namespaces as they are now, those above first.
func (s *Store) Namespaces() ([]conclave.Namespace, error) {
	tx, err := s.Begin()
	if err != nil {
		return nil, err
	}
	defer tx.Close()
	var all []conclave.Namespace
	err = namespace.Walk(tx.System(), conclave.Namespace{ID: conclave.RootNamespace}, func(at conclave.Namespace, _ conclave.System) error {
		all = append(all, at)
		return nil
	})
	return all, err
}

// Change runs work of the vault's own on a namespace, given by its path, as a transaction, and again after a conflict, a
// bounded number of times. What writes nothing isn't judged. A namespace that is gone is passed over.
func (s *Store) Change(ctx context.Context, path string, work func(tx *Tx, system conclave.System) error) error {
	for range ownAttempts {
		err := s.changeOnce(ctx, path, work)
		conflict, again := errors.AsType[*ErrConflict](err)
		if !again {
			return err
		}
		if err := s.WaitApplied(ctx, conflict.Index); err != nil {
			return err
		}
	}
	return conclave.Errorf(conclave.Unavailable, "other changes kept coming in between")
}

func (s *Store) changeOnce(ctx context.Context, path string, work func(tx *Tx, system conclave.System) error) error {
	tx, err := s.Begin()
	if err != nil {
		return err
	}
	defer tx.Close()
	system, err := tx.within(path)
	if err != nil || system == nil {
		return err
	}
	if err := work(tx, system); err != nil {
		return err
	}
	if err := tx.Failed(); err != nil {
		return err
	}
	if !tx.Writing() {
		return nil
	}
	committed, err := tx.Commit(ctx, fsm.AuditRecord{})
	if err != nil {
		return err
	}
	return s.WaitApplied(ctx, committed.Index)
}

// within returns the system space of the namespace at a path, nil if there is none, and has the transaction run there.
func (tx *Tx) within(path string) (found conclave.System, err error) {
	err = namespace.Descend(tx.System(), path, func(at conclave.Namespace, system conclave.System) error {
		if at.Path == path {
			found = system
			tx.SetRequest(nil, nil, at)
		}
		return nil
	})
	return found, err
}
