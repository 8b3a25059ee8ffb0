package main

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"conclave/audit"
)

// Pauses of the audit devices.
const (
	devicePoll  = 250 * time.Millisecond // between looks at which devices are enabled
	deviceRetry = 2 * time.Second        // after a device failed
)

// auditSource is this node's committed audit log, as sinks follow it.
type auditSource struct{ d *daemon }

// Read visits records from a number on.
func (s auditSource) Read(ctx context.Context, from uint64, visit func(audit.Frame) bool) error {
	return s.d.state.Audit().Read(ctx, from, visit)
}

// Shown is where the log stands.
func (s auditSource) Shown() audit.State { return s.d.state.Audit().Shown() }

// Wait returns when record seq is there.
func (s auditSource) Wait(ctx context.Context, seq uint64) error {
	for {
		applied := s.d.state.Applied() // before the look: what is applied after it is waited for
		if s.Shown().Seq > seq {
			return nil
		}
		if err := s.d.state.WaitApplied(ctx, applied+1); err != nil {
			return err
		}
	}
}

// runningDevice is one device that is being written.
type runningDevice struct {
	cancel context.CancelFunc
	done   chan struct{} // closed when it isn't any more
	sink   *audit.FileSink
}

// deviceSet is the devices that this node writes.
type deviceSet struct {
	mu      sync.Mutex               // guards all below
	running map[string]runningDevice // as enabledDevices names it → what writes it
	refused map[string]bool          // the same → this node has said that it can't write it
}

// followDevices writes every enabled audit device while this node is open, until ctx ends.
func (d *daemon) followDevices(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for failing := false; ; {
		err := d.updateDevices(ctx, group)
		if err != nil && !failing && ctx.Err() == nil {
			d.log.Warn("audit devices can't be looked up", "error", err)
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return errors.Join(group.Wait())
		case <-time.After(devicePoll):
		}
	}
}

// updateDevices starts what is enabled and stops what isn't any more.
func (d *daemon) updateDevices(ctx context.Context, group *errgroup.Group) error {
	enabled, err := d.enabledDevices()
	if err != nil {
		return err
	}
	for _, done := range d.stopDevices(enabled) {
		<-done // another device may write the same file from now on
	}
	d.devices.mu.Lock()
	defer d.devices.mu.Unlock()
	for key, device := range enabled {
		if _, already := d.devices.running[key]; already {
			continue
		}
		sink, err := audit.NewFileSink(audit.FileSinkConfig{Path: device.FilePath(), Folders: d.folders, Source: auditSource{d},
			Open: d.openerAt, Since: device.Enabled})
		if err != nil {
			if !d.devices.refused[key] {
				d.log.Error("an audit device can't be written on this node", "device", device.Path, "error", err)
				d.devices.refused[key] = true
			}
			continue
		}
		deviceCtx, cancel := context.WithCancel(ctx)
		done := make(chan struct{})
		d.devices.running[key] = runningDevice{cancel, done, sink}
		group.Go(func() error {
			defer close(done)
			d.writeDevice(deviceCtx, device.Path, sink)
			return nil
		})
	}
	return nil
}

// stopDevices stops what isn't enabled any more, and returns what is closed when it has ended.
func (d *daemon) stopDevices(enabled map[string]audit.Device) (done []chan struct{}) {
	d.devices.mu.Lock()
	defer d.devices.mu.Unlock()
	if d.devices.running == nil {
		d.devices.running, d.devices.refused = map[string]runningDevice{}, map[string]bool{}
	}
	for key, running := range d.devices.running {
		if _, still := enabled[key]; !still {
			running.cancel()
			done = append(done, running.done)
			delete(d.devices.running, key)
		}
	}
	return done
}

// writeDevice keeps one device written; a failure is logged and tried again, since nothing is lost meanwhile.
func (d *daemon) writeDevice(ctx context.Context, path string, sink *audit.FileSink) {
	for {
		err := sink.Run(ctx)
		if ctx.Err() != nil {
			return
		}
		d.log.Error("an audit device failed: it goes on from where it stopped", "device", path, "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(deviceRetry):
		}
	}
}

// enabledDevices are those that this node is to write, by path, file and when they were enabled. A sealed vault has none,
// since it can't read the records.
func (d *daemon) enabledDevices() (map[string]audit.Device, error) {
	if d.store.Locked() {
		return nil, nil
	}
	tx, err := d.store.Begin()
	if err != nil {
		return nil, err
	}
	defer tx.Close()
	devices, err := audit.Devices(tx.System())
	if err != nil {
		return nil, err
	}
	enabled := make(map[string]audit.Device, len(devices))
	for _, device := range devices {
		enabled[device.Path+"\x00"+device.FilePath()+"\x00"+strconv.FormatInt(device.Enabled.UnixNano(), 10)] = device
	}
	return enabled, nil
}

// openerAt opens records with the keyring as it is after an entry of the log, or later: records of a rotated keyring are
// in the log a moment before the state shows that keyring.
func (d *daemon) openerAt(ctx context.Context, index uint64) (*audit.Opener, error) {
	if err := d.state.WaitApplied(ctx, index); err != nil {
		return nil, err
	}
	return d.opener()
}

// reopenDevices opens the files anew, for whoever has moved them away.
func (d *daemon) reopenDevices() {
	d.devices.mu.Lock()
	defer d.devices.mu.Unlock()
	for _, running := range d.devices.running {
		running.sink.Reopen()
	}
}
