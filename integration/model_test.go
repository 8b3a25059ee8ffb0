package integration

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/anishathalye/porcupine"
)

// secretInput is an operation on one secret of kv version 2.
type secretInput struct {
	key   string
	verb  string // "read", "write", "cas", "delete" the latest version, "purge" all of it
	cas   int    // the version that "cas" expects
	value string
}

// secretOutput is what the client was told.
type secretOutput struct {
	state   string // of a read: "found", "deleted", "absent"; of others: "done", or "refused" by check-and-set
	version int    // of a read, and of a write that is done
	value   string
}

// secretState is what the secret is: version 0 if it isn't there.
type secretState struct {
	version int
	value   string
	deleted bool
}

// secretModel is kv version 2 as clients may observe it, one secret at a time. An output of nil is an unknown outcome.
func secretModel() porcupine.Model {
	return porcupine.Model{
		Partition: partition(func(in any) string { return in.(secretInput).key }),
		Init:      func() any { return secretState{} },
		Step: func(state, input, output any) (bool, any) {
			out, known := output.(secretOutput)
			return stepSecret(state.(secretState), input.(secretInput), out, known)
		},
		DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v → %+v", input, output) },
	}
}

func stepSecret(state secretState, in secretInput, out secretOutput, known bool) (bool, secretState) {
	written := secretState{version: state.version + 1, value: in.value}
	switch in.verb {
	case "read":
		switch out.state {
		case "found":
			return state.version == out.version && !state.deleted && state.value == out.value && state.version > 0, state
		case "deleted":
			return state.version == out.version && state.deleted, state
		default:
			return state.version == 0, state
		}
	case "write":
		return !known || out.version == written.version, written
	case "cas":
		matches := state.version == in.cas
		switch {
		case known && out.state == "refused":
			return !matches, state
		case known:
			return matches && out.version == written.version, written
		case matches:
			return true, written
		}
		return true, state
	case "delete":
		state.deleted = state.version > 0
		return true, state
	default:
		return true, secretState{}
	}
}

// tokenInput is an operation on one token.
type tokenInput struct {
	token int
	verb  string // "create", "use", "revoke"
	uses  int    // of "create": how many; 0 without limit
}

// tokenOutput is what the client was told: the token was good, or not.
type tokenOutput struct{ good bool }

type tokenState struct {
	live bool
	uses int // left; 0 without limit
}

// tokenModel is a token as clients may observe it. An output of nil is an unknown outcome.
func tokenModel() porcupine.Model {
	return porcupine.Model{
		Partition: partition(func(in any) string { return fmt.Sprint(in.(tokenInput).token) }),
		Init:      func() any { return tokenState{} },
		Step: func(state, input, output any) (bool, any) {
			out, known := output.(tokenOutput)
			return stepToken(state.(tokenState), input.(tokenInput), out, known)
		},
		DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v → %+v", input, output) },
	}
}

func stepToken(state tokenState, in tokenInput, out tokenOutput, known bool) (bool, tokenState) {
	switch in.verb {
	case "create":
		return true, tokenState{live: true, uses: in.uses}
	case "use":
		if known && out.good != state.live {
			return false, state
		}
		if state.live && state.uses > 0 {
			state.uses--
			state.live = state.uses > 0
		}
		return true, state
	default:
		if known && !out.good { // there was nothing to revoke any more
			return !state.live, state
		}
		return true, tokenState{}
	}
}

func partition(key func(in any) string) func([]porcupine.Operation) [][]porcupine.Operation {
	return func(all []porcupine.Operation) [][]porcupine.Operation {
		index := make(map[string]int) // key → part
		var parts [][]porcupine.Operation
		for _, op := range all {
			k := key(op.Input)
			i, ok := index[k]
			if !ok {
				i = len(parts)
				index[k] = i
				parts = append(parts, nil)
			}
			parts[i] = append(parts[i], op)
		}
		return parts
	}
}

// byReturn lists the returns of a history in order.
func byReturn(part []porcupine.Operation) []int64 {
	ends := make([]int64, len(part))
	for i, op := range part {
		ends[i] = op.Return
	}
	slices.Sort(ends)
	return ends
}

// prefix is a history as it was known when its first n operations had ended: later ones are unknown or not begun.
func prefix(part []porcupine.Operation, ends []int64, n int) []porcupine.Operation {
	if n == 0 {
		return nil
	}
	until := ends[n-1]
	var known []porcupine.Operation
	for _, op := range part {
		if op.Call > until {
			continue
		}
		if op.Return > until {
			if in, ok := op.Input.(secretInput); ok && in.verb == "read" {
				continue
			}
			op.Output, op.Return = nil, math.MaxInt64
		}
		known = append(known, op)
	}
	slices.SortStableFunc(known, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
	return known
}

// TestModelsFindIllegalHistories shows first that a legal history passes, then that what must never happen is found.
func TestModelsFindIllegalHistories(t *testing.T) {
	op := func(call, end int64, in, out any) porcupine.Operation {
		return porcupine.Operation{Input: in, Call: call, Output: out, Return: end}
	}
	write := func(cas int, value string) secretInput { return secretInput{"k", "cas", cas, value} }
	read := secretInput{key: "k", verb: "read"}
	done := func(version int) secretOutput { return secretOutput{state: "done", version: version} }
	found := func(version int, value string) secretOutput { return secretOutput{"found", version, value} }
	create, use, revoke := tokenInput{1, "create", 0}, tokenInput{1, "use", 0}, tokenInput{1, "revoke", 0}
	once := tokenInput{1, "create", 1}
	good, bad := tokenOutput{true}, tokenOutput{false}
	tests := []struct {
		name  string
		model porcupine.Model
		legal bool
		ops   []porcupine.Operation
	}{
		{"read after write", secretModel(), true, []porcupine.Operation{op(1, 2, write(0, "a"), done(1)), op(3, 4, read, found(1, "a"))}},
		{"unknown write seen late", secretModel(), true, []porcupine.Operation{
			op(1, math.MaxInt64, write(0, "a"), nil), op(3, 4, read, secretOutput{state: "absent"}), op(5, 6, read, found(1, "a"))}},
		{"lost write", secretModel(), false, []porcupine.Operation{op(1, 2, write(0, "a"), done(1)), op(3, 4, read, secretOutput{state: "absent"})}},
		{"stale read", secretModel(), false, []porcupine.Operation{
			op(1, 2, write(0, "a"), done(1)), op(3, 4, write(1, "b"), done(2)), op(5, 6, read, found(1, "a"))}},
		{"both of two check-and-sets", secretModel(), false, []porcupine.Operation{
			op(1, 4, write(0, "a"), done(1)), op(1, 4, write(0, "b"), done(1))}},
		{"unknown write seen, then gone", secretModel(), false, []porcupine.Operation{
			op(1, math.MaxInt64, write(0, "a"), nil), op(3, 4, read, found(1, "a")), op(5, 6, read, secretOutput{state: "absent"})}},
		{"token used, then revoked", tokenModel(), true, []porcupine.Operation{
			op(1, 2, create, good), op(3, 4, use, good), op(5, 6, revoke, good), op(7, 8, use, bad)}},
		{"revoked token works", tokenModel(), false, []porcupine.Operation{op(1, 2, create, good), op(3, 4, revoke, good), op(5, 6, use, good)}},
		{"one use used twice", tokenModel(), false, []porcupine.Operation{op(1, 2, once, good), op(3, 6, use, good), op(3, 6, use, good)}},
		{"one use wasted", tokenModel(), false, []porcupine.Operation{op(1, 2, once, good), op(3, 4, use, bad)}},
	}
	for _, test := range tests {
		if legal := porcupine.CheckOperations(test.model, test.ops); legal != test.legal {
			t.Errorf("%s: legal = %v, want %v", test.name, legal, test.legal)
		}
	}
}
