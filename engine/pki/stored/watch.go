package stored

import (
	"time"

	"conclave"
)

const (
	// WatchPath is where the watch is stored, WatchName the name of the engine's work for it.
	WatchPath = "expiry-watch"
	WatchName = "expiring"

	// Lead is how long before its end a certificate is told of.
	Lead = 7 * 24 * time.Hour

	dayForm = "20060102"
	day     = 24 * time.Hour
)

// Watch is how far telling of certificates that end soon has come, stored as JSON. There is one as long as certificates are
// kept.
type Watch struct {
	Day    string `json:"day"`    // whose certificates are told of next
	Cursor string `json:"cursor"` // the last one of it that was, HOUR/SERIAL
}

// Begins is when the watch's day is told of.
func (w *Watch) Begins() time.Time {
	at, err := time.Parse(dayForm, w.Day)
	if err != nil {
		return time.Time{}
	}
	return at.Add(-Lead)
}

// Next is the day after, but not one that is over.
func (w *Watch) Next(now time.Time) {
	next := w.Begins().Add(Lead + day)
	if today := now.UTC().Truncate(day); next.Before(today) {
		next = today
	}
	w.Day, w.Cursor = next.Format(dayForm), ""
}

// watch begins the watch, unless there is one.
func watch(tx conclave.Tx) error {
	there, err := tx.Get(WatchPath)
	if err != nil || there != nil {
		return err
	}
	w := Watch{Day: tx.Now().UTC().Add(Lead + day).Format(dayForm)}
	if err := Put(tx, WatchPath, &w); err != nil {
		return err
	}
	return tx.Wake(WatchName, w.Begins())
}
