package port

import (
	"time"

	"github.com/hashicorp/raft"
)

// Transport is Raft's network, and takes the pauses between attempts to store entries on a follower that can't: Raft's own
// grow to ten seconds, and go on when there is room again.
type Transport struct {
	*raft.NetworkTransport
	noRoom func(raft.ServerID) <-chan struct{}
	done   <-chan struct{}
}

var (
	_ raft.Transport   = (*Transport)(nil)
	_ raft.WithPreVote = (*Transport)(nil)
	_ raft.WithClose   = (*Transport)(nil)
)

// storePause is the longest time between two attempts to store entries on a follower that has no room for them.
const storePause = time.Second

// NewTransport wraps a network until done is closed. noRoom is told who can't store what it is sent, and returns a channel
// that is closed when that may have changed.
func NewTransport(network *raft.NetworkTransport, done <-chan struct{}, noRoom func(raft.ServerID) <-chan struct{}) *Transport {
	return &Transport{network, noRoom, done}
}

// AppendEntries sends entries to a follower. If it can't store them, its answer is held back until it may have room, at most
// for storePause.
func (t *Transport) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if err := t.NetworkTransport.AppendEntries(id, target, args, resp); err != nil {
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
