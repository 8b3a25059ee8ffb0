package totp

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base32"
	"encoding/json"
	"io"
	"net/url"
	"strconv"
	"strings"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/totp"

	"conclave"
	"conclave/internal/passcode"
)

func keyRoutes() []conclave.Route {
	write := conclave.WriteRoute(conclave.Update, "keys/{name}", writeDoc, writeKey)
	write.Prepare = prepareKey
	return []conclave.Route{
		conclave.ReadRoute(conclave.List, "keys", "List the names of the keys.", listKeys),
		conclave.ReadRoute(conclave.Read, "keys/{name}", "Read a key's settings. The key itself is never shown.", readKey),
		write,
		conclave.WriteRoute(conclave.Delete, "keys/{name}", "Delete a key.", deleteKey),
	}
}

const writeDoc = `Generate a key, or bring one that another service gave.
What isn't given takes its default. With generate, the answer is the only one that shows the key, unless exported is off.`

type keyIn struct {
	Name      string            `path:"name" doc:"Name of the key."`
	Generate  bool              `json:"generate" doc:"Generate a key, instead of taking the given one."`
	Exported  *bool             `json:"exported" doc:"Answer a generated key as a URL and a picture; on unless set."`
	KeySize   *int              `json:"key_size" doc:"Bytes of a generated key, 16 to 256; 20 unless set."`
	Key       conclave.Secret   `json:"key" doc:"The key in base32, if it isn't generated."`
	URL       conclave.Secret   `json:"url" doc:"The key with all its settings, as otpauth://totp/…, if it isn't generated."`
	Issuer    string            `json:"issuer" doc:"Who the passcodes are for; needed with generate."`
	Account   string            `json:"account_name" doc:"Whose they are; needed with generate."`
	Period    *conclave.Seconds `json:"period" doc:"How long a passcode is shown; 30 seconds unless set."`
	Algorithm string            `json:"algorithm" doc:"SHA1, the default, SHA256 or SHA512."`
	Digits    *int              `json:"digits" doc:"Digits of a passcode: 6, the default, or 8."`
	Skew      *int64            `json:"skew" doc:"Time steps before and after that passcodes are taken of: 1, the default, or 0."`
	QRSize    *int              `json:"qr_size" doc:"Width of the picture in dots, at most 1024; 200 unless set, 0 for none."`
}

type keyOut struct {
	Account   string           `json:"account_name" doc:"Whose the passcodes are."`
	Algorithm string           `json:"algorithm" doc:"The hash."`
	Digits    int              `json:"digits" doc:"Digits of a passcode."`
	Issuer    string           `json:"issuer" doc:"Who they are for."`
	Period    conclave.Seconds `json:"period" doc:"How long one is shown, in seconds."`
}

type exportOut struct {
	URL     string `json:"url" doc:"Sets up an authenticator: otpauth://…"`
	Barcode string `json:"barcode,omitempty" doc:"The URL as a picture: base64 of a PNG."`
}

// prepared is a key that was checked or generated, and what is shown of it.
type prepared struct {
	key   *key
	shown *exportOut
}

func or[T any](given *T, otherwise T) T {
	if given == nil {
		return otherwise
	}
	return *given
}

func prepareKey(_ context.Context, _ *conclave.Request, input any) (any, error) {
	in := input.(*keyIn)
	k := &key{Issuer: in.Issuer, Account: in.Account, Algorithm: in.Algorithm, Digits: or(in.Digits, 6), Period: or(in.Period, 30), Skew: or(in.Skew, 1)}
	if k.Algorithm == "" {
		k.Algorithm = "SHA1"
	}
	if !validName(in.Name) {
		return nil, conclave.Errorf(conclave.Invalid, "invalid name of a key")
	}
	if in.Generate {
		return generate(in, k)
	}
	text := in.Key.Reveal()
	if !in.URL.Empty() {
		var err error
		if text, err = k.takeURL(in.URL.Reveal()); err != nil {
			return nil, err
		}
	}
	if text == "" {
		return nil, conclave.Errorf(conclave.Invalid, "the key value is required")
	}
	var ok bool
	if k.Secret, ok = decodeBase32(text); !ok {
		return nil, conclave.Errorf(conclave.Invalid, "invalid key value: it must be base32 of at most %d bytes", maxKey)
	}
	return &prepared{key: k}, k.check()
}

func decodeBase32(text string) ([]byte, bool) {
	text = strings.ToUpper(strings.TrimRight(strings.TrimSpace(text), "="))
	if len(text) > 2*maxKey {
		return nil, false
	}
	secret, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(text)
	return secret, err == nil && len(secret) > 0 && len(secret) <= maxKey
}

// takeURL takes a key's settings from a URL, and returns the key in base32. What the URL doesn't say stays.
func (k *key) takeURL(text string) (string, error) {
	parsed, err := url.Parse(text)
	if err != nil || len(text) > maxURL || parsed.Scheme != "otpauth" || parsed.Host != "totp" {
		return "", conclave.Errorf(conclave.Invalid, "an error occurred while parsing url string: it must be otpauth://totp/… of at most %d bytes", maxURL)
	}
	query, err := url.ParseQuery(parsed.RawQuery)
	if err != nil {
		return "", conclave.Errorf(conclave.Invalid, "an error occurred while parsing url string")
	}
	label := strings.TrimPrefix(parsed.Path, "/")
	if issuer, account, found := strings.Cut(label, ":"); found {
		k.Issuer, k.Account = issuer, strings.TrimSpace(account)
	} else {
		k.Account = label
	}
	if issuer := query.Get("issuer"); issuer != "" {
		k.Issuer = issuer
	}
	if algorithm := query.Get("algorithm"); algorithm != "" {
		k.Algorithm = strings.ToUpper(algorithm)
	}
	if period := query.Get("period"); period != "" {
		n, err := strconv.ParseInt(period, 10, 64)
		if err != nil {
			return "", conclave.Errorf(conclave.Invalid, "an error occurred while parsing period value in url")
		}
		k.Period = conclave.Seconds(n)
	}
	if digits := query.Get("digits"); digits != "" {
		if k.Digits, err = strconv.Atoi(digits); err != nil {
			return "", conclave.Errorf(conclave.Invalid, "an error occurred while parsing digits value in url")
		}
	}
	return query.Get("secret"), nil
}

func generate(in *keyIn, k *key) (*prepared, error) {
	size, qrSize := or(in.KeySize, 20), or(in.QRSize, 200)
	switch {
	case !in.Key.Empty():
		return nil, conclave.Errorf(conclave.Invalid, "a key should not be passed if generate is true")
	case !in.URL.Empty():
		return nil, conclave.Errorf(conclave.Invalid, "a url should not be passed if generate is true")
	case k.Account == "":
		return nil, conclave.Errorf(conclave.Invalid, "the account_name value is required for generated keys")
	case k.Issuer == "":
		return nil, conclave.Errorf(conclave.Invalid, "the issuer value is required for generated keys")
	case size < minKey || size > maxKey:
		return nil, conclave.Errorf(conclave.Invalid, "the key_size value must be between %d and %d", minKey, maxKey)
	case qrSize < 0 || qrSize > maxQRSize:
		return nil, conclave.Errorf(conclave.Invalid, "the qr_size value must be between 0 and %d", maxQRSize)
	}
	if err := k.check(); err != nil {
		return nil, err
	}
	k.Secret = make([]byte, size)
	if _, err := io.ReadFull(rand.Reader, k.Secret); err != nil {
		return nil, conclave.Errorf(conclave.Internal, "no randomness for a key")
	}
	if !or(in.Exported, true) {
		return &prepared{key: k}, nil
	}
	set, err := totp.Generate(totp.GenerateOpts{Issuer: k.Issuer, AccountName: k.Account, Period: uint(k.Period), Secret: k.Secret,
		Digits: otp.Digits(k.Digits), Algorithm: passcode.Algorithms[k.Algorithm]})
	if err != nil {
		return nil, conclave.Errorf(conclave.Invalid, "issuer and account_name can't be written as a URL")
	}
	p := &prepared{k, &exportOut{URL: set.String()}}
	if qrSize > 0 {
		p.shown.Barcode, err = passcode.Picture(set, qrSize)
	}
	return p, err
}

// writeKey stores what was prepared. What was used of a key stays used when the same key is brought again.
func writeKey(ctx context.Context, tx conclave.Tx, in *keyIn) (*conclave.Response, error) {
	p, ok := conclave.Prepared[*prepared](ctx)
	if !ok {
		return nil, conclave.Errorf(conclave.Internal, "no key was prepared")
	}
	value, err := json.Marshal(p.key)
	if err != nil {
		return nil, conclave.Errorf(conclave.Internal, "encode a key: %w", err)
	}
	old, err := keyNamed(tx, in.Name)
	if err != nil {
		return nil, err
	}
	if old == nil || !bytes.Equal(old.Secret, p.key.Secret) || old.Period != p.key.Period {
		if err := forget(tx, in.Name); err != nil {
			return nil, err
		}
	}
	response := &conclave.Response{}
	if p.shown != nil {
		response.Data = p.shown
	}
	return response, tx.Put(keysDir+in.Name, value)
}

type nameIn struct {
	Name string `path:"name" doc:"Name of the key."`
}

func readKey(_ context.Context, view conclave.View, in *nameIn) (*keyOut, error) {
	k, err := keyNamed(view, in.Name)
	if err != nil {
		return nil, err
	}
	if k == nil {
		return nil, &conclave.Error{Kind: conclave.NotFound}
	}
	return &keyOut{k.Account, k.Algorithm, k.Digits, k.Issuer, k.Period}, nil
}

type pageIn struct {
	After string `json:"after" doc:"List names after this one."`
	Limit int    `json:"limit" doc:"List at most so many; 0 is all."`
}

func listKeys(_ context.Context, view conclave.View, in *pageIn) (*conclave.Keys, error) {
	names, err := view.List(keysDir, in.After, in.Limit)
	return &conclave.Keys{Keys: names}, err
}

func deleteKey(_ context.Context, tx conclave.Tx, in *nameIn) (*conclave.None, error) {
	if !validName(in.Name) {
		return nil, nil
	}
	if err := forget(tx, in.Name); err != nil {
		return nil, err
	}
	return nil, tx.Delete(keysDir + in.Name)
}

// forget removes what was used of a key.
func forget(tx conclave.Tx, name string) error {
	if err := tx.SetCell(guessesDir+name, 0, false); err != nil {
		return err
	}
	return tx.Delete(usedDir + name)
}
