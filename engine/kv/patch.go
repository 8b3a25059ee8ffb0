package kv

import (
	"bytes"
	"context"
	"encoding/json"

	"conclave"
)

const dataPatchDoc = `Change parts of a secret, as a new version.
The field data is a merge patch (RFC 7386): members that it names replace those of the current version, null removes a
member, objects are merged. The current version must be there, neither deleted nor destroyed. options.cas works as for a
write.`

func patchData(_ context.Context, tx conclave.Tx, in *dataIn) (*versionOut, error) {
	if err := checkData(in.Data); err != nil {
		return nil, err
	}
	s, err := load(tx, in.Path)
	if err != nil {
		return nil, err
	}
	if s == nil {
		return nil, notFound()
	}
	cfg, err := settings(tx)
	if err != nil {
		return nil, err
	}
	if err := s.checkCAS(cfg, in.Options); err != nil {
		return nil, err
	}
	v, n := s.version(0)
	if v == nil {
		return nil, notFound()
	}
	if v.gone(tx) {
		out := s.describe(v, n)
		return nil, &conclave.Error{Kind: conclave.NotFound, Data: &out}
	}
	current, err := s.read(tx, in.Path, v, n)
	if err != nil {
		return nil, err
	}
	patched, err := mergePatch(current, in.Data)
	if err != nil {
		return nil, err
	}
	if err := checkData(patched); err != nil {
		return nil, err
	}
	return s.addAndDescribe(tx, "data-patch", in.Path, cfg, patched)
}

// mergePatch applies a merge patch to a JSON text and returns the result in canonical form.
func mergePatch(target, patch []byte) ([]byte, error) {
	was, err := decodeJSON(target)
	if err != nil {
		return nil, errFormat
	}
	change, err := decodeJSON(patch)
	if err != nil {
		return nil, conclave.Errorf(conclave.Invalid, "the patch is not JSON")
	}
	return encodeJSON(merge(was, change))
}

// merge is MergePatch of RFC 7386, section 2. It changes target.
func merge(target, patch any) any {
	change, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	object, ok := target.(map[string]any)
	if !ok {
		object = map[string]any{}
	}
	for name, value := range change {
		if value == nil {
			delete(object, name)
			continue
		}
		object[name] = merge(object[name], value)
	}
	return object
}

// decodeJSON keeps numbers as they were written.
func decodeJSON(text []byte) (any, error) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var value any
	err := decoder.Decode(&value)
	return value, err
}

func encodeJSON(value any) ([]byte, error) {
	text, err := json.Marshal(value)
	if err != nil {
		return nil, conclave.Errorf(conclave.Invalid, "the result can't be stored as JSON")
	}
	return text, nil
}

const subkeysDoc = `Read the names of a secret's members, without their values.
Every value that is no object, or an empty one, is answered as null. A version that is deleted or destroyed is answered
with 404 and its metadata.`

type subkeysIn struct {
	Path    string `path:"path" doc:"Where the secret is."`
	Version int64  `json:"version" doc:"Which version; 0 for the current one."`
	Depth   int    `json:"depth" doc:"How deep to go: members at this depth are null even if they are objects. 0 for all."`
}

type subkeysOut struct {
	Metadata versionOut     `json:"metadata" doc:"The version that was read."`
	Subkeys  map[string]any `json:"subkeys" doc:"The members' names, nested as in the secret; null if the version is deleted or destroyed."`
}

func readSubkeys(_ context.Context, view conclave.View, in *subkeysIn) (*subkeysOut, error) {
	data, meta, err := readVersion(view, &versionIn{Path: in.Path, Version: in.Version})
	if err != nil {
		return nil, err
	}
	out := &subkeysOut{Metadata: meta}
	if data == nil {
		return nil, &conclave.Error{Kind: conclave.NotFound, Data: out}
	}
	value, err := decodeJSON(data)
	if err != nil {
		return nil, errFormat
	}
	out.Subkeys, _ = value.(map[string]any)
	strip(out.Subkeys, in.Depth)
	return out, nil
}

// strip replaces all leaves by null. At depth 1 all members are leaves; below 1 there is no limit.
func strip(object map[string]any, depth int) {
	for name, value := range object {
		inner, ok := value.(map[string]any)
		if !ok || len(inner) == 0 || depth == 1 {
			object[name] = nil
			continue
		}
		strip(inner, depth-1)
	}
}
