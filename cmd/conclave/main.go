// Command conclave is a secrets vault that runs as a Raft cluster: the server, and the command line that talks to it
// and to whatever else speaks the Vault API.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"conclave/cmd/conclave/access"
	"conclave/cmd/conclave/audit"
	"conclave/cmd/conclave/client"
	"conclave/cmd/conclave/events"
	"conclave/cmd/conclave/kv"
	"conclave/cmd/conclave/lease"
	"conclave/cmd/conclave/local"
	"conclave/cmd/conclave/logical"
	"conclave/cmd/conclave/login"
	"conclave/cmd/conclave/namespace"
	"conclave/cmd/conclave/operator"
	"conclave/cmd/conclave/pki"
	"conclave/cmd/conclave/policy"
	"conclave/cmd/conclave/rotate"
	"conclave/cmd/conclave/secrets"
	"conclave/cmd/conclave/ssh"
	"conclave/cmd/conclave/token"
	"conclave/cmd/conclave/transit"

	"github.com/spf13/cobra"
)

// version is set when the program is built: -ldflags "-X main.version=…".
var version = "0.1.0-dev"

func main() { os.Exit(run()) }

// run is the whole program; it returns the exit code.
func run() int {
	session := client.NewSession()
	root := newRoot(session)
	if err := client.AdoptEnvironment(); err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		return client.ExitLocal
	}
	root.SetArgs(client.LongFlags(root, os.Args[1:]))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		err = client.Usagef("interrupted")
	}
	if text := session.Explain(err); text != "" {
		fmt.Fprintln(os.Stderr, "Error:", text)
	}
	if misused(err) {
		fmt.Fprintf(os.Stderr, "\n`%s -help` shows how it is used.\n", cmd.CommandPath())
	}
	return client.ExitCode(err)
}

// usageError is what cobra finds wrong with the arguments, before a command runs.
type usageError struct{ error }

func misused(err error) bool {
	_, ok := errors.AsType[usageError](err)
	return ok || strings.HasPrefix(err.Error(), "unknown command ")
}

// markUsage makes what is wrong with flags or arguments of cmd, and of the commands below, a usageError.
func markUsage(cmd *cobra.Command) {
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return usageError{err}
			}
			return nil
		}
	}
	for _, sub := range cmd.Commands() {
		if sub.HasSubCommands() { // a group alone shows its help; a word that isn't one of its commands is an error
			sub.RunE = func(cmd *cobra.Command, args []string) error {
				if len(args) == 0 {
					return cmd.Help()
				}
				return usageError{fmt.Errorf("unknown command %q for %q", args[0], cmd.CommandPath())}
			}
		}
		markUsage(sub)
	}
}

// groups are the parts that the help lists commands in: id → title, in this order.
var groups = []cobra.Group{
	{ID: "data", Title: "Secrets:"},
	{ID: "access", Title: "Access:"},
	{ID: "cluster", Title: "Cluster:"},
	{ID: "other", Title: "Other:"},
}

func newRoot(s *client.Session) *cobra.Command {
	root := &cobra.Command{
		Use:   "conclave",
		Short: "A secrets vault that runs as a Raft cluster",
		Long: "Conclave is a secrets vault that runs as a Raft cluster and speaks the Vault API.\n\n" +
			"`conclave local up` starts a cluster on this machine to try things on.\n" +
			"Flags may be written with one dash or with two. VAULT_* variables are read as well as CONCLAVE_* ones, which win.",
		SilenceErrors: true, SilenceUsage: true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: false},
	}
	root.SetIn(s.In)
	root.SetOut(s.Out)
	root.SetErr(s.Err)
	s.AddFlags(root)
	for i := range groups {
		root.AddGroup(&groups[i])
	}
	add := func(group string, commands ...*cobra.Command) {
		for _, cmd := range commands {
			cmd.GroupID = group
			root.AddCommand(cmd)
		}
	}
	add("data", logical.Commands(s)...)
	add("data", kv.Command(s), secrets.Command(s), rotate.Command(s), transit.Command(s), pki.Command(s), ssh.Command(s), events.Command(s))
	auth := secrets.AuthCommand(s)
	auth.AddCommand(login.Help(s))
	add("access", login.Command(s), auth, token.Command(s), access.AddTo(policy.Command(s), s), lease.Command(s), lease.Everything(s), namespace.Command(s), access.Why(s), access.Command(s), audit.Command(s))
	for _, newCommand := range serverCommands {
		add("cluster", newCommand())
	}
	add("cluster", newStatus(s), operator.Command(s), local.Command(s))
	add("other", newVersion(s))
	markUsage(root)
	root.SetHelpCommandGroupID("other")
	root.SetCompletionCommandGroupID("other")
	return root
}

// serverCommands are what starts servers rather than talking to them.
var serverCommands = []func() *cobra.Command{newServerCommand}
