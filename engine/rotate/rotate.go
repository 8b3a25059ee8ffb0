// Package rotate keeps secrets whose sources the vault doesn't speak to natively: the password of an appliance, the key of
// somebody's API. By a schedule, on demand and in an emergency it makes a new value by a password policy, hands it to the
// source through a signed webhook or a command on this machine, has the source show that it works, and only then answers
// readers with it. The value before can stay readable for a while.
//
// What holds at any crash: a value is written down before it is handed over, and until its source has taken it that same
// value is handed over again; the current value stays current until the new one is verified; and one hand-over at a time
// is under way, since whoever begins one claims the entry for longer than all its calls may take. A source sees versions
// that grow, and refuses older ones if it wants to be sure against a node that was asleep for longer than its claim.
//
// The package judges no value, and knows nothing of what a source does with it. How calls look is drawn in package
// handover, the stored formats in record.go.
package rotate

import (
	"context"
	"crypto/rand"
	"io"
	"strings"
	"time"
	"unicode"

	"conclave"
	"conclave/engine/rotate/handover"
)

const kind = "rotate"

// Limits of this package.
const (
	maxName     = 128     // bytes of an entry's name
	maxReason   = 512     // bytes
	maxValue    = 4 << 10 // bytes of a value that is brought
	maxHistory  = 32      // lines of an entry's history
	maxRetiring = 4       // values of an entry that wait to be ended at their source
	maxMetadata = 32      // members
	minPeriod   = time.Minute
	maxGrace    = 366 * 24 * time.Hour
	minTimeout  = time.Second
	maxTimeout  = 15 * time.Second // of one call; three of them and what is around them fit into the minute of a Work
	// claimSlack is for what is around the calls of a hand-over.
	claimSlack = 15 * time.Second
)

// Pauses between attempts: twice as long after each failure.
const (
	firstPause = 10 * time.Second
	maxPause   = time.Hour
)

// calls is how many calls one hand-over makes at most: retire, rotate, verify.
const calls = 3

// Settings are what a node brings.
type Settings struct {
	// Programs are what commands may be run on this node; nil for none.
	Programs *handover.Programs
	// Random makes values.
	Random io.Reader
}

// Allow makes the settings of a node whose configuration names these directories of programs. Each must be one that only
// root and the vault's own user can change.
func Allow(commandDirectories []string) (Settings, error) {
	programs, err := handover.NewPrograms(commandDirectories)
	return Settings{Programs: programs, Random: rand.Reader}, err
}

// Plugin is the engine's line in the list of plug-ins.
func Plugin(settings Settings) conclave.Plugin {
	return conclave.Plugin{
		Kind: kind,
		Doc:  "Secrets of any source, made anew on a schedule and handed over by webhook or command.",
		Open: func(map[string]string) (conclave.Engine, error) { return newEngine(settings), nil },
	}
}

// Engine serves the routes and does the work. It has no state.
type Engine struct {
	settings Settings
	// call tells the source of an entry, as of a time.
	call func(ctx context.Context, en *entry, at time.Time, call *handover.Call) error
}

func newEngine(settings Settings) *Engine {
	return &Engine{settings, func(ctx context.Context, en *entry, at time.Time, call *handover.Call) error {
		if en.WebhookURL != "" {
			return en.webhook().Send(ctx, at, call)
		}
		return settings.Programs.Run(ctx, en.command(), call)
	}}
}

var _ conclave.Worker = (*Engine)(nil)

// Kind is "rotate".
func (e *Engine) Kind() string { return kind }

// Routes are those of entries, of their values, and of what is done with them.
func (e *Engine) Routes() []conclave.Route {
	return []conclave.Route{
		conclave.ReadRoute(conclave.List, "entries", "List the names of all entries.", list),
		conclave.ReadRoute(conclave.Read, "entries/{name}", "Read an entry's settings, without the webhook's key.", readEntry),
		conclave.WriteRoute(conclave.Update, "entries/{name}", entryDoc, e.writeEntry),
		conclave.WriteRoute(conclave.Delete, "entries/{name}", "Delete an entry with all its values. Its source is not told.", deleteEntry),
		conclave.ReadRoute(conclave.Read, "creds/{name}", credsDoc, readCreds),
		e.rotation("rotate/{name}", rotateDoc, false),
		e.rotation("emergency/{name}", emergencyDoc, true),
		conclave.WriteRoute(conclave.Update, "pause/{name}", "Stop the scheduled rotations of an entry, and further attempts.", pause).With(reasoned),
		conclave.WriteRoute(conclave.Update, "resume/{name}", "Let a paused entry rotate again. What was due meanwhile is done at once.", resume).With(reasoned),
		conclave.ReadRoute(conclave.Read, "status/{name}", "Read how an entry does: versions, what is due, what failed and why. No values.", readStatus),
		conclave.ReadRoute(conclave.Read, "history/{name}", "Read the last 32 rotations of an entry, the newest first: who, when and why. No values.", readHistory),
	}
}

// reasoned marks a route whose audit records say why.
func reasoned(r *conclave.Route) { r.ClearRequest = []string{"reason"} }

const (
	entryDoc = `Create an entry, or change what is given of one.

A new entry gets its first value at once, or the one that is given as value. It needs either a webhook or a command.`
	credsDoc  = `Read the value that its source takes now, and the one before for as long as that is kept.`
	rotateDoc = `Make a new value and hand it over now.

The answer comes when the source has taken and verified it. If that fails, the answer is an error of status 500, the current
value stays, and the new one is handed over again later.`
	emergencyDoc = `Make a new value and hand it over now, and drop the value before at once.

This works while the entry is paused, too.`
)

// checkName wants a short name that can be printed.
func checkName(name string) error {
	bad := func(r rune) bool { return r == '/' || !unicode.IsPrint(r) }
	if name == "" || len(name) > maxName || strings.TrimSpace(name) != name || strings.ContainsFunc(name, bad) {
		return conclave.Errorf(conclave.Invalid, "an entry's name has 1 to %d bytes, no slash, and nothing that can't be printed", maxName)
	}
	return nil
}

// checkReason wants a short text of one line.
func checkReason(reason string) error {
	if len(reason) > maxReason || strings.ContainsFunc(reason, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return conclave.Errorf(conclave.Invalid, "reason must be one line of at most %d bytes", maxReason)
	}
	return nil
}

// notFound is the plain 404, without a message, that clients take for "no value".
func notFound() error { return &conclave.Error{Kind: conclave.NotFound} }

type listIn struct {
	After string `json:"after" doc:"List the names after this one."`
	Limit int    `json:"limit" doc:"List at most this many names; 0 means all."`
}

func list(_ context.Context, view conclave.View, in *listIn) (*conclave.Keys, error) {
	if in.Limit < 0 {
		return nil, conclave.Errorf(conclave.Invalid, "limit must not be negative")
	}
	names, err := view.List(entries, in.After, in.Limit)
	return &conclave.Keys{Keys: names}, err
}
