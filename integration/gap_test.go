package integration

import (
	"context"
	"errors"
	"net/http"
	"os"
	"regexp"
	"testing"
	"time"
)

// gapOf is the record of a gap of node 1 in which at least one answer was that nothing could be committed, or
// that it isn't known whether it was.
var gapOf = regexp.MustCompile(`"path":"sys/audit-gap","data":\{"unrecorded":\{[^\n]*"(unavailable|unsure)":[1-9][^\n]*"node":"node1"`)

// TestRefusalsWithoutAQuorumAreCountedLater takes the quorum away. What is refused then can't be recorded; it is counted in
// the log once there is a quorum again.
func TestRefusalsWithoutAQuorumAreCountedLater(t *testing.T) {
	l := startLab(t, 3)
	mustPut(t, l, 1, "a", "true")
	for n := 2; n <= 3; n++ {
		if err := l.Kill(n); err != nil {
			t.Fatal(err)
		}
	}
	// A client that doesn't wait for the refusal is refused as well.
	answer, err := l.Client(1).Do(within(t, 5*time.Second), "GET", "sys/mounts", nil)
	if err == nil && answer.Status < http.StatusInternalServerError {
		t.Fatalf("without a quorum node 1 answers %d", answer.Status)
	}
	if err := l.Start(within(t, time.Minute), 2, 3); err != nil {
		t.Fatal(err)
	}
	if err := l.WaitServing(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	for _, file := range l.AuditFiles {
		eventually(t, time.Minute, func(context.Context) error {
			text, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			if !gapOf.Match(text) {
				return errors.New(file + " has no record of the gap")
			}
			return nil
		})
	}
	wantVerified(t, l)
}
