package acme

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"conclave"
)

const typePrefix = "urn:ietf:params:acme:error:"

// problem is what a client is told of a request that failed: RFC 8555 section 6.7. It is an answer, not an error of the
// vault: the nonce of the request is used up all the same.
type problem struct {
	Type       string   `json:"type"`
	Detail     string   `json:"detail"`
	Status     int      `json:"status"`
	Algorithms []string `json:"algorithms,omitempty"`

	location string
}

func (p *problem) Error() string { return p.Type + ": " + p.Detail }

func refuse(status int, kind, detail string) error {
	return &problem{Type: typePrefix + kind, Detail: detail, Status: status}
}

func malformed(detail string) error { return refuse(http.StatusBadRequest, "malformed", detail) }

func unauthorized(detail string) error { return refuse(http.StatusForbidden, "unauthorized", detail) }

func nothingThere(what string) error {
	return refuse(http.StatusNotFound, "malformed", "there is no such "+what)
}

// asProblem makes a refusal of the engine's a problem; other errors stay what they are.
func asProblem(err error, kind string) error {
	if conclave.Is(err, conclave.Invalid) {
		return refuse(http.StatusBadRequest, kind, err.Error())
	}
	return err
}

// answer is what a request is answered.
type answer struct {
	status      int
	body        any    // JSON, or bytes as they are
	contentType string // empty: JSON
	location    string
	links       []string
	retryAfter  time.Duration
}

// response is an answer with the headers that all have.
func (a *answer) response(base, nonce string) (*conclave.Response, error) {
	body, isBytes := a.body.([]byte)
	if !isBytes && a.body != nil {
		var err error
		if body, err = json.Marshal(a.body); err != nil {
			return nil, conclave.Errorf(conclave.Internal, "encode an answer: %w", err)
		}
	}
	contentType := a.contentType
	if contentType == "" {
		contentType = "application/json"
	}
	header := map[string][]string{}
	if base != "" {
		header["Link"] = append([]string{"<" + base + "directory>;rel=\"index\""}, a.links...)
	}
	if nonce != "" {
		header["Replay-Nonce"] = []string{nonce}
	}
	if a.location != "" {
		header["Location"] = []string{a.location}
	}
	if a.retryAfter > 0 {
		header["Retry-After"] = []string{strconv.Itoa(int(a.retryAfter / time.Second))}
	}
	status := a.status
	if status == 0 {
		status = http.StatusOK
	}
	return &conclave.Response{Status: status, Raw: &conclave.Raw{ContentType: contentType, Body: body, Header: header}}, nil
}

func (p *problem) answer() *answer {
	return &answer{status: p.Status, body: p, contentType: "application/problem+json", location: p.location}
}
