package audit

import (
	"context"
	"encoding/json"
	"strings"

	"conclave"
)

// Routes are those below sys/ that manage audit devices and hash values as records do. directories belongs to the executing node; hash is
// [Hasher.Hash] of the open keyring, and an error while there is none.
func Routes(directories Directories, hash func(input string) (string, error)) []conclave.Route {
	enable := conclave.WriteRoute(conclave.Update, "audit/{path...}", "Enable an audit device.\n\n"+
		"Every unsealed node writes the lines of all requests from now on to the file, each into its own. The file must be in a directory that "+
		"the configuration names, and must be new, empty or an audit log already. Records in the replicated log don't depend on devices.", enableDevice).
		With(conclave.Sudo)
	enable.Prepare = func(_ context.Context, req *conclave.Request, in any) (any, error) {
		return prepareDevice(req, in.(*enableInput), directories)
	}
	enable.ClearRequest = []string{"type", "description", "options", "local"}
	list := conclave.ReadRoute(conclave.Read, "audit", "List the enabled audit devices.", listDevices).With(conclave.Sudo)
	disable := conclave.WriteRoute(conclave.Delete, "audit/{path...}", "Disable an audit device. What it has written stays.", disableDevice).
		With(conclave.Sudo)
	hashInput := conclave.ReadRoute(conclave.Update, "audit-hash/{path...}", "Hash a text as audit records do, to find it there.",
		func(_ context.Context, view conclave.View, in *hashInput) (*hashOutput, error) {
			return hashText(view, in, hash)
		})
	hashInput.ClearResponse = []string{"hash"}
	return []conclave.Route{list, enable, disable, hashInput}
}

type enableInput struct {
	Path        string            `path:"path" doc:"Where the device is managed, under sys/audit/."`
	Type        string            `json:"type" doc:"The kind of device: file."`
	Description string            `json:"description" doc:"What it is for, in words."`
	Options     map[string]string `json:"options" doc:"file_path: the file, in a configured directory. mode: 0600. format: json."`
	Local       bool              `json:"local" doc:"Kept for clients; devices are enabled on every node."`
}

type pathInput struct {
	Path string `path:"path" doc:"Where the device is managed, under sys/audit/."`
}

type hashInput struct {
	Path  string  `path:"path" doc:"An enabled device. All hash alike."`
	Input *string `json:"input" doc:"The text to hash."`
}

type hashOutput struct {
	Hash string `json:"hash" doc:"hmac-sha256: and the HMAC in hexadecimal."`
}

type deviceOutput struct {
	Path        string            `json:"path" doc:"Where the device is managed, with a trailing slash."`
	Type        string            `json:"type" doc:"The kind of device."`
	Description string            `json:"description" doc:"What it is for."`
	Options     map[string]string `json:"options" doc:"As they were given."`
	Local       bool              `json:"local" doc:"As it was given."`
}

// inRoot refuses requests in other namespaces: their records are in the one log, and what is written where concerns the whole cluster.
func inRoot(req *conclave.Request) error {
	if req != nil && req.Namespace != "" {
		return conclave.Errorf(conclave.Unsupported, "audit devices are managed in the root namespace")
	}
	return nil
}

func prepareDevice(req *conclave.Request, in *enableInput, directories Directories) (*Device, error) {
	if err := inRoot(req); err != nil {
		return nil, err
	}
	d := &Device{Path: strings.TrimSuffix(in.Path, "/"), Type: in.Type, Description: in.Description, Options: in.Options, Local: in.Local}
	if err := checkDevicePath(d.Path); err != nil {
		return nil, err
	}
	return d, checkDevice(d, directories)
}

func enableDevice(ctx context.Context, tx conclave.Tx, _ *enableInput) (*conclave.None, error) {
	prepared, ok := conclave.Prepared[*Device](ctx)
	if !ok {
		return nil, conclave.Errorf(conclave.Internal, "the audit device was not checked")
	}
	others, err := Devices(tx)
	if err != nil {
		return nil, err
	}
	if len(others) >= MaxDevices {
		return nil, conclave.Errorf(conclave.Invalid, "there are %d audit devices already, the most there can be", len(others))
	}
	d := *prepared
	for _, other := range others {
		if strings.HasPrefix(other.Path+"/", d.Path+"/") || strings.HasPrefix(d.Path+"/", other.Path+"/") {
			return nil, conclave.Errorf(conclave.Invalid, "path already in use at %s/", other.Path)
		}
		if other.FilePath() == d.FilePath() {
			return nil, conclave.Errorf(conclave.Invalid, "the audit device %s/ writes to this file already", other.Path)
		}
	}
	d.Enabled = tx.Now()
	value, err := json.Marshal(d)
	if err != nil {
		return nil, err
	}
	return nil, tx.Put(devicesFolder+"/"+d.Path, value)
}

func disableDevice(_ context.Context, tx conclave.Tx, in *pathInput) (*conclave.None, error) {
	if err := inRoot(tx.Request()); err != nil {
		return nil, err
	}
	path := strings.TrimSuffix(in.Path, "/")
	if checkDevicePath(path) != nil {
		return nil, nil // there can be none
	}
	return nil, tx.Delete(devicesFolder + "/" + path)
}

func listDevices(_ context.Context, view conclave.View, _ *conclave.None) (*conclave.Response, error) {
	if err := inRoot(view.Request()); err != nil {
		return nil, err
	}
	devices, err := Devices(view)
	if err != nil {
		return nil, err
	}
	out := make(map[string]deviceOutput, len(devices))
	for _, d := range devices {
		out[d.Path+"/"] = deviceOutput{d.Path + "/", d.Type, d.Description, d.Options, d.Local}
	}
	return &conclave.Response{Data: out, TopLevel: true}, nil
}

func hashText(view conclave.View, in *hashInput, hash func(string) (string, error)) (*hashOutput, error) {
	if err := inRoot(view.Request()); err != nil {
		return nil, err
	}
	if in.Input == nil {
		return nil, conclave.Errorf(conclave.Invalid, "the \"input\" parameter is empty")
	}
	path := strings.TrimSuffix(in.Path, "/")
	d, err := loadDevice(view, path)
	if err != nil {
		return nil, err
	}
	if d == nil {
		return nil, conclave.Errorf(conclave.Invalid, "unknown audit device %s/", path)
	}
	text, err := hash(*in.Input)
	if err != nil {
		return nil, err
	}
	return &hashOutput{text}, nil
}
