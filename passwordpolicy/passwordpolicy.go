// Package passwordpolicy keeps the password policies of a namespace and serves sys/policies/password. What a policy is, and
// how passwords are made by it, is for package password to say; engines get a policy's text from their View.
package passwordpolicy

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"unicode"

	"conclave"
	"conclave/password"
)

// A stored policy is JSON at password-policy/<name> in the system space, with the text as it was written.
type record struct {
	Policy        string `json:"policy"`
	EntropySource string `json:"entropy_source,omitempty"`
}

const (
	folder  = "password-policy/"
	maxName = 128 // bytes
	// platform is the one source of randomness there is, by Vault's name for it.
	platform = "platform"
)

// Text returns the text of the policy of that name as view's space has it, "" if there is none. view is of the namespace's
// system space.
func Text(view conclave.View, name string) (string, error) {
	r, err := load(view, name)
	if r == nil {
		return "", err
	}
	return r.Policy, nil
}

func load(view conclave.View, name string) (*record, error) {
	if checkName(name) != nil {
		return nil, nil // no such policy can have been written
	}
	loaded, err := view.Load(folder+name, decode)
	r, _ := loaded.(*record)
	return r, err
}

func decode(value []byte) (any, error) {
	r := &record{}
	if json.Unmarshal(value, r) != nil || r.Policy == "" {
		return nil, conclave.Errorf(conclave.Internal, "a stored password policy is damaged")
	}
	return r, nil
}

// checkName wants a short name that can be printed. Names are as they are written: capitals make another name.
func checkName(name string) error {
	bad := func(r rune) bool { return r == '/' || !unicode.IsPrint(r) }
	if name == "" || len(name) > maxName || strings.TrimSpace(name) != name || strings.ContainsFunc(name, bad) {
		return conclave.Errorf(conclave.Invalid, "a password policy's name has 1 to %d bytes, no slash, and nothing that can't be printed", maxName)
	}
	return nil
}

// Routes are those below sys/ that manage password policies.
func Routes() []conclave.Route {
	update := conclave.WriteRoute(conclave.Update, "policies/password/{name}", "Create or replace a password policy. The text is HCL or JSON, plain or in base64.\n\n"+
		"A policy whose rules hardly any password meets is refused.", write)
	update.Prepare = func(_ context.Context, _ *conclave.Request, in any) (any, error) {
		input := in.(*writeInput)
		return nil, try(input.text())
	}
	generate := conclave.ReadRoute(conclave.Read, "policies/password/{name}/generate", "Make a password by a policy. It is kept nowhere.", answerGenerated)
	generate.Gather = gatherText
	generate.Prepare = makePassword
	return []conclave.Route{
		conclave.ReadRoute(conclave.List, "policies/password", "List the names of all password policies.", list),
		conclave.ReadRoute(conclave.Read, "policies/password/{name}", "Read a password policy's text.", read),
		update,
		conclave.WriteRoute(conclave.Delete, "policies/password/{name}", "Delete a password policy. Roles that name it can't make passwords from then on.", remove),
		generate,
	}
}

type listInput struct {
	After string `json:"after" doc:"List the names after this one."`
	Limit int    `json:"limit" doc:"List at most this many names; 0 means all."`
}

type nameInput struct {
	Name string `path:"name" doc:"The policy's name."`
}

type writeInput struct {
	Name          string `path:"name" doc:"The policy's name."`
	Policy        string `json:"policy" doc:"The text, HCL or JSON, plain or in base64: length, and rules of kind charset with min-chars."`
	EntropySource string `json:"entropy_source" doc:"Where randomness comes from: platform, which is all there is."`
}

type readOutput struct {
	Policy        string `json:"policy" doc:"The policy's text as it was written."`
	EntropySource string `json:"entropy_source,omitempty" doc:"As it was written."`
}

type generateOutput struct {
	Password string `json:"password" doc:"A password, made for this answer."`
}

func list(_ context.Context, view conclave.View, in *listInput) (*conclave.Keys, error) {
	if in.Limit < 0 {
		return nil, conclave.Errorf(conclave.Invalid, "limit must not be negative")
	}
	names, err := view.List(folder, in.After, in.Limit)
	return &conclave.Keys{Keys: names}, err
}

var errAbsent = &conclave.Error{Kind: conclave.NotFound}

func read(_ context.Context, view conclave.View, in *nameInput) (*readOutput, error) {
	r, err := load(view, in.Name)
	if r == nil && err == nil {
		err = errAbsent
	}
	if err != nil {
		return nil, err
	}
	return &readOutput{r.Policy, r.EntropySource}, nil
}

// text is the policy's text, decoded if it was sent in base64.
func (in *writeInput) text() string {
	if plain, err := base64.StdEncoding.DecodeString(in.Policy); err == nil {
		return string(plain)
	}
	return in.Policy
}

// try finds out whether a text is a policy by which passwords can be made. It takes up to some 50 ms.
func try(text string) error {
	if strings.TrimSpace(text) == "" {
		return conclave.Errorf(conclave.Invalid, "missing policy")
	}
	p, err := password.Parse(text)
	if err == nil {
		err = p.Try()
	}
	if err != nil {
		return conclave.Errorf(conclave.Invalid, "invalid password policy: %s", err.Error())
	}
	return nil
}

func write(_ context.Context, tx conclave.Tx, in *writeInput) (*conclave.None, error) {
	if err := checkName(in.Name); err != nil {
		return nil, err
	}
	if in.EntropySource != "" && in.EntropySource != platform {
		return nil, conclave.Errorf(conclave.Invalid, "unknown entropy_source: there is only %q", platform)
	}
	value, err := json.Marshal(record{in.text(), in.EntropySource})
	if err != nil {
		return nil, err
	}
	return nil, tx.Put(folder+in.Name, value)
}

func remove(_ context.Context, tx conclave.Tx, in *nameInput) (*conclave.None, error) {
	if checkName(in.Name) != nil {
		return nil, nil // it isn't there
	}
	return nil, tx.Delete(folder + in.Name)
}

func gatherText(view conclave.View, in any) (any, error) {
	text, err := Text(view, in.(*nameInput).Name)
	if err == nil && text == "" {
		err = errAbsent
	}
	return text, err
}

func makePassword(ctx context.Context, _ *conclave.Request, _ any) (any, error) {
	text, _ := conclave.Gathered[string](ctx)
	p, err := password.Parse(text)
	if err != nil {
		return nil, conclave.Errorf(conclave.Internal, "the stored password policy can't be read: %s", err.Error())
	}
	made, err := p.Generate(rand.Reader)
	if errors.Is(err, password.ErrHardlyMet) {
		err = conclave.Errorf(conclave.Invalid, "the password policy can't be met: %s", err.Error())
	}
	return made, err
}

func answerGenerated(ctx context.Context, _ conclave.View, _ *nameInput) (*generateOutput, error) {
	made, ok := conclave.Prepared[string](ctx)
	if !ok {
		return nil, conclave.Errorf(conclave.Internal, "no password was made")
	}
	return &generateOutput{made}, nil
}
