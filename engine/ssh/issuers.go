package ssh

import (
	"context"
	"crypto/rand"
	"strings"

	"golang.org/x/crypto/ssh"

	"conclave"
)

func (e Engine) issuerRoutes() []conclave.Route {
	configure := conclave.WriteRoute(conclave.Update, "config/ca", configureDoc, configureCA)
	configure.Prepare = e.prepareIssuer
	submit := conclave.WriteRoute(conclave.Update, "issuers/import", submitDoc, importIssuer)
	submit.Prepare = e.prepareIssuer
	submitNamed := conclave.WriteRoute(conclave.Update, "issuers/import/{issuer_name}", submitDoc, importNamed)
	submitNamed.Prepare = e.prepareNamed
	return []conclave.Route{
		configure, submit, submitNamed,
		conclave.ReadRoute(conclave.Read, "config/ca", "Read the public key of the default issuer.", readCA),
		conclave.WriteRoute(conclave.Delete, "config/ca", "Delete all issuers of the mount.", deleteCA),
		conclave.ReadRoute(conclave.Read, "config/issuers", "Read which issuer is the default one.", readDefault),
		conclave.WriteRoute(conclave.Update, "config/issuers", "Set which issuer is the default one.", writeDefault),
		conclave.ReadRoute(conclave.List, "issuers", "List the issuers by their identifiers.", listIssuers),
		conclave.ReadRoute(conclave.Read, "issuer/{issuer_ref}", "Read an issuer's name and public key.", readIssuer),
		conclave.WriteRoute(conclave.Update, "issuer/{issuer_ref}", "Change an issuer's name.", renameIssuer),
		conclave.WriteRoute(conclave.Delete, "issuer/{issuer_ref}", "Delete an issuer.", deleteIssuer),
		conclave.ReadRoute(conclave.Read, "issuer/{issuer_ref}/public_key", "Read an issuer's public key as text.", issuerPublicKey).With(conclave.Public),
		conclave.ReadRoute(conclave.Read, "public_key", "Read the public key of the default issuer as text.", publicKey).With(conclave.Public),
	}
}

const configureDoc = `Generate or import the key of the default issuer.
It is refused while there is a default issuer: a server trusts a key, and shouldn't find another in its place. Add others
with issuers/import, and change the default with config/issuers.`

const submitDoc = `Generate or import the key of another issuer.`

type issuerIn struct {
	PrivateKey conclave.Secret `json:"private_key" doc:"Private key of the authority, in PEM or OpenSSH's form, without a passphrase."`
	PublicKey  string          `json:"public_key" doc:"Its public key, as a line of authorized_keys; it must be the private key's."`
	Generate   *bool           `json:"generate_signing_key" doc:"Generate a key; on unless private_key is given."`
	KeyType    string          `json:"key_type" doc:"Type of the generated key: ssh-rsa (the default), ed25519, ec, or a name that OpenSSH has for one."`
	KeyBits    int64           `json:"key_bits" doc:"Size of the generated key; 0 is the default of its type."`
	Name       string          `json:"issuer_name" doc:"A name for the issuer."`
	SetDefault bool            `json:"set_default" doc:"Make it the default issuer. With config/ca it always is."`
}

type namedIssuerIn struct {
	PrivateKey conclave.Secret `json:"private_key" doc:"Private key of the authority, in PEM or OpenSSH's form, without a passphrase."`
	PublicKey  string          `json:"public_key" doc:"Its public key, as a line of authorized_keys; it must be the private key's."`
	Generate   *bool           `json:"generate_signing_key" doc:"Generate a key; on unless private_key is given."`
	KeyType    string          `json:"key_type" doc:"Type of the generated key: ssh-rsa (the default), ed25519, ec, or a name that OpenSSH has for one."`
	KeyBits    int64           `json:"key_bits" doc:"Size of the generated key; 0 is the default of its type."`
	Name       string          `path:"issuer_name" doc:"A name for the issuer."`
	SetDefault bool            `json:"set_default" doc:"Make it the default issuer."`
}

func (in *namedIssuerIn) plain() *issuerIn {
	return &issuerIn{in.PrivateKey, in.PublicKey, in.Generate, in.KeyType, in.KeyBits, in.Name, in.SetDefault}
}

type issuerOut struct {
	ID        string `json:"issuer_id" doc:"The issuer's identifier."`
	Name      string `json:"issuer_name" doc:"Its name; empty if it has none."`
	PublicKey string `json:"public_key" doc:"Its public key, as a line of authorized_keys."`
}

func (i *issuer) out() *issuerOut { return &issuerOut{i.ID, i.Name, i.PublicKey} }

func (e Engine) prepareNamed(ctx context.Context, req *conclave.Request, in any) (any, error) {
	return e.prepareIssuer(ctx, req, in.(*namedIssuerIn).plain())
}

// prepareIssuer generates the key, or checks the one that is given, and draws an identifier.
func (e Engine) prepareIssuer(_ context.Context, _ *conclave.Request, input any) (any, error) {
	in := input.(*issuerIn)
	id, err := uuid(rand.Reader)
	if err != nil {
		return nil, err
	}
	hasKey := !in.PrivateKey.Empty() || in.PublicKey != ""
	var made *keyPair
	switch {
	case in.Generate != nil && *in.Generate && hasKey:
		return nil, conclave.Errorf(conclave.Invalid, "public_key and private_key must not be set when generate_signing_key is set to true")
	case hasKey:
		made, err = imported(in)
	case in.Generate != nil && !*in.Generate:
		return nil, conclave.Errorf(conclave.Invalid, "missing private_key")
	default:
		kind := in.KeyType
		if kind == "" {
			kind = ssh.KeyAlgoRSA
		}
		made, err = e.generate(kind, in.KeyBits)
	}
	if err != nil {
		return nil, err
	}
	return &issuer{ID: id, PublicKey: made.public, PrivateKey: made.private.Reveal()}, nil
}

// imported checks that a private key can be used, and that it is the public key's.
func imported(in *issuerIn) (*keyPair, error) {
	private := in.PrivateKey.Reveal()
	if private == "" {
		return nil, conclave.Errorf(conclave.Invalid, "missing private_key")
	}
	if len(private) > maxPrivateKey {
		return nil, conclave.Errorf(conclave.Invalid, "private_key has at most %d bytes", maxPrivateKey)
	}
	signer, err := ssh.ParsePrivateKey([]byte(private))
	if err != nil {
		return nil, conclave.Errorf(conclave.Invalid, "Unable to parse private_key as an SSH private key: it must be in PEM, without a passphrase")
	}
	if _, ok := signer.(ssh.AlgorithmSigner); !ok {
		return nil, conclave.Errorf(conclave.Invalid, "keys of this type can't sign certificates")
	}
	names, bits, err := measure(signer.PublicKey())
	if err != nil {
		return nil, conclave.Errorf(conclave.Invalid, "keys of this type can't sign certificates")
	}
	if names[0] == ssh.KeyAlgoRSA && (bits < minRSABits || bits > maxRSABits) {
		return nil, conclave.Errorf(conclave.Invalid, "an RSA key that signs has between %d and %d bits", minRSABits, maxRSABits)
	}
	own := string(ssh.MarshalAuthorizedKey(signer.PublicKey()))
	if in.PublicKey != "" {
		given, err := parsePublicKey(in.PublicKey)
		if err != nil {
			return nil, conclave.Errorf(conclave.Invalid, "Unable to parse public_key as an SSH public key")
		}
		if string(ssh.MarshalAuthorizedKey(given)) != own {
			return nil, conclave.Errorf(conclave.Invalid, "public_key is not the public key of private_key")
		}
	}
	return &keyPair{own, in.PrivateKey}, nil
}

func configureCA(ctx context.Context, tx conclave.Tx, in *issuerIn) (*issuerOut, error) {
	current, err := issuerBy(tx, defaultRef)
	if err != nil {
		return nil, err
	}
	if current != nil {
		return nil, conclave.Errorf(conclave.Invalid, "keys are already configured; delete them before reconfiguring")
	}
	return addIssuer(ctx, tx, in, true)
}

func importIssuer(ctx context.Context, tx conclave.Tx, in *issuerIn) (*issuerOut, error) {
	return addIssuer(ctx, tx, in, in.SetDefault)
}

func importNamed(ctx context.Context, tx conclave.Tx, in *namedIssuerIn) (*issuerOut, error) {
	return addIssuer(ctx, tx, in.plain(), in.SetDefault)
}

func addIssuer(ctx context.Context, tx conclave.Tx, in *issuerIn, makeDefault bool) (*issuerOut, error) {
	prepared, ok := conclave.Prepared[*issuer](ctx)
	if !ok {
		return nil, conclave.Errorf(conclave.Internal, "no key was prepared")
	}
	ids, err := tx.List(issuersDir, "", maxIssuers)
	if err != nil {
		return nil, err
	}
	if len(ids) >= maxIssuers {
		return nil, conclave.Errorf(conclave.Invalid, "a mount has at most %d issuers", maxIssuers)
	}
	i := *prepared
	if err := i.rename(tx, in.Name); err != nil {
		return nil, err
	}
	if makeDefault {
		if err := tx.Put(defaultPath, []byte(i.ID)); err != nil {
			return nil, err
		}
	}
	return i.out(), i.save(tx)
}

func readCA(_ context.Context, view conclave.View, _ *conclave.None) (*issuerOut, error) {
	i, err := issuerBy(view, defaultRef)
	if err != nil {
		return nil, err
	}
	if i == nil {
		return nil, conclave.Errorf(conclave.Invalid, "keys haven't been configured yet")
	}
	return i.out(), nil
}

func deleteCA(_ context.Context, tx conclave.Tx, _ *conclave.None) (*conclave.Response, error) {
	ids, err := tx.List(issuersDir, "", 0)
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		i, err := issuerAt(tx, id)
		if err != nil {
			return nil, err
		}
		if i == nil {
			continue
		}
		if _, err := i.remove(tx); err != nil {
			return nil, err
		}
	}
	if len(ids) > 1 {
		return &conclave.Response{Warnings: []string{"Deleted all issuers of the mount, not the default one alone."}}, nil
	}
	return nil, nil
}

type defaultIn struct {
	Default string `json:"default" doc:"Name or identifier of the default issuer."`
}

type defaultOut struct {
	Default string `json:"default" doc:"Identifier of the default issuer; empty if there is none."`
}

func readDefault(_ context.Context, view conclave.View, _ *conclave.None) (*defaultOut, error) {
	id, err := view.Get(defaultPath)
	return &defaultOut{string(id)}, err
}

func writeDefault(_ context.Context, tx conclave.Tx, in *defaultIn) (*defaultOut, error) {
	if in.Default == "" || in.Default == defaultRef {
		return nil, conclave.Errorf(conclave.Invalid, "Invalid issuer specification; must be non-empty and can't be 'default'.")
	}
	i, err := issuerBy(tx, in.Default)
	if err != nil {
		return nil, err
	}
	if i == nil {
		return nil, conclave.Errorf(conclave.Invalid, "unable to find issuer: %q", in.Default)
	}
	return &defaultOut{i.ID}, tx.Put(defaultPath, []byte(i.ID))
}

type pageIn struct {
	After string `json:"after" doc:"List names after this one."`
	Limit int    `json:"limit" doc:"List at most so many; 0 is all."`
}

func listIssuers(_ context.Context, view conclave.View, in *pageIn) (*conclave.Keys, error) {
	ids, err := view.List(issuersDir, in.After, in.Limit)
	if err != nil {
		return nil, err
	}
	main, err := view.Get(defaultPath)
	if err != nil {
		return nil, err
	}
	info := make(map[string]any, len(ids))
	for _, id := range ids {
		i, err := issuerAt(view, id)
		if err != nil {
			return nil, err
		}
		if i != nil {
			info[id] = map[string]any{"issuer_name": i.Name, "is_default": id == string(main), "public_key": i.PublicKey}
		}
	}
	return &conclave.Keys{Keys: ids, KeyInfo: info}, nil
}

type refIn struct {
	Ref string `path:"issuer_ref" doc:"Identifier or name of the issuer, or default."`
}

func foundIssuer(view conclave.View, ref string) (*issuer, error) {
	i, err := issuerBy(view, ref)
	if err == nil && i == nil {
		err = notFound()
	}
	return i, err
}

func readIssuer(_ context.Context, view conclave.View, in *refIn) (*issuerOut, error) {
	i, err := foundIssuer(view, in.Ref)
	if err != nil {
		return nil, err
	}
	return i.out(), nil
}

type renameIn struct {
	Ref  string `path:"issuer_ref" doc:"Identifier or name of the issuer, or default."`
	Name string `json:"issuer_name" doc:"The new name; empty is none."`
}

func renameIssuer(_ context.Context, tx conclave.Tx, in *renameIn) (*issuerOut, error) {
	loaded, err := foundIssuer(tx, in.Ref)
	if err != nil {
		return nil, err
	}
	i := *loaded
	if err := i.rename(tx, strings.TrimSpace(in.Name)); err != nil {
		return nil, err
	}
	return i.out(), i.save(tx)
}

func deleteIssuer(_ context.Context, tx conclave.Tx, in *refIn) (*conclave.Response, error) {
	i, err := issuerBy(tx, in.Ref)
	if err != nil || i == nil {
		return nil, err
	}
	wasDefault, err := i.remove(tx)
	if err != nil {
		return nil, err
	}
	if wasDefault {
		return &conclave.Response{Warnings: []string{"Deleted issuer " + i.ID + ", which was the default one: roles that name no issuer can't sign until another is set with config/issuers."}}, nil
	}
	return nil, nil
}

func issuerPublicKey(_ context.Context, view conclave.View, in *refIn) (*conclave.Response, error) {
	i, err := foundIssuer(view, in.Ref)
	if err != nil {
		return nil, err
	}
	return &conclave.Response{Raw: &conclave.Raw{ContentType: "text/plain", Body: []byte(i.PublicKey)}}, nil
}

func publicKey(ctx context.Context, view conclave.View, _ *conclave.None) (*conclave.Response, error) {
	return issuerPublicKey(ctx, view, &refIn{defaultRef})
}
