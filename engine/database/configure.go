package database

import (
	"context"
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"time"

	"conclave"
)

const connectionDoc = `Say where a database is and how to get in.
Fields that aren't given keep their value. Unless verify_connection is false, the database is connected to first. Give the
connection a user of its own, and rotate its password afterwards: then nobody but the vault has it.`

func (e *Engine) connectionRoutes() []conclave.Route {
	write := conclave.WriteRoute(conclave.Update, "config/{name}", connectionDoc, e.writeConnection)
	write.Gather, write.Prepare = gatherConnection, e.verifyConnection
	write.Exists = func(view conclave.View, in any) (bool, error) {
		value, err := view.Get(connectionDir + in.(*connectionIn).Name)
		return value != nil, err
	}
	return []conclave.Route{
		write,
		conclave.ReadRoute(conclave.Read, "config/{name}", "Read how a database is reached, without secrets.", readConnection),
		conclave.ReadRoute(conclave.List, "config", "List the connections.", listNames(connectionDir)),
		conclave.WriteRoute(conclave.Delete, "config/{name}", "Forget a connection.\nLeases of its logins can't be ended until there is one of that name again.", deleteConnection),
		conclave.WriteRoute(conclave.Update, "reset/{name}", "Close all connections to a database, on all nodes, and make new ones.", resetConnection),
		conclave.WriteRoute(conclave.Update, "reload/{plugin_name}", "Reset all connections of one kind of database.", reloadConnections),
	}
}

// verifyConnection connects to the database.
func (e *Engine) verifyConnection(ctx context.Context, _ *conclave.Request, in any) (any, error) {
	before, _ := conclave.Gathered[stored](ctx)
	c, r, err := before.merged(in.(*connectionIn))
	if err != nil || !c.Verify || c.SelfManaged {
		return nil, err
	}
	d, err := e.pools.begin(ctx, c.source(r))
	if err != nil {
		return nil, err
	}
	defer d.Close()
	if err := d.Verify(ctx); err != nil {
		return nil, conclave.Errorf(conclave.Invalid, "error creating database object: error verifying connection: %w", err)
	}
	return nil, nil
}

func (e *Engine) writeConnection(_ context.Context, tx conclave.Tx, in *connectionIn) (*conclave.Response, error) {
	if err := checkName(in.Name); err != nil {
		return nil, err
	}
	before, err := storedOf(tx, in.Name)
	if err != nil {
		return nil, err
	}
	c, r, err := before.merged(in)
	if err != nil {
		return nil, err
	}
	if err := put(tx, connectionDir+in.Name, c); err != nil {
		return nil, err
	}
	if before.connection == nil {
		r.Since = tx.Now().UnixNano()
	}
	if err := put(tx, rootDir+in.Name, r); err != nil {
		return nil, err
	}
	if err := wakeForRoot(tx, in.Name, c, r); err != nil {
		return nil, err
	}
	resp := &conclave.Response{}
	if _, withPassword := hidePassword(c.URL); withPassword {
		resp.Warnings = []string{"connection_url has a password in it, which can't be rotated and stays where it is: use {{username}} and {{password}}"}
	}
	return resp, emit(tx, "config-write", connectionDir+in.Name, in.Name)
}

// passwordField is what stands before a password in a list of keywords, where blanks may be around the sign, or in a URL.
var passwordField = regexp.MustCompile(`password[ \t\n\r\v\f]*=[ \t\n\r\v\f]*`)

// hidePassword is a URL, a list of keywords or a MySQL address without the password in it, and whether it had one.
func hidePassword(text string) (string, bool) {
	for _, at := range passwordField.FindAllStringIndex(text, -1) {
		if after := text[at[1]:]; !strings.HasPrefix(after, "{{") && !strings.HasPrefix(after, "'{{") {
			return text[:at[1]] + "*****", true
		}
	}
	start := strings.Index(text, "//") + 2
	if start == 1 {
		start = 0
	}
	at := strings.LastIndexByte(text, '@')
	if at < start {
		return text, false
	}
	user, password, _ := strings.Cut(text[start:at], ":")
	if password == "" || strings.Contains(password, "{{password}}") {
		return text, false
	}
	return text[:start] + user + ":*****" + text[at:], true
}

func readConnection(_ context.Context, view conclave.View, in *nameIn) (*connectionOut, error) {
	c, err := loadConnection(view, in.Name)
	if err != nil {
		return nil, err
	}
	if c == nil {
		return nil, notFound()
	}
	return &connectionOut{c.PluginName, c.PluginVersion, c.Verify, c.AllowedRoles, c.PasswordPolicy, c.RootStatements, c.shown(),
		c.rotation, c.NoRotation}, nil
}

// shown are the details that aren't secret and aren't empty.
func (c *connection) shown() map[string]any {
	encoded, _ := json.Marshal(c.details) // of strings, numbers and booleans
	var all map[string]any
	_ = json.Unmarshal(encoded, &all)
	for name, value := range all {
		if value == "" || value == false || value == 0.0 {
			delete(all, name)
		}
	}
	if c.URL != "" {
		all["connection_url"], _ = hidePassword(c.URL)
	}
	if c.MaxLifetime > 0 {
		all["max_connection_lifetime"] = c.MaxLifetime.String()
	}
	return all
}

func deleteConnection(_ context.Context, tx conclave.Tx, in *nameIn) (*conclave.None, error) {
	c, err := loadConnection(tx, in.Name)
	if err != nil || c == nil {
		return nil, err
	}
	if err := tx.Delete(connectionDir + in.Name); err != nil {
		return nil, err
	}
	if err := tx.Delete(rootDir + in.Name); err != nil {
		return nil, err
	}
	if err := tx.Wake(rootWork+in.Name, time.Time{}); err != nil {
		return nil, err
	}
	return nil, emit(tx, "config-delete", connectionDir+in.Name, in.Name)
}

func resetConnection(_ context.Context, tx conclave.Tx, in *nameIn) (*conclave.None, error) {
	return nil, reset(tx, in.Name)
}

func reset(tx conclave.Tx, name string) error {
	shared, err := knownConnection(tx, name)
	if err != nil {
		return err
	}
	c := *shared
	c.Resets++
	if err := put(tx, connectionDir+name, &c); err != nil {
		return err
	}
	return emit(tx, "reset", "reset/"+name, name)
}

type reloadIn struct {
	Plugin string `path:"plugin_name" doc:"The kind of database, as in plugin_name."`
}

type reloadOut struct {
	Connections []string `json:"connections" doc:"The connections that were reset."`
	Count       int      `json:"count" doc:"How many they are."`
}

// maxReset bounds the connections that one request resets.
const maxReset = 1000

func reloadConnections(_ context.Context, tx conclave.Tx, in *reloadIn) (*reloadOut, error) {
	names, err := tx.List(connectionDir, "", maxReset)
	if err != nil {
		return nil, err
	}
	out := &reloadOut{Connections: []string{}}
	for _, name := range names {
		c, err := loadConnection(tx, name)
		if err != nil {
			return nil, err
		}
		if c == nil || c.PluginName != in.Plugin {
			continue
		}
		if err := reset(tx, name); err != nil {
			return nil, err
		}
		out.Connections = append(out.Connections, name)
	}
	if out.Count = len(out.Connections); out.Count == 0 {
		return nil, conclave.Errorf(conclave.NotFound, "no connection is of the plugin %q", in.Plugin)
	}
	return out, nil
}

type listIn struct {
	After string `json:"after" doc:"Begin after this name."`
	Limit int    `json:"limit" doc:"At most so many names; 0 is all."`
}

func listNames(dir string) func(context.Context, conclave.View, *listIn) (*conclave.Keys, error) {
	return func(_ context.Context, view conclave.View, in *listIn) (*conclave.Keys, error) {
		names, err := view.List(dir, in.After, in.Limit)
		return &conclave.Keys{Keys: slices.Clone(names)}, err
	}
}

func put(tx conclave.Tx, path string, record any) error {
	value, err := json.Marshal(record)
	if err != nil {
		return err
	}
	return tx.Put(path, value)
}
