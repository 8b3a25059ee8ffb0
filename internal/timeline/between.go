package timeline

import (
	"strconv"
	"strings"
	"time"

	"conclave"
)

// Position is a place in an index: in a slot, behind one of its entries.
type Position struct {
	Slot int64  `json:"slot"`          // when it begins, in Unix seconds
	Key  string `json:"key,omitempty"` // "" is before all entries
}

// SlotOf is the position before the slot that a time lies in.
func SlotOf(at time.Time) Position {
	const seconds = int64(SlotTime / time.Second)
	return Position{Slot: max(at.Unix(), 0) / seconds * seconds}
}

// Between returns at most limit entries behind from, of slots that end no later than until, earlier slots first, and where
// to go on.
func (x Index) Between(view conclave.View, from Position, until time.Time, limit int) (found []Entry, next Position, err error) {
	next = SlotOf(until)
	hours, err := view.List(string(x), "", 0)
	for _, hour := range hours {
		begin, err := hourBegin(hour)
		if err != nil {
			return nil, from, err
		}
		if begin.Unix() >= next.Slot {
			break
		}
		if begin.Add(time.Hour).Unix() <= from.Slot {
			continue
		}
		slots, err := view.List(string(x)+hour, "", 0)
		if err != nil {
			return nil, from, err
		}
		for _, slot := range slots {
			number, err := strconv.ParseUint(strings.TrimSuffix(slot, "/"), 16, 16)
			if err != nil {
				return nil, from, errIndex
			}
			at := Position{Slot: begin.Add(time.Duration(number) * SlotTime).Unix()}
			if at.Slot < from.Slot || at.Slot >= next.Slot {
				continue
			}
			if at.Slot == from.Slot {
				at.Key = from.Key
			}
			keys, err := conclave.Some(view, string(x)+hour+slot, at.Key, limit-len(found))
			if err != nil {
				return nil, from, err
			}
			for _, key := range keys {
				at.Key = key
				found = append(found, Entry{string(x) + hour + slot, key})
			}
			if len(found) == limit {
				return found, at, nil
			}
		}
	}
	if next.Slot < from.Slot {
		next = from
	}
	return found, next, err
}
