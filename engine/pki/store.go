package pki

import (
	"encoding/hex"
	"encoding/json"
	"math/big"
	"strings"
	"time"

	"conclave"
	"conclave/engine/pki/authority"
	"conclave/engine/pki/issuing"
)

var errFormat = conclave.Errorf(conclave.Internal, "what is stored can't be read")

// load returns the decoded object at path, which is shared and must not be changed; nil if there is none.
func load[T any](view conclave.View, path string, decode func([]byte) (*T, error)) (*T, error) {
	object, err := view.Load(path, func(value []byte) (any, error) { return decode(value) })
	if err != nil || object == nil {
		return nil, err
	}
	return object.(*T), nil
}

func decodeJSON[T any](value []byte) (*T, error) {
	object := new(T)
	if err := json.Unmarshal(value, object); err != nil {
		return nil, errFormat
	}
	return object, nil
}

// loadOr is load with a default for what isn't there.
func loadOr[T any](view conclave.View, path string, otherwise T) (*T, error) {
	object, err := load(view, path, decodeJSON[T])
	if err == nil && object == nil {
		object = &otherwise
	}
	return object, err
}

func store(tx conclave.Tx, path string, object any) error {
	value, err := json.Marshal(object)
	if err != nil {
		return err
	}
	return tx.Put(path, value)
}

func notFound() error { return &conclave.Error{Kind: conclave.NotFound} }

// checkName holds the name of a role, key or issuer against the rules: letters, digits, "_", "-", ".", of which the first
// is no punctuation.
func checkName(name string) error {
	strange := func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' && c != '-' && c != '.'
	}
	if name == "" || len(name) > maxName || strings.ContainsFunc(name, strange) || strings.ContainsRune("-.", rune(name[0])) || strings.ContainsRune("-.", rune(name[len(name)-1])) {
		return conclave.Errorf(conclave.Invalid, "a name is 1 to %d letters, digits, underscores, hyphens and dots, and neither begins nor ends with one of the last two", maxName)
	}
	return nil
}

// serialOf reads a serial number as clients write it: pairs of hexadecimal digits with colons or hyphens between them, or
// without. The result is the name under which a certificate is stored.
func serialOf(text string) (string, error) {
	refused := conclave.Errorf(conclave.Invalid, "a serial number is written in hexadecimal digits, as in 3b:9d:01")
	digits := strings.ToLower(text)
	if strings.ContainsAny(digits, ":-") {
		parts := strings.FieldsFunc(digits, func(c rune) bool { return c == ':' || c == '-' })
		for _, part := range parts {
			if len(part) != 2 {
				return "", refused
			}
		}
		if len(digits) != 3*len(parts)-1 {
			return "", refused
		}
		digits = strings.Join(parts, "")
	}
	b, err := hex.DecodeString(digits)
	if err != nil || len(b) == 0 || len(b) > 32 {
		return "", refused
	}
	return serialName(new(big.Int).SetBytes(b)), nil
}

// serialName is the name under which a certificate is stored: its serial number in hexadecimal, whole bytes.
func serialName(serial *big.Int) string {
	b := serial.Bytes()
	if len(b) == 0 {
		b = []byte{0}
	}
	return hex.EncodeToString(b)
}

// serialText is how clients see a serial number: 3b:9d:01.
func serialText(name string) string {
	var b strings.Builder
	for i := 0; i+1 < len(name); i += 2 {
		if i > 0 {
			b.WriteByte(':')
		}
		b.WriteString(name[i : i+2])
	}
	return b.String()
}

// shard is the last byte of a serial number: imported certificates may be numbered from 1 on, and those we number are
// random throughout.
func shard(serial string) string { return serial[len(serial)-2:] + "/" }

func certPath(serial string) string    { return "cert/" + shard(serial) + serial }
func revokedPath(serial string) string { return "revoked/" + shard(serial) + serial }

func expiryPath(at time.Time, serial string) string {
	return "expiry/" + at.UTC().Format("20060102/15/") + serial
}

// certificate is a stored certificate.
//
//	0x01 | authority, 16 bytes | DER, to the end
type certificate struct {
	authority string
	der       []byte
}

const tagCertificate = 0x01

func (c *certificate) encode() ([]byte, error) {
	name, err := hex.DecodeString(c.authority)
	if err != nil || len(name) != 16 {
		return nil, errFormat
	}
	return append(append([]byte{tagCertificate}, name...), c.der...), nil
}

func decodeCertificate(b []byte) (*certificate, error) {
	if len(b) < 18 || b[0] != tagCertificate {
		return nil, errFormat
	}
	return &certificate{hex.EncodeToString(b[1:17]), b[17:]}, nil
}

func loadRole(view conclave.View, name string) (*issuing.Role, error) {
	return load(view, "role/"+name, issuing.Decode)
}

func loadKey(view conclave.View, id string) (*authority.Key, error) {
	return load(view, "key/"+id, authority.DecodeKey)
}

func loadIssuer(view conclave.View, id string) (*authority.Issuer, error) {
	return load(view, "issuer/"+id, authority.DecodeIssuer)
}

// issuers are all issuers of the mount.
func issuers(view conclave.View) ([]*authority.Issuer, error) {
	ids, err := view.List("issuer/", "", maxIssuers)
	if err != nil {
		return nil, err
	}
	list := make([]*authority.Issuer, 0, len(ids))
	for _, id := range ids {
		issuer, err := loadIssuer(view, id)
		if err != nil {
			return nil, err
		}
		if issuer != nil {
			list = append(list, issuer)
		}
	}
	return list, nil
}

const defaultRef = "default"

// isID reports whether a reference is an id and no name.
func isID(ref string) bool {
	return len(ref) == 36 && ref[8] == '-' && ref[13] == '-' && ref[18] == '-' && ref[23] == '-'
}

// findIssuer resolves a reference: an id, a name, or default. There being none is Invalid, as it is for Vault's clients.
func findIssuer(view conclave.View, ref string) (*authority.Issuer, error) {
	id, err := issuerID(view, ref)
	if err != nil {
		return nil, err
	}
	if id != "" {
		if issuer, err := loadIssuer(view, id); err != nil || issuer != nil {
			return issuer, err
		}
	}
	if ref == "" || ref == defaultRef {
		return nil, conclave.Errorf(conclave.Invalid, "no default issuer currently configured")
	}
	return nil, conclave.Errorf(conclave.Invalid, "unable to find issuer for reference: %s", ref)
}

// issuerID is the id that a reference stands for, empty if there is no such issuer; an id is taken as it is.
func issuerID(view conclave.View, ref string) (string, error) {
	switch {
	case ref == "" || ref == defaultRef:
		config, err := loadOr(view, "config/issuers", issuersConfig{})
		if err != nil {
			return "", err
		}
		return config.Default, nil
	case isID(ref):
		return ref, nil
	case checkName(ref) != nil:
		return "", nil
	}
	id, err := view.Get("issuername/" + ref)
	return string(id), err
}

// findKey resolves a reference to a key.
func findKey(view conclave.View, ref string) (*authority.Key, error) {
	id := ref
	switch {
	case ref == "" || ref == defaultRef:
		config, err := loadOr(view, "config/keys", keysConfig{})
		if err != nil {
			return nil, err
		}
		if id = config.Default; id == "" {
			return nil, conclave.Errorf(conclave.Invalid, "no default key currently configured")
		}
	case !isID(ref):
		if err := checkName(ref); err != nil {
			return nil, err
		}
		named, err := view.Get("keyname/" + ref)
		if err != nil {
			return nil, err
		}
		id = string(named)
	}
	if id != "" {
		if key, err := loadKey(view, id); err != nil || key != nil {
			return key, err
		}
	}
	return nil, conclave.Errorf(conclave.Invalid, "unable to find key for reference: %s", ref)
}
