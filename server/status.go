package server

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"
	"time"

	"conclave"
)

// Vault is what must work while the vault is sealed. Its errors are conclave errors: a share that is not one of the
// vault's is Invalid.
type Vault interface {
	Health(ctx context.Context) Health
	SealStatus(ctx context.Context) SealStatus
	Leader() LeaderStatus
	Initialized(ctx context.Context) (bool, error)
	Init(ctx context.Context, req InitRequest) (*InitResult, error)
	Unseal(ctx context.Context, req UnsealRequest) (SealStatus, error)
	// AppliedIndex is the index of the log that this node's state has reached.
	AppliedIndex() uint64
	// WaitIndex returns when AppliedIndex is at least index, or with ctx.
	WaitIndex(ctx context.Context, index uint64) error
	// ClusterID is empty before the cluster has formed.
	ClusterID() string
}

// Health is the answer of sys/health. The vault fills what it knows, the server the rest.
type Health struct {
	Initialized bool   `json:"initialized"`
	Sealed      bool   `json:"sealed"`
	Standby     bool   `json:"standby" doc:"Another node leads. This one serves all the same."`
	ClusterName string `json:"cluster_name,omitempty"`
	ClusterID   string `json:"cluster_id,omitempty"`
	// Removed is set on a node that is no longer a member.
	Removed bool `json:"removed_from_cluster"`
	// Reachable: the node is in touch with a quorum.
	Reachable bool `json:"ha_connection_healthy"`
	// Reason says in words why the node doesn't serve; empty if it does.
	Reason string `json:"reason,omitempty"`
	// ClockSkew of this node against cluster time, and EchoDuration to the leader, in milliseconds.
	ClockSkewMillis    int64 `json:"clock_skew_ms"`
	EchoDurationMillis int64 `json:"echo_duration_ms"`
	LastHeartbeat      int64 `json:"last_request_forwarding_heartbeat_ms,omitempty"`

	PerformanceStandby bool   `json:"performance_standby"`
	PerformanceMode    string `json:"replication_performance_mode"`
	DRMode             string `json:"replication_dr_mode"`
	CanaryAgeMillis    int64  `json:"replication_primary_canary_age_ms"`
	Enterprise         bool   `json:"enterprise"`
	ServerTimeUTC      int64  `json:"server_time_utc"`
	Version            string `json:"version"`
	ConclaveVersion    string `json:"conclave_version"`
}

// SealStatus is the answer of sys/seal-status and sys/unseal. The vault fills what it knows, the server the versions.
type SealStatus struct {
	Type             string   `json:"type"`
	Initialized      bool     `json:"initialized"`
	Sealed           bool     `json:"sealed"`
	Threshold        int      `json:"t"`
	Shares           int      `json:"n"`
	Progress         int      `json:"progress"`
	Nonce            string   `json:"nonce"`
	Version          string   `json:"version"`
	ConclaveVersion  string   `json:"conclave_version"`
	BuildDate        string   `json:"build_date"`
	CommitDate       string   `json:"commit_date"`
	Migration        bool     `json:"migration"`
	ClusterName      string   `json:"cluster_name,omitempty"` // only when unsealed
	ClusterID        string   `json:"cluster_id,omitempty"`   // only when unsealed
	RecoverySeal     bool     `json:"recovery_seal"`
	RecoverySealType string   `json:"recovery_seal_type,omitempty"`
	StorageType      string   `json:"storage_type"`
	Removed          bool     `json:"removed_from_cluster"`
	Warnings         []string `json:"warnings,omitempty"`
}

// LeaderStatus is the answer of sys/leader.
type LeaderStatus struct {
	HAEnabled            bool      `json:"ha_enabled"`
	IsSelf               bool      `json:"is_self"`
	ActiveTime           time.Time `json:"active_time"`
	LeaderAddress        string    `json:"leader_address"`
	LeaderClusterAddress string    `json:"leader_cluster_address"`
	PerformanceStandby   bool      `json:"performance_standby"`
	LastRemoteWAL        uint64    `json:"performance_standby_last_remote_wal"`
	LastWAL              uint64    `json:"last_wal"`
	CommittedIndex       uint64    `json:"raft_committed_index,omitempty"`
	AppliedIndex         uint64    `json:"raft_applied_index,omitempty"`
}

// InitRequest asks for a vault to be made.
type InitRequest struct {
	Shares            int      `json:"secret_shares" doc:"Number of unseal shares."`
	Threshold         int      `json:"secret_threshold" doc:"Number of shares that open the vault."`
	PGPKeys           []string `json:"pgp_keys" doc:"Public keys, base64, one for each share, that the shares are encrypted to."`
	RootTokenPGPKey   string   `json:"root_token_pgp_key" doc:"Public key that the root token is encrypted to."`
	StoredShares      int      `json:"stored_shares"`
	RecoveryShares    int      `json:"recovery_shares" doc:"Number of recovery shares of a vault that opens by itself."`
	RecoveryThreshold int      `json:"recovery_threshold"`
	RecoveryPGPKeys   []string `json:"recovery_pgp_keys"`
}

// InitResult is what exists once, in this answer. Shares are bytes, encrypted ones as well.
type InitResult struct {
	Shares, RecoveryShares []conclave.Secret
	RootToken              conclave.Secret
	Members                []InitMember
}

// InitMember is a node that shares will be sent to, for people to compare with the machines that they started.
type InitMember struct {
	NodeID    string `json:"node_id"`
	Address   string `json:"address"`
	TLSPublic []byte `json:"tls_public"` // as the node's own log says
}

// UnsealRequest submits one share, or forgets those submitted.
type UnsealRequest struct {
	Key     conclave.Secret `json:"key" doc:"One unseal share, hex or base64."`
	Reset   bool            `json:"reset" doc:"Forget the shares submitted so far."`
	Migrate bool            `json:"migrate" doc:"The share is meant for a change of seals."`
}

// HealthQuery chooses the status codes of sys/health.
type HealthQuery struct {
	StandbyOK              *string `json:"standbyok" doc:"A standby answers with the code of the active node."`
	PerformanceStandbyOK   *string `json:"perfstandbyok" doc:"As standbyok."`
	ActiveCode             *int    `json:"activecode" doc:"Code of a node that serves; default 200."`
	StandbyCode            *int    `json:"standbycode" doc:"Code of a standby; default as activecode, 429 under health_leader_only."`
	PerformanceStandbyCode *int    `json:"performancestandbycode" doc:"As standbycode, which wins."`
	SealedCode             *int    `json:"sealedcode" doc:"Code of a sealed node; default 503."`
	UninitCode             *int    `json:"uninitcode" doc:"Code before initialisation; default 501."`
	DRSecondaryCode        *int    `json:"drsecondarycode" doc:"Accepted; no node is ever a DR secondary."`
	UnhealthyCode          *int    `json:"haunhealthycode" doc:"Code of a node that is cut off from the quorum; default 503."`
	RemovedCode            *int    `json:"removedcode" doc:"Code of a node that was removed from the cluster; default 530."`
}

type initStatus struct {
	Initialized bool `json:"initialized"`
}

type initAnswer struct {
	Keys        []string `json:"keys"`
	KeysBase64  []string `json:"keys_base64"`
	Recovery    []string `json:"recovery_keys,omitempty"`
	RecoveryB64 []string `json:"recovery_keys_base64,omitempty"`
	RootToken   string   `json:"root_token"`

	Members []InitMember `json:"members,omitempty"`
}

// statusRoutes are the operations that the server answers by itself, sealed or not, without a token and without the
// envelope. They are routes so that their documentation is found where all others' is.
func (s *Server) statusRoutes() []conclave.Route {
	return []conclave.Route{
		conclave.ReadRoute(conclave.Read, "sys/health", "Tells whether this node serves, by status code.", s.health).With(conclave.Public),
		conclave.ReadRoute(conclave.Read, "sys/seal-status", "Shows the seal and how far unsealing is.",
			func(ctx context.Context, _ conclave.View, _ *conclave.None) (*conclave.Response, error) {
				return s.sealAnswer(s.vault.SealStatus(ctx)), nil
			}).With(conclave.Public),
		conclave.ReadRoute(conclave.Read, "sys/leader", "Tells who leads the cluster.",
			func(context.Context, conclave.View, *conclave.None) (*conclave.Response, error) {
				return &conclave.Response{Data: s.vault.Leader()}, nil
			}).With(conclave.Public),
		conclave.ReadRoute(conclave.Read, "sys/init", "Tells whether the vault has been initialised.",
			func(ctx context.Context, _ conclave.View, _ *conclave.None) (*conclave.Response, error) {
				done, err := s.vault.Initialized(ctx)
				return &conclave.Response{Data: initStatus{done}}, err
			}).With(conclave.Public),
		conclave.WriteRoute(conclave.Update, "sys/init", "Initialises the vault, once. The answer is the only place where the shares ever are together.",
			func(ctx context.Context, _ conclave.Tx, in *InitRequest) (*conclave.Response, error) {
				return s.initialise(ctx, *in)
			}).With(conclave.Public),
		conclave.WriteRoute(conclave.Update, "sys/unseal", "Submits one unseal share for the whole cluster.",
			func(ctx context.Context, _ conclave.Tx, in *UnsealRequest) (*conclave.Response, error) {
				if in.Key.Empty() && !in.Reset {
					return nil, conclave.Errorf(conclave.Invalid, "'key' must be specified in request body as JSON, or 'reset' set to true")
				}
				status, err := s.vault.Unseal(ctx, *in)
				return s.sealAnswer(status), err
			}).With(conclave.Public),
	}
}

// isStatusPath reports whether the server answers path by itself.
func isStatusPath(path string) bool {
	switch strings.TrimSuffix(path, "/") {
	case "sys/health", "sys/seal-status", "sys/leader", "sys/init", "sys/unseal":
		return true
	}
	return false
}

func (s *Server) sealAnswer(status SealStatus) *conclave.Response {
	status.Version, status.ConclaveVersion = s.build.Reported, s.build.Version
	status.BuildDate, status.CommitDate = s.build.BuildDate, s.build.CommitDate
	if status.StorageType == "" {
		status.StorageType = "raft"
	}
	return &conclave.Response{Data: status}
}

func (s *Server) initialise(ctx context.Context, req InitRequest) (*conclave.Response, error) {
	made, err := s.vault.Init(ctx, req)
	if err != nil {
		return nil, err
	}
	answer := initAnswer{RootToken: made.RootToken.Reveal(), Members: made.Members}
	answer.Keys, answer.KeysBase64 = bothForms(made.Shares)
	answer.Recovery, answer.RecoveryB64 = bothForms(made.RecoveryShares)
	return &conclave.Response{Data: answer}, nil
}

func bothForms(shares []conclave.Secret) (inHex, inBase64 []string) {
	inHex, inBase64 = make([]string, len(shares)), make([]string, len(shares))
	for i, share := range shares {
		inHex[i] = hex.EncodeToString([]byte(share.Reveal()))
		inBase64[i] = base64.StdEncoding.EncodeToString([]byte(share.Reveal()))
	}
	return inHex, inBase64
}

func (s *Server) health(ctx context.Context, _ conclave.View, in *HealthQuery) (*conclave.Response, error) {
	health := s.vault.Health(ctx)
	health.Version, health.ConclaveVersion = s.build.Reported, s.build.Version
	health.PerformanceMode, health.DRMode = "disabled", "disabled"
	health.ServerTimeUTC = s.now().Unix()
	if health.Reason == "" && health.Initialized && !health.Sealed && !health.Reachable {
		health.Reason = "no contact with a quorum of the cluster"
	}
	code, err := in.code(health, s.healthLeaderOnly)
	return &conclave.Response{Data: health, Status: code}, err
}

// code is the status for a node in this state: the client's, or the default.
func (q *HealthQuery) code(health Health, leaderOnly bool) (int, error) {
	for _, code := range []*int{q.ActiveCode, q.StandbyCode, q.PerformanceStandbyCode, q.SealedCode, q.UninitCode,
		q.DRSecondaryCode, q.UnhealthyCode, q.RemovedCode} {
		if code != nil && (*code < 200 || *code > 599) {
			return 0, conclave.Errorf(conclave.Invalid, "a status code must be from 200 to 599")
		}
	}
	standbyOK, err := anyTrue(q.StandbyOK, q.PerformanceStandbyOK)
	if err != nil {
		return 0, err
	}
	first := func(otherwise int, choices ...*int) int {
		for _, code := range choices {
			if code != nil {
				return *code
			}
		}
		return otherwise
	}
	active := first(http.StatusOK, q.ActiveCode)
	switch {
	case !health.Initialized:
		return first(http.StatusNotImplemented, q.UninitCode), nil
	case health.Removed:
		return first(530, q.RemovedCode), nil
	case health.Sealed:
		return first(http.StatusServiceUnavailable, q.SealedCode), nil
	case !health.Reachable:
		return first(http.StatusServiceUnavailable, q.UnhealthyCode), nil
	case !health.Standby || standbyOK:
		return active, nil
	case leaderOnly:
		active = http.StatusTooManyRequests
	}
	return first(active, q.StandbyCode, q.PerformanceStandbyCode), nil
}

// anyTrue reports whether one of the flags is set; one without a value is.
func anyTrue(flags ...*string) (bool, error) {
	result := false
	for _, text := range flags {
		if text == nil {
			continue
		}
		set, err := strconv.ParseBool(*text)
		if err != nil && *text != "" {
			return false, conclave.Errorf(conclave.Invalid, "standbyok must be true or false")
		}
		result = result || set || *text == ""
	}
	return result, nil
}
