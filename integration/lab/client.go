package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strings"
	"sync/atomic"
)

// maxAnswer bounds the body of an answer, in bytes.
const maxAnswer = 64 << 20

// Client talks to one node. It sends each request once: whoever judges a history must know what was sent.
type Client struct {
	base  string
	token string
	http  *http.Client
}

// Client is a client of node n with the root token.
func (l *Lab) Client(n int) *Client {
	return &Client{base: l.Addrs[n-1] + "/v1/", token: l.RootToken, http: l.http[n-1]}
}

// With is the same client with another token.
func (c *Client) With(token string) *Client {
	other := *c
	other.token = token
	return &other
}

// Answer is what a node said.
type Answer struct {
	Status    int
	Header    http.Header
	Body      []byte
	RequestID string          // empty if the answer has no envelope
	Data      json.RawMessage // of the envelope
	Auth      json.RawMessage
	Errors    []string
}

// Do sends one request. A body is sent as JSON; json.RawMessage as it is. An error means that no whole answer came:
// the request may have been executed, unless it is ErrNotSent.
func (c *Client) Do(ctx context.Context, method, path string, body any) (*Answer, error) {
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		content = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, c.base+path, content)
	if err != nil {
		return nil, err
	}
	if c.token != "" {
		request.Header.Set("X-Vault-Token", c.token)
	}
	if method == http.MethodPatch {
		request.Header.Set("Content-Type", "application/merge-patch+json")
	}
	return c.Send(request)
}

// ErrNotSent is an error of Do that proves that the node has not got the request.
var ErrNotSent = errors.New("the request was not sent")

// Send sends a request that was made elsewhere, once.
func (c *Client) Send(request *http.Request) (*Answer, error) {
	if request.Body == nil && request.Method == http.MethodGet {
		// A body that can't be had again keeps net/http from repeating the request when a connection breaks: a second
		// attempt that is refused would hide that the first had used up a token.
		request.Body = io.NopCloser(strings.NewReader(""))
	}
	var sent atomic.Bool
	trace := &httptrace.ClientTrace{WroteHeaders: func() { sent.Store(true) }}
	response, err := c.http.Do(request.WithContext(httptrace.WithClientTrace(request.Context(), trace)))
	if err != nil && !sent.Load() {
		return nil, fmt.Errorf("%w: %w", ErrNotSent, err)
	}
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	answer := &Answer{Status: response.StatusCode, Header: response.Header}
	if answer.Body, err = io.ReadAll(io.LimitReader(response.Body, maxAnswer)); err != nil {
		return nil, err
	}
	var envelope struct {
		RequestID string          `json:"request_id"`
		Data      json.RawMessage `json:"data"`
		Auth      json.RawMessage `json:"auth"`
		Errors    []string        `json:"errors"`
	}
	if strings.HasPrefix(response.Header.Get("Content-Type"), "application/json") && json.Unmarshal(answer.Body, &envelope) == nil {
		answer.RequestID, answer.Data, answer.Auth, answer.Errors = envelope.RequestID, envelope.Data, envelope.Auth, envelope.Errors
	}
	return answer, nil
}

// Decode reads an answer without envelope, such as that of sys/leader.
func (a *Answer) Decode(into any) error { return json.Unmarshal(a.Body, into) }

// Want returns an error unless the answer has one of these statuses.
func (a *Answer) Want(statuses ...int) error {
	if slices.Contains(statuses, a.Status) {
		return nil
	}
	return fmt.Errorf("status %d, want %v: %s", a.Status, statuses, bytes.TrimSpace(a.Body[:min(len(a.Body), 500)]))
}

// Write sends a body with POST and wants 200 or 204; it decodes the answer's data into out, if out isn't nil.
func (c *Client) Write(ctx context.Context, path string, body, out any) error {
	return c.call(ctx, http.MethodPost, path, body, out)
}

// Read wants 200, and decodes the answer's data into out.
func (c *Client) Read(ctx context.Context, path string, out any) error {
	return c.call(ctx, http.MethodGet, path, nil, out)
}

func (c *Client) call(ctx context.Context, method, path string, body, out any) error {
	answer, err := c.Do(ctx, method, path, body)
	if err == nil {
		err = answer.Want(200, 204)
	}
	if err == nil && out != nil {
		err = json.Unmarshal(answer.Data, out)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	return nil
}

// Token makes a token with these parameters, as auth/token/create takes them.
func (c *Client) Token(ctx context.Context, parameters map[string]any) (string, error) {
	answer, err := c.Do(ctx, http.MethodPost, "auth/token/create", parameters)
	if err == nil {
		err = answer.Want(200)
	}
	if err != nil {
		return "", fmt.Errorf("make a token: %w", err)
	}
	return answer.Token()
}

// Token is the token that an answer carries.
func (a *Answer) Token() (string, error) {
	var auth struct {
		ClientToken string `json:"client_token"`
	}
	if err := json.Unmarshal(a.Auth, &auth); err != nil || auth.ClientToken == "" {
		return "", errors.New("the answer carries no token")
	}
	return auth.ClientToken, nil
}
