package seal

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"conclave"
)

// maxPGPKey bounds one public key as a client sends it, in bytes.
const maxPGPKey = 64 << 10

// parsePGP reads public keys in base64 of the binary form, as `gpg --export | base64` makes them.
func parsePGP(keys []string) ([]*openpgp.Entity, error) {
	entities := make([]*openpgp.Entity, len(keys))
	for i, key := range keys {
		if strings.HasPrefix(key, "keybase:") {
			return nil, conclave.Errorf(conclave.Invalid, "pgp key %d: keybase names are not looked up here: give the public key itself, in base64", i+1)
		}
		if len(key) > maxPGPKey {
			return nil, conclave.Errorf(conclave.TooLarge, "pgp key %d is larger than %d bytes", i+1, maxPGPKey)
		}
		raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(key))
		if err != nil {
			return nil, conclave.Errorf(conclave.Invalid, "pgp key %d is not base64", i+1)
		}
		entity, err := openpgp.ReadEntity(packet.NewReader(bytes.NewReader(raw)))
		if err != nil {
			return nil, conclave.Errorf(conclave.Invalid, "pgp key %d is not a public key in binary form", i+1)
		}
		if entity.PrivateKey != nil {
			return nil, conclave.Errorf(conclave.Invalid, "pgp key %d is a private key: give the public one", i+1)
		}
		entities[i] = entity
	}
	return entities, nil
}

// encryptText returns the base64 of a PGP message for entity. Shares go in as hex, as Vault's clients expect them.
func encryptText(entity *openpgp.Entity, text string) (string, error) {
	var out bytes.Buffer
	w, err := openpgp.Encrypt(&out, []*openpgp.Entity{entity}, nil, nil, nil)
	if err != nil {
		return "", conclave.Errorf(conclave.Invalid, "a pgp key can't be encrypted to")
	}
	if _, err := w.Write([]byte(text)); err != nil {
		return "", err
	}
	if err := w.Close(); err != nil {
		return "", err
	}
	return base64.StdEncoding.EncodeToString(out.Bytes()), nil
}

func fingerprint(entity *openpgp.Entity) string {
	return hex.EncodeToString(entity.PrimaryKey.Fingerprint)
}
