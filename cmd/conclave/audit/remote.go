package audit

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	log "conclave/audit"
	"conclave/cmd/conclave/client"

	"github.com/hashicorp/vault/api"
)

// walkTimeout is how long one request for a whole log may take.
const walkTimeout = 15 * time.Minute

// standing is where a node says that its log stands, or stood after a number of records.
type standing struct {
	Epoch uint64 `json:"epoch"`
	Seq   uint64 `json:"seq"`   // records so far
	First uint64 `json:"first"` // the first that is kept
	Head  string `json:"head"`
	Root  string `json:"root"`

	// What the node found when it checked its own log.
	Records uint64 `json:"records"`
	OK      bool   `json:"ok"`
	Fault   string `json:"fault"`
}

// source is one node's log.
type source struct {
	name string
	// head is where the log stands.
	head func(ctx context.Context) (standing, error)
	// export is the log with all records, errTooLarge if the node won't send so much.
	export func(ctx context.Context) (io.ReadCloser, error)
	// check has the node check its log by itself, and tell where it stood after seq records.
	check func(ctx context.Context, seq uint64) (standing, error)
}

var errTooLarge = errors.New("the log is larger than a node sends")

// nodeSource reads the log of the node that c is connected to.
func nodeSource(c *api.Client) source {
	c.SetClientTimeout(walkTimeout)
	ask := func(ctx context.Context, path string, seq uint64) (s standing, err error) {
		r := c.NewRequest(http.MethodGet, "/v1/"+path)
		if seq > 0 {
			r.Params.Set("seq", strconv.FormatUint(seq, 10))
		}
		resp, err := c.RawRequestWithContext(ctx, r)
		if resp != nil {
			defer resp.Body.Close()
		}
		if err != nil {
			return s, err
		}
		var answer struct {
			Data *standing `json:"data"`
		}
		if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || answer.Data == nil {
			return s, client.Remotef("%s: the answer of %s can't be read", c.Address(), path)
		}
		return *answer.Data, nil
	}
	return source{
		name: c.Address(),
		head: func(ctx context.Context) (standing, error) { return ask(ctx, "sys/audit-head", 0) },
		export: func(ctx context.Context) (io.ReadCloser, error) {
			resp, err := c.RawRequestWithContext(ctx, c.NewRequest(http.MethodGet, "/v1/sys/audit-export"))
			if answer, ok := errors.AsType[*api.ResponseError](err); ok && answer.StatusCode == http.StatusRequestEntityTooLarge {
				return nil, errTooLarge
			}
			if err != nil {
				return nil, err
			}
			return resp.Body, nil
		},
		check: func(ctx context.Context, seq uint64) (standing, error) { return ask(ctx, "sys/audit-verify", seq) },
	}
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
	// ByNode says that the log was too large to be sent: the node has checked it and is taken at its word.
	ByNode bool   `json:"by_node,omitempty"`
	Fault  string `json:"fault,omitempty"`

	links [][32]byte // head of the chain after each record, from First on
}

// walk checks a node's log here, record by record, and holds it against where the node said that it stood. The export
// goes to out as well, if that isn't nil.
func walk(ctx context.Context, node source, out io.Writer) (walked, error) {
	said, err := node.head(ctx)
	if err != nil {
		return walked{}, err
	}
	body, err := node.export(ctx)
	if errors.Is(err, errTooLarge) && out == nil {
		return walkThere(ctx, node)
	}
	if err != nil {
		return walked{}, err
	}
	defer body.Close()
	var seen links
	sink := io.Writer(&seen)
	if out != nil {
		sink = io.MultiWriter(&seen, out)
	}
	report, err := log.VerifyExport(io.TeeReader(body, sink), nil)
	root := report.State.Root()
	result := walked{Node: node.name, First: report.First, Records: report.Records, Epoch: report.State.Epoch, Seq: report.State.Seq,
		Head: hex.EncodeToString(report.State.Head[:]), Root: hex.EncodeToString(root[:]), links: seen.list}
	if fault, ok := errors.AsType[*log.ExportFault](err); ok {
		result.Fault = fmt.Sprintf("record %d: %s", fault.Seq, fault.Detail)
		return result, nil
	}
	if err != nil {
		return result, err
	}
	result.Fault = against(&result, said)
	return result, nil
}

func walkThere(ctx context.Context, node source) (walked, error) {
	found, err := node.check(ctx, 0)
	if err != nil {
		return walked{}, err
	}
	result := walked{Node: node.name, First: found.First, Records: found.Records, Epoch: found.Epoch, Seq: found.Seq, Head: found.Head,
		Root: found.Root, ByNode: true, Fault: found.Fault}
	if !found.OK && result.Fault == "" {
		result.Fault = "the node finds its log wrong, and doesn't say where"
	}
	return result, nil
}

// against looks in a log for the place where the node said, before, that it stood.
func against(w *walked, said standing) string {
	switch {
	case w.Seq < said.Seq:
		return fmt.Sprintf("record %d: the log ends here, but the node had said that it has %d records", w.Seq, said.Seq)
	case said.Seq > w.First && hex.EncodeToString(w.links[said.Seq-w.First-1][:]) != said.Head:
		return fmt.Sprintf("record %d: the head of the chain after it isn't the one that the node had stated", said.Seq-1)
	}
	return ""
}

// maxLine bounds a line of an export, in bytes.
const maxLine = 4 << 20

// links picks the head of the chain after each record out of an export that is written to it. What isn't an export is
// the verifier's business.
type links struct {
	line bytes.Buffer
	list [][32]byte
}

func (l *links) Write(b []byte) (int, error) {
	n := len(b)
	for {
		line, rest, whole := bytes.Cut(b, []byte("\n"))
		if l.line.Len()+len(line) <= maxLine {
			l.line.Write(line)
		}
		if !whole {
			return n, nil
		}
		var record struct {
			Link string `json:"link"`
		}
		var link [32]byte
		if json.Unmarshal(l.line.Bytes(), &record) == nil && len(record.Link) == hex.EncodedLen(len(link)) {
			if _, err := hex.Decode(link[:], []byte(record.Link)); err == nil {
				l.list = append(l.list, link)
			}
		}
		l.line.Reset()
		b = rest
	}
}

// disagreement says from which record on two logs, each whole in itself, differ; empty if they agree as far as both go.
func disagreement(ctx context.Context, a, b *walked, nodes map[string]source) (string, error) {
	from, to := max(a.First, b.First), min(a.Seq, b.Seq)
	if from >= to {
		return "", nil
	}
	if a.ByNode || b.ByNode {
		x, err := nodes[a.Node].check(ctx, to)
		if err != nil {
			return "", err
		}
		y, err := nodes[b.Node].check(ctx, to)
		if err != nil || x.Head == y.Head && x.Root == y.Root {
			return "", err
		}
		return fmt.Sprintf("%s and %s disagree about the first %d records", a.Node, b.Node, to), nil
	}
	for seq := from; seq < to; seq++ {
		if a.links[seq-a.First] != b.links[seq-b.First] {
			return fmt.Sprintf("%s and %s disagree from record %d on", a.Node, b.Node, seq), nil
		}
	}
	return "", nil
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
	byName := make(map[string]source, len(nodes)) // name → source
	for _, node := range nodes {
		byName[node.name] = node
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
	first := &found.Nodes[0]
	from, to := first.First, first.Seq
	for i := range found.Nodes[1:] {
		other := &found.Nodes[i+1]
		fault, err := disagreement(ctx, first, other, byName)
		if err != nil {
			return nil, err
		}
		if fault != "" {
			found.Whole, found.Fault = false, fault
			return found, nil
		}
		from, to = max(from, other.First), min(to, other.Seq)
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
