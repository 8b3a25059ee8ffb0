package main

import (
	"context"
	"encoding/hex"

	"conclave"
	"conclave/seal"
	"conclave/server"
)

// vaultStatus answers what must work while the vault is sealed.
type vaultStatus struct{ d *daemon }

var _ server.Vault = (*vaultStatus)(nil)

// Health says whether this node serves, and why not.
func (v *vaultStatus) Health(context.Context) server.Health {
	status, err := v.status()
	health := server.Health{Initialized: status.Initialized, Sealed: status.Sealed, Standby: !v.d.cluster.IsLeader(),
		ClusterName: v.d.settings.ClusterName, ClusterID: v.ClusterID(), Reachable: v.d.cluster.InQuorum(),
		Removed: v.d.cluster.Removed()}
	switch {
	case err != nil:
		health.Reason = "the seal can't be read"
		v.d.log.Error("the seal can't be read", "error", err)
	case health.Removed:
		health.Reason = "this node was removed from the cluster"
	case v.d.cluster.Refused() != nil:
		health.Reason, health.Reachable = v.d.cluster.Refused().Error(), false
	case !status.Initialized:
		health.Reason = "not initialized"
	case status.Sealed:
		health.Reason = "sealed"
	case !health.Reachable:
		health.Reason = "not in touch with a quorum of the cluster"
	}
	return health
}

// SealStatus is the state of the seal on this node.
func (v *vaultStatus) SealStatus(context.Context) server.SealStatus {
	status, err := v.status()
	if err != nil {
		v.d.log.Error("the seal can't be read", "error", err)
	}
	return v.sealStatus(status)
}

func (v *vaultStatus) sealStatus(status seal.Status) server.SealStatus {
	s := server.SealStatus{Type: status.Kind, Initialized: status.Initialized, Sealed: status.Sealed,
		Threshold: status.Threshold, Shares: status.Shares, Progress: status.Progress, Nonce: status.Nonce,
		StorageType: "raft", Removed: v.d.cluster.Removed()}
	if status.Kind != "shamir" {
		s.RecoverySeal, s.RecoverySealType = true, "shamir"
	}
	if !status.Sealed {
		s.ClusterName, s.ClusterID = v.d.settings.ClusterName, v.ClusterID()
	}
	return s
}

// Leader says who orders transactions. Every open node serves.
func (v *vaultStatus) Leader() server.LeaderStatus {
	progress := v.d.cluster.Progress()
	status := server.LeaderStatus{HAEnabled: true, IsSelf: v.d.cluster.IsLeader(), CommittedIndex: progress.Commit, AppliedIndex: v.d.state.Applied()}
	if leader, ok := v.d.cluster.Leader(); ok {
		status.LeaderAddress = leader.APIAddress
		if leader.Address != "" {
			status.LeaderClusterAddress = "https://" + leader.Address
		}
	}
	return status
}

// Initialized reports whether there is a vault.
func (v *vaultStatus) Initialized(context.Context) (bool, error) {
	status, err := v.status()
	return status.Initialized, err
}

// status is the seal's, as far as this node has applied the log. A node that has just started applies none before it
// hears a leader, but if it has a signed list of members there is a vault: it must not be taken for an empty one.
func (v *vaultStatus) status() (seal.Status, error) {
	status, err := v.d.vault.Status()
	status.Initialized = status.Initialized || v.d.cluster.MembersSigned()
	return status, err
}

// Init makes the vault.
func (v *vaultStatus) Init(ctx context.Context, req server.InitRequest) (*server.InitResult, error) {
	request, asRecovery, err := sealRequest(req, v.d.vault.StaticKey != nil)
	if err != nil {
		return nil, err
	}
	result, err := v.d.vault.Init(ctx, request)
	if err != nil {
		return nil, err
	}
	answer := &server.InitResult{RootToken: conclave.NewSecret(result.RootToken)}
	for _, m := range result.Members {
		answer.Members = append(answer.Members, server.InitMember{NodeID: m.NodeID, Address: m.Address, TLSPublic: m.TLSPublic})
	}
	for _, key := range result.Keys {
		raw, err := hex.DecodeString(key)
		if err != nil {
			return nil, err
		}
		if asRecovery {
			answer.RecoveryShares = append(answer.RecoveryShares, conclave.NewSecret(string(raw)))
		} else {
			answer.Shares = append(answer.Shares, conclave.NewSecret(string(raw)))
		}
	}
	return answer, nil
}

// Shares of a vault whose init names none, as Vault's.
const (
	defaultShares    = 5
	defaultThreshold = 3
)

// sealRequest is what an init means to the seal, and whether its shares are recovery shares: those of a vault that opens
// by itself, which open it when it can't. A number that would have no effect is refused, as by Vault; a vault that opens
// by itself takes its number by either name.
func sealRequest(req server.InitRequest, auto bool) (request seal.InitRequest, asRecovery bool, err error) {
	named := req.Shares != 0 || req.Threshold != 0 || len(req.PGPKeys) > 0
	recovery := req.RecoveryShares != 0 || req.RecoveryThreshold != 0 || len(req.RecoveryPGPKeys) > 0
	switch {
	case recovery && !auto:
		return request, false, conclave.Errorf(conclave.Invalid, "parameters recovery_shares, recovery_threshold and recovery_pgp_keys are not applicable to seal type shamir")
	case recovery && named:
		return request, false, conclave.Errorf(conclave.Invalid, "parameters secret_shares, secret_threshold and pgp_keys are not applicable beside recovery_shares")
	}
	asRecovery = auto && !named
	request = seal.InitRequest{Shares: req.Shares, Threshold: req.Threshold, PGPKeys: req.PGPKeys, RootTokenPGPKey: req.RootTokenPGPKey}
	if asRecovery {
		request.Shares, request.Threshold, request.PGPKeys = req.RecoveryShares, req.RecoveryThreshold, req.RecoveryPGPKeys
	}
	if request.Shares == 0 && request.Threshold == 0 {
		request.Shares, request.Threshold = defaultShares, defaultThreshold
	}
	return request, asRecovery, nil
}

// Unseal takes one share.
func (v *vaultStatus) Unseal(ctx context.Context, req server.UnsealRequest) (server.SealStatus, error) {
	if req.Migrate {
		return server.SealStatus{}, conclave.Errorf(conclave.Invalid, "there is no other seal to migrate to")
	}
	var status seal.Status
	var err error
	if req.Reset {
		status, err = v.d.vault.Reset(ctx)
	} else {
		var share []byte
		if share, err = seal.DecodeShare(req.Key); err == nil {
			if v.d.cluster.MembersSigned() {
				v.d.vault.AwaitSeal(ctx)
			}
			status, err = v.d.vault.Submit(ctx, share)
		}
		if known, _ := v.d.vault.Status(); err != nil && !known.Initialized && v.d.cluster.MembersSigned() {
			err = conclave.Errorf(conclave.Unavailable, "this node doesn't know the seal yet: it has not heard from a majority of the cluster since it started")
		}
	}
	if err != nil {
		return server.SealStatus{}, err
	}
	return v.sealStatus(status), nil
}

// AppliedIndex is the index that this node's state has reached.
func (v *vaultStatus) AppliedIndex() uint64 { return v.d.state.Applied() }

// WaitIndex waits for this node's state to reach index.
func (v *vaultStatus) WaitIndex(ctx context.Context, index uint64) error {
	return v.d.state.WaitApplied(ctx, index)
}

// ClusterID is empty before the cluster has formed.
func (v *vaultStatus) ClusterID() string { return v.d.cluster.ClusterID() }
