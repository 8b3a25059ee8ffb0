package cert

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/json"
	"slices"
	"time"

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
	// VouchedUntil is when the OCSP answers of the login end; zero if there were none or they didn't say.
	VouchedUntil time.Time `json:"vouched_until"`
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
	var work errands
	for _, c := range found {
		if !c.OCSPEnabled || len(work.Questions) == maxQuestions {
			break
		}
		if q, ok := questionFor(c); ok {
			work.Questions = append(work.Questions, q)
		}
	}
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
	if len(work.Questions) == 0 {
		return done, nil
	}
	client := newResponderClient()
	for i := range work.Questions {
		done.answers[work.Questions[i].Role] = work.Questions[i].ask(ctx, client)
	}
	return done, nil
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
		var until time.Time
		if c.OCSPEnabled {
			var why *conclave.Error
			if until, why = c.verdict(tx, done.answers[c.name]); why == nil && !wasAsked(c, done.answers) {
				why = errNoStatus
			}
			if why != nil {
				refusal = why
				continue
			}
		}
		if !conclave.MayComeFrom(c.BoundCIDRs, tx.Request().Remote.Addr()) {
			return nil, errDenied
		}
		return c.login(tx, leaf, until)
	}
	return nil, refusal
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

func (t *trusted) login(view conclave.View, leaf *x509.Certificate, vouchedUntil time.Time) (*conclave.Response, error) {
	c, err := loadConfig(view)
	if err != nil {
		return nil, err
	}
	fingerprint := sha256.Sum256(leaf.Raw)
	internal, err := json.Marshal(origin{Role: t.name, Fingerprint: fingerprint[:], Policies: t.Policies, VouchedUntil: vouchedUntil})
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

// RenewLogin refuses unless the connection presents the very certificate of the login, and the role still trusts it. OCSP
// responders aren't asked again: what they said at the login counts until it ends.
func (Engine) RenewLogin(_ context.Context, view conclave.View, login *conclave.Login) (*conclave.TokenTerms, error) {
	var from origin
	if err := json.Unmarshal(login.Internal, &from); err != nil {
		return nil, errRoleGone
	}
	role, err := loadRole(view, from.Role)
	if err != nil {
		return nil, err
	}
	if role == nil {
		return nil, errRoleGone
	}
	c, err := loadConfig(view)
	if err != nil {
		return nil, err
	}
	if !c.DisableBinding {
		if err := from.check(view, role); err != nil {
			return nil, err
		}
	}
	if !slices.Equal(slices.Sorted(slices.Values(role.Policies)), slices.Sorted(slices.Values(from.Policies))) {
		return nil, errPolicies
	}
	terms := role.TokenTerms
	return &terms, nil
}

// check holds what the connection presents against what the login presented and against the role as it is now.
func (o *origin) check(view conclave.View, role *trusted) error {
	certs, err := presented(view.Request())
	if err != nil {
		return err
	}
	fingerprint := sha256.Sum256(certs[0].Raw)
	if subtle.ConstantTimeCompare(fingerprint[:], o.Fingerprint) != 1 {
		return errOther
	}
	if _, err := candidates(view, certs, role.name, false); err != nil {
		return err
	}
	if role.OCSPEnabled && !role.OCSPFailOpen && (o.VouchedUntil.IsZero() || view.Reached(o.VouchedUntil)) {
		return errLoginAgain
	}
	return nil
}
