package integration

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"golang.org/x/crypto/ocsp"

	"conclave/integration/lab"
)

// fetch gets what is published without a token, as verifiers of certificates do.
func fetch(ctx context.Context, l *lab.Lab, n int, method, path, contentType string, body []byte) (status int, kind string, answer []byte, err error) {
	request, err := http.NewRequestWithContext(ctx, method, l.Addrs[n-1]+"/v1/"+path, bytes.NewReader(body))
	if err != nil {
		return 0, "", nil, err
	}
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: l.TLS(), DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return 0, "", nil, err
	}
	defer func() { _ = response.Body.Close() }()
	answer, err = io.ReadAll(response.Body)
	return response.StatusCode, response.Header.Get("Content-Type"), answer, err
}

func certificateOf(t *testing.T, text any) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode([]byte(text.(string)))
	if block == nil {
		t.Fatalf("no PEM: %v", text)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// revokedAt asks node n by list, by OCSP in a body and by OCSP in a path whether a certificate is revoked. All must say the
// same.
func revokedAt(ctx context.Context, l *lab.Lab, n int, cert, ca *x509.Certificate) (bool, error) {
	status, kind, der, err := fetch(ctx, l, n, "GET", "pki/crl", "", nil)
	if err != nil || status != 200 || kind != "application/pkix-crl" {
		return false, fmt.Errorf("crl: status %d, %s, %v", status, kind, err)
	}
	crl, err := x509.ParseRevocationList(der)
	if err != nil {
		return false, err
	}
	if err := crl.CheckSignatureFrom(ca); err != nil {
		return false, err
	}
	listed := slices.ContainsFunc(crl.RevokedCertificateEntries, func(e x509.RevocationListEntry) bool { return e.SerialNumber.Cmp(cert.SerialNumber) == 0 })
	request, err := ocsp.CreateRequest(cert, ca, nil)
	if err != nil {
		return false, err
	}
	for _, way := range []struct{ method, path, kind string }{{"POST", "pki/ocsp", "application/ocsp-request"}, {"GET", "pki/ocsp/" + url.PathEscape(base64.StdEncoding.EncodeToString(request)), ""}} {
		body := request
		if way.method == "GET" {
			body = nil
		}
		status, kind, der, err := fetch(ctx, l, n, way.method, way.path, way.kind, body)
		if err != nil || status != 200 || kind != "application/ocsp-response" {
			return false, fmt.Errorf("%s ocsp: status %d, %s, %v", way.method, status, kind, err)
		}
		answer, err := ocsp.ParseResponseForCert(der, cert, ca)
		if err != nil {
			return false, err
		}
		if (answer.Status == ocsp.Revoked) != listed {
			return false, fmt.Errorf("%s ocsp says %d, the list %v", way.method, answer.Status, listed)
		}
	}
	return listed, nil
}

// TestCertificatesOnThreeNodes issues on one node what another one's root signs, and has a third one know at once what is
// revoked, also while others are being revoked and after a node is gone.
func TestCertificatesOnThreeNodes(t *testing.T) {
	l := startLab(t, 3)
	ctx := within(t, 3*time.Minute)
	root := []*api.Client{sdk(t, l, 1), sdk(t, l, 2), sdk(t, l, 3)}
	if err := root[0].Sys().MountWithContext(ctx, "pki", &api.MountInput{Type: "pki", Config: api.MountConfigInput{MaxLeaseTTL: "87600h"}}); err != nil {
		t.Fatal(err)
	}
	made := mustWrite(t, ctx, root[1], "pki/root/generate/internal", map[string]any{"common_name": "Lab Root", "key_type": "ec", "ttl": "8760h"})
	ca := certificateOf(t, made["certificate"])
	mustWrite(t, ctx, root[2], "pki/roles/web", map[string]any{"allowed_domains": "example.com", "allow_subdomains": true, "key_type": "ec", "ttl": "1h"})
	for n := 1; n <= 3; n++ {
		if status, kind, der, err := fetch(ctx, l, n, "GET", "pki/ca", "", nil); err != nil || status != 200 || kind != "application/pkix-cert" || !bytes.Equal(der, ca.Raw) {
			t.Fatalf("node %d, ca: status %d, %s, %v", n, status, kind, err)
		}
	}
	_, err := root[0].Logical().WriteWithContext(ctx, "pki/issue/web", map[string]any{"common_name": "evil.org"})
	wantRefusal(t, err, http.StatusBadRequest, "not allowed by this role")
	_, err = anonymous(t, l, 1).Logical().WriteWithContext(ctx, "pki/issue/web", map[string]any{"common_name": "a.example.com"})
	wantRefusal(t, err, http.StatusForbidden, "")
	revokeEverywhere(t, ctx, l, root, ca)
	leasesRevoke(t, ctx, l, root, ca)
	tidyUp(t, ctx, root[1])
}

// revokeEverywhere has clients of all nodes issue and revoke at once, and asks another node after each.
func revokeEverywhere(t *testing.T, ctx context.Context, l *lab.Lab, root []*api.Client, ca *x509.Certificate) {
	var group sync.WaitGroup
	var mu sync.Mutex
	serials := map[string]bool{}
	for client := range 6 {
		group.Go(func() {
			at := root[client%3]
			for range 5 {
				answer, err := at.Logical().WriteWithContext(ctx, "pki/issue/web", map[string]any{"common_name": fmt.Sprintf("host%d.example.com", client)})
				if err != nil {
					t.Error(err)
					return
				}
				serial, _ := answer.Data["serial_number"].(string)
				block, _ := pem.Decode([]byte(answer.Data["certificate"].(string)))
				cert, err := x509.ParseCertificate(block.Bytes)
				if err != nil {
					t.Error(err)
					return
				}
				other := (client+1)%3 + 1
				if revoked, err := revokedAt(ctx, l, other, cert, ca); err != nil || revoked {
					t.Errorf("node %d before: revoked %v, %v", other, revoked, err)
				}
				if _, err := at.Logical().WriteWithContext(ctx, "pki/revoke", map[string]any{"serial_number": serial}); err != nil {
					t.Error(err)
					return
				}
				if revoked, err := revokedAt(ctx, l, other, cert, ca); err != nil || !revoked {
					t.Errorf("node %d after: revoked %v, %v", other, revoked, err)
				}
				mu.Lock()
				serials[serial] = true
				mu.Unlock()
			}
		})
	}
	group.Wait()
	listed, err := root[2].Logical().ListWithContext(ctx, "pki/certs/revoked")
	if err != nil || len(listed.Data["keys"].([]any)) != len(serials) || len(serials) != 30 {
		t.Fatalf("revoked are %v, %v, want %d", listed, err, len(serials))
	}
}

// leasesRevoke ends a lease, on a node that is not the one that gave it.
func leasesRevoke(t *testing.T, ctx context.Context, l *lab.Lab, root []*api.Client, ca *x509.Certificate) {
	mustWrite(t, ctx, root[0], "pki/roles/leased", map[string]any{"allow_any_name": true, "key_type": "ec", "ttl": "1h", "generate_lease": true})
	answer, err := root[0].Logical().WriteWithContext(ctx, "pki/issue/leased", map[string]any{"common_name": "leased.example.com"})
	if err != nil || answer.LeaseID == "" || answer.Renewable || answer.LeaseDuration < 3500 {
		t.Fatalf("%+v, %v", answer, err)
	}
	cert := certificateOf(t, answer.Data["certificate"])
	if err := root[1].Sys().RevokeWithContext(ctx, answer.LeaseID); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, func(ctx context.Context) error {
		for n := 1; n <= 3; n++ {
			if revoked, err := revokedAt(ctx, l, n, cert, ca); err != nil || !revoked {
				return fmt.Errorf("node %d: revoked %v, %v", n, revoked, err)
			}
		}
		return nil
	})
}

// tidyUp has the leader remove a certificate that has ended.
func tidyUp(t *testing.T, ctx context.Context, root *api.Client) {
	// It ends a day ago, so that the hour in which it ended is over.
	mustWrite(t, ctx, root, "pki/roles/past", map[string]any{"allow_any_name": true, "key_type": "ec", "not_before": "2026-01-01T00:00:00Z", "not_after": "2026-01-02T00:00:00Z"})
	issued := mustWrite(t, ctx, root, "pki/issue/past", map[string]any{"common_name": "past.example.com"})
	mustWrite(t, ctx, root, "pki/tidy", map[string]any{"tidy_cert_store": true, "tidy_revoked_certs": true, "safety_buffer": "1s"})
	serial := strings.ReplaceAll(issued["serial_number"].(string), ":", "-")
	eventually(t, 30*time.Second, func(ctx context.Context) error {
		status, err := root.Logical().ReadWithContext(ctx, "pki/tidy-status")
		if err != nil {
			return err
		}
		if status.Data["state"] != "Finished" {
			return fmt.Errorf("status %v", status.Data)
		}
		kept, err := root.Logical().ReadWithContext(ctx, "pki/cert/"+serial)
		if err != nil || kept != nil {
			return fmt.Errorf("still there: %v, %v", kept, err)
		}
		return nil
	})
}

// TestVerbatimAndIntermediates runs what Terraform and cert-manager do: an intermediate of another mount, and CSRs.
func TestVerbatimAndIntermediates(t *testing.T) {
	l := startLab(t, 1)
	ctx := within(t, 2*time.Minute)
	root := sdk(t, l, 1)
	for _, path := range []string{"top", "sub"} {
		if err := root.Sys().MountWithContext(ctx, path, &api.MountInput{Type: "pki", Config: api.MountConfigInput{MaxLeaseTTL: "87600h", DefaultLeaseTTL: "24h"}}); err != nil {
			t.Fatal(err)
		}
	}
	mustWrite(t, ctx, root, "top/root/generate/internal", map[string]any{"common_name": "Top", "ttl": "8760h", "key_type": "rsa", "key_bits": 2048})
	csr := mustWrite(t, ctx, root, "sub/intermediate/generate/internal", map[string]any{"common_name": "Sub", "key_type": "ec", "key_bits": 384})
	signed := mustWrite(t, ctx, root, "top/root/sign-intermediate", map[string]any{"csr": csr["csr"], "common_name": "Sub", "ttl": "4380h", "format": "pem_bundle"})
	imported := mustWrite(t, ctx, root, "sub/intermediate/set-signed", map[string]any{"certificate": signed["certificate"]})
	if len(imported["imported_issuers"].([]any)) != 2 {
		t.Fatalf("imported %v", imported)
	}
	issuers, err := root.Logical().ListWithContext(ctx, "sub/issuers")
	if err != nil || len(issuers.Data["key_info"].(map[string]any)) != 2 {
		t.Fatalf("issuers %v, %v", issuers, err)
	}
	mustWrite(t, ctx, root, "sub/roles/web", map[string]any{"allowed_domains": []string{"example.com"}, "allow_subdomains": true, "key_type": "any", "max_ttl": "720h"})
	leaf := mustWrite(t, ctx, root, "sub/issue/web", map[string]any{"common_name": "www.example.com", "key_type": "ed25519", "ttl": "24h"})
	pool, between := x509.NewCertPool(), x509.NewCertPool()
	for _, text := range leaf["ca_chain"].([]any) {
		cert := certificateOf(t, text)
		if cert.Subject.CommonName == "Top" {
			pool.AddCert(cert)
		} else {
			between.AddCert(cert)
		}
	}
	if _, err := certificateOf(t, leaf["certificate"]).Verify(x509.VerifyOptions{Roots: pool, Intermediates: between, DNSName: "www.example.com"}); err != nil {
		t.Error(err)
	}
	if serial := certificateOf(t, leaf["certificate"]).SerialNumber; serial.Cmp(big.NewInt(0)) <= 0 {
		t.Errorf("serial number %s", serial)
	}
	// A patch of a role keeps what it doesn't name; the SDK sends it as a merge patch.
	if _, err := root.Logical().JSONMergePatch(ctx, "sub/roles/web", map[string]any{"allow_any_name": true}); err != nil {
		t.Fatal(err)
	}
	role, err := root.Logical().ReadWithContext(ctx, "sub/roles/web")
	if err != nil || role.Data["allow_any_name"] != true || role.Data["key_type"] != "any" {
		t.Errorf("role %v, %v", role, err)
	}
}
