package kv

import (
	"context"
	"strings"

	"conclave"
)

const listDoc = `List the names directly under a path.
Names that have something below them end in a slash; a name can appear with and without one. There is no answer (404)
where nothing is. Policies don't filter the names.`

type listIn struct {
	Path  string `path:"path" doc:"The directory; empty for the top."`
	After string `json:"after" doc:"Return only names after this one, for paging."`
	Limit int    `json:"limit" doc:"Return at most so many names; 0 for all."`
}

func list(_ context.Context, view conclave.View, in *listIn) (*conclave.Keys, error) {
	names, err := view.List(directory(in.Path), in.After, in.Limit)
	return &conclave.Keys{Keys: names}, err
}

func directory(path string) string {
	if path == "" {
		return secretsDir
	}
	return secretsDir + path + "/"
}

const scanDoc = `List the paths of all secrets below a path, however deep.
Paths are relative to the one asked for. One answer holds at most 100,000 of them: where there are more, page with limit
and after.`

type scanIn struct {
	Path  string `path:"path" doc:"The directory; empty for the top."`
	After string `json:"after" doc:"Return only what comes after this path, the last one of the page before."`
	Limit int    `json:"limit" doc:"Return at most so many paths; 0 for all, if they are not more than 100,000."`
}

func scan(_ context.Context, view conclave.View, in *scanIn) (*conclave.Keys, error) {
	w := walk{view: view, top: directory(in.Path), room: maxScan + 1}
	if in.Limit > 0 && in.Limit <= maxScan {
		w.room = in.Limit
	}
	if err := w.below("", in.After); err != nil {
		return nil, err
	}
	if len(w.keys) > maxScan {
		return nil, conclave.Errorf(conclave.TooLarge, "there are more than %d secrets below: page with limit and after", maxScan)
	}
	return &conclave.Keys{Keys: w.keys}, nil
}

// walk collects paths in the order of listings, depth first. Storage bounds the depth.
type walk struct {
	view conclave.View
	top  string
	room int // how many more may be collected
	keys []string
}

// below collects what is in dir ("" or ending in a slash) and comes after the path after, which is relative to dir.
func (w *walk) below(dir, after string) error {
	name, deeper, partly := strings.Cut(after, "/")
	if partly { // what comes after it in its own directory first
		if err := w.below(dir+name+"/", deeper); err != nil {
			return err
		}
		name += "/"
	}
	for w.room > 0 {
		asked := w.room // each name is a secret or has one below it
		names, err := w.view.List(w.top+dir, name, asked)
		if err != nil {
			return err
		}
		for _, name := range names {
			if w.room == 0 {
				return nil
			}
			if strings.HasSuffix(name, "/") {
				if err := w.below(dir+name, ""); err != nil {
					return err
				}
				continue
			}
			w.keys = append(w.keys, dir+name)
			w.room--
		}
		if len(names) < asked {
			return nil
		}
		name = names[len(names)-1]
	}
	return nil
}
