package kv

import (
	"crypto/sha256"
	"encoding/base64"
	"strconv"
	"time"

	"conclave"
)

// load returns the secret at path, nil if there is none. It must not be changed unless it is saved.
func load(view conclave.View, path string) (*secret, error) {
	value, err := view.Get(secretsDir + path)
	if err != nil || value == nil {
		return nil, err
	}
	return decodeSecret(value)
}

// save writes the secret's record.
func (s *secret) save(tx conclave.Tx, path string) error {
	return tx.Put(secretsDir+path, s.encode())
}

// versionPath is where the data of a version is that isn't inline.
func versionPath(path string, n uint64) string {
	sum := sha256.Sum256([]byte(path))
	name := make([]byte, 0, len(versionsDir)+64)
	name = base64.RawURLEncoding.AppendEncode(append(name, versionsDir...), sum[:])
	return string(strconv.AppendUint(append(name, '.'), n, 10))
}

// version returns the version n, nil if it isn't kept. Zero and less mean the current one.
func (s *secret) version(n int64) (*version, uint64) {
	number := s.current
	if n > 0 {
		number = uint64(n)
	}
	if number < s.first() || number > s.current {
		return nil, 0
	}
	return &s.versions[number-s.first()], number
}

// gone reports whether the version's data may not be read.
func (v *version) gone(view conclave.View) bool {
	return v.destroyed || v.isDeleted(view)
}

// isDeleted doesn't ask the clock about what was deleted by request: that holds from the moment it was answered.
func (v *version) isDeleted(view conclave.View) bool {
	return v.deleted || !v.deletion.IsZero() && view.Reached(v.deletion)
}

// read returns the data of version n, which isn't destroyed.
func (s *secret) read(view conclave.View, path string, v *version, n uint64) ([]byte, error) {
	if v.inline {
		return v.data, nil
	}
	data, err := view.Get(versionPath(path, n))
	if err == nil && data == nil {
		err = conclave.Errorf(conclave.Internal, "the data of version %d is missing", n)
	}
	return data, err
}

// add makes data the newest version, removes what is beyond the number to keep, and saves.
func (s *secret) add(tx conclave.Tx, path string, cfg *config, data []byte) error {
	now := tx.Now()
	if s.created.IsZero() {
		s.created = now
	}
	s.updated = now
	s.current++
	s.versions = append(s.versions, version{created: now, deletion: s.deletionFrom(now, cfg), inline: true, data: data})
	if err := s.evict(tx, path, cfg); err != nil {
		return err
	}
	if err := s.spill(tx, path); err != nil {
		return err
	}
	return s.save(tx, path)
}

// deletionFrom is when a version made at now will be deleted by itself: after the shorter time of mount and secret. Zero
// means never.
func (s *secret) deletionFrom(now time.Time, cfg *config) time.Time {
	after := s.deleteAfter
	if after == 0 || cfg.DeleteAfter > 0 && cfg.DeleteAfter < after {
		after = cfg.DeleteAfter
	}
	if after <= 0 || cfg.DeleteAfter < 0 {
		return time.Time{}
	}
	return now.Add(after)
}

// evict removes the oldest versions beyond the number to keep: the larger one of mount and secret, as in Vault.
func (s *secret) evict(tx conclave.Tx, path string, cfg *config) error {
	keep := max(s.maxVersions, cfg.MaxVersions)
	if keep == 0 {
		keep = defaultVersions
	}
	if s.current-s.oldest < keep {
		return nil
	}
	first := s.first()
	last := min(s.current-keep, first-1+maxEvictions) // last to go
	for n := first; n <= last; n++ {
		if err := s.drop(tx, path, n); err != nil {
			return err
		}
	}
	s.versions = s.versions[last+1-first:]
	s.oldest = last + 1
	return nil
}

// drop removes the data of version n from storage.
func (s *secret) drop(tx conclave.Tx, path string, n uint64) error {
	v := &s.versions[n-s.first()]
	if v.inline || v.destroyed {
		v.inline, v.data = false, nil
		return nil
	}
	return tx.Delete(versionPath(path, n))
}

// spill moves data out of the record when it holds more than its budget: the newest version if it is large by itself,
// else the oldest ones, down to half the budget so that it isn't done again at each write.
func (s *secret) spill(tx conclave.Tx, path string) error {
	newest := len(s.versions) - 1
	if len(s.versions[newest].data) > inlineBudget {
		if err := s.moveOut(tx, path, newest); err != nil {
			return err
		}
	}
	total := 0
	for i := range s.versions {
		total += len(s.versions[i].data)
	}
	if total <= inlineBudget {
		return nil
	}
	for i := 0; i < newest && total > inlineBudget/2; i++ {
		if v := &s.versions[i]; v.inline {
			total -= len(v.data)
			if err := s.moveOut(tx, path, i); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *secret) moveOut(tx conclave.Tx, path string, i int) error {
	v := &s.versions[i]
	data := v.data
	v.inline, v.data = false, nil
	return tx.Put(versionPath(path, s.first()+uint64(i)), data)
}

// wipe removes the secret at path with all its versions.
func (s *secret) wipe(tx conclave.Tx, path string) error {
	for n := s.first(); n <= s.current; n++ {
		if err := s.drop(tx, path, n); err != nil {
			return err
		}
	}
	return tx.Delete(secretsDir + path)
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}
