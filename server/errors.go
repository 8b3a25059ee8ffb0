package server

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"conclave"
)

// kindStatus is the one place where kinds of error become status codes.
var kindStatus = [...]int{
	conclave.Internal:     http.StatusInternalServerError,
	conclave.Invalid:      http.StatusBadRequest,
	conclave.Denied:       http.StatusForbidden,
	conclave.NotFound:     http.StatusNotFound,
	conclave.Unsupported:  http.StatusMethodNotAllowed,
	conclave.Precondition: http.StatusPreconditionFailed, // an unmet index; engines answer check-and-set with Invalid
	conclave.TooLarge:     http.StatusRequestEntityTooLarge,
	conclave.MediaType:    http.StatusUnsupportedMediaType,
	conclave.Limited:      http.StatusTooManyRequests,
	conclave.Sealed:       http.StatusServiceUnavailable,
	conclave.Unavailable:  http.StatusServiceUnavailable,
	conclave.Unknown:      http.StatusInternalServerError,
}

const (
	sealedMessage  = "Vault is sealed"
	unknownMessage = "the outcome of this request is unknown, it may have been done"
	retryAfter     = time.Second // when an error that invites a retry doesn't say
)

var errBusy = &conclave.Error{Kind: conclave.Unavailable, Message: "too many requests in flight, nothing was done"}

// failure is an error as the client will see it.
type failure struct {
	status     int
	message    string // empty: an empty list of errors
	data       any
	retryAfter time.Duration
	internal   bool // the message hides the cause, which belongs in the log
}

// failureOf decides what the client learns of err. Only the message of the first conclave.Error in the chain reaches
// it: text that was wrapped around that one was written for the log.
func failureOf(err error, requestID string) failure {
	e, known := errors.AsType[*conclave.Error](err)
	if !known {
		e = &conclave.Error{Kind: conclave.Internal}
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
			e.Kind = conclave.Unknown
		}
	}
	f := failure{status: http.StatusInternalServerError, message: e.Message, data: e.Data, retryAfter: e.RetryAfter}
	if int(e.Kind) < len(kindStatus) {
		f.status = kindStatus[e.Kind]
	}
	switch e.Kind {
	case conclave.NotFound:
	case conclave.Sealed:
		if e.Message == "" {
			f.message = sealedMessage
		}
	case conclave.Unknown:
		f.message = unknownMessage
		if e.Message != "" {
			f.message += ": " + e.Message
		}
	case conclave.Limited, conclave.Unavailable:
		f.message = e.Error()
		if f.retryAfter <= 0 {
			f.retryAfter = retryAfter
		}
	default:
		f.message = e.Error()
	}
	if f.status == http.StatusInternalServerError && e.Kind != conclave.Unknown {
		f.message, f.data, f.internal = "internal error, request "+requestID, nil, true
	}
	return f
}

// retrySeconds is the value of a Retry-After header: whole seconds, rounded up.
func retrySeconds(d time.Duration) string {
	return strconv.FormatInt(int64((d+time.Second-1)/time.Second), 10)
}
