package issuing

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"math/big"
	"strings"

	"conclave"
)

// Materials are what is made before the transaction opens: whatever is random, or slow to make.
type Materials struct {
	seed   [32]byte
	Serial *big.Int
	Key    crypto.Signer            // nil if none is made
	CSR    *x509.CertificateRequest // nil if none is signed
	Certs  []*x509.Certificate      // that are imported
	Keys   []crypto.Signer          // that are imported
}

// NewMaterials makes a seed and a serial number.
func NewMaterials() (*Materials, error) {
	m := &Materials{}
	_, _ = rand.Read(m.seed[:]) // never fails: the runtime ends the process instead
	var err error
	m.Serial, err = Serial()
	return m, err
}

// ID makes the nth id of a request: a random UUID (RFC 9562, version 4).
func (m *Materials) ID(n int) string {
	sum := sha256.Sum256(append(m.seed[:], byte(n>>8), byte(n)))
	b := sum[:16]
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	text := hex.EncodeToString(b)
	return strings.Join([]string{text[:8], text[8:12], text[12:16], text[16:20], text[20:]}, "-")
}

// Prepared are the materials that a route has prepared.
func Prepared(ctx context.Context) (*Materials, error) {
	m, ok := conclave.Prepared[*Materials](ctx)
	if !ok {
		return nil, conclave.Errorf(conclave.Internal, "the request was not prepared")
	}
	return m, nil
}
