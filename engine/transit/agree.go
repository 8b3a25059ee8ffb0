package transit

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"time"

	"conclave"
	"conclave/engine/transit/keys"
	"conclave/engine/transit/shelf"
)

func agreeRoutes() []conclave.Route {
	route := conclave.WriteRoute(conclave.Update, "derive-key/{name}", agreeDoc, makeAgreed)
	route.Gather, route.Prepare = gatherAgree, prepareAgree
	return []conclave.Route{route}
}

const agreeDoc = `Make a key of the secret that one of the mount's ECDSA keys and somebody's public key agree on.
The secret is that of ECDH; the key is derived from it with HKDF and SHA-256 (RFC 5869), without salt or info.`

type agreeIn struct {
	named
	Algorithm string    `json:"key_derivation_algorithm" doc:"How the two agree: ecdh."`
	Peer      string    `json:"peer_public_key" doc:"The other's public key, PKIX in PEM."`
	Base      string    `json:"base_key_name" doc:"Name of the own key, of a type of ECDSA."`
	Version   int       `json:"base_key_version" doc:"Version of the own key; 0 for the latest."`
	Type      keys.Type `json:"derived_key_type" doc:"Type of the key that is made: one that is symmetric and encrypts; aes256-gcm96 by default."`
}

func gatherAgree(view conclave.View, in any) (any, error) {
	given := in.(*agreeIn)
	if err := keys.CheckName(given.Name); err != nil {
		return nil, err
	}
	there, err := shelf.Find(view, given.Name)
	if err != nil {
		return nil, err
	}
	base, err := shelf.Find(view, given.Base)
	switch {
	case err != nil:
		return nil, err
	case given.Algorithm != "" && given.Algorithm != "ecdh":
		return nil, conclave.Errorf(conclave.Invalid, "key derivation algorithm %q not supported", given.Algorithm)
	case given.Type.OrDefault().KeySize() == 0:
		return nil, conclave.Errorf(conclave.Invalid, "a key of type %q can't be derived", string(given.Type))
	case there != nil:
		return nil, conclave.Errorf(conclave.Invalid, "there is a key of that name")
	case base == nil:
		return nil, conclave.Errorf(conclave.Invalid, "specified base key not found")
	case !base.Type.Agrees():
		return nil, conclave.Errorf(conclave.Invalid, "base key type %s does not support key agreement", base.Type)
	case given.Version != 0 && base.Version(given.Version) == nil:
		return nil, conclave.Errorf(conclave.Invalid, "no such key version")
	}
	return base, base.Usable()
}

func prepareAgree(ctx context.Context, _ *conclave.Request, in any) (any, error) {
	given := in.(*agreeIn)
	base, ok := conclave.Gathered[*keys.Key](ctx)
	if !ok {
		return nil, conclave.Errorf(conclave.Internal, "no key was gathered")
	}
	block, _ := pem.Decode([]byte(given.Peer))
	if block == nil {
		return nil, conclave.Errorf(conclave.Invalid, "the peer's public key isn't in PEM")
	}
	peer, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, conclave.Errorf(conclave.Invalid, "the peer's public key isn't in PKIX form")
	}
	number := given.Version
	if number == 0 {
		number = base.Latest()
	}
	shared, err := base.Version(number).Agree(peer)
	if err != nil {
		return nil, err
	}
	defer clear(shared)
	kind := given.Type.OrDefault()
	secret, err := hkdf.Key(sha256.New, shared, nil, "", kind.KeySize())
	if err != nil {
		return nil, conclave.Errorf(conclave.Internal, "derive a key: %w", err)
	}
	v, err := keys.FromSecret(kind, secret, time.Time{})
	return shelf.Fresh{Version: v}, err
}

func makeAgreed(ctx context.Context, tx conclave.Tx, in *agreeIn) (*conclave.None, error) {
	v, err := shelf.Prepared(ctx, tx)
	if err != nil {
		return nil, err
	}
	key := &keys.Key{Name: in.Name, Type: in.Type.OrDefault(), Imported: true}
	key.Add(v)
	return nil, shelf.Save(tx, "key-derive", nil, key)
}
