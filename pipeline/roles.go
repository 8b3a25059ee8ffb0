package pipeline

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	"conclave"
	"conclave/mount"
	"conclave/store"
)

// Role is something of an auth method that gives policies to those who log in: a role, a user, a group.
type Role struct {
	Mount           string // "auth/approle/"
	Path            string // below it: "role/ci"
	Policies        []string
	NoDefaultPolicy bool
}

// Roles lists what gives policies in the auth methods of the viewed namespace, in order of their paths, after one and at
// most limit. It is whatever a method's own routes list and then show with token_policies or policies.
func (p *Pipeline) Roles(ctx context.Context, view conclave.View, after string, limit int) ([]Role, error) {
	system, ok := view.(*store.View)
	if !ok {
		return nil, conclave.Errorf(conclave.Internal, "roles are listed outside the system space")
	}
	table, err := mount.Load(system, p.routing.defaults)
	if err != nil {
		return nil, err
	}
	l := &roleLister{routing: p.routing, system: system, after: after, limit: limit}
	entries := slices.Clone(table.Entries())
	slices.SortFunc(entries, func(a, b *mount.Entry) int { return strings.Compare(a.Path, b.Path) })
	for _, entry := range entries {
		if !entry.Auth() || entry.Space.ID == 0 { // tokens give no policies but to tokens
			continue
		}
		if err := l.mount(ctx, entry); err != nil || len(l.found) >= limit {
			return l.found, err
		}
	}
	return l.found, nil
}

type roleLister struct {
	routing *routing
	system  *store.View
	after   string
	limit   int
	found   []Role
}

// mount lists those of one auth method.
func (l *roleLister) mount(ctx context.Context, entry *mount.Entry) error {
	opened, err := l.routing.open(entry)
	if err != nil {
		return err
	}
	view, err := l.system.Mounted(entry.Space, "", entry.Mount())
	if err != nil {
		return err
	}
	for _, folder := range listed(opened.router) {
		names, err := l.names(ctx, opened.router, view, folder)
		if err != nil {
			return err
		}
		for _, name := range names {
			path := folder + name
			if strings.HasSuffix(name, "/") || entry.Path+path <= l.after {
				continue
			}
			role, err := show(ctx, opened.router, view, path)
			if err != nil {
				return err
			}
			if role == nil {
				continue
			}
			role.Mount, role.Path = entry.Path, path
			if l.found = append(l.found, *role); len(l.found) >= l.limit {
				return nil
			}
		}
	}
	return nil
}

// listed are the folders that a method's routes list, each with its slash, in order.
func listed(router *conclave.Router) []string {
	var folders []string
	router.Routes(func(r *conclave.Route) {
		if r.Operation == conclave.List && !r.Public && !strings.Contains(r.Pattern, "{") && r.Pattern != "" {
			folders = append(folders, strings.TrimSuffix(r.Pattern, "/")+"/")
		}
	})
	slices.Sort(folders)
	return folders
}

func (l *roleLister) names(ctx context.Context, router *conclave.Router, view *store.View, folder string) ([]string, error) {
	var keys conclave.Keys
	err := ask(ctx, router, view, conclave.List, folder, &keys)
	if conclave.Is(err, conclave.NotFound) {
		return nil, nil
	}
	slices.Sort(keys.Keys)
	return keys.Keys, err
}

// show reads one of them, nil if it gives no policies.
func show(ctx context.Context, router *conclave.Router, view *store.View, path string) (*Role, error) {
	var shown struct {
		TokenPolicies   []string `json:"token_policies"`
		Policies        []string `json:"policies"`
		NoDefaultPolicy bool     `json:"token_no_default_policy"`
	}
	err := ask(ctx, router, view, conclave.Read, path, &shown)
	switch {
	case conclave.Is(err, conclave.NotFound), conclave.Is(err, conclave.Unsupported):
		return nil, nil
	case err != nil:
		return nil, err
	case shown.TokenPolicies != nil:
		return &Role{Policies: shown.TokenPolicies, NoDefaultPolicy: shown.NoDefaultPolicy}, nil
	case shown.Policies != nil:
		return &Role{Policies: shown.Policies, NoDefaultPolicy: shown.NoDefaultPolicy}, nil
	}
	return nil, nil
}

// ask runs a route that only reads, in the transaction of view, and decodes what it answers.
func ask(ctx context.Context, router *conclave.Router, view *store.View, op conclave.Operation, path string, into any) error {
	route, params, err := router.Find(op, path)
	if err != nil {
		return err
	}
	if route.Writes() || route.Prepare != nil || route.Finish != nil {
		return conclave.Errorf(conclave.Unsupported, "not to be read so")
	}
	in, err := route.Bind(params, nil)
	if err != nil {
		return err
	}
	resp, err := route.Handle(ctx, view, in)
	if err != nil || resp == nil {
		return err
	}
	data, err := json.Marshal(resp.Data)
	if err != nil {
		return err
	}
	if json.Unmarshal(data, into) != nil {
		return conclave.Errorf(conclave.Unsupported, "not what was looked for")
	}
	return nil
}
