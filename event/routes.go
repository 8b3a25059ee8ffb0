package event

import (
	"context"
	"time"

	"conclave"
)

// Routes are those below sys/.
func (s *Service) Routes() []conclave.Route {
	subscribe := conclave.ReadRoute(conclave.Read, "events/subscribe/{type...}", "Subscribe to events of a type, by WebSocket.\n\n"+
		"The type may hold stars, which stand for any text: kv-v2/data-*. Each message is one event, as JSON. An event is sent to whoever may read what it is about, "+
		"or has the capability subscribe there for the type. Without a WebSocket the answer is the cursor where a subscription would begin.", s.subscribe)
	subscribe.Prepare = s.prepare
	subscribe.ClearRequest = []string{"json", "namespaces", "filter", "since", "positions"}
	subscribe.ClearResponse = []string{"cursor"}
	routes := []conclave.Route{subscribe}
	if s.Webhooks != nil {
		routes = append(routes, s.Webhooks.routes()...)
	}
	return routes
}

type subscribeInput struct {
	Type       string   `path:"type" doc:"The type of events. A star stands for any text."`
	JSON       *bool    `json:"json" doc:"Messages are JSON; there is no other form."`
	Namespaces []string `json:"namespaces" doc:"Namespaces below that of the request whose events are wanted as well, relative to it; a star stands for any text."`
	Filter     string   `json:"filter" doc:"Which events are wanted, such as operation != \"data-write\" and data_path contains \"app\"."`
	// Positions is a pointer, since 0 is refused rather than taken for none.
	Positions *time.Duration `json:"positions" doc:"How often a message of type conclave/position tells the cursor while there are no events; at least 1s. Default: never."`
	Since     string         `json:"since" doc:"A cursor that came with an event: what happened after it is sent first. now, the default, or oldest."`
}

type subscribeOutput struct {
	Cursor string `json:"cursor" doc:"Where the subscription begins."`
}

// minPositions is how often a client may be told where it is.
const minPositions = time.Second

// prepare reads what is asked for, and waits until this node has come as far as the cursor.
func (s *Service) prepare(ctx context.Context, req *conclave.Request, in any) (any, error) {
	given := in.(*subscribeInput)
	if given.JSON != nil && !*given.JSON {
		return nil, conclave.Errorf(conclave.Invalid, "json=false is not supported: events are sent as JSON")
	}
	sub := &subscription{Selection: Selection{Types: given.Type, Namespaces: given.Namespaces}}
	if err := sub.Check(); err != nil {
		return nil, err
	}
	if given.Positions != nil {
		if sub.positions = *given.Positions; sub.positions < minPositions {
			return nil, conclave.Errorf(conclave.Invalid, "positions is a duration of at least %s", minPositions)
		}
	}
	var err error
	if sub.Filter, err = ParseFilter(given.Filter); err != nil {
		return nil, err
	}
	sub.from, err = s.Stream.Start(ctx, given.Since)
	return sub, err
}

func (s *Service) subscribe(ctx context.Context, view conclave.View, _ *subscribeInput) (*conclave.Response, error) {
	prepared, ok := conclave.Prepared[*subscription](ctx)
	req, caller := view.Request(), view.Caller()
	if !ok || req == nil || caller == nil {
		return nil, conclave.Errorf(conclave.Internal, "a subscription that nobody made")
	}
	token := caller.TokenID
	if token == "" { // a batch token is stored nowhere
		token = caller.Accessor + caller.DisplayName + caller.EntityID
	}
	if err := s.full(token); err != nil {
		return nil, err
	}
	sub := *prepared
	sub.Namespace = view.Namespace().Path
	return &conclave.Response{Data: &subscribeOutput{sub.from.String()}, Stream: func(ctx context.Context, send func(context.Context, []byte) error) error {
		return s.serve(ctx, &sub, req, token, send)
	}}, nil
}
