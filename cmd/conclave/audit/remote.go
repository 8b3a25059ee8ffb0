package audit

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"

	log "conclave/audit"
	"conclave/cmd/conclave/client"

	"github.com/hashicorp/vault/api"
)

// pageRecords is how many records are asked for at a time.
const pageRecords = 2_000

// head is where a node says that its log stands.
type head struct {
	Epoch uint64 `json:"epoch"`
	Seq   uint64 `json:"seq"` // records so far
	Head  string `json:"head"`
	Root  string `json:"root"`
}

// page is a part of a node's log. Each frame is a line of an export, byte for byte, so that what verifies exports
// verifies a running node as well.
type page struct {
	Frames []json.RawMessage `json:"frames"`
	Head   head              `json:"head"`
	Fault  string            `json:"fault"` // of the record after these, which the node can't read
}

// source is one node's log. fetch returns the records from a number on, at most limit of them, or from the first that is
// retained if that is later.
type source struct {
	name  string
	fetch func(ctx context.Context, from uint64, limit int) (page, error)
}

// nodeSource reads the log of the node that c is connected to.
func nodeSource(c *api.Client) source {
	return source{c.Address(), func(ctx context.Context, from uint64, limit int) (page, error) {
		r := c.NewRequest("GET", "/v1/sys/audit-log")
		r.Params.Set("from", strconv.FormatUint(from, 10))
		r.Params.Set("limit", strconv.Itoa(limit))
		resp, err := c.RawRequestWithContext(ctx, r)
		if resp != nil {
			defer resp.Body.Close()
		}
		if err != nil {
			return page{}, err
		}
		var answer struct {
			Data page `json:"data"`
		}
		if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
			return page{}, client.Remotef("the audit log of %s can't be read: %w", c.Address(), err)
		}
		return answer.Data, nil
	}}
}

// walked is what a walk over a node's log found.
type walked struct {
	Node    string `json:"node"`
	First   uint64 `json:"first"`
	Records uint64 `json:"records"`
	Epoch   uint64 `json:"epoch"`
	Seq     uint64 `json:"seq"`
	Head    string `json:"head"`
	Root    string `json:"root"`
	Fault   string `json:"fault,omitempty"`

	state log.State
}

// walk checks a node's log from the first record it has to where it stood when the walk began, and to no more: reading
// adds records. Lines go to out as an export as well, if that isn't nil.
func walk(ctx context.Context, node source, out io.Writer) (walked, error) {
	result := walked{Node: node.name}
	first, err := node.fetch(ctx, 0, pageRecords)
	if err != nil {
		return result, err
	}
	if first.Fault != "" && len(first.Frames) == 0 {
		result.Fault = first.Fault
		return result, nil
	}
	if len(first.Frames) == 0 {
		return result, client.Remotef("%s has no audit records", node.name)
	}
	lines, err := firstLine(first.Frames[0])
	if err != nil {
		result.Fault = err.Error()
		return result, nil
	}
	reader, writer := io.Pipe()
	fed := uint64(1) // lines, the head among them
	done := make(chan error, 1)
	go func() { // ends with this function, which closes the pipe and waits
		sink := io.Writer(writer)
		if out != nil {
			sink = io.MultiWriter(writer, out)
		}
		n, err := feed(ctx, node, sink, lines, first)
		fed += n
		done <- errors.Join(err, writer.CloseWithError(err))
	}()
	report, err := log.VerifyExport(reader, nil)
	reader.CloseWithError(io.ErrClosedPipe) // a fault leaves lines unread
	feedErr := <-done
	result.First, result.Records, result.Epoch, result.Seq = report.First, report.Records, report.State.Epoch, report.State.Seq
	root := report.State.Root()
	result.Head, result.Root, result.state = hex.EncodeToString(report.State.Head[:]), hex.EncodeToString(root[:]), report.State
	fault, isFault := errors.AsType[*log.ExportFault](err)
	var unread damage
	switch {
	case isFault && (fault.Line <= fed || feedErr == nil && fault.Line != fed+1):
		result.Fault = fmt.Sprintf("record %d: %s", fault.Seq, fault.Detail)
		return result, nil
	case errors.As(feedErr, &unread):
		result.Fault = string(unread)
		return result, nil
	case feedErr != nil:
		return result, feedErr
	case err != nil && !isFault:
		return result, err
	}
	// What is left is the fault that the last line is missing: walk ends where it began, not where an export does.
	result.Fault = against(&result, first.Head)
	return result, nil
}

// against compares the end of a walk with where the node said that it stood.
func against(w *walked, said head) string {
	switch {
	case w.Seq < said.Seq:
		return fmt.Sprintf("record %d: the log ends here, but the node says that it has %d records", w.Seq, said.Seq)
	case w.Seq != said.Seq || w.Epoch != said.Epoch:
		return fmt.Sprintf("the node says that it stands at record %d of epoch %d, its log is at %d of %d", said.Seq, said.Epoch, w.Seq, w.Epoch)
	case w.Head != said.Head:
		return fmt.Sprintf("the head of the chain after %d records isn't the one that the node states", w.Seq)
	case said.Root != "" && w.Root != said.Root:
		return fmt.Sprintf("the root of the tree after %d records isn't the one that the node states", w.Seq)
	}
	return ""
}

// firstLine is the first line of an export that begins with this record. All but the very first record of a log say
// what was before them.
func firstLine(frame json.RawMessage) ([]byte, error) {
	var f struct {
		Seq   uint64 `json:"seq"`
		Start string `json:"start"`
	}
	if err := json.Unmarshal(frame, &f); err != nil {
		return nil, errors.New("the first record can't be read")
	}
	var start log.EpochStart
	if f.Start != "" {
		var err error
		if start, err = log.ParseEpochStart([]byte(f.Start)); err != nil {
			return nil, err
		}
	} else if f.Seq != 0 {
		return nil, fmt.Errorf("record %d: history starts within an epoch, records before it are missing", f.Seq)
	}
	return fmt.Appendf(nil, "{\"export\":\"conclave audit 1\",\"epoch\":%d,\"seq\":%d,\"epoch_seq\":%d,\"head\":\"%x\"}\n",
		start.Epoch, f.Seq, f.Seq, start.PreviousHead), nil
}

// feed writes the records up to where the first page's head is, and returns how many it wrote.
func feed(ctx context.Context, node source, out io.Writer, lines []byte, p page) (fed uint64, err error) {
	if _, err := out.Write(lines); err != nil {
		return 0, ignoreClosed(err)
	}
	end := p.Head.Seq
	next, err := seqOf(p.Frames[0])
	if err != nil {
		return 0, err
	}
	for {
		for _, frame := range p.Frames {
			if next == end {
				return fed, nil
			}
			var line bytes.Buffer
			line.Write(bytes.TrimSpace(frame))
			line.WriteByte('\n')
			if _, err := out.Write(line.Bytes()); err != nil {
				return fed, ignoreClosed(err)
			}
			fed++
			next++
		}
		switch {
		case next >= end:
			return fed, nil
		case p.Fault != "":
			return fed, damage(p.Fault)
		case len(p.Frames) == 0:
			return fed, nil
		}
		if p, err = node.fetch(ctx, next, pageRecords); err != nil {
			return fed, err
		}
	}
}

// damage is a record that a node can't read, in its words.
type damage string

// Error is what the node says.
func (d damage) Error() string { return string(d) }

// ignoreClosed drops the error of writing to a verifier that has seen enough.
func ignoreClosed(err error) error {
	if errors.Is(err, io.ErrClosedPipe) {
		return nil
	}
	return err
}

func seqOf(frame json.RawMessage) (uint64, error) {
	var f struct {
		Seq uint64 `json:"seq"`
	}
	if err := json.Unmarshal(frame, &f); err != nil {
		return 0, errors.New("a record can't be read")
	}
	return f.Seq, nil
}

// linkAt is the head of the chain after the record with this number, as a node has it.
func linkAt(ctx context.Context, node source, seq uint64) (string, error) {
	p, err := node.fetch(ctx, seq, 1)
	if err != nil {
		return "", err
	}
	var f struct {
		Seq  uint64 `json:"seq"`
		Link string `json:"link"`
	}
	if len(p.Frames) == 0 || json.Unmarshal(p.Frames[0], &f) != nil || f.Seq != seq {
		return "", client.Remotef("%s doesn't answer with record %d", node.name, seq)
	}
	return f.Link, nil
}

// divergence finds the first record in which two whole logs differ, among those that both have: heads of a chain that
// have parted never meet again, so halving finds it.
func divergence(ctx context.Context, a, b source, from, to uint64) (seq uint64, differ bool, err error) {
	same := func(seq uint64) (bool, error) {
		x, err := linkAt(ctx, a, seq)
		if err != nil {
			return false, err
		}
		y, err := linkAt(ctx, b, seq)
		return x == y, err
	}
	if from >= to {
		return 0, false, nil
	}
	if ok, err := same(to - 1); ok || err != nil {
		return 0, false, err
	}
	low, high := from, to-1 // high differs
	for low < high {
		middle := low + (high-low)/2
		ok, err := same(middle)
		if err != nil {
			return 0, false, err
		}
		if ok {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return high, true, nil
}

// finding is a verdict that programs read too.
type finding struct {
	Whole   bool     `json:"whole"`
	Nodes   []walked `json:"nodes,omitempty"`
	Fault   string   `json:"fault,omitempty"`
	Records uint64   `json:"records"`
	First   uint64   `json:"first"`
	Epoch   uint64   `json:"epoch"`
	Head    string   `json:"head"`
	Root    string   `json:"root"`
}

// compare walks over the logs of all nodes, and holds each against the first.
func compare(ctx context.Context, nodes []source) (*finding, error) {
	found := &finding{Whole: true}
	for _, node := range nodes {
		w, err := walk(ctx, node, nil)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", node.name, err)
		}
		if w.Fault != "" && found.Whole {
			found.Whole, found.Fault = false, node.name+", "+w.Fault
		}
		found.Nodes = append(found.Nodes, w)
	}
	if !found.Whole {
		return found, nil
	}
	first := found.Nodes[0]
	from, to := first.First, first.Seq
	for i, w := range found.Nodes[1:] {
		seq, differ, err := divergence(ctx, nodes[0], nodes[i+1], max(first.First, w.First), min(first.Seq, w.Seq))
		if err != nil {
			return nil, err
		}
		if differ {
			found.Whole, found.Fault = false, fmt.Sprintf("%s and %s disagree from record %d on", first.Node, w.Node, seq)
			return found, nil
		}
		from, to = max(from, w.First), min(to, w.Seq)
	}
	found.First, found.Epoch, found.Head, found.Root = from, first.Epoch, first.Head, first.Root
	if to > from {
		found.Records = to - from
	}
	return found, nil
}

// Agreement says in a line whether the logs of these nodes are whole and alike.
func Agreement(ctx context.Context, nodes []*api.Client) (string, error) {
	sources := make([]source, len(nodes))
	for i, c := range nodes {
		sources[i] = nodeSource(c)
	}
	found, err := compare(ctx, sources)
	if err != nil {
		return "", err
	}
	if !found.Whole {
		return "", client.Remotef("the audit log is NOT whole: %s", found.Fault)
	}
	return fmt.Sprintf("%d records, whole and the same on %d nodes", found.Records, len(nodes)), nil
}
