package pki

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"conclave"
	"conclave/engine/pki/authority"
	"conclave/engine/pki/issuing"
	"conclave/engine/pki/revocation"
	"conclave/engine/pki/stored"
)

// certRoutes are those of certificates. What is published anyway needs no token.
func certRoutes() []conclave.Route {
	public := func(pattern, doc string, handle func(context.Context, conclave.View, *conclave.None) (*conclave.Response, error)) conclave.Route {
		return conclave.ReadRoute(conclave.Read, pattern, doc, handle).With(conclave.Public)
	}
	return []conclave.Route{
		conclave.ReadRoute(conclave.List, "certs", "List the serial numbers of the certificates that are kept.", listCerts("cert/")),
		conclave.ReadRoute(conclave.List, "certs/revoked", "List the serial numbers of the certificates that are revoked.", listCerts("revoked/")),
		conclave.ReadRoute(conclave.List, "certs/unified-revoked", "List the serial numbers of the certificates that are revoked: all nodes have the same.", listCerts("revoked/")),
		conclave.ReadRoute(conclave.Read, "cert/{serial}", "Read a certificate, and whether it is revoked.", readCert).With(conclave.Public),
		conclave.ReadRoute(conclave.Read, "cert/{serial}/raw", "Get a certificate, DER.", certRaw(authority.TypeCert)).With(conclave.Public),
		conclave.ReadRoute(conclave.Read, "cert/{serial}/raw/pem", "Get a certificate, PEM.", certRaw(authority.TypePEM)).With(conclave.Public),
		public("cert/ca", "Read the default issuer's certificate.", readCA),
		public("cert/ca_chain", "Read the default issuer's certificate and those above it.", readChain),
		public("cert/ca/raw", "Get the default issuer's certificate, DER.", caRaw),
		public("cert/ca/raw/pem", "Get the default issuer's certificate, PEM.", caPEM),
		public("ca", "Get the default issuer's certificate, DER.", caRaw),
		public("ca/pem", "Get the default issuer's certificate, PEM.", caPEM),
		public("ca_chain", "Get the default issuer's certificate and those above it, PEM.", chainPEM),
	}
}

type serialParam struct {
	Serial string `path:"serial" doc:"Serial number, in hexadecimal with colons or hyphens."`
}

type certOut struct {
	Certificate    string `json:"certificate" doc:"Certificate, PEM."`
	RevocationTime int64  `json:"revocation_time" doc:"When it was revoked, Unix seconds; 0 if it isn't."`
	RevocationText string `json:"revocation_time_rfc3339" doc:"When it was revoked, RFC 3339; empty if it isn't."`
	Issuer         string `json:"issuer_id" doc:"Id of an issuer with its issuer's name and key; empty if there is none any more."`
}

func readCert(_ context.Context, view conclave.View, in *serialParam) (*certOut, error) {
	serial, err := stored.ParseSerial(in.Serial)
	if err != nil {
		return nil, err
	}
	kept, err := stored.LoadCert(view, serial)
	if err != nil {
		return nil, err
	}
	out := &certOut{Certificate: issuing.PEM("CERTIFICATE", kept.DER) + "\n"}
	gone, err := revocation.Lookup(view, serial)
	if err != nil {
		return nil, err
	}
	if gone != nil {
		at := time.Unix(0, gone.At).UTC()
		out.RevocationTime, out.RevocationText = at.Unix(), at.Format(time.RFC3339Nano)
	}
	list, err := authority.Issuers(view)
	if err != nil {
		return nil, err
	}
	for _, issuer := range list {
		if issuer.Authority() == kept.Authority {
			out.Issuer = issuer.ID
			break
		}
	}
	return out, nil
}

func certRaw(contentType string) func(context.Context, conclave.View, *serialParam) (*conclave.Response, error) {
	return func(_ context.Context, view conclave.View, in *serialParam) (*conclave.Response, error) {
		serial, err := stored.ParseSerial(in.Serial)
		if err != nil {
			return nil, err
		}
		kept, err := stored.LoadCert(view, serial)
		if err != nil {
			return nil, err
		}
		if contentType == authority.TypePEM {
			return authority.Raw(authority.TypePEM, []byte(issuing.PEM("CERTIFICATE", kept.DER)+"\n")), nil
		}
		return authority.Raw(contentType, kept.DER), nil
	}
}

// defaultChain is the default issuer's certificate and those above it.
func defaultChain(view conclave.View) ([]*x509.Certificate, error) {
	issuer, err := authority.There(view, authority.DefaultRef)
	if err != nil {
		return nil, err
	}
	return authority.ChainOf(view, issuer)
}

func readCA(_ context.Context, view conclave.View, _ *conclave.None) (*conclave.Response, error) {
	chain, err := defaultChain(view)
	if err != nil {
		return nil, err
	}
	return &conclave.Response{Data: &certOut{Certificate: issuing.CertificatePEM(chain[0]) + "\n"}}, nil
}

type chainOut struct {
	Chain       string `json:"ca_chain"`
	Certificate string `json:"certificate"`
}

func readChain(_ context.Context, view conclave.View, _ *conclave.None) (*conclave.Response, error) {
	chain, err := defaultChain(view)
	if err != nil {
		return nil, err
	}
	text := joinPEM(chain)
	return &conclave.Response{Data: &chainOut{text, text}}, nil
}

func joinPEM(chain []*x509.Certificate) string {
	parts := make([]string, len(chain))
	for i, cert := range chain {
		parts[i] = issuing.CertificatePEM(cert)
	}
	return strings.Join(parts, "\n") + "\n"
}

func caRaw(_ context.Context, view conclave.View, _ *conclave.None) (*conclave.Response, error) {
	chain, err := defaultChain(view)
	if err != nil {
		return nil, err
	}
	return authority.Raw(authority.TypeCert, chain[0].Raw), nil
}

func caPEM(_ context.Context, view conclave.View, _ *conclave.None) (*conclave.Response, error) {
	chain, err := defaultChain(view)
	if err != nil {
		return nil, err
	}
	return authority.Raw(authority.TypePEM, []byte(joinPEM(chain[:1]))), nil
}

func chainPEM(_ context.Context, view conclave.View, _ *conclave.None) (*conclave.Response, error) {
	chain, err := defaultChain(view)
	if err != nil {
		return nil, err
	}
	return authority.Raw(authority.TypeCert, []byte(joinPEM(chain))), nil // the content type that Vault's clients know, although it is PEM
}

// maxListed bounds a listing. More is had by pages.
const maxListed = 100_000

var errTooMany = conclave.Errorf(conclave.TooLarge, "there are more than %d certificates: list them by pages, with after and limit", maxListed)

// listCerts lists what is stored by serial number.
func listCerts(dir string) func(context.Context, conclave.View, *listIn) (*conclave.Keys, error) {
	return func(_ context.Context, view conclave.View, in *listIn) (*conclave.Keys, error) {
		limit := min(in.Limit, maxListed)
		if in.Limit <= 0 {
			limit = maxListed + 1
		}
		after := ""
		if in.After != "" {
			var err error
			if after, err = stored.ParseSerial(in.After); err != nil {
				return nil, err
			}
		}
		out := &conclave.Keys{}
		from := 0
		if after != "" { // a listing goes on in the shard where it stopped
			b, err := hex.DecodeString(after[len(after)-2:])
			if err != nil {
				return nil, stored.ErrFormat
			}
			from = int(b[0])
		}
		for n := from; n < 256 && len(out.Keys) < limit; n++ {
			names, err := view.List(dir+fmt.Sprintf("%02x/", n), after, limit-len(out.Keys))
			if err != nil {
				return nil, err
			}
			for _, name := range names {
				out.Keys = append(out.Keys, stored.SerialText(name))
			}
			after = ""
		}
		if len(out.Keys) > maxListed {
			return nil, errTooMany
		}
		return out, nil
	}
}
