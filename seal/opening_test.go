package seal

import (
	"context"
	"crypto/rand"
	"testing"
)

func TestNodeThatStartsWaitsForItsSeal(t *testing.T) {
	v, _ := newVault(t)
	known := make(chan bool)
	go func() { // ends when the vault is initialised
		v.AwaitSeal(context.Background())
		status, err := v.Status()
		known <- err == nil && status.Initialized
	}()
	initVault(t, v, 1, 1)
	if !<-known {
		t.Error("AwaitSeal returned before the seal was known")
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	other, _ := newVault(t)
	other.AwaitSeal(ended)
	other.KeepOpening(ended, true)
	if !other.Sealed() {
		t.Error("a vault that isn't initialised is open")
	}
}

func TestNodeOpensByItsKeyOnceItKnowsTheSeal(t *testing.T) {
	v, _ := newVault(t)
	v.StaticKey = make([]byte, 32)
	rand.Read(v.StaticKey)
	opened := make(chan struct{})
	go func() { // ends when the vault is open
		defer close(opened)
		v.KeepOpening(context.Background(), true)
	}()
	if _, err := v.Init(t.Context(), InitRequest{Shares: 1, Threshold: 1}); err != nil {
		t.Fatal(err)
	}
	<-opened
	if v.Sealed() {
		t.Error("KeepOpening has left a node that is sealed")
	}
}
