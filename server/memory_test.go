package server

import (
	"bytes"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"conclave"
)

func TestHostileBodiesCostLittleMemory(t *testing.T) {
	pairs := &bytes.Buffer{}
	pairs.WriteString(`{"a":0`)
	for i := range 1_000_000 {
		pairs.WriteString(`,"k` + strconv.Itoa(i) + `":{}`)
	}
	pairs.WriteString(`}`)
	for name, body := range map[string]string{
		"100,000 lists deep":    `{"a":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + `}`,
		"100,000 objects deep":  strings.Repeat(`{"a":`, 100_000) + "1" + strings.Repeat("}", 100_000),
		"a million elements":    `{"a":[` + strings.Repeat("{},", 1_000_000) + `0]}`,
		"a million small lists": `{"a":[` + strings.Repeat("[0],", 1_000_000) + `0]}`,
		"a million members":     pairs.String(),
	} {
		s, _ := newTestServer(t, &recorder{resp: &conclave.Response{}}, servingVault(), nil)
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		w := do(t, plain(s), "POST", "/v1/kv/a", body)
		runtime.ReadMemStats(&after)
		// TotalAlloc counts what has been freed as well, so it is above what was ever held at once.
		if grown := after.TotalAlloc - before.TotalAlloc; w.Code != 400 || grown > 64<<20 {
			t.Errorf("%s = %d with %d MiB allocated, want 400 within 64 MiB", name, w.Code, grown>>20)
		}
	}
}
