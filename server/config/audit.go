package config

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// Audit is how much of the audit log a node keeps, and when the cluster begins a new epoch of it.
type Audit struct {
	// MaxSize is the size of the log in bytes from which on the vault refuses requests until closed epochs are dropped.
	MaxSize int64 // default 64 GiB
	// EpochMaxAge and EpochMaxRecords are when an epoch is closed and the next begun. Zero: when somebody asks for it.
	EpochMaxAge     time.Duration
	EpochMaxRecords int64
}

// Limits of the audit settings.
const (
	DefaultAuditSize = 64 << 30 // bytes
	MinAuditSize     = 16 << 20 // bytes
	MinEpochAge      = time.Hour
	MinEpochRecords  = 1000
)

func (l *loader) auditSettings() map[string]setter {
	return allOnce(map[string]setter{
		"directories":       list(&l.AuditDirectories),
		"max_size":          size(&l.Audit.MaxSize, MinAuditSize),
		"epoch_max_age":     duration(&l.Audit.EpochMaxAge),
		"epoch_max_records": number(&l.Audit.EpochMaxRecords, MinEpochRecords, math.MaxInt64),
	})
}

func (l *loader) checkAudit() {
	if age := l.Audit.EpochMaxAge; age != 0 && age < MinEpochAge {
		l.failOn("audit.epoch_max_age", "epoch_max_age: must be an hour or more")
	}
}

// units of sizes: suffix → bytes.
var units = []struct {
	suffix string
	bytes  int64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}, {"", 1}}

// size takes a number of bytes, or one with a unit: "64GiB".
func size(target *int64, least int64) setter {
	return func(v value) {
		s, ok := v.scalar("a size")
		if !ok {
			return
		}
		for _, unit := range units {
			digits, has := strings.CutSuffix(s, unit.suffix)
			if !has {
				continue
			}
			n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
			if err != nil || n < 0 || n > math.MaxInt64/unit.bytes {
				break
			}
			if n *= unit.bytes; n < least {
				v.fail("must be %d MiB or more", least>>20)
				return
			}
			*target = n
			return
		}
		v.fail("must be a number of bytes, or a size such as 64GiB (KiB, MiB, GiB, TiB)")
	}
}
