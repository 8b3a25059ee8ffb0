package transit

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"time"

	"conclave"
	"conclave/engine/transit/keys"
	"conclave/engine/transit/shelf"
	"conclave/engine/transit/use"
)

// Limits of what certificates and requests are made of.
const (
	maxChain    = 16       // certificates of one chain
	maxPEMBytes = 64 << 10 // of a chain or a request
)

func certificateRoutes() []conclave.Route {
	csr := use.Operation[csrIn]{
		Name: func(in *csrIn) string { return in.Name },
		Cost: func(key *keys.Key, _ *csrIn) time.Duration { return key.Type.PrivateCost() + use.HandlerTime/2 },
		Run:  signCSR,
	}
	return []conclave.Route{
		csr.Route("keys/{name}/csr", csrDoc),
		conclave.WriteRoute(conclave.Update, "keys/{name}/set-certificate", certificateDoc, setCertificate),
	}
}

const csrDoc = `Sign a certificate signing request with a key.
Names and extensions are taken from the request that is given, if one is; its key is replaced.`

type csrIn struct {
	named
	Version *int   `json:"version" doc:"Version to sign with; the latest by default."`
	CSR     string `json:"csr" doc:"The request to start from, PEM."`
}

type csrOut struct {
	Name string    `json:"name"`
	Type keys.Type `json:"type"`
	CSR  string    `json:"csr"`
}

func signCSR(_ context.Context, key *keys.Key, in *csrIn) (*conclave.Response, error) {
	template, err := parseCSR(in.CSR)
	if err != nil {
		return nil, err
	}
	v, _, err := certifiable(key, in.Version)
	if err != nil {
		return nil, err
	}
	if err := key.Usable(); err != nil {
		return nil, err
	}
	signer, err := v.Signer()
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, signer)
	if err != nil {
		return nil, conclave.Errorf(conclave.Invalid, "no request can be made like the one that is given")
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	return &conclave.Response{Data: csrOut{key.Name, key.Type, string(text)}}, nil
}

// parseCSR returns what a new request takes over from an old one.
func parseCSR(text string) (*x509.CertificateRequest, error) {
	if text == "" {
		return &x509.CertificateRequest{}, nil
	}
	block, _ := pem.Decode([]byte(text))
	if block == nil || len(text) > maxPEMBytes {
		return nil, conclave.Errorf(conclave.Invalid, "could not decode PEM CSR")
	}
	old, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, conclave.Errorf(conclave.Invalid, "the certificate signing request can't be read")
	}
	return &x509.CertificateRequest{RawSubject: old.RawSubject, ExtraExtensions: old.Extensions}, nil
}

// certifiable is the version of a key that a certificate is for; nil is the latest.
func certifiable(key *keys.Key, number *int) (*keys.Version, int, error) {
	n := key.Latest()
	if number != nil {
		n = *number
	}
	v := key.Version(n)
	switch {
	case !key.Type.Signs():
		return nil, 0, conclave.Errorf(conclave.Invalid, "key type '%s' does not support signing", key.Type)
	case key.Derived:
		return nil, 0, conclave.Errorf(conclave.Invalid, "operation not supported for keys with derivation enabled")
	case v == nil:
		return nil, 0, conclave.Errorf(conclave.Invalid, "no such key version")
	}
	return v, n, nil
}

const certificateDoc = `Set the certificate of a key's version, with those above it.
The chain begins with the certificate for the key, and each one is signed by the next.`

type certificateIn struct {
	named
	Version *int   `json:"version" doc:"Version that the certificate is for; the latest by default."`
	Chain   string `json:"certificate_chain" doc:"The certificates, PEM, that of the key first."`
}

type certificateOut struct {
	Name  string    `json:"name" doc:"Name of the key."`
	Type  keys.Type `json:"type" doc:"Type of the key."`
	Chain string    `json:"certificate_chain" doc:"The certificates, PEM."`
}

func setCertificate(_ context.Context, tx conclave.Tx, in *certificateIn) (*certificateOut, error) {
	shared, err := shelf.Existing(tx, in.Name)
	if err != nil {
		return nil, err
	}
	v, number, err := certifiable(shared, in.Version)
	if err != nil {
		return nil, err
	}
	chain, err := parseChain(in.Chain, v)
	if err != nil {
		return nil, err
	}
	key, certified := shared.Clone(), *v
	certified.Chain = chain
	key.Replace(number, &certified)
	return &certificateOut{key.Name, key.Type, chainText(chain)}, shelf.Save(tx, "key-set-certificate", shared, key)
}

// parseChain reads a chain for a version, and returns it in DER.
func parseChain(text string, v *keys.Version) ([][]byte, error) {
	if len(text) > maxPEMBytes {
		return nil, conclave.Errorf(conclave.Invalid, "a certificate chain has at most %d bytes", maxPEMBytes)
	}
	var chain []*x509.Certificate
	for rest := bytes.TrimSpace([]byte(text)); len(rest) > 0; rest = bytes.TrimSpace(rest) {
		block, after := pem.Decode(rest)
		if block == nil {
			return nil, conclave.Errorf(conclave.Invalid, "could not decode a PEM block in the certificate chain")
		}
		rest = after
		if block.Type != "CERTIFICATE" && block.Type != "X509 CERTIFICATE" {
			continue
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, conclave.Errorf(conclave.Invalid, "could not parse a certificate in the certificate chain")
		}
		chain = append(chain, certificate)
	}
	switch {
	case len(chain) == 0:
		return nil, conclave.Errorf(conclave.Invalid, "provided certificate chain did not contain any valid PEM encoded certificate")
	case len(chain) > maxChain:
		return nil, conclave.Errorf(conclave.Invalid, "a certificate chain has at most %d certificates", maxChain)
	case chain[0].IsCA:
		return nil, conclave.Errorf(conclave.Invalid, "certificate in the first element is not a valid leaf certificate")
	case !v.SamePublic(chain[0].PublicKey):
		return nil, conclave.Errorf(conclave.Invalid, "leaf certificate public key does not match the selected key version")
	}
	der := make([][]byte, len(chain))
	for i, certificate := range chain {
		der[i] = certificate.Raw
		if i > 0 && chain[i-1].CheckSignatureFrom(certificate) != nil {
			return nil, conclave.Errorf(conclave.Invalid, "a certificate in the chain is not signed by the next one")
		}
	}
	return der, nil
}
