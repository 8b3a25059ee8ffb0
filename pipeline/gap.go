package pipeline

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"

	"conclave"
	"conclave/audit"
	"conclave/fsm"
	"conclave/gap"
	"conclave/store"
)

// RecordGap commits a gap record of what is open, if there is anything.
func (r *Recorder) RecordGap(ctx context.Context, s *store.Store, gaps *gap.Count) error {
	return gaps.Record(func(g *gap.Gap) error {
		tx, err := s.Begin()
		if err != nil {
			return err
		}
		defer tx.Close()
		record, err := r.gap(tx, g)
		if err != nil {
			return err
		}
		_, err = tx.CommitRecord(ctx, record)
		return err
	})
}

// gapPath is what gap records name as their path. Nothing is served there.
const gapPath = "sys/audit-gap"

// gap seals the record of a gap: that of a request which nobody made.
func (r *Recorder) gap(tx *store.Tx, gap *gap.Gap) (fsm.AuditRecord, error) {
	keys, err := r.keys(tx)
	if err != nil {
		return fsm.AuditRecord{}, err
	}
	data, err := json.Marshal(map[string]any{"unrecorded": gap})
	if err != nil {
		return fsm.AuditRecord{}, err
	}
	var id [16]byte
	rand.Read(id[:])
	return keys.seal(audit.Encode(nil, &audit.Entry{Time: tx.Now(), RequestID: hex.EncodeToString(id[:]), Attempt: 1, Node: r.node,
		NamespaceID: "root", Operation: conclave.Update, Path: gapPath, Data: data, Clear: []string{"unrecorded"}}, keys.hasher))
}

func (k *recorderKeys) seal(record []byte) (fsm.AuditRecord, error) {
	digest, box, err := k.sealer.Seal(record)
	return fsm.AuditRecord{Digest: digest, Box: box}, err
}
