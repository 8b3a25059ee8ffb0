package local

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"conclave/cmd/conclave/audit"
	"conclave/cmd/conclave/client"

	"github.com/hashicorp/vault/api"
	"github.com/spf13/cobra"
)

// tourTimeout is when the tour gives up.
const tourTimeout = 30 * time.Second

func (l *lab) tourCommand() *cobra.Command {
	return &cobra.Command{
		Use: "tour", Short: "Show a secret written through one node and read through another", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := l.load()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), tourTimeout)
			defer cancel()
			return l.tour(ctx, c)
		},
	}
}

func (l *lab) tour(ctx context.Context, c *Cluster) error {
	const path = "secret/data/tour/hello"
	writer, reader := 1, min(2, len(c.Addrs))
	first, err := c.client(writer)
	if err != nil {
		return err
	}
	second, err := c.client(reader)
	if err != nil {
		return err
	}
	out := l.s.Out
	value := "from the tour at " + time.Now().UTC().Format(time.RFC3339)
	if _, err := first.Logical().WriteWithContext(ctx, path, map[string]any{"data": map[string]any{"greeting": value}}); err != nil {
		return fmt.Errorf("write through node %d: %w", writer, err)
	}
	fmt.Fprintf(out, "wrote  secret/tour/hello through node %d (%s)\n", writer, c.Addrs[writer-1])
	read, err := second.Logical().ReadWithContext(ctx, path)
	if err != nil {
		return fmt.Errorf("read through node %d: %w", reader, err)
	}
	if read == nil {
		return client.Remotef("node %d doesn't know what node %d has acknowledged", reader, writer)
	}
	data, _ := read.Data["data"].(map[string]any)
	if data["greeting"] != value {
		return client.Remotef("node %d answers with something else than node %d has acknowledged", reader, writer)
	}
	fmt.Fprintf(out, "read   greeting = %q through node %d (%s)\n", value, reader, c.Addrs[reader-1])
	if err := c.showAudit(ctx, l); err != nil {
		return err
	}
	l.next(c)
	return nil
}

// showAudit proves, of the nodes that run, that the log of all that has happened is whole and the same on each.
func (c *Cluster) showAudit(ctx context.Context, l *lab) error {
	var nodes []*api.Client
	for n := 1; n <= len(c.Addrs); n++ {
		if !c.running(n) || c.paused(n) {
			continue
		}
		node, err := c.client(n)
		if err != nil {
			return err
		}
		nodes = append(nodes, node)
	}
	verdict, err := audit.Agreement(ctx, nodes)
	if err != nil {
		return err
	}
	fmt.Fprintf(l.s.Out, "audit  %s\n", verdict)
	return nil
}

// next says what to type now.
func (l *lab) next(c *Cluster) {
	program := "conclave"
	if path, err := os.Executable(); err == nil {
		program = path
		if here, err := os.Getwd(); err == nil {
			if below, err := filepath.Rel(here, path); err == nil && filepath.IsLocal(below) {
				program = "./" + below
			}
		}
	}
	dir := ""
	if l.s.Getenv("XDG_STATE_HOME") != "" || !strings.HasSuffix(l.dir, filepath.Join(".local", "state", "conclave", "local")) {
		dir = " -dir " + shellQuote(l.dir)
	}
	fmt.Fprintf(l.s.Out, "\nNext, in your shell:\n\n  export CONCLAVE_ADDR=%s CONCLAVE_CACERT=%s CONCLAVE_TOKEN=%s\n", c.Addrs[0], shellQuote(c.CA), c.RootToken)
	for _, line := range [][2]string{
		{"kv put secret/app colour=green", "key=@FILE and key=- keep secrets out of the history"},
		{"kv get secret/app", ""},
		{"audit verify", "every record, on every node"},
		{"local kill 1" + dir, "the others go on; then: " + program + " local start 1" + dir},
		{"local status" + dir, ""},
		{"local down -wipe" + dir, "ends the lab and removes it"},
	} {
		text := "  " + program + " " + line[0]
		if line[1] != "" {
			text = fmt.Sprintf("%-48s  # %s", text, line[1])
		}
		fmt.Fprintln(l.s.Out, text)
	}
}
