package authority

import (
	"conclave"
	"conclave/engine/pki/stored"
)

// Limits.
const (
	maxIssuers = 256 // of one mount
	maxKeys    = 512
)

// LoadKey returns a private key by its id, nil if there is none.
func LoadKey(view conclave.View, id string) (*Key, error) {
	return stored.Load(view, "key/"+id, DecodeKey)
}

// LoadIssuer returns an issuer by its id, nil if there is none.
func LoadIssuer(view conclave.View, id string) (*Issuer, error) {
	return stored.Load(view, "issuer/"+id, DecodeIssuer)
}

// Issuers are all issuers of the mount.
func Issuers(view conclave.View) ([]*Issuer, error) {
	ids, err := view.List("issuer/", "", maxIssuers)
	if err != nil {
		return nil, err
	}
	list := make([]*Issuer, 0, len(ids))
	for _, id := range ids {
		issuer, err := LoadIssuer(view, id)
		if err != nil {
			return nil, err
		}
		if issuer != nil {
			list = append(list, issuer)
		}
	}
	return list, nil
}

// DefaultRef stands for the default issuer, or key.
const DefaultRef = "default"

// isID reports whether a reference is an id and no name.
func isID(ref string) bool {
	return len(ref) == 36 && ref[8] == '-' && ref[13] == '-' && ref[18] == '-' && ref[23] == '-'
}

// Find resolves a reference: an id, a name, or default. There being none is Invalid, as it is for Vault's clients.
func Find(view conclave.View, ref string) (*Issuer, error) {
	id, err := IDOf(view, ref)
	if err != nil {
		return nil, err
	}
	if id != "" {
		if issuer, err := LoadIssuer(view, id); err != nil || issuer != nil {
			return issuer, err
		}
	}
	if ref == "" || ref == DefaultRef {
		return nil, conclave.Errorf(conclave.Invalid, "no default issuer currently configured")
	}
	return nil, conclave.Errorf(conclave.Invalid, "unable to find PKI issuer for reference: %s", ref)
}

// IDOf is the id that a reference stands for, empty if there is no such issuer; an id is taken as it is.
func IDOf(view conclave.View, ref string) (string, error) {
	switch {
	case ref == "" || ref == DefaultRef:
		config, err := stored.LoadOr(view, "config/issuers", issuersConfig{})
		if err != nil {
			return "", err
		}
		return config.Default, nil
	case isID(ref):
		return ref, nil
	case stored.CheckName(ref) != nil:
		return "", nil
	}
	id, err := view.Get("issuername/" + ref)
	return string(id), err
}

// findKey resolves a reference to a key.
func findKey(view conclave.View, ref string) (*Key, error) {
	id := ref
	switch {
	case ref == "" || ref == DefaultRef:
		config, err := stored.LoadOr(view, "config/keys", keysConfig{})
		if err != nil {
			return nil, err
		}
		if id = config.Default; id == "" {
			return nil, conclave.Errorf(conclave.Invalid, "no default key currently configured")
		}
	case !isID(ref):
		if err := stored.CheckName(ref); err != nil {
			return nil, err
		}
		named, err := view.Get("keyname/" + ref)
		if err != nil {
			return nil, err
		}
		id = string(named)
	}
	if id != "" {
		if key, err := LoadKey(view, id); err != nil || key != nil {
			return key, err
		}
	}
	return nil, conclave.Errorf(conclave.Invalid, "unable to find key for reference: %s", ref)
}

// Param is the path parameter of routes that are about one issuer.
type Param struct {
	Issuer string `path:"issuer_ref" doc:"Id or name of the issuer, or default."`
}

// Ref is the field that names an issuer where the path doesn't.
type Ref struct {
	Issuer string `json:"issuer_ref" doc:"Id or name of the issuer, or default."`
}

type csrField struct {
	CSR string `json:"csr" doc:"Certificate request, PKCS #10 in PEM."`
}

type listIn struct {
	After string `json:"after" doc:"Only names after this one."`
	Limit int    `json:"limit" doc:"At most so many; 0 is all."`
}

// Raw is an answer that is sent as it is.
func Raw(contentType string, body []byte) *conclave.Response {
	return &conclave.Response{Raw: &conclave.Raw{ContentType: contentType, Body: body}}
}
