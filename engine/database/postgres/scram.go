package postgres

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"

	"golang.org/x/text/secure/precis"

	"conclave"
)

const (
	scramRounds = 4096 // PostgreSQL's
	scramSalt   = 16   // bytes
)

// verifierOf makes what PostgreSQL keeps of a password (RFC 5803), so that the password itself never reaches it, its log
// or a replica.
func verifierOf(password string) (string, error) {
	salt := make([]byte, scramSalt)
	_, _ = rand.Read(salt) // it never fails
	return verifier(password, salt, scramRounds)
}

func verifier(password string, salt []byte, rounds int) (string, error) {
	if prepared, err := precis.OpaqueString.String(password); err == nil {
		password = prepared // as PostgreSQL, which takes what can't be prepared as it is
	}
	salted, err := pbkdf2.Key(sha256.New, password, salt, rounds, sha256.Size)
	if err != nil {
		return "", conclave.Errorf(conclave.Internal, "derive a password's verifier: %w", err)
	}
	sign := func(text string) []byte {
		mac := hmac.New(sha256.New, salted)
		mac.Write([]byte(text))
		return mac.Sum(nil)
	}
	stored := sha256.Sum256(sign("Client Key"))
	encode := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", rounds, encode(salt), encode(stored[:]), encode(sign("Server Key"))), nil
}
