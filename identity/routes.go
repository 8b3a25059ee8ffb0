package identity

import (
	"context"
	"io"

	"conclave"
)

// Mounts knows the mounts that aliases refer to.
type Mounts interface {
	// ByAccessor returns a mount of the view's namespace by its accessor; its path has "auth/" before it if it is an auth
	// method's. ok is false if there is none.
	ByAccessor(view conclave.View, accessor string) (path, kind string, local, ok bool, err error)
}

// Access answers what policies say about the caller.
type Access interface {
	// Allows reports whether the caller may do an operation on a path, relative to the namespace.
	Allows(view conclave.View, op conclave.Operation, path string) (bool, error)
}

// Setup is what the routes need. All members must be given; Random must be a cryptographic source.
type Setup struct {
	Mounts Mounts
	Access Access
	Random io.Reader
}

// Routes are those of the mount identity/. Their Tx is that of the namespace's system space.
func Routes(setup Setup) []conclave.Route {
	routes := setup.entityRoutes()
	routes = append(routes, setup.aliasRoutes()...)
	routes = append(routes, setup.groupRoutes()...)
	routes = append(routes, setup.groupAliasRoutes()...)
	return append(routes, setup.lookupRoutes()...)
}

// minting has ids made for what the request may make.
func (s Setup) minting(route *conclave.Route) {
	route.Prepare = func(context.Context, *conclave.Request, any) (any, error) {
		minted, err := Mint(s.Random)
		if err != nil {
			return nil, err
		}
		return minted, nil
	}
}

func prepared(ctx context.Context) (Minted, error) {
	ids, ok := conclave.Prepared[Minted](ctx)
	if !ok {
		return Minted{}, conclave.Errorf(conclave.Internal, "no randomness was prepared")
	}
	return ids, nil
}

// checkPath has a caller who spells a name in a path otherwise than it is stored be allowed on the stored spelling, too: a
// rule for identity/entity/name/ann holds for identity/entity/name/Ann.
func (s Setup) checkPath(view conclave.View, op conclave.Operation, path, given, stored string) error {
	if given == stored {
		return nil
	}
	allowed, err := s.Access.Allows(view, op, "identity/"+path+stored)
	if err == nil && !allowed {
		err = conclave.Errorf(conclave.Denied, "permission denied")
	}
	return err
}

type pageInput struct {
	After string `json:"after" doc:"List what comes after this one."`
	Limit int    `json:"limit" doc:"List at most this many; 0 means all."`
}

type idInput struct {
	ID string `path:"id" doc:"The id."`
}

type nameInput struct {
	Name string `path:"name" doc:"The name."`
}

func notFound() error { return &conclave.Error{Kind: conclave.NotFound} }

// names lists an index of names, in the order of their keys, and what they lead to.
func names(view conclave.View, dir string, in *pageInput) (spelled, ids []string, err error) {
	after := ""
	if in.After != "" {
		after = segment(keyOf(in.After))
	}
	keys, err := view.List(dir, after, in.Limit)
	if err != nil {
		return nil, nil, err
	}
	if len(keys) > maxNames {
		return nil, nil, conclave.Errorf(conclave.TooLarge, "there are more than %d names: list them in pages, with limit and after", maxNames)
	}
	for _, key := range keys {
		r, err := loadRef(view, dir+key)
		if err != nil {
			return nil, nil, err
		}
		if r != nil {
			spelled, ids = append(spelled, r.Name), append(ids, r.ID)
		}
	}
	return spelled, ids, nil
}
