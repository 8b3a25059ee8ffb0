// Package timeline is a directory of entries ordered by time, as leases and scheduled work have one: hours since 1970 in 16
// hex digits, slots of five seconds of an hour in three, entries:
//
//	<dir><hour>/<slot>/<key>  a value of the owner's choosing
//
// Finding what is due reads as much as is found, however many entries there are.
package timeline

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	"conclave"
)

// SlotTime is how fine an index is: what is due is found within so much.
const SlotTime = 5 * time.Second

// Index is such a directory; it ends in "/".
type Index string

// Entry is one that is due.
type Entry struct {
	Dir string // of its slot
	Key string
}

// Dir is the directory of the slot that a time, Unix nanoseconds, lies in.
func (x Index) Dir(nanos int64) string {
	seconds := max(nanos, 0) / int64(time.Second)
	return fmt.Sprintf("%s%016x/%03x/", x, seconds/3600, seconds%3600/int64(SlotTime/time.Second))
}

// Put adds an entry.
func (x Index) Put(tx conclave.Tx, nanos int64, key, value string) error {
	return tx.Put(x.Dir(nanos)+key, []byte(value))
}

// Remove takes an entry out; there need be none.
func (x Index) Remove(tx conclave.Tx, nanos int64, key string) error {
	return tx.Delete(x.Dir(nanos) + key)
}

// Due returns at most limit entries whose slots are over, earlier slots first.
func (x Index) Due(view conclave.View, limit int) ([]Entry, error) {
	var found []Entry
	hours, err := view.List(string(x), "", 0)
	if err != nil {
		return nil, err
	}
	for _, hour := range hours {
		begin, err := hourBegin(hour)
		if err != nil {
			return nil, err
		}
		if !view.Reached(begin.Add(SlotTime)) {
			break
		}
		slots, err := view.List(string(x)+hour, "", 0)
		if err != nil {
			return nil, err
		}
		for _, slot := range slots {
			number, err := strconv.ParseUint(strings.TrimSuffix(slot, "/"), 16, 16)
			if err != nil {
				return nil, errIndex
			}
			if !view.Reached(begin.Add(time.Duration(number+1) * SlotTime)) {
				return found, nil
			}
			dir := string(x) + hour + slot
			keys, err := conclave.Some(view, dir, "", limit-len(found))
			if err != nil {
				return nil, err
			}
			for _, key := range keys {
				found = append(found, Entry{dir, key})
			}
			if len(found) >= limit {
				return found, nil
			}
		}
	}
	return found, nil
}

var errIndex = conclave.Errorf(conclave.Internal, "an index of times is damaged")

func hourBegin(hour string) (time.Time, error) {
	raw, err := hex.DecodeString(strings.TrimSuffix(hour, "/"))
	if err != nil || len(raw) != 8 {
		return time.Time{}, errIndex
	}
	n, err := strconv.ParseInt(strings.TrimSuffix(hour, "/"), 16, 64)
	if err != nil || n > 1<<40 {
		return time.Time{}, errIndex
	}
	return time.Unix(n*3600, 0), nil
}
