package main

import (
	"context"
	"crypto/rand"
	"strings"

	"conclave"
	"conclave/mount"
	"conclave/namespace"
	"conclave/store"
)

// namespaceSetup is what namespaces need to know of the other parts.
func namespaceSetup() namespace.Setup {
	return namespace.Setup{
		Found: func(tx conclave.System) error { return mount.Initial(tx, rand.Reader) },
		Mounted: func(view conclave.View, path string) (bool, error) {
			table, err := mount.Load(view, mount.Defaults{})
			if err != nil {
				return false, err
			}
			return table.Uses(path), nil
		},
		Empty:  emptyNamespace,
		Spaces: mount.Spaces,
		Root:   rootSystem,
		Random: rand.Reader,
	}
}

// rootSystem is the system space of the root namespace, in the transaction of a view.
func rootSystem(view conclave.View) (conclave.System, error) {
	opened, ok := view.(*store.View)
	if !ok {
		return nil, conclave.Errorf(conclave.Internal, "a view that is no transaction's")
	}
	return opened.Tx().System(), nil
}

// namespaceAt reports whether a path begins with the name of a namespace.
func namespaceAt(view conclave.View, path string) (bool, error) {
	table, err := namespace.Load(view)
	if err != nil {
		return false, err
	}
	name, _, _ := strings.Cut(path, "/")
	return table.Find(name) != nil, nil
}

// inNamespace runs work as a transaction of the vault's own on the system space of a namespace; one that is gone is
// passed over.
func (d *daemon) inNamespace(ctx context.Context, at conclave.Namespace, work func(tx *store.Tx, system conclave.System) error) error {
	return d.store.Change(ctx, at.Path, work)
}

// mountsByAccessor tells identities about the mounts that their aliases are of.
type mountsByAccessor struct{}

// ByAccessor returns a mount of the view's namespace.
func (mountsByAccessor) ByAccessor(view conclave.View, accessor string) (path, kind string, local, ok bool, err error) {
	table, err := mount.Load(view, mount.Defaults{})
	if err != nil {
		return "", "", false, false, err
	}
	e := table.ByAccessor(accessor)
	if e == nil {
		return "", "", false, false, nil
	}
	return e.Path, e.Kind, e.Local, true, nil
}
