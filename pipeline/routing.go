package pipeline

import (
	"io"
	"slices"
	"strings"

	"conclave"
	"conclave/mount"
	"conclave/namespace"
	"conclave/store"
)

// Kinds of mounts that the vault itself serves.
const (
	systemKind   = "system"
	tokenKind    = "token"
	identityKind = "identity"
)

// maxOpenMounts bounds the routers that are kept for mounts.
const maxOpenMounts = 8_192

// routing finds the route of a path: the vault's own, then those of the mounts as the transaction sees them.
type routing struct {
	plugins  map[pluginKey]conclave.Plugin
	system   *conclave.Router
	token    *conclave.Router
	identity *conclave.Router
	defaults mount.Defaults
	random   io.Reader
	opened   openedMounts
}

var errBatchCubbyhole = conclave.Errorf(conclave.Invalid, `cubbyhole operations are only supported by "service" type tokens`)

// pluginKey names a plug-in: a secrets engine and an auth method may have the same kind.
type pluginKey struct {
	kind string
	auth bool
}

// target is where a request leads.
type target struct {
	levels  []level           // from the root namespace to the request's own
	request *conclave.Request // as it is in its own namespace
	route   *conclave.Route   // nil: nowhere, and missing says why
	missing error
	params  map[string]string
	mount   *conclave.Mount
	entry   *mount.Entry
	view    *store.View

	perCaller bool // the storage is divided by caller
}

func newRouting(config Config) *routing {
	r := &routing{plugins: map[pluginKey]conclave.Plugin{}, defaults: mount.Defaults{DefaultTTL: config.DefaultTTL, MaxTTL: config.MaxTTL},
		random: config.Random}
	r.token, r.identity = conclave.NewRouter(nil), conclave.NewRouter(config.Identity)
	if config.Token != nil {
		r.token = conclave.NewRouter(config.Token(&logins{r}))
	}
	r.system = conclave.NewRouter(slices.Concat(config.System, []conclave.Route{r.specRoute()}, r.wrappingRoutes(), r.factorRoutes()))
	for _, plugin := range config.Plugins {
		r.plugins[pluginKey{plugin.Kind, plugin.Auth}] = plugin
	}
	return r
}

// resolve fills t for the request's namespace and path. The error is about the transaction, or says that the namespace is
// locked; a path that leads nowhere is no error.
func (r *routing) resolve(tx *store.Tx, req *conclave.Request, t *target) error {
	levels, found, err := descend(tx, req)
	t.levels, t.request = levels, req
	if err != nil {
		return err
	}
	if !found {
		t.missing = conclave.Errorf(conclave.NotFound, "no handler for this namespace")
		return nil
	}
	for {
		table, err := mount.Load(t.here().system, r.defaults)
		if err != nil {
			return err
		}
		if entry, rest, ok := table.Find(t.request.Path); ok {
			return r.reach(t, entry, rest)
		}
		first, rest, more := strings.Cut(t.request.Path, "/")
		var below *level
		if more && rest != "" && len(t.levels) <= namespace.MaxDepth {
			if below, err = t.here().child(tx, first, within(req, conclave.Namespace{}, rest)); err != nil {
				return err
			}
		}
		if below == nil {
			t.missing = conclave.Errorf(conclave.NotFound, "no handler for route %q: nothing is mounted there", t.request.Path)
			return nil
		}
		t.levels, t.request = append(t.levels, *below), within(t.request, below.Namespace, rest)
	}
}

// here is the level of the request's own namespace.
func (t *target) here() *level { return &t.levels[len(t.levels)-1] }

func (r *routing) reach(t *target, entry *mount.Entry, rest string) error {
	opened, err := r.open(entry)
	if err != nil {
		return err
	}
	t.mount, t.entry, t.perCaller = entry.Mount(), entry, opened.perCaller
	if err := t.find(opened.router, t.request, rest); err != nil {
		return err
	}
	if t.route != nil && t.route.Cluster && !t.here().IsRoot() {
		t.route, t.missing = nil, conclave.Errorf(conclave.NotFound, "unsupported path: it is the root namespace's")
	}
	return nil
}

func (t *target) find(router *conclave.Router, req *conclave.Request, path string) error {
	find := router.Find
	if req.Help {
		find = router.FindAny
	}
	route, params, err := find(req.Operation, path)
	if err != nil {
		t.missing = err
		return nil
	}
	t.route, t.params = route, params
	return nil
}

// open gives the handler's view of its storage.
func (t *target) open(caller *conclave.Caller) (*store.View, error) {
	if t.route.AtHome && caller != nil {
		for _, l := range t.levels {
			if l.ID == caller.Home.ID {
				return l.system.WithMount(t.mount), nil
			}
		}
	}
	if t.entry.Space.ID == 0 { // sys/, identity/ and auth/token/
		return t.here().system.WithMount(t.mount), nil
	}
	prefix := ""
	if t.perCaller {
		switch {
		case caller == nil:
			return nil, errDenied
		case caller.Type == "batch":
			return nil, errBatchCubbyhole
		}
		prefix = caller.TokenID + "/"
	}
	return t.here().system.Mounted(t.entry.Space, prefix, t.mount)
}
