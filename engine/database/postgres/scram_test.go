package postgres

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"strings"
	"testing"
)

// The exchange of RFC 7677, section 3: user "user", password "pencil".
func TestVerifierOfTheRFC(t *testing.T) {
	const (
		nonce   = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
		auth    = "n=user,r=rOprNGfwEbeRWgbNEkqO,r=" + nonce + ",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r=" + nonce
		proof   = "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
		servers = "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
	)
	decode := func(text string) []byte {
		b, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	got, err := verifier("pencil", decode("W22ZaJ0SNY7soEsUEjb6gQ=="), 4096)
	if err != nil {
		t.Fatal(err)
	}
	rest, ok := strings.CutPrefix(got, "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$")
	stored, server, also := strings.Cut(rest, ":")
	if !ok || !also {
		t.Fatalf("verifier = %q", got)
	}
	sign := func(key []byte) []byte {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(auth))
		return mac.Sum(nil)
	}
	if got := base64.StdEncoding.EncodeToString(sign(decode(server))); got != servers {
		t.Errorf("the server's signature is %s, want %s", got, servers)
	}
	client := sign(decode(stored))
	for i, b := range decode(proof) {
		client[i] ^= b
	}
	if key := sha256.Sum256(client); base64.StdEncoding.EncodeToString(key[:]) != stored {
		t.Error("the client's proof doesn't fit the stored key")
	}
}
