package mount

import (
	"bytes"
	"io"
	"slices"
	"strings"

	"conclave"
)

// Add mounts a plug-in in a new vault's table, without asking it about its options: for what the vault itself mounts
// when it is made. The path ends in "/".
func Add(tx conclave.System, path, kind string, options map[string]string, description string, random io.Reader) error {
	ids, err := mint(random)
	if err != nil {
		return err
	}
	table, err := Load(tx, Defaults{})
	if err != nil {
		return err
	}
	if other := table.conflict(path, nil); other != nil {
		return conclave.Errorf(conclave.Invalid, "path is already in use at %s", other.Path)
	}
	e := &Entry{UUID: ids.uuid, Path: path, Kind: kind, Accessor: ids.accessor(kind, strings.HasPrefix(path, authPrefix)), Options: options,
		Description: description, Created: tx.Now().UnixNano()}
	if e.Space, err = tx.CreateSpace(); err != nil {
		return err
	}
	return table.save(tx, nil, e, table.moves)
}

// Spaces returns the spaces of all mounts.
func Spaces(view conclave.View) ([]conclave.Space, error) {
	table, err := Load(view, Defaults{})
	if err != nil {
		return nil, err
	}
	var spaces []conclave.Space
	for _, e := range table.entries {
		if e.Space.ID != 0 {
			spaces = append(spaces, e.Space)
		}
	}
	return spaces, nil
}

// ChangeSpaces stores the table with the keys that change returns for each space. Nothing is written if none differ.
func ChangeSpaces(tx conclave.Tx, change func(conclave.Space) (conclave.Space, error)) error {
	table, err := Load(tx, Defaults{})
	if err != nil {
		return err
	}
	entries, changed := slices.Clone(table.entries), false
	for i, e := range entries {
		if e.Space.ID == 0 {
			continue
		}
		space, err := change(e.Space)
		if err != nil {
			return err
		}
		if bytes.Equal(space.Keys, e.Space.Keys) {
			continue
		}
		next := *e
		next.Space = space
		entries[i], changed = &next, true
	}
	if !changed {
		return nil
	}
	return put(tx, entries, table.moves)
}
