package ssh

import (
	"testing"

	"conclave"
	"conclave/engine/enginetest"
)

// BenchmarkSign is one certificate, without the vault around it, by an authority with a key of each kind.
func BenchmarkSign(b *testing.B) {
	for _, kind := range []string{"ed25519", "ec", "rsa"} {
		b.Run(kind, func(b *testing.B) {
			h := enginetest.New(b, New(), enginetest.Fast())
			h.Data(conclave.Update, "config/ca", map[string]any{"key_type": kind})
			h.Data(conclave.Update, "roles/web", caRoleWith(map[string]any{"allowed_users": "{{identity.entity.name}},ubuntu", "allowed_users_template": true}))
			public, _ := newKey(b)
			fields := map[string]any{"public_key": public}
			for b.Loop() {
				if _, err := h.Do(conclave.Update, "sign/web", fields); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
