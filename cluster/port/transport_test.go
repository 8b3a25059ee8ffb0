package port

import (
	"io"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

const patience = 10 * time.Second

// follower answers what it is sent at an address: heartbeats with success, entries as it is told.
func follower(t *testing.T, address string, stores func() bool) *raft.NetworkTransport {
	t.Helper()
	trans, err := raft.NewTCPTransport(address, nil, 3, patience, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { close(done); trans.Close() })
	go func() { // ends with the test
		for {
			select {
			case rpc := <-trans.Consumer():
				args, ok := rpc.Command.(*raft.AppendEntriesRequest)
				if !ok {
					t.Errorf("a %T was sent", rpc.Command)
					return
				}
				rpc.Respond(&raft.AppendEntriesResponse{Term: args.Term, Success: len(args.Entries) == 0 || stores()}, nil)
			case <-done:
				return
			}
		}
	}()
	return trans
}

func leader(t *testing.T, noRoom func(raft.ServerID) <-chan struct{}) *Transport {
	t.Helper()
	trans, err := raft.NewTCPTransport("127.0.0.1:0", nil, 3, patience, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { close(done); trans.Close() })
	return NewTransport(trans, done, noRoom)
}

var (
	heartbeat = &raft.AppendEntriesRequest{Term: 2, RPCHeader: raft.RPCHeader{Addr: []byte("leader")}}
	entries   = &raft.AppendEntriesRequest{Term: 2, RPCHeader: raft.RPCHeader{Addr: []byte("leader")}, PrevLogEntry: 7, PrevLogTerm: 1,
		Entries: []*raft.Log{{Index: 8, Term: 2}}}
)

// sending sends in the background, for the answer to be waited for.
func sending(l *Transport, at raft.ServerAddress, args *raft.AppendEntriesRequest) (*raft.AppendEntriesResponse, <-chan error) {
	var resp raft.AppendEntriesResponse
	sent := make(chan error, 1)
	go func() { sent <- l.AppendEntries("f", at, args, &resp) }()
	return &resp, sent
}

func wantSent(t *testing.T, sent <-chan error) {
	t.Helper()
	select {
	case err := <-sent:
		if err != nil {
			t.Fatalf("append entries: %v", err)
		}
	case <-time.After(patience):
		t.Fatal("append entries doesn't return")
	}
}

func TestEntriesWaitForHeartbeatsToGetThroughAgain(t *testing.T) {
	l := leader(t, nil)
	gone := follower(t, "127.0.0.1:0", func() bool { return true })
	at := gone.LocalAddr()
	resp, sent := sending(l, at, entries)
	wantSent(t, sent)
	if !resp.Success {
		t.Error("entries are refused by a follower that is up")
	}
	gone.Close()
	gone.CloseStreams()

	if err := l.AppendEntries("f", at, entries, new(raft.AppendEntriesResponse)); err == nil {
		t.Error("entries were sent to a follower that is down")
	}
	for l.AppendEntries("f", at, heartbeat, new(raft.AppendEntriesResponse)) == nil {
	}
	resp, sent = sending(l, at, entries)
	other := *entries
	other.Term = 1
	if err := l.AppendEntries("f", at, &other, new(raft.AppendEntriesResponse)); err == nil {
		t.Error("entries of another term were sent to a follower that is down")
	}
	select {
	case err := <-sent:
		t.Fatalf("entries didn't wait for a heartbeat: %v", err)
	default:
	}
	follower(t, string(at), func() bool { return true })
	if err := l.AppendEntries("f", at, heartbeat, new(raft.AppendEntriesResponse)); err != nil {
		t.Fatal(err)
	}
	if wantSent(t, sent); !resp.Success {
		t.Error("entries are refused by a follower that is back")
	}
}

func TestRefusedEntriesWaitForRoom(t *testing.T) {
	full, room := make(chan raft.ServerID, 1), make(chan struct{})
	l := leader(t, func(id raft.ServerID) <-chan struct{} { full <- id; return room })
	f := follower(t, "127.0.0.1:0", func() bool { return false })
	resp, sent := sending(l, f.LocalAddr(), entries)
	select {
	case id := <-full:
		if id != "f" {
			t.Errorf("%s has no room, want f", id)
		}
	case <-time.After(patience):
		t.Fatal("nobody hears that there is no room")
	}
	close(room)
	if wantSent(t, sent); resp.Success || !resp.NoRetryBackoff {
		t.Errorf("the answer is %+v; want a refusal that asks for no pause", resp)
	}
	resp, sent = sending(l, f.LocalAddr(), heartbeat)
	if wantSent(t, sent); !resp.Success || len(full) != 0 {
		t.Errorf("a heartbeat is answered %+v", resp)
	}
}
