package fsm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"

	"conclave/internal/archive"
	"conclave/internal/chainlog"
)

// manifest says what a snapshot is and which files make it up, as JSON:
//
//	{"layout":1,"format":1,"index":812,"time":1700000000000000000,"records":790,"head":"…","files":[{"name":"state/000007.sst","size":4096},…]}
//
// Files are Pebble's, then the audit segments in order. Index is that of the state itself; Raft's metadata may say more.
type manifest struct {
	Layout  int            `json:"layout"`
	Format  uint32         `json:"format"`
	Index   uint64         `json:"index"`
	Time    int64          `json:"time"`
	Records uint64         `json:"records"`
	Head    string         `json:"head"`
	Files   []archive.File `json:"files"`
}

const (
	manifestLayout = 1
	maxFiles       = 200_000
)

// archive returns the stream of a snapshot whose files are in dir.
func (m *manifest) archive(fs vfs.FS, dir string) (*archive.Reader, error) {
	head, err := json.Marshal(m)
	return archive.NewReader(fs, dir, head, m.Files), err
}

// receiver takes such a stream into dir, and sets m.
func (m *manifest) receiver(fs vfs.FS, dir string) *archive.Receiver {
	return archive.NewReceiver(fs, dir, func(head []byte) (files []archive.File, err error) {
		*m, err = decodeManifest(head)
		return m.Files, err
	})
}

// decodeManifest reads a manifest from elsewhere.
func decodeManifest(b []byte) (manifest, error) {
	var m manifest
	if len(b) > archive.MaxHead {
		return m, errors.New("the manifest of a snapshot is too large")
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil || d.InputOffset() != int64(len(b)) {
		return m, errors.New("the manifest of a snapshot is malformed")
	}
	return m, m.check()
}

// check refuses what can't be a snapshot, and names that lead anywhere but into its two directories.
func (m *manifest) check() error {
	if m.Format > FormatVersion {
		return &FormatError{Needed: m.Format}
	}
	if m.Layout != manifestLayout || m.Format == 0 || len(m.Files) > maxFiles {
		return errors.New("the manifest of a snapshot is malformed")
	}
	seen := make(map[string]struct{}, len(m.Files))
	segments := false
	last := ""
	for _, f := range m.Files {
		part, name := splitName(f.Name)
		_, segment := chainlog.ParseSegmentName(name)
		_, again := seen[f.Name]
		seen[f.Name] = struct{}{}
		inOrder := part == auditDir && segment && name > last || part == stateDir && !segments
		if again || !inOrder || !plainName(name) || f.Size < 0 || f.Size > archive.MaxSize {
			return fmt.Errorf("a snapshot has no place for file %q", f.Name)
		}
		if part == auditDir {
			segments, last = true, name
		}
	}
	return nil
}

func splitName(name string) (part, file string) {
	part, file, _ = strings.Cut(name, "/")
	return part, file
}

// plainName reports whether a name is one that Pebble or the audit log gives to a file.
func plainName(name string) bool {
	if name == "" || len(name) > 80 || name[0] == '.' || name[0] == '-' {
		return false
	}
	for _, c := range []byte(name) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '-' || c == '_') {
			return false
		}
	}
	return true
}

// isTable reports whether a file of Pebble is never written again.
func isTable(name string) bool {
	return strings.HasSuffix(name, ".sst") || strings.HasSuffix(name, ".blob")
}
