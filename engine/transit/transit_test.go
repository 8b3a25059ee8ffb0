package transit

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"conclave"
	"conclave/engine/enginetest"
	"conclave/engine/transit/keys"
)

type fields = map[string]any

func newTransit(t testing.TB, options ...enginetest.Option) *enginetest.Harness {
	t.Helper()
	return enginetest.New(t, quick, options...)
}

func b64(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

// with joins fields.
func with(all ...fields) fields {
	joined := fields{}
	for _, some := range all {
		for key, value := range some {
			joined[key] = value
		}
	}
	return joined
}

// number is a number of an answer.
func number(t testing.TB, from map[string]any, name string) int64 {
	t.Helper()
	n, ok := from[name].(json.Number)
	value, err := n.Int64()
	if !ok || err != nil {
		t.Fatalf("%s is %v, want a number", name, from[name])
	}
	return value
}

func text(t testing.TB, from map[string]any, name string) string {
	t.Helper()
	value, ok := from[name].(string)
	if !ok || value == "" {
		t.Fatalf("%s is %v, want a text", name, from[name])
	}
	return value
}

// create makes a key.
func create(h *enginetest.Harness, name string, kind keys.Type, settings fields) {
	h.Data(conclave.Update, "keys/"+name, with(fields{"type": string(kind)}, settings))
}

func rotate(h *enginetest.Harness, name string, times int) {
	for range times {
		h.Data(conclave.Update, "keys/"+name+"/rotate", nil)
	}
}

// quick makes its wrapping key in no time.
var quick = Engine{wrapping: keys.RSA2048}

func TestConformance(t *testing.T) {
	plugin := Plugin()
	plugin.Open = func(map[string]string) (conclave.Engine, error) { return quick, nil }
	enginetest.Conformance(t, plugin, enginetest.AnswersAbsent("wrapping_key"))
}

var aeads = []keys.Type{keys.AES128, keys.AES256, keys.ChaCha, keys.XChaCha}

func TestWhatIsEncryptedIsDecrypted(t *testing.T) {
	for _, kind := range append([]keys.Type{keys.RSA2048}, aeads...) {
		t.Run(string(kind), func(t *testing.T) {
			h := newTransit(t)
			create(h, "k", kind, nil)
			for _, plaintext := range []string{"", "x", strings.Repeat("long ", 30)} {
				first := h.Data(conclave.Update, "encrypt/k", fields{"plaintext": b64(plaintext)})
				second := h.Data(conclave.Update, "encrypt/k", fields{"plaintext": b64(plaintext)})
				if first["ciphertext"] == second["ciphertext"] || !strings.HasPrefix(text(t, first, "ciphertext"), "vault:v1:") || number(t, first, "key_version") != 1 {
					t.Errorf("encrypted to %v, then to %v", first, second)
				}
				for _, made := range []fields{first, second} {
					if got := h.Data(conclave.Update, "decrypt/k", fields{"ciphertext": made["ciphertext"]}); got["plaintext"] != b64(plaintext) {
						t.Errorf("decrypted to %v, want %q", got, b64(plaintext))
					}
				}
			}
		})
	}
}

func TestEncryptMakesItsKey(t *testing.T) {
	var asked []string
	h := newTransit(t, enginetest.Authorize(func(op conclave.Operation, path string) bool {
		asked = append(asked, fmt.Sprint(op, " ", path))
		return op != conclave.Create || !strings.HasSuffix(path, "/forbidden")
	}))
	h.Data(conclave.Update, "encrypt/k", fields{"plaintext": b64("x")})
	if asked[0] != "create encrypt/k" {
		t.Errorf("authorised %q, want create first", asked)
	}
	asked = nil
	h.Data(conclave.Update, "encrypt/k", fields{"plaintext": b64("x")})
	if asked[0] != "update encrypt/k" {
		t.Errorf("authorised %q, want update", asked)
	}
	h.Fails(conclave.Update, "encrypt/forbidden", fields{"plaintext": b64("x")}, conclave.Denied, "")
	h.Data(conclave.Update, "encrypt/derived", fields{"plaintext": b64("x"), "context": b64("c"), "type": "chacha20-poly1305", "convergent_encryption": true})
	made := h.Data(conclave.Read, "keys/derived", nil)
	if made["derived"] != true || made["type"] != "chacha20-poly1305" || made["convergent_encryption"] != true {
		t.Errorf("made %v", made)
	}
	h.Fails(conclave.Update, "encrypt/other", fields{"plaintext": b64("x"), "type": "rsa-2048"}, conclave.Invalid, "not supported for this operation")
	h.Fails(conclave.Update, "encrypt/other", fields{"plaintext": b64("x"), "type": "rot13"}, conclave.Invalid, "unknown key type")
	h.Fails(conclave.Update, "encrypt/other", fields{"plaintext": b64("x"), "convergent_encryption": true}, conclave.Invalid, "context is required")
	h.Fails(conclave.Update, "encrypt/-other", fields{"plaintext": b64("x")}, conclave.Invalid, "name")
	h.Data(conclave.Update, "config/keys", fields{"disable_upsert": true})
	h.Fails(conclave.Update, "encrypt/other", fields{"plaintext": b64("x")}, conclave.Invalid, "encryption key not found")
	h.Fails(conclave.Update, "decrypt/other", fields{"ciphertext": "vault:v1:AAAA"}, conclave.Invalid, "encryption key not found")
	if got := h.Data(conclave.Read, "config/keys", nil); got["disable_upsert"] != true {
		t.Errorf("settings are %v", got)
	}
}
