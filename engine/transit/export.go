package transit

import (
	"context"
	"crypto/rsa"
	"encoding/base64"
	"strconv"
	"strings"

	"conclave"
	"conclave/engine/transit/keys"
	"conclave/engine/transit/shelf"
	"conclave/engine/transit/wrap"
)

func exportRoutes() []conclave.Route {
	return []conclave.Route{
		conclave.ReadRoute(conclave.Read, "export/{type}/{name}", exportDoc,
			func(_ context.Context, view conclave.View, in *exportIn) (*exportOut, error) {
				return export(view, in, "")
			}),
		conclave.ReadRoute(conclave.Read, "export/{type}/{name}/{version}", exportDoc,
			func(_ context.Context, view conclave.View, in *exportOneIn) (*exportOut, error) {
				return export(view, &in.exportIn, in.Version)
			}),
		wrapped(conclave.ReadRoute(conclave.Read, "byok-export/{destination}/{source}", wrapDoc, exportWrapped[wrapIn]),
			func(in any) (*wrapIn, string) { return in.(*wrapIn), "" }),
		wrapped(conclave.ReadRoute(conclave.Read, "byok-export/{destination}/{source}/{version}", wrapDoc, exportWrapped[wrapOneIn]),
			func(in any) (*wrapIn, string) { return &in.(*wrapOneIn).wrapIn, in.(*wrapOneIn).Version }),
		conclave.WriteRoute(conclave.Read, "backup/{name}", backupDoc, backupKey),
		restoring(conclave.WriteRoute(conclave.Update, "restore", restoreDoc,
			func(ctx context.Context, tx conclave.Tx, in *restoreIn) (*conclave.None, error) {
				return nil, restore(ctx, tx, in, in.Name)
			}), func(in any) *restoreIn { return in.(*restoreIn) }),
		restoring(conclave.WriteRoute(conclave.Update, "restore/{name}", restoreDoc,
			func(ctx context.Context, tx conclave.Tx, in *restoreAtIn) (*conclave.None, error) {
				return nil, restore(ctx, tx, &in.restoreIn, in.PathName)
			}), func(in any) *restoreIn { return &in.(*restoreAtIn).restoreIn }),
	}
}

const exportDoc = `Export a key's versions, or one of them.
The key must be exportable, but for its public halves and certificates. The type is encryption-key, signing-key, hmac-key,
public-key or certificate-chain; the version is a number or latest.`

type exportIn struct {
	Type   string `path:"type" doc:"What to export: encryption-key, signing-key, hmac-key, public-key or certificate-chain."`
	Name   string `path:"name" doc:"Name of the key."`
	Format string `json:"format" doc:"raw, der or pem; by default what is usual for the type."`
}

type exportOneIn struct {
	exportIn
	Version string `path:"version" doc:"Number of the version, or latest."`
}

type exportOut struct {
	Name string            `json:"name" doc:"Name of the key."`
	Type keys.Type         `json:"type" doc:"Type of the key."`
	Keys map[string]string `json:"keys" doc:"What was asked for, by the number of the version."`
}

// export answers with all versions that decrypt, or with one.
func export(view conclave.View, in *exportIn, version string) (*exportOut, error) {
	if err := keys.CheckForm(in.Format); err != nil {
		return nil, err
	}
	key, err := shelf.Find(view, in.Name)
	if err == nil && key == nil {
		err = &conclave.Error{Kind: conclave.NotFound}
	}
	if err == nil {
		err = mayExport(key, in.Type)
	}
	if err != nil {
		return nil, err
	}
	return eachVersion(key, version, func(v *keys.Version) (string, error) { return exportVersion(key, v, in.Type, in.Format) })
}

func mayExport(key *keys.Key, what string) error {
	public := what == "public-key" || what == "certificate-chain"
	switch {
	case what != "encryption-key" && what != "signing-key" && what != "hmac-key" && !public:
		return conclave.Errorf(conclave.Invalid, "invalid export type: %q", what)
	case !key.Exportable && !public:
		return conclave.Errorf(conclave.Invalid, "private key material is not exportable")
	case what == "encryption-key" && !key.Type.Encrypts():
		return conclave.Errorf(conclave.Invalid, "encryption not supported for the key")
	case what == "signing-key" && !key.Type.Signs():
		return conclave.Errorf(conclave.Invalid, "signing not supported for the key")
	case public && !key.Type.Signs():
		return conclave.Errorf(conclave.Invalid, "the key has no public half")
	}
	return key.Usable()
}

// eachVersion calls show for the versions that decrypt, or for the one that is named: by its number, "v" before it or not,
// or as the latest.
func eachVersion(key *keys.Key, name string, show func(v *keys.Version) (string, error)) (*exportOut, error) {
	first, last := key.Shown()
	switch name {
	case "":
	case "latest":
		first = last
	default:
		n, err := strconv.Atoi(strings.TrimPrefix(name, "v"))
		switch {
		case err != nil:
			return nil, conclave.Errorf(conclave.Invalid, "invalid key version")
		case n < key.MinDecryption:
			return nil, conclave.Errorf(conclave.Invalid, "version for export is below minimum decryption version")
		case key.Version(n) == nil:
			return nil, conclave.Errorf(conclave.Invalid, "version does not exist or cannot be found")
		}
		first, last = n, n
	}
	out := &exportOut{key.Name, key.Type, map[string]string{}}
	for n := first; n <= last; n++ {
		text, err := show(key.Version(n))
		if err != nil {
			return nil, err
		}
		out.Keys[strconv.Itoa(n)] = text
	}
	return out, nil
}

func exportVersion(key *keys.Key, v *keys.Version, what, form string) (string, error) {
	switch what {
	case "hmac-key":
		return keys.ExportBytes(v.HMACKey(key), form)
	case "public-key":
		return key.ExportPublic(v, form)
	case "certificate-chain":
		if len(v.Chain) == 0 {
			return "", conclave.Errorf(conclave.Invalid, "selected key version does not have a certificate chain imported")
		}
		return chainText(v.Chain), nil
	}
	if !key.Type.IsAsymmetric() {
		return keys.ExportBytes(v.Secret, form)
	}
	return key.ExportPrivate(v, form)
}

const wrapDoc = `Export a key's versions, or one of them, wrapped for another vault.
The destination is a key of type rsa-2048, rsa-3072 or rsa-4096, such as the imported public half of the other vault's
wrapping key; there, what is answered is the ciphertext of an import. The source must be exportable.`

type wrapIn struct {
	Destination string `path:"destination" doc:"Name of the key to wrap with."`
	Source      string `path:"source" doc:"Name of the key to export."`
	Hash        string `json:"hash" doc:"Hash function of OAEP: SHA1, SHA224, SHA256, SHA384 or SHA512; SHA256 by default."`
}

type wrapOneIn struct {
	wrapIn
	Version string `path:"version" doc:"Number of the version, or latest."`
}

// wrapping is what an export is prepared with.
type wrapping struct{ source, destination *keys.Key }

// wrapped has a route prepare the export that part finds in its input, of the version that it names: each version takes an
// operation with an RSA key.
func wrapped(route conclave.Route, part func(in any) (given *wrapIn, version string)) conclave.Route {
	route.Gather = func(view conclave.View, in any) (any, error) {
		given, _ := part(in)
		return given.gather(view)
	}
	route.Prepare = func(ctx context.Context, _ *conclave.Request, in any) (any, error) {
		with, ok := conclave.Gathered[wrapping](ctx)
		if !ok {
			return nil, conclave.Errorf(conclave.Internal, "no keys were gathered")
		}
		given, version := part(in)
		return given.export(with, version)
	}
	return route
}

func exportWrapped[In any](ctx context.Context, _ conclave.View, _ *In) (*exportOut, error) {
	out, ok := conclave.Prepared[*exportOut](ctx)
	if !ok {
		return nil, conclave.Errorf(conclave.Internal, "no export was prepared")
	}
	return out, nil
}

func (in *wrapIn) gather(view conclave.View) (any, error) {
	destination, err := shelf.Find(view, in.Destination)
	if err != nil {
		return nil, err
	}
	source, err := shelf.Find(view, in.Source)
	switch {
	case err != nil:
		return nil, err
	case destination == nil:
		return nil, conclave.Errorf(conclave.Invalid, "no such destination key to export to")
	case source == nil:
		return nil, conclave.Errorf(conclave.Invalid, "no such source key for export")
	case !source.Exportable:
		return nil, conclave.Errorf(conclave.Invalid, "key is not exportable")
	case source.Usable() != nil:
		return nil, source.Usable()
	}
	return wrapping{source, destination}, destination.Usable()
}

func (in *wrapIn) export(with wrapping, version string) (*exportOut, error) {
	hash, err := wrap.Hash(in.Hash)
	if err != nil {
		return nil, err
	}
	public, err := with.destination.Version(with.destination.Latest()).PublicKey()
	if err != nil {
		return nil, err
	}
	to, ok := public.(*rsa.PublicKey)
	if !ok {
		return nil, conclave.Errorf(conclave.Invalid, "the destination must be an RSA key")
	}
	return eachVersion(with.source, version, func(v *keys.Version) (string, error) {
		secret, err := with.source.ForWrapping(v)
		if err != nil {
			return "", err
		}
		sealed, err := wrap.Seal(to, hash, secret)
		if err != nil {
			return "", conclave.Errorf(conclave.Internal, "wrap a key: %w", err)
		}
		return base64.StdEncoding.EncodeToString(sealed), nil
	})
}

const backupDoc = `Answer with a backup of a key in plaintext: its settings and all versions.
The key must be exportable and allow it. That it was done is kept with the key.`

type backupOut struct {
	Backup string `json:"backup" doc:"What restore takes, here or in Vault."`
}

func backupKey(_ context.Context, tx conclave.Tx, in *named) (*backupOut, error) {
	shared, err := shelf.Find(tx, in.Name)
	switch {
	case err != nil:
		return nil, err
	case shared == nil:
		return nil, &conclave.Error{Kind: conclave.NotFound}
	case !shared.Exportable:
		return nil, conclave.Errorf(conclave.Invalid, "exporting is disallowed on the policy")
	case !shared.PlaintextBackup:
		return nil, conclave.Errorf(conclave.Invalid, "plaintext backup is disallowed on the policy")
	}
	key := shared.Clone()
	key.Backup = &keys.Moment{Time: tx.Now(), Version: key.Latest()}
	if err := shelf.Save(tx, "key-backup", shared, key); err != nil {
		return nil, err
	}
	text, err := key.EncodeBackup()
	return &backupOut{text}, err
}

const restoreDoc = `Make a key of a backup, from here or from Vault.
The name in the backup is used unless another one is given. A key that is there is replaced only if force is set.`

type restoreIn struct {
	Backup string `json:"backup" doc:"What backup has answered."`
	Name   string `json:"name" doc:"Name of the key, instead of the one in the backup."`
	Force  bool   `json:"force" doc:"Replace a key that is there."`
}

type restoreAtIn struct {
	restoreIn
	PathName string `path:"name" doc:"Name of the key, instead of the one in the backup."`
}

// restoring has a route prepare the key of a backup: each version that is RSA's takes a few milliseconds to check.
func restoring(route conclave.Route, part func(in any) *restoreIn) conclave.Route {
	route.Prepare = func(_ context.Context, _ *conclave.Request, in any) (any, error) {
		given := part(in)
		if given.Backup == "" {
			return nil, conclave.Errorf(conclave.Invalid, "'backup' must be supplied")
		}
		return keys.DecodeBackup(given.Backup)
	}
	return route
}

func restore(ctx context.Context, tx conclave.Tx, in *restoreIn, name string) error {
	prepared, ok := conclave.Prepared[*keys.Key](ctx)
	if !ok {
		return conclave.Errorf(conclave.Internal, "no backup was prepared")
	}
	key := prepared.Clone()
	if name != "" {
		key.Name = name
	}
	if err := keys.CheckName(key.Name); err != nil {
		return err
	}
	if err := checkPeriod(key.AutoRotate); err != nil {
		return err
	}
	old, err := shelf.Find(tx, key.Name)
	if err != nil {
		return err
	}
	if old != nil && !in.Force {
		return conclave.Errorf(conclave.Invalid, "key %q already exists", key.Name)
	}
	key.Restore = &keys.Moment{Time: tx.Now(), Version: key.Latest()}
	return shelf.Save(tx, "key-restore", old, key)
}
