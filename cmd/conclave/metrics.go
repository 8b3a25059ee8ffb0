package main

import (
	"context"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"conclave"
	"conclave/fsm"
	"conclave/gap"
)

// metrics collects what a node tells of itself, under Vault's names where the meaning is the same.
type metrics struct {
	registry *prometheus.Registry
	commits  *prometheus.HistogramVec
}

func newMetrics() *metrics {
	m := &metrics{registry: prometheus.NewRegistry(), commits: prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "conclave_commit_seconds", Help: "Time from proposing a transaction to its verdict, by outcome.",
		Buckets: prometheus.ExponentialBuckets(0.00025, 2, 16)}, []string{"outcome"})}
	m.registry.MustRegister(m.commits, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Committed is told of each commit as it is answered.
func (m *metrics) Committed(verdict fsm.Verdict, err error, took time.Duration) {
	outcome := "failed"
	if err == nil {
		switch verdict {
		case fsm.Committed:
			outcome = "committed"
		case fsm.Refused:
			outcome = "refused"
		default:
			outcome = "conflict"
		}
	}
	m.commits.WithLabelValues(outcome).Observe(took.Seconds())
}

// handler serves the metrics in Prometheus' text format.
func (m *metrics) handler(d *daemon) http.Handler {
	for _, class := range gap.Classes() {
		m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "conclave_unrecorded_answers_total",
			Help: "Answers that left without an audit record of their own, by why; gap records count them.", ConstLabels: prometheus.Labels{"class": class.String()}},
			func() float64 { return float64(d.gaps.Total(class)) }))
	}
	for _, s := range series {
		read := s.read
		switch s.counter {
		case true:
			m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: s.name, Help: s.help},
				func() float64 { return read(d) }))
		default:
			m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: s.name, Help: s.help},
				func() float64 { return read(d) }))
		}
	}
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 10 * time.Second})
}

// authorizeMetrics runs the request through the pipeline: reading sys/metrics is a request like others.
func (d *daemon) authorizeMetrics(ctx context.Context, req *conclave.Request) error {
	_, err := d.pipeline.Handle(ctx, req)
	return err
}

// metricsRoute is what the pipeline authorises and records for a scrape; the server then writes the metrics.
func metricsRoute() conclave.Route {
	return conclave.ReadRoute(conclave.Read, "metrics", "Metrics in Prometheus' text format.",
		func(context.Context, conclave.View, *conclave.None) (*conclave.None, error) { return nil, nil })
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// series are the gauges and counters that are read when they are asked for.
var series = []struct {
	name, help string
	counter    bool
	read       func(*daemon) float64
}{
	{"vault_core_unsealed", "1 if this node is open.", false, func(d *daemon) float64 { return truth(!d.vault.Sealed()) }},
	{"vault_core_active", "1 if this node orders transactions.", false, func(d *daemon) float64 { return truth(d.cluster.IsLeader()) }},
	{"vault_core_in_flight_requests", "Requests that are being executed.", false, func(d *daemon) float64 { return float64(d.gate.Inside()) }},
	{"conclave_quorum", "1 if this node is in touch with a quorum.", false, func(d *daemon) float64 { return truth(d.cluster.InQuorum()) }},
	{"conclave_members", "Members of the cluster.", false, func(d *daemon) float64 { return float64(len(d.cluster.Members())) }},
	{"conclave_requests_total", "Requests executed by this node.", true, func(d *daemon) float64 { return float64(d.pipeline.Counters().Requests.Load()) }},
	{"conclave_request_conflicts_total", "Attempts that ran again because what they read had changed.", true, func(d *daemon) float64 { return float64(d.pipeline.Counters().Conflicts.Load()) }},
	{"conclave_requests_denied_total", "Requests that policy or authentication refused.", true, func(d *daemon) float64 { return float64(d.pipeline.Counters().Denied.Load()) }},
	{"conclave_requests_failed_total", "Requests that ended in another error.", true, func(d *daemon) float64 { return float64(d.pipeline.Counters().Failed.Load()) }},
	{"conclave_handler_panics_total", "Handlers that panicked; each is a defect.", true, func(d *daemon) float64 { return float64(d.pipeline.Counters().Panics.Load()) }},
	{"vault_quota_rate_limit_violation", "Requests that this node refused because of rate limits.", true, func(d *daemon) float64 { return float64(d.quotas.limiter.Refused()) }},
	{"vault_quota_lease_count_violation", "Leases that this node didn't give because of lease counts.", true, func(d *daemon) float64 { return float64(d.pipeline.Counters().Unleased.Load()) }},
	{"conclave_event_subscribers", "Subscriptions to events that are open on this node.", false, func(d *daemon) float64 { return float64(d.events.Counters().Subscribers.Load()) }},
	{"conclave_events_sent_total", "Events that this node sent to subscribers.", true, func(d *daemon) float64 { return float64(d.events.Counters().Sent.Load()) }},
	{"conclave_event_subscriptions_refused_total", "Subscriptions that this node refused because there were too many.", true, func(d *daemon) float64 { return float64(d.events.Counters().Refused.Load()) }},
	{"conclave_event_subscriptions_cut_total", "Subscriptions that this node ended, each with a cursor to go on from.", true, func(d *daemon) float64 { return float64(d.events.Counters().Cut.Load()) }},
	{"conclave_webhook_events_total", "Events that this node, while it led, delivered to webhooks.", true, func(d *daemon) float64 { return float64(d.events.Webhooks.Counters().Sent.Load()) }},
	{"conclave_webhook_failures_total", "Attempts at a delivery that failed.", true, func(d *daemon) float64 { return float64(d.events.Webhooks.Counters().Failures.Load()) }},
	{"conclave_webhooks_failing", "Webhooks to which nothing gets through.", false, func(d *daemon) float64 { return float64(d.events.Webhooks.Counters().Failing.Load()) }},
	{"vault_raft_applied_index", "Index of the log that this node's state has reached.", false, func(d *daemon) float64 { return float64(d.state.Applied()) }},
	{"conclave_cluster_time_seconds", "Cluster time as this node knows it, as a Unix time.", false, func(d *daemon) float64 { return float64(d.cluster.Now().UnixNano()) / 1e9 }},
	{"conclave_commit_batches_total", "Batches of transactions that this node sent.", true, func(d *daemon) float64 { return float64(d.cluster.Stats().Batches) }},
	{"conclave_commit_forwarded_total", "Of these, sent to another node.", true, func(d *daemon) float64 { return float64(d.cluster.Stats().Forwarded) }},
	{"conclave_commit_unsure_total", "Sendings whose fate had to be found out.", true, func(d *daemon) float64 { return float64(d.cluster.Stats().Unsure) }},
	{"conclave_raft_entries_total", "Entries that this node proposed as leader.", true, func(d *daemon) float64 { return float64(d.cluster.Stats().Entries) }},
	{"conclave_audit_gap_records_total", "Records of how many answers left without one, committed by this node.", true, func(d *daemon) float64 { return float64(d.gaps.Recorded()) }},
	{"conclave_audit_records_total", "Records in the replicated audit log.", true, func(d *daemon) float64 { return float64(d.state.Stats().AuditRecords) }},
	{"conclave_audit_bytes", "Bytes of the replicated audit log on this node.", false, func(d *daemon) float64 { return float64(d.state.Stats().AuditBytes) }},
	{"conclave_audit_max_bytes", "Bytes of the replicated audit log from which on requests are refused.", false, func(d *daemon) float64 { return float64(d.state.Audit().Capacity()) }},
	{"conclave_audit_epoch", "Number of the audit log's epoch.", false, func(d *daemon) float64 { return float64(d.state.Audit().Shown().Epoch) }},
	{"conclave_state_bytes", "Bytes of the state on this node's disk.", false, func(d *daemon) float64 { return float64(d.state.Stats().StateBytes) }},
	{"conclave_state_compared_index", "Index of the log as of which the nodes' states were compared last.", false, func(d *daemon) float64 { return float64(d.cluster.Agreement().Index) }},
	{"conclave_state_differs", "1 if this node stopped serving because its state differs from that of a majority.", false, func(d *daemon) float64 { return truth(d.cluster.Refused() != nil) }},
	{"conclave_state_nodes_differing", "Voters whose state differs from that of a majority, as this node knows.", false, func(d *daemon) float64 { return float64(d.cluster.Agreement().Differing()) }},
	{"conclave_state_snapshots_total", "Snapshots made by this node.", true, func(d *daemon) float64 { return float64(d.state.Stats().Snapshots) }},
}
