package transit

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"conclave"
	"conclave/engine/enginetest"
	"conclave/engine/transit/keys"
	"conclave/engine/transit/shelf"
)

func encryptText(t testing.TB, h *enginetest.Harness, name, plaintext string, more fields) string {
	t.Helper()
	return text(t, h.Data(conclave.Update, "encrypt/"+name, with(fields{"plaintext": b64(plaintext)}, more)), "ciphertext")
}

func TestWrongRequestsAreRefused(t *testing.T) {
	h := newTransit(t)
	create(h, "k", keys.AES256, nil)
	create(h, "d", keys.AES256, fields{"derived": true})
	create(h, "ec", keys.P256, nil)
	create(h, "rsa", keys.RSA2048, nil)
	create(h, "mac", keys.HMACOnly, nil)
	good := encryptText(t, h, "k", "x", fields{"associated_data": b64("header")})
	derived := encryptText(t, h, "d", "x", fields{"context": b64("c")})
	for _, row := range []struct {
		path   string
		fields fields
		text   string
	}{
		{"encrypt/k", fields{}, "missing plaintext"},
		{"encrypt/k", fields{"plaintext": "?"}, "base64"},
		{"encrypt/k", fields{"plaintext": b64("x"), "context": "?"}, "base64"},
		{"encrypt/k", fields{"plaintext": b64("x"), "associated_data": "?"}, "base64"},
		{"encrypt/k", fields{"plaintext": b64("x"), "key_version": 2}, "higher than the latest"},
		{"encrypt/k", fields{"plaintext": b64("x"), "key_version": -1}, "negative"},
		{"encrypt/k", fields{"plaintext": b64("x"), "nonce": b64("0123456789ab")}, "nonce not allowed"},
		{"encrypt/d", fields{"plaintext": b64("x")}, "context"},
		{"encrypt/ec", fields{"plaintext": b64("x")}, "not supported"},
		{"encrypt/mac", fields{"plaintext": b64("x")}, "not supported"},
		{"encrypt/rsa", fields{"plaintext": b64("x"), "associated_data": b64("y")}, "associated_data"},
		{"encrypt/rsa", fields{"plaintext": b64(strings.Repeat("x", 191))}, "at most 190 bytes"},
		{"encrypt/k", fields{"batch_input": []any{}}, "missing batch input"},
		{"encrypt/k", fields{"batch_input": "x"}, "must be a list"},
		{"encrypt/k", fields{"batch_input": []any{"x"}}, "must be an object"},
		{"encrypt/k", fields{"batch_input": []any{fields{}}}, "missing plaintext"},
		{"encrypt/k", fields{"batch_input": []any{fields{"plaintext": b64("x"), "context": b64("c")}, fields{"plaintext": b64("x")}}}, "all the request blocks or in none"},
		{"decrypt/k", fields{}, "missing ciphertext"},
		{"decrypt/k", fields{"ciphertext": good}, "authentication failed"},
		{"decrypt/k", fields{"ciphertext": good, "associated_data": b64("other")}, "authentication failed"},
		{"decrypt/k", fields{"ciphertext": strings.TrimPrefix(good, "vault:")}, "no prefix"},
		{"decrypt/k", fields{"ciphertext": "vault:v1"}, "wrong number of fields"},
		{"decrypt/k", fields{"ciphertext": "vault:vx:AAAA"}, "version number"},
		{"decrypt/k", fields{"ciphertext": "vault:v-1:AAAA"}, "version number"},
		{"decrypt/k", fields{"ciphertext": strings.Replace(good, ":v1:", ":v2:", 1), "associated_data": b64("header")}, "too new"},
		{"decrypt/k", fields{"ciphertext": "vault:v1:?"}, "base64"},
		{"decrypt/d", fields{"ciphertext": derived}, "context"},
		{"decrypt/d", fields{"ciphertext": derived, "context": b64("d")}, "authentication failed"},
		{"decrypt/ec", fields{"ciphertext": good}, "not supported"},
		{"decrypt/rsa", fields{"ciphertext": "vault:v1:AAAA"}, "can't be decrypted"},
		{"decrypt/none", fields{"ciphertext": good}, "not found"},
		{"rewrap/none", fields{"ciphertext": good}, "not found"},
		{"rewrap/k", fields{}, "missing ciphertext"},
		{"rewrap/k", fields{"ciphertext": good}, "authentication failed"},
		{"sign/k", fields{"input": b64("x")}, "does not support signing"},
		{"sign/mac", fields{"input": b64("x")}, "does not support signing"},
		{"sign/none", fields{"input": b64("x")}, "not found"},
		{"sign/ec", fields{"input": "?"}, "base64"},
		{"sign/ec", fields{"input": b64("x"), "hash_algorithm": "md5"}, "invalid hash algorithm"},
		{"sign/ec/md5", fields{"input": b64("x")}, "invalid hash algorithm"},
		{"sign/ec", fields{"input": b64("x"), "marshaling_algorithm": "xml"}, "marshaling"},
		{"sign/ec", fields{"input": b64("x"), "hash_algorithm": "none"}, "prehashed"},
		{"sign/ec", fields{"input": b64("x"), "key_version": 9}, "higher than the latest"},
		{"sign/rsa", fields{"input": b64("x"), "salt_length": "long"}, "salt_length"},
		{"sign/rsa", fields{"input": b64("x"), "salt_length": 9999}, "salt length"},
		{"sign/rsa", fields{"input": b64("x"), "signature_algorithm": "raw"}, "signature algorithm"},
		{"sign/rsa", fields{"input": b64("x"), "prehashed": true}, "its hash 32"},
		{"verify/ec", fields{"input": b64("x")}, "neither"},
		{"verify/ec", fields{"input": b64("x"), "signature": "vault:v1:AAAA", "hmac": "vault:v1:AAAA"}, "one of"},
		{"verify/ec", fields{"input": b64("x"), "signature": "AAAA"}, "no prefix"},
		{"verify/ec", fields{"input": b64("x"), "signature": "vault:v1:AAAA"}, "invalid"},
		{"verify/ec", fields{"input": b64("x"), "signature": "vault:v2:AAAA"}, "too new"},
		{"verify/k", fields{"input": b64("x"), "signature": "vault:v1:AAAA"}, "does not support verification"},
		{"verify/ec", fields{"batch_input": []any{fields{"input": "", "signature": ""}, fields{"input": "", "hmac": ""}}}, "all provide"},
		{"verify/ec", fields{"batch_input": []any{fields{"input": ""}}}, "neither"},
		{"hmac/k", fields{}, "missing input"},
		{"hmac/k/md5", fields{"input": b64("x")}, "unsupported algorithm"},
		{"hmac/k", fields{"input": b64("x"), "algorithm": "none"}, "unsupported algorithm"},
		{"hmac/none", fields{"input": b64("x")}, "not found"},
		{"hash", fields{}, "missing input"},
		{"hash/md5", fields{"input": b64("x")}, "unsupported algorithm"},
		{"hash", fields{"input": b64("x"), "format": "octal"}, "encoding format"},
		{"random", fields{"bytes": 0}, "between 1 and"},
		{"random/131073", nil, "between 1 and"},
		{"random/dice", nil, "no number"},
		{"random/dice/3", nil, "unsupported entropy source"},
		{"random", fields{"source": "dice"}, "unsupported entropy source"},
		{"random", fields{"format": "octal"}, "encoding format"},
		{"datakey/open/k", fields{}, "plaintext"},
		{"datakey/plaintext/k", fields{"bits": 100}, "bit length"},
		{"datakey/plaintext/ec", fields{}, "not supported"},
		{"datakey/plaintext/none", fields{}, "not found"},
		{"datakey/plaintext/d", fields{}, "context"},
		{"cache-config", fields{"size": 5}, "greater or equal"},
	} {
		h.Fails(conclave.Update, row.path, row.fields, conclave.Invalid, row.text)
	}
}

// maxBatch is how many items a batch has at most.
const maxBatch = 10_000

// results are those of a batch.
func results(t testing.TB, response *conclave.Response) []fields {
	t.Helper()
	list, _ := enginetest.Decode(t, response.Data)["batch_results"].([]any)
	all := make([]fields, len(list))
	for i := range list {
		all[i], _ = list[i].(fields)
	}
	return all
}

func TestBatchesHaveABound(t *testing.T) {
	h := newTransit(t, enginetest.Fast())
	create(h, "k", keys.P256, nil)
	items := make([]any, maxBatch+1)
	for i := range items {
		items[i] = fields{"plaintext": "", "ciphertext": "x", "input": "", "hmac": "x"}
	}
	create(h, "a", keys.AES256, nil)
	for _, path := range []string{"encrypt/a", "decrypt/a", "rewrap/a", "sign/k", "verify/k", "hmac/k"} {
		h.Fails(conclave.Update, path, fields{"batch_input": items}, conclave.Invalid, fmt.Sprintf("at most %d items", maxBatch))
	}
	response, err := h.Do(conclave.Update, "encrypt/a", fields{"batch_input": items[:maxBatch]})
	if err != nil || len(results(t, response)) != maxBatch {
		t.Errorf("the largest batch: %v", err)
	}
}

func TestItemsOfABatchFailByThemselves(t *testing.T) {
	h := newTransit(t)
	create(h, "k", keys.AES256, nil)
	batch := []any{fields{"plaintext": b64("a"), "reference": "first"}, fields{"plaintext": "?", "reference": "second"}, fields{"plaintext": b64("c")}}
	for _, row := range []struct {
		asked  any
		status int
		warns  bool
	}{{nil, http.StatusBadRequest, false}, {0, http.StatusBadRequest, false}, {202, 202, false}, {99, http.StatusBadRequest, true}, {600, http.StatusBadRequest, true}} {
		response, err := h.Do(conclave.Update, "encrypt/k", fields{"batch_input": batch, "partial_failure_response_code": row.asked})
		if err != nil || response.Status != row.status || (len(response.Warnings) > 0) != row.warns {
			t.Fatalf("asked for %v: %+v, %v, want status %d", row.asked, response, err, row.status)
		}
		got := results(t, response)
		if text(t, got[0], "ciphertext") == "" || got[0]["reference"] != "first" || text(t, got[1], "error") == "" || got[1]["ciphertext"] != nil || got[1]["reference"] != "second" || number(t, got[2], "key_version") != 1 {
			t.Errorf("results are %v", got)
		}
	}
	response, err := h.Do(conclave.Update, "encrypt/k", fields{"batch_input": []any{batch[1]}, "partial_failure_response_code": 202})
	if err != nil || response.Status != http.StatusBadRequest {
		t.Errorf("no good item: %+v, %v", response, err)
	}
	first, second := encryptText(t, h, "k", "a", nil), encryptText(t, h, "k", "b", nil)
	response, err = h.Do(conclave.Update, "decrypt/k", fields{"batch_input": []any{fields{"ciphertext": first}, fields{"ciphertext": ""}, fields{"ciphertext": second}}})
	if err != nil || response.Status != http.StatusBadRequest {
		t.Fatalf("%+v, %v", response, err)
	}
	if got := results(t, response); got[0]["plaintext"] != b64("a") || text(t, got[1], "error") == "" || got[2]["plaintext"] != b64("b") {
		t.Errorf("results are %v", got)
	}
	rotate(h, "k", 1)
	response, err = h.Do(conclave.Update, "rewrap/k", fields{"batch_input": []any{fields{"ciphertext": first}, fields{"ciphertext": "x"}}})
	if err != nil || response.Status != 0 {
		t.Fatalf("%+v, %v", response, err)
	}
	if got := results(t, response); !strings.HasPrefix(text(t, got[0], "ciphertext"), "vault:v2:") || number(t, got[0], "key_version") != 2 || text(t, got[1], "error") == "" {
		t.Errorf("results are %v", got)
	}
}

func TestBatchesOfSignaturesAndHMACs(t *testing.T) {
	h := newTransit(t)
	create(h, "k", keys.Ed25519, fields{"derived": true})
	made := h.Data(conclave.Update, "sign/k", fields{"batch_input": []any{fields{"input": b64("a"), "context": b64("1")}, fields{"context": b64("1")}, fields{"input": b64("a"), "context": b64("2"), "reference": "r"}}})
	signed := made["batch_results"].([]any)
	first, third := signed[0].(fields), signed[2].(fields)
	if first["signature"] == third["signature"] || first["publickey"] == third["publickey"] || text(t, first, "publickey") == "" || signed[1].(fields)["error"] != "missing input" || third["reference"] != "r" {
		t.Errorf("results are %v", signed)
	}
	verified := h.Data(conclave.Update, "verify/k", fields{"batch_input": []any{
		fields{"input": b64("a"), "context": b64("1"), "signature": first["signature"]},
		fields{"input": b64("a"), "context": b64("2"), "signature": first["signature"]},
		fields{"input": b64("a"), "signature": first["signature"]},
	}})["batch_results"].([]any)
	if verified[0].(fields)["valid"] != true || verified[1].(fields)["valid"] != false || verified[2].(fields)["error"] == nil {
		t.Errorf("verified %v", verified)
	}
	macs := h.Data(conclave.Update, "hmac/k/sha2-512", fields{"batch_input": []any{fields{"input": b64("a")}, fields{}, fields{"input": ""}}})["batch_results"].([]any)
	if macs[1].(fields)["error"] == nil {
		t.Errorf("HMACs are %v", macs)
	}
	verified = h.Data(conclave.Update, "verify/k/sha2-512", fields{"batch_input": []any{
		fields{"input": b64("a"), "hmac": macs[0].(fields)["hmac"]}, fields{"input": b64("b"), "hmac": macs[0].(fields)["hmac"]}, fields{"input": "", "hmac": macs[2].(fields)["hmac"]}}})["batch_results"].([]any)
	if verified[0].(fields)["valid"] != true || verified[1].(fields)["valid"] != false || verified[2].(fields)["valid"] != true {
		t.Errorf("verified %v", verified)
	}
}

func TestSignAndVerifyByAllNames(t *testing.T) {
	h := newTransit(t)
	create(h, "rsa", keys.RSA2048, nil)
	create(h, "ec", keys.P384, nil)
	for _, row := range []struct {
		key    string
		path   string
		fields fields
		other  fields // with which it doesn't verify
	}{
		{"ec", "", nil, fields{"hash_algorithm": "sha2-512"}},
		{"ec", "/sha2-384", nil, fields{"input": b64("other")}},
		{"ec", "", fields{"hash_algorithm": "sha3-512"}, fields{"hash_algorithm": "sha2-512"}},
		{"ec", "", fields{"algorithm": "sha3-512"}, fields{"algorithm": "sha2-512"}},
		{"rsa", "", nil, fields{"signature_algorithm": "pkcs1v15"}},
		{"rsa", "/sha1", fields{"signature_algorithm": "pkcs1v15"}, fields{"signature_algorithm": "pss"}},
		{"rsa", "", fields{"salt_length": "hash"}, fields{"salt_length": 20}},
		{"rsa", "", fields{"salt_length": 20}, fields{"salt_length": "hash"}},
	} {
		input := fields{"input": b64("x")}
		made := h.Data(conclave.Update, "sign/"+row.key+row.path, with(input, row.fields))
		signature := fields{"signature": made["signature"]}
		if got := h.Data(conclave.Update, "verify/"+row.key+row.path, with(input, row.fields, signature)); got["valid"] != true {
			t.Errorf("%+v: %v", row, got)
		}
		if got := h.Data(conclave.Update, "verify/"+row.key+row.path, with(input, row.fields, signature, row.other)); got["valid"] != false {
			t.Errorf("%+v, verified with %v: %v", row, row.other, got)
		}
	}
	made := h.Data(conclave.Update, "sign/ec", fields{"input": b64("x"), "marshaling_algorithm": "jws"})
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(text(t, made, "signature"), "vault:v1:"))
	if err != nil || len(raw) != 96 {
		t.Errorf("the signature for a JWS has %d bytes, %v", len(raw), err)
	}
}

// Some clients send every field that there is, those that they don't use empty.
func TestEmptyFieldsAreNone(t *testing.T) {
	h := newTransit(t)
	h.Data(conclave.Update, "keys/k", fields{"type": "rsa-2048", "derived": false, "key_size": 0, "auto_rotate_period": "", "exportable": false, "managed_key_name": ""})
	all := fields{"input": b64("x"), "hash_algorithm": "sha2-256", "batch_input": nil, "context": "", "prehashed": false, "signature_algorithm": "pss", "marshaling_algorithm": "asn1",
		"salt_length": "", "key_version": 0, "reference": "", "signature": "", "hmac": ""}
	made := h.Data(conclave.Update, "sign/k", all)
	if got := h.Data(conclave.Update, "verify/k", with(all, fields{"signature": made["signature"]})); got["valid"] != true {
		t.Errorf("the signature verifies %v", got)
	}
	mac := h.Data(conclave.Update, "hmac/k", all)
	if got := h.Data(conclave.Update, "verify/k", with(all, fields{"hmac": mac["hmac"]})); got["valid"] != true {
		t.Errorf("the HMAC verifies %v", got)
	}
	h.Fails(conclave.Update, "verify/k", all, conclave.Invalid, "no prefix")
	sealed := h.Data(conclave.Update, "encrypt/k", fields{"plaintext": b64("x"), "associated_data": "", "context": "", "nonce": "", "batch_input": nil, "type": "", "key_version": 0, "partial_failure_response_code": 0})
	if got := h.Data(conclave.Update, "decrypt/k", fields{"ciphertext": sealed["ciphertext"], "associated_data": "", "context": "", "nonce": "", "batch_input": nil}); got["plaintext"] != b64("x") {
		t.Errorf("decrypts to %v", got)
	}
}

func TestHash(t *testing.T) {
	h := newTransit(t)
	for path, want := range map[string]string{ // of "abc": FIPS 180-4 and FIPS 202
		"hash":          "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
		"hash/sha2-224": "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7",
		"hash/sha3-256": "3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532",
	} {
		if got := h.Data(conclave.Update, path, fields{"input": b64("abc")}); got["sum"] != want {
			t.Errorf("%s: %v, want %s", path, got, want)
		}
	}
	if got := h.Data(conclave.Update, "hash", fields{"input": b64("abc"), "format": "base64"}); got["sum"] != "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=" {
		t.Errorf("in base64: %v", got)
	}
}

func TestRandom(t *testing.T) {
	h := newTransit(t)
	seen := map[any]bool{}
	for path, length := range map[string]int{"random": 32, "random/platform": 32, "random/all": 32, "random/seal/9": 9, "random/17": 17} {
		for range 3 {
			got := h.Data(conclave.Update, path, fields{"format": "hex"})
			if len(text(t, got, "random_bytes")) != 2*length || seen[got["random_bytes"]] {
				t.Errorf("%s: %v, want %d new bytes", path, got, length)
			}
			seen[got["random_bytes"]] = true
		}
	}
	if got := h.Data(conclave.Update, "random", fields{"bytes": 3}); len(text(t, got, "random_bytes")) != 4 {
		t.Errorf("in base64: %v", got)
	}
	response, err := h.Do(conclave.Update, "random/seal", nil)
	if err != nil || len(response.Warnings) != 1 {
		t.Errorf("from the seal: %+v, %v", response, err)
	}
}

func TestDataKeys(t *testing.T) {
	h := newTransit(t)
	for _, kind := range []keys.Type{keys.AES256, keys.RSA2048} {
		name := string(kind)
		create(h, name, kind, nil)
		for bits, length := range map[any]int{nil: 32, 128: 16, 256: 32, 512: 64} {
			made := h.Data(conclave.Update, "datakey/plaintext/"+name, fields{"bits": bits})
			plaintext, err := base64.StdEncoding.DecodeString(text(t, made, "plaintext"))
			if err != nil || len(plaintext) != length {
				t.Errorf("%v bits: %d bytes, %v", bits, len(plaintext), err)
			}
			if got := h.Data(conclave.Update, "decrypt/"+name, fields{"ciphertext": made["ciphertext"]}); got["plaintext"] != made["plaintext"] {
				t.Errorf("%v bits: %v decrypts to %v", bits, made, got)
			}
		}
		if made := h.Data(conclave.Update, "datakey/wrapped/"+name, nil); made["plaintext"] != nil || text(t, made, "ciphertext") == "" {
			t.Errorf("wrapped: %v", made)
		}
	}
}

// What takes long is computed before the transaction, and the answer is the same.
func TestLongWorkIsPrepared(t *testing.T) {
	h := newTransit(t)
	create(h, "rsa", keys.RSA2048, nil)
	create(h, "aes", keys.AES256, nil)
	routes := map[string]conclave.Route{}
	for _, route := range quick.Routes() {
		routes[route.Pattern] = route
	}
	long := make([]any, 200)
	for i := range long {
		long[i] = fields{"plaintext": b64("x"), "input": b64("x")}
	}
	for _, row := range []struct {
		pattern, name string
		fields        fields
		prepared      bool
	}{
		{"encrypt/{name}", "aes", fields{"plaintext": b64("x")}, false},
		{"encrypt/{name}", "aes", fields{"plaintext": b64(strings.Repeat("x", 100_000))}, true},
		{"encrypt/{name}", "aes", fields{"batch_input": long}, true},
		{"encrypt/{name}", "new", fields{"plaintext": b64("x")}, true},
		{"encrypt/{name}", "rsa", fields{"plaintext": b64("x")}, false},
		{"decrypt/{name}", "aes", fields{"ciphertext": "vault:v1:"}, false},
		{"decrypt/{name}", "rsa", fields{"ciphertext": "vault:v1:"}, true},
		{"sign/{name}", "rsa", fields{"input": b64("x")}, true},
		{"verify/{name}", "rsa", fields{"input": b64("x"), "signature": ""}, false},
		{"hmac/{name}", "rsa", fields{"input": b64("x")}, false},
		{"hmac/{name}", "rsa", fields{"batch_input": long}, true},
	} {
		route := routes[row.pattern]
		in, err := route.Bind(map[string]string{"name": row.name}, jsonFields(t, row.fields))
		if err != nil {
			t.Fatal(err)
		}
		gathered, err := route.Gather(h.View(), in)
		if _, needless := gathered.(conclave.NoPreparation); err != nil || needless == row.prepared {
			t.Errorf("%s with %s: gathered %T, %v, want prepared %v", row.pattern, row.name, gathered, err, row.prepared)
		}
		again, err := route.Gather(h.View(), in)
		if err != nil || !reflect.DeepEqual(gathered, again) {
			t.Errorf("%s with %s: gathered twice, %T and %T differ, %v", row.pattern, row.name, gathered, again, err)
		}
	}
	rotate(h, "aes", 1)
	all := h.Data(conclave.Update, "encrypt/aes", fields{"batch_input": long})["batch_results"].([]any)
	if len(all) != len(long) || number(t, all[199].(fields), "key_version") != 2 {
		t.Errorf("the last of %d results is %v", len(all), all[len(all)-1])
	}
}

// A batch ends when nobody waits for it any more.
func TestBatchesEndWithTheirRequest(t *testing.T) {
	h := newTransit(t)
	create(h, "k", keys.P256, nil)
	create(h, "a", keys.AES256, nil)
	ended, end := context.WithCancel(t.Context())
	end()
	item := []any{fields{"plaintext": "", "ciphertext": "x", "input": "", "hmac": "x"}}
	for _, route := range quick.Routes() {
		name := "k"
		switch route.Pattern {
		case "encrypt/{name}", "decrypt/{name}", "rewrap/{name}":
			name = "a"
		case "sign/{name}", "verify/{name}", "hmac/{name}":
		default:
			continue
		}
		in, err := route.Bind(map[string]string{"name": name}, jsonFields(t, fields{"batch_input": item}))
		if err != nil {
			t.Fatal(err)
		}
		key, err := shelf.Existing(h.View(), name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := route.Prepare(conclave.WithGathered(ended, key), nil, in); !conclave.Is(err, conclave.Unavailable) {
			t.Errorf("%s: %v, want Unavailable", route.Pattern, err)
		}
	}
}

// jsonFields are fields as the edge decodes them.
func jsonFields(t testing.TB, given fields) fields {
	t.Helper()
	return enginetest.Decode(t, given)
}
