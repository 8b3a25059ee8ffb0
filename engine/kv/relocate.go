package kv

import (
	"context"
	"strings"
	"unicode"
	"unicode/utf8"

	"conclave"
)

const (
	copyDoc = `Copy a secret, with all its versions and metadata, to another path of this mount, as one step.
Version numbers, times, deletions and settings come along. A destination that exists is refused, unless force is true:
then it is replaced as a whole. The caller must also be allowed to read data/ and metadata/ of the source and to create
data/ and metadata/ of the destination; with force to update them as well, and to delete the destination's metadata/.`
	moveDoc = `Move a secret, with all its versions and metadata, to another path of this mount, as one step.
Version numbers, times, deletions and settings come along; nothing stays at the old path. A destination that exists is
refused, unless force is true: then it is replaced as a whole. The caller must be allowed all that a copy needs, and to
delete metadata/ of the source.`
)

type relocateIn struct {
	Path        string `path:"path" doc:"Where the secret is."`
	Destination string `json:"destination" doc:"Where it goes, a path of this mount without data/ before it."`
	Force       bool   `json:"force" doc:"Replace what is at the destination."`
}

type relocateOut struct {
	Destination    string `json:"destination" doc:"Where the secret is now."`
	CurrentVersion uint64 `json:"current_version" doc:"The number of its newest version."`
	Versions       int    `json:"versions" doc:"How many versions came along."`
}

func copySecret(_ context.Context, tx conclave.Tx, in *relocateIn) (*relocateOut, error) {
	s, err := relocate(tx, in)
	if err != nil {
		return nil, err
	}
	if err := s.emitData(tx, "data-write", in.Destination); err != nil {
		return nil, err
	}
	return &relocateOut{in.Destination, s.current, len(s.versions)}, nil
}

func moveSecret(ctx context.Context, tx conclave.Tx, in *relocateIn) (*relocateOut, error) {
	out, err := copySecret(ctx, tx, in)
	if err != nil {
		return nil, err
	}
	source, err := load(tx, in.Path)
	if err != nil {
		return nil, err
	}
	if err := source.wipe(tx, in.Path); err != nil {
		return nil, err
	}
	return out, source.emitData(tx, "metadata-delete", in.Path)
}

// relocate writes the secret at in.Path to the destination too.
func relocate(tx conclave.Tx, in *relocateIn) (*secret, error) {
	if err := checkDestination(in); err != nil {
		return nil, err
	}
	s, err := load(tx, in.Path)
	if err != nil {
		return nil, err
	}
	if s == nil {
		return nil, notFound()
	}
	old, err := load(tx, in.Destination)
	if err != nil {
		return nil, err
	}
	if old != nil {
		if !in.Force {
			return nil, conclave.Errorf(conclave.Invalid, "the destination exists: give force=true to replace it")
		}
		if err := old.wipe(tx, in.Destination); err != nil {
			return nil, err
		}
	}
	total := 0
	for i := range s.versions {
		v, n := &s.versions[i], s.first()+uint64(i)
		if v.inline || v.destroyed {
			continue
		}
		data, err := s.read(tx, in.Path, v, n)
		if err != nil {
			return nil, err
		}
		const room = conclave.MaxTransaction - conclave.MaxValue // for the record and the paths
		if total += len(data); total > room {
			return nil, conclave.Errorf(conclave.TooLarge, "the secret's versions have more than %d bytes together: destroy some first", room)
		}
		if err := tx.Put(versionPath(in.Destination, n), data); err != nil {
			return nil, err
		}
	}
	return s, s.save(tx, in.Destination)
}

// checkDestination wants the canonical form that the edge gives to a request's path.
func checkDestination(in *relocateIn) error {
	switch {
	case in.Destination == "":
		return conclave.Errorf(conclave.Invalid, "no destination provided")
	case in.Destination == in.Path:
		return conclave.Errorf(conclave.Invalid, "source and destination are the same")
	case !utf8.ValidString(in.Destination) || strings.ContainsFunc(in.Destination, unicode.IsControl):
		return conclave.Errorf(conclave.Invalid, "the destination is not a path")
	}
	for segment := range strings.SplitSeq(in.Destination, "/") {
		if segment == "" || segment == "." || segment == ".." {
			return conclave.Errorf(conclave.Invalid, `the destination is not a path: it has an empty segment, "." or ".."`)
		}
	}
	return nil
}

// copyNeeds and moveNeeds keep a copy from being a way around the policies of source and destination.
func copyNeeds(r *conclave.Route) {
	r.Needs = func(in any) []conclave.Access { return needs(in.(*relocateIn)) }
}

func moveNeeds(r *conclave.Route) {
	r.Needs = func(in any) []conclave.Access {
		move := in.(*relocateIn)
		return append(needs(move), conclave.Access{Operation: conclave.Delete, Path: "metadata/" + move.Path})
	}
}

func needs(in *relocateIn) []conclave.Access {
	list := []conclave.Access{
		{Operation: conclave.Read, Path: "data/" + in.Path},
		{Operation: conclave.Read, Path: "metadata/" + in.Path},
		{Operation: conclave.Create, Path: "data/" + in.Destination},
		{Operation: conclave.Create, Path: "metadata/" + in.Destination},
	}
	if !in.Force {
		return list
	}
	return append(list,
		conclave.Access{Operation: conclave.Update, Path: "data/" + in.Destination},
		conclave.Access{Operation: conclave.Update, Path: "metadata/" + in.Destination},
		conclave.Access{Operation: conclave.Delete, Path: "metadata/" + in.Destination})
}
