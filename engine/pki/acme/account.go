package acme

import (
	"crypto"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/mail"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"conclave"
)

// Statuses: RFC 8555 section 7.1.6.
const (
	statusPending     = "pending"
	statusProcessing  = "processing"
	statusReady       = "ready"
	statusValid       = "valid"
	statusInvalid     = "invalid"
	statusDeactivated = "deactivated"
	statusExpired     = "expired"
)

// account is what is stored of an account.
type account struct {
	ID      string           `json:"id"`
	Place   place            `json:"place"`
	Key     *jose.JSONWebKey `json:"key"`
	Status  string           `json:"status"`
	Contact []string         `json:"contact,omitempty"`
	Agreed  bool             `json:"agreed,omitempty"`
	Binding json.RawMessage  `json:"binding,omitempty"` // the JWS that bound it
	EAB     string           `json:"eab,omitempty"`     // id of its external account binding
	Created int64            `json:"created"`           // seconds since 1970
}

// shownAccount is RFC 8555 section 7.1.2.
type shownAccount struct {
	Status  string          `json:"status"`
	Contact []string        `json:"contact,omitempty"`
	Agreed  bool            `json:"termsOfServiceAgreed,omitempty"`
	Orders  string          `json:"orders"`
	Binding json.RawMessage `json:"externalAccountBinding,omitempty"`
}

func (s *Service) accountRoutes() []conclave.Route {
	const noToken = "\nRequests are signed with the account's key; they need no token."
	var routes []conclave.Route
	routes = append(routes, s.everywhere(deed{"new-account", "Make an account, or find the one of the key." + noToken, byKey, true, s.newAccount})...)
	routes = append(routes, s.onAccounts(deed{"account/{account_id}", "Show, change or deactivate an account." + noToken, byAccount, false, s.changeAccount})...)
	return append(routes, s.everywhere(deed{"key-change", "Give an account another key." + noToken, byAccount, false, s.changeKey})...)
}

// thumbprint is RFC 7638's, base64url.
func thumbprint(key *jose.JSONWebKey) (string, error) {
	sum, err := key.Thumbprint(crypto.SHA256)
	if err != nil {
		return "", malformed("the key can't be encoded")
	}
	return base64.RawURLEncoding.EncodeToString(sum), nil
}

// keyPath is where the account with a key is found: a key may have one account in each directory.
func keyPath(at place, key *jose.JSONWebKey) (string, error) {
	print, err := thumbprint(key)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(at.prefix() + "\x00" + print))
	return keyDir + base64.RawURLEncoding.EncodeToString(sum[:]), nil
}

// withKey returns the account that has a key in a directory, nil if there is none.
func withKey(view conclave.View, at place, key *jose.JSONWebKey) (*account, error) {
	path, err := keyPath(at, key)
	if err != nil {
		return nil, err
	}
	id, err := view.Get(path)
	if err != nil || id == nil {
		return nil, err
	}
	return load[account](view, accountDir, string(id))
}

func errNoAccount() error {
	return refuse(http.StatusBadRequest, "accountDoesNotExist", "there is no such account in this directory")
}

// named returns the account whose URL a request names.
func (s *Service) named(x *exchange, kid string) (*account, error) {
	id, ok := strings.CutPrefix(kid, x.base+"account/")
	if !ok {
		return nil, errNoAccount()
	}
	a, err := load[account](x.tx, accountDir, id)
	if err != nil {
		return nil, err
	}
	if a == nil || a.Place != x.place {
		return nil, errNoAccount()
	}
	if x.config.Settings.EABPolicy == bindingAlways && a.EAB == "" {
		return nil, unauthorized("the account has no external account binding, which is required")
	}
	return a, nil
}

func (a *account) save(tx conclave.Tx) error { return put(tx, accountDir+a.ID, a) }

func (x *exchange) showAccount(status int, a *account) *answer {
	url := x.base + "account/" + a.ID
	return &answer{status: status, location: url, body: &shownAccount{a.Status, a.Contact, a.Agreed, x.base + "orders", a.Binding}}
}

type newAccount struct {
	Contact      []string        `json:"contact"`
	Agreed       bool            `json:"termsOfServiceAgreed"`
	OnlyExisting bool            `json:"onlyReturnExisting"`
	Binding      json.RawMessage `json:"externalAccountBinding"`
}

func (s *Service) newAccount(x *exchange) (*answer, error) {
	var in newAccount
	if err := x.decode(&in); err != nil {
		return nil, err
	}
	there, err := withKey(x.tx, x.place, x.key)
	if err != nil {
		return nil, err
	}
	if there != nil {
		if there.Status != statusValid {
			return nil, unauthorized("the account is deactivated")
		}
		return x.showAccount(http.StatusOK, there), nil
	}
	if in.OnlyExisting {
		return nil, errNoAccount()
	}
	if err := checkContacts(in.Contact); err != nil {
		return nil, err
	}
	c, err := prepared(x.ctx)
	if err != nil {
		return nil, err
	}
	a := &account{ID: c.id(0), Place: x.place, Key: &jose.JSONWebKey{Key: x.key.Key}, Status: statusValid, Contact: in.Contact, Agreed: in.Agreed, Created: x.tx.Now().Unix()}
	if len(in.Binding) > 0 {
		if a.EAB, err = s.checkBinding(x, in.Binding); err != nil {
			return nil, err
		}
		a.Binding = in.Binding
	} else if x.config.Settings.EABPolicy != bindingNever {
		return nil, refuse(http.StatusForbidden, "externalAccountRequired", "accounts need an external account binding here")
	}
	path, err := keyPath(x.place, x.key)
	if err != nil {
		return nil, err
	}
	// From here on it succeeds.
	if a.EAB != "" {
		if err := x.tx.Delete(eabDir + a.EAB); err != nil {
			return nil, err
		}
	}
	if err := x.tx.AddCell(accountsCell, -1, 0, conclave.Errorf(conclave.Limited, "the mount has its most ACME accounts, %d", maxAccounts)); err != nil {
		return nil, err
	}
	if err := x.tx.Put(path, []byte(a.ID)); err != nil {
		return nil, err
	}
	if err := x.tx.Wake(workAccount+a.ID, x.tx.Now().Add(accountLife)); err != nil {
		return nil, err
	}
	return x.showAccount(http.StatusCreated, a), a.save(x.tx)
}

// checkContacts wants mail addresses.
func checkContacts(contacts []string) error {
	refused := refuse(http.StatusBadRequest, "invalidContact", "a contact is one mail address, as in mailto:admin@example.org; at most ten")
	if len(contacts) > maxContacts {
		return refused
	}
	for _, contact := range contacts {
		address, isMail := strings.CutPrefix(contact, "mailto:")
		if !isMail {
			return refuse(http.StatusBadRequest, "unsupportedContact", "contacts are mail addresses: mailto:…")
		}
		if parsed, err := mail.ParseAddress(address); err != nil || parsed.Address != address || len(contact) > maxContact || strings.ContainsAny(address, "?,") {
			return refused
		}
	}
	return nil
}

func (s *Service) changeAccount(x *exchange) (*answer, error) {
	if x.account.ID != x.target.id {
		return nil, unauthorized("the account is another one")
	}
	if x.isQuestion() {
		return x.showAccount(http.StatusOK, x.account), nil
	}
	var in struct {
		Contact *[]string `json:"contact"`
		Status  string    `json:"status"`
	}
	if err := x.decode(&in); err != nil {
		return nil, err
	}
	a := *x.account
	switch {
	case in.Status == statusDeactivated:
		a.Status = statusDeactivated
	case in.Status != "" && in.Status != statusValid:
		return nil, malformed("an account can be deactivated, and have its contacts changed")
	case in.Contact != nil:
		if err := checkContacts(*in.Contact); err != nil {
			return nil, err
		}
		a.Contact = *in.Contact
	}
	return x.showAccount(http.StatusOK, &a), a.save(x.tx)
}

// changeKey is RFC 8555 section 7.3.5: what is signed with the old key holds what is signed with the new one.
func (s *Service) changeKey(x *exchange) (*answer, error) {
	var inner signed
	if err := x.decode(&inner); err != nil {
		return nil, err
	}
	if len(inner.Protected) > maxProtected {
		return nil, malformed("the inner request is too large")
	}
	jws, header, err := parseJWS(&inner, algorithms())
	if err != nil {
		return nil, err
	}
	key := header.JSONWebKey
	if to, _ := header.ExtraHeaders["url"].(string); to != x.url || key == nil || header.Nonce != "" {
		return nil, malformed("the header of the inner request must have the new key, the same url, and no nonce")
	}
	if err := checkKey(key); err != nil {
		return nil, err
	}
	payload, err := jws.Verify(key)
	if err != nil {
		return nil, malformed("the inner signature is wrong")
	}
	var in struct {
		Account string           `json:"account"`
		OldKey  *jose.JSONWebKey `json:"oldKey"`
	}
	if json.Unmarshal(payload, &in) != nil || in.OldKey == nil || in.Account != x.base+"account/"+x.account.ID {
		return nil, malformed("the inner request names another account")
	}
	oldPath, err := keyPath(x.place, x.account.Key)
	if err != nil {
		return nil, err
	}
	if named, err := keyPath(x.place, in.OldKey); err != nil || named != oldPath {
		return nil, malformed("the inner request names another old key")
	}
	newPath, err := keyPath(x.place, key)
	if err != nil {
		return nil, err
	}
	taken, err := withKey(x.tx, x.place, key)
	if err != nil {
		return nil, err
	}
	if taken != nil {
		return nil, &problem{Type: typePrefix + "malformed", Detail: "the new key has an account already", Status: http.StatusConflict, location: x.base + "account/" + taken.ID}
	}
	a := *x.account
	a.Key = &jose.JSONWebKey{Key: key.Key}
	if err := x.tx.Delete(oldPath); err != nil {
		return nil, err
	}
	if err := x.tx.Put(newPath, []byte(a.ID)); err != nil {
		return nil, err
	}
	return x.showAccount(http.StatusOK, &a), a.save(x.tx)
}

// clearAccount removes an account that has no orders, and looks again later at one that has. Whoever comes back to it makes
// another: clients do so by themselves.
func clearAccount(tx conclave.Tx, id string) error {
	a, err := load[account](tx, accountDir, id)
	if err != nil || a == nil {
		return err
	}
	orders, err := tx.List(ordersDir+id+"/", "", 1)
	if err != nil {
		return err
	}
	if len(orders) > 0 || !tx.Reached(time.Unix(a.Created, 0).Add(accountLife)) {
		return tx.Wake(workAccount+id, tx.Now().Add(accountLife))
	}
	path, err := keyPath(a.Place, a.Key)
	if err != nil {
		return err
	}
	if err := tx.Delete(path); err != nil {
		return err
	}
	if err := tx.AddCell(accountsCell, 1, 0, conclave.Errorf(conclave.Internal, "the counter of ACME accounts is gone")); err != nil {
		return err
	}
	return tx.Delete(accountDir + id)
}
