// Package acme is how programs get certificates by themselves: the ACME protocol (RFC 8555), with challenges http-01,
// dns-01 and tls-alpn-01 (RFC 8737), names and addresses (RFC 8738), and external account bindings. It is part of the
// engine pki, which issues and revokes for it.
//
// A mount has a directory of its own, one for each role, each issuer, and each role with an issuer. Accounts and orders
// belong to the directory in which they were made. Requests need no token of the vault: they are signed with the
// account's key. Whatever an answer says is stored; any node answers any request.
//
// Nonces cost nothing until they are used: a nonce is a time and a random number, signed with the mount's own key, so
// that every node knows those of all others. The transaction that a nonce is used in stores that it was, so that it is
// good once over the cluster; what was stored is removed when its time is over. Cells or records for nonces that are
// merely handed out would let anybody fill the log.
//
// Challenges are validated by the leader, as work (conclave.Worker), never within a request: nobody can hold a request open,
// and after a crash it goes on. What is asked is a server that the client has named, for that is the protocol; what it can
// be made to ask is bounded, see package validation.
//
// Where things are in the mount's storage:
//
//	config/acme                  settings, with the key of nonces
//	acme/account/ID              account
//	acme/key/THUMBPRINT          id of the account with that key; the thumbprint is of key and directory
//	acme/accounts                counter of the accounts that may still be made
//	acme/order/ID                order, with its certificate once there is one
//	acme/orders/ACCOUNT/ID       a mark for each order of an account
//	acme/pending/ACCOUNT/ID      a mark for each order without a certificate
//	acme/authorization/ID        authorization with its challenges
//	acme/cert/SERIAL             id of the account that a certificate was issued to
//	acme/eab/ID                  key of an external account binding that nobody has used
//	acme/used/PERIOD/NONCE       a mark for each nonce that was used
//	acme/period/PERIOD           a mark: nonces of that period were used
package acme

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"net/netip"
	"slices"
	"time"

	"conclave"
	"conclave/engine/pki/acme/validation"
	"conclave/engine/pki/issuing"
)

// Limits of this package.
const (
	maxAccounts    = 100_000             // of one mount
	maxPending     = 300                 // orders of an account without a certificate
	maxListed      = 1000                // orders that an account is shown
	maxIdentifiers = 100                 // of an order
	maxContacts    = 10                  // of an account
	maxContact     = 256                 // bytes of one
	maxBindings    = 10_000              // external account bindings of a mount that nobody has used
	accountLife    = 30 * 24 * time.Hour // of an account without orders
	orderLife      = 24 * time.Hour      // of an order without a certificate, and of its authorizations
	defaultMaxTTL  = 90 * 24 * 3600      // seconds
	maxMaxTTL      = 10 * 365 * 86400    // seconds
	nonceLife      = 15 * time.Minute    // in which a nonce can be used
	clearBatch     = 1000                // used nonces that are cleared away at a time
	maxAttempts    = 5                   // at a challenge
	maxAddresses   = 1000                // networks in a list of the settings
)

const (
	configPath    = "config/acme"
	accountDir    = "acme/account/"
	keyDir        = "acme/key/"
	accountsCell  = "acme/accounts"
	orderDir      = "acme/order/"
	ordersDir     = "acme/orders/"
	pendingDir    = "acme/pending/"
	authDir       = "acme/authorization/"
	certDir       = "acme/cert/"
	eabDir        = "acme/eab/"
	usedDir       = "acme/used/"
	periodDir     = "acme/period/"
	workPrefix    = "acme/" // of all names of work
	workChallenge = "acme/challenge/"
	workOrder     = "acme/order/"
	workAccount   = "acme/account/"
	workNonces    = "acme/nonces/"
)

// Wanted is a certificate that an order is for.
type Wanted struct {
	Role   string // whose rules it follows; empty: none but those of ACME
	Issuer string // reference of the issuer; empty: the role's, or the default one
	MaxTTL time.Duration
	// RoleUsages has the certificate's extended key usages be those of the role; otherwise it is for TLS servers.
	RoleUsages bool
	DNS        []string
	Addresses  []netip.Addr
}

// Issued is a certificate, and those above it, in PEM.
type Issued struct {
	Leaf  *x509.Certificate
	Chain []byte // the leaf first
}

// Authority is what ACME needs of the engine that it is part of. Errors of kind Invalid say what is wrong with a request.
type Authority interface {
	// Base is the URL under which clients reach the mount, without a slash at its end; empty if it isn't configured.
	Base(view conclave.View) (string, error)
	// Issuer resolves a reference to an issuer; Invalid if there is none.
	Issuer(view conclave.View, ref string) (id, name string, err error)
	// RoleIssuer is the reference to its issuer that a role has; Invalid if there is no such role.
	RoleIssuer(view conclave.View, role string) (ref string, err error)
	// Permits tells whether the certificate could be issued; Invalid if it couldn't.
	Permits(view conclave.View, wanted *Wanted) error
	// Issue issues the certificate for the key of csr, with the names of wanted, and keeps it as the engine does.
	Issue(tx conclave.Tx, wanted *Wanted, csr *x509.CertificateRequest, m *issuing.Materials) (*Issued, error)
	// Revoke revokes a certificate that the mount has issued. already: it was revoked before.
	Revoke(tx conclave.Tx, cert *x509.Certificate) (already bool, err error)
}

// Service serves the routes and does the work. It has no state.
type Service struct {
	authority Authority
	validate  func(context.Context, *validation.Attempt) *validation.Failure
}

// New returns the service of an engine.
func New(authority Authority) *Service {
	return &Service{authority, validation.New().Validate}
}

// Routes are those of the settings, of external account bindings, and of the protocol.
func (s *Service) Routes() []conclave.Route {
	return slices.Concat(s.configRoutes(), s.bindingRoutes(), s.directoryRoutes(), s.accountRoutes(), s.orderRoutes(), s.authorizationRoutes(), s.revokeRoutes())
}

// chance is randomness that was drawn before the transaction: what comes of it is the same each time the handler runs.
type chance struct {
	seed      [32]byte
	materials *issuing.Materials
}

func newChance() (*chance, error) {
	c := &chance{}
	_, _ = rand.Read(c.seed[:]) // never fails: the runtime ends the process instead
	var err error
	c.materials, err = issuing.NewMaterials()
	return c, err
}

// bytes are the nth 32 random bytes.
func (c *chance) bytes(n int) []byte {
	mac := hmac.New(sha256.New, c.seed[:])
	_ = binary.Write(mac, binary.BigEndian, uint64(n)) // a hash takes all
	return mac.Sum(nil)
}

// id is the nth random UUID (RFC 9562, version 4).
func (c *chance) id(n int) string {
	b := c.bytes(n)[:16]
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	text := hex.EncodeToString(b)
	return text[:8] + "-" + text[8:12] + "-" + text[12:16] + "-" + text[16:20] + "-" + text[20:]
}

// token is the nth random text for a challenge: 256 bits.
func (c *chance) token(n int) string { return base64.RawURLEncoding.EncodeToString(c.bytes(n)) }

// isID reports whether a text has the form of an id.
func isID(text string) bool {
	if len(text) != 36 {
		return false
	}
	for i := range len(text) {
		c := text[i]
		dash := i == 8 || i == 13 || i == 18 || i == 23
		if dash != (c == '-') || !dash && !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f') {
			return false
		}
	}
	return true
}

// load returns the object at a path whose last segment is an id, nil if there is none. It is a copy.
func load[T any](view conclave.View, dir, id string) (*T, error) {
	if !isID(id) {
		return nil, nil
	}
	value, err := view.Get(dir + id)
	if err != nil || value == nil {
		return nil, err
	}
	return decode[T](value)
}

func decode[T any](value []byte) (*T, error) {
	object := new(T)
	if err := json.Unmarshal(value, object); err != nil {
		return nil, conclave.Errorf(conclave.Internal, "what is stored of ACME can't be read")
	}
	return object, nil
}

func put(tx conclave.Tx, path string, object any) error {
	value, err := json.Marshal(object)
	if err != nil {
		return conclave.Errorf(conclave.Internal, "encode what is stored of ACME: %w", err)
	}
	return tx.Put(path, value)
}

// mark is the value of an entry that says all by its name.
func mark() []byte { return []byte{1} }
