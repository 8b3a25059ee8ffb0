package agreement

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"

	"conclave/fsm"
)

// maxName bounds the name of a range.
const maxName = 64

// decodeRanges reads what another node says its hashes are.
func decodeRanges(b []byte) ([]fsm.Range, error) {
	var ranges []fsm.Range
	if err := json.Unmarshal(b, &ranges); err != nil {
		return nil, errors.New("the hashes of another node are malformed")
	}
	if len(ranges) == 0 || len(ranges) > fsm.MaxRanges {
		return nil, errors.New("another node gave no hashes, or too many")
	}
	for _, r := range ranges {
		if raw, err := hex.DecodeString(r.Hash); err != nil || len(raw) != sha256.Size || r.Name == "" || len(r.Name) > maxName {
			return nil, errors.New("the hashes of another node are malformed")
		}
	}
	return ranges, nil
}

// verdict is what comes of comparing sums.
type verdict struct {
	majority []fsm.Range       // that a majority of the voters has; nil if there is none
	nodes    map[string]string // voter → Agrees, Differs, Undecided or Unheard
	ranges   []string          // in which voters differ
}

// judge compares the sums of voters, by node id; one whose sum is missing was not heard.
func judge(voters []string, sums map[string][]fsm.Range) verdict {
	v := verdict{nodes: make(map[string]string, len(voters)), ranges: []string{}}
	for _, id := range voters {
		same := 0
		for _, other := range voters {
			if sums[id] != nil && slices.Equal(sums[id], sums[other]) {
				same++
			}
		}
		if same > len(voters)/2 {
			v.majority = sums[id]
		}
	}
	var first []fsm.Range // that others are compared with
	if first = v.majority; first == nil {
		for _, id := range voters {
			if first = sums[id]; first != nil {
				break
			}
		}
	}
	for _, id := range voters {
		switch s := sums[id]; {
		case s == nil:
			v.nodes[id] = Unheard
		case v.majority == nil:
			v.nodes[id] = Undecided
		case slices.Equal(s, v.majority):
			v.nodes[id] = Agrees
		default:
			v.nodes[id] = Differs
		}
		if sums[id] != nil {
			for _, name := range differing(sums[id], first) {
				if !slices.Contains(v.ranges, name) {
					v.ranges = append(v.ranges, name)
				}
			}
		}
	}
	return v
}

// differing are the names of the ranges that aren't the same in both sums.
func differing(a, b []fsm.Range) (names []string) {
	known := make(map[string]fsm.Range, len(a)) // name → range of a
	for _, r := range a {
		known[r.Name] = r
	}
	for _, r := range b {
		if known[r.Name] != r {
			names = append(names, r.Name)
		}
		delete(known, r.Name)
	}
	for name := range known {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
