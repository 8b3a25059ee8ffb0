package transit

import (
	"context"
	"time"

	"conclave"
	"conclave/engine/transit/keys"
	"conclave/engine/transit/shelf"
	"conclave/engine/transit/use"
)

func keyRoutes() []conclave.Route {
	create := conclave.WriteRoute(conclave.Update, "keys/{name}", createDoc, createKey)
	create.Gather, create.Prepare = gatherCreate, prepareCreate
	rotate := conclave.WriteRoute(conclave.Update, "keys/{name}/rotate", rotateDoc, rotateKey)
	rotate.Gather, rotate.Prepare = gatherRotate, prepareRotate
	return []conclave.Route{
		conclave.ReadRoute(conclave.List, "keys", "List the names of the keys.", listKeys),
		create,
		conclave.ReadRoute(conclave.Read, "keys/{name}", readDoc, readKey),
		conclave.WriteRoute(conclave.Delete, "keys/{name}", deleteDoc, deleteKey),
		conclave.WriteRoute(conclave.Update, "keys/{name}/config", configDoc, configureKey),
		rotate,
		conclave.WriteRoute(conclave.Update, "keys/{name}/trim", trimDoc, trimKey),
		conclave.WriteRoute(conclave.Delete, "keys/{name}/soft-delete", softDeleteDoc, softDelete(true)),
		conclave.WriteRoute(conclave.Update, "keys/{name}/soft-delete-restore", "Make a key usable again that was deleted softly.", softDelete(false)),
	}
}

type named struct {
	Name string `path:"name" doc:"Name of the key."`
}

type listIn struct {
	After string `json:"after" doc:"Return only names after this one."`
	Limit int    `json:"limit" doc:"Return at most so many names; 0 for all."`
}

func listKeys(_ context.Context, view conclave.View, in *listIn) (*conclave.Keys, error) {
	names, err := view.List(shelf.Dir, in.After, in.Limit)
	return &conclave.Keys{Keys: names}, err
}

const createDoc = `Make a key.
If there is one of that name it stays as it is, and the answer has a warning.`

type createIn struct {
	named
	Type       keys.Type        `json:"type" doc:"Type of the key; aes256-gcm96 by default."`
	Derived    bool             `json:"derived" doc:"Derive a key from it for each context, which all requests must give then."`
	Convergent bool             `json:"convergent_encryption" doc:"Let equal plaintexts have equal ciphertexts, for each context. The key must be derived."`
	Exportable bool             `json:"exportable" doc:"Allow that the key is exported, for good."`
	Backup     bool             `json:"allow_plaintext_backup" doc:"Allow that a backup of the key is taken, for good."`
	AutoRotate conclave.Seconds `json:"auto_rotate_period" doc:"How often to rotate the key by itself: 0 for never, else at least an hour."`
	Size       int              `json:"key_size" doc:"Bytes of a key of type hmac: 32 to 512, 32 by default."`
	Context    string           `json:"context" doc:"Not needed here."`
}

func (in *createIn) check() error {
	kind := in.Type.OrDefault()
	if err := keys.CheckName(in.Name); err != nil {
		return err
	}
	switch {
	case !kind.Known():
		return kind.Unknown()
	case in.Convergent && !in.Derived:
		return conclave.Errorf(conclave.Invalid, "convergent encryption requires derivation to be enabled")
	case in.Derived && !kind.Derives():
		return conclave.Errorf(conclave.Invalid, "key derivation not supported for key type %s", kind)
	case in.Convergent && kind.KeySize() == 0:
		return conclave.Errorf(conclave.Invalid, "convergent encryption not supported for keys of type %s", kind)
	case in.Size != 0 && kind != keys.HMACOnly:
		return conclave.Errorf(conclave.Invalid, "key_size is not valid for algorithm %s", kind)
	case in.Size != 0 && (in.Size < keys.MinHMACKey || in.Size > keys.MaxHMACKey):
		return conclave.Errorf(conclave.Invalid, "key_size must be between %d and %d bytes", keys.MinHMACKey, keys.MaxHMACKey)
	}
	return checkPeriod(in.AutoRotate)
}

func checkPeriod(period conclave.Seconds) error {
	switch {
	case period != 0 && period < minAutoRotate:
		return conclave.Errorf(conclave.Invalid, "auto rotate period must be 0 to disable or at least an hour")
	case period > maxAutoRotate:
		return conclave.Errorf(conclave.Invalid, "auto rotate period must be at most a hundred years")
	}
	return nil
}

// gatherCreate: a key is made only where there is none.
func gatherCreate(view conclave.View, in any) (any, error) {
	if err := in.(*createIn).check(); err != nil {
		return nil, err
	}
	key, err := shelf.Find(view, in.(*createIn).Name)
	if err != nil || key != nil {
		return conclave.NoPreparation{}, err
	}
	return shelf.Absent{}, nil
}

func prepareCreate(_ context.Context, _ *conclave.Request, in any) (any, error) {
	v, err := keys.Generate(in.(*createIn).Type.OrDefault(), in.(*createIn).Size, time.Time{})
	return shelf.Fresh{Version: v}, err
}

func createKey(ctx context.Context, tx conclave.Tx, in *createIn) (*conclave.Response, error) {
	key, err := shelf.Find(tx, in.Name)
	if err != nil {
		return nil, err
	}
	if key != nil {
		response, err := show(key, nil)
		if err == nil {
			response.Warnings = append(response.Warnings, "key "+in.Name+" already existed")
		}
		return response, err
	}
	v, err := shelf.Prepared(ctx, tx)
	if err != nil {
		return nil, err
	}
	key = &keys.Key{Name: in.Name, Type: in.Type.OrDefault(), Derived: in.Derived, Convergent: in.Convergent, Exportable: in.Exportable, PlaintextBackup: in.Backup, AutoRotate: in.AutoRotate}
	if key.Type == keys.HMACOnly {
		key.Size = len(v.Secret)
	}
	key.Add(v)
	if err := shelf.Save(tx, "key-create", nil, key); err != nil {
		return nil, err
	}
	return show(key, nil)
}

const readDoc = `Read what there is to know of a key: its settings, its versions and their public halves.
Versions that no longer decrypt aren't shown. The context chooses the public keys of a derived key of type ed25519.`

type readIn struct {
	named
	Context string `json:"context" doc:"Base64 of the context."`
}

func readKey(_ context.Context, view conclave.View, in *readIn) (*conclave.Response, error) {
	derivation, err := use.DecodeField("context", in.Context)
	if err != nil {
		return nil, err
	}
	key, err := shelf.Find(view, in.Name)
	if err == nil && key == nil {
		err = &conclave.Error{Kind: conclave.NotFound}
	}
	if err != nil {
		return nil, err
	}
	return show(key, derivation)
}

const deleteDoc = `Delete a key with all its versions, for good.
It must allow that: see its setting deletion_allowed. What was encrypted with it can't be decrypted any more.`

func deleteKey(_ context.Context, tx conclave.Tx, in *named) (*conclave.None, error) {
	key, err := shelf.Find(tx, in.Name)
	switch {
	case err != nil:
		return nil, err
	case key == nil:
		return nil, conclave.Errorf(conclave.Invalid, "could not delete key; not found")
	case !key.DeletionAllowed:
		return nil, conclave.Errorf(conclave.Invalid, "deletion is not allowed for this key")
	}
	return nil, shelf.Delete(tx, key)
}

const softDeleteDoc = `Make a key unusable until it is restored.
Nothing of it is removed; it is still shown, listed and can be changed. It doesn't matter whether its deletion is allowed.`

func softDelete(deleted bool) func(context.Context, conclave.Tx, *named) (*conclave.Response, error) {
	what := "key-soft-delete"
	if !deleted {
		what = "key-soft-delete-restore"
	}
	return func(_ context.Context, tx conclave.Tx, in *named) (*conclave.Response, error) {
		return change(tx, what, in.Name, func(key *keys.Key) error {
			key.SoftDeleted = deleted
			return nil
		})
	}
}

// change changes a copy of a key, stores it and shows it. what is what happens to it.
func change(tx conclave.Tx, what, name string, how func(key *keys.Key) error) (*conclave.Response, error) {
	shared, err := shelf.Find(tx, name)
	if err == nil && shared == nil {
		err = conclave.Errorf(conclave.Invalid, "no existing key named %s could be found", name)
	}
	if err != nil {
		return nil, err
	}
	key := shared.Clone()
	if err := how(key); err != nil {
		return nil, err
	}
	if err := shelf.Save(tx, what, shared, key); err != nil {
		return nil, err
	}
	return show(key, nil)
}

const configDoc = `Change the settings of a key.
What isn't given stays as it is. That a key is exportable, or may be backed up, can't be taken back.`

type configIn struct {
	named
	MinDecryption   *int              `json:"min_decryption_version" doc:"Oldest version that decrypts and verifies; 0 is taken for 1."`
	MinEncryption   *int              `json:"min_encryption_version" doc:"Oldest version that encrypts and signs; 0 for any that decrypts."`
	DeletionAllowed *bool             `json:"deletion_allowed" doc:"Whether the key can be deleted."`
	Exportable      bool              `json:"exportable" doc:"Allow that the key is exported, for good."`
	Backup          bool              `json:"allow_plaintext_backup" doc:"Allow that a backup of the key is taken, for good."`
	AutoRotate      *conclave.Seconds `json:"auto_rotate_period" doc:"How often to rotate the key by itself: 0 for never, else at least an hour."`
}

func configureKey(_ context.Context, tx conclave.Tx, in *configIn) (*conclave.Response, error) {
	response, err := change(tx, "key-config", in.Name, in.apply)
	if err == nil && in.MinDecryption != nil && *in.MinDecryption == 0 {
		response.Warnings = append(response.Warnings, "versions are numbered from 1; min_decryption_version was set to 1")
	}
	return response, err
}

func (in *configIn) apply(key *keys.Key) error {
	if in.MinDecryption != nil {
		key.MinDecryption = *in.MinDecryption
		if key.MinDecryption == 0 {
			key.MinDecryption = 1
		}
	}
	if in.MinEncryption != nil {
		key.MinEncryption = *in.MinEncryption
	}
	switch {
	case key.MinDecryption < 0 || key.MinEncryption < 0:
		return conclave.Errorf(conclave.Invalid, "versions cannot be negative")
	case key.MinDecryption > key.Latest():
		return conclave.Errorf(conclave.Invalid, "cannot set min decryption version of %d, latest key version is %d", key.MinDecryption, key.Latest())
	case key.MinEncryption > key.Latest():
		return conclave.Errorf(conclave.Invalid, "cannot set min encryption version of %d, latest key version is %d", key.MinEncryption, key.Latest())
	case key.MinEncryption > 0 && key.MinEncryption < key.MinDecryption:
		return conclave.Errorf(conclave.Invalid, "min encryption version of %d must be greater than or equal to min decryption version of %d", key.MinEncryption, key.MinDecryption)
	case key.MinDecryption < key.First:
		return conclave.Errorf(conclave.Invalid, "min decryption version should not be less than min available version %d", key.First)
	}
	if in.DeletionAllowed != nil {
		key.DeletionAllowed = *in.DeletionAllowed
	}
	key.Exportable = key.Exportable || in.Exportable
	key.PlaintextBackup = key.PlaintextBackup || in.Backup
	if in.AutoRotate == nil {
		return nil
	}
	key.AutoRotate = *in.AutoRotate
	return checkPeriod(key.AutoRotate)
}

const rotateDoc = `Make a new version of a key.
From then on it is the one that encrypts and signs; older ones go on decrypting and verifying what they have made.`

type rotateIn struct {
	named
}

// rotation is what a new version is made by.
type rotation struct {
	kind keys.Type
	size int
}

func gatherRotate(view conclave.View, in any) (any, error) {
	key, err := shelf.Existing(view, in.(*rotateIn).Name)
	if err != nil {
		return nil, err
	}
	return rotation{key.Type, key.Size}, shelf.MayRotate(key)
}

func prepareRotate(ctx context.Context, _ *conclave.Request, _ any) (any, error) {
	r, ok := conclave.Gathered[rotation](ctx)
	if !ok {
		return nil, conclave.Errorf(conclave.Internal, "no key was gathered")
	}
	v, err := keys.Generate(r.kind, r.size, time.Time{})
	return shelf.Fresh{Version: v}, err
}

func rotateKey(ctx context.Context, tx conclave.Tx, in *rotateIn) (*conclave.Response, error) {
	v, err := shelf.Prepared(ctx, tx)
	if err != nil {
		return nil, err
	}
	return change(tx, "key-rotate", in.Name, func(key *keys.Key) error {
		if err := shelf.MayRotate(key); err != nil {
			return err
		}
		key.Imported = false // from now on it is ours
		key.Add(v)
		return nil
	})
}

const trimDoc = `Remove old versions of a key, for good.
Both min_decryption_version and min_encryption_version must be set to at least the oldest version that stays.`

type trimIn struct {
	named
	Oldest *int `json:"min_available_version" doc:"The oldest version that stays."`
}

func trimKey(_ context.Context, tx conclave.Tx, in *trimIn) (*conclave.Response, error) {
	if in.Oldest == nil {
		return nil, conclave.Errorf(conclave.Invalid, "missing min_available_version")
	}
	return change(tx, "key-trim", in.Name, func(key *keys.Key) error {
		oldest := *in.Oldest
		switch {
		case oldest < key.MinAvailable:
			return conclave.Errorf(conclave.Invalid, "minimum available version cannot be decremented")
		case key.MinEncryption == 0:
			return conclave.Errorf(conclave.Invalid, "minimum available version cannot be set when minimum encryption version is not set")
		case oldest > key.MinEncryption:
			return conclave.Errorf(conclave.Invalid, "minimum available version cannot be greater than minimum encryption version")
		case oldest > key.MinDecryption:
			return conclave.Errorf(conclave.Invalid, "minimum available version cannot be greater than minimum decryption version")
		case oldest <= 0:
			return conclave.Errorf(conclave.Invalid, "minimum available version should be positive")
		}
		key.Trim(oldest)
		return nil
	})
}
