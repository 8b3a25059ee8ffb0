package mfa

import (
	"context"
	"encoding/hex"
	"io"
	"strings"

	"conclave"
)

// kind is the one kind of method that there is.
const kind = "totp"

// Directory knows those whom enforcements name, all in the view's namespace.
type Directory interface {
	// Entity reports whether there is an entity of this very id.
	Entity(view conclave.View, id string) (bool, error)
	// Group reports whether there is a group of an id.
	Group(view conclave.View, id string) (bool, error)
	// AuthMount reports whether an auth method is mounted that has an accessor, or that is of a kind.
	AuthMount(view conclave.View, accessor, kind string) (bool, error)
}

// Setup is what the routes need. All members must be given; Random must be a cryptographic source.
type Setup struct {
	Directory Directory
	Random    io.Reader
}

// Routes are those below identity/mfa/. Their Tx is that of the namespace's system space.
func Routes(setup Setup) []conclave.Route {
	s := &setup
	return append(append(s.methodRoutes(), s.enrolRoutes()...), s.enforcementRoutes()...)
}

// MintID makes an id: a random UUID (RFC 9562, version 4).
func MintID(random io.Reader) (string, error) {
	var raw [16]byte
	if _, err := io.ReadFull(random, raw[:]); err != nil {
		return "", conclave.Errorf(conclave.Internal, "no randomness for an id")
	}
	raw[6], raw[8] = raw[6]&0x0f|0x40, raw[8]&0x3f|0x80
	text := hex.EncodeToString(raw[:])
	return strings.Join([]string{text[:8], text[8:12], text[12:16], text[16:20], text[20:]}, "-"), nil
}

// isID reports whether a text could be an id, and so be a part of a storage path.
func isID(text string) bool {
	return text != "" && len(text) <= maxText && strings.Trim(text, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_") == ""
}

// checkName refuses names that can't be shown or be a part of a path.
func checkName(what, name string) error {
	if len(name) > maxText || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffd }) {
		return conclave.Errorf(conclave.Invalid, "%s has at most %d bytes and no control characters", what, maxText)
	}
	return nil
}

// minting has an id made for what the request may make.
func (s *Setup) minting(route *conclave.Route) {
	route.Prepare = func(context.Context, *conclave.Request, any) (any, error) {
		id, err := MintID(s.Random)
		if err != nil {
			return nil, err
		}
		return id, nil
	}
}

func minted(ctx context.Context) (string, error) {
	id, ok := conclave.Prepared[string](ctx)
	if !ok {
		return "", conclave.Errorf(conclave.Internal, "no randomness was prepared")
	}
	return id, nil
}

func notFound() error { return &conclave.Error{Kind: conclave.NotFound} }
