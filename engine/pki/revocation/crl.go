package revocation

import (
	"context"
	"fmt"
	"slices"

	"conclave"
	"conclave/engine/pki/authority"
	"conclave/engine/pki/issuing"
	"conclave/engine/pki/stored"
)

// crlRoutes are those of revocation lists. unified-… are the same lists: all nodes have one state.
func crlRoutes() []conclave.Route {
	var routes []conclave.Route
	for _, list := range []struct {
		name    string
		isDelta bool
	}{{"crl", false}, {"crl/delta", true}, {"unified-crl", false}, {"unified-crl/delta", true}} {
		for suffix, isPEM := range map[string]bool{"": false, "/der": false, "/pem": true} {
			routes = append(routes, conclave.ReadRoute(conclave.Read, "issuer/{issuer_ref}/"+list.name+suffix, "Get an issuer's revocation list.",
				func(_ context.Context, view conclave.View, in *authority.Param) (*conclave.Response, error) {
					return rawCRL(view, in.Issuer, list.isDelta, isPEM)
				}).With(conclave.Public))
			if suffix == "/der" {
				continue
			}
			routes = append(routes, conclave.ReadRoute(conclave.Read, list.name+suffix, "Get the default issuer's revocation list.",
				func(_ context.Context, view conclave.View, _ *conclave.None) (*conclave.Response, error) {
					return rawCRL(view, authority.DefaultRef, list.isDelta, isPEM)
				}).With(conclave.Public))
		}
	}
	for name, isDelta := range map[string]bool{"cert/crl": false, "cert/delta-crl": true, "cert/unified-crl": false, "cert/unified-delta-crl": true} {
		routes = append(routes, conclave.ReadRoute(conclave.Read, name, "Read the default issuer's revocation list.",
			func(_ context.Context, view conclave.View, _ *conclave.None) (*conclave.Response, error) {
				return certCRL(view, isDelta)
			}).With(conclave.Public))
	}
	routes = append(routes,
		conclave.ReadRoute(conclave.Read, "cert/crl/raw", "Get the default issuer's revocation list, DER.", func(_ context.Context, view conclave.View, _ *conclave.None) (*conclave.Response, error) {
			return rawCRL(view, authority.DefaultRef, false, false)
		}).With(conclave.Public))
	for _, op := range []conclave.Operation{conclave.Read, conclave.Update} {
		routes = append(routes,
			conclave.WriteRoute(op, "crl/rotate", "Publish new revocation lists, which deltas begin with from now on.", rotate(true)),
			conclave.WriteRoute(op, "crl/rotate-delta", "Publish new delta revocation lists.", rotate(false)))
	}
	return routes
}

// publisher is an issuer of an authority that may sign for a use, with its key: the one that is named, or another one
// with the same name and key.
func publisher(view conclave.View, named *authority.Issuer, use string) (*authority.Issuer, *authority.Key, error) {
	candidates := []*authority.Issuer{named}
	if !named.MayDo(use) || named.KeyID == "" {
		list, err := authority.Issuers(view)
		if err != nil {
			return nil, nil, err
		}
		candidates = slices.DeleteFunc(list, func(issuer *authority.Issuer) bool { return issuer.Authority() != named.Authority() })
	}
	for _, issuer := range candidates {
		if !issuer.MayDo(use) || issuer.KeyID == "" {
			continue
		}
		if key, err := authority.LoadKey(view, issuer.KeyID); err != nil || key != nil {
			return issuer, key, err
		}
	}
	return nil, nil, conclave.Errorf(conclave.Invalid, "the issuer may not sign for this use, or its private key isn't here")
}

// signedList makes an issuer's revocation list. It is a function of what is stored and of the period of time, the same on
// every node, so the transaction is bound to that period.
func signedList(view conclave.View, ref string, isDelta bool) ([]byte, error) {
	named, err := authority.There(view, ref)
	if err != nil {
		return nil, err
	}
	config, err := crlConfig(view)
	if err != nil {
		return nil, err
	}
	if isDelta && !config.EnableDelta {
		return nil, conclave.Errorf(conclave.NotFound, "delta CRLs are not enabled")
	}
	issuer, key, err := publisher(view, named, authority.UsageCRL)
	if err != nil {
		return nil, err
	}
	head, err := register(view, issuer.Authority())
	if err != nil {
		return nil, err
	}
	if head.Changed == 0 && config.Changed == 0 {
		began := *head
		began.Changed = issuer.Cert.NotBefore.UnixNano()
		head = &began
	}
	edition, until := config.Edition(head, view.Now())
	list := &List{Expiry: config.Expiry.Duration(), IsDelta: isDelta}
	if isDelta {
		edition, until = config.DeltaEdition(head, view.Now())
		list.Expiry = config.DeltaExpiry()
	}
	view.Reached(until)
	list.Edition = edition
	if list.Algorithm, err = authority.AlgorithmOf(issuer.Cert, issuer.Algorithm); err != nil {
		return nil, err
	}
	urls, err := authority.URLsOf(view, issuer)
	if err != nil {
		return nil, err
	}
	if config.EnableDelta && !isDelta && len(urls.DeltaCRL) > 0 {
		extension, err := issuing.FreshestCRL(urls.DeltaCRL)
		if err != nil {
			return nil, err
		}
		list.Extra = append(list.Extra, extension)
	}
	// The register's head changes with each entry, so a list that was made of it is right as long as the head is.
	of := fmt.Sprintf("%s %x %+v %v %v %d %v", issuer.ID, issuer.Cert.SubjectKeyId, edition, isDelta, config.Disable, list.Algorithm, list.Extra)
	return head.Made(of+list.Expiry.String(), func() ([]byte, error) {
		if !config.Disable {
			if list.Sheets, err = sheets(view, issuer.Authority(), head, isDelta, edition); err != nil {
				return nil, err
			}
		}
		return list.Sign(issuer.Cert, issuing.Steady(key.Signer))
	})
}

// sheets are the register's entries; for a delta only the sheets that can have some after its base.
func sheets(view conclave.View, of string, head *Head, isDelta bool, edition Edition) ([]*Sheet, error) {
	var list []*Sheet
	for n := head.Next; n > head.First; n-- {
		sheet, err := loadSheet(view, of, n-1)
		if err != nil {
			return nil, err
		}
		if sheet == nil {
			continue
		}
		if isDelta && sheet.Entries[len(sheet.Entries)-1].At <= edition.Base {
			break
		}
		list = append(list, sheet)
	}
	slices.Reverse(list)
	return list, nil
}

func rawCRL(view conclave.View, ref string, isDelta, isPEM bool) (*conclave.Response, error) {
	der, err := signedList(view, ref, isDelta)
	if err != nil {
		return nil, err
	}
	if isPEM {
		return authority.Raw("application/x-pem-file", []byte(issuing.PEM("X509 CRL", der)+"\n")), nil
	}
	return authority.Raw(authority.TypeCRL, der), nil
}

func certCRL(view conclave.View, isDelta bool) (*conclave.Response, error) {
	der, err := signedList(view, authority.DefaultRef, isDelta)
	if err != nil {
		return nil, err
	}
	return &conclave.Response{Data: &crlOut{Certificate: issuing.PEM("X509 CRL", der) + "\n"}}, nil
}

type crlOut struct {
	Certificate    string `json:"certificate"`
	RevocationTime int64  `json:"revocation_time"`
}

type rotateOut struct {
	Success bool `json:"success" doc:"Always true."`
}

// rotate touches the registers of all authorities.
func rotate(isComplete bool) func(context.Context, conclave.Tx, *conclave.None) (*rotateOut, error) {
	return func(_ context.Context, tx conclave.Tx, _ *conclave.None) (*rotateOut, error) {
		list, err := authority.Issuers(tx)
		if err != nil {
			return nil, err
		}
		config, err := crlConfig(tx)
		if err != nil {
			return nil, err
		}
		done := map[string]bool{}
		for _, issuer := range list {
			of := issuer.Authority()
			if done[of] || issuer.KeyID == "" {
				continue
			}
			done[of] = true
			old, err := register(tx, of)
			if err != nil {
				return nil, err
			}
			head := *old
			head.Changed = old.Touch(tx.Now(), config)
			if isComplete {
				head.Base = head.Changed
			}
			if err := stored.Put(tx, "register/"+of+"/head", &head); err != nil {
				return nil, err
			}
		}
		return &rotateOut{true}, nil
	}
}
