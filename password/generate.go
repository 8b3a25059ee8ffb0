package password

import (
	"errors"
	"io"
	"math/rand/v2"
)

// Bounds of the search for a candidate that meets the rules. Of a policy that passes Try one candidate in some 4,000 does, or
// with luck one in 8,000; that Generate finds none then happens less than once in 10^28 passwords.
const (
	maxCandidates = 1 << 19 // that Generate draws for a password
	tried         = 1 << 16 // that Try draws
	wanted        = 16      // of those
)

// chunk is how many random bytes are read at once.
const chunk = 512

// ErrHardlyMet says that the rules can't be met, or by so few of all candidates that making a password takes too long.
var ErrHardlyMet = errors.New("hardly any text of this length and of these characters meets the rules")

// Generate makes a password. random is where the randomness comes from; what it fails with is returned. Without an error
// of it the only other one is ErrHardlyMet.
func (p *Policy) Generate(random io.Reader) (string, error) {
	source := &bytewise{from: random}
	defer source.forget()
	var indexes [MaxLength]byte
	defer clear(indexes[:])
	for range maxCandidates {
		met, err := p.candidate(source, &indexes)
		if err != nil {
			return "", err
		}
		if !met {
			continue
		}
		characters := make([]rune, p.length)
		defer clear(characters)
		for i := range characters {
			characters[i] = p.alphabet[indexes[i]]
		}
		return string(characters), nil
	}
	return "", ErrHardlyMet
}

// Try finds out whether enough candidates meet the rules for passwords to be made quickly; ErrHardlyMet if not. It draws
// candidates at random, but the same at each call: a policy doesn't pass once and fail once.
func (p *Policy) Try() error {
	source := &bytewise{from: rand.NewChaCha8([32]byte{'t', 'r', 'y'})}
	var indexes [MaxLength]byte
	found := 0
	for range tried {
		met, err := p.candidate(source, &indexes)
		if err != nil {
			return err
		}
		if met {
			found++
		}
		if found == wanted {
			return nil
		}
	}
	return ErrHardlyMet
}

// candidate draws the indexes of a candidate's characters, and reports whether it meets the rules.
func (p *Policy) candidate(source *bytewise, indexes *[MaxLength]byte) (met bool, err error) {
	var counts [MaxRules]int
	for i := range p.length {
		at, err := source.below(len(p.alphabet))
		if err != nil {
			return false, err
		}
		indexes[i] = byte(at)
		p.count(&counts, at)
	}
	return p.met(&counts), nil
}

// bytewise gives out randomness byte by byte.
type bytewise struct {
	from   io.Reader
	buffer [chunk]byte
	left   int // bytes at the buffer's end that weren't given out
}

// below returns a number that is uniform over 0 to n-1; n is at most 256. Bytes from the last incomplete run of n are
// passed over: a remainder of all would favour the first numbers.
func (b *bytewise) below(n int) (int, error) {
	limit := 256 - 256%n
	for {
		if b.left == 0 {
			if _, err := io.ReadFull(b.from, b.buffer[:]); err != nil {
				return 0, err
			}
			b.left = chunk
		}
		drawn := int(b.buffer[chunk-b.left])
		b.left--
		if drawn < limit {
			return drawn % n, nil
		}
	}
}

func (b *bytewise) forget() { clear(b.buffer[:]) }
