package database

import (
	"time"

	"conclave"
	"conclave/internal/period"
)

// Limits of rotation.
const (
	minPeriod = 5 * time.Second
	firstWait = 10 * time.Second // after a rotation that failed
	maxWait   = 5 * time.Minute
)

// rotation is when a password is changed by itself: never, by a period, or by a schedule.
type rotation struct {
	Period   conclave.Seconds `json:"rotation_period" doc:"How often the password is changed; 0 is never."`
	Schedule string           `json:"rotation_schedule" doc:"When the password is changed, in cron's five fields, UTC."`
	Window   conclave.Seconds `json:"rotation_window" doc:"How long after the scheduled time the password may still be changed, at least an hour; 0 is without limit."`
}

// parse gives the schedule, nil for never. Errors are for the client.
func (r *rotation) parse() (*period.Schedule, error) {
	switch {
	case r.Period != 0 && r.Schedule != "":
		return nil, conclave.Errorf(conclave.Invalid, "mutually exclusive fields rotation_period and rotation_schedule were both specified; only one of them can be provided")
	case r.Period != 0 && r.Period.Duration() < minPeriod:
		return nil, conclave.Errorf(conclave.Invalid, "rotation_period must be %s or more", minPeriod)
	case r.Period == 0 && r.Schedule == "" && r.Window != 0:
		return nil, conclave.Errorf(conclave.Invalid, "rotation_window %w", period.ErrWindow)
	case r.Period == 0 && r.Schedule == "":
		return nil, nil
	}
	field, s, err := "rotation_schedule", (*period.Schedule)(nil), error(nil)
	if r.Period != 0 {
		field = "rotation_period"
		s, err = period.Every(r.Period.Duration())
	} else {
		s, err = period.Cron(r.Schedule)
	}
	if err != nil {
		return nil, conclave.Errorf(conclave.Invalid, "%s %w", field, err)
	}
	if err := s.CheckWindow(r.Window.Duration()); err != nil {
		return nil, conclave.Errorf(conclave.Invalid, "rotation_window %w", err)
	}
	return s, nil
}

// next is when the password is due after a time; the zero time is never.
func (r *rotation) next(after time.Time) time.Time {
	s, err := r.parse()
	if err != nil || s == nil {
		return time.Time{}
	}
	return s.Next(after)
}

// again is when a rotation that was due and has failed is tried again.
func (r *rotation) again(due, failed time.Time, failures int) time.Time {
	pause := firstWait
	for i := 1; i < failures && pause < maxWait; i++ {
		pause *= 2
	}
	pause = min(pause, maxWait)
	s, err := r.parse()
	if err != nil || s == nil {
		return failed.Add(pause)
	}
	return s.Attempt(due, failed, pause, r.Window.Duration())
}
