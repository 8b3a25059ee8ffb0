package integration

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"conclave/integration/lab"
)

// signed is a certificate with its key, in PEM.
type signed struct {
	cert            *x509.Certificate
	key             *ecdsa.PrivateKey
	certPEM, keyPEM []byte
}

// sign makes a certificate that by signs; it signs itself if by is nil.
func sign(t *testing.T, name string, by *signed) *signed {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	made := &x509.Certificate{SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	parent, signer := made, key
	if by != nil {
		parent, signer = by.cert, by.key
	} else {
		made.IsCA, made.BasicConstraintsValid, made.KeyUsage = true, true, x509.KeyUsageCertSign
	}
	der, err := x509.CreateCertificate(rand.Reader, made, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return &signed{cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})}
}

// files writes the certificate and its key to files.
func (s *signed) files(t *testing.T) (cert, key string) {
	t.Helper()
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, text := range map[string][]byte{cert: s.certPEM, key: s.keyPEM} {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// holding is a client without a token that shows a certificate.
func holding(t *testing.T, l *lab.Lab, n int, of *signed) *api.Client {
	t.Helper()
	config := api.DefaultConfig()
	config.Address = l.Addrs[n-1]
	cert, key := of.files(t)
	if err := config.ConfigureTLS(&api.TLSConfig{CACert: l.CA, ClientCert: cert, ClientKey: key}); err != nil {
		t.Fatal(err)
	}
	client, err := api.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	client.ClearToken()
	client.SetMaxRetries(0)
	return client
}

// TestCertificatesOnEachNode has holders of certificates log in everywhere, and a stranger nowhere.
func TestCertificatesOnEachNode(t *testing.T) {
	l := startLab(t, 3)
	ctx := within(t, 2*time.Minute)
	root := sdk(t, l, 1)
	enableAuth(t, root, "cert")
	authority := sign(t, "authority", nil)
	web := sign(t, "web", authority)
	mustWrite(t, ctx, root, "auth/cert/certs/web", map[string]any{"certificate": string(authority.certPEM), "allowed_common_names": "web", "token_policies": "web", "token_ttl": "10m"})
	at := func(n int) *api.Client { return holding(t, l, n, web) }
	eachNode(t, ctx, l, at, loginFields{"auth/cert/login", map[string]any{"name": "web"}}, "default", "web")
	eachNode(t, ctx, l, at, loginFields{"auth/cert/login", nil}, "default", "web")

	other, stranger := sign(t, "other", authority), sign(t, "web", sign(t, "authority", nil))
	answer, err := at(1).Auth().Login(ctx, loginFields{"auth/cert/login", nil})
	if err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= 3; n++ {
		for _, of := range []*signed{other, stranger} {
			_, err := holding(t, l, n, of).Auth().Login(ctx, loginFields{"auth/cert/login", map[string]any{"name": "web"}})
			wantRefusal(t, err, http.StatusBadRequest, "")
		}
		_, err := anonymous(t, l, n).Auth().Login(ctx, loginFields{"auth/cert/login", nil})
		wantRefusal(t, err, http.StatusBadRequest, "")
		thief := holding(t, l, n, other)
		thief.SetToken(answer.Auth.ClientToken)
		if _, err := thief.Auth().Token().RenewSelfWithContext(ctx, 30); err == nil {
			t.Errorf("node %d renews a token over a connection with another certificate", n)
		}
	}
}
