package cert

import (
	"bytes"
	"crypto/x509"
	"slices"

	"conclave"
)

// lists are all revocation lists of a mount.
type lists []*list

func loadLists(view conclave.View) (lists, error) {
	names, err := view.List("crls/", "", maxCRLs)
	if err != nil {
		return nil, err
	}
	all := make(lists, 0, len(names))
	for _, name := range names {
		l, err := loadList(view, name)
		if err != nil {
			return nil, err
		}
		if l != nil {
			all = append(all, l)
		}
	}
	return all, nil
}

// refuse says why a chain can't log in: a list of the issuer of one of its certificates has it, or says nothing any more. The
// end of a list doesn't count yet if that may still be fetched.
func (all lists) refuse(view conclave.View, chain []*x509.Certificate, mayBeFetched bool) (why *conclave.Error, err error) {
	for _, cert := range chain {
		for _, l := range all {
			if !l.speaksOf(cert) {
				continue
			}
			serials, err := l.load(view, l.shard(cert.SerialNumber))
			if err != nil {
				return nil, err
			}
			if _, found := slices.BinarySearch(serials, cert.SerialNumber.String()); found {
				return errRevoked, nil
			}
			if !l.AcceptExpired && l.isOver(view) && !(mayBeFetched && l.URL != "") {
				why = errOutdated
			}
		}
	}
	return why, nil
}

// speaksOf reports whether the issuer of a certificate is the list's: by name, or by key where the name is encoded otherwise.
func (l *list) speaksOf(cert *x509.Certificate) bool {
	return bytes.Equal(l.Issuer, cert.RawIssuer) || len(l.AuthorityKey) > 0 && bytes.Equal(l.AuthorityKey, cert.AuthorityKeyId)
}
