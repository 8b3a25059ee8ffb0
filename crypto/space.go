package crypto

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"slices"
	"sync"
)

// Scope says which space boxes belong to: of which cluster, and its number there. A box of one scope doesn't open in another.
type Scope struct {
	Cluster [16]byte
	Space   uint64
}

const (
	formatBox  = 1
	boxHead    = 1 + 4 // format ‖ term
	lengthSize = 4
	padding    = 32

	// MaxPlaintext bounds in bytes what Space seals. It is far above what the store takes; beyond it Seal functions panic.
	MaxPlaintext = 64 << 20

	// BoxOverhead is what a box of a Space has beyond its plaintext padded to 32 bytes, the 4 bytes of length being part of that.
	BoxOverhead = boxHead + Overhead

	scratchLimit = 8 << 10 // scratch above this many bytes isn't kept
)

// Space seals and opens the values and names of one space. It is immutable and safe for concurrent use.
//
//	box:         format 1 (1 byte) ‖ term (4) ‖ nonce (24) ‖ ciphertext of padded ‖ tag (16)
//	padded:      length of plaintext (4) ‖ plaintext ‖ zeros up to the next multiple of 32 bytes
//	additional:  format ‖ term, cluster, space, kind "value", state key, name, version   (of a value)
//	             format ‖ term, cluster, space, kind "name", state key                   (of a name)
//
// Integers are big-endian, and every field of the additional data has its length before it, in 4 bytes.
type Space struct {
	redacted
	active  *term
	terms   map[uint32]*term // number → ready to use
	scratch sync.Pool        // of *scratch
}

// term is one data key made ready, with the part of the additional data that doesn't change.
type term struct {
	number uint32
	aead   *AEAD
	value  []byte
	name   []byte
}

// scratch is what a call needs for a moment: a keyed HMAC, and a buffer for additional data.
type scratch struct {
	mac    hash.Hash
	buffer []byte
}

// OpenSpace makes the keys of scope's space ready. keys may be changed or wiped afterwards.
func OpenSpace(scope Scope, keys *SpaceKeys) (*Space, error) {
	if _, ok := keys.Data[keys.Active]; !ok || len(keys.Data) > MaxTerms {
		return nil, fmt.Errorf("open space %d: %w", scope.Space, ErrFormat)
	}
	s := &Space{terms: make(map[uint32]*term, len(keys.Data))}
	for number, key := range keys.Data {
		aead, err := NewAEAD(key[:])
		if err != nil {
			return nil, fmt.Errorf("open space %d: %w", scope.Space, err)
		}
		head := appendField(nil, binary.BigEndian.AppendUint32([]byte{formatBox}, number))
		head = appendField(head, scope.Cluster[:])
		head = appendField(head, binary.BigEndian.AppendUint64(nil, scope.Space))
		s.terms[number] = &term{
			number: number,
			aead:   aead,
			value:  appendField(slices.Clone(head), "value"),
			name:   appendField(slices.Clone(head), "name"),
		}
	}
	s.active = s.terms[keys.Active]
	nameKey := keys.Name
	s.scratch.New = func() any { return &scratch{mac: hmac.New(sha256.New, nameKey[:])} }
	return s, nil
}

// Child is the token of segment below parent, as NameKey.Child computes it.
func (s *Space) Child(parent Token, segment string) Token {
	t := s.borrow()
	defer s.giveBack(t)
	t.mac.Reset()
	t.buffer = append(append(t.buffer, parent[:]...), segment...)
	t.mac.Write(t.buffer)
	t.buffer = t.mac.Sum(t.buffer)
	return Token(t.buffer[len(t.buffer)-sha256.Size:][:len(Token{})])
}

// SealValue appends to dst a box of plaintext that opens only at this state key, under this name (the segment asked for) and at this
// version. plaintext must not overlap dst's spare room, nor exceed MaxPlaintext.
func (s *Space) SealValue(dst []byte, key []byte, name string, version uint64, plaintext []byte) []byte {
	t := s.borrow()
	defer s.giveBack(t)
	t.buffer = s.active.valueAdditional(t.buffer, key, name, version)
	return sealPadded(s.active, dst, plaintext, t.buffer)
}

// OpenValue appends to dst the plaintext of a box that SealValue made with the same key, name and version; otherwise ErrOpen. box must
// not overlap dst's spare room.
func (s *Space) OpenValue(dst, key []byte, name string, version uint64, box []byte) ([]byte, error) {
	sealer := s.sealer(box)
	if sealer == nil {
		return nil, ErrOpen
	}
	t := s.borrow()
	defer s.giveBack(t)
	t.buffer = sealer.valueAdditional(t.buffer, key, name, version)
	return openPadded(sealer, dst, box, t.buffer)
}

// SealName appends to dst a box of name that opens only at this state key. There is no version: a name never changes under its key.
func (s *Space) SealName(dst, key []byte, name string) []byte {
	t := s.borrow()
	defer s.giveBack(t)
	t.buffer = appendField(append(t.buffer, s.active.name...), key)
	return sealPadded(s.active, dst, name, t.buffer)
}

// OpenName gives back a name that SealName sealed at the same state key; otherwise ErrOpen. That Child(parent, name) is the key's token
// remains for the caller to check.
func (s *Space) OpenName(key, box []byte) (string, error) {
	sealer := s.sealer(box)
	if sealer == nil {
		return "", ErrOpen
	}
	t := s.borrow()
	defer s.giveBack(t)
	t.buffer = appendField(append(t.buffer, sealer.name...), key)
	name, err := openPadded(sealer, nil, box, t.buffer)
	if err != nil {
		return "", err
	}
	return string(name), nil
}

// Term says which term a box claims to be sealed with, or ErrOpen if it isn't the shape of a box. Only opening proves the claim.
func (s *Space) Term(box []byte) (uint32, error) {
	if len(box) < BoxOverhead+padding || (len(box)-BoxOverhead)%padding != 0 || box[0] != formatBox {
		return 0, ErrOpen
	}
	return binary.BigEndian.Uint32(box[1:boxHead]), nil
}

// ActiveTerm is the term that new boxes are sealed with.
func (s *Space) ActiveTerm() uint32 { return s.active.number }

// sealer is the term whose key opens box, or nil.
func (s *Space) sealer(box []byte) *term {
	number, err := s.Term(box)
	if err != nil {
		return nil
	}
	return s.terms[number]
}

func (s *Space) borrow() *scratch { return s.scratch.Get().(*scratch) }

// giveBack clears the buffer, which held names, and keeps t for the next call.
func (s *Space) giveBack(t *scratch) {
	Wipe(t.buffer)
	if cap(t.buffer) > scratchLimit {
		t.buffer = nil
	}
	t.buffer = t.buffer[:0]
	s.scratch.Put(t)
}

func (t *term) valueAdditional(b, key []byte, name string, version uint64) []byte {
	b = append(b, t.value...)
	b = appendField(b, key)
	b = appendField(b, name)
	b = binary.BigEndian.AppendUint32(b, 8)
	return binary.BigEndian.AppendUint64(b, version)
}

// sealPadded builds the padded plaintext in dst, where it is then encrypted in place.
func sealPadded[T string | []byte](t *term, dst []byte, plaintext T, additional []byte) []byte {
	if len(plaintext) > MaxPlaintext {
		panic(fmt.Sprintf("crypto: plaintext of %d bytes, at most %d", len(plaintext), MaxPlaintext))
	}
	padded := (lengthSize + len(plaintext) + padding - 1) / padding * padding
	dst = slices.Grow(dst, BoxOverhead+padded)
	dst = append(dst, formatBox)
	dst = binary.BigEndian.AppendUint32(dst, t.number)
	body := len(dst) + NonceSize
	nonce := dst[len(dst):body]
	rand.Read(nonce)
	plain := binary.BigEndian.AppendUint32(dst[:body], uint32(len(plaintext)))
	plain = append(plain, plaintext...)
	end := body + padded
	clear(plain[len(plain):end])
	return t.aead.seal(dst[:body], nonce, dst[body:end], additional)
}

func openPadded(t *term, dst, box, additional []byte) ([]byte, error) {
	start := len(dst)
	out, err := t.aead.Open(dst, box[boxHead:], additional)
	if err != nil {
		return nil, ErrOpen
	}
	padded := out[start:]
	length := binary.BigEndian.Uint32(padded)
	if uint64(length) > uint64(len(padded)-lengthSize) {
		return nil, ErrOpen
	}
	end := lengthSize + int(length)
	if len(padded)-end >= padding || !bytes.Equal(padded[end:], make([]byte, padding)[:len(padded)-end]) {
		return nil, ErrOpen
	}
	copy(padded, padded[lengthSize:end])
	return out[:start+int(length)], nil
}
