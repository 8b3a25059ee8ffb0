package kv

import (
	"context"
	"encoding/json"

	"conclave"
)

type versionIn struct {
	Path    string `path:"path" doc:"Where the secret is."`
	Version int64  `json:"version" doc:"Which version; 0 for the current one."`
}

// versionOut describes one version to clients.
type versionOut struct {
	CreatedTime    string            `json:"created_time" doc:"When the version was written, RFC 3339."`
	CustomMetadata map[string]string `json:"custom_metadata" doc:"The secret's custom metadata, null if it has none."`
	DeletionTime   string            `json:"deletion_time" doc:"When the version was or will be deleted, RFC 3339; empty for never."`
	Destroyed      bool              `json:"destroyed" doc:"Whether the data is gone for good."`
	Version        uint64            `json:"version" doc:"The version's number."`
}

func (s *secret) describe(v *version, n uint64) versionOut {
	return versionOut{CreatedTime: stamp(v.created), CustomMetadata: s.custom, DeletionTime: stamp(v.deletion), Destroyed: v.destroyed, Version: n}
}

const dataReadDoc = `Read a secret, in its current or another version.
A version that is deleted or destroyed is answered with 404 and its metadata, without data.`

type dataOut struct {
	Data     json.RawMessage `json:"data" doc:"The secret; null if the version is deleted or destroyed."`
	Metadata versionOut      `json:"metadata" doc:"The version that was read."`
}

func readData(_ context.Context, view conclave.View, in *versionIn) (*dataOut, error) {
	data, meta, err := readVersion(view, in)
	if err != nil {
		return nil, err
	}
	out := &dataOut{Data: data, Metadata: meta}
	if data == nil {
		return nil, &conclave.Error{Kind: conclave.NotFound, Data: out}
	}
	return out, nil
}

// readVersion returns no data for a version that is deleted or destroyed, and NotFound where there never was one.
func readVersion(view conclave.View, in *versionIn) ([]byte, versionOut, error) {
	s, err := load(view, in.Path)
	if err != nil {
		return nil, versionOut{}, err
	}
	if s == nil {
		return nil, versionOut{}, notFound()
	}
	v, n := s.version(in.Version)
	if v == nil {
		return nil, versionOut{}, notFound()
	}
	meta := s.describe(v, n)
	if v.gone(view) {
		return nil, meta, nil
	}
	data, err := s.read(view, in.Path, v, n)
	return data, meta, err
}

const dataWriteDoc = `Write a new version of a secret.
With options.cas the write happens only if the current version has that number; 0 means that there must be none. Where
the secret or the mount has cas_required, options.cas must be given. Versions beyond max_versions are removed.`

type dataIn struct {
	Path    string          `path:"path" doc:"Where the secret is."`
	Data    json.RawMessage `json:"data" doc:"The secret, an object."`
	Options *writeOptions   `json:"options" doc:"Conditions for the write."`
}

type writeOptions struct {
	CAS *int64 `json:"cas" doc:"The number that the current version must have; 0 for a secret without versions."`
}

func writeData(_ context.Context, tx conclave.Tx, in *dataIn) (*versionOut, error) {
	if err := checkData(in.Data); err != nil {
		return nil, err
	}
	cfg, err := settings(tx)
	if err != nil {
		return nil, err
	}
	s, err := load(tx, in.Path)
	if err != nil {
		return nil, err
	}
	if s == nil {
		s = &secret{}
	}
	if err := s.checkCAS(cfg, in.Options); err != nil {
		return nil, err
	}
	return s.addAndDescribe(tx, "data-write", in.Path, cfg, in.Data)
}

func (s *secret) addAndDescribe(tx conclave.Tx, operation, path string, cfg *config, data []byte) (*versionOut, error) {
	if err := s.add(tx, path, cfg, data); err != nil {
		return nil, err
	}
	if err := s.emitData(tx, operation, path); err != nil {
		return nil, err
	}
	out := s.describe(s.version(0))
	return &out, nil
}

func checkData(data json.RawMessage) error {
	switch {
	case data == nil:
		return conclave.Errorf(conclave.Invalid, `no data provided: the body must be {"data": {…}}`)
	case data[0] != '{':
		return conclave.Errorf(conclave.Invalid, `field "data": must be an object`)
	case len(data) > conclave.MaxValue:
		return conclave.Errorf(conclave.TooLarge, "a secret may have at most %d bytes", conclave.MaxValue)
	}
	return nil
}

func (s *secret) checkCAS(cfg *config, options *writeOptions) error {
	switch {
	case options != nil && options.CAS != nil:
		if *options.CAS < 0 || uint64(*options.CAS) != s.current {
			return conclave.Errorf(conclave.Invalid, "check-and-set parameter did not match the current version")
		}
	case cfg.CASRequired || s.casRequired:
		return conclave.Errorf(conclave.Invalid, "check-and-set parameter required for this call")
	}
	return nil
}

// dataExists makes the write of a secret that isn't there a create.
func dataExists(r *conclave.Route) {
	r.Exists = func(view conclave.View, in any) (bool, error) {
		value, err := view.Get(secretsDir + in.(*dataIn).Path)
		return value != nil, err
	}
}

const dataDeleteDoc = `Delete the current version of a secret.
Its data is kept and can be brought back with undelete; older versions stay readable. To remove data for good use
destroy, to remove the whole secret delete its metadata.`

func deleteData(_ context.Context, tx conclave.Tx, in *secretIn) (*conclave.None, error) {
	s, err := load(tx, in.Path)
	if err != nil || s == nil {
		return nil, err
	}
	v, _ := s.version(0)
	if v == nil || v.gone(tx) {
		return nil, nil
	}
	v.deleted, v.deletion = true, tx.Now()
	if err := s.save(tx, in.Path); err != nil {
		return nil, err
	}
	return nil, s.emitData(tx, "data-delete", in.Path)
}

type secretIn struct {
	Path string `path:"path" doc:"Where the secret is."`
}
