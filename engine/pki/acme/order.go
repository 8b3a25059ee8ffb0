package acme

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"conclave"
	"conclave/engine/pki/issuing"
)

// identifier is a name or an address: RFC 8555 section 7.1.3, RFC 8738.
type identifier struct {
	Type  string `json:"type"`
	Value string `json:"value"`
}

const (
	typeDNS = "dns"
	typeIP  = "ip"
)

// order is what is stored of an order. Its status is pending, valid or invalid; that it is ready shows by its
// authorizations.
type order struct {
	ID             string       `json:"id"`
	Account        string       `json:"account"`
	Place          place        `json:"place"`
	Status         string       `json:"status"`
	Expires        int64        `json:"expires"` // seconds since 1970
	Identifiers    []identifier `json:"identifiers"`
	Authorizations []string     `json:"authorizations"`
	Chain          []byte       `json:"chain,omitempty"`  // certificates in PEM, its own first
	Serial         string       `json:"serial,omitempty"` // of its own, hexadecimal
}

// shownOrder is RFC 8555 section 7.1.3.
type shownOrder struct {
	Status         string       `json:"status"`
	Expires        string       `json:"expires"`
	Identifiers    []identifier `json:"identifiers"`
	Authorizations []string     `json:"authorizations"`
	Finalize       string       `json:"finalize"`
	Certificate    string       `json:"certificate,omitempty"`
}

func (s *Service) orderRoutes() []conclave.Route {
	var routes []conclave.Route
	routes = append(routes, s.everywhere(deed{"new-order", "Order a certificate.", byAccount, true, s.newOrder})...)
	routes = append(routes, s.everywhere(deed{"orders", "List an account's orders.", byAccount, false, s.listOrders})...)
	routes = append(routes, s.onOrders(deed{"order/{order_id}", "Show an order.", byAccount, false, s.showOrder})...)
	routes = append(routes, s.onOrders(deed{"order/{order_id}/finalize", "Have an order's certificate issued, for a CSR.", byAccount, true, s.finalize})...)
	return append(routes, s.onOrders(deed{"order/{order_id}/cert", "Get an order's certificate with those above it.", byAccount, false, s.showCertificate})...)
}

// mine returns an order of the account.
func (x *exchange) mine(id string) (*order, error) {
	o, err := load[order](x.tx, orderDir, id)
	if err != nil {
		return nil, err
	}
	if o == nil || o.Account != x.account.ID {
		return nil, nothingThere("order")
	}
	return o, nil
}

// status is the order's as of now.
func (o *order) status(view conclave.View) (string, error) {
	if o.Status != statusPending {
		return o.Status, nil
	}
	if view.Reached(time.Unix(o.Expires, 0)) {
		return statusInvalid, nil
	}
	status := statusReady
	for _, id := range o.Authorizations {
		a, err := load[authorization](view, authDir, id)
		if err != nil {
			return "", err
		}
		if a == nil {
			return statusInvalid, nil
		}
		switch a.status(view) {
		case statusValid:
		case statusPending:
			status = statusPending
		default:
			return statusInvalid, nil
		}
	}
	return status, nil
}

func (x *exchange) show(code int, o *order) (*answer, error) {
	status, err := o.status(x.tx)
	if err != nil {
		return nil, err
	}
	url := x.base + "order/" + o.ID
	shown := &shownOrder{Status: status, Expires: created(o.Expires), Identifiers: o.Identifiers, Finalize: url + "/finalize"}
	for _, id := range o.Authorizations {
		shown.Authorizations = append(shown.Authorizations, x.base+"authorization/"+id)
	}
	if status == statusValid {
		shown.Certificate = url + "/cert"
	}
	return &answer{status: code, body: shown, location: url}, nil
}

func (s *Service) newOrder(x *exchange) (*answer, error) {
	var in struct {
		Identifiers []identifier `json:"identifiers"`
		NotBefore   string       `json:"notBefore"`
		NotAfter    string       `json:"notAfter"`
	}
	if err := x.decode(&in); err != nil {
		return nil, err
	}
	if in.NotBefore != "" || in.NotAfter != "" {
		return nil, malformed("notBefore and notAfter are for the server to say")
	}
	names, err := checkIdentifiers(in.Identifiers)
	if err != nil {
		return nil, err
	}
	wanted, err := s.certificateFor(x, names)
	if err != nil {
		return nil, err
	}
	if err := s.authority.Permits(x.tx, wanted); err != nil {
		return nil, asProblem(err, "rejectedIdentifier")
	}
	waiting, err := x.tx.List(pendingDir+x.account.ID+"/", "", maxPending)
	if err != nil {
		return nil, err
	}
	if len(waiting) >= maxPending {
		return nil, refuse(http.StatusTooManyRequests, "rateLimited", "the account has too many orders without a certificate")
	}
	c, err := prepared(x.ctx)
	if err != nil {
		return nil, err
	}
	// From here on it succeeds.
	expires := x.tx.Now().Add(orderLife)
	o := &order{ID: c.id(0), Account: x.account.ID, Place: x.place, Status: statusPending, Expires: expires.Unix(), Identifiers: names}
	for i, name := range names {
		a := newAuthorization(c, i, o, name)
		o.Authorizations = append(o.Authorizations, a.ID)
		if err := a.save(x.tx); err != nil {
			return nil, err
		}
	}
	if err := o.save(x.tx); err != nil {
		return nil, err
	}
	for _, path := range []string{ordersDir, pendingDir} {
		if err := x.tx.Put(path+x.account.ID+"/"+o.ID, mark()); err != nil {
			return nil, err
		}
	}
	if err := x.tx.Wake(workOrder+o.ID, expires.Add(time.Hour)); err != nil {
		return nil, err
	}
	return x.show(http.StatusCreated, o)
}

func (o *order) save(tx conclave.Tx) error { return put(tx, orderDir+o.ID, o) }

// certificateFor is the certificate that an order with these names is for.
func (s *Service) certificateFor(x *exchange, names []identifier) (*Wanted, error) {
	wanted, err := s.wanted(x.tx, &x.config.Settings, x.place)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if name.Type == typeIP {
			wanted.Addresses = append(wanted.Addresses, netip.MustParseAddr(name.Value)) // checked when it was ordered
			continue
		}
		wanted.DNS = append(wanted.DNS, name.Value)
	}
	return wanted, nil
}

// checkIdentifiers brings names and addresses into their one spelling.
func checkIdentifiers(given []identifier) ([]identifier, error) {
	if len(given) == 0 || len(given) > maxIdentifiers {
		return nil, malformed("an order has between one and a hundred identifiers")
	}
	names := make([]identifier, 0, len(given))
	for _, name := range given {
		switch name.Type {
		case typeDNS:
			name.Value = strings.ToLower(name.Value)
			if !isHostname(strings.TrimPrefix(name.Value, "*.")) {
				return nil, refuse(http.StatusBadRequest, "rejectedIdentifier", "a name of a host is wanted, maybe after *.")
			}
		case typeIP:
			address, err := netip.ParseAddr(name.Value)
			if err != nil || address.Zone() != "" {
				return nil, malformed("an IP address is wanted")
			}
			name.Value = address.Unmap().String()
		default:
			return nil, refuse(http.StatusBadRequest, "unsupportedIdentifier", "identifiers are of type dns or ip")
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names, nil
}

// isHostname reports whether a text in lower case is a name as hosts have them (RFC 1123 section 2.1), and no address.
func isHostname(name string) bool {
	if len(name) > 253 {
		return false
	}
	labels := strings.Split(name, ".")
	for _, label := range labels {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		if strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return false
		}
	}
	last := labels[len(labels)-1]
	return strings.Trim(last, "0123456789") != ""
}

func (s *Service) showOrder(x *exchange) (*answer, error) {
	if err := x.question(); err != nil {
		return nil, err
	}
	o, err := x.mine(x.target.id)
	if err != nil {
		return nil, err
	}
	return x.show(http.StatusOK, o)
}

func (s *Service) listOrders(x *exchange) (*answer, error) {
	if err := x.question(); err != nil {
		return nil, err
	}
	ids, err := x.tx.List(ordersDir+x.account.ID+"/", "", maxListed)
	if err != nil {
		return nil, err
	}
	urls := make([]string, len(ids))
	for i, id := range ids {
		urls[i] = x.base + "order/" + id
	}
	return &answer{body: map[string][]string{"orders": urls}}, nil
}

func (s *Service) finalize(x *exchange) (*answer, error) {
	var in struct {
		CSR string `json:"csr"`
	}
	if err := x.decode(&in); err != nil {
		return nil, err
	}
	o, err := x.mine(x.target.id)
	if err != nil {
		return nil, err
	}
	status, err := o.status(x.tx)
	if err != nil {
		return nil, err
	}
	if status != statusReady {
		return nil, refuse(http.StatusForbidden, "orderNotReady", "the order is "+status)
	}
	csr, err := x.parseCSR(in.CSR, o)
	if err != nil {
		return nil, err
	}
	wanted, err := s.certificateFor(x, o.Identifiers)
	if err != nil {
		return nil, err
	}
	c, err := prepared(x.ctx)
	if err != nil {
		return nil, err
	}
	issued, err := s.authority.Issue(x.tx, wanted, csr, c.materials)
	if err != nil {
		return nil, asProblem(err, "badCSR")
	}
	o.Status, o.Chain, o.Serial = statusValid, issued.Chain, serialOf(issued.Leaf)
	o.Expires = issued.Leaf.NotAfter.Unix()
	if err := x.tx.Put(certDir+o.Serial, []byte(o.Account)); err != nil {
		return nil, err
	}
	if err := x.tx.Delete(pendingDir + o.Account + "/" + o.ID); err != nil {
		return nil, err
	}
	if err := o.save(x.tx); err != nil {
		return nil, err
	}
	if err := x.tx.Wake(workOrder+o.ID, issued.Leaf.NotAfter.Add(time.Hour)); err != nil {
		return nil, err
	}
	return x.show(http.StatusOK, o)
}

func serialOf(cert *x509.Certificate) string { return hex.EncodeToString(cert.SerialNumber.Bytes()) }

// parseCSR reads a CSR that is for an order's names, no more and no less, and for another key than the account's.
func (x *exchange) parseCSR(text string, o *order) (*x509.CertificateRequest, error) {
	bad := func(detail string) error { return refuse(http.StatusBadRequest, "badCSR", detail) }
	der, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(text, "="))
	if err != nil {
		return nil, bad("the CSR is not base64url of DER")
	}
	csr, err := issuing.ParseCSRBytes(der)
	if err != nil {
		return nil, asProblem(err, "badCSR")
	}
	if len(csr.EmailAddresses)+len(csr.URIs) > 0 {
		return nil, bad("the CSR has names that are neither of hosts nor addresses")
	}
	var found []identifier
	add := func(name identifier) {
		if !slices.Contains(found, name) {
			found = append(found, name)
		}
	}
	for _, name := range csr.DNSNames {
		add(identifier{typeDNS, strings.ToLower(name)})
	}
	for _, ip := range csr.IPAddresses {
		address, ok := netip.AddrFromSlice(ip)
		if !ok {
			return nil, bad("the CSR has an address that is none")
		}
		add(identifier{typeIP, address.Unmap().String()})
	}
	if common := strings.ToLower(csr.Subject.CommonName); common != "" {
		name := identifier{typeDNS, common}
		if address, err := netip.ParseAddr(common); err == nil {
			name = identifier{typeIP, address.Unmap().String()}
		}
		add(name)
	}
	if len(found) != len(o.Identifiers) || slices.ContainsFunc(found, func(name identifier) bool { return !slices.Contains(o.Identifiers, name) }) {
		return nil, bad("the names of the CSR are not those of the order")
	}
	public, err := x509.MarshalPKIXPublicKey(csr.PublicKey)
	if err != nil {
		return nil, bad("the CSR has a key of an unknown kind")
	}
	if own, err := x509.MarshalPKIXPublicKey(x.account.Key.Key); err != nil || bytes.Equal(own, public) {
		return nil, bad("the CSR is for the account's own key")
	}
	return csr, nil
}

func (s *Service) showCertificate(x *exchange) (*answer, error) {
	if err := x.question(); err != nil {
		return nil, err
	}
	o, err := x.mine(x.target.id)
	if err != nil {
		return nil, err
	}
	if o.Status != statusValid {
		return nil, refuse(http.StatusForbidden, "orderNotReady", "the order has no certificate yet")
	}
	return &answer{body: o.Chain, contentType: "application/pem-certificate-chain"}, nil
}

// clearOrder removes an order whose time is over, with all that belongs to it.
func clearOrder(tx conclave.Tx, id string) error {
	o, err := load[order](tx, orderDir, id)
	if err != nil || o == nil {
		return err
	}
	if at := time.Unix(o.Expires, 0); !tx.Reached(at) {
		return tx.Wake(workOrder+id, at.Add(time.Hour))
	}
	paths := []string{orderDir + id, ordersDir + o.Account + "/" + id, pendingDir + o.Account + "/" + id}
	for _, authorization := range o.Authorizations {
		paths = append(paths, authDir+authorization)
	}
	if o.Serial != "" {
		paths = append(paths, certDir+o.Serial)
	}
	for _, path := range paths {
		if err := tx.Delete(path); err != nil {
			return err
		}
	}
	return nil
}
