package crypto

import (
	"crypto/hpke"
	"crypto/rand"
	"fmt"
	"io"
)

// Lengths in bytes of HPKE keys and of what SealTo adds.
const (
	HPKEPrivateSize = 32
	HPKEPublicSize  = 1184 + 32
	HPKEOverhead    = 1 + 1088 + 32 + TagSize
)

// formatHPKE names the one suite there is: MLKEM768-X25519 (X-Wing, a hybrid that stays safe while either half does), HKDF-SHA256,
// AES-256-GCM, in base mode of RFC 9180.
const formatHPKE = 1

// GenerateHPKE makes a key pair to receive with. The private half has HPKEPrivateSize bytes, the public half HPKEPublicSize.
func GenerateHPKE() (private []byte, public []byte, err error) {
	if private, err = newHPKEPrivate(rand.Reader); err != nil {
		return nil, nil, err
	}
	if public, err = PublicHPKE(private); err != nil {
		return nil, nil, err
	}
	return private, public, nil
}

// newHPKEPrivate reads a private key from random: it is a seed, any 32 bytes will do.
func newHPKEPrivate(random io.Reader) ([]byte, error) {
	k, err := NewKey(random)
	return k[:], err
}

// PublicHPKE is the public half of a private key.
func PublicHPKE(private []byte) ([]byte, error) {
	k, err := hpke.MLKEM768X25519().NewPrivateKey(private)
	if err != nil {
		return nil, fmt.Errorf("crypto: parse HPKE private key of %d bytes", len(private))
	}
	return k.PublicKey().Bytes(), nil
}

// SealTo seals plaintext so that only the holder of public's private half opens it, with the same info (what this is for) and the same
// additional data. Anyone can seal: HPKE in base mode doesn't say who did.
//
//	box:  format 1 (1 byte) ‖ encapsulated key (1120) ‖ ciphertext ‖ tag (16)
func SealTo(public, info, additional, plaintext []byte) ([]byte, error) {
	pk, err := hpke.MLKEM768X25519().NewPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("crypto: parse HPKE public key of %d bytes: %w", len(public), err)
	}
	encapsulated, sender, err := hpke.NewSender(pk, hpke.HKDFSHA256(), hpke.AES256GCM(), info)
	if err != nil {
		return nil, fmt.Errorf("crypto: encapsulate: %w", err)
	}
	ciphertext, err := sender.Seal(additional, plaintext)
	if err != nil {
		return nil, fmt.Errorf("crypto: seal with HPKE: %w", err)
	}
	box := make([]byte, 0, HPKEOverhead+len(plaintext))
	box = append(box, formatHPKE)
	box = append(box, encapsulated...)
	return append(box, ciphertext...), nil
}

// OpenWith opens what SealTo sealed to private's public half, or returns ErrOpen.
func OpenWith(private, info, additional, box []byte) ([]byte, error) {
	if len(box) < HPKEOverhead || box[0] != formatHPKE {
		return nil, ErrOpen
	}
	k, err := hpke.MLKEM768X25519().NewPrivateKey(private)
	if err != nil {
		return nil, ErrOpen
	}
	split := HPKEOverhead - TagSize
	recipient, err := hpke.NewRecipient(box[1:split], k, hpke.HKDFSHA256(), hpke.AES256GCM(), info)
	if err != nil {
		return nil, ErrOpen
	}
	plaintext, err := recipient.Open(additional, box[split:])
	if err != nil {
		return nil, ErrOpen
	}
	return plaintext, nil
}
