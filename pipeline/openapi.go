package pipeline

import (
	"context"
	"encoding/json"

	"conclave"
	"conclave/mount"
	"conclave/openapi"
)

// specRoute serves the OpenAPI document of everything that the namespace has mounted.
func (r *routing) specRoute() conclave.Route {
	return conclave.ReadRoute(conclave.Read, "internal/specs/openapi",
		"The OpenAPI 3.0 document of all mounted paths.",
		func(_ context.Context, view conclave.View, _ *conclave.None) (*conclave.Response, error) {
			doc, err := r.document(view)
			if err != nil {
				return nil, err
			}
			body, err := json.Marshal(doc)
			return &conclave.Response{Raw: &conclave.Raw{ContentType: "application/json", Body: body}}, err
		})
}

func (r *routing) document(view conclave.View) (*openapi.Document, error) {
	doc := openapi.New()
	table, err := mount.Load(view, r.defaults)
	if err != nil {
		return nil, err
	}
	for _, entry := range table.Entries() {
		opened, err := r.open(entry)
		if err != nil {
			return nil, err
		}
		opened.router.Routes(func(route *conclave.Route) { doc.Add(entry.Path, route) })
	}
	return doc, nil
}

// helpFor answers ?help=1.
func helpFor(c *call) *conclave.Response {
	if c.route == nil {
		return &conclave.Response{Data: json.RawMessage(`{}`)}
	}
	doc := openapi.New()
	doc.Add(c.mount.Path, c.route)
	body, err := json.Marshal(map[string]any{"help": c.route.Doc, "see_also": []string{}, "openapi": doc})
	if err != nil {
		return &conclave.Response{}
	}
	return &conclave.Response{Raw: &conclave.Raw{ContentType: "application/json", Body: body}}
}
