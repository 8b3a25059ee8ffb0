package revocation

import (
	"encoding/json"
	"time"

	"conclave"
)

// Config says how revocation is published, stored as JSON.
type Config struct {
	Disable      bool             `json:"disable"`
	Expiry       conclave.Seconds `json:"expiry"`
	OCSPDisable  bool             `json:"ocsp_disable"`
	OCSPExpiry   conclave.Seconds `json:"ocsp_expiry"`
	AutoRebuild  bool             `json:"auto_rebuild"`
	Grace        conclave.Seconds `json:"auto_rebuild_grace_period"`
	EnableDelta  bool             `json:"enable_delta"`
	DeltaPeriod  conclave.Seconds `json:"delta_rebuild_interval"`
	MaxEntries   int              `json:"max_crl_entries"`
	Changed      int64            `json:"changed"` // Unix nanoseconds
	Unified      bool             `json:"unified_crl"`
	UnifiedPaths bool             `json:"unified_crl_on_existing_paths"`
}

// NewConfig is what holds unless something else is written.
func NewConfig() *Config {
	return &Config{Expiry: 72 * 3600, OCSPExpiry: 12 * 3600, Grace: 12 * 3600, DeltaPeriod: 15 * 60, MaxEntries: 100_000}
}

// DecodeConfig reads a stored configuration.
func DecodeConfig(value []byte) (*Config, error) {
	config := NewConfig()
	if err := json.Unmarshal(value, config); err != nil {
		return nil, errFormat
	}
	return config, nil
}

// Limits of a configuration.
const (
	minExpiry = time.Minute
	maxExpiry = 10 * 365 * 24 * time.Hour
)

// Check holds a configuration against the rules.
func (c *Config) Check() error {
	for _, d := range []conclave.Seconds{c.Expiry, c.OCSPExpiry, c.Grace, c.DeltaPeriod} {
		if d < 0 || d.Duration() > maxExpiry {
			return conclave.Errorf(conclave.Invalid, "times must not be negative, nor longer than ten years")
		}
	}
	switch {
	case c.Expiry.Duration() < minExpiry:
		return conclave.Errorf(conclave.Invalid, "expiry must be at least a minute")
	case c.AutoRebuild && c.Grace >= c.Expiry:
		return conclave.Errorf(conclave.Invalid, "auto_rebuild_grace_period must be shorter than expiry")
	case c.EnableDelta && !c.AutoRebuild:
		return conclave.Errorf(conclave.Invalid, "delta CRLs need auto_rebuild")
	case c.DeltaPeriod < 1 || c.EnableDelta && c.DeltaPeriod >= c.Expiry:
		return conclave.Errorf(conclave.Invalid, "delta_rebuild_interval must be at least a second, and shorter than expiry")
	case c.MaxEntries < -1 || c.MaxEntries > MaxEntries:
		return conclave.Errorf(conclave.Invalid, "max_crl_entries is between 0 and %d, or -1 for that", MaxEntries)
	}
	return nil
}

// Limit is how many entries a list has at most.
func (c *Config) Limit() int {
	if c.MaxEntries <= 0 {
		return MaxEntries
	}
	return c.MaxEntries
}

// period is how long a list that doesn't change is published before there is a new one.
func (c *Config) period() time.Duration {
	if c.AutoRebuild && c.Grace > 0 {
		return (c.Expiry - c.Grace).Duration()
	}
	return c.Expiry.Duration() / 2
}

// Edition is which list is published: its number, which is also its time in Unix nanoseconds, and the number of the list
// that a delta begins with.
type Edition struct{ Number, Base int64 }

// Edition is the one that holds at now, and until when it does if nothing changes.
func (c *Config) Edition(head *Head, now time.Time) (e Edition, until time.Time) {
	began := max(head.Changed, c.Changed)
	period := int64(c.period())
	e = Edition{Number: began, Base: head.Base}
	if passed := (now.UnixNano() - began) / period; passed > 0 && now.UnixNano() > began {
		e.Number = began + passed*period
		e.Base = e.Number
	}
	return e, time.Unix(0, e.Number+period)
}

// DeltaEdition is the delta that holds at now. A delta that doesn't change is published anew more often than a whole list, for
// verifiers look for another one only once theirs has ended; its number is that of the list, or later (RFC 5280, 5.2.4).
func (c *Config) DeltaEdition(head *Head, now time.Time) (e Edition, until time.Time) {
	e, _ = c.Edition(head, now)
	period := int64(c.DeltaPeriod.Duration())
	if passed := (now.UnixNano() - e.Number) / period; passed > 0 {
		e.Number += passed * period
	}
	return e, time.Unix(0, e.Number+period)
}

// DeltaExpiry is how long a delta is valid: until the next but one.
func (c *Config) DeltaExpiry() time.Duration { return 2 * c.DeltaPeriod.Duration() }

// Rebase moves the base of deltas on when an entry is added at a time, so that deltas don't grow without end: the list
// that was published until then becomes the base once the last one is a period old.
func (c *Config) Rebase(head *Head, now time.Time) {
	if e, _ := c.Edition(head, now); e.Base != head.Base {
		head.Base = e.Base
	} else if head.Changed-head.Base >= int64(c.period()) {
		head.Base = head.Changed
	}
}
