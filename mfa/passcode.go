package mfa

import (
	"crypto/subtle"
	"encoding/base32"
	"encoding/json"
	"strings"
	"time"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/hotp"

	"conclave"
)

const entityDir = "mfa/entity/"

func secretPath(entityID, methodID string) string {
	return entityDir + entityID + "/totp/" + methodID
}

// secret is what an entity's authenticator and the vault both know.
type secret struct {
	Key       []byte           `json:"key"`
	Algorithm string           `json:"algorithm"`
	Digits    int              `json:"digits"`
	Period    conclave.Seconds `json:"period"`
	// Last is the time step of the last passcode that was taken: none up to it is taken any more.
	Last int64 `json:"last,omitempty"`
}

func decodeSecret(value []byte) (*secret, error) {
	s := &secret{}
	if json.Unmarshal(value, s) != nil || checkPasscodes(s.Algorithm, s.Digits, s.Period) != nil || len(s.Key) == 0 || s.Last < 0 {
		return nil, conclave.Errorf(conclave.Internal, "the stored key of a second factor is damaged")
	}
	return s, nil
}

// loadSecret returns the key of an entity, nil if it has none.
func loadSecret(view conclave.View, entityID, methodID string) (*secret, error) {
	value, err := view.Get(secretPath(entityID, methodID))
	if err != nil || value == nil {
		return nil, err
	}
	return decodeSecret(value)
}

func (s *secret) save(tx conclave.Tx, entityID, methodID string) error {
	value, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return tx.Put(secretPath(entityID, methodID), value)
}

// Algorithms of passcodes, as Vault's clients name them.
var algorithms = map[string]otp.Algorithm{"SHA1": otp.AlgorithmSHA1, "SHA256": otp.AlgorithmSHA256, "SHA512": otp.AlgorithmSHA512}

// code is the passcode of a time step: RFC 6238 section 4.2.
func (s *secret) code(step int64) (string, error) {
	return hotp.GenerateCodeCustom(base32.StdEncoding.EncodeToString(s.Key), uint64(step),
		hotp.ValidateOpts{Digits: otp.Digits(s.Digits), Algorithm: algorithms[s.Algorithm]})
}

// maxSteps bounds how far cluster time is followed when a transaction runs on an old state.
const maxSteps = 1 << 20

// step is the time step that it is: the transaction is judged within it.
func (s *secret) step(view conclave.View) (int64, error) {
	period := int64(s.Period)
	now := view.Now().Unix() / period
	for range maxSteps {
		if !view.Reached(time.Unix((now+1)*period, 0)) {
			view.Reached(time.Unix(now*period, 0)) // noted too: time doesn't run back, and it is no more than a note
			return now, nil
		}
		now++
	}
	return 0, conclave.Errorf(conclave.Unavailable, "this node's clock is far behind the cluster's")
}

// Spend reports whether a passcode of an entity is right, and takes it: it is right once. All spellings of a passcode that
// differ in blanks around it are one; any other character than the digits 0 to 9 makes it wrong. An entity without a key
// has no right passcode.
func (m *Method) Spend(tx conclave.Tx, entityID, passcode string) (bool, error) {
	s, err := loadSecret(tx, entityID, m.ID)
	if err != nil || s == nil {
		return false, err
	}
	given, ok := digits(passcode, s.Digits)
	if !ok {
		return false, nil
	}
	now, err := s.step(tx)
	if err != nil {
		return false, err
	}
	var taken int64
	var used bool
	for step := max(0, now-m.Skew); step <= now+m.Skew; step++ {
		want, err := s.code(step)
		if err != nil {
			return false, conclave.Errorf(conclave.Internal, "a passcode can't be made")
		}
		switch equal := subtle.ConstantTimeCompare([]byte(want), []byte(given)) == 1; {
		case equal && step <= s.Last:
			used = true // also if chance gave a later step the same passcode
		case equal:
			taken = step
		}
	}
	if taken == 0 || used {
		return false, nil
	}
	s.Last = taken
	return true, s.save(tx, entityID, m.ID)
}

// digits brings a passcode into its one spelling, and reports whether it can be one.
func digits(passcode string, length int) (string, bool) {
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
