package authority

import (
	"context"
	"crypto"
	"crypto/x509"
	"slices"

	"conclave"
	"conclave/engine/pki/issuing"
	"conclave/engine/pki/stored"
)

const (
	generateCSRDoc = `Make a private key and a CSR for an intermediate authority, to be signed elsewhere.
The last segment is internal to keep the key here, exported to have it answered once as well, or existing to use one that is here, named by key_ref.`
	crossSignDoc = `Make a CSR for a key that is here, to be signed by another authority.`
	setSignedDoc = `Import the certificate that was signed for a CSR of this mount, with its chain.`
	importDoc    = `Import certificates of authorities and private keys, in PEM.
What is here already is left as it is; keys and certificates find each other by their public keys.`
)

func importRoutes() []conclave.Route {
	return []conclave.Route{
		importRoute("intermediate/set-signed", setSignedDoc, setSigned),
		importRoute("issuers/import/cert", importDoc, importCerts),
		importRoute("issuers/import/bundle", importDoc, importBundle),
		importRoute("config/ca", importDoc, importBundle),
	}
}

type generateCSRIn struct {
	exportedParam
	caFields
	newKeyFields
	AddBasicConstraints bool `json:"add_basic_constraints" doc:"Say in the CSR that it is for an authority."`
}

type crossSignIn struct {
	caFields
	newKeyFields
	AddBasicConstraints bool `json:"add_basic_constraints" doc:"Say in the CSR that it is for an authority."`
}

type csrOut struct {
	CSR            string `json:"csr" doc:"Certificate request."`
	KeyID          string `json:"key_id" doc:"Id of its private key."`
	KeyName        string `json:"key_name,omitempty" doc:"Name of its private key."`
	PrivateKey     string `json:"private_key,omitempty" doc:"The private key, if it is exported."`
	PrivateKeyType string `json:"private_key_type,omitempty" doc:"Its kind."`
}

func generateCSR(ctx context.Context, tx conclave.Tx, in *generateCSRIn) (*csrOut, error) {
	return newCSR(ctx, tx, &in.caFields, &in.newKeyFields, in.AddBasicConstraints, in.Exported == "exported")
}

func crossSign(ctx context.Context, tx conclave.Tx, in *crossSignIn) (*csrOut, error) {
	return newCSR(ctx, tx, &in.caFields, &in.newKeyFields, in.AddBasicConstraints, false)
}

func newCSR(ctx context.Context, tx conclave.Tx, fields *caFields, newKey *newKeyFields, withConstraints, isExported bool) (*csrOut, error) {
	format, err := issuing.NewFormat(fields.Format, fields.PrivateKeyFormat)
	if err != nil {
		return nil, err
	}
	m, err := issuing.Prepared(ctx)
	if err != nil {
		return nil, err
	}
	key, err := takeKey(tx, m, newKey)
	if err != nil {
		return nil, err
	}
	times := &issuing.Times{Now: tx.Now(), DefaultTTL: tx.Mount().DefaultTTL, MaxTTL: tx.Mount().MaxTTL}
	template, _, err := fields.template(fields.role(), m, times)
	if err != nil {
		return nil, err
	}
	der, err := issuing.CreateCSR(template, key.Signer, fields.SignatureBits, fields.UsePSS, withConstraints)
	if err != nil {
		return nil, err
	}
	out := &csrOut{CSR: format.Encode("CERTIFICATE REQUEST", der), KeyID: key.ID, KeyName: key.Name}
	if isExported {
		if out.PrivateKey, err = format.Key(key.Signer); err != nil {
			return nil, err
		}
		out.PrivateKeyType = key.Type
		if format.Name == "pem_bundle" {
			out.CSR = out.PrivateKey + "\n" + out.CSR
		}
	}
	return out, nil
}

type setSignedIn struct {
	Certificate string `json:"certificate" doc:"The certificate, and those above it, PEM."`
}

type bundleIn struct {
	Bundle string `json:"pem_bundle" doc:"Certificates and private keys, PEM."`
}

// importRoute adds the reading of a bundle.
func importRoute[In any](pattern, doc string, handle func(context.Context, conclave.Tx, *In) (*conclave.Response, error)) conclave.Route {
	route := conclave.WriteRoute(conclave.Update, pattern, doc, handle)
	route.Prepare = func(_ context.Context, _ *conclave.Request, in any) (any, error) {
		m, err := issuing.NewMaterials()
		if err != nil {
			return nil, err
		}
		switch in := in.(type) {
		case *setSignedIn:
			m.Certs, m.Keys, err = issuing.ParseBundle(in.Certificate)
		case *bundleIn:
			m.Certs, m.Keys, err = issuing.ParseBundle(in.Bundle)
		case *importKeyIn:
			m.Certs, m.Keys, err = issuing.ParseBundle(in.Bundle)
		}
		return m, err
	}
	return route
}

func setSigned(ctx context.Context, tx conclave.Tx, _ *setSignedIn) (*conclave.Response, error) {
	return importAll(ctx, tx, false)
}

func importCerts(ctx context.Context, tx conclave.Tx, _ *bundleIn) (*conclave.Response, error) {
	return importAll(ctx, tx, false)
}

func importBundle(ctx context.Context, tx conclave.Tx, _ *bundleIn) (*conclave.Response, error) {
	return importAll(ctx, tx, true)
}

type importedOut struct {
	ImportedIssuers []string          `json:"imported_issuers"`
	ImportedKeys    []string          `json:"imported_keys"`
	ExistingIssuers []string          `json:"existing_issuers"`
	ExistingKeys    []string          `json:"existing_keys"`
	Mapping         map[string]string `json:"mapping"` // issuer → key, empty if it isn't here
}

// importAll imports what was read. Keys come first, so that issuers find theirs.
func importAll(ctx context.Context, tx conclave.Tx, mayHaveKeys bool) (*conclave.Response, error) {
	m, err := issuing.Prepared(ctx)
	if err != nil {
		return nil, err
	}
	if len(m.Keys) > 0 && !mayHaveKeys {
		return nil, conclave.Errorf(conclave.Invalid, "private keys found in the PEM but not allowed by the path; use /issuers/import/bundle")
	}
	out := &importedOut{ImportedIssuers: []string{}, ImportedKeys: []string{}, ExistingIssuers: []string{}, ExistingKeys: []string{}, Mapping: map[string]string{}}
	next := 0
	for _, signer := range m.Keys {
		key, isNew, err := importKey(tx, m.ID(next), "", signer)
		if err != nil {
			return nil, err
		}
		next++
		note(&out.ImportedKeys, &out.ExistingKeys, key.ID, isNew)
	}
	for _, cert := range m.Certs {
		if !cert.IsCA || !cert.BasicConstraintsValid {
			return nil, conclave.Errorf(conclave.Invalid, "a certificate in the PEM is no authority's: basic constraints must say that it is")
		}
		issuer, isNew, err := importIssuer(tx, m.ID(next), cert)
		if err != nil {
			return nil, err
		}
		next++
		note(&out.ImportedIssuers, &out.ExistingIssuers, issuer.ID, isNew)
		out.Mapping[issuer.ID] = issuer.KeyID
	}
	if err := settle(tx, out.ImportedIssuers); err != nil {
		return nil, err
	}
	resp := &conclave.Response{Data: out}
	if len(m.Certs) > 0 && !slices.ContainsFunc(slices.Concat(out.ImportedIssuers, out.ExistingIssuers), func(id string) bool { return out.Mapping[id] != "" }) {
		resp.Warnings = append(resp.Warnings, "no private key is here for any of the certificates: they can be part of chains, but sign nothing")
	}
	return resp, nil
}

func note(imported, existing *[]string, id string, isNew bool) {
	into := existing
	if isNew {
		into = imported
	}
	if !slices.Contains(*imported, id) && !slices.Contains(*existing, id) {
		*into = append(*into, id)
	}
}

// IsSameKey reports whether two public keys are the same one.
func IsSameKey(a, b crypto.PublicKey) bool {
	comparable, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && comparable.Equal(b)
}

// importKey stores a key unless it is here.
func importKey(tx conclave.Tx, id, name string, signer crypto.Signer) (*Key, bool, error) {
	there, err := keys(tx)
	if err != nil {
		return nil, false, err
	}
	for _, key := range there {
		if IsSameKey(key.Signer.Public(), signer.Public()) {
			return key, false, nil
		}
	}
	key, err := NewKey(id, name, issuing.KeyType(signer.Public()), signer)
	if err != nil {
		return nil, false, err
	}
	if err := addKey(tx, key); err != nil {
		return nil, false, err
	}
	return key, true, adopt(tx, key)
}

// adopt gives issuers that have been waiting for a key the one that came.
func adopt(tx conclave.Tx, key *Key) error {
	list, err := Issuers(tx)
	if err != nil {
		return err
	}
	for _, issuer := range list {
		if issuer.KeyID == "" && IsSameKey(issuer.Cert.PublicKey, key.Signer.Public()) {
			changed := issuer.Clone()
			changed.KeyID = key.ID
			if err := stored.Put(tx, "issuer/"+changed.ID, changed); err != nil {
				return err
			}
		}
	}
	return nil
}

// importIssuer stores an issuer unless its certificate is here.
func importIssuer(tx conclave.Tx, id string, cert *x509.Certificate) (*Issuer, bool, error) {
	there, err := Issuers(tx)
	if err != nil {
		return nil, false, err
	}
	for _, issuer := range there {
		if issuer.Cert.Equal(cert) {
			return issuer, false, nil
		}
	}
	if _, err := issuing.SpecOf(cert.PublicKey); err != nil {
		return nil, false, err
	}
	issuer, err := addIssuer(tx, id, "", cert)
	return issuer, true, err
}
