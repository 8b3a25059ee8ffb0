package issuing

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"

	"conclave"
)

// maxCSR bounds a CSR, in bytes of text.
const maxCSR = 64 << 10

var (
	errNoCSR  = conclave.Errorf(conclave.Invalid, `"csr" is empty`)
	errCSR    = conclave.Errorf(conclave.Invalid, "certificate request could not be parsed: PKCS #10 in PEM is wanted")
	errCSRKey = conclave.Errorf(conclave.Invalid, "certificate request is not signed by the key that it is for")
)

// ParseCSR reads a request in PEM, or base64 of DER. It must be signed by the key that it is for.
func ParseCSR(text string) (*x509.CertificateRequest, error) {
	der := bytes.TrimSpace([]byte(text))
	switch {
	case len(der) == 0:
		return nil, errNoCSR
	case len(der) > maxCSR:
		return nil, conclave.Errorf(conclave.TooLarge, "a certificate request has at most %d bytes", maxCSR)
	}
	if block, rest := pem.Decode(der); block != nil {
		if block.Type != "CERTIFICATE REQUEST" && block.Type != "NEW CERTIFICATE REQUEST" || len(bytes.TrimSpace(rest)) > 0 {
			return nil, errCSR
		}
		der = block.Bytes
	} else if decoded, err := base64.StdEncoding.DecodeString(string(der)); err == nil {
		der = decoded
	}
	return ParseCSRBytes(der)
}

// ParseCSRBytes reads a request in DER.
func ParseCSRBytes(der []byte) (*x509.CertificateRequest, error) {
	if len(der) > maxCSR {
		return nil, errCSR
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, errCSR
	}
	// Before a signature is checked, for that takes the longer the larger the key is.
	if _, err := SpecOf(csr.PublicKey); err != nil {
		return nil, err
	}
	if csr.CheckSignature() != nil {
		return nil, errCSRKey
	}
	return csr, nil
}
