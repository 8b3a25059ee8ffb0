package kv

import (
	"context"
	"encoding/json"
	"time"

	"conclave"
)

// plain is version 1: one value per path, replaced by the next write.
type plain struct{}

var _ conclave.Engine = plain{}

// Kind is "kv".
func (plain) Kind() string { return kind }

// Routes are read, write, delete, list and scan on any path.
func (plain) Routes() []conclave.Route {
	return []conclave.Route{
		conclave.ReadRoute(conclave.Read, "{path...}", plainReadDoc, plainRead),
		conclave.WriteRoute(conclave.Update, "{path...}", plainWriteDoc, plainWrite).With(plainExists),
		conclave.WriteRoute(conclave.Delete, "{path...}", "Remove the secret at a path.", plainDelete),
		conclave.ReadRoute(conclave.List, "{path...}", listDoc, list),
		conclave.ReadRoute(conclave.Scan, "{path...}", scanDoc, scan),
	}
}

const plainReadDoc = `Read the secret at a path.
The answer's lease_duration tells when to read it again: the secret's own field ttl, or the mount's default. Nothing
happens to the secret then.`

type plainIn struct {
	Path string `path:"path" doc:"Where the secret is."`
}

func plainRead(_ context.Context, view conclave.View, in *plainIn) (*conclave.Response, error) {
	value, err := view.Get(secretsDir + in.Path)
	if err != nil {
		return nil, err
	}
	if value == nil {
		return nil, notFound()
	}
	if isVersioned(value) {
		return nil, errVersioned()
	}
	record, err := decodePlain(value)
	if err != nil {
		return nil, err
	}
	lease := conclave.Lease{TTL: view.Mount().DefaultTTL}
	if record.hasLease {
		lease.TTL = record.lease
	}
	return &conclave.Response{Data: json.RawMessage(record.data), Lease: &lease}, nil
}

func isVersioned(value []byte) bool { return len(value) > 0 && value[0] == tagVersioned }

// errVersioned is for a mount whose option went back from version 2 to 1.
func errVersioned() error {
	return conclave.Errorf(conclave.Unsupported, "this secret has versions: mount kv with the option version=2")
}

const plainWriteDoc = `Store the fields of the request as the secret at a path.
What was there before is replaced as a whole. A field ttl (or lease), in seconds or as "1h", is stored like the others
and is what readers get as lease_duration.`

type plainWriteIn struct {
	Path   string         `path:"path" doc:"Where the secret is."`
	Fields map[string]any `json:"*"`
}

func plainWrite(_ context.Context, tx conclave.Tx, in *plainWriteIn) (*conclave.None, error) {
	if len(in.Fields) == 0 {
		return nil, conclave.Errorf(conclave.Invalid, "missing data fields")
	}
	data, err := json.Marshal(in.Fields)
	if err != nil {
		return nil, conclave.Errorf(conclave.Invalid, "the fields can't be stored as JSON")
	}
	old, err := tx.Get(secretsDir + in.Path)
	if err != nil {
		return nil, err
	}
	if isVersioned(old) {
		return nil, errVersioned()
	}
	record := plainRecord{written: tx.Now(), data: data}
	record.lease, record.hasLease = leaseOf(in.Fields)
	if err := tx.Put(secretsDir+in.Path, record.encode()); err != nil {
		return nil, err
	}
	return nil, emitPlain(tx, "kv-v1/write", "write", in.Path)
}

// maxLease bounds what a secret may say about itself: what fits a time.Duration.
const maxLease = 1<<63 - 1

// leaseOf is what the fields say about a lease. Something that isn't a duration is a field like any other.
func leaseOf(fields map[string]any) (time.Duration, bool) {
	raw, ok := fields["ttl"]
	if !ok {
		raw = fields["lease"]
	}
	var text string
	switch raw := raw.(type) {
	case json.Number:
		text = raw.String()
	case string:
		text = raw
	}
	if text == "" {
		return 0, false
	}
	d, err := conclave.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, false
	}
	return d.Truncate(time.Second), true
}

func plainExists(r *conclave.Route) {
	r.Exists = func(view conclave.View, in any) (bool, error) {
		value, err := view.Get(secretsDir + in.(*plainWriteIn).Path)
		return value != nil, err
	}
}

func plainDelete(_ context.Context, tx conclave.Tx, in *plainIn) (*conclave.None, error) {
	value, err := tx.Get(secretsDir + in.Path)
	if err != nil || value == nil {
		return nil, err
	}
	if isVersioned(value) {
		return nil, errVersioned()
	}
	if err := tx.Delete(secretsDir + in.Path); err != nil {
		return nil, err
	}
	return nil, emitPlain(tx, "kv-v1/delete", "delete", in.Path)
}
