package pipeline

import (
	"encoding/json"
	"sync"
	"testing"
	"time"

	"conclave"
)

const wrappedData = `{"data":{"secret":"s3cr3t"}}`

// wrapped puts data behind a wrapping token.
func (h *house) wrapped(t *testing.T, ttl time.Duration) *conclave.Wrap {
	t.Helper()
	resp, err := h.Handle(t.Context(), &conclave.Request{ID: "r", Operation: conclave.Update, Path: "sys/wrapping/wrap", Token: h.root,
		WrapTTL: ttl, Fields: map[string]any{"secret": "s3cr3t"}})
	if err != nil {
		t.Fatal(err)
	}
	if resp.Wrap == nil || resp.Data != nil || resp.Wrap.Token.Empty() || resp.Wrap.TTL != ttl || resp.Wrap.CreationPath != "sys/wrapping/wrap" {
		t.Fatalf("wrapped as %+v", resp)
	}
	return resp.Wrap
}

// unwrap asks with a wrapping token as the caller's own, or with the root token and the wrapping token in the body.
func (h *house) unwrap(t *testing.T, path string, wrapping conclave.Secret, inBody bool) (*conclave.Response, error) {
	t.Helper()
	req := &conclave.Request{ID: "r", Operation: conclave.Update, Path: "sys/wrapping/" + path, Token: wrapping}
	if inBody {
		req.Token, req.Fields = h.root, map[string]any{"token": wrapping.Reveal()}
	}
	return h.Handle(t.Context(), req)
}

func TestAnswersAreUnwrappedOnce(t *testing.T) {
	h := newHouse(t)
	for _, inBody := range []bool{false, true} {
		wrap := h.wrapped(t, time.Minute)
		resp, err := h.unwrap(t, "unwrap", wrap.Token, inBody)
		if err != nil || resp.Raw == nil || string(resp.Raw.Body) != wrappedData {
			t.Fatalf("unwrapped %+v, %v", resp, err)
		}
		for _, again := range []bool{false, true} {
			if resp, err := h.unwrap(t, "unwrap", wrap.Token, again); !conclave.Is(err, conclave.Invalid) || resp != nil {
				t.Errorf("unwrapped again: %+v, %v, want Invalid", resp, err)
			}
		}
	}
}

// Terraform keeps the accessor of a wrapped secret-id, to destroy it by.
func TestWhoWrapsACredentialIsToldItsAccessor(t *testing.T) {
	h := newHouse(t)
	resp, err := h.Handle(t.Context(), &conclave.Request{ID: "r", Operation: conclave.Read, Path: "auth/door/key", Token: h.root, WrapTTL: time.Minute})
	if err != nil || resp.Wrap == nil || resp.Wrap.WrappedAccessor != "its-number" {
		t.Errorf("%+v, %v, want the accessor with the wrapping token", resp, err)
	}
}

func TestOneOfManyUnwraps(t *testing.T) {
	h := newHouse(t)
	wrap := h.wrapped(t, time.Minute)
	var wait sync.WaitGroup
	won := make(chan string, 40)
	for i := range cap(won) {
		wait.Go(func() {
			if resp, err := h.unwrap(t, "unwrap", wrap.Token, i%2 == 0); err == nil {
				won <- string(resp.Raw.Body)
			}
		})
	}
	wait.Wait()
	close(won)
	if len(won) != 1 || <-won != wrappedData {
		t.Errorf("%d unwraps won, want 1", len(won)+1)
	}
}

func TestWrappingTokenIsGoodForNothingElse(t *testing.T) {
	h := newHouse(t)
	wrap := h.wrapped(t, time.Minute)
	if _, err := h.do(t, conclave.Read, "auth/token/lookup-self", wrap.Token); !conclave.Is(err, conclave.Denied) {
		t.Errorf("a wrapping token looks itself up: %v", err)
	}
	if _, err := h.unwrap(t, "unwrap", wrap.Token, true); !conclave.Is(err, conclave.Invalid) {
		t.Errorf("unwrapped after the token's use was taken: %v", err)
	}
	if _, err := h.unwrap(t, "unwrap", h.root, true); !conclave.Is(err, conclave.Invalid) {
		t.Errorf("another token was unwrapped: %v", err)
	}
}

func TestRewrappingMovesTheAnswer(t *testing.T) {
	h := newHouse(t)
	first := h.wrapped(t, time.Minute)
	resp, err := h.unwrap(t, "rewrap", first.Token, true)
	if err != nil || resp.Wrap == nil || resp.Wrap.TTL != time.Minute || resp.Wrap.CreationPath != "sys/wrapping/wrap" {
		t.Fatalf("rewrapped as %+v, %v", resp, err)
	}
	if _, err := h.unwrap(t, "unwrap", first.Token, false); !conclave.Is(err, conclave.Invalid) {
		t.Errorf("the old token unwraps: %v", err)
	}
	info, err := h.Handle(t.Context(), &conclave.Request{ID: "r", Operation: conclave.Update, Path: "sys/wrapping/lookup",
		Fields: map[string]any{"token": resp.Wrap.Token.Reveal()}})
	if err != nil {
		t.Fatal(err)
	}
	var told wrapInfo
	if data, ok := info.Data.(json.RawMessage); !ok || json.Unmarshal(data, &told) != nil || told.CreationTTL != 60 || told.CreationPath != "sys/wrapping/wrap" {
		t.Errorf("looked up as %s", info.Data)
	}
	if got, err := h.unwrap(t, "unwrap", resp.Wrap.Token, false); err != nil || string(got.Raw.Body) != wrappedData {
		t.Errorf("unwrapped %+v, %v", got, err)
	}
}

func TestLoginsAreWrapped(t *testing.T) {
	h := newHouse(t)
	resp, err := h.Handle(t.Context(), &conclave.Request{ID: "r", Operation: conclave.Update, Path: "auth/door/login/ann", WrapTTL: time.Minute})
	if err != nil || resp.Auth != nil || resp.Wrap == nil || resp.Wrap.WrappedAccessor == "" {
		t.Fatalf("a wrapped login answers %+v, %v", resp, err)
	}
	if _, err := h.Handle(t.Context(), &conclave.Request{ID: "r", Operation: conclave.Update, Path: "sys/wrapping/wrap", Token: h.root}); !conclave.Is(err, conclave.Invalid) {
		t.Errorf("wrapped for no time: %v", err)
	}
}
