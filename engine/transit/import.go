package transit

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"time"

	"conclave"
	"conclave/engine/transit/keys"
	"conclave/engine/transit/shelf"
	"conclave/engine/transit/wrap"
)

func (e Engine) importRoutes() []conclave.Route {
	wrapping := conclave.WriteRoute(conclave.Read, "wrapping_key", wrappingDoc, e.wrappingKey)
	wrapping.Gather, wrapping.Prepare = gatherWrapping, func(context.Context, *conclave.Request, any) (any, error) {
		v, err := keys.Generate(e.wrappingType(), 0, time.Time{})
		return shelf.Fresh{Version: v}, err
	}
	first := conclave.WriteRoute(conclave.Update, "keys/{name}/import", importDoc, importKey)
	first.Gather, first.Prepare = gatherImport, prepareImport
	next := conclave.WriteRoute(conclave.Update, "keys/{name}/import_version", importVersionDoc, importVersion)
	next.Gather, next.Prepare = gatherImportVersion, prepareImportVersion
	return []conclave.Route{wrapping, first, next}
}

const wrappingDoc = `Read the public key that keys are wrapped with for an import; it is made when it is first read.`

type wrappingOut struct {
	PublicKey string `json:"public_key" doc:"RSA key of 4096 bits, PKIX in PEM."`
}

func loadWrapping(view conclave.View) (*keys.Key, error) {
	loaded, err := view.Load(wrappingPath, shelf.Decode)
	key, _ := loaded.(*keys.Key)
	return key, err
}

func gatherWrapping(view conclave.View, _ any) (any, error) {
	key, err := loadWrapping(view)
	if err != nil || key != nil {
		return conclave.NoPreparation{}, err
	}
	return shelf.Absent{}, nil
}

func (e Engine) wrappingKey(ctx context.Context, tx conclave.Tx, _ *conclave.None) (*wrappingOut, error) {
	key, err := loadWrapping(tx)
	if err != nil {
		return nil, err
	}
	if key == nil {
		v, err := shelf.Prepared(ctx, tx)
		if err != nil {
			return nil, err
		}
		key = &keys.Key{Name: wrappingPath, Type: e.wrappingType()}
		key.Add(v)
		value, err := key.Encode()
		if err != nil {
			return nil, err
		}
		if err := tx.Put(wrappingPath, value); err != nil {
			return nil, err
		}
	}
	text, err := key.ExportPublic(key.Version(key.Latest()), keys.FormPlain)
	return &wrappingOut{text}, err
}

// brought is a key that somebody brings.
type brought struct {
	Ciphertext string `json:"ciphertext" doc:"Base64 of the key, wrapped with the wrapping key: raw, or PKCS #8 for keys that have a public half."`
	PublicKey  string `json:"public_key" doc:"The public half alone, PKIX in PEM, instead of the whole key."`
	Hash       string `json:"hash_function" doc:"Hash function of OAEP in the ciphertext: SHA1, SHA224, SHA256, SHA384 or SHA512; SHA256 by default."`
}

func (b *brought) check() error {
	switch {
	case b.Ciphertext != "" && b.PublicKey != "":
		return conclave.Errorf(conclave.Invalid, "only one of the following fields, ciphertext and public_key, can be set")
	case b.Ciphertext == "" && b.PublicKey == "":
		return conclave.Errorf(conclave.Invalid, "one of the following fields, ciphertext and public_key, must be set")
	}
	return nil
}

// unwrapping is what an import is prepared with.
type unwrapping struct {
	kind     keys.Type
	derived  bool
	wrapping *keys.Key
}

// gather is the part of an import's Gather that both have.
func (b *brought) gather(view conclave.View, kind keys.Type, derived bool) (any, error) {
	wrapping, err := loadWrapping(view)
	if err == nil && wrapping == nil && b.Ciphertext != "" {
		err = conclave.Errorf(conclave.Invalid, "there is no wrapping key: read it first")
	}
	return unwrapping{kind, derived, wrapping}, err
}

// open makes a version of what was brought.
func (b *brought) open(ctx context.Context) (any, error) {
	with, ok := conclave.Gathered[unwrapping](ctx)
	if !ok {
		return nil, conclave.Errorf(conclave.Internal, "nothing was gathered for an import")
	}
	if b.PublicKey != "" {
		if with.derived {
			return nil, conclave.Errorf(conclave.Invalid, "keys are derived from a private key only")
		}
		v, err := keys.FromPublic(with.kind, b.PublicKey, time.Time{})
		return shelf.Fresh{Version: v}, err
	}
	hash, err := wrap.Hash(b.Hash)
	if err != nil {
		return nil, err
	}
	secret, err := b.unwrap(with.wrapping, hash)
	if err != nil {
		return nil, err
	}
	defer clear(secret)
	v, err := keys.FromSecret(with.kind, secret, time.Time{})
	return shelf.Fresh{Version: v}, err
}

func (b *brought) unwrap(by *keys.Key, hash crypto.Hash) ([]byte, error) {
	text, err := base64.StdEncoding.DecodeString(b.Ciphertext)
	if err != nil {
		return nil, conclave.Errorf(conclave.Invalid, "failed to base64-decode ciphertext")
	}
	signer, err := by.Version(by.Latest()).Signer()
	if err != nil {
		return nil, err
	}
	private, _ := signer.(*rsa.PrivateKey)
	secret, err := wrap.Open(private, hash, text)
	if err != nil {
		return nil, conclave.Errorf(conclave.Invalid, "the ciphertext can't be unwrapped: is it wrapped with this mount's wrapping key and the right hash function?")
	}
	return secret, nil
}

// Wrap makes the ciphertext of an import: key (raw, or PKCS #8) for the vault whose wrapping key, PKIX in PEM, it is given.
// hash is the name of OAEP's hash function, "" for SHA256.
func Wrap(wrappingKey, hash string, key []byte) (string, error) {
	block, _ := pem.Decode([]byte(wrappingKey))
	if block == nil {
		return "", conclave.Errorf(conclave.Invalid, "the wrapping key isn't in PEM")
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	to, isRSA := public.(*rsa.PublicKey)
	if err != nil || !isRSA {
		return "", conclave.Errorf(conclave.Invalid, "the wrapping key is no RSA key")
	}
	function, err := wrap.Hash(hash)
	if err != nil {
		return "", err
	}
	sealed, err := wrap.Seal(to, function, key)
	if err != nil {
		return "", conclave.Errorf(conclave.Invalid, "the key can't be wrapped: it has between 1 and %d bytes", wrap.MaxKey)
	}
	return base64.StdEncoding.EncodeToString(sealed), nil
}

const importDoc = `Make a key of one that is brought: whole and wrapped, or its public half alone.
The ciphertext is RSA-OAEP of 32 random bytes under the wrapping key, and behind it AES-KWP (RFC 5649) of the key under
those bytes, all in base64.`

type importIn struct {
	named
	brought
	Type       keys.Type        `json:"type" doc:"Type of the key; aes256-gcm96 by default."`
	Derived    bool             `json:"derived" doc:"Derive a key from it for each context, which all requests must give then."`
	Convergent bool             `json:"convergent_encryption" doc:"Not taken: imported keys can't be convergent."`
	Exportable bool             `json:"exportable" doc:"Allow that the key is exported, for good."`
	Backup     bool             `json:"allow_plaintext_backup" doc:"Allow that a backup of the key is taken, for good."`
	Rotates    bool             `json:"allow_rotation" doc:"Allow that new versions are made here; then none can be imported any more."`
	AutoRotate conclave.Seconds `json:"auto_rotate_period" doc:"How often to rotate the key by itself: 0 for never, else at least an hour. It needs allow_rotation."`
	Context    string           `json:"context" doc:"Not needed here."`
}

func (in *importIn) check() error {
	kind := in.Type.OrDefault()
	if err := keys.CheckName(in.Name); err != nil {
		return err
	}
	switch {
	case !kind.Known():
		return kind.Unknown()
	case in.Convergent:
		return conclave.Errorf(conclave.Invalid, "import cannot be used on keys with convergent encryption enabled")
	case in.Derived && !kind.Derives():
		return conclave.Errorf(conclave.Invalid, "key derivation not supported for key type %s", kind)
	case in.AutoRotate > 0 && !in.Rotates:
		return conclave.Errorf(conclave.Invalid, "allow_rotation must be set to true if auto-rotation is enabled")
	}
	if err := in.brought.check(); err != nil {
		return err
	}
	return checkPeriod(in.AutoRotate)
}

func gatherImport(view conclave.View, in any) (any, error) {
	given := in.(*importIn)
	if err := given.check(); err != nil {
		return nil, err
	}
	key, err := shelf.Find(view, given.Name)
	if err == nil && key != nil {
		err = conclave.Errorf(conclave.Invalid, "the import path cannot be used with an existing key; use import_version to add to an imported one")
	}
	if err != nil {
		return nil, err
	}
	return given.gather(view, given.Type.OrDefault(), given.Derived)
}

func prepareImport(ctx context.Context, _ *conclave.Request, in any) (any, error) {
	return in.(*importIn).open(ctx)
}

func importKey(ctx context.Context, tx conclave.Tx, in *importIn) (*conclave.None, error) {
	v, err := shelf.Prepared(ctx, tx)
	if err != nil {
		return nil, err
	}
	key := &keys.Key{Name: in.Name, Type: in.Type.OrDefault(), Derived: in.Derived, Exportable: in.Exportable, PlaintextBackup: in.Backup,
		AutoRotate: in.AutoRotate, Imported: true, RotatesImported: in.Rotates}
	if key.Type == keys.HMACOnly {
		key.Size = len(v.Secret)
	}
	key.Add(v)
	return nil, shelf.Save(tx, "key-import", nil, key)
}

const importVersionDoc = `Add a version that is brought to an imported key, or the private half to a public one.
Without a version given, a private key that belongs to the latest public one completes that; any other is a new version.`

type importVersionIn struct {
	named
	brought
	Version *int `json:"version" doc:"Number of the version that the private half is for."`
}

func gatherImportVersion(view conclave.View, in any) (any, error) {
	given := in.(*importVersionIn)
	if err := given.check(); err != nil {
		return nil, err
	}
	key, err := shelf.Find(view, given.Name)
	switch {
	case err != nil:
		return nil, err
	case key == nil:
		return nil, conclave.Errorf(conclave.Invalid, "no key found with name %s; to import a new key, use the import path", given.Name)
	case !key.Imported:
		return nil, conclave.Errorf(conclave.Invalid, "the import_version endpoint can only be used with an imported key")
	case key.Usable() != nil:
		return nil, key.Usable()
	}
	return given.gather(view, key.Type, key.Derived)
}

func prepareImportVersion(ctx context.Context, _ *conclave.Request, in any) (any, error) {
	return in.(*importVersionIn).open(ctx)
}

func importVersion(ctx context.Context, tx conclave.Tx, in *importVersionIn) (*conclave.None, error) {
	made, err := shelf.Prepared(ctx, tx)
	if err != nil {
		return nil, err
	}
	_, err = change(tx, "key-import-version", in.Name, func(key *keys.Key) error {
		number := key.Latest()
		if in.Version != nil {
			number = *in.Version
		}
		old := key.Version(number)
		switch {
		case old == nil:
			return conclave.Errorf(conclave.Invalid, "no such key version")
		case in.Version != nil && old.HasPrivate():
			return conclave.Errorf(conclave.Invalid, "private key imported, key version cannot be updated")
		case in.Version != nil && !made.HasPrivate():
			return conclave.Errorf(conclave.Invalid, "cannot add a public key to a key version that already has a public key set")
		}
		if !old.HasPrivate() && made.HasPrivate() {
			whole, fits := complete(key, old, made)
			if fits {
				key.Replace(number, whole)
				return nil
			}
			if in.Version != nil {
				return conclave.Errorf(conclave.Invalid, "cannot import key, key pair does not match")
			}
		}
		key.Add(made)
		return nil
	})
	return nil, err
}

// complete is a version that has a public half only, with the private half that was brought, if the two belong together.
func complete(key *keys.Key, old, made *keys.Version) (*keys.Version, bool) {
	pair := key.Clone()
	pair.Add(made)
	public, err := made.PublicKey()
	if err != nil || public == nil || !old.SamePublic(public) {
		return nil, false
	}
	whole := *old
	whole.Secret, whole.Public = bytes.Clone(made.Secret), nil
	return &whole, true
}
