// Package openapi makes OpenAPI 3.0 documents of routes: of their patterns, their typed inputs and outputs and their docs. It
// knows nothing of what is mounted, and serves nothing.
package openapi

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"conclave"
)

// The parts of an OpenAPI 3.0 document that routes become.
type (
	// Document is a whole document.
	Document struct {
		OpenAPI string                         `json:"openapi" doc:"Version of the specification."`
		Info    map[string]string              `json:"info" doc:"Title and version."`
		Paths   map[string]map[string]endpoint `json:"paths" doc:"Path, then method."`
	}
	endpoint struct {
		Summary     string               `json:"summary"`
		Description string               `json:"description,omitempty"`
		OperationID string               `json:"operationId"`
		Tags        []string             `json:"tags"`
		Sudo        bool                 `json:"x-vault-sudo,omitempty"`
		Public      bool                 `json:"x-vault-unauthenticated,omitempty"`
		Parameters  []parameter          `json:"parameters,omitempty"`
		RequestBody *content             `json:"requestBody,omitempty"`
		Responses   map[string]*response `json:"responses"`
	}
	parameter struct {
		Name        string  `json:"name"`
		In          string  `json:"in"`
		Description string  `json:"description,omitempty"`
		Required    bool    `json:"required,omitempty"`
		Schema      *schema `json:"schema"`
	}
	content struct {
		Content map[string]struct {
			Schema *schema `json:"schema"`
		} `json:"content"`
	}
	response struct {
		Description string `json:"description"`
		*content
	}
	schema struct {
		Type        string             `json:"type,omitempty"`
		Format      string             `json:"format,omitempty"`
		Description string             `json:"description,omitempty"`
		Items       *schema            `json:"items,omitempty"`
		Properties  map[string]*schema `json:"properties,omitempty"`
	}
)

// methods are how operations are asked for over HTTP.
var methods = map[conclave.Operation]string{conclave.Read: "get", conclave.Update: "post", conclave.Create: "post",
	conclave.Patch: "patch", conclave.Delete: "delete", conclave.List: "get", conclave.Scan: "get"}

// maxSchemaDepth bounds nested schemas.
const maxSchemaDepth = 6

// New returns a document without paths.
func New() *Document {
	return &Document{OpenAPI: "3.0.2", Info: map[string]string{"title": "Conclave", "version": "1"}, Paths: map[string]map[string]endpoint{}}
}

// Add adds the route of a mount at prefix, a mount's path.
func (d *Document) Add(prefix string, route *conclave.Route) {
	path := "/" + prefix + strings.ReplaceAll(route.Pattern, "...}", "}")
	method := methods[route.Operation]
	listing := route.Operation == conclave.List || route.Operation == conclave.Scan
	if listing {
		path = strings.TrimSuffix(path, "/") + "/"
	}
	if d.Paths[path] == nil {
		d.Paths[path] = map[string]endpoint{}
	}
	d.Paths[path][method] = endpointOf(prefix, route, listing)
}

func endpointOf(prefix string, route *conclave.Route, listing bool) endpoint {
	summary, description, _ := strings.Cut(route.Doc, "\n\n")
	mount := strings.Trim(strings.ReplaceAll(prefix, "/", "-"), "-")
	id := strings.NewReplacer("/", "-", "{", "", "}", "", "...", "").Replace(route.Pattern)
	e := endpoint{Summary: summary, Description: description, Tags: []string{mount}, Sudo: route.Sudo, Public: route.Public,
		OperationID: strings.Trim(mount+"-"+route.Operation.String()+"-"+id, "-"),
		Responses:   map[string]*response{"200": {Description: "OK"}}}
	if listing {
		e.Parameters = append(e.Parameters, parameter{Name: route.Operation.String(), In: "query", Required: true,
			Schema: &schema{Type: "string"}})
	}
	body := map[string]*schema{}
	for _, f := range reflect.VisibleFields(route.Input) {
		if name, ok := f.Tag.Lookup("path"); ok {
			e.Parameters = append(e.Parameters, parameter{Name: name, In: "path", Required: true,
				Description: f.Tag.Get("doc"), Schema: schemaOf(f.Type, "", 0)})
		} else if name := memberName(f); name != "" && name != "*" {
			body[name] = schemaOf(f.Type, f.Tag.Get("doc"), 0)
		}
	}
	switch {
	case len(body) == 0:
	case route.Operation == conclave.Update || route.Operation == conclave.Create || route.Operation == conclave.Patch:
		e.RequestBody = contentOf(&schema{Type: "object", Properties: body})
	default:
		for _, name := range slices.Sorted(maps.Keys(body)) {
			e.Parameters = append(e.Parameters, parameter{Name: name, In: "query", Description: body[name].Description,
				Schema: &schema{Type: body[name].Type}})
		}
	}
	if out := schemaOf(route.Output, "", 0); len(out.Properties) > 0 && route.Output != reflect.TypeFor[conclave.Response]() {
		e.Responses["200"].content = contentOf(out)
	}
	return e
}

func contentOf(s *schema) *content {
	return &content{Content: map[string]struct {
		Schema *schema `json:"schema"`
	}{"application/json": {s}}}
}

func memberName(f reflect.StructField) string {
	if !f.IsExported() || f.Anonymous {
		return ""
	}
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	if name == "-" {
		return ""
	}
	return name
}

func schemaOf(t reflect.Type, doc string, depth int) *schema {
	s := &schema{Description: doc}
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t {
	case reflect.TypeFor[time.Duration]():
		s.Type, s.Format = "string", "duration"
		return s
	case reflect.TypeFor[time.Time]():
		s.Type, s.Format = "string", "date-time"
		return s
	case reflect.TypeFor[conclave.Secret]():
		s.Type, s.Format = "string", "password"
		return s
	case reflect.TypeFor[json.RawMessage]():
		s.Type = "object"
		return s
	}
	switch t.Kind() {
	case reflect.String:
		s.Type = "string"
	case reflect.Bool:
		s.Type = "boolean"
	case reflect.Float32, reflect.Float64:
		s.Type = "number"
	case reflect.Slice, reflect.Array:
		s.Type = "array"
		if depth < maxSchemaDepth {
			s.Items = schemaOf(t.Elem(), "", depth+1)
		}
	case reflect.Struct:
		s.Type, s.Properties = "object", map[string]*schema{}
		if depth == maxSchemaDepth {
			return s
		}
		for _, f := range reflect.VisibleFields(t) {
			if name := memberName(f); name != "" && name != "*" {
				s.Properties[name] = schemaOf(f.Type, f.Tag.Get("doc"), depth+1)
			}
		}
	case reflect.Map, reflect.Interface:
		s.Type = "object"
	default:
		s.Type = "integer"
	}
	return s
}
