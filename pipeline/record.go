package pipeline

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"conclave"
	"conclave/audit"
	"conclave/crypto"
	"conclave/fsm"
	"conclave/policy"
	"conclave/store"
)

// Recorder makes the audit record of a request. It is safe for concurrent use.
type Recorder struct {
	node    string
	current atomic.Pointer[recorderKeys]
	buffers sync.Pool // of *[]byte: encoded records, which live until they are sealed
}

// maxPooledRecord bounds the buffers that are kept, in bytes.
const maxPooledRecord = 16 << 10

// recorderKeys are the ciphers for one version of the keyring.
type recorderKeys struct {
	keyring *crypto.Keyring
	hasher  *audit.Hasher
	sealer  *audit.Sealer
}

// NewRecorder makes the recorder of a node.
func NewRecorder(node string) *Recorder { return &Recorder{node: node} }

// Forget drops the ciphers: the vault is being sealed.
func (r *Recorder) Forget() { r.current.Store(nil) }

func (r *Recorder) keys(tx *store.Tx) (*recorderKeys, error) {
	keyring := tx.Keyring()
	if k := r.current.Load(); k != nil && k.keyring == keyring {
		return k, nil
	}
	sealer, err := audit.NewSealer(tx.Cluster(), keyring.AuditActive, keyring.AuditData[keyring.AuditActive])
	if err != nil {
		return nil, err
	}
	k := &recorderKeys{keyring: keyring, hasher: audit.NewHasher(keyring.AuditHMAC), sealer: sealer}
	r.current.Store(k)
	return k, nil
}

// Record seals what is to be recorded of this attempt: who asked for what, and the answer or the failure.
func (r *Recorder) Record(tx *store.Tx, run *run, resp *conclave.Response, failure error) (fsm.AuditRecord, error) {
	keys, err := r.keys(tx)
	if err != nil {
		return fsm.AuditRecord{}, err
	}
	entry, err := r.entry(tx, run, resp, failure)
	if err != nil {
		return fsm.AuditRecord{}, err
	}
	buffer, ok := r.buffers.Get().(*[]byte)
	if !ok {
		buffer = new([]byte)
	}
	*buffer = audit.Encode((*buffer)[:0], entry, keys.hasher)
	record, err := keys.seal(*buffer)
	if cap(*buffer) <= maxPooledRecord {
		r.buffers.Put(buffer)
	}
	return record, err
}

func (r *Recorder) entry(tx *store.Tx, run *run, resp *conclave.Response, failure error) (*audit.Entry, error) {
	req, call := run.request, run.call
	entry := &audit.Entry{Time: tx.Now(), RequestID: req.ID, Attempt: run.attempt, Node: r.node,
		NamespaceID: call.namespaceID(), NamespacePath: req.Namespace, Operation: req.Operation, Path: req.Path, Mount: call.mount,
		Remote: req.Remote, WrapTTL: req.WrapTTL, Header: req.Header, Token: req.Token, Err: failure}
	if len(req.PeerCertificates) > 0 {
		entry.Certificate = serialOf(req.PeerCertificates[0])
	}
	entry.Events = tx.Occurrences()
	if call.caller != nil {
		entry.Auth = authOf(call.caller)
		entry.TokenIssued = time.Unix(0, call.token.Created)
		if conclave.Is(failure, conclave.Denied) {
			entry.Denial = call.denial
		}
	}
	switch {
	case req.Body != nil:
		entry.Data = req.Body
	case len(req.Fields) > 0:
		data, err := json.Marshal(req.Fields)
		if err != nil {
			return nil, err
		}
		entry.Data = data
	}
	if call.route != nil {
		entry.Clear = call.route.ClearRequest
	}
	if failed, ok := errors.AsType[*conclave.Error](failure); ok && failed.Data != nil {
		resp = &conclave.Response{Data: failed.Data} // a refusal can carry data too
		if err := marshalData(resp); err != nil {
			return nil, err
		}
	} else if failure != nil {
		resp = nil
	}
	if resp != nil {
		entry.Answer = answerOf(resp, call.route)
	}
	return entry, nil
}

// ownPath is what records of the vault's own work name as their path. Nothing is served there.
const ownPath = "sys/own-work"

// Own seals the record of what the vault did itself: that of a request which nobody made, with the events that came of it.
func (r *Recorder) Own(tx *store.Tx) (fsm.AuditRecord, error) {
	keys, err := r.keys(tx)
	if err != nil {
		return fsm.AuditRecord{}, err
	}
	events := tx.Occurrences()
	var id [16]byte
	rand.Read(id[:])
	return keys.seal(audit.Encode(nil, &audit.Entry{Time: tx.Now(), RequestID: hex.EncodeToString(id[:]), Attempt: 1, Node: r.node,
		NamespaceID: events[0].Namespace.ID, NamespacePath: events[0].Namespace.Path, Operation: conclave.Update, Path: ownPath,
		Mount: events[0].Mount, Events: events}, keys.hasher))
}

func (c *call) namespaceID() string {
	if len(c.levels) == 0 {
		return conclave.RootNamespace
	}
	return c.here().ID
}

func authOf(caller *conclave.Caller) *conclave.Auth {
	policies := policy.Together(caller.Policies, caller.IdentityPolicies)
	return &conclave.Auth{Accessor: caller.Accessor, Policies: policies, TokenPolicies: caller.Policies,
		Metadata: caller.Metadata, EntityID: caller.EntityID, TokenType: caller.Type, Orphan: caller.Orphan,
		DisplayName: caller.DisplayName}
}

func answerOf(resp *conclave.Response, route *conclave.Route) *audit.Answer {
	answer := &audit.Answer{Raw: resp.Raw, Status: resp.Status, Auth: resp.Auth, Lease: resp.Lease, Wrap: resp.Wrap,
		Warnings: resp.Warnings}
	if data, ok := resp.Data.(json.RawMessage); ok {
		answer.Data = data
	}
	if route != nil {
		answer.Clear = route.ClearResponse
	}
	return answer
}

func serialOf(der []byte) string {
	certificate, err := x509.ParseCertificate(der)
	if err != nil || certificate.SerialNumber == nil {
		return ""
	}
	return certificate.SerialNumber.Text(16)
}
