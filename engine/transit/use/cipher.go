package use

import (
	"context"
	"encoding/base64"
	"time"

	"conclave"
	"conclave/engine/transit/keys"
)

func cipherRoutes() []conclave.Route {
	return []conclave.Route{
		encryptRoute(),
		Operation[decryptIn]{func(in *decryptIn) string { return in.Name }, decryptCost, decrypt}.Route("decrypt/{name}", decryptDoc),
		Operation[rewrapIn]{func(in *rewrapIn) string { return in.Name }, rewrapCost, rewrap}.Route("rewrap/{name}", rewrapDoc),
	}
}

// itemTime is about how long it takes to encrypt or decrypt a kilobyte with a symmetric key, with its base64.
const itemTime = 4 * time.Microsecond

// textTime is about how long the symmetric part of the work on texts in base64 takes.
func textTime(items, bytes int) time.Duration {
	return itemTime * time.Duration(items+bytes/1024)
}

const decryptDoc = `Decrypt one ciphertext or a batch of them.
With batch_input, items that fail have an error of their own, and the status is 400 unless partial_failure_response_code
says otherwise.`

type decryptItem struct {
	Ciphertext string `json:"ciphertext" doc:"What encrypt has answered."`
	Context    string `json:"context" doc:"Base64 of the context, for derived keys."`
	Associated string `json:"associated_data" doc:"Base64 of the data that was authenticated beside the plaintext."`
	Nonce      string `json:"nonce" doc:"Base64 of the nonce, for what the oldest form of convergent encryption has made."`
	Reference  string `json:"reference" doc:"Any text, which the result of a batch's item carries as well."`
}

type decryptIn struct {
	Name string `path:"name" doc:"Name of the key."`
	decryptItem
	Batch   []decryptItem `json:"batch_input" doc:"Items to decrypt, instead of a single one."`
	Partial *int          `json:"partial_failure_response_code" doc:"Status of an answer in which only some items failed."`
}

func (in *decryptIn) items() []decryptItem {
	if in.Batch != nil {
		return in.Batch
	}
	return []decryptItem{in.decryptItem}
}

func decryptCost(key *keys.Key, in *decryptIn) time.Duration {
	bytes, items := 0, in.items()
	for i := range items {
		bytes += len(items[i].Ciphertext)
	}
	return textTime(len(items), bytes) + key.Type.PrivateCost()*time.Duration(len(items))
}

type decryptResult struct {
	Plaintext string `json:"plaintext"`
	Error     string `json:"error,omitempty"`
	Reference string `json:"reference"`
}

type decryptOut struct {
	Plaintext string `json:"plaintext"`
}

func decrypt(ctx context.Context, key *keys.Key, in *decryptIn) (*conclave.Response, error) {
	if in.Batch == nil {
		plaintext, err := in.decrypt(key)
		if err != nil {
			return nil, err
		}
		return &conclave.Response{Data: decryptOut{plaintext}}, nil
	}
	if err := checkItems(len(in.Batch), func(i int) string { return in.Batch[i].Context }); err != nil {
		return nil, err
	}
	results, how := make([]decryptResult, len(in.Batch)), outcome{}
	for i := range in.Batch {
		if ctx.Err() != nil {
			return nil, errTime
		}
		plaintext, err := in.Batch[i].decrypt(key)
		results[i] = decryptResult{plaintext, how.note(err), in.Batch[i].Reference}
	}
	return how.response(results, in.Partial), nil
}

func (item *decryptItem) decrypt(key *keys.Key) (string, error) {
	if item.Ciphertext == "" {
		return "", conclave.Errorf(conclave.Invalid, "missing ciphertext to decrypt")
	}
	with, err := sealing(item.Context, item.Associated, item.Nonce)
	if err != nil {
		return "", err
	}
	plaintext, err := key.Decrypt(item.Ciphertext, with)
	if err != nil {
		return "", err
	}
	return base64.StdEncoding.EncodeToString(plaintext), nil
}

// checkItems is checkBatch for items with contexts, which all must have or none, as Vault wants it.
func checkItems(items int, context func(i int) string) error {
	if err := checkBatch(items); err != nil {
		return err
	}
	for i := 1; i < items; i++ {
		if (context(i) == "") != (context(0) == "") {
			return conclave.Errorf(conclave.Invalid, "context should be set either in all the request blocks or in none")
		}
	}
	return nil
}

const rewrapDoc = `Encrypt ciphertexts anew with the latest version of their key, or with another one.
The plaintext doesn't leave the vault. Associated data stays what it was. With batch_input, items that fail have an error of
their own.`

type rewrapItem struct {
	decryptItem
	Version int `json:"key_version" doc:"Version to encrypt with; 0 for the latest."`
}

type rewrapIn struct {
	Name string `path:"name" doc:"Name of the key."`
	rewrapItem
	Batch []rewrapItem `json:"batch_input" doc:"Items to encrypt anew, instead of a single one."`
}

func rewrapCost(key *keys.Key, in *rewrapIn) time.Duration {
	items := in.Batch
	if items == nil {
		items = []rewrapItem{in.rewrapItem}
	}
	bytes := 0
	for i := range items {
		bytes += len(items[i].Ciphertext)
	}
	return 2*textTime(len(items), bytes) + (key.Type.PrivateCost()+key.Type.PublicCost())*time.Duration(len(items))
}

func rewrap(ctx context.Context, key *keys.Key, in *rewrapIn) (*conclave.Response, error) {
	if in.Batch == nil {
		ciphertext, version, err := in.rewrap(key)
		if err != nil {
			return nil, err
		}
		return &conclave.Response{Data: encryptOut{ciphertext, version}}, nil
	}
	if err := checkItems(len(in.Batch), func(i int) string { return in.Batch[i].Context }); err != nil {
		return nil, err
	}
	results := make([]encryptResult, len(in.Batch))
	for i := range in.Batch {
		if ctx.Err() != nil {
			return nil, errTime
		}
		ciphertext, version, err := in.Batch[i].rewrap(key)
		results[i] = encryptResult{ciphertext, version, errorText(err), in.Batch[i].Reference}
	}
	return batchResults(results), nil
}

func (item *rewrapItem) rewrap(key *keys.Key) (string, int, error) {
	if item.Ciphertext == "" {
		return "", 0, conclave.Errorf(conclave.Invalid, "missing ciphertext to decrypt")
	}
	with, err := sealing(item.Context, item.Associated, item.Nonce)
	if err != nil {
		return "", 0, err
	}
	plaintext, err := key.Decrypt(item.Ciphertext, with)
	if err != nil {
		return "", 0, err
	}
	with.Nonce = nil
	return key.Encrypt(item.Version, plaintext, with)
}
