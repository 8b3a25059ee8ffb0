package acme

import (
	"context"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"conclave"
	"conclave/engine/pki/acme/validation"
)

// IsWork reports whether a name of work is of ACME.
func IsWork(name string) bool { return strings.HasPrefix(name, workPrefix) }

// BeginWork looks at what is due: a challenge to validate, or something whose time is over, which it clears away.
func (s *Service) BeginWork(_ context.Context, tx conclave.Tx, name string) (any, error) {
	if period, ok := strings.CutPrefix(name, workNonces); ok {
		return nil, clearNonces(tx, period)
	}
	if id, ok := strings.CutPrefix(name, workAccount); ok {
		return nil, clearAccount(tx, id)
	}
	if id, ok := strings.CutPrefix(name, workOrder); ok {
		return nil, clearOrder(tx, id)
	}
	id, ok := strings.CutPrefix(name, workChallenge)
	if !ok {
		return nil, nil
	}
	a, c, err := underValidation(tx, id)
	if err != nil || a == nil {
		return nil, err
	}
	config, err := loadConfig(tx)
	if err != nil || config == nil || !config.Settings.Enabled {
		return nil, err
	}
	owner, err := load[account](tx, accountDir, a.Account)
	if err != nil || owner == nil || owner.Status != statusValid {
		return nil, err
	}
	print, err := thumbprint(owner.Key)
	if err != nil {
		return nil, err
	}
	begun := &validation.Attempt{Kind: c.Type, Name: a.Identifier.Value, Token: c.Token, Authorization: c.Token + "." + print, Reach: config.Settings.reach()}
	if a.Identifier.Type == typeIP {
		if begun.Address, err = netip.ParseAddr(a.Identifier.Value); err != nil {
			return nil, conclave.Errorf(conclave.Internal, "a stored address can't be read")
		}
	}
	return begun, nil
}

// underValidation returns an authorization with the challenge that is being validated; nil if none is.
func underValidation(view conclave.View, id string) (*authorization, *challenge, error) {
	a, err := load[authorization](view, authDir, id)
	if err != nil || a == nil || a.status(view) != statusPending {
		return nil, nil, err
	}
	at := slices.IndexFunc(a.Challenges, func(c challenge) bool { return c.Status == statusProcessing })
	if at < 0 {
		return nil, nil, nil
	}
	return a, &a.Challenges[at], nil
}

// Work validates a challenge. It returns nil, or what went wrong: a *validation.Failure.
func (s *Service) Work(ctx context.Context, _ string, begun any) (any, error) {
	a, ok := begun.(*validation.Attempt)
	if !ok {
		return nil, conclave.Errorf(conclave.Internal, "no validation was begun")
	}
	if failure := s.validate(ctx, a); failure != nil {
		return failure, nil
	}
	return nil, nil
}

// pauses are those after failed attempts.
func pauses() [maxAttempts - 1]time.Duration {
	return [...]time.Duration{2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second}
}

// FinishWork records what came of a validation. A failure counts once there were enough of them: names take their time
// to be known everywhere.
func (s *Service) FinishWork(_ context.Context, tx conclave.Tx, name string, _, done any, failure error) error {
	a, c, err := underValidation(tx, strings.TrimPrefix(name, workChallenge))
	if err != nil || a == nil {
		return err
	}
	wrong, _ := done.(*validation.Failure)
	if failure != nil {
		wrong = &validation.Failure{Kind: "serverInternal", Detail: "the validation could not be done"}
	}
	if wrong == nil {
		c.Status, c.Validated, c.Error = statusValid, tx.Now().Unix(), nil
		a.Status = statusValid
		return a.save(tx)
	}
	c.Attempts++
	c.Error = &problem{Type: typePrefix + wrong.Kind, Detail: wrong.Detail, Status: http.StatusForbidden}
	if c.Attempts >= maxAttempts {
		c.Status, a.Status = statusInvalid, statusInvalid
		return a.save(tx)
	}
	if err := tx.Wake(name, tx.Now().Add(pauses()[c.Attempts-1])); err != nil {
		return err
	}
	return a.save(tx)
}
