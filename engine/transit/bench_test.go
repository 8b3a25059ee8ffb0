package transit

import (
	"strings"
	"testing"

	"conclave"
	"conclave/engine/enginetest"
	"conclave/engine/transit/keys"
)

// BenchmarkEncrypt1KiB is all that the engine does for a request, and what the kit's storage does: binding, the look-ups,
// encryption.
func BenchmarkEncrypt1KiB(b *testing.B) {
	for _, kind := range []keys.Type{keys.AES256, keys.XChaCha, keys.RSA2048} {
		h := newTransit(b, enginetest.Fast())
		create(h, "k", kind, nil)
		size := 1024
		if kind == keys.RSA2048 {
			size = 100
		}
		benchmark(b, h, string(kind), "encrypt/k", `{"plaintext":"`+b64(strings.Repeat("x", size))+`"}`)
	}
}

func BenchmarkSign(b *testing.B) {
	for _, kind := range []keys.Type{keys.Ed25519, keys.P256, keys.P384, keys.RSA2048} {
		h := newTransit(b, enginetest.Fast())
		create(h, "k", kind, nil)
		benchmark(b, h, string(kind), "sign/k", `{"input":"`+b64(strings.Repeat("x", 100))+`"}`)
	}
}

func benchmark(b *testing.B, h *enginetest.Harness, name, path, body string) {
	b.Run(name, func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := h.DoJSON(conclave.Update, path, []byte(body)); err != nil {
				b.Fatal(err)
			}
		}
	})
}
