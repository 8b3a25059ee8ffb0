package seal

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"io"

	"conclave"
	"conclave/token"
)

// A root token that share holders make has the length that clients know: they decode it with a password of the same length.
const (
	rootLetters   = 24 // after the prefix, of 62: 142 bits
	rootLength    = len(token.Prefix) + rootLetters
	generateRoot  = "generate-root"
	generateStart = `Begin to make a root token by shares of the unseal key.
The answer has a nonce: every holder needs it to add a share, and nobody without it can cancel. The token comes encrypted to a PGP
key, or XORed with a one-time password, which is made here if none is given.`
)

// rootTerms is what an attempt at a root token is for: who will be able to read it.
type rootTerms struct {
	OTP string `json:"otp,omitempty"`
	PGP string `json:"pgp,omitempty"` // key, base64 of the binary form
}

type rootStart struct {
	OTP conclave.Secret `json:"otp" doc:"A one-time password of as many characters as the token has; one is made if neither it nor pgp_key is given."`
	PGP string          `json:"pgp_key" doc:"A PGP public key, base64 of the binary form, that the token is encrypted to."`
}

type rootShare struct {
	Key   conclave.Secret `json:"key" doc:"A share, hex or base64."`
	Nonce string          `json:"nonce" doc:"The attempt's nonce."`
	Reset bool            `json:"reset" doc:"Not used: cancel the attempt instead."`
}

type rootNonce struct {
	Nonce string `json:"nonce" doc:"The attempt's nonce."`
}

// rootStatus is how an attempt stands, as Vault's clients know it.
type rootStatus struct {
	Nonce       string `json:"nonce" doc:"The attempt's nonce; empty if the request doesn't show that it knows it."`
	Started     bool   `json:"started" doc:"Whether an attempt is under way."`
	Progress    int    `json:"progress" doc:"Shares given."`
	Required    int    `json:"required" doc:"Shares needed."`
	Complete    bool   `json:"complete" doc:"Whether the token was made."`
	Encoded     string `json:"encoded_token" doc:"The token, encoded or encrypted."`
	EncodedRoot string `json:"encoded_root_token" doc:"The same."`
	Fingerprint string `json:"pgp_fingerprint" doc:"The PGP key that the token is encrypted to."`
	OTP         string `json:"otp" doc:"The one-time password that was made, once."`
	OTPLength   int    `json:"otp_length" doc:"Characters of a one-time password."`
}

func (v *Vault) rootRoutes() []conclave.Route {
	start := conclave.WriteRoute(conclave.Update, "generate-root/attempt", generateStart, v.startRoot)
	start.Prepare = func(context.Context, *conclave.Request, any) (any, error) { return mintAttempt(rand.Reader) }
	share := conclave.WriteRoute(conclave.Update, "generate-root/update", "Give a share to an attempt at a root token.", v.shareRoot)
	share.Prepare = func(context.Context, *conclave.Request, any) (any, error) { return mintRoot(rand.Reader) }
	routes := []conclave.Route{
		conclave.ReadRoute(conclave.Read, "generate-root/attempt", "How an attempt at a root token stands.\nWithout its nonce the answer is about the one with the most shares.", v.rootProgress),
		start, share,
		conclave.WriteRoute(conclave.Delete, "generate-root/attempt", "Cancel an attempt at a root token.", v.cancelRoot),
	}
	for i := range routes {
		routes[i] = routes[i].With(conclave.Public, conclave.OfCluster)
	}
	return routes
}

// mintedAttempt is the randomness of a new attempt.
type mintedAttempt struct {
	random []byte
	otp    string
}

func mintAttempt(random io.Reader) (*mintedAttempt, error) {
	m := &mintedAttempt{random: make([]byte, 16)}
	if _, err := io.ReadFull(random, m.random); err != nil {
		return nil, conclave.Errorf(conclave.Internal, "no randomness for an attempt")
	}
	letters, err := token.Letters(random, rootLength)
	m.otp = letters
	return m, err
}

func mintRoot(random io.Reader) (token.Minted, error) {
	minted, err := token.Mint(random)
	if err != nil {
		return minted, err
	}
	letters, err := token.Letters(random, rootLetters)
	minted.Secret = conclave.NewSecret(token.Prefix + letters)
	return minted, err
}

func (v *Vault) startRoot(ctx context.Context, tx conclave.Tx, in *rootStart) (*conclave.Response, error) {
	minted, ok := conclave.Prepared[*mintedAttempt](ctx)
	if !ok {
		return nil, conclave.Errorf(conclave.Internal, "no randomness was prepared")
	}
	terms := rootTerms{OTP: in.OTP.Reveal(), PGP: in.PGP}
	out := &rootStatus{Started: true, OTPLength: rootLength}
	switch {
	case terms.OTP != "" && terms.PGP != "":
		return nil, conclave.Errorf(conclave.Invalid, "give otp or pgp_key, not both")
	case terms.PGP != "":
		keys, err := parsePGP([]string{terms.PGP})
		if err != nil {
			return nil, err
		}
		out.Fingerprint = fingerprint(keys[0])
	case terms.OTP == "":
		terms.OTP, out.OTP = minted.otp, minted.otp
	case len(terms.OTP) != rootLength:
		return nil, conclave.Errorf(conclave.Invalid, "OTP string is wrong length: it has %d characters, the token has %d", len(terms.OTP), rootLength)
	}
	b, err := blobIn(tx)
	if err != nil {
		return nil, err
	}
	a, err := begin(tx, generateRoot, b, minted.random, terms)
	if err != nil {
		return nil, err
	}
	out.Nonce, out.Required = a.Nonce, b.Threshold
	return &conclave.Response{Data: out, TopLevel: true}, nil
}

func (v *Vault) rootProgress(_ context.Context, view conclave.View, in *rootNonce) (*conclave.Response, error) {
	b, err := blobIn(view)
	if err != nil {
		return nil, err
	}
	out := &rootStatus{Required: b.Threshold, OTPLength: rootLength}
	all, err := attempts(view, generateRoot)
	if err != nil {
		return nil, err
	}
	for _, a := range all {
		known := in.Nonce == a.Nonce
		if !known && (in.Nonce != "" || out.Started && len(a.Shown) < out.Progress) {
			continue
		}
		if out.Started, out.Progress = true, len(a.Shown); known {
			out.Nonce = a.Nonce
		}
	}
	return &conclave.Response{Data: out, TopLevel: true}, nil
}

func (v *Vault) shareRoot(ctx context.Context, tx conclave.Tx, in *rootShare) (*conclave.Response, error) {
	minted, ok := conclave.Prepared[token.Minted](ctx)
	if !ok {
		return nil, conclave.Errorf(conclave.Internal, "no randomness was prepared")
	}
	share, err := DecodeShare(in.Key)
	if err != nil {
		return nil, err
	}
	b, err := blobIn(tx)
	if err != nil {
		return nil, err
	}
	a, err := show(tx, generateRoot, in.Nonce, b, share)
	if err != nil {
		return nil, err
	}
	enough := len(a.Shown) >= b.Threshold
	out := &rootStatus{Nonce: a.Nonce, Started: true, Progress: len(a.Shown), Required: b.Threshold, Complete: enough, OTPLength: rootLength}
	if enough {
		if err := a.end(tx, generateRoot); err != nil {
			return nil, err
		}
		if err := v.giveRoot(tx, a, minted, out); err != nil {
			return nil, err
		}
	}
	return &conclave.Response{Data: out, TopLevel: true}, nil
}

// giveRoot makes the token, and answers it in the form that the attempt says.
func (v *Vault) giveRoot(tx conclave.Tx, a *attempt, minted token.Minted, out *rootStatus) error {
	var terms rootTerms
	if err := json.Unmarshal(a.Terms, &terms); err != nil {
		return conclave.Errorf(conclave.Internal, "the record of a ceremony is damaged")
	}
	if _, err := token.CreateRoot(tx, minted); err != nil {
		return err
	}
	secret := []byte(minted.Secret.Reveal())
	if terms.PGP == "" {
		if len(terms.OTP) != len(secret) {
			return conclave.Errorf(conclave.Internal, "the record of a ceremony is damaged")
		}
		for i := range secret {
			secret[i] ^= terms.OTP[i]
		}
		out.Encoded = base64.RawStdEncoding.EncodeToString(secret)
		out.EncodedRoot = out.Encoded
		return nil
	}
	keys, err := parsePGP([]string{terms.PGP})
	if err != nil {
		return err
	}
	if out.Encoded, err = encryptText(keys[0], minted.Secret.Reveal()); err != nil {
		return err
	}
	out.EncodedRoot, out.Fingerprint = out.Encoded, fingerprint(keys[0])
	return nil
}

func (v *Vault) cancelRoot(_ context.Context, tx conclave.Tx, in *rootNonce) (*conclave.None, error) {
	return nil, cancel(tx, generateRoot, in.Nonce)
}
