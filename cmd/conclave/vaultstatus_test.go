package main

import (
	"testing"

	"conclave"
	"conclave/seal"
	"conclave/server"
)

func TestSharesOfAVaultThatOpensByItself(t *testing.T) {
	for name, tc := range map[string]struct {
		request    server.InitRequest
		auto       bool
		want       seal.InitRequest
		asRecovery bool
	}{
		"shares":             {server.InitRequest{Shares: 2, Threshold: 2}, false, seal.InitRequest{Shares: 2, Threshold: 2}, false},
		"none named":         {server.InitRequest{}, false, seal.InitRequest{Shares: 5, Threshold: 3}, false},
		"recovery shares":    {server.InitRequest{RecoveryShares: 3, RecoveryThreshold: 2}, true, seal.InitRequest{Shares: 3, Threshold: 2}, true},
		"no recovery named":  {server.InitRequest{RootTokenPGPKey: "k"}, true, seal.InitRequest{Shares: 5, Threshold: 3, RootTokenPGPKey: "k"}, true},
		"by the other name":  {server.InitRequest{Shares: 1, Threshold: 1}, true, seal.InitRequest{Shares: 1, Threshold: 1}, false},
		"half of the number": {server.InitRequest{RecoveryShares: 1}, true, seal.InitRequest{Shares: 1}, true}, // which the seal refuses
	} {
		got, asRecovery, err := sealRequest(tc.request, tc.auto)
		if err != nil || got.Shares != tc.want.Shares || got.Threshold != tc.want.Threshold || got.RootTokenPGPKey != tc.want.RootTokenPGPKey || asRecovery != tc.asRecovery {
			t.Errorf("%s: %+v, %t, %v, want %+v, %t", name, got, asRecovery, err, tc.want, tc.asRecovery)
		}
	}
	for name, request := range map[string]server.InitRequest{
		"recovery shares":     {RecoveryShares: 3, RecoveryThreshold: 2},
		"beside others":       {Shares: 5, Threshold: 3, RecoveryShares: 3, RecoveryThreshold: 2},
		"their keys":          {Shares: 1, Threshold: 1, RecoveryPGPKeys: []string{"k"}},
		"their threshold":     {RecoveryThreshold: 1},
		"shares by two names": {Shares: 1, RecoveryShares: 1},
	} {
		if got, _, err := sealRequest(request, false); !conclave.Is(err, conclave.Invalid) {
			t.Errorf("%s of a vault that its shares open: %+v, %v, want refused", name, got, err)
		}
	}
	if got, _, err := sealRequest(server.InitRequest{Shares: 1, RecoveryShares: 1}, true); !conclave.Is(err, conclave.Invalid) {
		t.Errorf("shares by two names: %+v, %v, want refused", got, err)
	}
}
