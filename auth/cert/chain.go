package cert

import (
	"crypto/subtle"
	"crypto/x509"
	"slices"
	"time"

	"conclave"
)

// Limits of what a client presents.
const (
	maxPresented      = 16
	maxPresentedBytes = 128 << 10
	maxCommonName     = 512 // bytes; the name of an alias
)

var (
	errNoCertificate = conclave.Errorf(conclave.Invalid, "client certificate must be supplied")
	errUntrusted     = conclave.Errorf(conclave.Invalid, "invalid certificate or no client certificate supplied")
	errConstraints   = conclave.Errorf(conclave.Invalid, "no chain matching all constraints could be found for this login certificate")
	errTooManyRoles  = conclave.Errorf(conclave.Invalid, "there are more than %d roles: the login must name one", maxRoles)
)

// candidate is a role that trusts the presented certificate, with the chain by which it does, leaf first. Nothing is left
// to ask but OCSP responders.
type candidate struct {
	*trusted
	chain []*x509.Certificate
}

// presented are the certificates that the client presents, leaf first. TLS has shown that it holds the leaf's key.
func presented(req *conclave.Request) ([]*x509.Certificate, error) {
	if req == nil || len(req.PresentedCertificates) == 0 {
		return nil, errNoCertificate
	}
	size := 0
	certs := make([]*x509.Certificate, len(req.PresentedCertificates))
	for i, der := range req.PresentedCertificates {
		cert, err := x509.ParseCertificate(der)
		if size += len(der); err != nil || len(certs) > maxPresented || size > maxPresentedBytes {
			return nil, errUntrusted
		}
		certs[i] = cert
	}
	return certs, nil
}

// candidates finds the roles that trust what the client presents, in order of their names: name's alone, or all. Revocation
// lists that have ended refuse nobody yet if they mayBeFetched again.
func candidates(view conclave.View, certs []*x509.Certificate, name string, mayBeFetched bool) ([]candidate, error) {
	roles, err := rolesFor(view, name)
	if err != nil {
		return nil, err
	}
	leaf := certs[0]
	if !mayAuthenticate(leaf) {
		return nil, errUntrusted
	}
	chains := chainsTo(roles, certs, view.Now())
	lists, err := loadLists(view)
	if err != nil {
		return nil, err
	}
	var found []candidate
	refusal := errUntrusted
	for _, role := range roles {
		for _, chain := range role.trustedOf(certs, chains) {
			if refusal == errUntrusted {
				refusal = errConstraints
			}
			judged := chain
			if role.isPin {
				judged = chain[:1] // it is trusted whatever became of its issuer
			}
			if !role.meets(leaf) || !areValid(view, judged) {
				continue
			}
			switch why, err := lists.refuse(view, judged, mayBeFetched); {
			case err != nil:
				return nil, err
			case why != nil:
				refusal = why
				continue
			}
			found = append(found, candidate{role, chain})
			break
		}
	}
	if len(found) == 0 {
		return nil, refusal
	}
	return found, nil
}

func rolesFor(view conclave.View, name string) ([]*trusted, error) {
	names := []string{name}
	if name == "" {
		var err error
		if names, err = view.List("certs/", "", maxRoles+1); err != nil {
			return nil, err
		}
		if len(names) > maxRoles {
			return nil, errTooManyRoles
		}
	}
	roles := make([]*trusted, 0, len(names))
	for _, name := range names {
		role, err := loadRole(view, name)
		if err != nil {
			return nil, err
		}
		if role != nil {
			roles = append(roles, role)
		}
	}
	return roles, nil
}

// mayAuthenticate reports whether a certificate's key may be used to log in: it may sign, and it may be a client's. An
// extension that is critical and unknown forbids the use (RFC 5280, 4.2).
func mayAuthenticate(leaf *x509.Certificate) bool {
	if len(leaf.UnhandledCriticalExtensions) > 0 || len(leaf.Subject.CommonName) > maxCommonName {
		return false
	}
	if leaf.KeyUsage != 0 && leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		return false
	}
	return len(leaf.ExtKeyUsage) == 0 && len(leaf.UnknownExtKeyUsage) == 0 || slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageClientAuth) ||
		slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny)
}

// chainsTo are the chains from the leaf to any authority of roles, checked as RFC 5280 says: signatures, validity, length
// of the path, uses, name constraints.
func chainsTo(roles []*trusted, certs []*x509.Certificate, now time.Time) [][]*x509.Certificate {
	options := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	for _, role := range roles {
		if role.isPin {
			continue
		}
		for _, anchor := range role.anchors {
			if anchor.IsCA {
				options.Roots.AddCert(anchor)
			}
		}
	}
	for _, cert := range certs[1:] {
		options.Intermediates.AddCert(cert)
	}
	chains, err := certs[0].Verify(options)
	if err != nil {
		return nil
	}
	return chains
}

// trustedOf picks the chains that the role trusts. A pinned certificate is trusted if it is the presented one, to the
// last bit: same name, number or key are not enough.
func (t *trusted) trustedOf(certs []*x509.Certificate, chains [][]*x509.Certificate) [][]*x509.Certificate {
	if t.isPin {
		if !isSame(t.anchors[0], certs[0]) {
			return nil
		}
		return [][]*x509.Certificate{t.pinnedChain()}
	}
	var found [][]*x509.Certificate
	for _, chain := range chains {
		if slices.ContainsFunc(chain, func(cert *x509.Certificate) bool { return slices.ContainsFunc(t.anchors, cert.Equal) }) {
			found = append(found, chain)
		}
	}
	return found
}

// pinnedChain is the pinned certificate with its issuer, if the role has that too: OCSP needs it.
func (t *trusted) pinnedChain() []*x509.Certificate {
	pin := t.anchors[0]
	for _, issuer := range t.anchors[1:] {
		if pin.CheckSignatureFrom(issuer) == nil {
			return []*x509.Certificate{pin, issuer}
		}
	}
	return []*x509.Certificate{pin}
}

func isSame(a, b *x509.Certificate) bool { return subtle.ConstantTimeCompare(a.Raw, b.Raw) == 1 }

// areValid judges by cluster time, and binds the transaction to a time for which the answer is the same.
func areValid(view conclave.View, chain []*x509.Certificate) bool {
	for _, cert := range chain {
		if !view.Reached(cert.NotBefore) || view.Reached(cert.NotAfter.Add(time.Second)) {
			return false
		}
	}
	return true
}
