// Package expiring tells of certificates that are kept and will end in a week, as events. It goes by the index of ends, a day's
// certificates at a time and some in each transaction, so that nothing is told twice, nor forgotten when a node dies.
package expiring

import (
	"crypto/x509"
	"strings"
	"time"

	"conclave"
	"conclave/engine/pki/revocation"
	"conclave/engine/pki/stored"
)

// EventType is that of the events. Their path is "cert/SERIAL".
const EventType = "pki/certificate-expiring"

const (
	maxTold  = 50  // events of one transaction; conclave.MaxEvents is more
	maxHours = 200 // certificates that one transaction looks at

	// minValidity is how long a certificate must have been made for to be told of: what lives for days is renewed by a machine.
	minValidity = 2 * stored.Lead
)

// Work tells of the next certificates, and sets the time when it goes on.
func Work(tx conclave.Tx) error {
	old, err := stored.Load(tx, stored.WatchPath, stored.DecodeJSON[stored.Watch])
	if err != nil || old == nil {
		return err
	}
	w := *old
	if begins := w.Begins(); !tx.Reached(begins) {
		return tx.Wake(stored.WatchName, begins)
	}
	more, err := tell(tx, &w)
	if err != nil {
		return err
	}
	if more {
		if err := stored.Put(tx, stored.WatchPath, &w); err != nil {
			return err
		}
		return tx.Wake(stored.WatchName, tx.Now())
	}
	days, err := tx.List("expiry/", "", 1)
	if err != nil {
		return err
	}
	if len(days) == 0 { // the next certificate that is kept begins anew
		return tx.Delete(stored.WatchPath)
	}
	w.Next(tx.Now())
	if err := stored.Put(tx, stored.WatchPath, &w); err != nil {
		return err
	}
	return tx.Wake(stored.WatchName, w.Begins())
}

// tell goes on with the watch's day, and reports whether there is more of it.
func tell(tx conclave.Tx, w *stored.Watch) (more bool, err error) {
	dir := "expiry/" + w.Day + "/"
	hours, err := tx.List(dir, "", 0)
	if err != nil {
		return false, err
	}
	from, after, _ := strings.Cut(w.Cursor, "/")
	told, looked := 0, 0
	for _, hour := range hours {
		hour = strings.TrimSuffix(hour, "/")
		if hour < from {
			continue
		}
		if hour > from {
			after = ""
		}
		serials, err := tx.List(dir+hour+"/", after, maxHours)
		if err != nil {
			return false, err
		}
		for _, serial := range serials {
			if told == maxTold || looked == maxHours {
				return true, nil
			}
			looked++
			w.Cursor = hour + "/" + serial
			isTold, err := tellOf(tx, serial)
			if err != nil {
				return false, err
			}
			if isTold {
				told++
			}
		}
		if len(serials) == maxHours {
			return true, nil
		}
	}
	return false, nil
}

// tellOf tells of one certificate, unless it is gone, revoked or short-lived.
func tellOf(tx conclave.Tx, serial string) (bool, error) {
	kept, err := stored.LoadCert(tx, serial)
	if conclave.Is(err, conclave.NotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	known, err := revocation.Lookup(tx, serial)
	if err != nil || known != nil {
		return false, err
	}
	cert, err := x509.ParseCertificate(kept.DER)
	if err != nil || cert.NotAfter.Sub(cert.NotBefore) < minValidity {
		return false, nil
	}
	text := stored.SerialText(serial)
	name := cert.Subject.CommonName
	if len(name) > maxName {
		name = ""
	}
	return true, tx.Emit(conclave.Event{Type: EventType, Path: "cert/" + text, Metadata: map[string]string{"serial_number": text, "common_name": name,
		"not_after": cert.NotAfter.UTC().Format(time.RFC3339)}})
}

// maxName bounds the common name in an event, so that the most of them fit a transaction.
const maxName = 128
