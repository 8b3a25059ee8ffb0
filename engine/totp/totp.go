// Package totp is the secrets engine for passcodes by time (TOTP, RFC 6238). It is an authenticator, which shows the
// passcodes of keys that other services gave, and the service's half, which checks those of keys that it made. It behaves
// as Vault's HTTP API does.
//
// A passcode that was right is used up, for the whole cluster and in every spelling: the time steps of those that were
// taken are stored in the transaction that takes one, so that of two requests with the same passcode, on whatever nodes,
// one is right. Steps are of cluster time. Wrong passcodes are counted, and only so many are looked at in a time step:
// six digits are soon guessed otherwise.
//
// Where things are in the mount's storage:
//
//	keys/<name>     → key, as JSON
//	used/<name>     → what was taken of it and the step that wrong ones are counted in, as JSON
//	guesses/<name>  → counter of the wrong passcodes that may still be tried in that step
package totp

import (
	"encoding/json"

	"conclave"
	"conclave/internal/passcode"
)

const kind = "totp"

// Limits of this package.
const (
	maxName    = 256    // bytes of a key's name
	maxText    = 512    // bytes of an issuer or an account's name
	maxURL     = 4096   // bytes
	minKey     = 16     // bytes of a key that is generated: RFC 4226 section 4 asks for 128 bits
	maxKey     = 256    // bytes of any key
	maxQRSize  = 1024   // dots
	maxPeriod  = 86_400 // seconds, a day
	maxSkew    = 1      // time steps
	maxGuesses = 30     // wrong passcodes of a key in a time step
)

const (
	keysDir    = "keys/"
	usedDir    = "used/"
	guessesDir = "guesses/"
)

// Plugin is the engine's line in the list of plug-ins.
func Plugin() conclave.Plugin {
	return conclave.Plugin{
		Kind: kind,
		Doc:  "Passcodes by time: makes them for other services, or checks them.",
		Open: func(map[string]string) (conclave.Engine, error) { return Engine{}, nil },
	}
}

// Engine serves the routes. It has no state.
type Engine struct{}

var _ conclave.Engine = Engine{}

// Kind is "totp".
func (Engine) Kind() string { return kind }

// Routes are those of keys and of their passcodes.
func (Engine) Routes() []conclave.Route { return append(keyRoutes(), codeRoutes()...) }

// key is what is stored of a key. What is loaded is shared and must not be changed.
type key struct {
	Secret    []byte           `json:"secret"`
	Issuer    string           `json:"issuer,omitempty"`
	Account   string           `json:"account_name,omitempty"`
	Algorithm string           `json:"algorithm"`
	Digits    int              `json:"digits"`
	Period    conclave.Seconds `json:"period"`
	Skew      int64            `json:"skew"`
}

func (k *key) parameters() passcode.Parameters {
	return passcode.Parameters{Key: k.Secret, Algorithm: k.Algorithm, Digits: k.Digits, Period: int64(k.Period)}
}

// check holds a key against the rules.
func (k *key) check() error {
	_, known := passcode.Algorithms[k.Algorithm]
	switch {
	case k.Digits != 6 && k.Digits != 8:
		return conclave.Errorf(conclave.Invalid, "the digits value can only be 6 or 8")
	case !known:
		return conclave.Errorf(conclave.Invalid, "the algorithm value is not valid: must be SHA1, SHA256 or SHA512")
	case k.Period <= 0 || k.Period > maxPeriod:
		return conclave.Errorf(conclave.Invalid, "the period value must be greater than zero, and at most a day")
	case k.Skew < 0 || k.Skew > maxSkew:
		return conclave.Errorf(conclave.Invalid, "the skew value must be 0 or 1")
	case len(k.Issuer) > maxText || len(k.Account) > maxText:
		return conclave.Errorf(conclave.Invalid, "issuer and account_name have at most %d bytes", maxText)
	}
	return nil
}

func decodeKey(value []byte) (any, error) {
	k := &key{}
	if err := json.Unmarshal(value, k); err != nil || k.check() != nil || len(k.Secret) == 0 {
		return nil, conclave.Errorf(conclave.Internal, "the stored record of a key is damaged")
	}
	return k, nil
}

// keyNamed returns a key, nil if there is none.
func keyNamed(view conclave.View, name string) (*key, error) {
	if !validName(name) {
		return nil, nil
	}
	loaded, err := view.Load(keysDir+name, decodeKey)
	k, _ := loaded.(*key)
	return k, err
}

// validName reports whether a name is letters, digits, "_", and between them "-", "." and "@".
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
