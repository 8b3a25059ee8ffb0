package acme

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"net/http"
	"strings"

	"conclave"
)

func (s *Service) revokeRoutes() []conclave.Route {
	return s.everywhere(deed{"revoke-cert", "Revoke a certificate, signed by the account that has it or by the certificate's own key.", byEither, false, s.revoke})
}

// revoke is RFC 8555 section 7.6.
func (s *Service) revoke(x *exchange) (*answer, error) {
	var in struct {
		Certificate string `json:"certificate"`
		Reason      *int   `json:"reason"`
	}
	if err := x.decode(&in); err != nil {
		return nil, err
	}
	if in.Reason != nil {
		switch *in.Reason { // those of RFC 5280 section 5.3.1 that subscribers give
		case 0, 1, 3, 4, 5:
		default:
			return nil, refuse(http.StatusBadRequest, "badRevocationReason", "the reason is not one that subscribers give")
		}
	}
	der, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(in.Certificate, "="))
	if err != nil {
		return nil, malformed("the certificate is not base64url of DER")
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, malformed("the certificate can't be read")
	}
	if err := x.mayRevoke(cert); err != nil {
		return nil, err
	}
	already, err := s.authority.Revoke(x.tx, cert)
	if err != nil {
		return nil, asProblem(err, "malformed")
	}
	if already {
		return nil, refuse(http.StatusBadRequest, "alreadyRevoked", "the certificate is revoked already")
	}
	return &answer{status: http.StatusOK, body: []byte{}}, nil
}

// mayRevoke checks that the request is signed by who may do so.
func (x *exchange) mayRevoke(cert *x509.Certificate) error {
	refused := unauthorized("the certificate is neither the account's nor that of the key")
	if x.account == nil {
		own, err := x509.MarshalPKIXPublicKey(cert.PublicKey)
		if err != nil {
			return refused
		}
		key, err := x509.MarshalPKIXPublicKey(x.key.Key)
		if err != nil || !bytes.Equal(own, key) {
			return refused
		}
		return nil
	}
	owner, err := x.tx.Get(certDir + serialOf(cert))
	if err != nil {
		return err
	}
	if string(owner) != x.account.ID {
		return refused
	}
	return nil
}
