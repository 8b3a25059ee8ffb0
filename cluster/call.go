package cluster

import (
	"context"
	"errors"
	"time"

	"conclave"
	"conclave/cluster/wire"
)

// Limits of calls.
const (
	maxCallBody  = 1 << 20
	maxCallTime  = 30 * time.Second // for a context without a deadline
	maxHandling  = 64               // calls handled at once
	handlerLimit = time.Minute
)

// Handler answers calls of other members. It must not keep body.
type Handler = func(ctx context.Context, from Member, body []byte) ([]byte, error)

// Handle registers the handler of a method, such as "seal.share". A later one takes the place of an earlier one.
func (n *Node) Handle(method string, h Handler) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.handlers[method] = h
}

// Call calls a method of another member, or of this node, over mutual TLS. Errors of the handler keep their kind;
// Unavailable means that the member couldn't be reached.
func (n *Node) Call(ctx context.Context, nodeID, method string, body []byte) ([]byte, error) {
	if len(body) > maxCallBody {
		return nil, conclave.Errorf(conclave.TooLarge, "the body of a call is longer than %d bytes", maxCallBody)
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, maxCallTime)
		defer cancel()
	}
	var reply *wire.Reply
	if nodeID == n.id.NodeID {
		reply = n.called(ctx, n.Self(), &wire.Request{Method: method, Body: body})
	} else {
		client, err := n.peers.Client(nodeID)
		if err == nil {
			reply, err = client.Call(n.outgoing(ctx), &wire.Request{Method: method, Body: body})
		}
		if err != nil {
			n.logger.Debug("call failed", "node", nodeID, "method", method, "error", err)
			return nil, unavailable("another node of the cluster can't be reached", 0)
		}
	}
	if reply.GetFailed() {
		e := conclave.Errorf(conclave.Kind(min(reply.GetKind(), 255)), "%s", reply.GetMessage())
		e.RetryAfter = time.Duration(reply.GetRetryAfter())
		return nil, e
	}
	return reply.GetBody(), nil
}

// called runs a handler and packs what it says.
func (n *Node) called(ctx context.Context, from Member, r *wire.Request) *wire.Reply {
	ctx, cancel := context.WithTimeout(ctx, handlerLimit)
	defer cancel()
	body, err := n.handle(ctx, from, r)
	if err == nil {
		return &wire.Reply{Body: body}
	}
	reply := &wire.Reply{Failed: true, Kind: uint32(conclave.KindOf(err)), Message: "the call failed"}
	// Only errors that were made for clients cross the wire; others may say too much.
	if e, ok := errors.AsType[*conclave.Error](err); ok {
		reply.Message, reply.RetryAfter = e.Error(), int64(e.RetryAfter)
	} else {
		n.logger.Error("handler of a call failed", "method", r.GetMethod(), "error", err)
	}
	return reply
}

func (n *Node) handle(ctx context.Context, from Member, r *wire.Request) ([]byte, error) {
	if len(r.GetBody()) > maxCallBody {
		return nil, conclave.Errorf(conclave.TooLarge, "the body of a call is longer than %d bytes", maxCallBody)
	}
	n.mu.Lock()
	h := n.handlers[r.GetMethod()]
	n.mu.Unlock()
	if h == nil {
		return nil, conclave.Errorf(conclave.Unsupported, "this node doesn't know that call")
	}
	select {
	case n.handling <- struct{}{}:
		defer func() { <-n.handling }()
	default:
		return nil, unavailable("too many calls are being handled", busyRetry)
	}
	return h(ctx, from, r.GetBody())
}
