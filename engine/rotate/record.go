package rotate

import (
	"encoding/json"
	"time"

	"conclave"
)

// Where things are in the mount's storage, each JSON by an entry's name:
//
//	entry/<name>    settings                       changed by people
//	state/<name>    values, and what is under way  changed by rotations
//	history/<name>  lines, the newest first        changed by rotations
const (
	entries   = "entry/"
	states    = "state/"
	histories = "history/"
)

// state is an entry's values and what is under way.
type state struct {
	Last     int       `json:"last"`              // the highest version that was given to a value
	Current  *held     `json:"current,omitempty"` // what readers get
	Previous *held     `json:"previous,omitempty"`
	Retiring []held    `json:"retiring,omitempty"` // values to be ended at the source, oldest first
	Pending  *pending  `json:"pending,omitempty"`  // the value to be handed over
	Due      time.Time `json:"due,omitzero"`       // when the schedule wants the next rotation
	Claim    *claim    `json:"claim,omitempty"`    // whose hand-over is under way
	Failures int       `json:"failures,omitempty"` // attempts since the last success
	Failed   time.Time `json:"failed,omitzero"`    // the last of them
	Failure  string    `json:"failure,omitempty"`  // why
	Retry    time.Time `json:"retry,omitzero"`     // when the next attempt is made
	Paused   *cause    `json:"paused,omitempty"`   // who has stopped rotations, and why
}

// held is a value that its source has taken.
type held struct {
	Version  int       `json:"version"`
	Rotation string    `json:"rotation,omitempty"` // "" if it was brought
	Value    string    `json:"value"`
	Since    time.Time `json:"since"`
	Until    time.Time `json:"until,omitzero"` // of the previous value: when it stops being readable
}

// pending is a value that may be at its source.
type pending struct {
	Version  int    `json:"version"`
	Rotation string `json:"rotation"`
	Value    string `json:"value"`
	Attempts int    `json:"attempts"`
	Instead  []held `json:"instead,omitempty"` // values that were given up for this one, which may be at the source
	cause
}

// cause is why something is done.
type cause struct {
	What      string    `json:"what"` // initial, schedule, request, emergency, pause
	At        time.Time `json:"at"`
	Who       string    `json:"who,omitempty"` // display name of the token; "" is the vault itself
	Entity    string    `json:"entity,omitempty"`
	Request   string    `json:"request,omitempty"`
	Reason    string    `json:"reason,omitempty"`
	Emergency bool      `json:"emergency,omitempty"`
}

// What a cause can be.
const (
	atFirst   = "initial"
	scheduled = "schedule"
	requested = "request"
	emergency = "emergency"
	paused    = "pause"
	resumed   = "resume"
	brought   = "import"
	retired   = "retire"
)

// claim is a hand-over that is under way, or whose node has died.
type claim struct {
	Holder string    `json:"holder"`
	Until  time.Time `json:"until"`
}

// line is one of the history.
type line struct {
	Version  int       `json:"version" doc:"Of the value that it is about."`
	What     string    `json:"what" doc:"Why: initial, import, schedule, request, emergency; or what: pause, resume, retire."`
	At       time.Time `json:"at" doc:"When it ended."`
	Begun    time.Time `json:"begun,omitzero" doc:"When it began."`
	Who      string    `json:"who,omitempty" doc:"Display name of the token; none if the vault did it itself."`
	Entity   string    `json:"entity_id,omitempty" doc:"Identity behind the token."`
	Request  string    `json:"request_id,omitempty" doc:"The request that asked for it."`
	Reason   string    `json:"reason,omitempty" doc:"As it was given."`
	Attempts int       `json:"attempts,omitempty" doc:"How often the value was handed over."`
	Failure  string    `json:"failure,omitempty" doc:"Why the last attempt failed; none if it succeeded."`
}

func loadState(view conclave.View, name string) (*state, error) {
	value, err := view.Get(states + name)
	if err != nil || value == nil {
		return nil, err
	}
	return decodeState(value)
}

// lookState is loadState for those who change nothing: what it returns is shared.
func lookState(view conclave.View, name string) (*state, error) {
	found, err := view.Load(states+name, func(value []byte) (any, error) { return decodeState(value) })
	st, _ := found.(*state)
	return st, err
}

func decodeState(value []byte) (*state, error) {
	st := &state{}
	if err := json.Unmarshal(value, st); err != nil || st.Last < 0 || len(st.Retiring) > maxRetiring {
		return nil, conclave.Errorf(conclave.Internal, "the stored state of an entry is damaged")
	}
	return st, nil
}

func (st *state) store(tx conclave.Tx, name string) error {
	value, err := json.Marshal(st)
	if err != nil {
		return err
	}
	return tx.Put(states+name, value)
}

func loadHistory(view conclave.View, name string) ([]line, error) {
	value, err := view.Get(histories + name)
	if err != nil || value == nil {
		return nil, err
	}
	return decodeHistory(value)
}

func decodeHistory(value []byte) ([]line, error) {
	var lines []line
	if err := json.Unmarshal(value, &lines); err != nil || len(lines) > maxHistory {
		return nil, conclave.Errorf(conclave.Internal, "the stored history of an entry is damaged")
	}
	return lines, nil
}

// addLine puts a line on top of an entry's history. Attempts at one value are one line.
func addLine(tx conclave.Tx, name string, l line) error {
	lines, err := loadHistory(tx, name)
	if err != nil {
		return err
	}
	if len(lines) > 0 && lines[0].Failure != "" && lines[0].Version == l.Version && lines[0].What == l.What {
		lines = lines[1:]
	}
	lines = append([]line{l}, lines[:min(len(lines), maxHistory-1)]...)
	value, err := json.Marshal(lines)
	if err != nil {
		return err
	}
	return tx.Put(histories+name, value)
}

// lineOf is the line of a value's hand-over that has ended now.
func (p *pending) lineOf(now time.Time, failure string) line {
	return line{Version: p.Version, What: p.What, At: now, Begun: p.At, Who: p.Who, Entity: p.Entity, Request: p.Request,
		Reason: p.Reason, Attempts: p.Attempts, Failure: failure}
}

// causeOf is why a request does something.
func causeOf(view conclave.View, what, reason string) cause {
	c := cause{What: what, At: view.Now().UTC(), Reason: reason, Emergency: what == emergency}
	if caller := view.Caller(); caller != nil {
		c.Who, c.Entity = caller.DisplayName, caller.EntityID
	}
	if request := view.Request(); request != nil {
		c.Request = request.ID
	}
	return c
}
