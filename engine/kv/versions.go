package kv

import (
	"context"

	"conclave"
)

type versionsIn struct {
	Path     string  `path:"path" doc:"Where the secret is."`
	Versions []int64 `json:"versions" doc:"The numbers of the versions; those that don't exist are passed over."`
}

const (
	deleteDoc = `Delete versions of a secret.
Their data is kept and can be brought back with undelete.`
	undeleteDoc = `Bring back deleted versions of a secret.
Where versions are deleted by themselves after some time, that time begins anew. Destroyed versions stay destroyed.`
	destroyDoc = `Remove the data of versions of a secret for good.
The versions stay in the metadata, marked as destroyed.`
)

func deleteVersions(_ context.Context, tx conclave.Tx, in *versionsIn) (*conclave.None, error) {
	return changeVersions(tx, "delete", in, func(_ *secret, v *version, _ uint64) error {
		if !v.gone(tx) {
			v.deleted, v.deletion = true, tx.Now()
		}
		return nil
	})
}

func undeleteVersions(_ context.Context, tx conclave.Tx, in *versionsIn) (*conclave.None, error) {
	cfg, err := settings(tx)
	if err != nil {
		return nil, err
	}
	return changeVersions(tx, "undelete", in, func(s *secret, v *version, _ uint64) error {
		if !v.destroyed {
			v.deleted, v.deletion = false, s.deletionFrom(tx.Now(), cfg)
		}
		return nil
	})
}

func destroyVersions(_ context.Context, tx conclave.Tx, in *versionsIn) (*conclave.None, error) {
	return changeVersions(tx, "destroy", in, func(s *secret, v *version, n uint64) error {
		if v.destroyed {
			return nil
		}
		if err := s.drop(tx, in.Path, n); err != nil {
			return err
		}
		v.destroyed = true
		return nil
	})
}

// changeVersions applies change to the versions that are named and exist, and saves the secret.
func changeVersions(tx conclave.Tx, operation string, in *versionsIn, change func(s *secret, v *version, n uint64) error) (*conclave.None, error) {
	if len(in.Versions) == 0 {
		return nil, conclave.Errorf(conclave.Invalid, "no version number provided")
	}
	s, err := load(tx, in.Path)
	if err != nil || s == nil {
		return nil, err
	}
	for _, number := range in.Versions {
		if number <= 0 {
			continue
		}
		if v, n := s.version(number); v != nil {
			if err := change(s, v, n); err != nil {
				return nil, err
			}
		}
	}
	if err := s.save(tx, in.Path); err != nil {
		return nil, err
	}
	return nil, s.emitData(tx, operation, in.Path)
}
