package kv

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"conclave"
)

// Limits of custom metadata, those of Vault.
const (
	maxCustomKeys  = 64
	maxCustomKey   = 128 // bytes
	maxCustomValue = 512 // bytes
)

const metadataReadDoc = `Read the metadata of a secret: its settings, and the state of each version.`

type metadataOut struct {
	CASRequired        bool                    `json:"cas_required" doc:"Whether every write of this secret must give options.cas."`
	CreatedTime        string                  `json:"created_time" doc:"When the secret was made, RFC 3339."`
	CurrentVersion     uint64                  `json:"current_version" doc:"The number of the newest version; 0 if there is none yet."`
	CustomMetadata     map[string]string       `json:"custom_metadata" doc:"What its owners note about the secret; null if nothing."`
	DeleteVersionAfter string                  `json:"delete_version_after" doc:"How long after its creation a version is deleted; 0s is never."`
	MaxVersions        uint64                  `json:"max_versions" doc:"How many versions are kept; 0 means as the mount says. The larger one of mount and secret holds."`
	OldestVersion      uint64                  `json:"oldest_version" doc:"The number of the oldest version kept; 0 while none has been removed."`
	UpdatedTime        string                  `json:"updated_time" doc:"When a version was last written or a setting changed, RFC 3339."`
	Versions           map[string]versionState `json:"versions" doc:"The state of each version that is kept, by number."`
}

type versionState struct {
	CreatedTime  string `json:"created_time" doc:"When the version was written, RFC 3339."`
	DeletionTime string `json:"deletion_time" doc:"When it was or will be deleted, RFC 3339; empty for never."`
	Destroyed    bool   `json:"destroyed" doc:"Whether its data is gone for good."`
}

func readMetadata(_ context.Context, view conclave.View, in *secretIn) (*metadataOut, error) {
	s, err := load(view, in.Path)
	if err != nil {
		return nil, err
	}
	if s == nil {
		return nil, notFound()
	}
	out := &metadataOut{
		CASRequired: s.casRequired, CreatedTime: stamp(s.created), CurrentVersion: s.current, CustomMetadata: s.custom,
		DeleteVersionAfter: s.deleteAfter.String(), MaxVersions: s.maxVersions, OldestVersion: s.oldest, UpdatedTime: stamp(s.updated),
		Versions: make(map[string]versionState, len(s.versions)),
	}
	for i := range s.versions {
		v := &s.versions[i]
		out.Versions[strconv.FormatUint(s.first()+uint64(i), 10)] = versionState{stamp(v.created), stamp(v.deletion), v.destroyed}
	}
	return out, nil
}

const metadataWriteDoc = `Change the settings of a secret, or make one that has no versions yet.
What isn't given stays as it is; custom_metadata is replaced as a whole. It may have 64 keys of 128 bytes with values of
512 bytes, all printable. A lower max_versions takes effect at the next write.`

type metadataIn struct {
	Path               string            `path:"path" doc:"Where the secret is."`
	MaxVersions        *int64            `json:"max_versions" doc:"How many versions to keep, at most 10000; 0 means as the mount says. The larger one of mount and secret holds."`
	CASRequired        *bool             `json:"cas_required" doc:"Refuse writes that don't give options.cas."`
	DeleteVersionAfter *time.Duration    `json:"delete_version_after" doc:"Delete each version so long after its creation; 0 is never. The shorter one of mount and secret holds."`
	CustomMetadata     map[string]string `json:"custom_metadata" doc:"Notes by key, in place of those that are there."`
}

func writeMetadata(_ context.Context, tx conclave.Tx, in *metadataIn) (*conclave.Response, error) {
	if in.MaxVersions == nil && in.CASRequired == nil && in.DeleteVersionAfter == nil && in.CustomMetadata == nil {
		return nil, nil
	}
	s, err := load(tx, in.Path)
	if err != nil {
		return nil, err
	}
	if s == nil {
		s = &secret{created: tx.Now()}
	}
	if in.CustomMetadata != nil {
		s.custom = in.CustomMetadata
	}
	return s.configure(tx, "metadata-write", in.Path, in.MaxVersions, in.CASRequired, in.DeleteVersionAfter)
}

// configure changes the settings that are given and saves. The answer has a warning where the mount is stricter.
func (s *secret) configure(tx conclave.Tx, operation, path string, versions *int64, cas *bool, after *time.Duration) (*conclave.Response, error) {
	if err := checkCustom(s.custom); err != nil {
		return nil, err
	}
	if len(s.custom) == 0 {
		s.custom = nil
	}
	if versions != nil {
		n, err := checkMaxVersions(*versions)
		if err != nil {
			return nil, err
		}
		s.maxVersions = n
	}
	if after != nil {
		if *after < 0 {
			return nil, conclave.Errorf(conclave.Invalid, "delete_version_after can't be negative")
		}
		s.deleteAfter = *after
	}
	response := &conclave.Response{}
	if cas != nil {
		s.casRequired = *cas
		cfg, err := settings(tx)
		if err != nil {
			return nil, err
		}
		if cfg.CASRequired && !*cas {
			response.Warnings = []string{`"cas_required" is false for this secret but true for the mount: writes must give options.cas`}
		}
	}
	s.updated = tx.Now()
	if err := s.save(tx, path); err != nil {
		return nil, err
	}
	return response, s.emit(tx, operation, metadataDir+path)
}

// checkCustom names the first key, in order, that breaks a limit.
func checkCustom(custom map[string]string) error {
	if len(custom) > maxCustomKeys {
		return conclave.Errorf(conclave.Invalid, "custom_metadata validation failed: payload must contain at most %d keys, provided %d", maxCustomKeys, len(custom))
	}
	for _, key := range slices.Sorted(maps.Keys(custom)) {
		value, problem := custom[key], ""
		switch {
		case key == "" || len(key) > maxCustomKey:
			return conclave.Errorf(conclave.Invalid, "custom_metadata validation failed: length of a key is %d but must be 0 < len(key) <= %d", len(key), maxCustomKey)
		case !isPrintable(key):
			problem = "the key contains unprintable characters"
		case value == "" || len(value) > maxCustomValue:
			problem = "length of the value is " + strconv.Itoa(len(value)) + " but must be 0 < len(value) <= " + strconv.Itoa(maxCustomValue)
		case !isPrintable(value):
			problem = "the value contains unprintable characters"
		}
		if problem != "" {
			return conclave.Errorf(conclave.Invalid, "custom_metadata validation failed: key %q: %s", key, problem)
		}
	}
	return nil
}

func isPrintable(text string) bool {
	return strings.IndexFunc(text, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }) < 0
}

func metadataExists(r *conclave.Route) {
	r.Exists = func(view conclave.View, in any) (bool, error) {
		value, err := view.Get(secretsDir + in.(*metadataIn).Path)
		return value != nil, err
	}
}

const metadataPatchDoc = `Change parts of a secret's metadata.
As a merge patch (RFC 7386): a null resets a setting or removes a key of custom_metadata, keys that aren't named stay.
The secret must be there.`

type metadataPatchIn struct {
	Path               string             `path:"path" doc:"Where the secret is."`
	MaxVersions        *int64             `json:"max_versions" doc:"How many versions to keep, at most 10000; 0 or null means as the mount says."`
	CASRequired        *bool              `json:"cas_required" doc:"Refuse writes that don't give options.cas."`
	DeleteVersionAfter *time.Duration     `json:"delete_version_after" doc:"Delete each version so long after its creation; 0 or null is never."`
	CustomMetadata     map[string]*string `json:"custom_metadata" doc:"Notes to change by key, null to remove one; null for the whole removes all."`
	// Fields tells a null from a field that isn't given.
	Fields map[string]any `json:"*"`
}

func (in *metadataPatchIn) isNull(name string) bool {
	value, given := in.Fields[name]
	return given && value == nil
}

func patchMetadata(_ context.Context, tx conclave.Tx, in *metadataPatchIn) (*conclave.Response, error) {
	s, err := load(tx, in.Path)
	if err != nil {
		return nil, err
	}
	if s == nil {
		return nil, notFound()
	}
	if in.isNull("max_versions") {
		in.MaxVersions = new(int64)
	}
	if in.isNull("cas_required") {
		in.CASRequired = new(bool)
	}
	if in.isNull("delete_version_after") {
		in.DeleteVersionAfter = new(time.Duration)
	}
	clear := in.isNull("custom_metadata")
	if in.MaxVersions == nil && in.CASRequired == nil && in.DeleteVersionAfter == nil && in.CustomMetadata == nil && !clear {
		return nil, nil
	}
	if clear {
		s.custom = nil
	}
	for key, value := range in.CustomMetadata {
		if value == nil {
			delete(s.custom, key)
			continue
		}
		if s.custom == nil {
			s.custom = map[string]string{}
		}
		s.custom[key] = *value
	}
	return s.configure(tx, "metadata-patch", in.Path, in.MaxVersions, in.CASRequired, in.DeleteVersionAfter)
}

const metadataDeleteDoc = `Remove a secret for good: its metadata and all versions.`

func deleteMetadata(_ context.Context, tx conclave.Tx, in *secretIn) (*conclave.None, error) {
	s, err := load(tx, in.Path)
	if err != nil || s == nil {
		return nil, err
	}
	if err := s.wipe(tx, in.Path); err != nil {
		return nil, err
	}
	return nil, s.emitData(tx, "metadata-delete", in.Path)
}
