package stored

import (
	"crypto/x509"
	"encoding/hex"
	"math/big"
	"strings"
	"time"

	"conclave"
)

// ParseSerial reads a serial number as clients write it: pairs of hexadecimal digits with colons or hyphens between them, or
// without. The result is the name under which a certificate is stored.
func ParseSerial(text string) (string, error) {
	refused := conclave.Errorf(conclave.Invalid, "a serial number is written in hexadecimal digits, as in 3b:9d:01")
	digits := strings.ToLower(text)
	if strings.ContainsAny(digits, ":-") {
		parts := strings.FieldsFunc(digits, func(c rune) bool { return c == ':' || c == '-' })
		for _, part := range parts {
			if len(part) != 2 {
				return "", refused
			}
		}
		if len(digits) != 3*len(parts)-1 {
			return "", refused
		}
		digits = strings.Join(parts, "")
	}
	b, err := hex.DecodeString(digits)
	if err != nil || len(b) == 0 || len(b) > 32 {
		return "", refused
	}
	return SerialName(new(big.Int).SetBytes(b)), nil
}

// SerialName is the name under which a certificate is stored: its serial number in hexadecimal, whole bytes.
func SerialName(serial *big.Int) string {
	b := serial.Bytes()
	if len(b) == 0 {
		b = []byte{0}
	}
	return hex.EncodeToString(b)
}

// SerialText is how clients see a serial number: 3b:9d:01.
func SerialText(name string) string {
	var b strings.Builder
	for i := 0; i+1 < len(name); i += 2 {
		if i > 0 {
			b.WriteByte(':')
		}
		b.WriteString(name[i : i+2])
	}
	return b.String()
}

// shard is the last byte of a serial number: imported certificates may be numbered from 1 on, and those we number are
// random throughout.
func shard(serial string) string { return serial[len(serial)-2:] + "/" }

// CertPath is where a certificate is stored.
func CertPath(serial string) string { return "cert/" + shard(serial) + serial }

// RevokedPath is where it is stored that a certificate is revoked.
func RevokedPath(serial string) string { return "revoked/" + shard(serial) + serial }

// ExpiryPath is where a certificate is found by its end.
func ExpiryPath(at time.Time, serial string) string {
	return "expiry/" + at.UTC().Format("20060102/15/") + serial
}

// Certificate is a stored certificate.
//
//	0x01 | authority, 16 bytes | DER, to the end
type Certificate struct {
	Authority string
	DER       []byte
}

const tagCertificate = 0x01

func (c *Certificate) Encode() ([]byte, error) {
	name, err := hex.DecodeString(c.Authority)
	if err != nil || len(name) != 16 {
		return nil, ErrFormat
	}
	return append(append([]byte{tagCertificate}, name...), c.DER...), nil
}

// DecodeCertificate reads the stored form.
func DecodeCertificate(b []byte) (*Certificate, error) {
	if len(b) < 18 || b[0] != tagCertificate {
		return nil, ErrFormat
	}
	return &Certificate{hex.EncodeToString(b[1:17]), b[17:]}, nil
}

// Keep stores a certificate.
func Keep(tx conclave.Tx, cert *x509.Certificate, of string) error {
	serial := SerialName(cert.SerialNumber)
	there, err := tx.Get(CertPath(serial))
	if err != nil {
		return err
	}
	if there != nil {
		return conclave.Errorf(conclave.Unavailable, "the serial number is taken: try again")
	}
	value, err := (&Certificate{of, cert.Raw}).Encode()
	if err != nil {
		return err
	}
	if err := tx.Put(CertPath(serial), value); err != nil {
		return err
	}
	if err := tx.Put(ExpiryPath(cert.NotAfter, serial), []byte{1}); err != nil {
		return err
	}
	return watch(tx)
}

// LoadCert is a certificate that is kept; NotFound if there is none.
func LoadCert(view conclave.View, serial string) (*Certificate, error) {
	value, err := view.Get(CertPath(serial))
	if err != nil {
		return nil, err
	}
	if value == nil {
		return nil, NotFound()
	}
	return DecodeCertificate(value)
}
