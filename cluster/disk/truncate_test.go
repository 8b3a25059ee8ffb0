package disk

import (
	"testing"

	"github.com/hashicorp/raft"
)

// TestLogWithACutTailOpensAgain is what a follower does whose last entries a new leader overrules: it cuts its tail, and
// may be killed before it writes another entry. raft-wal v0.4.0 couldn't open such a log again; see
// docs/decisions/0003.
func TestLogWithACutTailOpensAgain(t *testing.T) {
	for _, kind := range []string{"wal", "bolt"} {
		for _, rewritten := range []int{0, 3} {
			dir := t.TempDir()
			log := openLog(t, dir, kind)
			if err := log.StoreLogs(entries(1, 20)); err != nil {
				t.Fatal(err)
			}
			if err := log.DeleteRange(15, 20); err != nil {
				t.Fatal(err)
			}
			if rewritten > 0 {
				if err := log.StoreLogs(entries(15, rewritten)); err != nil {
					t.Fatal(err)
				}
			}
			if err := log.Close(); err != nil {
				t.Fatal(err)
			}
			log = openLog(t, dir, kind)
			want := uint64(14 + rewritten)
			if last, err := log.LastIndex(); err != nil || last != want {
				t.Errorf("%s, %d rewritten: last index = %d, %v, want %d", kind, rewritten, last, err, want)
			}
			for index := uint64(1); index <= want; index++ {
				var entry raft.Log
				if err := log.GetLog(index, &entry); err != nil || entry.Index != index {
					t.Errorf("%s, %d rewritten: entry %d = %d, %v", kind, rewritten, index, entry.Index, err)
				}
			}
			if err := log.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}
