package lease

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	"conclave"
)

// slotTime is how fine an index is: what is due is found within so much.
const slotTime = 5 * time.Second

// index is a directory of entries ordered by time.
type index string

// entry is one that is due.
type entry struct {
	dir string // of its slot
	key string
}

func (x index) dir(nanos int64) string {
	seconds := max(nanos, 0) / int64(time.Second)
	return fmt.Sprintf("%s%016x/%03x/", x, seconds/3600, seconds%3600/int64(slotTime/time.Second))
}

func (x index) put(tx conclave.Tx, nanos int64, key, value string) error {
	return tx.Put(x.dir(nanos)+key, []byte(value))
}

func (x index) remove(tx conclave.Tx, nanos int64, key string) error {
	return tx.Delete(x.dir(nanos) + key)
}

// due returns at most limit entries whose slots are over, earlier slots first.
func (x index) due(view conclave.View, limit int) ([]entry, error) {
	var found []entry
	hours, err := view.List(string(x), "", 0)
	if err != nil {
		return nil, err
	}
	for _, hour := range hours {
		begin, err := hourBegin(hour)
		if err != nil {
			return nil, err
		}
		if !view.Reached(begin.Add(slotTime)) {
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
			if !view.Reached(begin.Add(time.Duration(number+1) * slotTime)) {
				return found, nil
			}
			dir := string(x) + hour + slot
			keys, err := conclave.Some(view, dir, "", limit-len(found))
			if err != nil {
				return nil, err
			}
			for _, key := range keys {
				found = append(found, entry{dir, key})
			}
			if len(found) >= limit {
				return found, nil
			}
		}
	}
	return found, nil
}

var errIndex = conclave.Errorf(conclave.Internal, "the index of leases is damaged")

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
