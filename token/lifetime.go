package token

import (
	"time"

	"conclave"
)

// fallbackTTL is the lifetime where no mount says another: 32 days, as Vault has it.
const fallbackTTL = 768 * time.Hour

// terms are what decides how long a token lives.
type terms struct {
	defaultTTL, maxTTL          time.Duration // of the mount
	wanted, period, explicitMax time.Duration // 0 is not given
	created                     time.Time
}

func termsOf(mount *conclave.Mount) terms {
	t := terms{defaultTTL: fallbackTTL, maxTTL: fallbackTTL}
	if mount != nil && mount.MaxTTL > 0 {
		t.maxTTL = mount.MaxTTL
	}
	if mount != nil && mount.DefaultTTL > 0 {
		t.defaultTTL = mount.DefaultTTL
	}
	return t
}

// ttl is the time to live from now on. A periodic token lives for its period each time; others for what is wanted or
// the mount's default. The explicit maximum bounds both, from creation on; the mount's maximum bounds the period, and
// the whole life of tokens that aren't periodic.
func (t terms) ttl(now time.Time) (ttl time.Duration, warnings []string) {
	limit := t.maxTTL
	if t.explicitMax > 0 {
		limit = min(limit, t.explicitMax)
		if t.explicitMax > t.maxTTL {
			warnings = append(warnings, "Explicit max TTL exceeds the mount's max TTL, which holds instead.")
		}
	}
	switch {
	case t.period > 0:
		ttl = min(t.period, t.maxTTL)
		if t.explicitMax <= 0 {
			if ttl < t.period {
				warnings = append(warnings, "The period exceeds the mount's max TTL and is capped to it.")
			}
			return ttl, warnings
		}
	case t.wanted > 0:
		ttl = t.wanted
	default:
		ttl = t.defaultTTL
	}
	if left := t.created.Add(limit).Sub(now); ttl > left {
		if t.wanted > 0 || t.period > 0 {
			warnings = append(warnings, "The TTL exceeds what is left of the token's maximum and is capped to it.")
		}
		ttl = left
	}
	return max(ttl, 0), warnings
}
