package kv

import (
	"testing"

	"conclave/engine/enginetest"
)

func TestConformance(t *testing.T) {
	enginetest.Conformance(t, Plugin())
	enginetest.Conformance(t, Plugin(), enginetest.MountOptions(map[string]string{"version": "2"}))
}
