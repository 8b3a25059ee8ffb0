package conclave

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Kind classifies an error by what the caller can do about it. The server maps kinds to HTTP status codes in one place.
type Kind uint8

// The kinds of error. The zero Kind is Internal: what nobody classified is our fault, not the caller's.
const (
	Internal     Kind = iota // a defect or a failing machine; 500
	Invalid                  // the request can't be right in any state; 400
	Denied                   // the caller may not do this; 403
	NotFound                 // nothing is there; 404
	Unsupported              // the path exists, the operation on it doesn't; 405
	Precondition             // the index that the caller named isn't reached; 412, on which clients retry, so a failed check-and-set is Invalid
	TooLarge                 // a body, value or transaction over its limit; 413
	MediaType                // a body of the wrong content type; 415
	Limited                  // a quota or rate limit; 429
	Sealed                   // the vault is sealed; 503
	Unavailable              // no quorum, no room or too busy: nothing was done, try again; 503
	Unknown                  // the outcome isn't known at the deadline: it may have been done; 500
)

var kindNames = [...]string{"internal error", "invalid request", "permission denied", "not found", "unsupported operation",
	"precondition failed", "too large", "unsupported media type", "limit exceeded", "sealed", "unavailable", "outcome unknown"}

// String names the kind in words.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "internal error"
}

// Error is an error that callers match by kind. Its message goes to clients: it must hold no secret, token or address.
type Error struct {
	Kind    Kind
	Message string
	// Data, if not nil, is sent beside the error: a deleted version of a kv secret answers 404 with its metadata.
	Data any
	// RetryAfter, if positive, tells the client when to try again.
	RetryAfter time.Duration
	cause      error
}

// Errorf makes an Error. A %w in format keeps the cause for errors.Is, and its text becomes part of the message.
func Errorf(kind Kind, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Kind: kind, Message: err.Error(), cause: errors.Unwrap(err)}
}

// Error is the message for the client.
func (e *Error) Error() string {
	if e.Message == "" {
		return e.Kind.String()
	}
	return e.Message
}

// Unwrap returns what caused the error, if that was kept.
func (e *Error) Unwrap() error { return e.cause }

// KindOf returns the kind of the first Error in err's chain, Internal if there is none.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return Internal
}

// Is reports whether err is an Error of the given kind.
func Is(err error, kind Kind) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Kind == kind
}

// Damaged reports whether err tells of something stored that can't be read: it isn't for the caller to change, and doesn't
// pass by itself.
func Damaged(err error) bool {
	return err != nil && KindOf(err) == Internal && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded)
}

// Reason is what may be told and stored about a failure of an engine's outside work. Messages of Errors are made for clients;
// those of others may hold secrets, and only their type is told.
func Reason(err error) string {
	if known, ok := errors.AsType[*Error](err); ok {
		return known.Error()
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return "the engine did not answer in time"
	}
	return fmt.Sprintf("the engine failed with an error of type %T", err)
}
