// Package cubbyhole is the secrets engine that gives each access token a place of its own. What is stored in it is seen
// by that token only, not even by root, and goes when the token goes: the pipeline hands the engine a view of the
// caller's part, and drops the part with the token. There are no versions and no leases.
package cubbyhole

import (
	"context"
	"encoding/json"

	"conclave"
)

const kind = "cubbyhole"

// maxScan is how many names one scan returns at most; more are an error.
const maxScan = 100_000

// Plugin is the engine's line in the list of plug-ins.
func Plugin() conclave.Plugin {
	return conclave.Plugin{
		Kind:      kind,
		Doc:       "A private place for each access token, which goes when the token goes.",
		Open:      open,
		Singleton: true,
	}
}

// Engine serves the routes. It has no state.
type Engine struct{}

var _ conclave.PerCaller = Engine{}

func open(map[string]string) (conclave.Engine, error) { return Engine{}, nil }

// Kind is "cubbyhole".
func (Engine) Kind() string { return kind }

// PerCaller marks the storage as divided by access token.
func (Engine) PerCaller() {}

// Routes are read, write, delete, list and scan on any path.
func (Engine) Routes() []conclave.Route {
	return []conclave.Route{
		conclave.ReadRoute(conclave.Read, "{path...}", "Read what this token has stored at a path.", read),
		conclave.WriteRoute(conclave.Update, "{path...}", writeDoc, update).With(existing),
		conclave.WriteRoute(conclave.Delete, "{path...}", "Remove what this token has stored at a path.", remove),
		conclave.ReadRoute(conclave.List, "{path...}", "List the names directly under a path.", list),
		conclave.ReadRoute(conclave.Scan, "{path...}", "List all paths below a path, however deep.", scan),
	}
}

type pathIn struct {
	Path string `path:"path" doc:"Where in the token's cubbyhole."`
}

func read(_ context.Context, view conclave.View, in *pathIn) (*conclave.Response, error) {
	value, err := view.Get(in.Path)
	if err != nil {
		return nil, err
	}
	if value == nil {
		return nil, &conclave.Error{Kind: conclave.NotFound}
	}
	return &conclave.Response{Data: json.RawMessage(value)}, nil
}

const writeDoc = `Store the fields of the request at a path, for this token alone.
What was there before is replaced. All fields are stored as they are given; there must be at least one.`

type writeIn struct {
	Path   string         `path:"path" doc:"Where in the token's cubbyhole."`
	Fields map[string]any `json:"*"`
}

func update(_ context.Context, tx conclave.Tx, in *writeIn) (*conclave.None, error) {
	if len(in.Fields) == 0 {
		return nil, conclave.Errorf(conclave.Invalid, "missing data fields")
	}
	value, err := json.Marshal(in.Fields)
	if err != nil {
		return nil, conclave.Errorf(conclave.Invalid, "the fields can't be stored as JSON")
	}
	return nil, tx.Put(in.Path, value)
}

func existing(r *conclave.Route) {
	r.Exists = func(view conclave.View, in any) (bool, error) {
		value, err := view.Get(in.(*writeIn).Path)
		return value != nil, err
	}
}

func remove(_ context.Context, tx conclave.Tx, in *pathIn) (*conclave.None, error) {
	return nil, tx.Delete(in.Path)
}

type listIn struct {
	Path  string `path:"path" doc:"The directory; empty for the top."`
	After string `json:"after" doc:"Return only names after this one."`
	Limit int    `json:"limit" doc:"Return at most so many names; 0 for all."`
}

func list(_ context.Context, view conclave.View, in *listIn) (*conclave.Keys, error) {
	names, err := view.List(dir(in.Path), in.After, in.Limit)
	return &conclave.Keys{Keys: names}, err
}

func dir(path string) string {
	if path == "" {
		return ""
	}
	return path + "/"
}

func scan(_ context.Context, view conclave.View, in *pathIn) (*conclave.Keys, error) {
	var keys []string
	if err := walk(view, dir(in.Path), "", &keys); err != nil {
		return nil, err
	}
	return &conclave.Keys{Keys: keys}, nil
}

// walk appends the paths below at, relative to where the walk began. Storage bounds the depth.
func walk(view conclave.View, top, below string, keys *[]string) error {
	names, err := view.List(top+below, "", 0)
	if err != nil {
		return err
	}
	for _, name := range names {
		if name[len(name)-1] == '/' {
			if err := walk(view, top, below+name, keys); err != nil {
				return err
			}
			continue
		}
		if len(*keys) == maxScan {
			return conclave.Errorf(conclave.TooLarge, "there are more than %d paths: scan a directory below", maxScan)
		}
		*keys = append(*keys, below+name)
	}
	return nil
}
