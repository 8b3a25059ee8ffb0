package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	systemd "github.com/coreos/go-systemd/v22/daemon"
	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"
	_ "golang.org/x/crypto/x509roots/fallback" // roots of public CAs, for images that have none

	"conclave/crypto"
	"conclave/server"
	"conclave/server/config"
)

// keepSealedVariable tells a process that replaced another, because the vault was sealed, not to open it by itself.
const keepSealedVariable = "CONCLAVE_KEEP_SEALED"

// serverOptions are the flags of `conclave server`.
type serverOptions struct {
	configs []string
	dev     devOptions
}

func newServerCommand() *cobra.Command {
	var options serverOptions
	command := &cobra.Command{
		Use:   "server",
		Short: "Run a node of the vault",
		Long: `Run a node of the vault.

A configuration is one file or several, HCL or JSON, or directories of them:

  conclave server -config /etc/conclave/conclave.hcl

To try it out, one node that is open at once and forgets everything when it ends:

  conclave server -dev`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			command.SilenceUsage = true
			return runServer(command.Context(), options)
		},
	}
	flags := command.Flags()
	flags.StringArrayVar(&options.configs, "config", nil, "configuration `file` or directory; may be repeated")
	flags.BoolVar(&options.dev.enabled, "dev", false, "one node, opened, in memory-like temporary storage: for trying out only")
	flags.StringVar(&options.dev.rootToken, "dev-root-token-id", "", "the root token of -dev; default: a new one")
	flags.StringVar(&options.dev.address, "dev-listen-address", "127.0.0.1:8200", "where -dev serves, without TLS")
	return command
}

func runServer(ctx context.Context, options serverOptions) error {
	if err := crypto.Harden(); err != nil {
		return fmt.Errorf("keep memory out of core dumps: %w", err)
	}
	ctx, stopSignals := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stopSignals()
	if options.dev.enabled {
		return runDev(ctx, options)
	}
	settings, warnings, err := config.Load(options.configs, os.LookupEnv)
	if err != nil {
		return err
	}
	log := newLogger(settings)
	for _, warning := range warnings {
		log.Warn("configuration", "setting", warning.String())
	}
	keepSealed := os.Getenv(keepSealedVariable) != ""
	if err := os.Unsetenv(keepSealedVariable); err != nil {
		return err
	}
	err = serve(ctx, settings, options, log, keepSealed)
	if errors.Is(err, errSealed) {
		return replaceProcess(log)
	}
	return err
}

// serve runs one node from start to stop.
func serve(ctx context.Context, settings *config.Config, options serverOptions, log hclog.Logger, keepSealed bool) error {
	listeners, err := listen(settings)
	if err != nil {
		return err
	}
	d, err := startDaemon(ctx, settings, nil, log)
	if err != nil {
		return err
	}
	log.Info("conclave is running", "version", version, "node", d.cluster.Self().NodeID, "api", settings.APIAddr,
		"cluster", settings.ClusterAddr, "data", settings.Storage.Path)
	stopReload := d.reloadOnHangup(options)
	defer stopReload()
	if _, err := systemd.SdNotify(false, systemd.SdNotifyReady); err != nil {
		log.Warn("can't tell systemd that the node is ready", "error", err)
	}
	err = d.run(ctx, listeners, keepSealed)
	log.Info("conclave is stopping")
	_, _ = systemd.SdNotify(false, systemd.SdNotifyStopping)
	if stopErr := d.stop(); stopErr != nil {
		log.Error("stopping did not go smoothly", "error", stopErr)
	}
	return err
}

func listen(settings *config.Config) ([]*server.Listener, error) {
	var listeners []*server.Listener
	for _, setting := range settings.Listeners {
		listener, err := server.Listen(setting)
		if err != nil {
			return nil, err
		}
		listeners = append(listeners, listener)
	}
	return listeners, nil
}

// reloadOnHangup re-reads certificates and the log level on SIGHUP, and opens audit files anew.
func (d *daemon) reloadOnHangup(options serverOptions) (stop func()) {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range hangup {
			d.reload(options)
		}
	}()
	return func() {
		signal.Stop(hangup)
		close(hangup)
		<-done
	}
}

func (d *daemon) reload(options serverOptions) {
	if err := d.server.Reload(); err != nil {
		d.log.Error("certificates were not reloaded", "error", err)
	}
	if settings, _, err := config.Load(options.configs, os.LookupEnv); err != nil {
		d.log.Error("configuration was not reloaded", "error", err)
	} else {
		d.log.SetLevel(hclog.LevelFromString(settings.LogLevel))
	}
	d.reopenDevices()
	d.log.Info("reloaded certificates, log level and audit files")
}

func newLogger(settings *config.Config) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{Name: "conclave", Level: hclog.LevelFromString(settings.LogLevel),
		JSONFormat: settings.LogFormat == "json", Output: os.Stderr})
}

// replaceProcess executes this program anew, so that no key stays in memory that was once used.
func replaceProcess(log hclog.Logger) error {
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program to start it anew after sealing: %w", err)
	}
	program = strings.TrimSuffix(program, " (deleted)")
	log.Info("sealed: the process replaces itself, so that it holds no key")
	return syscall.Exec(filepath.Clean(program), os.Args, append(os.Environ(), keepSealedVariable+"=1"))
}
