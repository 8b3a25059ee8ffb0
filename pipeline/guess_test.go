package pipeline

import (
	"sync"
	"sync/atomic"
	"testing"

	"conclave"
)

func TestParallelGuessesAreExact(t *testing.T) {
	h := newHouse(t)
	var wait sync.WaitGroup
	var wrong, refused atomic.Int64
	for range 100 {
		wait.Go(func() {
			_, err := h.in(t, "", conclave.Update, "auth/door/open/ann", conclave.Secret{}, map[string]any{"password": "guess"})
			switch {
			case conclave.Is(err, conclave.Invalid):
				wrong.Add(1)
			case conclave.Is(err, conclave.Denied), conclave.Is(err, conclave.Limited):
				refused.Add(1)
			default:
				t.Errorf("a wrong guess: %v", err)
			}
		})
	}
	wait.Wait()
	if wrong.Load() != 5 || refused.Load() != 95 || h.opened.Load() != 5 {
		t.Errorf("%d guesses were evaluated, %d answered as wrong and %d refused, want 5, 5 and 95", h.opened.Load(), wrong.Load(), refused.Load())
	}
	h.fails(t, conclave.Denied, "", conclave.Update, "auth/door/open/ann", conclave.Secret{}, map[string]any{"password": "right"})
	h.must(t, "", conclave.Update, "auth/door/open/bob", conclave.Secret{}, map[string]any{"password": "right"})
	if h.opened.Load() != 6 {
		t.Errorf("the right password of a locked account was looked at")
	}
}

func TestManyRightGuessesAtOnceAllGetIn(t *testing.T) {
	h := newHouse(t)
	var wait sync.WaitGroup
	for range 20 {
		wait.Go(func() {
			if _, err := h.in(t, "", conclave.Update, "auth/door/open/ann", conclave.Secret{}, map[string]any{"password": "right"}); err != nil {
				t.Errorf("the right password: %v", err)
			}
		})
	}
	wait.Wait()
}

func TestGuessesWithinTheTransactionAreCounted(t *testing.T) {
	h := newHouse(t)
	for range 5 {
		h.fails(t, conclave.Invalid, "", conclave.Update, "auth/door/knock/ann", conclave.Secret{}, map[string]any{"password": "guess"})
	}
	h.fails(t, conclave.Denied, "", conclave.Update, "auth/door/knock/ann", conclave.Secret{}, map[string]any{"password": "right"})
	h.must(t, "", conclave.Update, "auth/door/knock/bob", conclave.Secret{}, map[string]any{"password": "right"})
}
