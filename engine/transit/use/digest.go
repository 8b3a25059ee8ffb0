package use

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"strconv"
	"time"

	"conclave"
	"conclave/engine/transit/keys"
)

func digestRoutes() []conclave.Route {
	hmac := Operation[hmacIn]{func(in *hmacIn) string { return in.Name }, hmacCost, computeHMAC}
	hmacAt := within(hmac, (*hmacAtIn).body)
	return []conclave.Route{
		hmac.Route("hmac/{name}", hmacDoc), hmacAt.Route("hmac/{name}/{algorithm}", hmacDoc),
		conclave.ReadRoute(conclave.Update, "hash", hashDoc, hash),
		conclave.ReadRoute(conclave.Update, "hash/{algorithm}", hashDoc, func(ctx context.Context, view conclave.View, in *hashAtIn) (*hashOut, error) {
			in.Algorithm = in.PathHash
			return hash(ctx, view, &in.hashIn)
		}),
		conclave.ReadRoute(conclave.Update, "random", randomDoc, func(_ context.Context, _ conclave.View, in *randomIn) (*conclave.Response, error) {
			return random(in.Source, "", in)
		}),
		conclave.ReadRoute(conclave.Update, "random/{source}", randomDoc, randomOne),
		conclave.ReadRoute(conclave.Update, "random/{source}/{bytes}", randomDoc, func(_ context.Context, _ conclave.View, in *randomTwoIn) (*conclave.Response, error) {
			return random(in.PathSource, in.PathBytes, &in.randomIn)
		}),
		Operation[datakeyIn]{func(in *datakeyIn) string { return in.Name }, datakeyCost, datakey}.Route("datakey/{kind}/{name}", datakeyDoc),
	}
}

const hmacDoc = `Make the HMAC of one input or of a batch of them.
Every version of a key of any type has a key for HMACs; of type hmac it is the key itself. With batch_input, items that
fail have an error of their own.`

type hmacItem struct {
	Input     *string `json:"input" doc:"Base64 of the input."`
	Reference string  `json:"reference" doc:"Any text, which the result of a batch's item carries as well."`
}

type hmacIn struct {
	Name string `path:"name" doc:"Name of the key."`
	hmacItem
	Algorithm string     `json:"algorithm" doc:"Hash function: sha2-224 to sha2-512, sha3-224 to sha3-512; sha2-256 by default."`
	Version   int        `json:"key_version" doc:"Version to use; 0 for the latest."`
	Batch     []hmacItem `json:"batch_input" doc:"Inputs, instead of a single one."`
}

type hmacAtIn struct {
	hashInPath
	hmacIn
}

func (in *hmacAtIn) body() *hmacIn {
	in.Algorithm = in.PathHash
	return &in.hmacIn
}

func hmacCost(_ *keys.Key, in *hmacIn) time.Duration {
	inputs := []*string{in.Input}
	for i := range in.Batch {
		inputs = append(inputs, in.Batch[i].Input)
	}
	return inputTime(inputs...)
}

type hmacOut struct {
	HMAC string `json:"hmac"`
}

type hmacResult struct {
	HMAC      string `json:"hmac,omitempty"`
	Error     string `json:"error,omitempty"`
	Reference string `json:"reference"`
}

func computeHMAC(ctx context.Context, key *keys.Key, in *hmacIn) (*conclave.Response, error) {
	compute := func(item *hmacItem) (string, error) {
		hash, err := keys.Hash(orHash(in.Algorithm))
		if err != nil {
			return "", err
		}
		if item.Input == nil {
			return "", conclave.Errorf(conclave.Invalid, "missing input for HMAC")
		}
		input, err := base64.StdEncoding.DecodeString(*item.Input)
		if err != nil {
			return "", conclave.Errorf(conclave.Invalid, "unable to decode input as base64")
		}
		made, _, err := key.HMAC(in.Version, hash, input)
		return made, err
	}
	if in.Batch == nil {
		made, err := compute(&in.hmacItem)
		if err != nil {
			return nil, err
		}
		return &conclave.Response{Data: hmacOut{made}}, nil
	}
	if err := checkBatch(len(in.Batch)); err != nil {
		return nil, err
	}
	results := make([]hmacResult, len(in.Batch))
	for i := range in.Batch {
		if ctx.Err() != nil {
			return nil, errTime
		}
		made, err := compute(&in.Batch[i])
		results[i] = hmacResult{made, errorText(err), in.Batch[i].Reference}
	}
	return batchResults(results), nil
}

func orHash(name string) string {
	if name == "" {
		return keys.DefaultHash
	}
	return name
}

const hashDoc = `Hash an input; no key is used.`

type hashIn struct {
	Algorithm string  `json:"algorithm" doc:"Hash function: sha2-224 to sha2-512, sha3-224 to sha3-512; sha2-256 by default."`
	Input     *string `json:"input" doc:"Base64 of the input."`
	Format    string  `json:"format" doc:"hex, the default, or base64."`
}

type hashAtIn struct {
	hashInPath
	hashIn
}

type hashOut struct {
	Sum string `json:"sum" doc:"The hash, in the format that was asked for."`
}

func hash(_ context.Context, _ conclave.View, in *hashIn) (*hashOut, error) {
	function, err := keys.Hash(orHash(in.Algorithm))
	if err != nil {
		return nil, err
	}
	if in.Input == nil {
		return nil, conclave.Errorf(conclave.Invalid, "missing input")
	}
	input, err := base64.StdEncoding.DecodeString(*in.Input)
	if err != nil {
		return nil, conclave.Errorf(conclave.Invalid, "unable to decode input as base64")
	}
	sum, err := format(keys.Digest(function, input), in.Format, "hex")
	return &hashOut{sum}, err
}

func format(b []byte, name, otherwise string) (string, error) {
	if name == "" {
		name = otherwise
	}
	switch name {
	case "hex":
		return hex.EncodeToString(b), nil
	case "base64":
		return base64.StdEncoding.EncodeToString(b), nil
	}
	return "", conclave.Errorf(conclave.Invalid, "unsupported encoding format %q; must be \"hex\" or \"base64\"", name)
}

const randomDoc = `Draw random bytes.
They come from the random number generator of the server's process, which the operating system seeds; there is no other
source, whichever is asked for. The path may hold the source, the number of bytes, or both.`

type randomIn struct {
	Bytes  *int   `json:"bytes" doc:"Number of bytes, at most 131072; 32 by default."`
	Format string `json:"format" doc:"base64, the default, or hex."`
	Source string `json:"source" doc:"platform, the default, seal or all."`
}

type randomOneIn struct {
	PathSource string `path:"source" doc:"Source, or number of bytes."`
	randomIn
}

type randomTwoIn struct {
	randomOneIn
	PathBytes string `path:"bytes" doc:"Number of bytes."`
}

type randomOut struct {
	Bytes string `json:"random_bytes"`
}

const defaultRandom = 32 // bytes

func randomOne(_ context.Context, _ conclave.View, in *randomOneIn) (*conclave.Response, error) {
	switch in.PathSource {
	case "platform", "seal", "all":
		return random(in.PathSource, "", &in.randomIn)
	}
	return random(in.Source, in.PathSource, &in.randomIn)
}

// random draws from a source; count is the number of bytes if the path has it.
func random(source, count string, in *randomIn) (*conclave.Response, error) {
	n := defaultRandom
	if in.Bytes != nil {
		n = *in.Bytes
	}
	if count != "" {
		parsed, err := strconv.Atoi(count)
		if err != nil {
			return nil, conclave.Errorf(conclave.Invalid, "the number of bytes in the path is no number")
		}
		n = parsed
	}
	if n < 1 || n > maxRandom {
		return nil, conclave.Errorf(conclave.Invalid, "'bytes' must be between 1 and %d", maxRandom)
	}
	response := &conclave.Response{}
	switch source {
	case "", "platform", "all":
	case "seal":
		response.Warnings = []string{"no seal/entropy augmentation available, using platform entropy source"}
	default:
		return nil, conclave.Errorf(conclave.Invalid, "unsupported entropy source %q; must be \"platform\" or \"seal\", or \"all\"", source)
	}
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	text, err := format(b, in.Format, "base64")
	response.Data = randomOut{text}
	return response, err
}

const datakeyDoc = `Draw a random key and encrypt it.
The path says whether the answer has it in plaintext as well: plaintext, or wrapped for the ciphertext only.`

type datakeyIn struct {
	Kind       string `path:"kind" doc:"plaintext or wrapped."`
	Name       string `path:"name" doc:"Name of the key that encrypts."`
	Bits       *int   `json:"bits" doc:"Length of the new key in bits: 128, 256 or 512; 256 by default."`
	Context    string `json:"context" doc:"Base64 of the context, for derived keys."`
	Associated string `json:"associated_data" doc:"Base64 of data to authenticate beside the new key."`
	Nonce      string `json:"nonce" doc:"Not taken: nonces are random, or derived for convergent encryption."`
	Version    int    `json:"key_version" doc:"Version to encrypt with; 0 for the latest."`
}

type datakeyOut struct {
	Ciphertext string `json:"ciphertext"`
	Plaintext  string `json:"plaintext,omitempty"`
	Version    int    `json:"key_version"`
}

func datakeyCost(key *keys.Key, _ *datakeyIn) time.Duration {
	return textTime(1, 0) + key.Type.PublicCost()
}

func datakey(_ context.Context, key *keys.Key, in *datakeyIn) (*conclave.Response, error) {
	if in.Kind != "plaintext" && in.Kind != "wrapped" {
		return nil, conclave.Errorf(conclave.Invalid, "Invalid path, must be 'plaintext' or 'wrapped'")
	}
	bits := 256
	if in.Bits != nil {
		bits = *in.Bits
	}
	if bits != 128 && bits != 256 && bits != 512 {
		return nil, conclave.Errorf(conclave.Invalid, "invalid bit length: must be 128, 256 or 512")
	}
	with, err := sealing(in.Context, in.Associated, in.Nonce)
	if err != nil {
		return nil, err
	}
	made := make([]byte, bits/8)
	_, _ = rand.Read(made) // never fails
	ciphertext, version, err := key.Encrypt(in.Version, made, with)
	if err != nil {
		return nil, err
	}
	out := datakeyOut{Ciphertext: ciphertext, Version: version}
	if in.Kind == "plaintext" {
		out.Plaintext = base64.StdEncoding.EncodeToString(made)
	}
	return &conclave.Response{Data: out}, nil
}
