package main

import (
	"crypto/rand"
	"slices"

	"conclave"
	"conclave/identity"
	"conclave/mfa"
	"conclave/mount"
)

// identityRoutes are all routes of identity/, each from the package that it is about.
func identityRoutes(access identity.Access) []conclave.Route {
	return slices.Concat(identity.Routes(identity.Setup{Mounts: mountsByAccessor{}, Access: access, Random: rand.Reader}),
		mfa.Routes(mfa.Setup{Directory: directory{}, Random: rand.Reader}))
}

// directory tells second factors about those who log in.
type directory struct{}

var _ mfa.Directory = directory{}

// Entity reports whether there is an entity of this id; one that was merged into another isn't.
func (directory) Entity(view conclave.View, id string) (bool, error) {
	who, err := identity.Of(view, id)
	return who != nil && who.ID == id, err
}

// Group reports whether there is a group.
func (directory) Group(view conclave.View, id string) (bool, error) {
	return identity.HasGroup(view, id)
}

// AuthMount reports whether an auth method is mounted that has an accessor, or that is of a kind.
func (directory) AuthMount(view conclave.View, accessor, kind string) (bool, error) {
	table, err := mount.Load(view, mount.Defaults{})
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(table.Entries(), func(e *mount.Entry) bool {
		return e.Auth() && (accessor != "" && e.Accessor == accessor || kind != "" && e.Kind == kind)
	}), nil
}
