package audit

import (
	"context"
	"encoding/hex"
	"fmt"
	"os"

	log "conclave/audit"
	"conclave/cmd/conclave/client"

	"github.com/spf13/cobra"
)

func rotate(s *client.Session) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: "rotate", Short: "Close the epoch of the audit log and begin the next", Args: cobra.NoArgs,
		Long: "Close the epoch of the audit log and begin the next. Only closed epochs can be dropped:\n\n" +
			"  conclave audit rotate -reason='end of the quarter'\n  conclave audit export q3.jsonl\n  conclave audit prune -export=q3.jsonl",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if reason == "" {
				return client.Usagef("-reason is needed: it becomes the first record of the new epoch")
			}
			return change(cmd.Context(), s, "sys/audit-rotate", map[string]any{"reason": reason},
				"Success! A new epoch has begun. Export the log before you drop what came before.")
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, in `words`")
	return cmd
}

func prune(s *client.Session) *cobra.Command {
	var file string
	var force bool
	cmd := &cobra.Command{
		Use: "prune", Short: "Drop closed epochs of the audit log that have been exported", Args: cobra.NoArgs,
		Long: "Drop closed epochs of the audit log on every node. The export is verified first, and what it shows of how the last closed epoch\n" +
			"ended is compared with the cluster's own log: what isn't in an export is never dropped. Keep the export.\n\n" +
			"Every enabled audit device must have written the epochs on every node. -force doesn't ask: a device that is behind then says that\n" +
			"records are missing, and is of no use until its file and cursor are put away.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				return client.Usagef("-export is needed: the file that `conclave audit export` wrote")
			}
			epoch, head, err := closedEpoch(file)
			if err != nil {
				return err
			}
			return change(cmd.Context(), s, "sys/audit-prune", map[string]any{"epoch": epoch, "head": head, "force": force},
				fmt.Sprintf("Success! Dropped the audit log up to the end of epoch %d. %s is now the only record of it: keep it.", epoch, file))
		},
	}
	cmd.Flags().StringVar(&file, "export", "", "the `file` that `conclave audit export` wrote")
	cmd.Flags().BoolVar(&force, "force", false, "drop also what audit devices have not written")
	return cmd
}

// change writes to a path of the vault, and says what came of it.
func change(ctx context.Context, s *client.Session, path string, data map[string]any, done string) error {
	c, err := s.Client()
	if err != nil {
		return err
	}
	if _, err := c.Logical().WriteWithContext(ctx, path, data); err != nil {
		return err
	}
	return s.Done("%s", done)
}

// closedEpoch verifies an export and returns the last epoch that it shows the end of, with its head in hex.
func closedEpoch(file string) (epoch uint64, head string, err error) {
	content, err := os.Open(file)
	if err != nil {
		return 0, "", client.Usagef("%w", err)
	}
	defer content.Close()
	report, err := log.VerifyExport(content, nil)
	if err != nil {
		return 0, "", client.Remotef("%s is not whole: %w", file, err)
	}
	if report.Closed == nil {
		return 0, "", client.Usagef("%s shows the end of no epoch: `conclave audit rotate` first, then export again", file)
	}
	return report.Closed.Epoch - 1, hex.EncodeToString(report.Closed.PreviousHead[:]), nil
}
