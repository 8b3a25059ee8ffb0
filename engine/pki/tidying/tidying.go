// Package tidying removes what has ended: certificates, entries of revocation lists, issuers. It works in bounded steps,
// each a transaction of its own, that go on until all is done; so it never holds up anybody for long, and goes on where it
// was on whichever node leads.
package tidying

import (
	"context"
	"net/http"
	"time"

	"conclave"
	"conclave/engine/pki/stored"
)

// Names of the engine's work.
const (
	Manual = "tidy"      // the steps of a job
	Auto   = "auto-tidy" // the beginning of one at intervals
)

// options say what is removed. They are stored, and seen by clients, under the same names.
type options struct {
	CertStore    bool             `json:"tidy_cert_store" doc:"Remove certificates that have ended."`
	RevokedCerts bool             `json:"tidy_revoked_certs" doc:"Remove revoked certificates that have ended, from the revocation lists as well."`
	Associations bool             `json:"tidy_revoked_cert_issuer_associations" doc:"Nothing is to be done: who has revoked a certificate is written down as it is revoked."`
	Issuers      bool             `json:"tidy_expired_issuers" doc:"Remove issuers that have ended, but not the default one."`
	SafetyBuffer conclave.Seconds `json:"safety_buffer" doc:"How long ago something must have ended."`
	IssuerBuffer conclave.Seconds `json:"issuer_safety_buffer" doc:"How long ago an issuer must have ended."`
	Pause        string           `json:"pause_duration" doc:"Kept for clients: steps are small, and others come between them."`
}

func newOptions() options {
	return options{SafetyBuffer: 72 * 3600, IssuerBuffer: 8760 * 3600, Pause: "0s"}
}

// maxBuffer bounds both buffers.
const maxBuffer = 100 * 365 * 24 * time.Hour

func (o *options) check() error {
	if o.SafetyBuffer < 1 || o.IssuerBuffer < 1 || max(o.SafetyBuffer, o.IssuerBuffer).Duration() > maxBuffer {
		return conclave.Errorf(conclave.Invalid, "safety_buffer and issuer_safety_buffer must be greater than zero, and at most a hundred years")
	}
	if pause, err := conclave.ParseDuration(o.Pause); err != nil || pause < 0 || pause > time.Hour {
		return conclave.Errorf(conclave.Invalid, "pause_duration must be a duration of at most an hour")
	}
	return nil
}

// States of a job, as clients know them.
const (
	inactive  = "Inactive"
	running   = "Running"
	finished  = "Finished"
	cancelled = "Cancelled"
)

// job is one run, stored at tidy/job.
type job struct {
	Options  options `json:"options"`
	State    string  `json:"state"`
	Phase    int     `json:"phase"`  // index into phases
	Cursor   string  `json:"cursor"` // where the phase is
	Started  int64   `json:"started"`
	Finished int64   `json:"finished"`
	Auto     int64   `json:"auto"` // when the last one that began by itself was over
	ByItself bool    `json:"by_itself"`
	Certs    int     `json:"certs"`
	Revoked  int     `json:"revoked"`
	Issuers  int     `json:"issuers"`
}

// autoConfig is stored at config/auto-tidy.
type autoConfig struct {
	options
	Enabled  bool             `json:"enabled" doc:"Whether it is tidied by itself."`
	Interval conclave.Seconds `json:"interval_duration" doc:"How often."`
	keptForClients
}

// keptForClients are settings of what isn't here: clients such as Terraform read what they have written.
type keptForClients struct {
	Counts       bool             `json:"maintain_stored_certificate_counts" doc:"Kept for clients."`
	Metrics      bool             `json:"publish_stored_certificate_count_metrics" doc:"Kept for clients."`
	LegacyBundle bool             `json:"tidy_move_legacy_ca_bundle" doc:"Kept for clients."`
	Queue        bool             `json:"tidy_revocation_queue" doc:"Kept for clients."`
	QueueBuffer  conclave.Seconds `json:"revocation_queue_safety_buffer" doc:"Kept for clients."`
	CrossCluster bool             `json:"tidy_cross_cluster_revoked_certs" doc:"Kept for clients."`
	ACME         bool             `json:"tidy_acme" doc:"Kept for clients: what ACME has over is removed by itself."`
	ACMEBuffer   conclave.Seconds `json:"acme_account_safety_buffer" doc:"Kept for clients."`
	Metadata     bool             `json:"tidy_cert_metadata" doc:"Kept for clients."`
	Nonces       bool             `json:"tidy_cmpv2_nonce_store" doc:"Kept for clients."`
	MinBackoff   conclave.Seconds `json:"min_startup_backoff_duration" doc:"Kept for clients."`
	MaxBackoff   conclave.Seconds `json:"max_startup_backoff_duration" doc:"Kept for clients."`
}

// minInterval bounds how often a mount is tidied.
const minInterval = time.Minute

// Routes are those of tidying.
func Routes() []conclave.Route {
	return []conclave.Route{
		conclave.WriteRoute(conclave.Update, "tidy", "Remove what has ended. It begins at once, and goes on after the answer.", begin),
		conclave.WriteRoute(conclave.Update, "tidy-cancel", "Stop tidying.", cancel),
		conclave.ReadRoute(conclave.Read, "tidy-status", "Read how tidying goes.", status),
		conclave.ReadRoute(conclave.Read, "config/auto-tidy", "Read when the mount is tidied by itself.", readAuto),
		conclave.WriteRoute(conclave.Update, "config/auto-tidy", "Set when the mount is tidied by itself.", writeAuto),
	}
}

type fieldsIn struct {
	Fields map[string]any `json:"*" doc:"What is removed."`
}

const alreadyRunning = "Tidy operation already in progress."

func begin(_ context.Context, tx conclave.Tx, in *fieldsIn) (*conclave.Response, error) {
	wanted := newOptions()
	if err := conclave.Merge(&wanted, in.Fields); err != nil {
		return nil, err
	}
	if err := wanted.check(); err != nil {
		return nil, err
	}
	old, err := stored.LoadOr(tx, "tidy/job", job{State: inactive})
	if err != nil {
		return nil, err
	}
	if old.State == running {
		return &conclave.Response{Warnings: []string{alreadyRunning}, Status: http.StatusAccepted}, nil
	}
	if err := start(tx, old, wanted, false); err != nil {
		return nil, err
	}
	resp := &conclave.Response{Status: http.StatusAccepted, Warnings: []string{"Tidy operation successfully started. Read tidy-status to see how it goes."}}
	if !wanted.CertStore && !wanted.RevokedCerts && !wanted.Issuers {
		resp.Warnings = []string{"No targets to tidy; specify tidy_cert_store=true or tidy_revoked_certs=true or another target to begin a tidy operation."}
	}
	return resp, nil
}

func start(tx conclave.Tx, old *job, wanted options, byItself bool) error {
	made := &job{Options: wanted, State: running, Started: tx.Now().Unix(), Auto: old.Auto, ByItself: byItself}
	if err := stored.Put(tx, "tidy/job", made); err != nil {
		return err
	}
	return tx.Wake(Manual, tx.Now())
}

func cancel(_ context.Context, tx conclave.Tx, _ *conclave.None) (*conclave.Response, error) {
	old, err := stored.LoadOr(tx, "tidy/job", job{State: inactive})
	if err != nil {
		return nil, err
	}
	if old.State != running {
		return &conclave.Response{Warnings: []string{"Tidy operation cannot be cancelled as none is currently running."}}, nil
	}
	changed := *old
	changed.State, changed.Finished = cancelled, tx.Now().Unix()
	if err := stored.Put(tx, "tidy/job", &changed); err != nil {
		return nil, err
	}
	if err := tx.Wake(Manual, time.Time{}); err != nil {
		return nil, err
	}
	return &conclave.Response{Data: changed.show()}, nil
}

func status(_ context.Context, view conclave.View, _ *conclave.None) (*statusOut, error) {
	state, err := stored.LoadOr(view, "tidy/job", job{State: inactive, Options: newOptions()})
	if err != nil {
		return nil, err
	}
	return state.show(), nil
}

// statusOut is how clients see a job.
type statusOut struct {
	options
	State    string  `json:"state" doc:"Inactive, Running, Finished or Cancelled."`
	Error    *string `json:"error" doc:"Always null: a step that fails is tried again."`
	Message  string  `json:"message" doc:"What is being done."`
	Started  *string `json:"time_started" doc:"When it began, RFC 3339; null if it never did."`
	Finished *string `json:"time_finished" doc:"When it was over, RFC 3339; null if it isn't."`
	Certs    int     `json:"cert_store_deleted_count" doc:"Certificates that were removed."`
	Revoked  int     `json:"revoked_cert_deleted_count" doc:"Entries of revocation lists that were removed."`
	Missing  int     `json:"missing_issuer_cert_count" doc:"Always 0."`
	Issuers  int     `json:"expired_issuer_deleted_count" doc:"Issuers that were removed."`
	Auto     *string `json:"last_auto_tidy_finished" doc:"When the last one that began by itself was over, RFC 3339; null if there was none."`
}

func (j *job) show() *statusOut {
	out := &statusOut{options: j.Options, State: j.State, Started: stamp(j.Started), Finished: stamp(j.Finished), Certs: j.Certs, Revoked: j.Revoked,
		Issuers: j.Issuers, Auto: stamp(j.Auto)}
	if j.State == running {
		out.Message = phases[j.Phase].doing
	}
	return out
}

func stamp(seconds int64) *string {
	if seconds == 0 {
		return nil
	}
	text := time.Unix(seconds, 0).UTC().Format(time.RFC3339)
	return &text
}

func newAuto() autoConfig {
	return autoConfig{options: newOptions(), Interval: 12 * 3600,
		keptForClients: keptForClients{QueueBuffer: 48 * 3600, ACMEBuffer: 30 * 24 * 3600, MinBackoff: 300, MaxBackoff: 900}}
}

func readAuto(_ context.Context, view conclave.View, _ *conclave.None) (*autoConfig, error) {
	return stored.LoadOr(view, "config/auto-tidy", newAuto())
}

func writeAuto(_ context.Context, tx conclave.Tx, in *fieldsIn) (*autoConfig, error) {
	old, err := stored.LoadOr(tx, "config/auto-tidy", newAuto())
	if err != nil {
		return nil, err
	}
	config := *old
	if err := conclave.Merge(&config, in.Fields); err != nil {
		return nil, err
	}
	switch {
	case config.Interval.Duration() < minInterval || config.Interval.Duration() > maxBuffer:
		return nil, conclave.Errorf(conclave.Invalid, "interval_duration must be at least a minute")
	case config.Enabled && !config.CertStore && !config.RevokedCerts && !config.Issuers:
		return nil, conclave.Errorf(conclave.Invalid, "auto-tidy enabled but no tidy operations were requested: enable at least one, such as tidy_cert_store")
	}
	if err := config.check(); err != nil {
		return nil, err
	}
	if err := stored.Put(tx, "config/auto-tidy", &config); err != nil {
		return nil, err
	}
	at := time.Time{}
	if config.Enabled {
		at = tx.Now().Add(config.Interval.Duration())
	}
	return &config, tx.Wake(Auto, at)
}
