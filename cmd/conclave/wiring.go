package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sync/errgroup"

	"conclave"
	"conclave/access"
	"conclave/audit"
	"conclave/cluster"
	"conclave/cmd/conclave/feed"
	"conclave/engine/rotate"
	"conclave/event"
	"conclave/fsm"
	"conclave/gap"
	"conclave/lockout"
	"conclave/mount"
	"conclave/namespace"
	"conclave/passwordpolicy"
	"conclave/pipeline"
	"conclave/policy"
	"conclave/quota"
	"conclave/revoke"
	"conclave/seal"
	"conclave/server"
	"conclave/server/config"
	"conclave/store"
	"conclave/token"
	"conclave/worker"
)

// daemon is one running node: its parts, in the order in which they are started. It is stopped in reverse.
type daemon struct {
	settings *config.Config
	log      hclog.Logger

	occupancy *occupancy // of the data directory

	state    *fsm.FSM
	cluster  *cluster.Node
	store    *store.Store
	vault    *seal.Vault
	pipeline *pipeline.Pipeline
	reaper   *revoke.Reaper
	worker   *worker.Runner
	recorder *pipeline.Recorder
	gaps     *gap.Count
	events   *event.Service
	folders  *audit.Folders
	rotation rotate.Settings
	server   *server.Server
	metrics  *metrics
	gate     *pipeline.Gate
	devices  deviceSet
	quotas   *quotas
	sealed   chan struct{} // closed when the vault was sealed and the process is to be replaced
}

// founding is what a new vault starts with, beyond what every vault has.
type founding func(tx conclave.System) error

// startDaemon wires a node. From here on it takes part in the cluster; it serves when run is called.
func startDaemon(ctx context.Context, settings *config.Config, found founding, log hclog.Logger) (_ *daemon, err error) {
	d := &daemon{settings: settings, log: log, sealed: make(chan struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.stop())
		}
	}()

	if d.occupancy, err = occupy(ctx, settings.Storage.Path, moveOut); err != nil {
		return nil, err
	}
	// The state comes first: Raft replays into it.
	if d.state, err = fsm.Open(fsm.Options{Dir: settings.Storage.Path, AuditCapacity: settings.Audit.MaxSize,
		Logger: log.Named("state"), Fatal: d.fatal}); err != nil {
		return nil, fmt.Errorf("open state in %s: %w", settings.Storage.Path, err)
	}
	hpke, err := loadHPKE(filepath.Join(settings.Storage.Path, hpkeFile))
	if err != nil {
		return nil, err
	}
	d.metrics = newMetrics()
	clusterConfig, err := d.clusterConfig(hpke.public)
	if err != nil {
		return nil, err
	}
	if d.cluster, err = cluster.Start(ctx, clusterConfig, d.state); err != nil {
		return nil, fmt.Errorf("start the cluster's node: %w", err)
	}

	// Transactions run on the state and are judged by the cluster.
	d.store = store.New(d.state, d.cluster, d.cluster.Now)
	d.gate = &pipeline.Gate{}
	staticKey, err := staticSealKey(settings.Seal)
	if err != nil {
		return nil, err
	}
	d.vault, err = seal.New(seal.Config{
		Store: d.store, State: d.state, Node: d.cluster, Gate: d.gate,
		HPKEPrivate: hpke.private, StaticKey: staticKey, MinVoters: settings.Cluster.BootstrapExpect,
		ClusterID: d.clusterID, Found: func(tx conclave.System) error { return foundVault(tx, found) },
		Closed: func() { close(d.sealed) }, Logger: log.Named("seal"),
	})
	if err != nil {
		return nil, err
	}
	if d.folders, err = audit.NewFolders(settings.AuditDirectories); err != nil {
		return nil, err
	}
	if d.rotation, err = rotate.Allow(settings.CommandDirectories); err != nil {
		return nil, err
	}
	d.cluster.Handle(callWritten, d.answerWritten)
	d.quotas = newQuotas(d)
	d.recorder = pipeline.NewRecorder(d.cluster.Self().NodeID)
	d.store.RecordOwn(d.recorder)
	d.gaps = gap.New(time.Now)
	d.events = feed.New(feed.Node{Records: auditSource{d}, Opener: d.openerAt, Store: d.store, InQuorum: d.cluster.InQuorum, Now: d.cluster.Now,
		Standing: func(tx *store.Tx, req *conclave.Request) (*policy.Grant, conclave.Namespace, error) {
			return d.pipeline.Standing(tx, req)
		},
		Source: func() string { return "conclave://" + d.cluster.ClusterID() }, Logger: log.Named("events")})
	policies := policy.NewCache()
	questions := access.New(policies, auditRecords{d}, mountRoles{d})
	d.reaper = revoke.New(revoke.Config{Store: d.store, Engines: engines{d}, Logger: log.Named("leases")})
	d.worker = worker.New(worker.Config{Store: d.store, Engines: engines{d}, Logger: log.Named("work")})
	d.pipeline = pipeline.New(d.requests(policies, questions))
	d.server, err = server.New(server.Config{
		Handler: d.pipeline, Vault: &vaultStatus{d}, Build: d.build(), Logger: log.Named("server"),
		Limits: server.Limits{Duration: settings.MaxRequestDuration}, HealthLeaderOnly: settings.HealthLeaderOnly, Metrics: d.metrics.handler(d), AuthorizeMetrics: d.authorizeMetrics,
		Admit: d.quotas.admit, Unread: d.countUnread, Ceremony: func() { d.gaps.Note(gap.Ceremony) },
	})
	return d, err
}

// requests is what requests are executed with.
func (d *daemon) requests(policies *policy.Cache, questions *access.Service) pipeline.Config {
	return pipeline.Config{
		Store: d.store, Recorder: d.recorder, Gate: d.gate, Policies: policies, Plugins: plugins(d.rotation),
		System:   d.systemRoutes(questions),
		Identity: identityRoutes(questions), Random: rand.Reader, Envelope: server.Envelope,
		Token:      func(logins token.Logins) []conclave.Route { return token.Routes(questions, logins, rand.Reader) },
		DefaultTTL: d.settings.DefaultLeaseTTL, MaxTTL: d.settings.MaxLeaseTTL, Logins: d.quotas.limiter, Gaps: d.gaps, Logger: d.log.Named("request"),
	}
}

// systemRoutes are all routes of sys/, each from the package that it is about.
func (d *daemon) systemRoutes(questions *access.Service) []conclave.Route {
	var routes []conclave.Route
	routes = append(routes, policy.Routes()...)
	routes = append(routes, passwordpolicy.Routes()...)
	routes = append(routes, mount.Routes(mount.Setup{Plugins: mountable{d.rotation}, Access: questions, Random: rand.Reader, Namespaces: namespaceAt, Close: closeMount,
		Defaults: mount.Defaults{DefaultTTL: d.settings.DefaultLeaseTTL, MaxTTL: d.settings.MaxLeaseTTL}})...)
	routes = append(routes, namespace.Routes(namespaceSetup())...)
	routes = append(routes, lockout.Routes(lockout.Setup{Settings: pipeline.LockoutSettings})...)
	routes = append(routes, questions.Routes()...)
	routes = append(routes, d.leaseRoutes()...)
	routes = append(routes, d.events.Routes()...)
	return append(routes, d.clusterRoutes()...)
}

// clusterRoutes are those routes of sys/ that only the root namespace has.
func (d *daemon) clusterRoutes() []conclave.Route {
	routes := d.vault.Routes()
	routes = append(routes, audit.Routes(d.folders, d.auditHash)...)
	routes = append(routes, d.cluster.Routes()...)
	routes = append(routes, d.auditLogRoutes()...)
	routes = append(routes, d.epochRoutes()...)
	routes = append(routes, quota.Routes(quota.Setup{Locate: locateQuota})...)
	routes = append(routes, metricsRoute(), hostInfoRoute())
	for i := range routes {
		routes[i].Cluster = true
	}
	return routes
}

// foundVault fills the system space of a new vault.
func foundVault(tx conclave.System, more founding) error {
	if err := mount.Initial(tx, rand.Reader); err != nil {
		return err
	}
	if more == nil {
		return nil
	}
	return more(tx)
}

func (d *daemon) build() server.Build {
	return server.Build{Reported: d.settings.VersionReported, Version: version}
}

// clusterID is the random id of the cluster in the form that ciphertexts are bound to.
func (d *daemon) clusterID() (id [16]byte) {
	raw, err := hex.DecodeString(d.cluster.ClusterID())
	if err == nil {
		copy(id[:], raw)
	}
	return id
}

// run serves until ctx ends or a part fails. errSealed says that the vault was sealed: the process is to be replaced.
func (d *daemon) run(ctx context.Context, listeners []*server.Listener, keepSealed bool) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return d.server.Serve(ctx, listeners...) })
	group.Go(func() error { return d.followDevices(ctx) })
	group.Go(func() error { return d.followGaps(ctx) })
	group.Go(func() error { return d.events.Stream.Run(ctx) })
	group.Go(func() error { return d.quotas.follow(ctx) })
	group.Go(func() error { return d.quotas.limiter.Run(ctx) })
	defer d.closeGaps()
	group.Go(func() error { d.vault.KeepOpening(ctx, !keepSealed); return nil })
	group.Go(func() error {
		select {
		case <-d.sealed:
			// Whoever asked for it, a client or another node, gets an answer before this process is replaced.
			time.Sleep(lastAnswers)
			return errSealed
		case <-ctx.Done():
			return nil
		}
	})
	d.cluster.WhileLeader("re-encryption", d.vault.Reencrypt)
	d.cluster.WhileLeader("expiry", d.expireTokens)
	d.cluster.WhileLeader("leases", d.reaper.Run)
	d.cluster.WhileLeader("lease warnings", d.reaper.Warn)
	d.cluster.WhileLeader("webhooks", d.events.Webhooks.Run)
	d.cluster.WhileLeader("work", d.worker.Run)
	d.cluster.WhileLeader("members", d.signMembers)
	d.cluster.WhileLeader("audit epochs", d.keepEpochsShort)
	d.cluster.WhileLeader("audit keys", d.dropAuditKeys)
	d.cluster.WhileLeader("rate limits", d.quotas.ledger.Lead)
	d.cluster.WhileLeader("lease counts", d.quotas.returnPlaces)
	return group.Wait()
}

// lastAnswers is how long a sealed process stays to finish its answers. It holds no key by then.
const lastAnswers = 250 * time.Millisecond

var errSealed = errors.New("the vault was sealed")

// stop ends all parts, last started first. Parts that were never started are passed over.
func (d *daemon) stop() error {
	var errs []error
	if d.vault != nil {
		d.recorderForget()
		errs = append(errs, d.vault.Close())
	}
	if d.state != nil {
		d.state.StopWaiting() // or a full disk would keep Raft from stopping
	}
	if d.cluster != nil {
		errs = append(errs, d.cluster.Shutdown())
	}
	if d.state != nil {
		errs = append(errs, d.state.Close())
	}
	if d.occupancy != nil {
		errs = append(errs, d.occupancy.leave())
	}
	return errors.Join(errs...)
}

func (d *daemon) recorderForget() {
	if d.recorder != nil {
		d.recorder.Forget()
	}
}

// clusterConfig is what the settings mean for the cluster's node.
func (d *daemon) clusterConfig(hpkePublic []byte) (cluster.Config, error) {
	s := d.settings
	secret, err := clusterSecret(s.Cluster.SecretFile, s.Storage.Path)
	if err != nil {
		return cluster.Config{}, err
	}
	logStore := s.Storage.LogStore
	if logStore == "boltdb" {
		logStore = "bolt"
	}
	return cluster.Config{
		NodeID: s.Storage.NodeID, DataDir: s.Storage.Path,
		ClusterAddress: s.ClusterListen(), AdvertiseAddress: s.ClusterAddr,
		GossipAddress: s.Cluster.GossipAddr, APIAddress: s.APIAddr, Join: s.Cluster.Join, Secret: secret,
		BootstrapExpect: s.Cluster.BootstrapExpect, AdmitToken: s.Cluster.AdmitToken, Version: version, LogStore: logStore,
		HPKEPublic: hpkePublic, CertificateFile: s.Cluster.TLSCertFile, KeyFile: s.Cluster.TLSKeyFile, CAFile: s.Cluster.TLSCAFile,
		Logger: d.log.Named("cluster"), Observer: d.metrics,
		Fatal: d.fatal,
	}, nil
}

// fatal ends the process.
func (d *daemon) fatal(err error) {
	d.log.Error("this node can't go on without risking what it acknowledged", "error", err)
	os.Exit(exitFatal)
}

// exitFatal is the exit code of a node that stops rather than risk what it acknowledged.
const exitFatal = 3
