package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"math/rand/v2"

	"conclave/integration/lab"
)

const (
	transitPath  = "bench-transit"
	transitBytes = 1024 // of each plaintext
)

// encrypt asks for one plaintext to be encrypted with a key of type aes256-gcm96.
func (t *target) encrypt(dst []byte, random *rand.Rand) []byte {
	return appendRequest(dst, "POST", transitPath+"/encrypt/bench", t.token, t.plaintexts[random.IntN(len(t.plaintexts))])
}

// keep makes what is encrypted with, and what is encrypted.
func (t *target) keep(ctx context.Context, root *lab.Client) error {
	answer, err := root.Do(ctx, "POST", "sys/mounts/"+transitPath, map[string]string{"type": "transit"})
	if err == nil {
		err = answer.Want(200, 204, 400) // 400: it is there from an earlier run
	}
	if err != nil {
		return fmt.Errorf("mount transit: %w", err)
	}
	if answer, err = root.Do(ctx, "POST", transitPath+"/keys/bench", map[string]string{"type": "aes256-gcm96"}); err == nil {
		err = answer.Want(200, 204)
	}
	if err != nil {
		return fmt.Errorf("make a key: %w", err)
	}
	random := rand.New(rand.NewPCG(3, 1))
	for range bodyCount {
		plaintext := make([]byte, transitBytes)
		for i := range plaintext {
			plaintext[i] = byte(random.Uint32())
		}
		t.plaintexts = append(t.plaintexts, fmt.Appendf(nil, `{"plaintext":"%s"}`, base64.StdEncoding.EncodeToString(plaintext)))
	}
	return nil
}
