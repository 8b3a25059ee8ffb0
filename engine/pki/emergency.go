package pki

import (
	"conclave"
	"conclave/engine/pki/revocation"
)

var _ conclave.Emergency = Engine{}

// Exposed lists certificates that can be revoked. Those of roles with no_store aren't known.
func (Engine) Exposed(view conclave.View, exposure conclave.Exposure, after string, limit int) ([]conclave.Exposed, string, error) {
	return revocation.Exposed(view, exposure, after, limit)
}

// TakeBack revokes a certificate.
func (Engine) TakeBack(tx conclave.Tx, item conclave.Exposed) error {
	return revocation.TakeBack(tx, item)
}
