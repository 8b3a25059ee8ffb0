package conclave

// Plugin is one kind of secrets engine or auth method: the line that plugins.go has for it.
type Plugin struct {
	// Kind is what a mount names: "kv", "approle".
	Kind string
	// Doc is one line for lists of plug-ins.
	Doc string
	// Open returns the engine for a mount with these options; unknown or contradictory options are Invalid. It is called
	// once per version of a mount and does no work that can block.
	Open func(options map[string]string) (Engine, error)
	// Singleton plug-ins are mounted once, by the vault itself, and can't be disabled ("cubbyhole").
	Singleton bool
}

// Engine serves the routes of one mount. It has no state of its own: all it knows is in its mount's space.
type Engine interface {
	// Kind is the kind of plug-in that it comes from.
	Kind() string
	// Routes are the operations that it serves, with patterns relative to the mount.
	Routes() []Route
}

// PerCaller is an engine whose storage is divided by access token: each token sees its own part only, and the part
// goes when the token goes. The router gives such an engine a view of the caller's part.
type PerCaller interface {
	Engine
	PerCaller()
}
