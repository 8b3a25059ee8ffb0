package agreement

import (
	"context"

	"conclave"
)

type compareOutput struct {
	Index uint64 `json:"index" doc:"Of the log: the states as of it are compared. Read the result on any node a little later."`
}

// Routes are the operations under sys/ about it.
func (c *Checker) Routes() []conclave.Route {
	read := conclave.ReadRoute(conclave.Read, "state-hashes",
		"The newest comparison of the nodes' states, as the node that is asked knows it.\n\nA node that differs from a majority serves nothing, this neither: its sys/health says why, and the others know it too.",
		func(ctx context.Context, _ conclave.View, _ *conclave.None) (*Status, error) {
			s, _ := conclave.Prepared[*Status](ctx)
			return s, nil
		})
	read.Prepare = func(context.Context, *conclave.Request, any) (any, error) {
		s := c.Status()
		return &s, nil
	}
	compare := conclave.WriteRoute(conclave.Update, "state-hashes",
		"Have all nodes hash their states as of one index and compare them, now instead of within the hour.",
		func(context.Context, conclave.Tx, *conclave.None) (*compareOutput, error) { return nil, nil }).With(conclave.Sudo)
	compare.Finish = func(ctx context.Context, _ *conclave.Request, _ any) (*conclave.Response, error) {
		index, err := c.Compare(ctx)
		if err != nil {
			return nil, err
		}
		return &conclave.Response{Data: compareOutput{Index: index}}, nil
	}
	return []conclave.Route{read, compare}
}

// Differing is how many of the voters that were heard don't agree with a majority.
func (s Status) Differing() int {
	n := 0
	for _, how := range s.Nodes {
		if how != Agrees && how != Unheard && len(s.Ranges) > 0 {
			n++
		}
	}
	return n
}
