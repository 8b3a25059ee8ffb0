package port

import (
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// Transport is Raft's network, and takes the pauses between attempts to bring entries to a follower that is down or can't
// store them. Raft's own grow to ten seconds and go on when the follower is back; these end then.
type Transport struct {
	*raft.NetworkTransport
	noRoom func(raft.ServerID) <-chan struct{}
	done   <-chan struct{}

	mu    sync.Mutex // guards what follows
	pulse map[raft.ServerID]*pulse
}

// pulse is how this leader's heartbeats to a follower fare.
type pulse struct {
	term uint64
	at   time.Time     // when the newest one ended
	back chan struct{} // closed when one gets through; nil while they do
}

var (
	_ raft.Transport   = (*Transport)(nil)
	_ raft.WithPreVote = (*Transport)(nil)
	_ raft.WithClose   = (*Transport)(nil)
)

const (
	// storePause is the longest time between two attempts to store entries on a follower that has no room for them.
	storePause = time.Second
	// pulseLimit is when a heartbeat is so old that none will follow: longer than Raft waits for an answer to one.
	pulseLimit = 5 * time.Second
	// maxPulses is more than a cluster has servers.
	maxPulses = 256
)

// NewTransport wraps a network until done is closed. noRoom is told who can't store what it is sent, and returns a channel
// that is closed when that may have changed.
func NewTransport(network *raft.NetworkTransport, done <-chan struct{}, noRoom func(raft.ServerID) <-chan struct{}) *Transport {
	return &Transport{NetworkTransport: network, noRoom: noRoom, done: done, pulse: make(map[raft.ServerID]*pulse)}
}

// AppendEntries sends a follower entries or a heartbeat. While heartbeats don't get through, entries wait for one that does;
// and if the follower can't store them, its answer is held back until it may have room, at most for storePause.
func (t *Transport) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	send := func() error { return t.NetworkTransport.AppendEntries(id, target, args, resp) }
	if heartbeat := args.PrevLogEntry == 0 && args.PrevLogTerm == 0 && len(args.Entries) == 0 && args.LeaderCommitIndex == 0; heartbeat {
		err := send()
		t.note(id, args.Term, err == nil)
		return err
	}
	err := send()
	for err != nil && t.awaitPulse(id, args.Term) {
		err = send()
	}
	if err != nil {
		return err
	}
	// What else a follower refuses, it refuses without asking for a pause, or in a later term.
	if resp.Success || resp.NoRetryBackoff || resp.Term > args.Term || len(args.Entries) == 0 {
		return nil
	}
	timer := time.NewTimer(storePause)
	defer timer.Stop()
	select {
	case <-t.noRoom(id):
	case <-timer.C:
	case <-t.done:
	}
	resp.NoRetryBackoff = true
	return nil
}

// note keeps how a heartbeat fared.
func (t *Transport) note(id raft.ServerID, term uint64, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.pulse[id]
	if p == nil {
		if len(t.pulse) >= maxPulses {
			clear(t.pulse) // who waits for one of those waits no longer than pulseLimit
		}
		p = &pulse{}
		t.pulse[id] = p
	}
	p.term, p.at = term, time.Now()
	switch {
	case ok && p.back != nil:
		close(p.back)
		p.back = nil
	case !ok && p.back == nil:
		p.back = make(chan struct{})
	}
}

// awaitPulse waits for a heartbeat of the term to get through. It reports false if the last one did, or if there are no
// more: this node doesn't lead any longer, or the follower was removed.
func (t *Transport) awaitPulse(id raft.ServerID, term uint64) bool {
	for {
		t.mu.Lock()
		p := t.pulse[id]
		waits := p != nil && p.back != nil && p.term == term && time.Since(p.at) < pulseLimit
		var back chan struct{}
		if waits {
			back = p.back
		}
		t.mu.Unlock()
		if !waits {
			return false
		}
		timer := time.NewTimer(pulseLimit)
		select {
		case <-back:
			timer.Stop()
			return true
		case <-timer.C:
		case <-t.done:
			timer.Stop()
			return false
		}
	}
}
