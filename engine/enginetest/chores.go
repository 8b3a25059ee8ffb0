package enginetest

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"conclave"
)

// Chore has what is given run as the outside part of each chore, instead of nothing.
func (o *Outside) Chore(work func(ctx context.Context, name string) error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.chore = work
}

// Chores is how often the outside part of a chore was run.
func (o *Outside) Chores(name string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.chores[name]
}

func (o *Outside) do(ctx context.Context, name string) error {
	o.mu.Lock()
	if o.chores == nil {
		o.chores = map[string]int{}
	}
	o.chores[name]++
	work := o.chore
	o.mu.Unlock()
	if work == nil {
		return nil
	}
	return work(ctx, name)
}

var (
	_ conclave.Worker    = (*lodging)(nil)
	_ conclave.Emergency = (*lodging)(nil)
)

// Exposed are the chores, as if they were credentials: they are taken back by doing them at once.
func (l *lodging) Exposed(view conclave.View, exposure conclave.Exposure, after string, limit int) ([]conclave.Exposed, string, error) {
	if exposure.EntityID != "" || exposure.Accessor != "" {
		return nil, "", nil
	}
	names, err := view.List("chore/", after, limit)
	if err != nil {
		return nil, "", err
	}
	var items []conclave.Exposed
	for _, name := range names {
		if exposure.Covers("chores/" + name) {
			items = append(items, conclave.Exposed{Kind: "chore", Name: name})
		}
	}
	if len(names) < limit {
		return items, "", nil
	}
	return items, names[len(names)-1], nil
}

// TakeBack has a chore done at once; one named "stuck" can't be.
func (l *lodging) TakeBack(tx conclave.Tx, item conclave.Exposed) error {
	if item.Name == "stuck" {
		return conclave.Errorf(conclave.Invalid, "it is stuck")
	}
	if c, err := getChore(tx, item.Name); err != nil || c == nil {
		return err
	}
	return tx.Wake("chore/"+item.Name, tx.Now())
}

type choreInput struct {
	Name  string        `path:"name" doc:"The chore."`
	After time.Duration `json:"after" doc:"When it is to be done first, from now on."`
	Every time.Duration `json:"every" doc:"How long after that it is to be done again; 0 is never."`
}

// chore is what is stored of one: JSON below chore/.
type chore struct {
	Every time.Duration `json:"every" doc:"How long after one time the next is."`
	Begun int           `json:"begun" doc:"How often it was begun."`
	Done  int           `json:"done" doc:"How often it was done."`
	Error string        `json:"error" doc:"Why it failed last."`
}

// chores are routes to set work, and to read what came of it.
func (l *lodging) chores() []conclave.Route {
	return []conclave.Route{
		conclave.WriteRoute(conclave.Update, "chores/{name}", "Have a chore done at set times.", func(_ context.Context, tx conclave.Tx, in *choreInput) (*conclave.None, error) {
			if err := putChore(tx, in.Name, &chore{Every: in.Every}); err != nil {
				return nil, err
			}
			return nil, tx.Wake("chore/"+in.Name, tx.Now().Add(max(in.After, 0)))
		}),
		conclave.ReadRoute(conclave.Read, "chores/{name}", "Read what came of a chore.", func(_ context.Context, view conclave.View, in *choreInput) (*chore, error) {
			c, err := getChore(view, in.Name)
			if err == nil && c == nil {
				err = &conclave.Error{Kind: conclave.NotFound}
			}
			return c, err
		}),
		conclave.WriteRoute(conclave.Delete, "chores/{name}", "Forget a chore.", func(_ context.Context, tx conclave.Tx, in *choreInput) (*conclave.None, error) {
			if err := tx.Delete("chore/" + in.Name); err != nil {
				return nil, err
			}
			return nil, tx.Wake("chore/"+in.Name, time.Time{})
		}),
	}
}

func getChore(view conclave.View, name string) (*chore, error) {
	value, err := view.Get("chore/" + name)
	if err != nil || value == nil {
		return nil, err
	}
	c := &chore{}
	return c, json.Unmarshal(value, c)
}

func putChore(tx conclave.Tx, name string, c *chore) error {
	value, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return tx.Put("chore/"+name, value)
}

// BeginWork counts; a chore named "refused" can't be begun.
func (l *lodging) BeginWork(_ context.Context, tx conclave.Tx, name string) (any, error) {
	name, ours := strings.CutPrefix(name, "chore/")
	if !ours || name == "" {
		return nil, nil
	}
	c, err := getChore(tx, name)
	if err != nil || c == nil {
		return nil, err
	}
	if name == "refused" {
		return nil, conclave.Errorf(conclave.Unavailable, "the staff is on strike")
	}
	c.Begun++
	return strconv.Itoa(c.Begun), putChore(tx, name, c)
}

// Work acts outside.
func (l *lodging) Work(ctx context.Context, name string, begun any) (any, error) {
	return begun, l.outside.do(ctx, strings.TrimPrefix(name, "chore/"))
}

// FinishWork notes what came of it, and when the next time is.
func (l *lodging) FinishWork(_ context.Context, tx conclave.Tx, name string, begun, done any, failure error) error {
	short := strings.TrimPrefix(name, "chore/")
	c, err := getChore(tx, short)
	if err != nil || c == nil {
		return err
	}
	if failure == nil && begun != done {
		return conclave.Errorf(conclave.Internal, "what was begun isn't what was done")
	}
	c.Error = ""
	if c.Done++; failure != nil {
		c.Done--
		c.Error = conclave.Reason(failure)
	}
	if err := putChore(tx, short, c); err != nil || c.Every == 0 {
		return err
	}
	return tx.Wake(name, tx.Now().Add(c.Every))
}
