package integration

import (
	"fmt"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"conclave/integration/lab"
)

// history is what clients did and what they were told, in their order in real time.
type history struct {
	start time.Time

	// mu guards the rest.
	mu      sync.Mutex
	secrets []porcupine.Operation // of secretInput and secretOutput
	tokens  []porcupine.Operation // of tokenInput and tokenOutput
	ids     []string              // request ids of answers
	counts  map[string]int        // as whatAnswered says → answers that told no request id
	unknown int                   // operations whose outcome nobody knows
	refused int                   // operations that the cluster said it had not done
	first   error                 // the first answer that no state of the vault explains
}

func newHistory() *history {
	return &history{start: time.Now(), counts: make(map[string]int)}
}

func (h *history) now() int64 { return int64(time.Since(h.start)) }

// outcome is what a client knows of an operation after it.
type outcome int

const (
	done    outcome = iota // the answer says what happened
	refused                // it was not executed
	unknown                // it may have been executed, or still be
)

// secret notes an operation on a secret. Its end must be now. One that was refused had no effect and isn't part of the
// history; one whose outcome is unknown may take effect at any later time, so it never ends.
func (h *history) secret(client int, in secretInput, call int64, out secretOutput, how outcome) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if op, ok := h.operation(client, in, call, out, how); ok {
		h.secrets = append(h.secrets, op)
	}
}

func (h *history) token(client int, in tokenInput, call int64, out tokenOutput, how outcome) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if op, ok := h.operation(client, in, call, out, how); ok {
		h.tokens = append(h.tokens, op)
	}
}

func (h *history) operation(client int, in any, call int64, out any, how outcome) (porcupine.Operation, bool) {
	end := h.now()
	switch how {
	case refused:
		h.refused++
		return porcupine.Operation{}, false
	case unknown:
		h.unknown++
		out, end = nil, math.MaxInt64
	}
	return porcupine.Operation{ClientId: client, Input: in, Call: call, Output: out, Return: end}, true
}

// auditNames are the operations as audit records name them.
var auditNames = map[string]string{"GET": "read", "POST": "update", "DELETE": "delete"}

// answered notes an answer that must be in the audit log: by its request id or, if it tells none, by what it did.
func (h *history) answered(answer *lab.Answer, method, path string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if answer.RequestID != "" {
		h.ids = append(h.ids, answer.RequestID)
	} else {
		h.counts[whatAnswered(auditNames[method], path, answer.Status < 400)]++
	}
}

// wrong notes an answer that is a defect whatever the history.
func (h *history) wrong(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.first == nil {
		h.first = fmt.Errorf(format, args...)
	}
}

// checkTimeout bounds the search for an order in which a history is legal.
const checkTimeout = 2 * time.Minute

// check fails the test unless the whole history is linearizable.
func (h *history) check(t *testing.T) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	t.Logf("%d operations on secrets, %d on tokens; of these %d unknown; %d refused", len(h.secrets), len(h.tokens), h.unknown, h.refused)
	if h.first != nil {
		t.Errorf("an answer that can't be right: %v", h.first)
	}
	checkModel(t, "secrets", secretModel(), h.secrets)
	checkModel(t, "tokens", tokenModel(), h.tokens)
}

func checkModel(t *testing.T, what string, model porcupine.Model, operations []porcupine.Operation) {
	t.Helper()
	if len(operations) == 0 {
		t.Errorf("%s: the history is empty", what)
		return
	}
	for _, part := range model.Partition(operations) {
		alone := model
		alone.Partition = nil
		switch porcupine.CheckOperationsTimeout(alone, part, checkTimeout) {
		case porcupine.Illegal:
			t.Errorf("%s: the history of %s is not linearizable:\n%s", what, subject(part[0].Input), describe(model, part))
			return
		case porcupine.Unknown:
			t.Errorf("%s: the history of %s, %d operations, could not be judged within %v", what, subject(part[0].Input), len(part), checkTimeout)
		}
	}
}

func subject(in any) string {
	switch in := in.(type) {
	case secretInput:
		return in.key
	case tokenInput:
		return fmt.Sprint("token ", in.token)
	}
	return ""
}

// maxDescribed is how many operations of an illegal history are shown: the shortest that can't be continued legally.
const maxDescribed = 60

// describe shows the end of the shortest illegal prefix of a history.
func describe(model porcupine.Model, part []porcupine.Operation) string {
	model.Partition = nil
	low, high := 0, len(part) // by their return: a prefix closed under "had ended before"
	ordered := byReturn(part)
	for low < high {
		middle := (low + high) / 2
		if porcupine.CheckOperationsTimeout(model, prefix(part, ordered, middle), checkTimeout) == porcupine.Illegal {
			high = middle
		} else {
			low = middle + 1
		}
	}
	text := ""
	shown := prefix(part, ordered, low)
	for _, op := range shown[max(0, len(shown)-maxDescribed):] {
		end := "never"
		if op.Return != math.MaxInt64 {
			end = time.Duration(op.Return).Round(10 * time.Microsecond).String()
		}
		text += fmt.Sprintf("  %v … %s client %d: %s\n", time.Duration(op.Call).Round(10*time.Microsecond), end, op.ClientId,
			model.DescribeOperation(op.Input, op.Output))
	}
	return text
}
