package main

import (
	"encoding/hex"
	"encoding/json"
	"strconv"
	"testing"

	"conclave"
)

// With a number, verify also tells where the log stood then, for comparison with other nodes.
func TestVerifyTellsWhereTheLogStood(t *testing.T) {
	v := openVault(t)
	v.must(conclave.Read, "sys/mounts", nil)
	at := v.state.Audit().Shown()
	v.must(conclave.Read, "sys/mounts", nil)
	out := v.must(conclave.Read, "sys/audit-verify", map[string]any{"seq": json.Number(strconv.FormatUint(at.Seq, 10))})
	if out["ok"] != true || out["head"] != hex.EncodeToString(at.Head[:]) || out["seq"] != float64(at.Seq) || out["records"] != float64(at.Seq+1) {
		t.Errorf("verify = %v, want the head after %d records, %x, of %d", out, at.Seq, at.Head, at.Seq+1)
	}
}
