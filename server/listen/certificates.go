package listen

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"conclave/server/config"
)

// modernSuites are the suites of TLS 1.2 with forward secrecy and an AEAD; those of TLS 1.3 aren't configurable.
var modernSuites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

var protocols = []string{"h2", "http/1.1"}

// certificates is a listener's TLS configuration, made anew from its files at every reload. Connections that are open
// keep the one they began with.
type certificates struct {
	settings config.TLS
	current  atomic.Pointer[tls.Config]
}

func newCertificates(settings config.TLS) (*certificates, error) {
	c := &certificates{settings: settings}
	return c, c.reload()
}

// reload reads the files again. If that fails, what was loaded before stays.
func (c *certificates) reload() error {
	pair, err := tls.LoadX509KeyPair(c.settings.CertFile, c.settings.KeyFile)
	if err != nil {
		return fmt.Errorf("load certificate %s with key %s: %w", c.settings.CertFile, c.settings.KeyFile, err)
	}
	made := &tls.Config{
		Certificates: []tls.Certificate{pair},
		MinVersion:   max(c.settings.MinVersion, tls.VersionTLS12),
		MaxVersion:   c.settings.MaxVersion,
		CipherSuites: c.settings.CipherSuites,
		NextProtos:   protocols,
		ClientAuth:   tls.RequestClientCert,
	}
	if len(made.CipherSuites) == 0 {
		made.CipherSuites = modernSuites
	}
	if file := c.settings.ClientCAFile; file != "" {
		pem, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("read client CAs: %w", err)
		}
		made.ClientCAs = x509.NewCertPool()
		if !made.ClientCAs.AppendCertsFromPEM(pem) {
			return fmt.Errorf("no certificate in %s", file)
		}
		made.ClientAuth = tls.VerifyClientCertIfGiven
	}
	switch {
	case c.settings.RequireClientCert && made.ClientCAs == nil:
		return errors.New("client certificates are required, but no CA for them is given")
	case c.settings.RequireClientCert:
		made.ClientAuth = tls.RequireAndVerifyClientCert
	case c.settings.NoClientCert:
		made.ClientAuth = tls.NoClientCert
	}
	c.current.Store(made)
	return nil
}

func (c *certificates) forClient(*tls.ClientHelloInfo) (*tls.Config, error) {
	return c.current.Load(), nil
}

func (c *certificates) config() *tls.Config {
	return &tls.Config{GetConfigForClient: c.forClient, NextProtos: protocols, MinVersion: tls.VersionTLS12}
}
