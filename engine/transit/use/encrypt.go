package use

import (
	"context"
	"encoding/base64"
	"time"

	"conclave"
	"conclave/engine/transit/keys"
	"conclave/engine/transit/shelf"
)

const encryptDoc = `Encrypt one plaintext or a batch of them.
If there is no key of that name it is made, if the caller may create it: derived if a context is given. With batch_input,
items that fail have an error of their own, and the status is 400 unless partial_failure_response_code says otherwise.`

type encryptItem struct {
	Plaintext  *string `json:"plaintext" doc:"Base64 of what to encrypt."`
	Context    string  `json:"context" doc:"Base64 of the context, for derived keys."`
	Associated string  `json:"associated_data" doc:"Base64 of data to authenticate beside the plaintext, for ciphers that do."`
	Version    int     `json:"key_version" doc:"Version to encrypt with; 0 for the latest."`
	Nonce      string  `json:"nonce" doc:"Not taken: nonces are random, or derived for convergent encryption."`
	Reference  string  `json:"reference" doc:"Any text, which the result of a batch's item carries as well."`
}

type encryptIn struct {
	Name string `path:"name" doc:"Name of the key."`
	encryptItem
	Batch      []encryptItem `json:"batch_input" doc:"Items to encrypt, instead of a single one."`
	Partial    *int          `json:"partial_failure_response_code" doc:"Status of an answer in which only some items failed."`
	Type       keys.Type     `json:"type" doc:"Type of a key that is made; aes256-gcm96 by default."`
	Convergent bool          `json:"convergent_encryption" doc:"Make a key whose ciphertexts of equal plaintexts are equal, for each context."`
}

type encryptResult struct {
	Ciphertext string `json:"ciphertext,omitempty"`
	Version    int    `json:"key_version,omitempty"`
	Error      string `json:"error,omitempty"`
	Reference  string `json:"reference"`
}

type encryptOut struct {
	Ciphertext string `json:"ciphertext"`
	Version    int    `json:"key_version"`
}

// encryptRoute is an operation that makes its key if there is none.
func encryptRoute() conclave.Route {
	o := Operation[encryptIn]{func(in *encryptIn) string { return in.Name }, encryptCost, encrypt}
	route := conclave.WriteRoute(conclave.Update, "encrypt/{name}", encryptDoc,
		func(ctx context.Context, tx conclave.Tx, in *encryptIn) (*conclave.Response, error) {
			key, err := shelf.Find(tx, in.Name)
			if err != nil || key != nil {
				return o.handleWith(ctx, key, in, err)
			}
			if key, err = upsert(ctx, tx, in); err != nil {
				return nil, err
			}
			return encrypt(ctx, key, in)
		})
	route.Exists = func(view conclave.View, in any) (bool, error) {
		key, err := shelf.Find(view, in.(*encryptIn).Name)
		return key != nil, err
	}
	route.Gather = func(view conclave.View, in any) (any, error) {
		key, err := shelf.Find(view, in.(*encryptIn).Name)
		if err != nil || key == nil {
			return shelf.Absent{}, err
		}
		return o.gatherWith(key, in.(*encryptIn)), nil
	}
	route.Prepare = func(ctx context.Context, request *conclave.Request, in any) (any, error) {
		if _, none := conclave.Gathered[shelf.Absent](ctx); none {
			return prepareUpsert(request, in.(*encryptIn))
		}
		return o.prepare(ctx, request, in)
	}
	return route
}

func prepareUpsert(_ *conclave.Request, in *encryptIn) (any, error) {
	kind := in.Type.OrDefault()
	if kind.KeySize() == 0 {
		return shelf.Fresh{}, nil // the handler says why not
	}
	v, err := keys.Generate(kind, 0, time.Time{})
	return shelf.Fresh{Version: v}, err
}

// upsert makes the key of an encryption.
func upsert(ctx context.Context, tx conclave.Tx, in *encryptIn) (*keys.Key, error) {
	derived, kind := in.items()[0].Context != "", in.Type.OrDefault()
	config, err := shelf.ReadSettings(tx)
	if err != nil {
		return nil, err
	}
	switch {
	case config.DisableUpsert:
		return nil, shelf.ErrNoKey
	case !kind.Known():
		return nil, kind.Unknown()
	case kind.KeySize() == 0:
		return nil, conclave.Errorf(conclave.Invalid, "key type %s not supported for this operation", kind)
	case in.Convergent && !derived:
		return nil, conclave.Errorf(conclave.Invalid, "convergent encryption requires derivation to be enabled, so context is required")
	}
	if err := keys.CheckName(in.Name); err != nil {
		return nil, err
	}
	v, err := shelf.Prepared(ctx, tx)
	if err != nil {
		return nil, err
	}
	key := &keys.Key{Name: in.Name, Type: kind, Derived: derived, Convergent: in.Convergent}
	key.Add(v)
	return key, shelf.Save(tx, "key-create", nil, key)
}

func (in *encryptIn) items() []encryptItem {
	if len(in.Batch) > 0 {
		return in.Batch
	}
	return []encryptItem{in.encryptItem}
}

func encryptCost(key *keys.Key, in *encryptIn) time.Duration {
	bytes, items := 0, in.items()
	for i := range items {
		if items[i].Plaintext != nil {
			bytes += len(*items[i].Plaintext)
		}
	}
	return textTime(len(items), bytes) + key.Type.PublicCost()*time.Duration(len(items))
}

func encrypt(ctx context.Context, key *keys.Key, in *encryptIn) (*conclave.Response, error) {
	if in.Batch == nil {
		ciphertext, version, err := in.encrypt(key)
		if err != nil {
			return nil, err
		}
		return &conclave.Response{Data: encryptOut{ciphertext, version}}, nil
	}
	if err := checkItems(len(in.Batch), func(i int) string { return in.Batch[i].Context }); err != nil {
		return nil, err
	}
	for i := range in.Batch {
		if in.Batch[i].Plaintext == nil {
			return nil, errNoPlaintext
		}
	}
	results, how := make([]encryptResult, len(in.Batch)), outcome{}
	for i := range in.Batch {
		if ctx.Err() != nil {
			return nil, errTime
		}
		ciphertext, version, err := in.Batch[i].encrypt(key)
		results[i] = encryptResult{ciphertext, version, how.note(err), in.Batch[i].Reference}
	}
	return how.response(results, in.Partial), nil
}

var errNoPlaintext = conclave.Errorf(conclave.Invalid, "missing plaintext to encrypt")

func (item *encryptItem) encrypt(key *keys.Key) (string, int, error) {
	if item.Plaintext == nil {
		return "", 0, errNoPlaintext
	}
	plaintext, err := base64.StdEncoding.DecodeString(*item.Plaintext)
	if err != nil {
		return "", 0, conclave.Errorf(conclave.Invalid, "failed to base64-decode plaintext")
	}
	with, err := sealing(item.Context, item.Associated, item.Nonce)
	if err != nil {
		return "", 0, err
	}
	return key.Encrypt(item.Version, plaintext, with)
}
