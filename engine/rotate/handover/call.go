// Package handover tells the source of a secret its new value: a webhook over HTTPS, or a command on this machine.
//
// A call is a JSON object. The source takes it (mode "rotate"), proves that the value works ("verify"), or ends a value
// that nobody may use any more ("retire"). Calls may come twice, so each says which rotation it belongs to, and the version
// grows with every value: a source that has taken a version refuses older ones.
//
// Everything is bounded in time and size. What a source answers goes nowhere: not into an error, not to a client, since it
// may repeat the value.
package handover

import (
	"encoding/json"
	"strconv"
)

// The modes of a call.
const (
	Rotate = "rotate" // take the value
	Verify = "verify" // show that the value is taken
	Retire = "retire" // end the value
)

// Limits of an exchange with a source.
const (
	MaxAnswer = 4 << 10 // bytes of a webhook's answer, or that a command prints
	maxHeader = 16 << 10
)

// Call is what a source is told.
type Call struct {
	Mode      string            `json:"mode"`
	Namespace string            `json:"namespace"` // canonical path
	Mount     string            `json:"mount"`     // canonical path
	Entry     string            `json:"entry"`
	Rotation  string            `json:"rotation"` // the same in all calls about one value
	Version   int               `json:"version"`
	Emergency bool              `json:"emergency"`
	Value     string            `json:"value"`
	Current   string            `json:"current,omitempty"` // the value that Value takes the place of, for sources that want it
	Metadata  map[string]string `json:"metadata,omitempty"`
}

func (c *Call) body() ([]byte, error) { return json.Marshal(c) }

// Failure is why a source didn't do what it was told. It holds nothing of what the source said, and no address.
type Failure struct{ Reason string }

// Error is the reason.
func (f *Failure) Error() string { return f.Reason }

func failed(reason string) error { return &Failure{reason} }

func failedStatus(text string, status int) error { return &Failure{text + strconv.Itoa(status)} }
