package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"

	"conclave"
	"conclave/audit"
)

// maxExportBytes bounds an export over the API; a larger log is checked by its node, or on it with
// `conclave audit verify -dir`.
const maxExportBytes = 256 << 20

// auditHead is where this node's audit log stands.
type auditHead struct {
	Node  string `json:"node" doc:"The node that answers."`
	Epoch uint64 `json:"epoch" doc:"The current epoch."`
	Seq   uint64 `json:"seq" doc:"Records so far, in all epochs."`
	First uint64 `json:"first" doc:"The first record that is still kept."`
	Head  string `json:"head" doc:"Head of the hash chain, in hex."`
	Root  string `json:"root" doc:"Root of the epoch's Merkle tree (RFC 6962), in hex."`
}

type verifyInput struct {
	Seq uint64 `json:"seq" doc:"Also tell where the log stood after this many records, for comparison with other nodes. 0: at the end."`
}

type verifyOutput struct {
	auditHead
	Records uint64 `json:"records" doc:"Records that were checked."`
	OK      bool   `json:"ok" doc:"Nothing is wrong."`
	Fault   string `json:"fault,omitempty" doc:"The first record that is wrong, and what is."`
	FaultAt uint64 `json:"fault_seq,omitempty" doc:"Its number."`
}

// auditLogRoutes let auditors compare and check the log of each node. Each is answered by the node that is asked.
func (d *daemon) auditLogRoutes() []conclave.Route {
	head := conclave.ReadRoute(conclave.Read, "audit-head", "Where this node's audit log stands: number of records, head of the chain, root of the tree.",
		prepared[auditHead])
	head.Prepare = func(context.Context, *conclave.Request, any) (any, error) {
		out := d.headOf(d.state.Audit().Shown())
		return &out, nil
	}
	verify := conclave.ReadRoute(conclave.Read, "audit-verify",
		"Check every record that this node keeps: checksums, chain, tree, and that each record is what was committed to.", preparedVerify).With(conclave.Sudo)
	verify.Prepare = func(ctx context.Context, _ *conclave.Request, in any) (any, error) {
		input, _ := in.(*verifyInput)
		return d.verifyAudit(ctx, input.Seq)
	}
	export := conclave.ReadRoute(conclave.Read, "audit-export",
		"The audit log of this node with salts and records, as lines of JSON that verify without any key.", preparedExport).With(conclave.Sudo)
	export.Prepare = func(ctx context.Context, _ *conclave.Request, _ any) (any, error) { return d.exportAudit(ctx) }
	return []conclave.Route{head, verify, export}
}

func prepared[T any](ctx context.Context, _ conclave.View, _ *conclave.None) (*T, error) {
	out, ok := conclave.Prepared[*T](ctx)
	if !ok {
		return nil, errors.New("the route's preparation is missing")
	}
	return out, nil
}

func preparedVerify(ctx context.Context, view conclave.View, _ *verifyInput) (*verifyOutput, error) {
	return prepared[verifyOutput](ctx, view, nil)
}

func preparedExport(ctx context.Context, view conclave.View, _ *conclave.None) (*conclave.Response, error) {
	return prepared[conclave.Response](ctx, view, nil)
}

func (d *daemon) headOf(at audit.State) auditHead {
	root := at.Root()
	return auditHead{Node: d.cluster.Self().NodeID, Epoch: at.Epoch, Seq: at.Seq, First: at.Base.Seq,
		Head: hex.EncodeToString(at.Head[:]), Root: hex.EncodeToString(root[:])}
}

// opener opens records with the current keyring.
func (d *daemon) opener() (*audit.Opener, error) {
	tx, err := d.store.Begin()
	if err != nil {
		return nil, err
	}
	defer tx.Close()
	return audit.NewOpener(tx.Cluster(), tx.Keyring().AuditData, tx.Keyring().AuditPrivate)
}

func (d *daemon) verifyAudit(ctx context.Context, seq uint64) (*verifyOutput, error) {
	opener, err := d.opener()
	if err != nil {
		return nil, err
	}
	log := d.state.Audit()
	report, err := log.Verify(ctx, func(f audit.Frame) error {
		_, _, err := opener.Open(f.Digest, f.Box)
		return err
	})
	if err != nil {
		return nil, err
	}
	at := report.State
	if seq != 0 && seq < at.Seq && report.Fault == nil {
		if at, err = stateAt(ctx, log, seq); err != nil {
			return nil, err
		}
	}
	out := &verifyOutput{auditHead: d.headOf(at), Records: report.Records, OK: report.Fault == nil}
	if report.Fault != nil {
		out.Fault, out.FaultAt = report.Fault.Error(), report.Fault.Seq
	}
	return out, nil
}

// stateAt adds the log up to after seq records.
func stateAt(ctx context.Context, log *audit.Log, seq uint64) (audit.State, error) {
	return audit.Export(io.Discard, func(visit func(audit.Frame) bool) error {
		return log.Read(ctx, log.Shown().Base.Seq, func(f audit.Frame) bool { return f.Seq < seq && visit(f) })
	}, nil)
}

// bounded is a buffer that refuses to grow beyond a limit.
type bounded struct{ bytes.Buffer }

// Write appends, or says what to do instead.
func (w *bounded) Write(b []byte) (int, error) {
	if w.Len()+len(b) > maxExportBytes {
		return 0, conclave.Errorf(conclave.TooLarge, "the audit log is larger than %d bytes: check it on the node with `conclave audit verify -dir`", maxExportBytes)
	}
	return w.Buffer.Write(b)
}

func (d *daemon) exportAudit(ctx context.Context) (*conclave.Response, error) {
	opener, err := d.opener()
	if err != nil {
		return nil, err
	}
	log := d.state.Audit()
	var out bounded
	if _, err := audit.Export(&out, func(visit func(audit.Frame) bool) error {
		return log.Read(ctx, log.Shown().Base.Seq, visit)
	}, opener); err != nil {
		return nil, err
	}
	return &conclave.Response{Raw: &conclave.Raw{ContentType: "application/x-ndjson", Body: out.Bytes()}}, nil
}

// auditHash hashes a text as records do.
func (d *daemon) auditHash(input string) (string, error) {
	tx, err := d.store.Begin()
	if err != nil {
		return "", err
	}
	defer tx.Close()
	return audit.NewHasher(tx.Keyring().AuditHMAC).Hash(input), nil
}
