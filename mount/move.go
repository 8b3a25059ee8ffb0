package mount

import (
	"context"
	"slices"
	"strings"

	"conclave"
)

func (s Setup) moveRoutes() []conclave.Route {
	remount := conclave.WriteRoute(conclave.Update, "remount", "Move a mount to another path, at once, with all that it has stored.\n\n"+
		"Policies name paths: those for the old path no longer apply.", s.move).With(conclave.Sudo)
	remount.Prepare = s.prepare
	return []conclave.Route{
		remount,
		conclave.ReadRoute(conclave.Read, "remount/status/{id}", "Read the outcome of one of the last moves.", s.moveStatus),
		conclave.ReadRoute(conclave.Read, "internal/ui/mounts", "List the mounts that the caller has any capability on.", s.visible),
		conclave.ReadRoute(conclave.Read, "internal/ui/mounts/{path...}", "Tell which mount serves a path. The caller needs any capability on the mount.", s.serving),
	}
}

type moveInput struct {
	From string `json:"from" doc:"The mount's path; of auth methods with auth/ before it."`
	To   string `json:"to" doc:"Its new path."`
}

type moveOutput struct {
	MigrationID string `json:"migration_id" doc:"Names the move, for remount/status."`
}

func (s Setup) move(ctx context.Context, tx conclave.Tx, in *moveInput) (*conclave.Response, error) {
	ids, err := prepared(ctx)
	if err != nil {
		return nil, err
	}
	from, to := strings.Trim(in.From, "/")+"/", strings.Trim(in.To, "/")+"/"
	if from == "/" || to == "/" {
		return nil, conclave.Errorf(conclave.Invalid, "both 'from' and 'to' path must be specified as a string")
	}
	table, err := Load(tx, s.Defaults)
	if err != nil {
		return nil, err
	}
	e := table.at(from)
	if e == nil {
		return nil, conclave.Errorf(conclave.Invalid, "no matching mount at %q", from)
	}
	if e.Builtin {
		return nil, conclave.Errorf(conclave.Invalid, "cannot remount %q", from)
	}
	if err := checkPath(to); err != nil {
		return nil, err
	}
	if e.Auth() != strings.HasPrefix(to, authPrefix) {
		return nil, conclave.Errorf(conclave.Invalid, "cannot remount %q to %q: secrets engines and auth methods keep to their side", from, to)
	}
	if e.Path == to {
		return nil, conclave.Errorf(conclave.Invalid, "path is already in use at %s", to)
	}
	if err := s.free(tx, table, to, e); err != nil {
		return nil, err
	}
	moved := *e
	moved.Path = to
	moves := append(slices.Clone(table.moves), move{ids.uuid, e.Path, to})
	if len(moves) > maxMoves {
		moves = moves[len(moves)-maxMoves:]
	}
	if err := table.save(tx, e, &moved, moves); err != nil {
		return nil, err
	}
	return &conclave.Response{Data: moveOutput{ids.uuid}, TopLevel: true}, nil
}

type statusInput struct {
	ID string `path:"id" doc:"What remount answered."`
}

type statusOutput struct {
	MigrationID   string        `json:"migration_id" doc:"Names the move."`
	MigrationInfo migrationInfo `json:"migration_info" doc:"What it did."`
}

type migrationInfo struct {
	Source string `json:"source_mount" doc:"The old path."`
	Target string `json:"target_mount" doc:"The new path."`
	Status string `json:"status" doc:"Always success: a move is done when it is answered."`
}

func (s Setup) moveStatus(_ context.Context, view conclave.View, in *statusInput) (*conclave.Response, error) {
	table, err := Load(view, s.Defaults)
	if err != nil {
		return nil, err
	}
	for _, m := range table.moves {
		if m.ID == in.ID {
			return &conclave.Response{Data: statusOutput{m.ID, migrationInfo{m.From, m.To, "success"}}, TopLevel: true}, nil
		}
	}
	return nil, &conclave.Error{Kind: conclave.NotFound}
}

// visible lists what a user interface may show to the caller.
func (s Setup) visible(ctx context.Context, view conclave.View, _ *conclave.None) (*visibleOutput, error) {
	table, err := Load(view, s.Defaults)
	if err != nil {
		return nil, err
	}
	out := &visibleOutput{map[string]servingOutput{}, map[string]servingOutput{}}
	for _, e := range table.Entries() {
		shown := s.touches(ctx, view, e)
		switch {
		case !shown && e.Config.ListingVisibility != "unauth":
		case e.Auth():
			out.Auth[strings.TrimPrefix(e.Path, authPrefix)] = servingOutput{info: describe(e)}
		default:
			out.Secret[e.Path] = servingOutput{info: describe(e)}
		}
	}
	return out, nil
}

type visibleOutput struct {
	Secret map[string]servingOutput `json:"secret" doc:"Secrets engines by path."`
	Auth   map[string]servingOutput `json:"auth" doc:"Auth methods by path."`
}

type servingOutput struct {
	info
	Path string `json:"path,omitempty" doc:"The mount's path."`
}

func (s Setup) touches(ctx context.Context, view conclave.View, e *Entry) bool {
	caller := view.Caller()
	return caller != nil && (caller.Root || s.Access.Touches(ctx, e.Path))
}

// serving answers alike for mounts that the caller may not know of and for those that don't exist.
func (s Setup) serving(ctx context.Context, view conclave.View, in *pathInput) (*servingOutput, error) {
	table, err := Load(view, s.Defaults)
	if err != nil {
		return nil, err
	}
	e, _, ok := table.Find(in.Path)
	if !ok || !s.touches(ctx, view, e) {
		return nil, conclave.Errorf(conclave.Denied, "preflight capability check returned 403, please ensure client's policies grant access to path %q", in.Path+"/")
	}
	return &servingOutput{describe(e), e.Path}, nil
}
