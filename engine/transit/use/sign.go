package use

import (
	"context"
	"encoding/base64"
	"strconv"
	"strings"
	"time"

	"conclave"
	"conclave/engine/transit/keys"
)

func signRoutes() []conclave.Route {
	sign := Operation[signIn]{func(in *signIn) string { return in.Name }, signCost, sign}
	signAt := within(sign, (*signAtIn).body)
	verify := Operation[verifyIn]{func(in *verifyIn) string { return in.Name }, verifyCost, verify}
	verifyAt := within(verify, (*verifyAtIn).body)
	return []conclave.Route{
		sign.Route("sign/{name}", signDoc), signAt.Route("sign/{name}/{algorithm}", signDoc),
		verify.Route("verify/{name}", verifyDoc), verifyAt.Route("verify/{name}/{algorithm}", verifyDoc),
	}
}

// hashInPath is the hash function where the path names it, so that policies can tell.
type hashInPath struct {
	PathHash string `path:"algorithm" doc:"Hash function, instead of one in the body."`
}

type signAtIn struct {
	hashInPath
	signIn
}

func (in *signAtIn) body() *signIn {
	in.signIn.Hash = in.PathHash
	return &in.signIn
}

type verifyAtIn struct {
	hashInPath
	verifyIn
}

func (in *verifyAtIn) body() *verifyIn {
	in.verifyIn.Hash = in.PathHash
	return &in.verifyIn
}

// scheme is how signatures are made, as clients name it.
type scheme struct {
	Name       string  `path:"name" doc:"Name of the key."`
	Hash       string  `json:"hash_algorithm" doc:"Hash function: sha1, sha2-224 to sha2-512, sha3-224 to sha3-512, or none; sha2-256 by default. Ed25519 has its own."`
	OldHash    string  `json:"algorithm" doc:"The old name of hash_algorithm."`
	Prehashed  bool    `json:"prehashed" doc:"Whether the input is a hash already."`
	Padding    string  `json:"signature_algorithm" doc:"With RSA: pss, the default, or pkcs1v15."`
	Marshaling string  `json:"marshaling_algorithm" doc:"With ECDSA: asn1, the default, or jws, which also makes the base64 URL-safe."`
	Salt       *string `json:"salt_length" doc:"With RSA and pss: auto, the default, hash, or a number of bytes."`
}

// hashName is the name of the hash function, wherever it is given.
func (s *scheme) hashName() string {
	if s.Hash != "" {
		return s.Hash
	}
	return orHash(s.OldHash)
}

func (s *scheme) parse() (*keys.Scheme, error) {
	salt := keys.SaltAuto
	if s.Salt != nil {
		switch text := strings.ToLower(*s.Salt); text {
		case "auto", "":
		case "hash":
			salt = keys.SaltHash
		default:
			n, err := strconv.Atoi(text)
			if err != nil {
				return nil, conclave.Errorf(conclave.Invalid, "salt_length must be auto, hash or a number of bytes")
			}
			salt = n
		}
	}
	return keys.NewScheme(s.hashName(), s.Padding, s.Marshaling, s.Prehashed, salt)
}

// inputTime is about how long the hashes of inputs take, with their base64.
func inputTime(inputs ...*string) time.Duration {
	bytes := 0
	for _, input := range inputs {
		if input != nil {
			bytes += len(*input)
		}
	}
	return textTime(len(inputs), bytes)
}

const signDoc = `Sign one input or a batch of them.
An answer for a derived key has the public key of its context. With batch_input, items that fail have an error of their
own.`

type signItem struct {
	Input     *string `json:"input" doc:"Base64 of what to sign."`
	Context   string  `json:"context" doc:"Base64 of the context, for derived keys."`
	Reference string  `json:"reference" doc:"Any text, which the result of a batch's item carries as well."`
}

type signIn struct {
	scheme
	signItem
	Version int        `json:"key_version" doc:"Version to sign with; 0 for the latest."`
	Batch   []signItem `json:"batch_input" doc:"Items to sign, instead of a single one."`
}

func signCost(key *keys.Key, in *signIn) time.Duration {
	items := in.Batch
	if items == nil {
		items = []signItem{in.signItem}
	}
	inputs := make([]*string, len(items))
	for i := range items {
		inputs[i] = items[i].Input
	}
	return inputTime(inputs...) + key.Type.PrivateCost()*time.Duration(len(items))
}

type signOut struct {
	Signature string `json:"signature"`
	Version   int    `json:"key_version"`
	PublicKey []byte `json:"public_key,omitempty"`
}

type signResult struct {
	Signature string `json:"signature,omitempty"`
	Version   int    `json:"key_version,omitempty"`
	PublicKey []byte `json:"publickey,omitempty"`
	Error     string `json:"error,omitempty"`
	Reference string `json:"reference"`
}

func sign(ctx context.Context, key *keys.Key, in *signIn) (*conclave.Response, error) {
	scheme, err := in.parse()
	if err != nil {
		return nil, err
	}
	if !key.Type.Signs() {
		return nil, conclave.Errorf(conclave.Invalid, "key type %s does not support signing", key.Type)
	}
	if in.Batch == nil {
		if in.Input == nil {
			in.Input = new(string)
		}
		made, err := in.sign(key, scheme, in.Version)
		if err != nil {
			return nil, err
		}
		return &conclave.Response{Data: signOut{made.Text, made.Version, made.Derived}}, nil
	}
	if err := checkBatch(len(in.Batch)); err != nil {
		return nil, err
	}
	results := make([]signResult, len(in.Batch))
	for i := range in.Batch {
		if ctx.Err() != nil {
			return nil, errTime
		}
		results[i].Reference = in.Batch[i].Reference
		made, err := in.Batch[i].sign(key, scheme, in.Version)
		if err != nil {
			results[i].Error = err.Error()
			continue
		}
		results[i].Signature, results[i].Version, results[i].PublicKey = made.Text, made.Version, made.Derived
	}
	return batchResults(results), nil
}

func (item *signItem) sign(key *keys.Key, scheme *keys.Scheme, version int) (*keys.Signature, error) {
	input, context, err := item.decode()
	if err != nil {
		return nil, err
	}
	return key.Sign(version, scheme, context, input)
}

func (item *signItem) decode() (input, context []byte, err error) {
	if item.Input == nil {
		return nil, nil, conclave.Errorf(conclave.Invalid, "missing input")
	}
	if input, err = base64.StdEncoding.DecodeString(*item.Input); err != nil {
		return nil, nil, conclave.Errorf(conclave.Invalid, "unable to decode input as base64")
	}
	context, err = DecodeField("context", item.Context)
	return input, context, err
}

const verifyDoc = `Verify one signature or HMAC, or a batch of either.
With batch_input, items that can't be judged have an error of their own.`

type verifyItem struct {
	signItem
	Signature *string `json:"signature" doc:"What sign has answered."`
	HMAC      *string `json:"hmac" doc:"What hmac has answered."`
}

type verifyIn struct {
	scheme
	verifyItem
	Batch []verifyItem `json:"batch_input" doc:"Items to verify, instead of a single one: all signatures, or all HMACs."`
}

func (in *verifyIn) items() []verifyItem {
	if in.Batch != nil {
		return in.Batch
	}
	return []verifyItem{in.verifyItem}
}

func verifyCost(key *keys.Key, in *verifyIn) time.Duration {
	items := in.items()
	inputs := make([]*string, len(items))
	signatures := 0
	for i := range items {
		inputs[i] = items[i].Input
		if items[i].Signature != nil {
			signatures++
		}
	}
	return inputTime(inputs...) + key.Type.PublicCost()*time.Duration(signatures)
}

type verifyResult struct {
	Valid     bool   `json:"valid"`
	Error     string `json:"error,omitempty"`
	Reference string `json:"reference"`
}

type verifyOut struct {
	Valid bool `json:"valid"`
}

func verify(ctx context.Context, key *keys.Key, in *verifyIn) (*conclave.Response, error) {
	judge, err := in.judge(key)
	if err != nil {
		return nil, err
	}
	if in.Batch == nil {
		if in.Input == nil {
			in.Input = new(string)
		}
		valid, err := judge(&in.verifyItem)
		if err != nil {
			return nil, err
		}
		return &conclave.Response{Data: verifyOut{valid}}, nil
	}
	if err := checkBatch(len(in.Batch)); err != nil {
		return nil, err
	}
	results := make([]verifyResult, len(in.Batch))
	for i := range in.Batch {
		if ctx.Err() != nil {
			return nil, errTime
		}
		valid, err := judge(&in.Batch[i])
		results[i] = verifyResult{valid, errorText(err), in.Batch[i].Reference}
	}
	return batchResults(results), nil
}

// given reports whether a client has filled a field: some send all fields, the others empty.
func given(field *string) bool { return field != nil && *field != "" }

// judge is how the items are judged: all by signatures, or all by HMACs.
func (in *verifyIn) judge(key *keys.Key) (func(item *verifyItem) (bool, error), error) {
	signatures, hmacs, both, neither := 0, 0, 0, 0
	for _, item := range in.items() {
		switch {
		case given(item.Signature) && given(item.HMAC):
			both++
		case given(item.Signature), item.Signature != nil && !given(item.HMAC):
			signatures++
		case item.HMAC != nil:
			hmacs++
		default:
			neither++
		}
	}
	switch {
	case both > 0:
		return nil, conclave.Errorf(conclave.Invalid, "provide one of 'signature' or 'hmac'")
	case neither > 0:
		return nil, conclave.Errorf(conclave.Invalid, "neither a 'signature' nor an 'hmac' were given to verify")
	case signatures > 0 && hmacs > 0:
		return nil, conclave.Errorf(conclave.Invalid, "elements of batch_input must all provide 'signature' or all provide 'hmac'")
	case hmacs > 0:
		hash, err := keys.Hash(in.hashName())
		return func(item *verifyItem) (bool, error) {
			input, _, err := item.decode()
			if err != nil {
				return false, err
			}
			return key.VerifyHMAC(*item.HMAC, hash, input)
		}, err
	}
	scheme, err := in.parse()
	return func(item *verifyItem) (bool, error) {
		input, context, err := item.decode()
		if err != nil {
			return false, err
		}
		return key.Verify(*item.Signature, scheme, context, input)
	}, err
}
