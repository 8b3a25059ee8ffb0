package issuing

import (
	"fmt"
	"time"

	"conclave"
)

// Times are what a certificate's validity is computed from.
type Times struct {
	Now                time.Time // cluster time
	DefaultTTL, MaxTTL time.Duration
	IssuerEnds         time.Time // zero for a root
	Behavior           string    // what happens beyond the issuer's end: err, truncate or permit
}

// What issuers do with certificates that would outlive them.
const (
	BehaviorErr      = "err"
	BehaviorTruncate = "truncate"
	BehaviorPermit   = "permit"
)

// latest is the end of certificates that have none (RFC 5280, 4.1.2.5).
var latest = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)

func parseTime(text string) (time.Time, error) {
	at, err := time.Parse(time.RFC3339, text)
	if err != nil || at.Year() < 1950 || at.After(latest) {
		return time.Time{}, conclave.Errorf(conclave.Invalid, "a time has the form 2006-01-02T15:04:05Z")
	}
	return at.UTC(), nil
}

// validity is from when to when a certificate is valid.
func (r *Role) validity(req *Request, times *Times) (from, to time.Time, warnings []string, err error) {
	if from, err = r.notBefore(req, times.Now); err != nil {
		return from, to, nil, err
	}
	if to, warnings, err = r.notAfter(req, times); err != nil {
		return from, to, nil, err
	}
	if !times.IssuerEnds.IsZero() && to.After(times.IssuerEnds) {
		switch times.Behavior {
		case BehaviorPermit:
		case BehaviorTruncate:
			to = times.IssuerEnds
		default:
			return from, to, nil, conclave.Errorf(conclave.Invalid, "cannot satisfy request, as TTL would result in notAfter of %s that is beyond the expiration of the CA certificate at %s",
				to.Format(time.RFC3339), times.IssuerEnds.Format(time.RFC3339))
		}
	}
	from, to = from.UTC().Truncate(time.Second), to.UTC().Truncate(time.Second)
	if to.After(latest) || !to.After(from) {
		return from, to, nil, conclave.Errorf(conclave.Invalid, "cannot satisfy request: the certificate would end before it begins, or never")
	}
	return from, to, warnings, nil
}

func (r *Role) notBefore(req *Request, now time.Time) (time.Time, error) {
	earliest := now.Add(-r.NotBeforeDuration.Duration())
	switch {
	case r.NotBefore != "":
		return parseTime(r.NotBefore)
	case req.NotBefore == "":
		return earliest, nil
	case r.NotBeforeBound == "forbid":
		return time.Time{}, conclave.Errorf(conclave.Invalid, "not_before_bound is set to forbid. not_before cannot be provided.")
	}
	at, err := parseTime(req.NotBefore)
	if err == nil && r.NotBeforeBound == "duration" && at.Before(earliest.Truncate(time.Second)) {
		return at, conclave.Errorf(conclave.Invalid, "not_before_bound is set to duration: not_before is earlier than not_before_duration allows")
	}
	return at, err
}

func (r *Role) notAfter(req *Request, times *Times) (to time.Time, warnings []string, err error) {
	ttl, most := r.TTL.Duration(), r.MaxTTL.Duration()
	if most == 0 {
		most = times.MaxTTL
	}
	if req.TTL > 0 {
		ttl = req.TTL.Duration()
	}
	if ttl == 0 {
		ttl = min(times.DefaultTTL, most)
	}
	if ttl > most {
		warnings = append(warnings, fmt.Sprintf("TTL %q is longer than permitted maxTTL %q, so maxTTL is being used", ttl, most))
		ttl = most
	}
	to = times.Now.Add(ttl)
	fixed := r.NotAfter
	if fixed == "" && req.NotAfter != "" {
		switch {
		case req.TTL > 0:
			return to, nil, conclave.Errorf(conclave.Invalid, "either ttl or not_after should be provided. Both should not be provided in the same request.")
		case r.NotAfterBound == "forbid":
			return to, nil, conclave.Errorf(conclave.Invalid, "not_after_bound is set to forbid. not_after cannot be provided.")
		}
		fixed = req.NotAfter
	}
	if fixed != "" {
		if to, err = parseTime(fixed); err != nil {
			return to, nil, err
		}
		if r.NotAfterBound == "ttl-limited" && to.After(times.Now.Add(ttl)) {
			return to, nil, conclave.Errorf(conclave.Invalid, "not_after_bound is set to ttl-limited: not_after is beyond the TTL of %s", ttl)
		}
		warnings = nil
	}
	switch r.NotAfterBound {
	case "", "permit", "forbid", "ttl-limited":
		return to, warnings, nil
	}
	bound, err := parseTime(r.NotAfterBound)
	if err == nil && to.After(bound) {
		err = conclave.Errorf(conclave.Invalid, "not_after_bound: the certificate would end after %s", bound.Format(time.RFC3339))
	}
	return to, warnings, err
}
