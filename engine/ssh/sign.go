package ssh

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"conclave"
)

// defaultAlgorithm has an RSA authority sign with SHA-256; others have one algorithm only.
const defaultAlgorithm = "default"

func (e Engine) signRoutes() []conclave.Route {
	issue := conclave.WriteRoute(conclave.Update, "issue/{role}", "Generate a key and sign it.\nThe private key is answered once and kept nowhere.", issue)
	issue.Prepare = e.prepareKey
	clear := []string{"serial_number", "signed_key"}
	sign := conclave.WriteRoute(conclave.Update, "sign/{role}", "Sign a public key.", sign)
	issue.ClearResponse, sign.ClearResponse = clear, clear
	return []conclave.Route{sign, issue}
}

// terms are what a request for a certificate may ask for beside the key.
type terms struct {
	TTL             conclave.Seconds  `json:"ttl" doc:"How long the certificate is valid; 0 is the role's."`
	Principals      *string           `json:"valid_principals" doc:"Users or hosts that it is for, with commas; the role's default user unless given."`
	CertType        string            `json:"cert_type" doc:"user, the default, or host."`
	KeyID           string            `json:"key_id" doc:"Key id, if the role lets requests set it."`
	CriticalOptions map[string]string `json:"critical_options" doc:"Critical options, instead of the role's."`
	Extensions      map[string]string `json:"extensions" doc:"Extensions, instead of the role's."`
}

type signIn struct {
	Role      string `path:"role" doc:"Name of the role."`
	PublicKey string `json:"public_key" doc:"The public key, as a line of authorized_keys."`
	terms
}

type issueIn struct {
	Role    string `path:"role" doc:"Name of the role."`
	KeyType string `json:"key_type" doc:"Type of the key: rsa, the default, ed25519 or ec."`
	KeyBits int64  `json:"key_bits" doc:"Size of the key; 0 is the default of its type."`
	terms
}

type signOut struct {
	SerialNumber string `json:"serial_number" doc:"Serial number, in hexadecimal."`
	SignedKey    string `json:"signed_key" doc:"The certificate, as OpenSSH has it in a file."`
	IssuerID     string `json:"issuer_id" doc:"Who signed it."`
}

type issueOut struct {
	signOut
	PrivateKey     string `json:"private_key" doc:"The private key, in PEM."`
	PrivateKeyType string `json:"private_key_type" doc:"Its type."`
}

func sign(_ context.Context, tx conclave.Tx, in *signIn) (*conclave.Response, error) {
	r, err := roleOf(tx, in.Role, typeCA)
	if err != nil {
		return nil, err
	}
	if in.PublicKey == "" {
		return nil, conclave.Errorf(conclave.Invalid, "missing public_key")
	}
	key, err := parsePublicKey(in.PublicKey)
	if err != nil {
		return nil, err
	}
	out, warnings, err := r.certify(tx, in.Role, key, &in.terms)
	if err != nil {
		return nil, err
	}
	return &conclave.Response{Data: out, Warnings: warnings}, nil
}

func (e Engine) prepareKey(_ context.Context, _ *conclave.Request, input any) (any, error) {
	in := input.(*issueIn)
	kind := in.KeyType
	if kind == "" {
		kind = kindRSA
	}
	return e.generate(kind, in.KeyBits)
}

func issue(ctx context.Context, tx conclave.Tx, in *issueIn) (*conclave.Response, error) {
	r, err := roleOf(tx, in.Role, typeCA)
	if err != nil {
		return nil, err
	}
	made, ok := conclave.Prepared[*keyPair](ctx)
	if !ok {
		return nil, conclave.Errorf(conclave.Internal, "no key was prepared")
	}
	key, err := parsePublicKey(made.public)
	if err != nil {
		return nil, err
	}
	out, warnings, err := r.certify(tx, in.Role, key, &in.terms)
	if err != nil {
		return nil, err
	}
	kind := in.KeyType
	if kind == "" {
		kind = kindRSA
	}
	return &conclave.Response{Data: &issueOut{*out, made.private.Reveal(), kind}, Warnings: warnings}, nil
}

// certify signs a key as the role allows it.
func (r *role) certify(view conclave.View, name string, key ssh.PublicKey, asked *terms) (*signOut, []string, error) {
	if err := r.checkKey(key); err != nil {
		return nil, nil, err
	}
	isHost, err := r.isHost(asked.CertType)
	if err != nil {
		return nil, nil, err
	}
	caller := view.Caller()
	if caller == nil {
		caller = &conclave.Caller{}
	}
	principals, err := r.principals(isHost, asked.Principals, caller.Identity)
	if err != nil {
		return nil, nil, err
	}
	keyID, err := r.keyID(name, caller.DisplayName, asked.KeyID, key)
	if err != nil {
		return nil, nil, err
	}
	ttl, err := r.lifetime(view.Mount(), asked.TTL)
	if err != nil {
		return nil, nil, err
	}
	critical, err := r.criticalOptions(asked.CriticalOptions)
	if err != nil {
		return nil, nil, err
	}
	extensions, warnings, err := r.extensions(asked.Extensions, caller.Identity)
	if err != nil {
		return nil, nil, err
	}
	by, err := issuerBy(view, r.Issuer)
	if err != nil {
		return nil, nil, err
	}
	if by == nil {
		return nil, nil, conclave.Errorf(conclave.Invalid, "the role's issuer is not there: configure one with config/ca")
	}
	now := view.Now()
	certificate := &ssh.Certificate{
		Key: key, KeyId: keyID, CertType: ssh.UserCert, ValidPrincipals: principals,
		ValidAfter: seconds(now.Add(-r.NotBefore.Duration())), ValidBefore: seconds(now.Add(ttl)),
		Permissions: ssh.Permissions{CriticalOptions: critical, Extensions: extensions},
	}
	if isHost {
		certificate.CertType = ssh.HostCert
	}
	if err := by.sign(rand.Reader, certificate, r.AlgorithmSigner); err != nil {
		return nil, nil, err
	}
	return &signOut{strconv.FormatUint(certificate.Serial, 16), string(ssh.MarshalAuthorizedKey(certificate)), by.ID}, warnings, nil
}

// seconds are those since 1970, none before.
func seconds(at time.Time) uint64 { return uint64(max(0, at.Unix())) }

// sign gives a certificate its serial number and the authority's signature. A random first field keeps those who ask
// for certificates from choosing what is signed.
func (i *issuer) sign(random io.Reader, certificate *ssh.Certificate, algorithm string) error {
	var serial [8]byte
	if _, err := io.ReadFull(random, serial[:]); err != nil {
		return conclave.Errorf(conclave.Internal, "no randomness for a serial number")
	}
	certificate.Serial = binary.BigEndian.Uint64(serial[:])
	var signer ssh.Signer = i.signer
	if i.signer.PublicKey().Type() == ssh.KeyAlgoRSA {
		if algorithm == defaultAlgorithm || algorithm == "" {
			algorithm = ssh.KeyAlgoRSASHA256
		}
		restricted, err := ssh.NewSignerWithAlgorithms(i.signer, []string{algorithm})
		if err != nil {
			return conclave.Errorf(conclave.Invalid, "the issuer can't sign with %s", algorithm)
		}
		signer = restricted
	} else if algorithm != defaultAlgorithm && algorithm != "" {
		return conclave.Errorf(conclave.Invalid, "the issuer's key is not of type RSA: it can't sign with %s", algorithm)
	}
	if err := certificate.SignCert(random, signer); err != nil {
		return conclave.Errorf(conclave.Internal, "the certificate can't be signed")
	}
	return nil
}

func (r *role) isHost(certType string) (bool, error) {
	switch {
	case certType != "" && certType != "user" && certType != "host":
		return false, conclave.Errorf(conclave.Invalid, "cert_type must be either 'user' or 'host'")
	case certType == "host" && !r.AllowHostCertificates:
		return false, conclave.Errorf(conclave.Invalid, "cert_type 'host' is not allowed by role")
	case certType != "host" && !r.AllowUserCertificates:
		return false, conclave.Errorf(conclave.Invalid, "cert_type 'user' is not allowed by role")
	}
	return certType == "host", nil
}

// keyID is what servers log of a login. Its variables are replaced in one pass.
func (r *role) keyID(role, displayName, asked string, key ssh.PublicKey) (string, error) {
	if asked != "" {
		if !r.AllowUserKeyIDs {
			return "", conclave.Errorf(conclave.Invalid, "setting key_id is not allowed by role")
		}
		if len(asked) > maxKeyID || !printable(asked) {
			return "", conclave.Errorf(conclave.Invalid, "key_id has at most %d bytes and no control characters", maxKeyID)
		}
		return asked, nil
	}
	format := r.KeyIDFormat
	if format == "" {
		format = "vault-{{token_display_name}}-{{public_key_hash}}"
		if displayName == "" {
			format = "vault-{{public_key_hash}}"
		}
	}
	if !printable(displayName) {
		displayName = strings.ToValidUTF8(strings.Map(func(c rune) rune {
			if !printable(string(c)) {
				return '-'
			}
			return c
		}, displayName), "-")
	}
	sum := sha256.Sum256(key.Marshal())
	id := strings.NewReplacer("{{token_display_name}}", displayName, "{{role_name}}", role, "{{public_key_hash}}", hex.EncodeToString(sum[:])).Replace(format)
	if len(id) > maxKeyID {
		return "", conclave.Errorf(conclave.Invalid, "the key id would have more than %d bytes", maxKeyID)
	}
	return id, nil
}

// lifetime is how long a certificate is valid: what is asked for, or the role's, or the mount's.
func (r *role) lifetime(mount *conclave.Mount, asked conclave.Seconds) (time.Duration, error) {
	if asked < 0 || asked > maxTTL {
		return 0, conclave.Errorf(conclave.Invalid, "ttl must be between 0 and a hundred years")
	}
	longest := r.MaxTTL.Duration()
	if longest == 0 {
		longest = mount.MaxTTL
	}
	if asked > 0 {
		if asked.Duration() > longest {
			return 0, conclave.Errorf(conclave.Invalid, "ttl is larger than maximum allowed %d", conclave.InSeconds(longest))
		}
		return asked.Duration(), nil
	}
	ttl := r.TTL.Duration()
	if ttl == 0 {
		ttl = mount.DefaultTTL
	}
	return min(ttl, longest), nil
}

func checkOptions(options map[string]string) error {
	if len(options) > maxOptions {
		return conclave.Errorf(conclave.Invalid, "at most %d options", maxOptions)
	}
	for name, value := range options {
		if name == "" || len(name) > maxName || !printable(name) || len(value) > maxOption || !printable(value) {
			return conclave.Errorf(conclave.Invalid, "an option has a name of at most %d bytes, a value of at most %d, and no control characters", maxName, maxOption)
		}
	}
	return nil
}

// refuseOthers names the options that are not in a list.
func refuseOthers(options map[string]string, allowed string, message string) error {
	known := splitNames(allowed)
	var others []string
	for name := range options {
		if !slices.Contains(known, name) {
			others = append(others, name)
		}
	}
	if len(others) == 0 {
		return nil
	}
	slices.Sort(others)
	return conclave.Errorf(conclave.Invalid, message, others)
}

func (r *role) criticalOptions(asked map[string]string) (map[string]string, error) {
	if len(asked) == 0 {
		return r.DefaultCriticalOptions, nil
	}
	if err := checkOptions(asked); err != nil {
		return nil, err
	}
	if r.AllowedCriticalOptions == "" {
		return asked, nil
	}
	return asked, refuseOthers(asked, r.AllowedCriticalOptions, "critical options not on allowed list: %v")
}

// extensions are what a certificate permits. Those of a role have values from templates; what needs an identity is left
// out for who has none, with a warning.
func (r *role) extensions(asked map[string]string, values conclave.TemplateValues) (map[string]string, []string, error) {
	if len(asked) > 0 {
		if err := checkOptions(asked); err != nil {
			return nil, nil, err
		}
		if everything(r.AllowedExtensions) {
			return asked, nil, nil
		}
		return asked, nil, refuseOthers(asked, r.AllowedExtensions, "extensions %v are not on allowed list")
	}
	if !r.DefaultExtensionTemplate {
		return r.DefaultExtensions, nil, nil
	}
	rendered := make(map[string]string, len(r.DefaultExtensions))
	var warnings []string
	for name, text := range r.DefaultExtensions {
		value, ok := render(text, values)
		switch {
		case ok:
			rendered[name] = value
		case values == nil:
			warnings = []string{"the token has no identity: extensions whose values come from one were left out"}
		default:
			return nil, nil, conclave.Errorf(conclave.Invalid, "the template of extension %q has no value that can be used", name)
		}
	}
	return rendered, warnings, nil
}
