package crypto

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
)

// Limits of Shamir's scheme here.
const (
	MaxShares = 255  // x runs from 1 to 255; x = 0 is the secret
	maxSecret = 4096 // bytes
)

// Errors of Split and Combine. They say what is wrong with the shape of the input, never what is in it.
var (
	ErrShareCount     = errors.New("crypto: need 2 ≤ threshold ≤ shares ≤ 255")
	ErrSecretSize     = errors.New("crypto: a secret to split has 1 to 4096 bytes")
	ErrTooFewShares   = errors.New("crypto: fewer than two shares")
	ErrShareLength    = errors.New("crypto: shares differ in length, or have a length no share has")
	ErrDuplicateShare = errors.New("crypto: a share is given twice")
	ErrShareNumber    = errors.New("crypto: a share has number zero")
)

// Split shares secret out so that any threshold of the shares give it back and fewer say nothing about it: A. Shamir, How to Share a
// Secret, CACM 22 (1979), with one polynomial for each byte, all evaluated at the share's x.
//
//	share:  y (as long as the secret) ‖ x (1 byte, not zero)
//
// This is Vault's form, and Combine of either takes the shares of the other. The x are the head of a random permutation of 1…255. Like
// Vault, Split refuses a threshold of 1: there the secret itself is the one share, and who wants that hands it out unsplit.
func Split(secret []byte, shares, threshold int, random io.Reader) ([][]byte, error) {
	if threshold < 2 || shares < threshold || shares > MaxShares {
		return nil, ErrShareCount
	}
	if len(secret) == 0 || len(secret) > maxSecret {
		return nil, ErrSecretSize
	}
	xs, err := permutation(random)
	if err != nil {
		return nil, err
	}
	out := make([][]byte, shares)
	for i := range out {
		out[i] = make([]byte, len(secret)+1)
		out[i][len(secret)] = xs[i]
	}
	polynomial := make([]byte, threshold) // polynomial[n] is the coefficient of x^n
	defer Wipe(polynomial)
	for b, s := range secret {
		polynomial[0] = s
		if _, err := io.ReadFull(random, polynomial[1:]); err != nil {
			return nil, fmt.Errorf("crypto: read randomness: %w", err)
		}
		for i := range out {
			y := byte(0)
			for n := threshold - 1; n >= 0; n-- {
				y = fieldMul(y, xs[i]) ^ polynomial[n]
			}
			out[i][b] = y
		}
	}
	return out, nil
}

// Combine gives back the secret from at least as many shares as the threshold it was split with. With fewer, or with shares of different
// secrets, the result is garbage and there is no error: shares carry no check of their own. See FindShare.
func Combine(shares [][]byte) ([]byte, error) {
	if len(shares) < 2 {
		return nil, ErrTooFewShares
	}
	if len(shares) > MaxShares {
		return nil, ErrDuplicateShare
	}
	size := len(shares[0]) - 1
	if size < 1 || size > maxSecret {
		return nil, ErrShareLength
	}
	var seen [MaxShares + 1]bool
	for _, share := range shares {
		if len(share) != size+1 {
			return nil, ErrShareLength
		}
		x := share[size] // x is not secret: people see it at the end of their share
		if x == 0 {
			return nil, ErrShareNumber
		}
		if seen[x] {
			return nil, ErrDuplicateShare
		}
		seen[x] = true
	}
	secret := make([]byte, size)
	for i, share := range shares {
		// Lagrange's basis polynomial of this share, at zero.
		weight := byte(1)
		for j, other := range shares {
			if i != j {
				weight = fieldMul(weight, fieldMul(other[size], fieldInverse(other[size]^share[size])))
			}
		}
		for b := range secret {
			secret[b] ^= fieldMul(weight, share[b])
		}
	}
	return secret, nil
}

// permutation is 1…255 in random order: Fisher and Yates, with rejection so that all orders are equally likely.
func permutation(random io.Reader) ([MaxShares]byte, error) {
	var p [MaxShares]byte
	for i := range p {
		p[i] = byte(i + 1)
	}
	var draw [1]byte
	for i := len(p) - 1; i > 0; i-- {
		n := i + 1
		for {
			if _, err := io.ReadFull(random, draw[:]); err != nil {
				return p, fmt.Errorf("crypto: read randomness: %w", err)
			}
			if int(draw[0]) < 256-256%n {
				break
			}
		}
		j := int(draw[0]) % n
		p[i], p[j] = p[j], p[i]
	}
	return p, nil
}

// ShareHash recognises one share without holding it. It is no secret beside its salt: a share has as much entropy as the key.
type ShareHash [sha256.Size]byte

// HashShare is HMAC-SHA256(salt, "share" ‖ share). The salt is random, new for each split, and kept beside the hashes.
func HashShare(salt [32]byte, share []byte) ShareHash {
	mac := hmac.New(sha256.New, salt[:])
	io.WriteString(mac, "share")
	mac.Write(share)
	return ShareHash(mac.Sum(nil))
}

// FindShare is the index of h in hashes, or -1. Its time depends on the number of hashes only.
func FindShare(hashes []ShareHash, h ShareHash) int {
	found := -1
	for i := range hashes {
		found = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(hashes[i][:], h[:]), i, found)
	}
	return found
}
