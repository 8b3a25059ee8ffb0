package seal

import (
	"context"
	"time"

	"conclave"
	"conclave/audit"
	"conclave/fsm"
)

// ceremonyPause is the shortest time between two records of the same kind by a sealed node: what can be asked for
// without a token must not fill the log.
const ceremonyPause = 100 * time.Millisecond

// resetPause is the shortest time between two resets that one node lets through.
const resetPause = time.Second

// recordCeremony writes the audit record of a step that works without a token. A sealed node seals it to the audit
// public key. Without a quorum nothing can be written; the log of the process says so then.
func (v *Vault) recordCeremony(ctx context.Context, path string, refusal error) {
	b, _, _, err := v.blob()
	if err != nil || b == nil || !v.mayRecord(path, refusal) {
		return
	}
	entry := &audit.Entry{Time: v.Node.Now(), RequestID: conclave.RequestID(ctx), Attempt: 1, Node: v.Node.Self().NodeID,
		Operation: conclave.Update, Path: path, Err: refusal}
	if err := v.commitSealed(ctx, b, entry); err != nil {
		v.Logger.Warn("a step of the unseal ceremony is not in the audit log", "path", path, "error", err)
	}
}

func (v *Vault) commitSealed(ctx context.Context, b *blob, entry *audit.Entry) error {
	sealer, err := audit.NewPublicSealer(b.cluster(), b.Audit)
	if err != nil {
		return err
	}
	digest, box, err := sealer.Seal(audit.Encode(nil, entry, audit.NewHasher([32]byte{})))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, peerTimeout)
	defer cancel()
	_, err = v.Node.CommitUrgent(ctx, &fsm.Transaction{NotBefore: fsm.NotBeforeAny, NotAfter: fsm.NotAfterAny,
		Record: fsm.AuditRecord{Digest: digest, Box: box}})
	return err
}

func (v *Vault) mayRecord(path string, refusal error) bool {
	if refusal != nil {
		path += " refused"
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	now := v.Node.Now()
	if refusal != nil && now.Sub(v.last[path]) < ceremonyPause {
		return false
	}
	v.last[path] = now
	return true
}
