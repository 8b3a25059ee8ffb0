package fsm

// Settle makes what was applied durable, soon, if that is at least so many bytes: less has to be replayed after a crash then.
// It is for times in which little is applied. FlushBytes sees to the others.
func (f *FSM) Settle(bytes int) {
	f.applying.Lock()
	defer f.applying.Unlock()
	f.mu.Lock()
	closed := f.closed
	f.mu.Unlock()
	a := &f.applier
	if closed || a.unsynced < bytes {
		return
	}
	a.must(a.epoch.flush(), "flush state")
	a.unsynced = 0
}
