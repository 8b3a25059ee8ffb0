// Package kv is the commands for secrets in mounts of the kv engine, both versions of it. Paths are given as people
// know them, "secret/app", or with the mount apart, "-mount=secret app"; what version 2 puts between the mount and the
// path ("data/", "metadata/") is added here.
package kv

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"conclave/cmd/conclave/client"

	"github.com/hashicorp/vault/api"
	"github.com/spf13/cobra"
)

// location is where a secret is.
type location struct {
	mount     string // without slashes around it; empty if no mount is known there
	path      string // in the mount, without slashes around it
	versioned bool   // version 2
}

// at is the location's path in the API: part is "data", "metadata" and the like. Version 1 has no parts.
func (l location) at(part string) string {
	pieces := []string{l.mount}
	if l.versioned {
		pieces = append(pieces, part)
	}
	if l.path != "" {
		pieces = append(pieces, l.path)
	}
	return strings.Trim(strings.Join(pieces, "/"), "/")
}

// String is the location as people know it.
func (l location) String() string { return strings.Trim(l.mount+"/"+l.path, "/") }

// needVersions refuses version 1 for what only version 2 has.
func (l location) needVersions(what string) error {
	if l.versioned {
		return nil
	}
	return client.Usagef("%s is of kv version 1, which keeps no versions: it has no %s (`conclave secrets enable -path=PATH kv-v2` mounts version 2)",
		l.mount, what)
}

// locate asks the vault which mount a path is in. Of mount, if given, path is relative.
func locate(ctx context.Context, c *api.Client, mount, path string) (location, error) {
	mount, path = strings.Trim(mount, "/"), strings.Trim(path, "/")
	asked := path
	if mount != "" {
		asked = mount
	}
	found, versioned, err := preflight(ctx, c, asked)
	if err != nil {
		return location{}, err
	}
	return resolve(found, mount, path, versioned), nil
}

// resolve puts together what was asked for and the mount that the vault found.
func resolve(found, mount, path string, versioned bool) location {
	switch {
	case mount != "":
		if found == "" {
			found = mount
		}
		if rest, ok := strings.CutPrefix(mount+"/", found+"/"); ok { // a mount flag that names a folder of a mount
			path = strings.Trim(rest+path, "/")
		}
		return location{found, path, versioned}
	case found == "":
		first, rest, _ := strings.Cut(path, "/")
		return location{first, rest, false}
	}
	rest := strings.TrimPrefix(path+"/", found+"/")
	return location{found, strings.Trim(rest, "/"), versioned}
}

// preflight finds the mount that holds path. A vault that doesn't know it, or doesn't know the question, has version 1
// there as far as clients are concerned.
func preflight(ctx context.Context, c *api.Client, path string) (mount string, versioned bool, err error) {
	r := c.NewRequest(http.MethodGet, "/v1/sys/internal/ui/mounts/"+path)
	r.WrapTTL = "" // what is to be wrapped is the secret, not where it is
	resp, err := c.RawRequestWithContext(ctx, r)
	if resp != nil {
		defer resp.Body.Close()
	}
	if answer, ok := errors.AsType[*api.ResponseError](err); ok && answer.StatusCode == http.StatusNotFound {
		return "", false, nil
	}
	if err != nil {
		return "", false, err
	}
	var answer struct {
		Data struct {
			Path    string            `json:"path"`
			Type    string            `json:"type"`
			Options map[string]string `json:"options"`
		} `json:"data"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return "", false, client.Remotef("what the vault says of the mount of %s can't be read", path)
	}
	return strings.Trim(answer.Data.Path, "/"), answer.Data.Options["version"] == "2", nil
}

// work is one run of a command on one secret.
type work struct {
	s  *client.Session
	c  *api.Client
	at location
}

// begin connects and locates the secret.
func begin(cmd *cobra.Command, s *client.Session, mount, path string) (*work, error) {
	c, err := s.Client()
	if err != nil {
		return nil, err
	}
	at, err := locate(cmd.Context(), c, mount, path)
	return &work{s, c, at}, err
}
