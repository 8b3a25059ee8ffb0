// Package passcode is what those share who know passcodes by time: TOTP, RFC 6238. It keeps nothing: which passcodes were
// taken is for the caller to store, in the transaction that takes one.
package passcode

import (
	"bytes"
	"encoding/base32"
	"encoding/base64"
	"image/png"
	"strings"
	"time"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/hotp"

	"conclave"
)

// Algorithms maps the names that Vault's clients give hashes → the hash.
var Algorithms = map[string]otp.Algorithm{"SHA1": otp.AlgorithmSHA1, "SHA256": otp.AlgorithmSHA256, "SHA512": otp.AlgorithmSHA512}

// Parameters are what an authenticator and the vault both know.
type Parameters struct {
	Key       []byte
	Algorithm string // one of Algorithms
	Digits    int    // 6 or 8
	Period    int64  // of a time step, in seconds
}

// Code is the passcode of a time step: RFC 6238 section 4.2.
func (p Parameters) Code(step int64) (string, error) {
	code, err := hotp.GenerateCodeCustom(base32.StdEncoding.EncodeToString(p.Key), uint64(step),
		hotp.ValidateOpts{Digits: otp.Digits(p.Digits), Algorithm: Algorithms[p.Algorithm]})
	if err != nil {
		return "", conclave.Errorf(conclave.Internal, "a passcode can't be made")
	}
	return code, nil
}

// maxSteps bounds how far cluster time is followed when a transaction runs on an old state.
const maxSteps = 1 << 20

// Step is the time step that it is: the transaction is judged within it.
func (p Parameters) Step(view conclave.View) (int64, error) {
	now := view.Now().Unix() / p.Period
	for range maxSteps {
		if !view.Reached(time.Unix((now+1)*p.Period, 0)) {
			view.Reached(time.Unix(now*p.Period, 0)) // noted too: time doesn't run back, and it is no more than a note
			return now, nil
		}
		now++
	}
	return 0, conclave.Errorf(conclave.Unavailable, "this node's clock is far behind the cluster's")
}

// Normal brings a passcode into its one spelling, and reports whether it can be one: all spellings that differ in blanks
// around it are one, and any other character than the digits 0 to 9 makes it none.
func Normal(passcode string, length int) (string, bool) {
	passcode = strings.Trim(passcode, " \t\r\n")
	if len(passcode) != length {
		return "", false
	}
	for _, c := range []byte(passcode) {
		if c < '0' || c > '9' {
			return "", false
		}
	}
	return passcode, true
}

// Picture is the URL of a key as a picture for authenticators: base64 of a PNG of so many dots in each direction.
func Picture(key *otp.Key, size int) (string, error) {
	image, err := key.Image(size, size)
	if err != nil { // the text needs more dots than the picture has
		return "", conclave.Errorf(conclave.Invalid, "the key doesn't fit a picture of qr_size %d: make it larger, or 0 for none", size)
	}
	var buf bytes.Buffer
	if err := png.Encode(&buf, image); err != nil {
		return "", conclave.Errorf(conclave.Internal, "the picture can't be made")
	}
	return base64.StdEncoding.EncodeToString(buf.Bytes()), nil
}
