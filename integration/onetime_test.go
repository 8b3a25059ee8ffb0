package integration

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"conclave/integration/lab"
)

// atOnce has all nodes do the same several times at once, and counts how often it succeeds.
func atOnce(t *testing.T, l *lab.Lab, times int, do func(n int) bool) int {
	t.Helper()
	var succeeded atomic.Int64
	var group sync.WaitGroup
	start := make(chan struct{})
	for i := range times {
		group.Go(func() {
			<-start
			if do(i%3 + 1) {
				succeeded.Add(1)
			}
		})
	}
	close(start)
	group.Wait()
	return int(succeeded.Load())
}

// TestOneTimePasswordsWorkOnceOverNodes has one password, or passcode, tried on all nodes at once, and again later.
func TestOneTimePasswordsWorkOnceOverNodes(t *testing.T) {
	l := startLab(t, 3)
	ctx := within(t, 4*time.Minute)
	root := sdk(t, l, 1)
	mustWrite(t, ctx, root, "sys/mounts/ssh", map[string]any{"type": "ssh"})
	mustWrite(t, ctx, root, "sys/mounts/totp", map[string]any{"type": "totp"})
	mustWrite(t, ctx, root, "ssh/roles/otp", map[string]any{"key_type": "otp", "default_user": "ubuntu", "cidr_list": "192.0.2.0/24"})
	mustWrite(t, ctx, root, "totp/keys/app", map[string]any{"generate": true, "issuer": "Example", "account_name": "alice", "period": "1h"})
	verify := func(otp any) func(n int) bool {
		return func(n int) bool {
			answer, err := l.Client(n).With("").Do(ctx, "POST", "ssh/verify", map[string]any{"otp": otp})
			return err == nil && answer.Status == 200
		}
	}
	for range 5 {
		made := mustWrite(t, ctx, sdk(t, l, 2), "ssh/creds/otp", map[string]any{"ip": "192.0.2.1"})
		if n := atOnce(t, l, 12, verify(made["key"])); n != 1 {
			t.Errorf("a one-time password works %d times", n)
		}
		if verify(made["key"])(3) {
			t.Error("a one-time password works again later")
		}
	}
	// Revoked with its lease, on another node than it was made on.
	answer, err := sdk(t, l, 3).Logical().WriteWithContext(ctx, "ssh/creds/otp", map[string]any{"ip": "192.0.2.1"})
	if err != nil {
		t.Fatal(err)
	}
	mustWrite(t, ctx, root, "sys/leases/revoke", map[string]any{"lease_id": answer.LeaseID, "sync": true})
	if verify(answer.Data["key"])(2) {
		t.Error("a one-time password works whose lease was revoked")
	}
	var shown struct{ Code string }
	if err := l.Client(2).Read(ctx, "totp/code/app", &shown); err != nil {
		t.Fatal(err)
	}
	spellings := []string{shown.Code, " " + shown.Code, shown.Code + "\n", "\t" + shown.Code + " "}
	var tried atomic.Int64
	check := func(n int) bool {
		var out struct{ Valid bool }
		err := l.Client(n).Write(ctx, "totp/code/app", map[string]any{"code": spellings[tried.Add(1)%4]}, &out)
		return err == nil && out.Valid
	}
	if n := atOnce(t, l, 12, check); n != 1 {
		t.Errorf("a passcode is right %d times", n)
	}
	leader, err := l.Leader(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Kill(leader); err != nil {
		t.Fatal(err)
	}
	eventually(t, 2*time.Minute, func(ctx context.Context) error {
		n := leader%3 + 1
		answer, err := l.Client(n).Do(ctx, "POST", "totp/code/app", map[string]any{"code": shown.Code})
		if err != nil {
			return err
		}
		if answer.Status != 400 {
			return fmt.Errorf("after the leader has died, a used passcode gets %d %s", answer.Status, answer.Body)
		}
		return nil
	})
}
