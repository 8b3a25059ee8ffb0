package quota

import (
	"encoding/json"
	"math"
	"time"

	"conclave"
)

// What a node and the ledger say to each other, as JSON: an ask, and an answer with one grant for each of its items.

// Limits of one ask.
const (
	maxItems = 2048
	maxAsked = 1 << 30 // tokens of one item
	maxKey   = maxName + 64
)

// ask is what a node wants of the ledger.
type ask struct {
	// Seat names the ledger that the node believes in: what it says of earlier use is said to that one only.
	Seat  uint64 `json:"seat"`
	Items []item `json:"items"`
}

// item is about one bucket.
type item struct {
	Rule   string        `json:"rule"`
	Client string        `json:"client,omitempty"` // an address; "" is everybody, "*" are those for whom there was no room
	Rate   float64       `json:"rate"`             // tokens a second
	Burst  float64       `json:"burst"`            // that the bucket holds
	Block  time.Duration `json:"block,omitempty"`
	Used   float64       `json:"used,omitempty"`  // what this node had and hasn't been filled again, for a ledger that can't know
	Back   int           `json:"back,omitempty"`  // tokens that are returned
	Need   int           `json:"need,omitempty"`  // requests that wait for one
	Ahead  int           `json:"ahead,omitempty"` // that the node will need soon
}

type answer struct {
	Seat   uint64  `json:"seat"`
	Grants []grant `json:"grants"` // none if the ask was meant for another ledger
}

type grant struct {
	Tokens int           `json:"tokens,omitempty"`
	Left   int           `json:"left,omitempty"` // in the bucket
	Wait   time.Duration `json:"wait,omitempty"` // until there may be one, if fewer were given than needed
}

func decodeAsk(body []byte) (ask, error) {
	var a ask
	if json.Unmarshal(body, &a) != nil || len(a.Items) > maxItems {
		return ask{}, errMalformed
	}
	bounded := func(n int) bool { return n >= 0 && n <= maxAsked }
	positive := func(f float64) bool { return f > 0 && f <= maxRate+1 }
	for _, i := range a.Items {
		if len(i.Rule) > maxKey || len(i.Client) > maxKey || !positive(i.Rate) || !positive(i.Burst) || i.Used < 0 || math.IsNaN(i.Used) || i.Block < 0 ||
			!bounded(i.Back) || !bounded(i.Need) || !bounded(i.Ahead) {
			return ask{}, errMalformed
		}
	}
	return a, nil
}

func decodeAnswer(body []byte, items int) (answer, error) {
	var a answer
	if json.Unmarshal(body, &a) != nil || len(a.Grants) != items && len(a.Grants) != 0 {
		return answer{}, errMalformed
	}
	for _, g := range a.Grants {
		if g.Tokens < 0 || g.Tokens > 2*maxAsked || g.Wait < 0 {
			return answer{}, errMalformed
		}
	}
	return a, nil
}

var errMalformed = conclave.Errorf(conclave.Invalid, "malformed call")
