package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"

	"conclave"
	"conclave/access"
	"conclave/audit"
	"conclave/crypto"
)

// Limits of one answer with a part of the log.
const (
	maxPageRecords = 5_000
	maxPageBytes   = 8 << 20
)

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

// auditLogRoutes let auditors compare and check the log of each node. Each is answered by the node that is asked. What it
// takes to export a full log, so that it can be dropped, is urgent.
func (d *daemon) auditLogRoutes() []conclave.Route {
	head := conclave.ReadRoute(conclave.Read, "audit-head", "Where this node's audit log stands: number of records, head of the chain, root of the tree.",
		prepared[auditHead])
	head.Prepare = func(context.Context, *conclave.Request, any) (any, error) {
		out := d.headOf(d.state.Audit().Shown())
		return &out, nil
	}
	verify := conclave.ReadRoute(conclave.Read, "audit-verify",
		"Check every record that this node keeps: checksums, chain, tree, and that each record is what was committed to.", preparedVerify).With(conclave.Sudo, conclave.Urgent)
	verify.Prepare = func(ctx context.Context, _ *conclave.Request, in any) (any, error) {
		input, _ := in.(*verifyInput)
		return d.verifyAudit(ctx, input.Seq)
	}
	page := conclave.ReadRoute(conclave.Read, "audit-log",
		"A part of this node's audit log, with salts and records, as lines of an export that verifies without any key.", preparedPage).With(conclave.Sudo, conclave.Urgent)
	page.Prepare = func(ctx context.Context, _ *conclave.Request, in any) (any, error) {
		input, _ := in.(*pageInput)
		return d.auditPage(ctx, input)
	}
	return []conclave.Route{head, verify, page}
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

func preparedPage(ctx context.Context, view conclave.View, _ *pageInput) (*pageOutput, error) {
	return prepared[pageOutput](ctx, view, nil)
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
	report, err := log.Verify(ctx, seq, func(f audit.Frame) error {
		_, _, err := opener.Open(f.Digest, f.Box)
		return err
	})
	if err != nil {
		return nil, err
	}
	at := report.State
	if report.Marked != nil && report.Fault == nil {
		at = *report.Marked
	}
	out := &verifyOutput{auditHead: d.headOf(at), Records: report.Records, OK: report.Fault == nil}
	if report.Fault != nil {
		out.Fault, out.FaultAt = report.Fault.Error(), report.Fault.Seq
	}
	return out, nil
}

type pageInput struct {
	From  uint64 `json:"from" doc:"The first record; one that is no longer kept means the first that is."`
	Limit int    `json:"limit" doc:"How many records at most."`
}

type pageOutput struct {
	Frames []json.RawMessage `json:"frames" doc:"One line of an export for each record."`
	Head   auditHead         `json:"head" doc:"Where the log stood when this was read."`
	Fault  string            `json:"fault,omitempty" doc:"What is wrong with the record after these, which can't be read."`
}

// auditPage reads a part of the log. It ends early rather than grow beyond maxPageBytes, and before a damaged record.
func (d *daemon) auditPage(ctx context.Context, in *pageInput) (*pageOutput, error) {
	opener, err := d.opener()
	if err != nil {
		return nil, err
	}
	log := d.state.Audit()
	shown := log.Shown()
	page := &pageOutput{Frames: []json.RawMessage{}, Head: d.headOf(shown)}
	limit, size := in.Limit, 0
	if limit <= 0 || limit > maxPageRecords {
		limit = maxPageRecords
	}
	var failed error
	err = log.Read(ctx, max(in.From, shown.Base.Seq), func(f audit.Frame) bool {
		if len(page.Frames) == limit || size > maxPageBytes {
			return false
		}
		var line []byte
		if line, failed = audit.AppendLine(nil, &f, opener); failed != nil {
			return false
		}
		size += len(line)
		page.Frames = append(page.Frames, bytes.TrimSpace(line))
		return true
	})
	if fault, damaged := errors.AsType[*audit.Fault](err); damaged {
		page.Fault, err = fault.Error(), nil
	}
	if errors.Is(failed, crypto.ErrOpen) || errors.Is(failed, audit.ErrRecord) {
		page.Fault, failed = failed.Error(), nil
	}
	return page, errors.Join(err, failed)
}

// auditRecords is this node's audit log for those who ask why a request was denied.
type auditRecords struct{ d *daemon }

// Audit is the log.
func (r auditRecords) Audit() *audit.Log { return r.d.state.Audit() }

// Opener opens its records.
func (r auditRecords) Opener() (*audit.Opener, error) { return r.d.opener() }

// mountRoles finds what gives policies in auth methods.
type mountRoles struct{ d *daemon }

// Roles lists them in order.
func (r mountRoles) Roles(ctx context.Context, view conclave.View, after string, limit int) ([]access.Role, error) {
	found, err := r.d.pipeline.Roles(ctx, view, after, limit)
	roles := make([]access.Role, len(found))
	for i, role := range found {
		roles[i] = access.Role(role)
	}
	return roles, err
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
