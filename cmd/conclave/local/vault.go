package local

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"

	"conclave/cmd/conclave/client"

	"github.com/hashicorp/vault/api"
)

// ofClients are variables that the SDK reads before anything can be set, and refuses to work with when they name a file
// that is gone: those of an earlier lab, say.
var ofClients = []string{"VAULT_ADDR", "VAULT_AGENT_ADDR", "VAULT_CACERT", "VAULT_CACERT_BYTES", "VAULT_CAPATH",
	"VAULT_CLIENT_CERT", "VAULT_CLIENT_KEY", "VAULT_TLS_SERVER_NAME", "VAULT_SKIP_VERIFY", "VAULT_PROXY_ADDR", "VAULT_HTTP_PROXY"}

// client talks to node n, whatever the environment says.
func (c *Cluster) client(n int) (*api.Client, error) {
	for _, name := range ofClients {
		if err := os.Unsetenv(name); err != nil {
			return nil, err
		}
	}
	config := api.DefaultConfig()
	if config.Error != nil {
		return nil, config.Error
	}
	config.Address, config.AgentAddress, config.MaxRetries = c.Addrs[n-1], "", 0
	if err := config.ConfigureTLS(&api.TLSConfig{CACert: c.CA}); err != nil {
		return nil, err
	}
	made, err := api.NewClient(config)
	if err != nil {
		return nil, err
	}
	made.ClearNamespace()
	made.SetWrappingLookupFunc(func(string, string) string { return "" })
	made.SetToken(c.RootToken)
	return made, nil
}

// patiently repeats try until it succeeds, or ctx ends: then the last error says why it took so long.
func patiently(ctx context.Context, what string, try func() error) error {
	for {
		err := try()
		if err == nil {
			return nil
		}
		if refused(err) {
			return fmt.Errorf("%s: %w", what, err)
		}
		if client.Pause(ctx, client.PollEvery/2) != nil {
			return fmt.Errorf("%s: %w (last: %s)", what, context.Cause(ctx), err.Error())
		}
	}
}

// refused reports whether trying again is no use: the vault has understood and declined.
func refused(err error) bool {
	answer, ok := errors.AsType[*api.ResponseError](err)
	return ok && answer.StatusCode < http.StatusInternalServerError && answer.StatusCode != http.StatusTooManyRequests &&
		answer.StatusCode != http.StatusPreconditionFailed && answer.StatusCode != http.StatusBadRequest
}

// initialise makes the vault as soon as enough nodes are there.
func (c *Cluster) initialise(ctx context.Context, node *api.Client, shares int) error {
	return patiently(ctx, "initialise the vault", func() error {
		made, err := node.Sys().InitWithContext(ctx, &api.InitRequest{SecretShares: shares, SecretThreshold: c.Threshold})
		if err != nil {
			return err
		}
		c.RootToken, c.UnsealKeys = made.RootToken, made.KeysB64
		return nil
	})
}

// unseal submits as many shares as it takes, to one node.
func (c *Cluster) unseal(ctx context.Context, node *api.Client) error {
	if len(c.UnsealKeys) < c.Threshold {
		return client.Usagef("the lab was never initialised: end it with `conclave local down -wipe`")
	}
	for i, share := range c.UnsealKeys[:c.Threshold] {
		err := patiently(ctx, fmt.Sprintf("submit share %d", i+1), func() error {
			_, err := node.Sys().UnsealWithContext(ctx, share)
			if answer, ok := errors.AsType[*api.ResponseError](err); ok && strings.Contains(strings.Join(answer.Errors, " "), "already") {
				return nil // an attempt before this one had got through
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// serving waits until node n is open and in touch with a quorum. A single node that was started again gets the shares of
// the vault that it asks for; the others are open already.
func (c *Cluster) serving(ctx context.Context, n int, node *api.Client) error {
	return patiently(ctx, fmt.Sprintf("wait for node %d to serve", n), func() error {
		r := node.NewRequest(http.MethodGet, "/v1/sys/health")
		resp, err := node.RawRequestWithContext(ctx, r)
		if resp != nil {
			defer resp.Body.Close()
		}
		return err
	})
}

// enableAudit has each node write the lines of its audit log to its own file. One device has one path for all nodes: on
// this machine they must not share a file, so the path goes through the working directory of whichever server opens it.
// Where the system has no such path each node gets a device of its own.
func (c *Cluster) enableAudit(ctx context.Context, nodes []*api.Client) error {
	if _, err := os.Stat(ownDirectory); err == nil {
		return patiently(ctx, "enable the audit files", func() error {
			return enable(ctx, nodes[0], "file", ownDirectory+"/audit/audit.log")
		})
	}
	for i, node := range nodes {
		err := patiently(ctx, "enable the audit files", func() error { return enable(ctx, node, "file-"+nodeName(i+1), c.AuditFiles[i]) })
		if err != nil {
			return err
		}
	}
	return nil
}

// ownDirectory is the working directory of the process that looks it up (proc(5)).
const ownDirectory = "/proc/self/cwd"

func enable(ctx context.Context, node *api.Client, path, file string) error {
	err := node.Sys().EnableAuditWithOptionsWithContext(ctx, path, &api.EnableAuditOptions{Type: "file",
		Description: "audit files of the lab", Options: map[string]string{"file_path": file}})
	if answer, ok := errors.AsType[*api.ResponseError](err); ok && strings.Contains(strings.Join(answer.Errors, " "), "already in use") {
		return nil // an attempt whose answer was lost had got through
	}
	return err
}

// shellQuote makes text one word for a shell.
func shellQuote(text string) string {
	if strings.IndexFunc(text, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:@%+=,", r))
	}) < 0 {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}
