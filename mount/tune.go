package mount

import (
	"maps"
	"time"

	"conclave"
)

// tuneInput is what can be changed of a mount; what is nil stays. Durations are texts so that "system" and "" can stand
// for the server's default.
type tuneInput struct {
	Description               *string           `json:"description" doc:"A text for people."`
	Options                   map[string]string `json:"options" doc:"Options of the plug-in; those not given stay."`
	DefaultTTL                *string           `json:"default_lease_ttl" doc:"Lifetime where a request asks for none, such as 1h; system or empty is the server's."`
	MaxTTL                    *string           `json:"max_lease_ttl" doc:"The longest lifetime; system or empty is the server's."`
	ForceNoCache              *bool             `json:"force_no_cache" doc:"Kept for clients."`
	AuditNonHMACRequestKeys   *[]string         `json:"audit_non_hmac_request_keys" doc:"Request fields that are written to the audit log as they are."`
	AuditNonHMACResponseKeys  *[]string         `json:"audit_non_hmac_response_keys" doc:"Response fields that are written to the audit log as they are."`
	ListingVisibility         *string           `json:"listing_visibility" doc:"hidden, or unauth to show the mount to callers without a token."`
	PassthroughRequestHeaders *[]string         `json:"passthrough_request_headers" doc:"Request headers that the plug-in sees."`
	AllowedResponseHeaders    *[]string         `json:"allowed_response_headers" doc:"Response headers that the plug-in may set."`
	TokenType                 *string           `json:"token_type" doc:"The type of token that logins get."`
	UserLockout               *lockoutInput     `json:"user_lockout_config" doc:"How wrong guesses at accounts lock them."`
}

// apply changes e, which must be the caller's own.
func (in *tuneInput) apply(e *Entry) error {
	set(&e.Description, in.Description)
	c := &e.Config
	set(&c.ForceNoCache, in.ForceNoCache)
	set(&c.AuditNonHMACRequestKeys, in.AuditNonHMACRequestKeys)
	set(&c.AuditNonHMACResponseKeys, in.AuditNonHMACResponseKeys)
	set(&c.ListingVisibility, in.ListingVisibility)
	set(&c.PassthroughRequestHeaders, in.PassthroughRequestHeaders)
	set(&c.AllowedResponseHeaders, in.AllowedResponseHeaders)
	set(&c.TokenType, in.TokenType)
	if in.UserLockout != nil {
		c.UserLockout = in.UserLockout.over(c.UserLockout)
	}
	if err := setTTL(&c.DefaultTTL, in.DefaultTTL, "default_lease_ttl"); err != nil {
		return err
	}
	if err := setTTL(&c.MaxTTL, in.MaxTTL, "max_lease_ttl"); err != nil {
		return err
	}
	if in.Options != nil {
		options := maps.Clone(e.Options)
		if options == nil {
			options = map[string]string{}
		}
		maps.Copy(options, in.Options)
		e.Options = options
	}
	return nil
}

// lockoutInput is a Lockout as clients give it; what is nil stays.
type lockoutInput struct {
	Threshold *int64            `json:"lockout_threshold" doc:"Wrong guesses that lock; 0 is 5."`
	Duration  *conclave.Seconds `json:"lockout_duration" doc:"How long; 0 is 15 minutes."`
	Reset     *conclave.Seconds `json:"lockout_counter_reset_duration" doc:"Time without a wrong guess after which all are forgotten; 0 is 15 minutes."`
	Disable   *bool             `json:"lockout_disable" doc:"Don't lock accounts."`
}

// over is old with what is given.
func (in *lockoutInput) over(old *Lockout) *Lockout {
	next := &Lockout{}
	if old != nil {
		*next = *old
	}
	set(&next.Threshold, in.Threshold)
	set(&next.Disable, in.Disable)
	set(&next.Duration, (*int64)(in.Duration))
	set(&next.Reset, (*int64)(in.Reset))
	return next
}

func set[T any](member *T, given *T) {
	if given != nil {
		*member = *given
	}
}

func setTTL(seconds *int64, given *string, name string) error {
	if given == nil {
		return nil
	}
	if *given == "system" {
		*seconds = 0
		return nil
	}
	d, err := conclave.ParseDuration(*given)
	if err != nil {
		return conclave.Errorf(conclave.Invalid, "%s: %s", name, err.Error())
	}
	if d < 0 || d > maxTTL {
		return conclave.Errorf(conclave.Invalid, "%s: must be between 0 and a hundred years", name)
	}
	*seconds = int64(d / time.Second)
	return nil
}

func (s *side) tune(tx conclave.Tx, path string, in *tuneInput) error {
	table, old, err := s.find(tx, path)
	if err != nil {
		return err
	}
	tuned := *old
	if err := in.apply(&tuned); err != nil {
		return err
	}
	if was, is := old.Options["version"], tuned.Options["version"]; was != is {
		return conclave.Errorf(conclave.Invalid, "the version of a mount can't be changed from %q to %q in place: "+
			"mount a new one of that version and copy the secrets to it", was, is)
	}
	if err := tuned.check(s.Defaults); err != nil {
		return err
	}
	if err := s.open(&tuned, false); err != nil {
		return err
	}
	return table.save(tx, old, &tuned, table.moves)
}

// tuning is how a mount is tuned, with the lifetimes that hold in effect.
type tuning struct {
	Config
	Description string            `json:"description" doc:"A text for people."`
	Options     map[string]string `json:"options" doc:"Options of the plug-in."`
}

func describeTuning(e *Entry) tuning {
	t := tuning{e.Config, e.Description, e.Options}
	t.DefaultTTL, t.MaxTTL = int64(e.mount.DefaultTTL/time.Second), int64(e.mount.MaxTTL/time.Second)
	if e.Auth() && t.TokenType == "" {
		t.TokenType = "default-service"
	}
	return t
}
