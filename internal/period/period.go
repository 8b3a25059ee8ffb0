// Package period says when work is due that is done again and again: rotation, tidying.
//
// A schedule is a period, or an expression as cron has it: five fields, minute, hour, day of month, month and day of week.
// Expressions are in UTC, so that what is due is the same on each node, and no hour happens twice. There are no seconds, no
// "@every", no time zones. The package has no clock.
package period

import (
	"errors"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

// Limits of a schedule.
const (
	MinWindow = time.Hour // of a schedule by cron, as Vault has it
	MaxPeriod = 10 * 366 * 24 * time.Hour
	maxText   = 256 // bytes of an expression
)

// parser reads the five fields.
const fields = cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow

// Errors of Cron and Every: the text is for the client.
var (
	ErrMalformed = errors.New("must be a cron expression of five fields (minute, hour, day of month, month, day of week), in UTC")
	ErrNever     = errors.New("names a day that never comes")
	ErrPeriod    = errors.New("must be positive and at most ten years")
	ErrWindow    = errors.New("must be at least an hour, and is for schedules by cron only")
)

// Schedule is when work is due. It doesn't change.
type Schedule struct {
	every time.Duration // 0 if there is an expression
	cron  cron.Schedule // nil if there is a period
}

// Every is a schedule of a period.
func Every(period time.Duration) (*Schedule, error) {
	if period <= 0 || period > MaxPeriod {
		return nil, ErrPeriod
	}
	return &Schedule{every: period}, nil
}

// Cron is the schedule of an expression such as "30 3 * * MON".
func Cron(expression string) (*Schedule, error) {
	// The parser reads a time zone and named schedules of its own accord, and panics on halves of the former.
	if len(expression) > maxText || strings.ContainsAny(expression, "=@") {
		return nil, ErrMalformed
	}
	schedule, err := cron.NewParser(fields).Parse(expression)
	if err != nil {
		return nil, ErrMalformed
	}
	if spec, ok := schedule.(*cron.SpecSchedule); ok {
		spec.Location = time.UTC
	}
	s := &Schedule{cron: schedule}
	if s.Next(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return nil, ErrNever
	}
	return s, nil
}

// IsCron reports whether the schedule is an expression.
func (s *Schedule) IsCron() bool { return s.cron != nil }

// Next is the first time after a time at which work is due.
func (s *Schedule) Next(after time.Time) time.Time {
	if s.cron == nil {
		return after.Add(s.every).UTC()
	}
	after = after.UTC()
	// cron looks five years ahead; the 29th of February can be eight years away, and on one day of the week 40.
	for range 9 {
		if next := s.cron.Next(after); !next.IsZero() {
			return next
		}
		after = after.AddDate(5, 0, 0)
	}
	return time.Time{}
}

// CheckWindow holds a window against what a schedule can have: none, or an hour at least with an expression.
func (s *Schedule) CheckWindow(window time.Duration) error {
	if window != 0 && (s.cron == nil || window < MinWindow || window > MaxPeriod) {
		return ErrWindow
	}
	return nil
}

// Attempt is when work that was due and has failed is tried again, pause after the failure: then, if that is within the
// window, and else when it is due next. Without a window it is always then.
func (s *Schedule) Attempt(due, failed time.Time, pause, window time.Duration) time.Time {
	again := failed.Add(pause)
	if window > 0 && !again.Before(due.Add(window)) {
		return s.Next(failed)
	}
	return again
}
