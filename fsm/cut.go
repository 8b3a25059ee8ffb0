package fsm

// Cut waits for the state as of exactly one index, so that replicas can compare theirs.
type Cut struct {
	fsm   *FSM
	index uint64
	view  chan *View
}

// CutAt asks for the state as of index: with every entry up to it applied, and none after. There is one Cut at a time; a
// new one ends the one before. It costs each entry a comparison, and at its index a Pebble snapshot.
func (f *FSM) CutAt(index uint64) *Cut {
	c := &Cut{fsm: f, index: index, view: make(chan *View, 1)}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.endCutLocked(nil)
	switch {
	case f.closed || f.shown.applied > index:
		c.view <- nil
	case f.shown.applied == index:
		c.view <- f.viewLocked()
	default:
		f.cut = c
		f.cutAt.Store(index)
	}
	return c
}

// View gets the state, which the receiver releases, when the index is reached; if that is one of an entry of Raft's own,
// which never reaches the state machine, when the next entry comes. It gets nil if the state is beyond the index, or
// another Cut was asked for.
func (c *Cut) View() <-chan *View { return c.view }

// Forget stops waiting. It may be called more than once, and after the View came.
func (c *Cut) Forget() {
	f := c.fsm
	f.mu.Lock()
	if f.cut == c {
		f.endCutLocked(nil)
	}
	f.mu.Unlock()
	select {
	case v := <-c.view:
		if v != nil {
			v.Release()
		}
	default:
	}
}

// endCutLocked gives what the present Cut came to.
func (f *FSM) endCutLocked(v *View) {
	if f.cut != nil {
		f.cut.view <- v
		f.cut = nil
		f.cutAt.Store(0)
	}
}

// settleCutLocked ends the Cut if its index is before the next entry that may come.
func (f *FSM) settleCutLocked(next uint64) {
	switch {
	case f.cut == nil || f.cut.index >= next:
	case f.shown.applied <= f.cut.index:
		f.endCutLocked(f.viewLocked())
	default:
		f.endCutLocked(nil)
	}
}

// cutBefore makes the Cut, if it is before the entry next, which is about to be applied.
func (f *FSM) cutBefore(a *applier, next uint64) {
	if at := f.cutAt.Load(); at == 0 || at >= next {
		return
	}
	f.commit(a)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.settleCutLocked(next)
}
