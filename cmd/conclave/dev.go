package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"conclave"
	"conclave/mount"
	"conclave/seal"
	"conclave/server/config"
)

// devOptions are the flags of the development server.
type devOptions struct {
	enabled   bool
	rootToken string
	address   string
}

// devFormTimeout bounds how long a cluster of one may take to form, devFormPause is the time between attempts to init it.
const (
	devFormTimeout = 20 * time.Second
	devFormPause   = 50 * time.Millisecond
)

// runDev runs one open node on a temporary directory, which is removed at the end.
func runDev(ctx context.Context, options serverOptions) error {
	dir, err := os.MkdirTemp("", "conclave-dev-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	settings, err := devSettings(dir, options.dev.address)
	if err != nil {
		return err
	}
	log := newLogger(settings)
	listeners, err := listen(settings)
	if err != nil {
		return err
	}
	d, err := startDaemon(ctx, settings, mountSecret, log)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return d.run(ctx, listeners, true) })
	group.Go(func() error {
		opened, err := d.openDev(ctx, options.dev.rootToken)
		if err == nil {
			printDev(settings, opened)
		}
		return err
	})
	err = group.Wait()
	if errors.Is(err, errSealed) {
		err = errors.New("the development server was sealed: it ends, and forgets what it held")
	}
	return errors.Join(err, d.stop())
}

func devSettings(dir, address string) (*config.Config, error) {
	secretFile := filepath.Join(dir, "cluster.secret")
	secret := make([]byte, 32)
	_, _ = rand.Read(secret)
	if err := writeNew(secretFile, secret); err != nil {
		return nil, err
	}
	clusterAddress, err := freeAddress()
	if err != nil {
		return nil, err
	}
	return &config.Config{
		Listeners:        []config.Listener{{Kind: "tcp", Address: address, ClusterAddress: clusterAddress}},
		Storage:          config.Storage{Path: filepath.Join(dir, "data"), NodeID: "dev"},
		Cluster:          config.Cluster{BootstrapExpect: 1, SecretFile: secretFile},
		AuditDirectories: []string{dir},
		APIAddr:          "http://" + address, ClusterAddr: clusterAddress, ClusterName: "dev",
		VersionReported: config.DefaultVersion, LogLevel: "info", LogFormat: "standard",
		DefaultLeaseTTL: config.DefaultLeaseTTL, MaxLeaseTTL: config.DefaultLeaseTTL,
	}, nil
}

// freeAddress finds a port on loopback for the cluster's listener.
func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}

// mountSecret gives a development vault what most tutorials begin with: kv version 2 at secret/.
func mountSecret(tx conclave.System) error {
	return mount.Add(tx, "secret/", "kv", map[string]string{"version": "2"}, "key/value secret storage", rand.Reader)
}

// openDev makes the vault with one share and opens it.
func (d *daemon) openDev(ctx context.Context, rootToken string) (*seal.InitResult, error) {
	ctx, cancel := context.WithTimeout(ctx, devFormTimeout)
	defer cancel()
	for {
		opened, err := d.vault.Init(ctx, seal.InitRequest{Shares: 1, Threshold: 1, RootToken: conclave.NewSecret(rootToken)})
		switch {
		case err == nil:
			share, err := seal.DecodeShare(conclave.NewSecret(opened.Keys[0]))
			if err != nil {
				return nil, err
			}
			_, err = d.vault.Submit(ctx, share)
			return opened, err
		case !conclave.Is(err, conclave.Unavailable) && !conclave.Is(err, conclave.Unknown):
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("the development cluster did not form: %w", err)
		case <-time.After(devFormPause):
		}
	}
}

func printDev(settings *config.Config, opened *seal.InitResult) {
	fmt.Printf(`
A development vault is open. It keeps nothing when it ends: don't use it for real secrets.

    export VAULT_ADDR='%s'
    export VAULT_TOKEN='%s'

Unseal key: %s
Root token: %s

In another terminal:

    conclave kv put secret/hello who=world
    conclave kv get secret/hello

`, settings.APIAddr, opened.RootToken, opened.Keys[0], opened.RootToken)
}
