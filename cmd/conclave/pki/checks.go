package pki

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"strconv"
	"strings"
	"time"

	"conclave/cmd/conclave/client"

	"github.com/hashicorp/vault/api"
)

// What is looked for.
const (
	day = 24 * time.Hour

	rootCritical, rootWarning, rootInformational        = 182 * day, 365 * day, 730 * day
	interCritical, interWarning, interInformational     = 30 * day, 60 * day, 180 * day
	listCritical, listWarning                           = 0.95, 0.75 // of a list's time that is over
	manyCertificates                                int = 50_000
	inspectedLeaves                                     = 100
	tidyWarning, tidyCritical                           = 2 * day, 7 * day
)

// check is one look at a mount, by Vault's name for it.
type check struct {
	name, about string
	run         func(ctx context.Context, q *inquiry) error
}

var checks = []check{
	{"ca_validity_period", "issuers that end soon", caValidity},
	{"crl_validity_period", "revocation lists that end soon, or can't be had", listValidity},
	{"root_issued_leaves", "certificates that a root has signed itself instead of an intermediate", rootLeaves},
	{"role_allows_localhost", "roles that issue for localhost", localhostRoles},
	{"role_allows_glob_wildcards", "roles that allow globs and wildcards at once", globRoles},
	{"role_no_store_false", "roles that keep certificates although their lists are rebuilt on demand", storingRoles},
	{"enable_auto_tidy", "mounts that aren't tidied by themselves", autoTidy},
	{"tidy_last_run", "mounts that haven't been tidied for long", lastTidy},
	{"too_many_certs", "mounts that keep many certificates", manyCerts},
}

// issuersOf are the mount's issuers, by their paths.
func issuersOf(ctx context.Context, q *inquiry) (map[string]*x509.Certificate, error) {
	ids, err := q.list(ctx, "issuers")
	if err != nil {
		return nil, err
	}
	found := map[string]*x509.Certificate{}
	for _, id := range ids {
		path := "issuer/" + id
		data, err := q.read(ctx, path+"/json")
		if err != nil {
			return nil, err
		}
		if data == nil {
			continue
		}
		if found[path], err = parseCert(client.Text(data["certificate"])); err != nil {
			return nil, err
		}
	}
	return found, nil
}

func isRoot(cert *x509.Certificate) bool {
	return string(cert.RawSubject) == string(cert.RawIssuer) && cert.CheckSignatureFrom(cert) == nil
}

func caValidity(ctx context.Context, q *inquiry) error {
	issuers, err := issuersOf(ctx, q)
	if err != nil {
		return err
	}
	for path, cert := range issuers {
		left := time.Until(cert.NotAfter)
		critical, warning, informational := interCritical, interWarning, interInformational
		if isRoot(cert) {
			critical, warning, informational = rootCritical, rootWarning, rootInformational
		}
		code := statusOK
		switch {
		case left < critical:
			code = statusCritical
		case left < warning:
			code = statusWarning
		case left < informational:
			code = statusInformational
		}
		q.report(code, path, "the issuer's certificate ends in %d days, on %s", int(left/day), cert.NotAfter.Format(time.DateOnly))
	}
	return nil
}

func listValidity(ctx context.Context, q *inquiry) error {
	issuers, err := issuersOf(ctx, q)
	if err != nil {
		return err
	}
	for path := range issuers {
		issuer, err := q.read(ctx, path)
		if err != nil {
			return err
		}
		if issuer != nil && issuer["key_id"] == "" {
			q.report(statusOK, path+"/crl", "the issuer's private key isn't here: its list is published elsewhere")
			continue
		}
		response, err := q.client.Logical().ReadRawWithContext(ctx, q.mount+"/"+path+"/crl/der")
		if err != nil || response == nil || response.StatusCode != 200 {
			q.report(statusCritical, path+"/crl", "the issuer's revocation list can't be had")
			continue
		}
		list, err := readList(response.Body)
		_ = response.Body.Close()
		if err != nil {
			q.report(statusCritical, path+"/crl", "the issuer's revocation list can't be read")
			continue
		}
		over := float64(time.Since(list.ThisUpdate)) / float64(list.NextUpdate.Sub(list.ThisUpdate))
		code := statusOK
		switch {
		case over >= listCritical:
			code = statusCritical
		case over >= listWarning:
			code = statusWarning
		}
		q.report(code, path+"/crl", "the list ends on %s, %d %% of its time are over", list.NextUpdate.Format(time.RFC3339), int(100*over))
	}
	return nil
}

func rootLeaves(ctx context.Context, q *inquiry) error {
	issuers, err := issuersOf(ctx, q)
	if err != nil {
		return err
	}
	page, err := q.answer("certs")(q.client.Logical().ReadWithDataWithContext(ctx, q.mount+"/certs", map[string][]string{"list": {"true"}, "limit": {strconv.Itoa(inspectedLeaves)}}))
	if err != nil {
		return err
	}
	serials, _ := page["keys"].([]any)
	leaves := 0
	for _, each := range serials {
		serial := client.Text(each)
		data, err := q.read(ctx, "cert/"+serial)
		if err != nil {
			return err
		}
		block, _ := pem.Decode([]byte(client.Text(data["certificate"])))
		if block == nil {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil || cert.IsCA {
			continue
		}
		for path, issuer := range issuers {
			if isRoot(issuer) && cert.CheckSignatureFrom(issuer) == nil {
				leaves++
				q.report(statusWarning, path, "the root has signed the certificate %s itself: let an intermediate do that", serial)
			}
		}
	}
	if leaves == 0 {
		q.report(statusOK, "certs", "no root has signed any of the certificates that were looked at")
	}
	return nil
}

// maxList bounds a revocation list that is looked at, in bytes.
const maxList = 64 << 20

func readList(body io.Reader) (*x509.RevocationList, error) {
	der, err := io.ReadAll(io.LimitReader(body, maxList))
	if err != nil {
		return nil, err
	}
	return x509.ParseRevocationList(der)
}

// eachRole calls look with each role of the mount.
func eachRole(ctx context.Context, q *inquiry, look func(path string, role map[string]any)) error {
	names, err := q.list(ctx, "roles")
	if err != nil {
		return err
	}
	for _, name := range names {
		role, err := q.read(ctx, "roles/"+name)
		if err != nil {
			return err
		}
		if role != nil {
			look("roles/"+name, role)
		}
	}
	return nil
}

func localhostRoles(ctx context.Context, q *inquiry) error {
	return eachRole(ctx, q, func(path string, role map[string]any) {
		if role["allow_localhost"] == true {
			q.report(statusWarning, path, "the role issues for localhost: set allow_localhost=false, or allow_localhost=true only where that is meant")
			return
		}
		q.report(statusOK, path, "the role doesn't issue for localhost")
	})
}

func globRoles(ctx context.Context, q *inquiry) error {
	return eachRole(ctx, q, func(path string, role map[string]any) {
		if role["allow_glob_domains"] == true && role["allow_wildcard_certificates"] == true && strings.Contains(client.Text(role["allowed_domains"]), "*") {
			q.report(statusWarning, path, "the role allows globs and wildcards at once: set allow_wildcard_certificates=false, or list the domains")
			return
		}
		q.report(statusOK, path, "the role doesn't allow globs and wildcards at once")
	})
}

func storingRoles(ctx context.Context, q *inquiry) error {
	config, err := q.read(ctx, "config/auto-tidy")
	if err != nil {
		return err
	}
	return eachRole(ctx, q, func(path string, role map[string]any) {
		if role["no_store"] != true && config["enabled"] != true {
			q.report(statusInformational, path, "the role keeps its certificates, and nothing removes them: set no_store=true, or tidy the mount by itself")
			return
		}
		q.report(statusOK, path, "the role's certificates aren't kept for ever")
	})
}

func autoTidy(ctx context.Context, q *inquiry) error {
	config, err := q.read(ctx, "config/auto-tidy")
	if err != nil || config == nil {
		return err
	}
	if config["enabled"] == true {
		q.report(statusOK, "config/auto-tidy", "the mount is tidied by itself")
		return nil
	}
	q.report(statusInformational, "config/auto-tidy", "the mount isn't tidied by itself: set enabled=true tidy_cert_store=true tidy_revoked_certs=true")
	return nil
}

func lastTidy(ctx context.Context, q *inquiry) error {
	status, err := q.read(ctx, "tidy-status")
	if err != nil || status == nil {
		return err
	}
	at, err := time.Parse(time.RFC3339, client.Text(status["time_finished"]))
	if err != nil {
		q.report(statusInformational, "tidy-status", "the mount was never tidied")
		return nil
	}
	code, since := statusOK, time.Since(at)
	switch {
	case since > tidyCritical:
		code = statusCritical
	case since > tidyWarning:
		code = statusWarning
	}
	q.report(code, "tidy-status", "the mount was tidied last on %s", at.Format(time.RFC3339))
	return nil
}

func manyCerts(ctx context.Context, q *inquiry) error {
	serials, err := q.list(ctx, "certs")
	if refused, ok := errors.AsType[*api.ResponseError](err); ok && refused.StatusCode == 413 {
		q.report(statusCritical, "certs", "more certificates are kept than can be listed")
		return nil
	}
	if err != nil {
		return err
	}
	code := statusOK
	if len(serials) > manyCertificates {
		code = statusWarning
	}
	q.report(code, "certs", "%d certificates are kept", len(serials))
	return nil
}
