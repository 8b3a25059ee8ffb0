package use

import (
	"encoding/base64"
	"net/http"

	"conclave"
	"conclave/engine/transit/keys"
)

// outcome counts how the items of a batch went.
type outcome struct{ good, bad, broken int }

// note counts an item by its error, and returns the error's text.
func (o *outcome) note(err error) string {
	switch {
	case err == nil:
		o.good++
		return ""
	case conclave.KindOf(err) == conclave.Internal:
		o.broken++
	default:
		o.bad++
	}
	return err.Error()
}

// response answers a batch. If an item has failed, the status is 400, or 500 if the vault is to blame for all failures,
// unless the client has asked for another one and some item was good.
func (o *outcome) response(results any, partial *int) *conclave.Response {
	response := batchResults(results)
	switch {
	case o.bad > 0:
		response.Status = http.StatusBadRequest
	case o.broken > 0:
		response.Status = http.StatusInternalServerError
	default:
		return response
	}
	if partial == nil || *partial == 0 || o.good == 0 {
		return response
	}
	if *partial < http.StatusOK || *partial > 599 {
		response.Warnings = append(response.Warnings, "partial_failure_response_code is no HTTP status and was ignored")
		return response
	}
	response.Status = *partial
	return response
}

// batchResults answers a batch.
func batchResults(results any) *conclave.Response {
	return &conclave.Response{Data: map[string]any{"batch_results": results}}
}

// errorText is the text of an item's error, if it has one.
func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// errTime is the answer to a batch that wasn't done when the request's time was over, or nobody waited any more.
var errTime = conclave.Errorf(conclave.Unavailable, "the batch takes too long: make it smaller")

// checkBatch holds the number of items against the limit.
func checkBatch(items int) error {
	switch {
	case items == 0:
		return conclave.Errorf(conclave.Invalid, "missing batch input to process")
	case items > maxBatch:
		return conclave.Errorf(conclave.Invalid, "a batch has at most %d items", maxBatch)
	}
	return nil
}

// sealing decodes what clients give in base64.
func sealing(context, associated, nonce string) (with keys.Sealing, err error) {
	if with.Context, err = DecodeField("context", context); err != nil {
		return with, err
	}
	if with.Associated, err = DecodeField("associated_data", associated); err != nil {
		return with, err
	}
	with.Nonce, err = DecodeField("nonce", nonce)
	return with, err
}

// DecodeField reads a field in standard base64; nothing is nothing.
func DecodeField(field, text string) ([]byte, error) {
	if text == "" {
		return nil, nil
	}
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, conclave.Errorf(conclave.Invalid, "failed to base64-decode %s", field)
	}
	return b, nil
}
