package mfa

import (
	"crypto/subtle"
	"encoding/json"

	"conclave"
	"conclave/internal/passcode"
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

func (s *secret) parameters() passcode.Parameters {
	return passcode.Parameters{Key: s.Key, Algorithm: s.Algorithm, Digits: s.Digits, Period: int64(s.Period)}
}

// Spend reports whether a passcode of an entity is right, and takes it: it is right once. All spellings of a passcode that
// differ in blanks around it are one; any other character than the digits 0 to 9 makes it wrong. An entity without a key
// has no right passcode.
func (m *Method) Spend(tx conclave.Tx, entityID, shown string) (bool, error) {
	s, err := loadSecret(tx, entityID, m.ID)
	if err != nil || s == nil {
		return false, err
	}
	given, ok := passcode.Normal(shown, s.Digits)
	if !ok {
		return false, nil
	}
	parameters := s.parameters()
	now, err := parameters.Step(tx)
	if err != nil {
		return false, err
	}
	var taken int64
	var used bool
	for step := max(0, now-m.Skew); step <= now+m.Skew; step++ {
		want, err := parameters.Code(step)
		if err != nil {
			return false, err
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
