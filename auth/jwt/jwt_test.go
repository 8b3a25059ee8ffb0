package jwt

import (
	"testing"

	"conclave/engine/enginetest"
)

func TestConformance(t *testing.T) {
	for _, plugin := range []string{"jwt", "oidc"} {
		t.Run(plugin, func(t *testing.T) {
			if plugin == "jwt" {
				enginetest.Conformance(t, Plugin())
				return
			}
			enginetest.Conformance(t, OIDCPlugin())
		})
	}
}
