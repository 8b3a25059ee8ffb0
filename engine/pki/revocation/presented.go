package revocation

import (
	"crypto/x509"

	"conclave"
	"conclave/engine/pki/stored"
)

// RevokePresented revokes a certificate that somebody shows, who may have it revoked. It must be of one of the mount's
// issuers, and no issuer's own; Invalid otherwise. already: it was revoked before, or has ended.
func RevokePresented(tx conclave.Tx, cert *x509.Certificate) (already bool, err error) {
	of, err := ours(tx, cert)
	if err != nil {
		return false, err
	}
	if err := refuseIssuer(tx, cert); err != nil {
		return false, err
	}
	before, err := Lookup(tx, stored.SerialName(cert.SerialNumber))
	if err != nil {
		return false, err
	}
	if tx.Reached(cert.NotAfter) {
		return true, nil
	}
	_, err = revoke(tx, cert, of)
	return before != nil && err == nil, err
}
