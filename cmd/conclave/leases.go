package main

import (
	"slices"

	"conclave"
	"conclave/lease"
	"conclave/revoke"
	"conclave/schedule"
)

// engines opens engines by way of the pipeline, which is made after those who ask.
type engines struct{ daemon *daemon }

// Engine returns the engine of a mount, and the mount's storage in the same transaction.
func (e engines) Engine(system conclave.Tx, mountUUID string) (conclave.Engine, conclave.Tx, error) {
	return e.daemon.pipeline.Engine(system, mountUUID)
}

func (d *daemon) leaseRoutes() []conclave.Route {
	return append(lease.Routes(lease.Setup{Mounts: engines{d}, Owners: revoke.Owners{}, Ender: d.reaper}), slices.Concat(revoke.EverythingRoutes(), schedule.Routes())...)
}

// closeMount refuses to disable a mount that has leases, and takes back what work it had to do.
func closeMount(tx conclave.Tx, mount *conclave.Mount) error {
	if err := lease.Close(tx, mount); err != nil {
		return err
	}
	return schedule.Close(tx, mount.UUID)
}

// emptyNamespace refuses to delete a namespace that has leases, and gives back what is counted in one that hasn't.
func emptyNamespace(system conclave.System) error {
	if err := lease.Empty(system); err != nil {
		return err
	}
	return forgetCounts(system)
}
