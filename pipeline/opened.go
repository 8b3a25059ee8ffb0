package pipeline

import (
	"sync"

	"conclave"
	"conclave/mount"
)

// openedMount is a mount with its engine's routes ready.
type openedMount struct {
	engine    conclave.Engine // nil for what the vault itself serves
	router    *conclave.Router
	perCaller bool
}

// openedMounts keeps them by the decoded table entry: a changed table has new entries.
type openedMounts struct {
	mu     sync.RWMutex                  // guards mounts
	mounts map[*mount.Entry]*openedMount // entry → its routes
}

func (r *routing) open(entry *mount.Entry) (*openedMount, error) {
	switch entry.Kind {
	case systemKind:
		return &openedMount{router: r.system}, nil
	case tokenKind:
		return &openedMount{router: r.token}, nil
	case identityKind:
		return &openedMount{router: r.identity}, nil
	}
	r.opened.mu.RLock()
	opened := r.opened.mounts[entry]
	r.opened.mu.RUnlock()
	if opened != nil {
		return opened, nil
	}
	plugin, ok := r.plugins[pluginKey{entry.Kind, entry.Auth()}]
	if !ok {
		return nil, conclave.Errorf(conclave.Internal, "this node has no plug-in of kind %q: start a build that has it", entry.Kind)
	}
	engine, err := plugin.Open(entry.Options)
	if err != nil {
		return nil, err
	}
	_, perCaller := engine.(conclave.PerCaller)
	opened = &openedMount{engine: engine, router: conclave.NewRouter(engine.Routes()), perCaller: perCaller}
	r.opened.mu.Lock()
	defer r.opened.mu.Unlock()
	if len(r.opened.mounts) >= maxOpenMounts || r.opened.mounts == nil {
		r.opened.mounts = map[*mount.Entry]*openedMount{}
	}
	r.opened.mounts[entry] = opened
	return opened, nil
}
