package mount

import (
	"context"
	"io"
	"strings"

	"conclave"
)

// Plugins knows the engines and auth methods that there are.
type Plugins interface {
	// Plugin returns the secrets engine, or the auth method, of a kind.
	Plugin(kind string, auth bool) (conclave.Plugin, bool)
}

// Access answers what policies say about the caller.
type Access interface {
	// Touches reports whether the caller has any capability on a mount's path, which ends in "/", or below it.
	Touches(ctx context.Context, path string) bool
}

// Setup is what the routes need. All members but Defaults and those that may be nil must be given; Random must be a cryptographic source.
type Setup struct {
	Plugins  Plugins
	Access   Access
	Defaults Defaults
	// Namespaces reports whether a namespace lies at the beginning of a path. Nil: there are none.
	Namespaces func(view conclave.View, path string) (bool, error)
	Random     io.Reader
	// Close refuses to disable a mount that has given out what must be ended first: leases. Nil: there are none.
	Close func(tx conclave.Tx, mount *conclave.Mount) error
}

// side is one half of the table's routes: secrets engines below sys/mounts, or auth methods below sys/auth.
type side struct {
	Setup
	auth   bool
	prefix string // "auth/" or ""
	noun   string
}

// Routes are those below sys/ that manage mounts. They need the system space: their Tx must be a conclave.System.
func Routes(setup Setup) []conclave.Route {
	secrets := &side{setup, false, "", "secrets engine"}
	auth := &side{setup, true, authPrefix, "auth method"}
	routes := append(secrets.routes("mounts"), auth.routes("auth")...)
	return append(routes, setup.moveRoutes()...)
}

func (s *side) routes(base string) []conclave.Route {
	routes := []conclave.Route{
		conclave.ReadRoute(conclave.Read, base, "List the mounted "+s.noun+"s.", s.list),
		conclave.ReadRoute(conclave.Read, base+"/{path...}", "Read how a "+s.noun+" is mounted; with /tune behind the path, how it is tuned.", s.read),
		conclave.WriteRoute(conclave.Update, base+"/{path...}", "Mount a "+s.noun+" at a path; with /tune behind the path, tune the one that is mounted there.", s.write),
		conclave.WriteRoute(conclave.Delete, base+"/{path...}", "Unmount a "+s.noun+". All that it has stored is destroyed, with the key that it was encrypted with.", s.disable),
	}
	for i := range routes {
		// As in Vault, managing auth methods needs sudo, listing them doesn't.
		routes[i].Sudo = s.auth && routes[i].Pattern != base
		if routes[i].Operation == conclave.Update {
			routes[i].Prepare = s.prepare
		}
	}
	return routes
}

// prepare makes the randomness of what the request may make.
func (s Setup) prepare(context.Context, *conclave.Request, any) (any, error) {
	ids, err := mint(s.Random)
	if err != nil {
		return nil, err
	}
	return ids, nil
}

// free refuses a path that other mounts or a namespace use.
func (s Setup) free(view conclave.View, table *Table, path string, except *Entry) error {
	if other := table.conflict(path, except); other != nil {
		return conclave.Errorf(conclave.Invalid, "path is already in use at %s", other.Path)
	}
	if s.Namespaces == nil {
		return nil
	}
	taken, err := s.Namespaces(view, path)
	if err == nil && taken {
		err = conclave.Errorf(conclave.Invalid, "path is already in use by a namespace")
	}
	return err
}

func prepared(ctx context.Context) (minted, error) {
	ids, ok := conclave.Prepared[minted](ctx)
	if !ok {
		return minted{}, conclave.Errorf(conclave.Internal, "no randomness was prepared")
	}
	return ids, nil
}

// info is how a mount is listed.
type info struct {
	Accessor              string            `json:"accessor" doc:"A handle for identity aliases."`
	Config                Config            `json:"config" doc:"What can be tuned."`
	DeprecationStatus     string            `json:"deprecation_status" doc:"Always supported."`
	Description           string            `json:"description" doc:"A text for people."`
	ExternalEntropyAccess bool              `json:"external_entropy_access" doc:"Always false."`
	Local                 bool              `json:"local" doc:"Kept for clients."`
	Options               map[string]string `json:"options" doc:"Options of the plug-in."`
	PluginVersion         string            `json:"plugin_version" doc:"Always empty: plug-ins are built in."`
	RunningPluginVersion  string            `json:"running_plugin_version" doc:"The version of the built-in plug-in."`
	RunningSHA256         string            `json:"running_sha256" doc:"Always empty: plug-ins are built in."`
	SealWrap              bool              `json:"seal_wrap" doc:"Kept for clients."`
	Type                  string            `json:"type" doc:"The kind of plug-in."`
	UUID                  string            `json:"uuid" doc:"Names the mount for ever, also when it moves."`
}

// builtinVersion is what clients are told of plug-ins, which all are part of the program.
const builtinVersion = "v1.0.0+builtin"

func describe(e *Entry) info {
	return info{Accessor: e.Accessor, Config: e.Config, DeprecationStatus: "supported", Description: e.Description, Local: e.Local,
		Options: e.Options, RunningPluginVersion: builtinVersion, SealWrap: e.SealWrap, Type: e.Kind, UUID: e.UUID}
}

type pathInput struct {
	Path string `path:"path" doc:"The mount's path, without a slash at the end."`
}

func (s *side) list(_ context.Context, view conclave.View, _ *conclave.None) (*conclave.Response, error) {
	table, err := Load(view, s.Defaults)
	if err != nil {
		return nil, err
	}
	mounts := map[string]info{}
	for _, e := range table.Entries() {
		if e.Auth() == s.auth {
			mounts[strings.TrimPrefix(e.Path, s.prefix)] = describe(e)
		}
	}
	return &conclave.Response{Data: mounts, TopLevel: true}, nil
}

// of is the side that a path is tuned and read on. Clients ask for auth methods below sys/mounts/auth/ too.
func (s *side) of(path string) (*side, string) {
	if below, ok := strings.CutPrefix(path, authPrefix); ok && !s.auth {
		return &side{s.Setup, true, authPrefix, "auth method"}, below
	}
	return s, path
}

// find returns the table and the mount at a path of this side; what isn't there is Invalid, as clients expect.
func (s *side) find(view conclave.View, path string) (*Table, *Entry, error) {
	table, err := Load(view, s.Defaults)
	if err != nil {
		return nil, nil, err
	}
	e := table.at(s.prefix + path)
	if e == nil || e.Auth() != s.auth {
		what := "secret engine mount" // Terraform's provider knows a mount that is gone by these very words
		if s.auth {
			what = "auth engine"
		}
		return nil, nil, conclave.Errorf(conclave.Invalid, "No %s at %s/", what, strings.TrimSuffix(path, "/"))
	}
	return table, e, nil
}

func (s *side) read(_ context.Context, view conclave.View, in *pathInput) (*conclave.Response, error) {
	path, tuned := cutTune(in.Path)
	s, path = s.of(path)
	_, e, err := s.find(view, path)
	if err != nil {
		return nil, err
	}
	if tuned {
		return &conclave.Response{Data: describeTuning(e), TopLevel: true}, nil
	}
	return &conclave.Response{Data: describe(e), TopLevel: true}, nil
}

// cutTune splits "secret/tune". No mount's own path ends so.
func cutTune(path string) (mount string, tune bool) { return strings.CutSuffix(path, "/tune") }

// writeInput has the members of both requests below one pattern: mounting and tuning.
type writeInput struct {
	tuneInput
	Path       string    `path:"path" doc:"The mount's path, without a slash at the end."`
	Type       string    `json:"type" doc:"The kind of plug-in, such as kv; kv-v2 is kv with the option version=2."`
	PluginName string    `json:"plugin_name" doc:"An old name of type."`
	Config     tuneInput `json:"config" doc:"What can be tuned, given at once."`
	Local      bool      `json:"local" doc:"Kept for clients."`
	SealWrap   bool      `json:"seal_wrap" doc:"Kept for clients."`
}

func (s *side) write(ctx context.Context, tx conclave.Tx, in *writeInput) (*conclave.None, error) {
	if path, tune := cutTune(in.Path); tune {
		s, path = s.of(path)
		return nil, s.tune(tx, path, &in.tuneInput)
	}
	ids, err := prepared(ctx)
	if err != nil {
		return nil, err
	}
	system, err := systemOf(tx)
	if err != nil {
		return nil, err
	}
	e := &Entry{UUID: ids.uuid, Path: s.prefix + strings.TrimSuffix(in.Path, "/") + "/", Created: tx.Now().UnixNano(), Local: in.Local, SealWrap: in.SealWrap}
	if err := s.fill(e, in); err != nil {
		return nil, err
	}
	e.Accessor = ids.accessor(e.Kind, s.auth)
	table, err := Load(tx, s.Defaults)
	if err != nil {
		return nil, err
	}
	if err := s.free(tx, table, e.Path, nil); err != nil {
		return nil, err
	}
	if e.Space, err = system.CreateSpace(); err != nil {
		return nil, err
	}
	return nil, table.save(tx, nil, e, table.moves)
}

func systemOf(tx conclave.Tx) (conclave.System, error) {
	system, ok := tx.(conclave.System)
	if !ok {
		return nil, conclave.Errorf(conclave.Internal, "the mount table is outside the system space")
	}
	return system, nil
}

// aliases maps the names that clients use for a kind with an option → kind and version.
var aliases = map[string]struct{ kind, version string }{"kv-v1": {"kv", "1"}, "kv-v2": {"kv", "2"}, "generic": {"kv", "1"}}

// fill takes over what is asked for, and has the plug-in look at it.
func (s *side) fill(e *Entry, in *writeInput) error {
	if err := checkPath(e.Path); err != nil {
		return err
	}
	if e.Auth() != s.auth {
		return conclave.Errorf(conclave.Invalid, "cannot mount under %q: the path is the vault's own", authPrefix)
	}
	e.Kind = in.Type
	if e.Kind == "" || e.Kind == "plugin" {
		e.Kind = in.PluginName
	}
	tuning := in.Config
	tuning.Description = in.Description
	if in.Options != nil {
		tuning.Options = in.Options
	}
	if alias, ok := aliases[e.Kind]; ok && !s.auth {
		if given := tuning.Options["version"]; given != "" && given != alias.version {
			return conclave.Errorf(conclave.Invalid, "type %q contradicts the option version=%s", e.Kind, given)
		}
		options := map[string]string{}
		for key, value := range tuning.Options {
			options[key] = value
		}
		options["version"] = alias.version
		e.Kind, tuning.Options = alias.kind, options
	}
	if e.Kind == "" {
		return conclave.Errorf(conclave.Invalid, "backend type must be specified as a string")
	}
	if err := tuning.apply(e); err != nil {
		return err
	}
	if err := e.check(s.Defaults); err != nil {
		return err
	}
	return s.open(e, true)
}

// open has the plug-in judge the options.
func (s *side) open(e *Entry, fresh bool) error {
	plugin, ok := s.Plugins.Plugin(e.Kind, s.auth)
	switch {
	case !ok && e.Builtin:
		return nil // sys/ and auth/token/ are no plug-ins
	case !ok:
		return conclave.Errorf(conclave.Invalid, "there is no %s of type %q", s.noun, e.Kind)
	case plugin.Singleton && fresh:
		return conclave.Errorf(conclave.Invalid, "mount type of %q is not mountable", e.Kind)
	}
	_, err := plugin.Open(e.Options)
	return err
}

func (s *side) disable(_ context.Context, tx conclave.Tx, in *pathInput) (*conclave.None, error) {
	system, err := systemOf(tx)
	if err != nil {
		return nil, err
	}
	table, err := Load(tx, s.Defaults)
	if err != nil {
		return nil, err
	}
	e := table.at(s.prefix + in.Path)
	switch {
	case e == nil || e.Auth() != s.auth:
		return nil, nil // as clients expect: what isn't there is gone
	case e.Builtin:
		return nil, conclave.Errorf(conclave.Invalid, "cannot unmount %q", e.Path)
	}
	if s.Close != nil {
		if err := s.Close(tx, e.Mount()); err != nil {
			return nil, err
		}
	}
	if err := system.DropSpace(e.Space); err != nil {
		return nil, err
	}
	return nil, table.save(tx, e, nil, table.moves)
}
