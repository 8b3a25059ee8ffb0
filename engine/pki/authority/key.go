package authority

import (
	"context"

	"conclave"
	"conclave/engine/pki/issuing"
	"conclave/engine/pki/stored"
)

func keyRoutes() []conclave.Route {
	return []conclave.Route{
		conclave.ReadRoute(conclave.List, "keys", "List the private keys.", listKeys),
		conclave.ReadRoute(conclave.Read, "key/{key_ref}", "Read what a private key is; never the key itself.", readKey),
		conclave.WriteRoute(conclave.Update, "key/{key_ref}", "Name a private key.", writeKey),
		conclave.WriteRoute(conclave.Delete, "key/{key_ref}", "Destroy a private key. Its issuers sign nothing any more.", deleteKey),
		generateRoute(conclave.WriteRoute(conclave.Update, "keys/generate/{exported}", "Make a private key, internal or exported.", generateKey)),
		importRoute("keys/import", "Import a private key, PEM.", importOneKey),
	}
}

// keys are all keys of the mount.
func keys(view conclave.View) ([]*Key, error) {
	ids, err := view.List("key/", "", maxKeys)
	if err != nil {
		return nil, err
	}
	list := make([]*Key, 0, len(ids))
	for _, id := range ids {
		key, err := LoadKey(view, id)
		if err != nil {
			return nil, err
		}
		if key != nil {
			list = append(list, key)
		}
	}
	return list, nil
}

// addKey stores a new key. The first one becomes the default.
func addKey(tx conclave.Tx, key *Key) error {
	ids, err := tx.List("key/", "", maxKeys)
	if err != nil {
		return err
	}
	if len(ids) >= maxKeys {
		return conclave.Errorf(conclave.Invalid, "there are %d keys already", maxKeys)
	}
	if err := rename(tx, "keyname/", "", key.Name, key.ID); err != nil {
		return err
	}
	if err := stored.Put(tx, "key/"+key.ID, key); err != nil {
		return err
	}
	config, err := stored.LoadOr(tx, "config/keys", keysConfig{})
	if err != nil || config.Default != "" {
		return err
	}
	return stored.Put(tx, "config/keys", keysConfig{Default: key.ID})
}

func listKeys(_ context.Context, view conclave.View, _ *conclave.None) (*conclave.Keys, error) {
	list, err := keys(view)
	if err != nil {
		return nil, err
	}
	config, err := stored.LoadOr(view, "config/keys", keysConfig{})
	if err != nil {
		return nil, err
	}
	out := &conclave.Keys{KeyInfo: map[string]any{}}
	for _, key := range list {
		out.Keys = append(out.Keys, key.ID)
		out.KeyInfo[key.ID] = map[string]any{"key_name": key.Name, "is_default": key.ID == config.Default}
	}
	return out, nil
}

type keyParam struct {
	Key string `path:"key_ref" doc:"Id or name of the key, or default."`
}

type keyOut struct {
	ID             string `json:"key_id" doc:"Id."`
	Name           string `json:"key_name" doc:"Name; empty if it has none."`
	Type           string `json:"key_type" doc:"rsa, ec or ed25519."`
	PrivateKey     string `json:"private_key,omitempty" doc:"The private key, if it is exported as it is made."`
	PrivateKeyType string `json:"private_key_type,omitempty" doc:"Its kind."`
	SubjectKeyID   string `json:"subject_key_id,omitempty" doc:"Hash of its public key, hexadecimal."`
}

func showKey(key *Key) (*keyOut, error) {
	id, err := issuing.KeyID(key.Signer.Public())
	if err != nil {
		return nil, err
	}
	return &keyOut{ID: key.ID, Name: key.Name, Type: key.Type, SubjectKeyID: colons(id)}, nil
}

func readKey(_ context.Context, view conclave.View, in *keyParam) (*keyOut, error) {
	key, err := findKey(view, in.Key)
	if conclave.Is(err, conclave.Invalid) {
		return nil, stored.NotFound()
	}
	if err != nil {
		return nil, err
	}
	return showKey(key)
}

type keyIn struct {
	Key  string  `path:"key_ref" doc:"Id or name of the key, or default."`
	Name *string `json:"key_name" doc:"Name."`
}

func writeKey(_ context.Context, tx conclave.Tx, in *keyIn) (*keyOut, error) {
	key, err := findKey(tx, in.Key)
	if err != nil {
		return nil, err
	}
	changed := *key
	if in.Name != nil {
		if err := rename(tx, "keyname/", key.Name, *in.Name, key.ID); err != nil {
			return nil, err
		}
		changed.Name = *in.Name
	}
	if err := stored.Put(tx, "key/"+key.ID, &changed); err != nil {
		return nil, err
	}
	return showKey(&changed)
}

func deleteKey(_ context.Context, tx conclave.Tx, in *keyParam) (*conclave.Response, error) {
	key, err := findKey(tx, in.Key)
	if conclave.Is(err, conclave.Invalid) {
		return &conclave.Response{}, nil
	}
	if err != nil {
		return nil, err
	}
	if key.Name != "" {
		if err := tx.Delete("keyname/" + key.Name); err != nil {
			return nil, err
		}
	}
	if err := tx.Delete("key/" + key.ID); err != nil {
		return nil, err
	}
	list, err := Issuers(tx)
	if err != nil {
		return nil, err
	}
	for _, issuer := range list {
		if issuer.KeyID == key.ID {
			changed := issuer.Clone()
			changed.KeyID = ""
			if err := stored.Put(tx, "issuer/"+changed.ID, changed); err != nil {
				return nil, err
			}
		}
	}
	config, err := stored.LoadOr(tx, "config/keys", keysConfig{})
	if err != nil || config.Default != key.ID {
		return &conclave.Response{}, err
	}
	return &conclave.Response{Warnings: []string{"Deleted key was the default key; no default is set now: see config/keys"}}, tx.Delete("config/keys")
}

type generateKeyIn struct {
	exportedParam
	KeyType string `json:"key_type" doc:"rsa, ec or ed25519; default rsa."`
	KeyBits int    `json:"key_bits" doc:"Size of the key; 0 is a usual one."`
	KeyName string `json:"key_name" doc:"Name of the key."`
}

func generateKey(ctx context.Context, tx conclave.Tx, in *generateKeyIn) (*keyOut, error) {
	m, err := issuing.Prepared(ctx)
	if err != nil {
		return nil, err
	}
	if m.Key == nil {
		return nil, conclave.Errorf(conclave.Invalid, `the last segment of the path must be "internal" or "exported"`)
	}
	key, err := takeKey(tx, m, &newKeyFields{KeyName: in.KeyName})
	if err != nil {
		return nil, err
	}
	out, err := showKey(key)
	if err == nil && in.Exported == "exported" {
		out.PrivateKeyType = key.Type
		out.PrivateKey, err = issuing.Format{Name: "pem"}.Key(key.Signer)
	}
	return out, err
}

type importKeyIn struct {
	Bundle string `json:"pem_bundle" doc:"The private key, PEM."`
	Name   string `json:"key_name" doc:"Name of the key."`
}

func importOneKey(ctx context.Context, tx conclave.Tx, in *importKeyIn) (*conclave.Response, error) {
	m, err := issuing.Prepared(ctx)
	if err != nil {
		return nil, err
	}
	if len(m.Keys) != 1 || len(m.Certs) != 0 {
		return nil, conclave.Errorf(conclave.Invalid, "one private key in PEM is wanted")
	}
	key, isNew, err := importKey(tx, m.ID(0), in.Name, m.Keys[0])
	if err != nil {
		return nil, err
	}
	resp := &conclave.Response{}
	if !isNew {
		resp.Warnings = append(resp.Warnings, "Key already imported, use key/ endpoint to update name.")
	}
	resp.Data, err = showKey(key)
	return resp, err
}

// colons are bytes in hexadecimal with colons between them.
func colons(b []byte) string {
	const digits = "0123456789abcdef"
	text := make([]byte, 0, 3*len(b))
	for i, c := range b {
		if i > 0 {
			text = append(text, ':')
		}
		text = append(text, digits[c>>4], digits[c&15])
	}
	return string(text)
}
