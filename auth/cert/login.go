package cert

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/json"
	"slices"

	"conclave"
)

const loginDoc = `Log in with the certificate of the TLS connection.
The first role, in order of names, that trusts the certificate gives the token; a role that is named, no other.`

var (
	errDenied   = conclave.Errorf(conclave.Denied, "permission denied")
	errOther    = conclave.Errorf(conclave.Invalid, "client identity during renewal not matching client identity used during login")
	errRoleGone = conclave.Errorf(conclave.Invalid, "the role that the token was got with is gone: log in again")
	errPolicies = conclave.Errorf(conclave.Invalid, "policies have changed, not renewing")
)

type loginIn struct {
	Name string `json:"name" doc:"The role to log in with; empty for any."`
}

// origin is what a token keeps of its login.
type origin struct {
	Role        string   `json:"role"`
	Fingerprint []byte   `json:"sha256"` // SHA-256 of the leaf, DER
	Policies    []string `json:"policies"`
}

func roleOf(in *loginIn) (string, error) {
	if in.Name == "" {
		return "", nil
	}
	return canonicalName(in.Name)
}

// errands are what must be done outside of the vault before a login: OCSP responders to ask, for each candidate up to the
// first that needs none, and revocation lists to fetch, since they have ended.
type errands struct {
	Questions []question
	Lists     []list
}

// results are what came of them.
type results struct {
	answers map[string][]answer // role → what was said
	lists   []*parsedCRL
}

func gatherLogin(view conclave.View, in any) (any, error) {
	found, _, err := loginCandidates(view, in.(*loginIn), true)
	if err != nil {
		return nil, err
	}
	work := errands{Questions: questionsFor(found)}
	all, err := loadLists(view)
	if err != nil {
		return nil, err
	}
	for _, l := range all {
		isWanted := slices.ContainsFunc(found, func(c candidate) bool { return slices.ContainsFunc(c.chain, l.speaksOf) })
		if l.URL != "" && isWanted && len(work.Lists) < maxFetched && l.isOver(view) {
			work.Lists = append(work.Lists, *l)
		}
	}
	return work, nil
}

// questionsFor are the questions about candidates up to the first that needs none.
func questionsFor(found []candidate) (questions []question) {
	for _, c := range found {
		if !c.OCSPEnabled || len(questions) == maxQuestions {
			break
		}
		if q, ok := questionFor(c); ok {
			questions = append(questions, q)
		}
	}
	return questions
}

// loginCandidates are the candidates for a login with what the client presents.
func loginCandidates(view conclave.View, in *loginIn, mayBeFetched bool) ([]candidate, *x509.Certificate, error) {
	name, err := roleOf(in)
	if err != nil {
		return nil, nil, err
	}
	certs, err := presented(view.Request())
	if err != nil {
		return nil, nil, err
	}
	found, err := candidates(view, certs, name, mayBeFetched)
	return found, certs[0], err
}

// runErrands does what is to be done outside. What fails is left out: the login is judged without it.
func runErrands(ctx context.Context, _ *conclave.Request, _ any) (any, error) {
	work, _ := conclave.Gathered[errands](ctx)
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	done := &results{answers: make(map[string][]answer, len(work.Questions))}
	for _, l := range work.Lists {
		fetching, cancel := context.WithTimeout(ctx, attemptTime)
		if fetched, err := fetchCRL(fetching, l.URL); err == nil {
			fetched.list.Name, fetched.list.AcceptExpired, fetched.list.URL = l.Name, l.AcceptExpired, l.URL
			done.lists = append(done.lists, fetched)
		}
		cancel()
	}
	askAll(ctx, work.Questions, done)
	return done, nil
}

func askAll(ctx context.Context, questions []question, done *results) {
	if len(questions) == 0 {
		return
	}
	client := newResponderClient()
	for i := range questions {
		done.answers[questions[i].Role] = questions[i].ask(ctx, client)
	}
}

func login(ctx context.Context, tx conclave.Tx, in *loginIn) (*conclave.Response, error) {
	done, ok := conclave.Prepared[*results](ctx)
	if !ok {
		done = &results{}
	}
	for _, fetched := range done.lists {
		// A list that isn't good leaves the one that has ended in place, and that refuses.
		if err := fetched.store(tx); err != nil && conclave.KindOf(err) != conclave.Invalid {
			return nil, err
		}
	}
	found, leaf, err := loginCandidates(tx, in, false)
	if err != nil {
		return nil, err
	}
	var refusal *conclave.Error
	for _, c := range found {
		if why := c.vouched(tx, done); why != nil {
			refusal = why
			continue
		}
		if !conclave.MayComeFrom(c.BoundCIDRs, tx.Request().Remote.Addr()) {
			return nil, errDenied
		}
		return c.login(tx, leaf)
	}
	return nil, refusal
}

// vouched is why a candidate isn't let in by what responders said; nil if the role doesn't ask them, or they vouch.
func (c *candidate) vouched(view conclave.View, done *results) *conclave.Error {
	if !c.OCSPEnabled {
		return nil
	}
	why := c.verdict(view, done.answers[c.name])
	if why == nil && !wasAsked(*c, done.answers) {
		why = errNoStatus
	}
	return why
}

// wasAsked reports whether responders were asked about a candidate, or there was nobody to ask. A role that lets in whom
// nobody vouches for doesn't let in whom nobody was asked about.
func wasAsked(c candidate, answers map[string][]answer) bool {
	if _, asked := answers[c.name]; asked {
		return true
	}
	_, could := questionFor(c)
	return !could
}

func (t *trusted) login(view conclave.View, leaf *x509.Certificate) (*conclave.Response, error) {
	c, err := loadConfig(view)
	if err != nil {
		return nil, err
	}
	fingerprint := sha256.Sum256(leaf.Raw)
	internal, err := json.Marshal(origin{Role: t.name, Fingerprint: fingerprint[:], Policies: t.Policies})
	if err != nil {
		return nil, err
	}
	made := &conclave.Login{Alias: conclave.Alias{Name: leaf.Subject.CommonName}, Terms: t.TokenTerms, Metadata: t.metadata(leaf),
		DisplayName: t.DisplayName, Role: t.name, Renewable: true, Internal: internal}
	if c.IdentityMetadata {
		made.Alias.Metadata = t.metadata(leaf)
	}
	return &conclave.Response{Login: made}, nil
}

// GatherRenewal wants the responders asked again that the role of the login asks.
func (Engine) GatherRenewal(view conclave.View, login *conclave.Login) (any, error) {
	from, role, isBound, err := loginOf(view, login)
	if err != nil || !isBound || !role.OCSPEnabled {
		return nil, err
	}
	found, err := from.candidates(view, role)
	if err != nil {
		return nil, err
	}
	return questionsFor(found), nil
}

// AskRenewal asks the responders.
func (Engine) AskRenewal(ctx context.Context, gathered any) (any, error) {
	questions, _ := gathered.([]question)
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	done := &results{answers: make(map[string][]answer, len(questions))}
	askAll(ctx, questions, done)
	return done, nil
}

// RenewLogin refuses unless the connection presents the very certificate of the login, and the role still trusts it, as
// do the responders that it asks.
func (Engine) RenewLogin(ctx context.Context, view conclave.View, login *conclave.Login) (*conclave.TokenTerms, error) {
	from, role, isBound, err := loginOf(view, login)
	if err != nil {
		return nil, err
	}
	if isBound {
		found, err := from.candidates(view, role)
		if err != nil {
			return nil, err
		}
		done, ok := conclave.Prepared[*results](ctx)
		if !ok {
			done = &results{}
		}
		if why := found[0].vouched(view, done); why != nil {
			return nil, why
		}
	}
	if !slices.Equal(slices.Sorted(slices.Values(role.Policies)), slices.Sorted(slices.Values(from.Policies))) {
		return nil, errPolicies
	}
	terms := role.TokenTerms
	return &terms, nil
}

// loginOf is what a token kept of its login, with the role as it is now. isBound tells whether the token can be renewed
// with the login's certificate only.
func loginOf(view conclave.View, login *conclave.Login) (from *origin, role *trusted, isBound bool, err error) {
	from = &origin{}
	if err := json.Unmarshal(login.Internal, from); err != nil {
		return nil, nil, false, errRoleGone
	}
	if role, err = loadRole(view, from.Role); err != nil {
		return nil, nil, false, err
	}
	if role == nil {
		return nil, nil, false, errRoleGone
	}
	c, err := loadConfig(view)
	if err != nil {
		return nil, nil, false, err
	}
	return from, role, !c.DisableBinding, nil
}

// candidates holds what the connection presents against what the login presented and against the role as it is now.
func (o *origin) candidates(view conclave.View, role *trusted) ([]candidate, error) {
	certs, err := presented(view.Request())
	if err != nil {
		return nil, err
	}
	fingerprint := sha256.Sum256(certs[0].Raw)
	if subtle.ConstantTimeCompare(fingerprint[:], o.Fingerprint) != 1 {
		return nil, errOther
	}
	return candidates(view, certs, role.name, false)
}
