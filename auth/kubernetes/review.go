package kubernetes

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"conclave"
	"conclave/internal/glob"
	"conclave/internal/jws"
	"conclave/internal/outbound"
)

// tokenReview is the object authentication.k8s.io/v1 TokenReview, as far as it is used.
type tokenReview struct {
	Kind       string       `json:"kind"`
	APIVersion string       `json:"apiVersion"`
	Spec       reviewSpec   `json:"spec"`
	Status     reviewStatus `json:"status"`
}

type reviewSpec struct {
	Token     string   `json:"token"`
	Audiences []string `json:"audiences,omitempty"`
}

type reviewStatus struct {
	Authenticated bool     `json:"authenticated"`
	Audiences     []string `json:"audiences"`
	Error         string   `json:"error"`
	User          struct {
		Username string `json:"username"`
		UID      string `json:"uid"`
	} `json:"user"`
}

// reviewed is a token that the API server has vouched for.
type reviewed struct {
	who    *account
	claims jws.Claims
}

// server is an API server, and what to show it.
type server struct {
	client   *outbound.Client
	host     string
	reviewer string // empty if the vault has no token of its own
}

// review has the API server judge a token, after all that can be judged without it.
func (e *Engine) review(ctx context.Context, _ *conclave.Request, input any) (any, error) {
	found, _ := conclave.Gathered[*asked](ctx)
	text := input.(*loginIn).JWT.Reveal()
	token, err := jws.Parse(text)
	if err != nil {
		return nil, conclave.Errorf(conclave.Denied, "%w", err)
	}
	who, err := found.judge(token)
	if err != nil {
		return nil, err
	}
	at, err := e.server(found.config)
	if err != nil {
		return nil, err
	}
	audiences, err := token.Claims.Audiences()
	if err != nil {
		return nil, err
	}
	if found.role.Audience != "" {
		audiences = []string{found.role.Audience}
	}
	if err := at.review(ctx, text, audiences, who); err != nil {
		return nil, err
	}
	if !glob.MatchAny(found.role.Namespaces, who.namespace) {
		if err := at.checkNamespace(ctx, who.namespace, found.role.Selector); err != nil {
			return nil, err
		}
	}
	return &reviewed{who, token.Claims}, nil
}

// server finds out how to talk to the configured API server. The pod's own files are read each time, since Kubernetes
// renews them.
func (e *Engine) server(cfg *config) (*server, error) {
	authorities, reviewer := cfg.CA, cfg.Reviewer
	if !cfg.DisableLocal && reviewer == "" {
		reviewer = strings.TrimSpace(readLocal(e.local, "token"))
	}
	if !cfg.DisableLocal && authorities == "" {
		authorities = readLocal(e.local, "ca.crt")
	}
	client, err := e.clients.Get(authorities)
	if err != nil {
		return nil, conclave.Errorf(conclave.Unavailable, "the authorities for the API server: %w", err)
	}
	return &server{client, strings.TrimSuffix(cfg.Host, "/"), reviewer}, nil
}

// readLocal returns a file of the pod, nothing if there is none or it is too large to be one.
func readLocal(dir, name string) string {
	file, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxLocal+1))
	if err != nil || len(data) > maxLocal {
		return ""
	}
	return string(data)
}

// review asks for a TokenReview and compares its outcome with what the token says of itself. Of the audiences that are
// asked for, if any, the API server must confirm one.
func (s *server) review(ctx context.Context, token string, audiences []string, who *account) error {
	body, err := json.Marshal(tokenReview{Kind: "TokenReview", APIVersion: "authentication.k8s.io/v1", Spec: reviewSpec{token, audiences}})
	if err != nil {
		return conclave.Errorf(conclave.Internal, "the review can't be encoded")
	}
	bearer := s.reviewer
	if bearer == "" {
		bearer = token
	}
	answer, err := s.ask(ctx, http.MethodPost, "/apis/authentication.k8s.io/v1/tokenreviews", bearer, body)
	if err != nil {
		return err
	}
	outcome, err := decodeReview(answer)
	if err != nil {
		return err
	}
	isWanted := func(audience string) bool { return slices.Contains(audiences, audience) }
	namespace, name, isAccount := parseUser(outcome.User.Username)
	switch {
	case outcome.Error != "" || !outcome.Authenticated:
		return conclave.Errorf(conclave.Denied, "lookup failed: service account jwt not valid")
	case len(audiences) > 0 && !slices.ContainsFunc(outcome.Audiences, isWanted):
		return conclave.Errorf(conclave.Denied, "lookup failed: service account jwt not valid for the audience")
	case !isAccount:
		return conclave.Errorf(conclave.Denied, "lookup failed: username returned is not a service account")
	case name != who.name || namespace != who.namespace || outcome.User.UID != who.uid:
		return conclave.Errorf(conclave.Denied, "lookup failed: the token says that it is somebody else's")
	}
	return nil
}

func decodeReview(body []byte) (*reviewStatus, error) {
	var outcome tokenReview
	if err := json.Unmarshal(body, &outcome); err != nil || outcome.Kind != "TokenReview" {
		return nil, conclave.Errorf(conclave.Unavailable, "the API server's review can't be decoded")
	}
	return &outcome.Status, nil
}

// checkNamespace wants a namespace to have the labels that a selector names.
func (s *server) checkNamespace(ctx context.Context, namespace, selector string) error {
	wanted, err := parseSelector(selector)
	if err != nil {
		return err
	}
	if s.reviewer == "" {
		return conclave.Errorf(conclave.Denied, "namespace not authorized: a token_reviewer_jwt is needed to use namespace selectors")
	}
	answer, err := s.ask(ctx, http.MethodGet, "/api/v1/namespaces/"+url.PathEscape(namespace), s.reviewer, nil)
	if err != nil {
		return err
	}
	labels, err := decodeLabels(answer, namespace)
	if err != nil {
		return err
	}
	for name, value := range wanted {
		if got, has := labels[name]; !has || got != value {
			return conclave.Errorf(conclave.Denied, "namespace not authorized")
		}
	}
	return nil
}

// decodeLabels reads a Namespace object, which must be that of the name.
func decodeLabels(body []byte, name string) (map[string]string, error) {
	var object struct {
		Kind     string `json:"kind"`
		Metadata struct {
			Name   string            `json:"name"`
			Labels map[string]string `json:"labels"`
		} `json:"metadata"`
	}
	if err := json.Unmarshal(body, &object); err != nil || object.Kind != "Namespace" || object.Metadata.Name != name {
		return nil, conclave.Errorf(conclave.Unavailable, "the API server's namespace can't be decoded")
	}
	return object.Metadata.Labels, nil
}

// ask does one request, which the API server must grant.
func (s *server) ask(ctx context.Context, method, path, bearer string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, s.host+path, bytes.NewReader(body))
	if err != nil {
		return nil, conclave.Errorf(conclave.Invalid, "malformed kubernetes_host")
	}
	if strings.ContainsAny(bearer, "\r\n\x00") {
		return nil, conclave.Errorf(conclave.Unavailable, "the token for the API server is malformed")
	}
	req.Header.Set("Authorization", "Bearer "+bearer)
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	answer, err := s.client.Do(req)
	switch {
	case err != nil:
		return nil, conclave.Errorf(conclave.Unavailable, "ask the Kubernetes API server: %w", err)
	case answer.Status == http.StatusUnauthorized || answer.Status == http.StatusForbidden:
		return nil, conclave.Errorf(conclave.Denied, "lookup failed: the API server refuses to be asked, with status %d", answer.Status)
	case answer.Status < 200 || answer.Status > 299:
		return nil, conclave.Errorf(conclave.Unavailable, "lookup failed: the API server answers with status %d", answer.Status)
	}
	return answer.Body, nil
}
