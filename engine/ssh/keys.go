package ssh

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"io"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"conclave"
)

// Kinds of keys, as requests and roles name them; OpenSSH's names are others for the same.
const (
	kindRSA     = "rsa"
	kindEC      = "ec"
	kindECDSA   = "ecdsa"
	kindEd25519 = "ed25519"
)

// keyPair is a generated or imported key: the public half as a line of authorized_keys, the private half in PEM.
type keyPair struct {
	public  string
	private conclave.Secret
}

// curves maps the names of kinds that say all, and sizes → the curve.
var curves = map[string]elliptic.Curve{
	ssh.KeyAlgoECDSA256: elliptic.P256(), ssh.KeyAlgoECDSA384: elliptic.P384(), ssh.KeyAlgoECDSA521: elliptic.P521(),
}

var curveOfBits = map[int64]elliptic.Curve{0: elliptic.P256(), 256: elliptic.P256(), 384: elliptic.P384(), 521: elliptic.P521()}

// generate makes a key. bits 0 is the kind's default: 4096 for RSA, 256 for ECDSA.
func generate(random io.Reader, kind string, bits int64) (*keyPair, error) {
	switch kind {
	case kindRSA, ssh.KeyAlgoRSA:
		if bits == 0 {
			bits = 4096
		}
		if bits != 2048 && bits != 3072 && bits != 4096 && bits != maxRSABits {
			return nil, conclave.Errorf(conclave.Invalid, "an RSA key has 2048, 3072, 4096 or %d bits", maxRSABits)
		}
		key, err := rsa.GenerateKey(random, int(bits))
		if err != nil {
			return nil, conclave.Errorf(conclave.Internal, "no RSA key can be made")
		}
		return pair(key.Public(), &pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	case kindEC, kindECDSA, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521:
		curve := curves[kind]
		if curve == nil {
			curve = curveOfBits[bits]
		}
		if curve == nil || bits != 0 && int64(curve.Params().BitSize) != bits {
			return nil, conclave.Errorf(conclave.Invalid, "an ECDSA key has 256, 384 or 521 bits")
		}
		key, err := ecdsa.GenerateKey(curve, random)
		if err != nil {
			return nil, conclave.Errorf(conclave.Internal, "no ECDSA key can be made")
		}
		der, err := x509.MarshalECPrivateKey(key)
		if err != nil {
			return nil, conclave.Errorf(conclave.Internal, "an ECDSA key can't be encoded")
		}
		return pair(key.Public(), &pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
	case kindEd25519, ssh.KeyAlgoED25519:
		public, private, err := ed25519.GenerateKey(random)
		if err != nil {
			return nil, conclave.Errorf(conclave.Internal, "no Ed25519 key can be made")
		}
		block, err := ssh.MarshalPrivateKey(private, "")
		if err != nil {
			return nil, conclave.Errorf(conclave.Internal, "an Ed25519 key can't be encoded")
		}
		return pair(public, block)
	}
	return nil, conclave.Errorf(conclave.Invalid, "unknown key type: must be rsa, ec or ed25519")
}

func pair(public crypto.PublicKey, block *pem.Block) (*keyPair, error) {
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		return nil, conclave.Errorf(conclave.Internal, "a key can't be encoded")
	}
	return &keyPair{string(ssh.MarshalAuthorizedKey(key)), conclave.NewSecret(string(pem.EncodeToMemory(block)))}, nil
}

// parsePublicKey reads one public key: a line of authorized_keys without options, or base64 alone. A certificate is no key.
func parsePublicKey(text string) (ssh.PublicKey, error) {
	text = strings.TrimSpace(text)
	if len(text) > maxPublicKey || strings.ContainsAny(text, "\r\n") {
		return nil, conclave.Errorf(conclave.Invalid, "failed to parse public_key as SSH key: it must be one line of at most %d bytes", maxPublicKey)
	}
	fields := strings.Fields(text)
	encoded, named := "", ""
	if len(fields) == 1 {
		encoded = fields[0]
	} else if len(fields) > 1 {
		named, encoded = fields[0], fields[1]
	}
	blob, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || len(blob) == 0 {
		return nil, conclave.Errorf(conclave.Invalid, "failed to parse public_key as SSH key: no key in base64")
	}
	key, err := ssh.ParsePublicKey(blob)
	if err != nil {
		return nil, conclave.Errorf(conclave.Invalid, "failed to parse public_key as SSH key: not a key of a known type")
	}
	if named != "" && named != key.Type() {
		return nil, conclave.Errorf(conclave.Invalid, "failed to parse public_key as SSH key: it is of another type than it says")
	}
	if _, isCertificate := key.(*ssh.Certificate); isCertificate {
		return nil, conclave.Errorf(conclave.Invalid, "failed to parse public_key as SSH key: it is a certificate")
	}
	return key, nil
}

// measure tells what roles call a public key by, and its size.
func measure(key ssh.PublicKey) (names []string, bits int, err error) {
	unknown := conclave.Errorf(conclave.Invalid, "public_key failed to meet the key requirements: keys of this type are not signed")
	names = []string{key.Type()}
	switch key.Type() {
	case ssh.KeyAlgoSKECDSA256:
		return append(names, "ecdsa-sk"), 256, nil
	case ssh.KeyAlgoSKED25519:
		return append(names, "ed25519-sk"), 256, nil
	}
	holder, ok := key.(ssh.CryptoPublicKey)
	if !ok {
		return nil, 0, unknown
	}
	switch public := holder.CryptoPublicKey().(type) {
	case *rsa.PublicKey:
		return append(names, kindRSA), public.N.BitLen(), nil
	case *ecdsa.PublicKey:
		return append(names, kindECDSA, kindEC), public.Curve.Params().BitSize, nil
	case ed25519.PublicKey:
		return append(names, kindEd25519), 256, nil
	}
	return nil, 0, unknown // DSA among them
}

// checkKey holds a public key against the role's allowed_user_key_lengths. Without any, RSA keys are of 2048 bits at
// least. A size of 0, and any size of a type that has one only, stands for that type.
func (r *role) checkKey(key ssh.PublicKey) error {
	names, bits, err := measure(key)
	if err != nil {
		return err
	}
	isRSA := slices.Contains(names, kindRSA)
	if isRSA && bits > maxRSABits {
		return conclave.Errorf(conclave.Invalid, "public_key failed to meet the key requirements: an RSA key has at most %d bits", maxRSABits)
	}
	if len(r.KeyLengths) == 0 {
		if isRSA && bits < minRSABits {
			return conclave.Errorf(conclave.Invalid, "public_key failed to meet the key requirements: an RSA key has at least %d bits unless the role names fewer", minRSABits)
		}
		return nil
	}
	known := false
	for _, name := range names {
		sizes, listed := r.KeyLengths[name]
		known = known || listed
		sized := name == kindRSA || name == ssh.KeyAlgoRSA || name == kindECDSA || name == kindEC
		if listed && (!sized || slices.Contains(sizes, int64(bits))) {
			return nil
		}
	}
	if !known {
		return conclave.Errorf(conclave.Invalid, "public_key failed to meet the key requirements: key of type %s is not allowed", names[len(names)-1])
	}
	return conclave.Errorf(conclave.Invalid, "public_key failed to meet the key requirements: key is of an invalid size: %d", bits)
}
