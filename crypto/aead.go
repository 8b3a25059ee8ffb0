package crypto

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"fmt"
	"slices"
	"sync"
)

// Sizes in bytes of what XAES-256-GCM adds to a plaintext.
const (
	NonceSize = 24
	TagSize   = 16
	Overhead  = NonceSize + TagSize
)

// AEAD is XAES-256-GCM, https://c2sp.org/XAES-256-GCM: a key and half of a 192-bit nonce make, by the counter KDF of NIST SP 800-108r1
// with CMAC, the AES-256-GCM key of one message; the other half is GCM's nonce. Nonces are random, for up to 2^80 messages a key.
//
//	box:  nonce (24) ‖ ciphertext (as long as the plaintext) ‖ tag (16)
//
// An AEAD is immutable and safe for concurrent use. Make one per key and keep it: the key schedule and CMAC's subkey are ready in it.
type AEAD struct {
	redacted
	block   cipher.Block
	subkey  [aes.BlockSize]byte // K1 of CMAC, NIST SP 800-38B section 6.1
	scratch sync.Pool           // of *derivation
}

// derivation is where one message's key is made. It is pooled because it would otherwise escape to the heap for each message.
type derivation struct {
	input [aes.BlockSize]byte
	key   [KeySize]byte
}

// NewAEAD makes the AEAD of key, which must have KeySize bytes and may be wiped afterwards.
func NewAEAD(key []byte) (*AEAD, error) {
	if len(key) != KeySize {
		return nil, fmt.Errorf("crypto: key of %d bytes, want %d", len(key), KeySize)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("crypto: new AES-256: %w", err)
	}
	if _, err := cipher.NewGCM(block); err != nil {
		// With GODEBUG=fips140=only. Said here, so that no message finds it out.
		return nil, fmt.Errorf("crypto: new AES-256-GCM: %w", err)
	}
	a := &AEAD{block: block, scratch: sync.Pool{New: func() any { return new(derivation) }}}
	block.Encrypt(a.subkey[:], a.subkey[:])
	carry := a.subkey[0] >> 7
	for i := range aes.BlockSize - 1 {
		a.subkey[i] = a.subkey[i]<<1 | a.subkey[i+1]>>7
	}
	// Doubling in GF(2^128): multiply by the carry rather than branch on a bit of the key.
	a.subkey[aes.BlockSize-1] = a.subkey[aes.BlockSize-1]<<1 ^ carry*0b10000111
	return a, nil
}

// Seal appends to dst a box of plaintext under a fresh random nonce, bound to additional. plaintext must not overlap dst's spare room.
func (a *AEAD) Seal(dst, plaintext, additional []byte) []byte {
	dst = slices.Grow(dst, len(plaintext)+Overhead)
	start := len(dst)
	dst = dst[:start+NonceSize]
	nonce := dst[start:]
	rand.Read(nonce)
	return a.seal(dst, nonce, plaintext, additional)
}

// Open appends to dst the plaintext of a box that was sealed with this key and the same additional data; otherwise ErrOpen. box must not
// overlap dst's spare room.
func (a *AEAD) Open(dst, box, additional []byte) ([]byte, error) {
	if len(box) < Overhead {
		return nil, ErrOpen
	}
	gcm := a.message(box[:NonceSize])
	dst, err := gcm.Open(dst, box[NonceSize/2:NonceSize], box[NonceSize:], additional)
	if err != nil {
		return nil, ErrOpen
	}
	return dst, nil
}

// Bind returns a tag by which Bound later recognises blob, unchanged. It is how the seal blob is bound as a whole by the root key.
func (a *AEAD) Bind(blob []byte) []byte { return a.Seal(nil, nil, bindAdditional(blob)) }

// Bound returns nil if tag was made by Bind, with this key, of exactly this blob; otherwise ErrOpen.
func (a *AEAD) Bound(blob, tag []byte) error {
	if len(tag) != Overhead {
		return ErrOpen
	}
	_, err := a.Open(nil, tag, bindAdditional(blob))
	return err
}

func bindAdditional(blob []byte) []byte {
	return appendField(appendField(make([]byte, 0, 8+len("bind")+len(blob)), "bind"), blob)
}

// seal appends ciphertext and tag to dst. plaintext may begin exactly where dst ends.
func (a *AEAD) seal(dst, nonce, plaintext, additional []byte) []byte {
	return a.message(nonce).Seal(dst, nonce[NonceSize/2:NonceSize], plaintext, additional)
}

// message is AES-256-GCM with the key derived from the first half of nonce.
func (a *AEAD) message(nonce []byte) cipher.AEAD {
	d := a.scratch.Get().(*derivation)
	for i := range 2 {
		d.input = [aes.BlockSize]byte{0, byte(i + 1), 'X', 0}
		copy(d.input[4:], nonce[:NonceSize/2])
		for j := range d.input {
			d.input[j] ^= a.subkey[j]
		}
		a.block.Encrypt(d.key[i*aes.BlockSize:], d.input[:])
	}
	block, err := aes.NewCipher(d.key[:])
	*d = derivation{}
	a.scratch.Put(d)
	if err != nil {
		panic("crypto: AES refused a key of 32 bytes")
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		panic("crypto: GCM refused AES: " + err.Error())
	}
	return gcm
}
