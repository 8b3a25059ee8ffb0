package main

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"conclave/audit"
	"conclave/crypto"
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
	for s.Shown().Seq <= seq {
		if err := s.d.state.WaitApplied(ctx, s.d.state.Applied()+1); err != nil {
			return err
		}
	}
	return nil
}

// runningDevice is one device that is being written.
type runningDevice struct {
	cancel context.CancelFunc
	sink   *audit.FileSink
}

// deviceSet is the devices that this node writes.
type deviceSet struct {
	mu      sync.Mutex               // guards all below
	running map[string]runningDevice // path and file → what writes it
	refused map[string]bool          // path and file → this node has said that it can't write it
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
	enabled := map[string]audit.Device{}
	opener, err := d.enabledDevices(enabled)
	if err != nil {
		return err
	}
	d.devices.mu.Lock()
	defer d.devices.mu.Unlock()
	if d.devices.running == nil {
		d.devices.running, d.devices.refused = map[string]runningDevice{}, map[string]bool{}
	}
	for key, running := range d.devices.running {
		if _, still := enabled[key]; !still {
			running.cancel()
			delete(d.devices.running, key)
		}
	}
	for key, device := range enabled {
		if _, already := d.devices.running[key]; already {
			continue
		}
		sink, err := audit.NewFileSink(audit.FileSinkConfig{Path: device.FilePath(), Folders: d.folders, Source: auditSource{d},
			Opener: opener, Since: device.Enabled})
		if err != nil {
			if !d.devices.refused[key] {
				d.log.Error("an audit device can't be written on this node", "device", device.Path, "error", err)
				d.devices.refused[key] = true
			}
			continue
		}
		deviceCtx, cancel := context.WithCancel(ctx)
		d.devices.running[key] = runningDevice{cancel, sink}
		group.Go(func() error { d.writeDevice(deviceCtx, device.Path, sink); return nil })
	}
	return nil
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

// enabledDevices fills enabled while the vault is open; a sealed one can't read the records, so it writes none. A
// rotated keyring makes a new opener, and so new keys in the map: the devices start again with it.
func (d *daemon) enabledDevices(enabled map[string]audit.Device) (*audit.Opener, error) {
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
	keyring := tx.Keyring()
	for _, device := range devices {
		enabled[device.Path+"\x00"+device.FilePath()+"\x00"+epochName(keyring)] = device
	}
	return audit.NewOpener(tx.Cluster(), keyring.AuditData, keyring.AuditPrivate)
}

func epochName(keyring *crypto.Keyring) string {
	return strconv.FormatUint(uint64(keyring.AuditActive), 10)
}

// reopenDevices opens the files anew, for whoever has moved them away.
func (d *daemon) reopenDevices() {
	d.devices.mu.Lock()
	defer d.devices.mu.Unlock()
	for _, running := range d.devices.running {
		running.sink.Reopen()
	}
}
