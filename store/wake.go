package store

import (
	"time"

	"conclave"
	"conclave/schedule"
)

// Wake has the work of the mount's engine for name begin at a time; the zero time takes it back.
func (v *View) Wake(name string, at time.Time) error {
	if v.home == nil || v.mount == nil || v.mount.UUID == "" {
		return v.tx.fail(conclave.Errorf(conclave.Internal, "only engines of mounts are woken"))
	}
	if err := schedule.Wake(v.home, v.mount.UUID, name, at); err != nil {
		return v.tx.fail(err)
	}
	return nil
}
