package revocation

import (
	"crypto/x509"
	"slices"
	"strings"

	"conclave"
	"conclave/engine/pki/authority"
	"conclave/engine/pki/stored"
)

// exposedKind is what an emergency calls a certificate.
const exposedKind = "certificate"

// Exposed lists certificates that are kept, valid, not revoked and no issuer's. Who got one, and by which role, isn't known.
func Exposed(view conclave.View, exposure conclave.Exposure, after string, limit int) (items []conclave.Exposed, next string, err error) {
	if !exposure.Covers("cert") {
		return nil, "", nil
	}
	shards, err := view.List("cert/", "", 0)
	if err != nil {
		return nil, "", err
	}
	at, last, _ := strings.Cut(after, "/")
	looked := 0
	for _, shard := range shards {
		if after != "" && shard < at+"/" {
			continue
		}
		from := ""
		if after != "" && shard == at+"/" {
			from = last
		}
		serials, err := conclave.Some(view, "cert/"+shard, from, limit-looked)
		if err != nil {
			return nil, "", err
		}
		for _, serial := range serials {
			if is, err := isExposed(view, serial); err != nil {
				return nil, "", err
			} else if is {
				items = append(items, conclave.Exposed{Kind: exposedKind, Name: serial})
			}
			next = shard + serial
		}
		if looked += len(serials); looked >= limit {
			return items, next, nil
		}
	}
	return items, "", nil
}

func isExposed(view conclave.View, serial string) (bool, error) {
	gone, err := Lookup(view, serial)
	if err != nil || gone != nil {
		return false, err
	}
	kept, err := stored.LoadCert(view, serial)
	if err != nil {
		return false, err
	}
	cert, err := x509.ParseCertificate(kept.DER)
	if err != nil {
		return false, stored.ErrFormat
	}
	if view.Reached(cert.NotAfter) {
		return false, nil
	}
	issuers, err := authority.Issuers(view)
	return !slices.ContainsFunc(issuers, func(issuer *authority.Issuer) bool { return issuer.Cert.Equal(cert) }), err
}

// TakeBack revokes one, unless it is gone.
func TakeBack(tx conclave.Tx, item conclave.Exposed) error {
	kept, err := stored.LoadCert(tx, item.Name)
	if conclave.Is(err, conclave.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	cert, err := x509.ParseCertificate(kept.DER)
	if err != nil {
		return stored.ErrFormat
	}
	_, err = revoke(tx, cert, kept.Authority)
	return err
}
