package acme

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/go-jose/go-jose/v4"

	"conclave"
)

// Limits of a signed request, in bytes.
const (
	maxProtected = 16 << 10
	maxPayload   = 128 << 10
	maxSignature = 4 << 10
)

// algorithms are those that accounts may sign with.
func algorithms() []jose.SignatureAlgorithm {
	return []jose.SignatureAlgorithm{jose.ES256, jose.ES384, jose.ES512, jose.EdDSA, jose.RS256}
}

// signed is the body of all requests of the protocol: a JWS in its flattened form (RFC 7515 section 7.2.2).
type signed struct {
	Protected string `json:"protected" doc:"Header of the JWS, base64url."`
	Payload   string `json:"payload" doc:"Payload of the JWS, base64url."`
	Signature string `json:"signature" doc:"Signature of the JWS, base64url."`
}

func (s *signed) body() *signed { return s }

// exchange is one signed request while it is answered.
type exchange struct {
	ctx     context.Context
	tx      conclave.Tx
	config  *config
	place   place
	target  target
	base    string // URL of the directory without "directory": it ends in "acme/"
	url     string // of the request
	account *account
	key     *jose.JSONWebKey // the request's own, of those that name no account
	payload []byte
}

// keyed says by what key requests of a route are signed.
type keyed int

const (
	byAccount keyed = iota // that of the account which the request names
	byKey                  // that which the request holds
	byEither
)

// handler answers a request whose signature and nonce are right. It writes nothing before it is sure to succeed: what it
// has written is kept when it refuses with a problem.
type handler func(x *exchange) (*answer, error)

// directoryOf is the URL of a place's directory without "directory".
func (s *Service) directoryOf(view conclave.View, at place) (string, error) {
	base, err := s.authority.Base(view)
	if err != nil || base == "" {
		return "", err
	}
	return strings.TrimSuffix(base, "/") + "/" + at.prefix() + "acme/", nil
}

// open returns the settings and the URL of a place's directory, or the problem that there is none.
func (s *Service) open(view conclave.View, at place) (*config, string, error) {
	c, err := loadConfig(view)
	if err != nil {
		return nil, "", err
	}
	if c == nil || !c.Settings.Enabled {
		return nil, "", refuse(http.StatusNotFound, "malformed", "ACME is not enabled")
	}
	base, err := s.directoryOf(view, at)
	if err != nil {
		return nil, "", err
	}
	if base == "" {
		return nil, "", refuse(http.StatusNotFound, "malformed", "ACME is not enabled: the path of config/cluster is not set")
	}
	_, err = s.wanted(view, &c.Settings, at)
	return c, base, err
}

// wanted is what a certificate of a place is like: the place may have one, by the settings.
func (s *Service) wanted(view conclave.View, c *settings, at place) (*Wanted, error) {
	w := &Wanted{Role: at.Role, Issuer: at.Issuer, MaxTTL: c.MaxTTL.Duration(), RoleUsages: c.AllowRoleExtKeyUsage}
	if w.Role == "" {
		if c.DirectoryPolicy == policyForbid {
			return nil, unauthorized("this directory is closed: use that of a role")
		}
		w.Role, _ = strings.CutPrefix(c.DirectoryPolicy, policyRole)
		if c.DirectoryPolicy == policyVerbatim {
			w.Role = ""
		}
	} else if !c.allowsRole(w.Role) {
		return nil, unauthorized("the role is not for ACME")
	}
	ref := w.Issuer
	if w.Role != "" {
		ofRole, err := s.authority.RoleIssuer(view, w.Role)
		if err != nil {
			return nil, asProblem(err, "malformed")
		}
		if ref == "" {
			ref = ofRole
		}
	}
	id, name, err := s.authority.Issuer(view, ref)
	if err != nil {
		return nil, asProblem(err, "malformed")
	}
	if !c.allowsIssuer(id, name) {
		return nil, unauthorized("the issuer is not for ACME")
	}
	return w, nil
}

// serve answers one signed request.
func (s *Service) serve(ctx context.Context, tx conclave.Tx, in input, by keyed, handle handler) (*conclave.Response, error) {
	x := &exchange{ctx: ctx, tx: tx, place: in.scope(), target: in.target()}
	answered, err := s.answer(x, in.body(), by, handle)
	if p, ok := errors.AsType[*problem](err); ok {
		answered, err = p.answer(), nil
	}
	if err != nil {
		return nil, err
	}
	nonce := ""
	if x.config != nil {
		nonce = mintNonce(x.config.NonceKey, tx.Now())
	}
	return answered.response(x.base, nonce)
}

func (s *Service) answer(x *exchange, body *signed, by keyed, handle handler) (*answer, error) {
	var err error
	if x.config, x.base, err = s.open(x.tx, x.place); err != nil {
		return nil, err
	}
	// The path of the request, below the mount, as clients see it.
	x.url = strings.TrimSuffix(x.base, x.place.prefix()+"acme/") + strings.TrimPrefix(x.tx.Request().Path, x.tx.Mount().Path)
	if err := s.verify(x, body, by); err != nil {
		return nil, err
	}
	return handle(x)
}

// verify checks the signature of a request, then takes its nonce.
func (s *Service) verify(x *exchange, body *signed, by keyed) error {
	if len(body.Protected) > maxProtected || len(body.Payload) > maxPayload || len(body.Signature) > maxSignature {
		return malformed("the request is too large")
	}
	jws, header, err := parseJWS(body, algorithms())
	if err != nil {
		return err
	}
	if to, _ := header.ExtraHeaders["url"].(string); to != x.url {
		return unauthorized("the url of the signed header is not that of the request")
	}
	key := header.JSONWebKey
	switch {
	case (key != nil) == (header.KeyID != ""):
		return malformed("the signed header must have either jwk or kid")
	case key != nil && by == byAccount:
		return malformed("the request must be signed with the key of an account, which its kid names")
	case key == nil && by == byKey:
		return malformed("the request must be signed with the key that its jwk holds")
	case key != nil:
		if err := checkKey(key); err != nil {
			return err
		}
		x.key = key
	default:
		if x.account, err = s.named(x, header.KeyID); err != nil {
			return err
		}
		key = x.account.Key
	}
	payload, err := jws.Verify(key)
	if err != nil {
		return malformed("the signature is wrong")
	}
	x.payload = payload
	if err := useNonce(x.tx, x.config.NonceKey, header.Nonce); err != nil {
		return err
	}
	if x.account != nil && x.account.Status != statusValid {
		return unauthorized("the account is deactivated")
	}
	return nil
}

// parseJWS reads a JWS that has one signature and whose header is signed as a whole.
func parseJWS(body *signed, allowed []jose.SignatureAlgorithm) (*jose.JSONWebSignature, *jose.Header, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return nil, nil, malformed("the request is no JWS")
	}
	jws, err := jose.ParseSignedJSON(string(text), allowed)
	if _, strange := errors.AsType[*jose.ErrUnexpectedSignatureAlgorithm](err); strange {
		p := &problem{Type: typePrefix + "badSignatureAlgorithm", Detail: "the algorithm of the signature is not accepted", Status: http.StatusBadRequest}
		for _, algorithm := range algorithms() {
			p.Algorithms = append(p.Algorithms, string(algorithm))
		}
		return nil, nil, p
	}
	if err != nil || len(jws.Signatures) != 1 {
		return nil, nil, malformed("the request is no JWS")
	}
	return jws, &jws.Signatures[0].Protected, nil
}

// checkKey holds an account's public key against the rules.
func checkKey(key *jose.JSONWebKey) error {
	refused := refuse(http.StatusBadRequest, "badPublicKey", "keys are ECDSA (P-256, P-384, P-521), Ed25519, or RSA of 2048 to 8192 bits")
	if !key.IsPublic() || !key.Valid() {
		return refused
	}
	switch public := key.Key.(type) {
	case *ecdsa.PublicKey, ed25519.PublicKey:
		return nil
	case *rsa.PublicKey:
		if bits := public.N.BitLen(); bits >= 2048 && bits <= 8192 && public.E > 2 && public.E%2 == 1 {
			return nil
		}
	}
	return refused
}

// decode reads the payload, which must be an object.
func (x *exchange) decode(into any) error {
	payload := bytes.TrimSpace(x.payload)
	if len(payload) == 0 || payload[0] != '{' || json.Unmarshal(payload, into) != nil {
		return malformed("the payload is not what is wanted")
	}
	return nil
}

// isQuestion reports whether the request asks for something only: POST-as-GET, RFC 8555 section 6.3.
func (x *exchange) isQuestion() bool { return len(x.payload) == 0 }

// question refuses requests that ask for more than to be shown something.
func (x *exchange) question() error {
	if !x.isQuestion() {
		return malformed("the payload must be empty")
	}
	return nil
}
