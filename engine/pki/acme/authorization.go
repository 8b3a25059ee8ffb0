package acme

import (
	"net/http"
	"slices"
	"time"

	"conclave"
	"conclave/engine/pki/acme/validation"
)

// authorization is what is stored of an account's right to a name. Its status is pending, valid, invalid or deactivated.
type authorization struct {
	ID         string      `json:"id"`
	Account    string      `json:"account"`
	Place      place       `json:"place"`
	Order      string      `json:"order"`
	Identifier identifier  `json:"identifier"` // without "*."
	Wildcard   bool        `json:"wildcard,omitempty"`
	Status     string      `json:"status"`
	Expires    int64       `json:"expires"` // seconds since 1970
	Challenges []challenge `json:"challenges"`
}

// challenge is RFC 8555 section 8: its status is pending, processing, valid or invalid.
type challenge struct {
	Type      string   `json:"type"`
	Token     string   `json:"token"`
	Status    string   `json:"status"`
	Validated int64    `json:"validated,omitempty"` // seconds since 1970
	Attempts  int      `json:"attempts,omitempty"`  // that have failed
	Error     *problem `json:"error,omitempty"`     // of the last one
}

type shownAuthorization struct {
	Identifier identifier       `json:"identifier"`
	Status     string           `json:"status"`
	Expires    string           `json:"expires"`
	Wildcard   bool             `json:"wildcard,omitempty"`
	Challenges []shownChallenge `json:"challenges"`
}

type shownChallenge struct {
	Type      string   `json:"type"`
	URL       string   `json:"url"`
	Status    string   `json:"status"`
	Token     string   `json:"token"`
	Validated string   `json:"validated,omitempty"`
	Error     *problem `json:"error,omitempty"`
}

func (s *Service) authorizationRoutes() []conclave.Route {
	return append(s.onAuthorizations(deed{"authorization/{auth_id}", "Show an authorization, or give it up.", byAccount, false, s.changeAuthorization}),
		s.onChallenges(deed{"challenge/{auth_id}/{challenge_type}", "Show a challenge, or have it validated.", byAccount, false, s.answerChallenge})...)
}

// newAuthorization makes the nth authorization of an order.
func newAuthorization(c *chance, n int, o *order, name identifier) *authorization {
	a := &authorization{ID: c.id(1 + 4*n), Account: o.Account, Place: o.Place, Order: o.ID, Identifier: name, Status: statusPending, Expires: o.Expires}
	kinds := []string{validation.HTTP, validation.DNS, validation.TLS}
	switch {
	case name.Type == typeIP:
		kinds = []string{validation.HTTP, validation.TLS}
	case len(name.Value) > 2 && name.Value[:2] == "*.":
		a.Identifier.Value, a.Wildcard = name.Value[2:], true
		kinds = []string{validation.DNS}
	}
	for i, kind := range kinds {
		a.Challenges = append(a.Challenges, challenge{Type: kind, Token: c.token(2 + 4*n + i), Status: statusPending})
	}
	return a
}

func (a *authorization) save(tx conclave.Tx) error { return put(tx, authDir+a.ID, a) }

// status is the authorization's as of now.
func (a *authorization) status(view conclave.View) string {
	if (a.Status == statusPending || a.Status == statusValid) && view.Reached(time.Unix(a.Expires, 0)) {
		return statusExpired
	}
	return a.Status
}

// authorized returns an authorization of the account.
func (x *exchange) authorized(id string) (*authorization, error) {
	a, err := load[authorization](x.tx, authDir, id)
	if err != nil {
		return nil, err
	}
	if a == nil || a.Account != x.account.ID {
		return nil, nothingThere("authorization")
	}
	return a, nil
}

func (x *exchange) shownChallenge(a *authorization, c *challenge) shownChallenge {
	shown := shownChallenge{Type: c.Type, URL: x.base + "challenge/" + a.ID + "/" + c.Type, Status: c.Status, Token: c.Token, Error: c.Error}
	if c.Validated != 0 {
		shown.Validated = created(c.Validated)
	}
	return shown
}

func (x *exchange) showAuthorization(a *authorization) *answer {
	shown := &shownAuthorization{Identifier: a.Identifier, Status: a.status(x.tx), Expires: created(a.Expires), Wildcard: a.Wildcard}
	wait := time.Duration(0)
	for i := range a.Challenges {
		c := &a.Challenges[i]
		if c.Status == statusProcessing {
			wait = time.Second
		}
		shown.Challenges = append(shown.Challenges, x.shownChallenge(a, c))
	}
	return &answer{body: shown, retryAfter: wait}
}

func (s *Service) changeAuthorization(x *exchange) (*answer, error) {
	a, err := x.authorized(x.target.id)
	if err != nil {
		return nil, err
	}
	if x.isQuestion() {
		return x.showAuthorization(a), nil
	}
	var in struct {
		Status string `json:"status"`
	}
	if err := x.decode(&in); err != nil {
		return nil, err
	}
	status := a.status(x.tx)
	if in.Status != statusDeactivated || status != statusPending && status != statusValid {
		return nil, malformed("an authorization can be deactivated while it is pending or valid")
	}
	a.Status = statusDeactivated
	return x.showAuthorization(a), a.save(x.tx)
}

func (s *Service) answerChallenge(x *exchange) (*answer, error) {
	a, err := x.authorized(x.target.id)
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(a.Challenges, func(c challenge) bool { return c.Type == x.target.challenge })
	if at < 0 {
		return nil, nothingThere("challenge")
	}
	c := &a.Challenges[at]
	show := func() *answer {
		wait := time.Duration(0)
		if c.Status == statusProcessing {
			wait = time.Second
		}
		return &answer{status: http.StatusOK, body: x.shownChallenge(a, c), retryAfter: wait,
			links: []string{"<" + x.base + "authorization/" + a.ID + ">;rel=\"up\""}}
	}
	if x.isQuestion() {
		return show(), nil
	}
	if err := x.decode(&struct{}{}); err != nil {
		return nil, err
	}
	if c.Status != statusPending {
		return show(), nil // told already
	}
	if status := a.status(x.tx); status != statusPending {
		return nil, malformed("the authorization is " + status)
	}
	if slices.ContainsFunc(a.Challenges, func(c challenge) bool { return c.Status == statusProcessing }) {
		return nil, malformed("another challenge of this authorization is being validated")
	}
	c.Status = statusProcessing
	if err := x.tx.Wake(workChallenge+a.ID, x.tx.Now()); err != nil {
		return nil, err
	}
	return show(), a.save(x.tx)
}
