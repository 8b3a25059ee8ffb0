// Package ssh is the secrets engine for logins to servers by SSH. Roles of type ca have keys signed by a certificate
// authority that servers trust; roles of type otp give passwords that work once, on one server. It behaves as Vault's
// HTTP API does, with several authorities in a mount as OpenBao has them.
//
// What a certificate is good for is decided by its role alone. Wherever a role can be asked for more than it says, the
// rules are strict, since OpenSSH's are not: a certificate without principals is good for every user of a server that
// trusts the authority, so that none is signed unless a role says so in as many words; a value that an identity template
// gives is one name and never a list, a pattern or a wildcard; a "*" allows everything only if it is all that a role says.
//
// Certificates leave nothing in storage, and are not leases: a server can't be told to forget one, so that they are
// best short-lived. Signing happens in the handler: it takes microseconds (milliseconds with RSA), writes nothing, and a
// certificate of an attempt that wasn't judged leaves the node with nobody. Keys are generated in Prepare.
//
// A one-time password is stored by its SHA-256 only (it has 122 random bits). Whoever verifies it removes it, so that the
// same password verified twice at once, on whatever nodes, succeeds once. It expires with its lease, by cluster time.
//
// Where things are in the mount's storage:
//
//	issuers/<id>         → an authority with its private key, as JSON
//	names/<issuer name>  → id of the authority
//	config/issuers       → id of the authority that roles use unless they name another
//	config/zeroaddress   → roles of type otp that any address may be named to, as JSON
//	roles/<name>         → role, as JSON
//	otp/<hash>           → one-time password, as JSON
package ssh

import (
	"crypto/rand"
	"encoding/hex"
	"io"
	"slices"

	"conclave"
)

const kind = "ssh"

// Limits of this package.
const (
	maxName       = 256               // bytes of a role's or an issuer's name
	maxIssuers    = 100               // authorities of one mount
	maxText       = 16 << 10          // bytes of one of a role's texts: lists, formats
	maxList       = 256               // names in a list of a role or a request
	maxPrincipal  = 256               // bytes of a principal; OpenSSH refuses more than 256 principals
	maxOptions    = 64                // critical options or extensions of a certificate
	maxOption     = 8 << 10           // bytes of an option's value
	maxKeyID      = 1024              // bytes
	maxPublicKey  = 16 << 10          // bytes of a public key as text
	maxPrivateKey = 32 << 10          // bytes of a private key as text
	maxTTL        = 100 * 365 * 86400 // seconds, a hundred years
	maxLookup     = 10_000            // roles that a lookup by address goes through
	minRSABits    = 2048              // of keys that are signed, unless the role names fewer
	maxRSABits    = 8192              // of keys that are generated or signed
)

const (
	issuersDir      = "issuers/"
	namesDir        = "names/"
	rolesDir        = "roles/"
	otpDir          = "otp/"
	defaultPath     = "config/issuers"
	zeroAddressPath = "config/zeroaddress"
)

// Plugin is the engine's line in the list of plug-ins.
func Plugin() conclave.Plugin {
	return conclave.Plugin{
		Kind: kind,
		Doc:  "Logins to servers by SSH: signed keys and one-time passwords.",
		Open: func(map[string]string) (conclave.Engine, error) { return New(), nil },
	}
}

// Engine serves the routes. It has no state.
type Engine struct {
	// generate makes a key of a kind and size.
	generate func(kind string, bits int64) (*keyPair, error)
}

var _ conclave.Leaser = Engine{}

// New returns an engine.
func New() Engine {
	return Engine{func(kind string, bits int64) (*keyPair, error) { return generate(rand.Reader, kind, bits) }}
}

// Kind is "ssh".
func (Engine) Kind() string { return kind }

// Routes are those of authorities, roles, signed keys and one-time passwords.
func (e Engine) Routes() []conclave.Route {
	return slices.Concat(e.issuerRoutes(), roleRoutes(), e.signRoutes(), otpRoutes(), zeroAddressRoutes())
}

func notFound() error { return &conclave.Error{Kind: conclave.NotFound} }

func damaged(what string) error {
	return conclave.Errorf(conclave.Internal, "the stored record of %s is damaged", what)
}

// validName reports whether a name of a role or an issuer is letters, digits, "_", and between them "-", "." and "@".
func validName(name string) bool {
	if name == "" || len(name) > maxName {
		return false
	}
	for i := range len(name) {
		c := name[i]
		word := c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		inner := (c == '-' || c == '.' || c == '@') && i > 0 && i < len(name)-1
		if !word && !inner {
			return false
		}
	}
	return true
}

// uuid makes a random (version 4) UUID, RFC 9562: 122 bits of randomness.
func uuid(random io.Reader) (string, error) {
	var b [16]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return "", conclave.Errorf(conclave.Internal, "no randomness for an identifier")
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	text := hex.EncodeToString(b[:])
	return text[:8] + "-" + text[8:12] + "-" + text[12:16] + "-" + text[16:20] + "-" + text[20:], nil
}
