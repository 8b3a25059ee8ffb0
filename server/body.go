package server

import (
	"encoding/base64"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"unicode/utf8"

	"conclave"
	"conclave/server/jsonbody"
)

// binaryTypes are bodies that are no JSON: their content type → how many bytes they have at most. Routes get them in base64,
// as the field "body".
var binaryTypes = map[string]int{
	"application/ocsp-request": 4 << 10, // RFC 6960, A.1
}

const (
	firstRead  = 64 << 10 // bytes that are reserved for a body before any of it has come
	formType   = "application/x-www-form-urlencoded"
	mergePatch = "application/merge-patch+json"
)

var (
	errBodyLarge = conclave.Errorf(conclave.TooLarge, "body is larger than is accepted")
	errBodyRead  = conclave.Errorf(conclave.Invalid, "body could not be read to its end")
	errEncoding  = conclave.Errorf(conclave.MediaType, "compressed bodies are not accepted")
	errForm      = conclave.Errorf(conclave.Invalid, "malformed form")
	errNoType    = conclave.Errorf(conclave.Invalid, "PATCH needs a Content-Type header of %s", mergePatch)
	errPatchType = conclave.Errorf(conclave.MediaType, "PATCH takes a Content-Type of %s only", mergePatch)
)

// readBody reads at most limit bytes. The memory is taken from the request's holding as the body arrives, so that a
// client that announces much and sends little holds little.
func readBody(r *http.Request, limit int64, holds *holding) ([]byte, error) {
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		return nil, nil
	}
	if r.ContentLength > limit {
		return nil, errBodyLarge
	}
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return nil, errEncoding
	}
	size := int64(firstRead)
	if r.ContentLength > 0 {
		size = min(size, r.ContentLength+1) // one more, to see the end without growing
	}
	if err := holds.take(size); err != nil {
		return nil, err
	}
	body := make([]byte, 0, size)
	for {
		n, err := r.Body.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		if int64(len(body)) > limit {
			return nil, errBodyLarge
		}
		if errors.Is(err, io.EOF) {
			return body, nil
		}
		if err != nil {
			return nil, errBodyRead
		}
		if len(body) < cap(body) {
			continue
		}
		grown := min(2*int64(cap(body)), limit+1)
		if r.ContentLength > 0 {
			grown = min(4*int64(cap(body)), r.ContentLength+1)
		}
		if err := holds.take(grown - int64(cap(body))); err != nil {
			return nil, err
		}
		body = append(make([]byte, 0, grown), body...)
	}
}

// decodeBody turns a body into fields. A body is JSON whatever its content type says, unless it is declared a form or one
// of the binary types and doesn't begin like JSON.
func decodeBody(body []byte, contentType string, holds *holding) (fields map[string]any, isJSON bool, err error) {
	if len(body) == 0 {
		return nil, true, nil
	}
	if contentType != "" && body[0] != '{' && body[0] != '[' {
		media, _, err := mime.ParseMediaType(contentType)
		if err == nil && media == formType {
			fields, err := decodeForm(body, holds)
			return fields, false, err
		}
		if most, isBinary := binaryTypes[media]; err == nil && isBinary {
			if len(body) > most {
				return nil, false, errBodyLarge
			}
			return map[string]any{"body": base64.StdEncoding.EncodeToString(body)}, false, nil
		}
	}
	fields, members, err := jsonbody.Decode(body)
	if err != nil {
		return nil, true, err
	}
	return fields, true, holds.take(int64(len(body)) + int64(members)*jsonbody.MemberCost)
}

func decodeForm(body []byte, holds *holding) (map[string]any, error) {
	members := 1
	for _, c := range body {
		if c == '&' {
			members++
		}
	}
	if members > jsonbody.MaxMembers || !utf8.Valid(body) {
		return nil, errForm
	}
	if err := holds.take(int64(len(body)) + int64(members)*jsonbody.MemberCost); err != nil {
		return nil, err
	}
	values, err := requestQuery(string(body))
	if err != nil {
		return nil, errForm
	}
	return queryFields(values), nil
}

// checkPatchType holds PATCH to the one format it has, RFC 7396.
func checkPatchType(contentType string) error {
	if contentType == "" {
		return errNoType
	}
	if media, _, err := mime.ParseMediaType(contentType); err != nil || media != mergePatch {
		return errPatchType
	}
	return nil
}

// fieldsOf reads what the request says beside its path. A write's fields come from its body, or from the query when
// there is no body; all others take theirs from the query, and a body they might have is not looked at.
func fieldsOf(r *http.Request, req *conclave.Request, query url.Values, limit int64, holds *holding) error {
	if req.Operation != conclave.Update && req.Operation != conclave.Patch {
		req.Fields = queryFields(query)
		return nil
	}
	contentType := r.Header.Get("Content-Type")
	if req.Operation == conclave.Patch {
		if err := checkPatchType(contentType); err != nil {
			return err
		}
	}
	body, err := readBody(r, limit, holds)
	if err != nil {
		return err
	}
	if len(body) == 0 {
		req.Fields = queryFields(query)
		return nil
	}
	fields, isJSON, err := decodeBody(body, contentType, holds)
	if err != nil {
		return err
	}
	req.Fields = fields
	if isJSON {
		req.Body = body
	}
	return nil
}
