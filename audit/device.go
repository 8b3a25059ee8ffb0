package audit

import (
	"encoding/json"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"conclave"
)

// Limits of devices.
const (
	MaxDevices = 16

	maxDevicePath   = 256  // bytes
	maxDeviceDepth  = 4    // segments of a device's path
	maxDescription  = 1024 // bytes
	maxFilePath     = 4096 // bytes
	cursorExtension = ".cursor"
	nextExtension   = ".new" // of a cursor that is being written
)

// Device is one place that gets the audit log's lines, as sys/audit manages it. Every unsealed node writes to its own.
type Device struct {
	Path        string            `json:"-"` // under sys/audit, without the trailing slash
	Type        string            `json:"type"`
	Description string            `json:"description"`
	Options     map[string]string `json:"options"` // as they were given
	Local       bool              `json:"local"`
	Enabled     time.Time         `json:"enabled"` // by cluster time; records before it aren't written
}

// FilePath is the file that the device writes to.
func (d *Device) FilePath() string { return filepath.Clean(d.Options["file_path"]) }

// Directories says where on the executing node a device may write. *Folders is one.
type Directories interface {
	// Names are the configured directories.
	Names() []string
	// Check reports why a device could not write to path: it is in none of the directories, or another's file.
	Check(path string) error
}

// A device is JSON at audit/<path> of the root namespace's system space.
const devicesFolder = "audit"

func decodeDevice(value []byte) (any, error) {
	d := new(Device)
	if json.Unmarshal(value, d) != nil || d.Type != "file" {
		return nil, conclave.Errorf(conclave.Internal, "a stored audit device can't be read")
	}
	return d, nil
}

// Devices returns the enabled devices, by path. view is of the root namespace's system space.
func Devices(view conclave.View) ([]Device, error) { return appendDevices(nil, view, "", 0) }

func appendDevices(list []Device, view conclave.View, dir string, depth int) ([]Device, error) {
	names, err := view.List(devicesFolder+"/"+dir, "", 0)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if strings.HasSuffix(name, "/") {
			if depth < maxDeviceDepth {
				list, err = appendDevices(list, view, dir+name, depth+1)
			}
		} else {
			var d *Device
			if d, err = loadDevice(view, dir+name); d != nil {
				list = append(list, *d)
			}
		}
		if err != nil {
			return nil, err
		}
	}
	return list, nil
}

// loadDevice returns nil if there is no such device.
func loadDevice(view conclave.View, path string) (*Device, error) {
	loaded, err := view.Load(devicesFolder+"/"+path, decodeDevice)
	shared, ok := loaded.(*Device)
	if err != nil || !ok {
		return nil, err
	}
	d := *shared
	d.Path = path
	return &d, nil
}

// checkDevicePath bounds the path under which a device is enabled. It is canonical already.
func checkDevicePath(path string) error {
	if path == "" || len(path) > maxDevicePath || strings.Count(path, "/") >= maxDeviceDepth {
		return conclave.Errorf(conclave.Invalid, "the path of an audit device has 1 to %d segments, of %d bytes together", maxDeviceDepth, maxDevicePath)
	}
	return nil
}

// checkDevice refuses what no node could do, and what would weaken the log. Then it asks the node's directories.
func checkDevice(d *Device, directories Directories) error {
	if d.Type != "file" {
		return conclave.Errorf(conclave.Invalid, "unknown audit device type %q: the one type there is is file", d.Type)
	}
	if len(d.Description) > maxDescription {
		return conclave.Errorf(conclave.Invalid, "the description has more than %d bytes", maxDescription)
	}
	for _, name := range slices.Sorted(maps.Keys(d.Options)) {
		if err := checkOption(name, d.Options[name]); err != nil {
			return err
		}
	}
	where := strings.Join(directories.Names(), ", ")
	if where == "" {
		return conclave.Errorf(conclave.Invalid, "audit devices can't be enabled: the node's configuration names no directory for them")
	}
	if d.Options["file_path"] == "" {
		return conclave.Errorf(conclave.Invalid, "file_path is required: a file in one of %s", where)
	}
	return directories.Check(d.FilePath())
}

// checkOption refuses an option of a file device with the reason. The empty value is the default.
func checkOption(name, value string) error {
	if value == "" && name != "prefix" {
		return nil
	}
	switch name {
	case "file_path":
		switch {
		case !filepath.IsAbs(value) || len(value) > maxFilePath:
			return conclave.Errorf(conclave.Invalid, "file_path must be an absolute path of at most %d bytes", maxFilePath)
		case strings.HasSuffix(strings.TrimSuffix(value, nextExtension), cursorExtension):
			return conclave.Errorf(conclave.Invalid, "file_path must not end in %s: such files hold how far a log is written", cursorExtension)
		}
		return nil
	case "format":
		if value == "json" {
			return nil
		}
		return conclave.Errorf(conclave.Invalid, "format %q is not supported: the one format there is is json", value)
	case "mode":
		if value == "0600" || value == "600" {
			return nil
		}
		return conclave.Errorf(conclave.Invalid, "mode %q is not supported: audit files have mode 0600", value)
	case "hmac_accessor":
		if value == "true" || value == "1" {
			return nil
		}
		return conclave.Errorf(conclave.Invalid, "hmac_accessor can't be turned off: records never hold accessors in the clear")
	case "log_raw":
		if value == "false" || value == "0" {
			return nil
		}
		return conclave.Errorf(conclave.Invalid, "log_raw can't be turned on: records never hold secrets in the clear")
	case "prefix":
		return conclave.Errorf(conclave.Invalid, "prefix is not supported: what a client chooses must not begin a line")
	}
	return conclave.Errorf(conclave.Invalid, "unknown option %q: a file device has file_path, format, mode, hmac_accessor and log_raw", name)
}
