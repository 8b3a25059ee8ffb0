package kv

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"conclave"
)

// versioned is version 2: each write makes a new version.
type versioned struct{}

var _ conclave.Engine = versioned{}

// Kind is "kv".
func (versioned) Kind() string { return kind }

// Routes are those of Vault's API, move and copy, and a last one for every other path that tells what went wrong.
func (versioned) Routes() []conclave.Route {
	routes := []conclave.Route{
		conclave.ReadRoute(conclave.Read, "config", configReadDoc, readConfig),
		conclave.WriteRoute(conclave.Update, "config", configWriteDoc, writeConfig),

		conclave.ReadRoute(conclave.Read, "data/{path...}", dataReadDoc, readData),
		conclave.WriteRoute(conclave.Update, "data/{path...}", dataWriteDoc, writeData).With(dataExists),
		conclave.WriteRoute(conclave.Patch, "data/{path...}", dataPatchDoc, patchData),
		conclave.WriteRoute(conclave.Delete, "data/{path...}", dataDeleteDoc, deleteData),
		conclave.ReadRoute(conclave.Read, "subkeys/{path...}", subkeysDoc, readSubkeys),

		conclave.WriteRoute(conclave.Update, "delete/{path...}", deleteDoc, deleteVersions),
		conclave.WriteRoute(conclave.Update, "undelete/{path...}", undeleteDoc, undeleteVersions),
		conclave.WriteRoute(conclave.Update, "destroy/{path...}", destroyDoc, destroyVersions),

		conclave.ReadRoute(conclave.Read, "metadata/{path...}", metadataReadDoc, readMetadata),
		conclave.WriteRoute(conclave.Update, "metadata/{path...}", metadataWriteDoc, writeMetadata).With(metadataExists),
		conclave.WriteRoute(conclave.Patch, "metadata/{path...}", metadataPatchDoc, patchMetadata),
		conclave.WriteRoute(conclave.Delete, "metadata/{path...}", metadataDeleteDoc, deleteMetadata),
		conclave.ReadRoute(conclave.List, "metadata/{path...}", listDoc, list),
		conclave.ReadRoute(conclave.Scan, "metadata/{path...}", scanDoc, scan),

		conclave.WriteRoute(conclave.Update, "copy/{path...}", copyDoc, copySecret).With(copyNeeds),
		conclave.WriteRoute(conclave.Update, "move/{path...}", moveDoc, moveSecret).With(moveNeeds),
	}
	for _, op := range []conclave.Operation{conclave.Read, conclave.Update, conclave.Patch, conclave.Delete, conclave.List, conclave.Scan} {
		routes = append(routes, conclave.ReadRoute(op, "{path...}", strayDoc, strayHandler(op)))
	}
	return routes
}

const strayDoc = `Tell how the paths of a versioned mount are spelled.
Secrets are under data/, listings under metadata/. Anything else is answered with 404 and a warning that says so.`

type strayIn struct {
	Path string `path:"path" doc:"A path that isn't one of version 2's."`
}

// prefixes are the first segments of the API's paths.
var prefixes = []string{"config", "data", "subkeys", "delete", "undelete", "destroy", "metadata", "copy", "move"}

// strayHandler answers paths that have no route of their own. It is a 404 with a warning rather than with an error,
// because Vault's CLI and SDK show warnings of a 404 and drop its errors.
func strayHandler(op conclave.Operation) func(context.Context, conclave.View, *strayIn) (*conclave.Response, error) {
	return func(_ context.Context, view conclave.View, in *strayIn) (*conclave.Response, error) {
		mount := view.Mount().Path
		first, rest, below := strings.Cut(in.Path, "/")
		if slices.Contains(prefixes, first) {
			if !below && first != "config" {
				return &conclave.Response{Status: http.StatusNotFound, Warnings: []string{"Name a secret: " + mount + first + "/<path>."}}, nil
			}
			if op == conclave.List || op == conclave.Scan {
				return nil, conclave.Errorf(conclave.Unsupported, "unsupported operation: listings are under %smetadata/%s", mount, rest)
			}
			return nil, conclave.Errorf(conclave.Unsupported, "unsupported operation")
		}
		use := mount + "data/" + in.Path
		if op == conclave.List || op == conclave.Scan {
			use = mount + "metadata/" + in.Path
		}
		return &conclave.Response{
			Status: http.StatusNotFound,
			Warnings: []string{"This is a KV version 2 mount, and this is not one of its paths. Secrets are under " + mount + "data/, listings under " +
				mount + "metadata/: use " + use + ", or the command kv " + command(op) + ", which knows that."},
		}, nil
	}
}

// command is the CLI's word for an operation on a secret.
func command(op conclave.Operation) string {
	switch op {
	case conclave.Read:
		return "get"
	case conclave.Update:
		return "put"
	}
	return op.String()
}
