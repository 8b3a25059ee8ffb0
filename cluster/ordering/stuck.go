package ordering

import (
	"time"

	"conclave/cluster/wire"
)

// GiveUp answers entries that were proposed before a time and are still under way: that they may be applied later, or
// never. What waits behind them is refused. It is for a leader that knows that too few voters have room for them: Raft
// keeps them, and commits them when there is room.
func (o *Order) GiveUp(before time.Time) {
	var stuck, waiting []*parcel
	o.mu.Lock()
	for _, e := range o.aloft {
		if e.future == nil || !e.began.Before(before) {
			continue
		}
		stuck = append(stuck, e.parcels...)
		e.parcels = nil
		for lane := range o.queues {
			waiting = append(waiting, o.withdrawLocked(priority(lane))...)
		}
	}
	o.mu.Unlock()
	for _, p := range stuck {
		p.answer(wire.Status_STUCK, 0, nil)
	}
	for _, p := range waiting {
		p.answer(wire.Status_FULL, 0, nil)
	}
}

// withdrawLocked empties a queue, except for fences: they say nothing of what is proposed.
func (o *Order) withdrawLocked(lane priority) (waiting []*parcel) {
	var fences []*parcel
	for _, p := range o.queues[lane] {
		if p.fence {
			fences = append(fences, p)
			continue
		}
		o.bytes[lane] -= p.bytes
		waiting = append(waiting, p)
	}
	o.queues[lane] = fences
	return waiting
}
