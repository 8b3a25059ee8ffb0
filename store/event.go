package store

import (
	"errors"
	"maps"

	"conclave"
	"conclave/fsm"
)

// OwnRecords makes the audit record of a transaction of the vault's own that has events.
type OwnRecords interface {
	Own(tx *Tx) (fsm.AuditRecord, error)
}

// RecordOwn sets what makes the records of events that no request caused. It is called before the first transaction.
func (s *Store) RecordOwn(records OwnRecords) { s.own = records }

func (tx *Tx) ownRecord() (fsm.AuditRecord, error) {
	if tx.store.own == nil {
		return fsm.AuditRecord{}, errors.New("nothing records the events of the vault's own work")
	}
	return tx.store.own.Own(tx)
}

// Occurrences are the events to be recorded with the transaction. There are none if it writes nothing: the record of a
// transaction that only reads may be in the log although it runs again, and nothing has happened.
func (tx *Tx) Occurrences() []conclave.Occurrence {
	if !tx.Writing() {
		return nil
	}
	return tx.events
}

// Emit adds an event, with the mount and the namespace where it happened. What the vault does itself says in which
// namespace by SetRequest: an event whose namespace isn't known could be shown to those of another.
func (v *View) Emit(event conclave.Event) error {
	tx := v.tx
	if err := event.Check(); err != nil {
		return tx.fail(err)
	}
	if tx.namespace.ID == "" {
		return tx.fail(conclave.Errorf(conclave.Internal, "an event of type %s without a namespace", event.Type))
	}
	event.Metadata = maps.Clone(event.Metadata)
	occurred := conclave.Occurrence{Event: event, Namespace: tx.namespace, Mount: v.mount}
	tx.eventSize += occurred.Size()
	if len(tx.events) == conclave.MaxEvents || tx.eventSize > conclave.MaxEventBytes {
		return tx.fail(conclave.Errorf(conclave.TooLarge, "the request has more than %d events, or of more than %d bytes", conclave.MaxEvents, conclave.MaxEventBytes))
	}
	tx.events = append(tx.events, occurred)
	return nil
}
