package kv

import (
	"strings"
	"testing"
	"time"

	"conclave"
	"conclave/engine/enginetest"
)

func TestPlainSecretsAreReplacedAsAWhole(t *testing.T) {
	h := enginetest.New(t, plain{})
	h.Fails(conclave.Read, "a/b", nil, conclave.NotFound, "")
	h.Fails(conclave.Update, "a/b", nil, conclave.Invalid, "missing data fields")
	h.Data(conclave.Update, "a/b", fields{"x": 12345678901234567, "y": []any{"<", nil}})
	checkJSON(t, "read", h.Data(conclave.Read, "a/b", nil), `{"x":12345678901234567,"y":["<",null]}`)
	h.Data(conclave.Update, "a/b", fields{"z": 1})
	checkJSON(t, "read", h.Data(conclave.Read, "a/b", nil), `{"z":1}`)
	h.Data(conclave.Delete, "a/b", nil)
	h.Data(conclave.Delete, "a/b", nil)
	h.Fails(conclave.Read, "a/b", nil, conclave.NotFound, "")
	h.Fails(conclave.Patch, "a/b", fields{"z": 1}, conclave.Unsupported, "")
	h.Fails(conclave.Update, "a", fields{"x": strings.Repeat("x", conclave.MaxValue)}, conclave.TooLarge, "")
}

func TestLeaseDurationOfPlainSecrets(t *testing.T) {
	h := enginetest.New(t, plain{})
	for _, row := range []struct {
		given fields
		want  time.Duration
	}{
		{fields{"x": 1}, 768 * time.Hour},
		{fields{"ttl": 90}, 90 * time.Second},
		{fields{"ttl": "1h30m"}, 90 * time.Minute},
		{fields{"ttl": "0"}, 0},
		{fields{"lease": "2d"}, 48 * time.Hour},
		{fields{"ttl": "1m", "lease": "2m"}, time.Minute},
		{fields{"ttl": "soon"}, 768 * time.Hour},
		{fields{"ttl": -5}, 768 * time.Hour},
		{fields{"ttl": []any{}}, 768 * time.Hour},
		{fields{"ttl": 9223372036}, 9223372036 * time.Second},
	} {
		h.Data(conclave.Update, "a", row.given)
		response, err := h.Do(conclave.Read, "a", nil)
		if err != nil || response.Lease == nil || response.Lease.TTL != row.want || response.Lease.ID != "" || response.Lease.Renewable {
			t.Errorf("lease of %v is %+v, %v, want %v", row.given, response.Lease, err, row.want)
		}
	}
}

func TestMountGoesFromVersion1To2(t *testing.T) {
	h := enginetest.New(t, plain{})
	h.Data(conclave.Update, "a/b", fields{"x": 1})
	h.Data(conclave.Update, "c", fields{"ttl": "1h"})
	h.Advance(time.Hour)
	v2 := h.Reopen(versioned{})
	checkJSON(t, "old secret", v2.Data(conclave.Read, "data/a/b", nil), `{"data":{"x":1},"metadata":{"created_time":"`+began+`","custom_metadata":null,"deletion_time":"","destroyed":false,"version":1}}`)
	v2.Data(conclave.Update, "data/a/b", fields{"data": fields{"x": 2}, "options": fields{"cas": 1}})
	checkJSON(t, "version 1", v2.Data(conclave.Read, "data/a/b", fields{"version": 1})["data"], `{"x":1}`)
	v2.Data(conclave.Patch, "data/c", fields{"data": fields{"y": 1}})
	checkJSON(t, "list", v2.Data(conclave.Scan, "metadata/", nil), `{"keys":["a/b","c"]}`)

	h.Fails(conclave.Read, "a/b", nil, conclave.Unsupported, "version=2")
	h.Fails(conclave.Update, "a/b", fields{"x": 3}, conclave.Unsupported, "version=2")
	h.Fails(conclave.Delete, "a/b", nil, conclave.Unsupported, "version=2")
}
