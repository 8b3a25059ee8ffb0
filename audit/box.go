package audit

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"conclave"
	"conclave/crypto"
)

// SaltSize is the length in bytes of a record's salt. It keeps the digest of a record from being guessed by whoever can guess the record.
const SaltSize = 16

// Digest is SHA-256(salt ‖ record): what the chain and the tree hold of a record.
type Digest = [sha256.Size]byte

// A box is how a record is stored: encrypted to the nodes that are unsealed, or, by a sealed node, to the audit public key.
//
//	box 1:       format 1 (1 byte) ‖ epoch (4, big-endian) ‖ crypto.AEAD box of salt (16) ‖ record
//	box 2:       format 2 (1 byte) ‖ crypto.SealTo box of salt (16) ‖ record
//	additional:  "conclave audit box" ‖ format ‖ epoch (box 1 only) ‖ cluster id (16) ‖ digest (32)
const (
	formatBox    = 1
	formatPublic = 2

	boxHead      = 1 + 4
	publicHead   = 1
	boxPurpose   = "conclave audit box"
	boxOverhead  = boxHead + crypto.Overhead + SaltSize
	openOverhead = publicHead + crypto.HPKEOverhead + SaltSize

	// MaxRecord bounds a record in bytes, so that its box of either format fits a frame.
	MaxRecord = MaxBox - openOverhead
)

// Sealer encrypts records under one key. It is immutable and safe for concurrent use.
type Sealer struct {
	cluster [16]byte
	epoch   uint32
	aead    *crypto.AEAD // nil: seal to public
	public  []byte
}

// NewSealer makes the sealer of an unsealed node: key is the keyring's audit data key of the active epoch, and may be wiped afterwards.
func NewSealer(cluster [16]byte, epoch uint32, key crypto.Key) (*Sealer, error) {
	aead, err := crypto.NewAEAD(key[:])
	if err != nil {
		return nil, err
	}
	return &Sealer{cluster: cluster, epoch: epoch, aead: aead}, nil
}

// NewPublicSealer makes the sealer of a sealed node, which can't read what it has written. public is the HPKE public key of the seal blob.
func NewPublicSealer(cluster [16]byte, public []byte) (*Sealer, error) {
	if _, err := crypto.SealTo(public, nil, nil, nil); err != nil {
		return nil, fmt.Errorf("audit public key: %w", err)
	}
	return &Sealer{cluster: cluster, public: public}, nil
}

// Seal encrypts a record under a fresh salt. A record over MaxRecord is an error of kind conclave.TooLarge.
func (s *Sealer) Seal(record []byte) (Digest, []byte, error) {
	if len(record) > MaxRecord {
		return Digest{}, nil, conclave.Errorf(conclave.TooLarge, "the request's audit record is larger than %d bytes", MaxRecord)
	}
	plain := make([]byte, SaltSize, SaltSize+len(record))
	rand.Read(plain)
	plain = append(plain, record...)
	digest := sha256.Sum256(plain)
	if s.aead == nil {
		head := []byte{formatPublic}
		box, err := crypto.SealTo(s.public, []byte(boxPurpose), boxAdditional(head, s.cluster, digest), plain)
		if err != nil {
			return Digest{}, nil, fmt.Errorf("seal audit record: %w", err)
		}
		return digest, append(head, box...), nil
	}
	box := make([]byte, 0, boxOverhead+len(record))
	box = binary.BigEndian.AppendUint32(append(box, formatBox), s.epoch)
	return digest, s.aead.Seal(box, plain, boxAdditional(box, s.cluster, digest)), nil
}

func boxAdditional(head []byte, cluster [16]byte, digest Digest) []byte {
	b := make([]byte, 0, len(boxPurpose)+boxHead+len(cluster)+len(digest))
	b = append(append(b, boxPurpose...), head...)
	return append(append(b, cluster[:]...), digest[:]...)
}

// Opener decrypts records. It is immutable and safe for concurrent use.
type Opener struct {
	cluster [16]byte
	epochs  map[uint32]*crypto.AEAD // epoch → its key, ready
	private []byte
}

// NewOpener makes an opener of the audit keys in a keyring: data keys by epoch, and the HPKE private key. The keys may be wiped
// afterwards.
func NewOpener(cluster [16]byte, keys map[uint32]crypto.Key, private []byte) (*Opener, error) {
	o := &Opener{cluster, make(map[uint32]*crypto.AEAD, len(keys)), append([]byte(nil), private...)}
	for epoch, key := range keys {
		aead, err := crypto.NewAEAD(key[:])
		if err != nil {
			return nil, err
		}
		o.epochs[epoch] = aead
	}
	return o, nil
}

// String redacts.
func (o *Opener) String() string { return "[redacted]" }

// GoString redacts.
func (o *Opener) GoString() string { return "[redacted]" }

// Has reports whether the opener has the key that a box names.
func (o *Opener) Has(box []byte) bool {
	if len(box) < boxHead || box[0] != formatBox {
		return true // under the one key for sealed nodes, or no box
	}
	return o.epochs[binary.BigEndian.Uint32(box[1:])] != nil
}

// Open returns what Seal was given, and its salt. Every other box, every other digest, and a key that was destroyed give crypto.ErrOpen.
func (o *Opener) Open(digest Digest, box []byte) (salt [SaltSize]byte, record []byte, err error) {
	var plain []byte
	switch {
	case len(box) > MaxBox:
		err = crypto.ErrOpen
	case len(box) >= boxOverhead && box[0] == formatBox:
		aead := o.epochs[binary.BigEndian.Uint32(box[1:])]
		if aead == nil {
			return salt, nil, fmt.Errorf("audit key of epoch %d isn't there: %w", binary.BigEndian.Uint32(box[1:]), crypto.ErrOpen)
		}
		plain, err = aead.Open(nil, box[boxHead:], boxAdditional(box[:boxHead], o.cluster, digest))
	case len(box) >= openOverhead && box[0] == formatPublic:
		plain, err = crypto.OpenWith(o.private, []byte(boxPurpose), boxAdditional(box[:publicHead], o.cluster, digest), box[publicHead:])
	default:
		err = crypto.ErrOpen
	}
	if err != nil {
		return salt, nil, err
	}
	if sha256.Sum256(plain) != digest {
		return salt, nil, crypto.ErrOpen
	}
	return [SaltSize]byte(plain), plain[SaltSize:], nil
}
