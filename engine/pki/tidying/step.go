package tidying

import (
	"slices"
	"strings"
	"time"

	"conclave"
	"conclave/engine/pki/authority"
	"conclave/engine/pki/revocation"
	"conclave/engine/pki/stored"
)

// Limits of one step.
const (
	maxRemoved = 200 // certificates
	maxLooked  = 500 // certificates that are looked at
)

// phases are what a job does, in this order. A phase goes on from its cursor and returns where it goes on next, "" at its
// end.
var phases = []struct {
	doing string
	step  func(tx conclave.Tx, j *job) (cursor string, err error)
}{
	{"Tidying certificates", tidyCerts},
	{"Tidying revocation lists", tidyRegisters},
	{"Tidying issuers", tidyIssuers},
}

// Work does a step of what is due.
func Work(tx conclave.Tx, name string) error {
	old, err := stored.LoadOr(tx, "tidy/job", job{State: inactive})
	if err != nil {
		return err
	}
	if name == Auto {
		return workAuto(tx, old)
	}
	if old.State != running {
		return nil
	}
	j := *old
	if j.Cursor, err = phases[j.Phase].step(tx, &j); err != nil {
		return err
	}
	if j.Cursor == "" {
		j.Phase++
	}
	if j.Phase < len(phases) {
		if err := tx.Wake(Manual, tx.Now()); err != nil {
			return err
		}
		return stored.Put(tx, "tidy/job", &j)
	}
	j.Phase, j.State, j.Finished = 0, finished, tx.Now().Unix()
	if j.ByItself {
		j.Auto = j.Finished
	}
	return stored.Put(tx, "tidy/job", &j)
}

// workAuto begins a job, unless one runs, and sets the time for the next one.
func workAuto(tx conclave.Tx, old *job) error {
	config, err := stored.LoadOr(tx, "config/auto-tidy", newAuto())
	if err != nil || !config.Enabled {
		return err
	}
	if err := tx.Wake(Auto, tx.Now().Add(config.Interval.Duration())); err != nil {
		return err
	}
	if old.State == running {
		return nil
	}
	return start(tx, old, config.options, true)
}

// cutoff is the time before which something must have ended. The transaction needs no bound to it: it only comes later.
func cutoff(view conclave.View, buffer conclave.Seconds) time.Time {
	return view.Now().Add(-buffer.Duration())
}

// tidyCerts removes certificates by the hour in which they ended. The cursor is the last one that was looked at.
func tidyCerts(tx conclave.Tx, j *job) (string, error) {
	if !j.Options.CertStore && !j.Options.RevokedCerts {
		return "", nil
	}
	until := cutoff(tx, j.Options.SafetyBuffer).UTC().Format("20060102/15")
	looked, removed := 0, 0
	walk := walker{view: tx, after: j.Cursor}
	for looked < maxLooked && removed < maxRemoved {
		path, err := walk.next()
		if err != nil || path == "" || path[:len(until)] >= until {
			return "", err
		}
		looked++
		j.Cursor = path
		isGone, err := tidyCert(tx, j, path)
		if err != nil {
			return "", err
		}
		if isGone {
			removed++
		}
	}
	return j.Cursor, nil
}

// tidyCert removes one certificate, if the job is about those like it.
func tidyCert(tx conclave.Tx, j *job, path string) (bool, error) {
	serial := path[strings.LastIndexByte(path, '/')+1:]
	known, err := revocation.Lookup(tx, serial)
	if err != nil || known != nil && !j.Options.RevokedCerts || known == nil && !j.Options.CertStore {
		return false, err
	}
	j.Certs++
	for _, gone := range []string{stored.CertPath(serial), stored.RevokedPath(serial), "expiry/" + path} {
		if err := tx.Delete(gone); err != nil {
			return false, err
		}
	}
	return true, nil
}

// walker goes through the index of ends, from after a path on: DAY/HH/SERIAL.
type walker struct {
	view        conclave.View
	after       string
	days, hours []string
	serials     []string
	day, hour   string
}

func (w *walker) next() (string, error) {
	day, rest, _ := strings.Cut(w.after, "/")
	hour, serial, _ := strings.Cut(rest, "/")
	for len(w.serials) == 0 {
		if len(w.hours) == 0 {
			if w.days == nil {
				days, err := w.view.List("expiry/", "", 0)
				if err != nil {
					return "", err
				}
				w.days = slices.DeleteFunc(days, func(name string) bool { return strings.TrimSuffix(name, "/") < day })
			}
			if len(w.days) == 0 {
				return "", nil
			}
			w.day, w.days = strings.TrimSuffix(w.days[0], "/"), w.days[1:]
			hours, err := w.view.List("expiry/"+w.day+"/", "", 0)
			if err != nil {
				return "", err
			}
			w.hours = slices.DeleteFunc(hours, func(name string) bool { return w.day == day && strings.TrimSuffix(name, "/") < hour })
			continue
		}
		w.hour, w.hours = strings.TrimSuffix(w.hours[0], "/"), w.hours[1:]
		from := ""
		if w.day == day && w.hour == hour {
			from = serial
		}
		var err error
		if w.serials, err = w.view.List("expiry/"+w.day+"/"+w.hour+"/", from, maxLooked); err != nil {
			return "", err
		}
	}
	path := w.day + "/" + w.hour + "/" + w.serials[0]
	if w.serials = w.serials[1:]; len(w.serials) == 0 {
		w.after, w.hours = path, append([]string{w.hour}, w.hours...) // there may be more in this hour
	}
	return path, nil
}

// tidyRegisters takes entries of certificates that have ended out of one authority's revocation list. The cursor is the
// authority, and the sheet to go on with.
func tidyRegisters(tx conclave.Tx, j *job) (string, error) {
	if !j.Options.RevokedCerts {
		return "", nil
	}
	of, from, _ := strings.Cut(j.Cursor, "/")
	if of == "" {
		return nextRegister(tx, "")
	}
	removed, next, err := revocation.Tidy(tx, of, from, cutoff(tx, j.Options.SafetyBuffer))
	if err != nil {
		return "", err
	}
	j.Revoked += removed
	if next != "" {
		return of + "/" + next, nil
	}
	return nextRegister(tx, of+"/")
}

func nextRegister(view conclave.View, after string) (string, error) {
	names, err := view.List("register/", after, 1)
	if err != nil || len(names) == 0 {
		return "", err
	}
	return names[0], nil
}

func tidyIssuers(tx conclave.Tx, j *job) (string, error) {
	if !j.Options.Issuers {
		return "", nil
	}
	removed, err := authority.TidyIssuers(tx, cutoff(tx, j.Options.IssuerBuffer))
	j.Issuers += removed
	return "", err
}
