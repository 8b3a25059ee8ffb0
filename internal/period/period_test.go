package period

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func at(text string) time.Time {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		panic(err)
	}
	return t
}

func TestNext(t *testing.T) {
	for _, row := range []struct{ expression, after, want string }{
		{"30 3 * * *", "2026-03-29T00:59:00Z", "2026-03-29T03:30:00Z"}, // a day with 23 hours in much of Europe
		{"30 3 * * *", "2026-03-29T03:30:00Z", "2026-03-30T03:30:00Z"},
		{"30 3 * * *", "2026-03-29T03:00:00+02:00", "2026-03-29T03:30:00Z"},
		{"0 0 * * SAT", "2026-11-24T00:00:00Z", "2026-11-28T00:00:00Z"},
		{"*/15 9-17 * * 1-5", "2026-11-27T17:45:00Z", "2026-11-30T09:00:00Z"},
		{"0 0 29 2 *", "2096-03-01T00:00:00Z", "2104-02-29T00:00:00Z"},
		{"0 0 1 1 *", "2026-01-01T00:00:00.5Z", "2027-01-01T00:00:00Z"},
	} {
		s, err := Cron(row.expression)
		if err != nil {
			t.Errorf("Cron(%q): %v", row.expression, err)
			continue
		}
		if got := s.Next(at(row.after)); !got.Equal(at(row.want)) || got.Location() != time.UTC || !s.IsCron() {
			t.Errorf("%q after %s is %s, want %s", row.expression, row.after, got, row.want)
		}
	}
	s, err := Every(90 * time.Minute)
	if got := s.Next(at("2026-11-24T23:00:00Z")); err != nil || !got.Equal(at("2026-11-25T00:30:00Z")) || s.IsCron() {
		t.Errorf("90 minutes later is %s, %v", got, err)
	}
}

func TestMalformedSchedules(t *testing.T) {
	for _, expression := range []string{"", "* * * *", "* * * * * *", "60 * * * *", "* * * * MONDAY", "*/0 * * * *", "5-1 * * * *", "@daily", "@every 1s", "TZ=UTC", "TZ=UTC * * * * *",
		"CRON_TZ=Europe/Berlin 0 0 * * *", "a b c d e", strings.Repeat("*,", 200) + "* * * * *"} {
		if s, err := Cron(expression); !errors.Is(err, ErrMalformed) {
			t.Errorf("Cron(%q) = %v, %v", expression, s, err)
		}
	}
	if _, err := Cron("0 0 30 2 *"); !errors.Is(err, ErrNever) {
		t.Errorf("the 30th of February: %v", err)
	}
	for _, d := range []time.Duration{0, -time.Second, MaxPeriod + 1} {
		if _, err := Every(d); !errors.Is(err, ErrPeriod) {
			t.Errorf("Every(%v): %v", d, err)
		}
	}
}

func TestAttemptsAreWithinTheWindow(t *testing.T) {
	s, err := Cron("0 3 * * *")
	if err != nil {
		t.Fatal(err)
	}
	due := at("2026-11-24T03:00:00Z")
	for _, row := range []struct {
		failed string
		window time.Duration
		want   string
	}{
		{"2026-11-24T03:00:05Z", time.Hour, "2026-11-24T03:10:05Z"},
		{"2026-11-24T03:49:59Z", time.Hour, "2026-11-24T03:59:59Z"},
		{"2026-11-24T03:50:00Z", time.Hour, "2026-11-25T03:00:00Z"},
		{"2026-11-24T09:00:00Z", 0, "2026-11-24T09:10:00Z"},
	} {
		if got := s.Attempt(due, at(row.failed), 10*time.Minute, row.window); !got.Equal(at(row.want)) {
			t.Errorf("failed at %s, window %v: again at %s, want %s", row.failed, row.window, got, row.want)
		}
	}
	e, _ := Every(time.Hour)
	for _, row := range []struct {
		s      *Schedule
		window time.Duration
		ok     bool
	}{{s, 0, true}, {s, time.Hour, true}, {s, time.Minute, false}, {s, -time.Hour, false}, {e, 0, true}, {e, time.Hour, false}} {
		if err := row.s.CheckWindow(row.window); (err == nil) != row.ok {
			t.Errorf("CheckWindow(%v), cron %v: %v", row.window, row.s.IsCron(), err)
		}
	}
}

func FuzzCron(f *testing.F) {
	for _, seed := range []string{"30 3 * * MON", "*/5 0-6/2 1,15 JAN-JUN ?", "0 0 29 2 1", "TZ= * * * * *", "@every 5m"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, expression string) {
		s, err := Cron(expression)
		if err != nil {
			return
		}
		after := at("2026-11-24T03:00:00Z")
		for range 3 {
			next := s.Next(after)
			if !next.After(after) {
				t.Fatalf("%q after %s is %s", expression, after, next)
			}
			after = next
		}
	})
}
