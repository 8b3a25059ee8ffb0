package operator

import (
	"fmt"
	"io"
	"strconv"

	"conclave/cmd/conclave/client"

	"github.com/hashicorp/vault/api"
	"github.com/spf13/cobra"
)

func unseal(s *client.Session) *cobra.Command {
	var reset, migrate bool
	cmd := &cobra.Command{
		Use: "unseal [- | @FILE | KEY]", Short: "Submit one share of the unseal key", Args: cobra.MaximumNArgs(1),
		Long: "Submit one share of the unseal key, on any node. When as many are there as the threshold says the whole cluster opens.\n" +
			"The share is asked for, hidden; - reads it from standard input and @FILE from a file. A share given as an argument stays\n" +
			"in the shell's history. -reset forgets the shares submitted so far.",
		Example: "  conclave operator unseal\n  conclave operator unseal - < share",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := s.Client()
			if err != nil {
				return err
			}
			if reset {
				status, err := c.Sys().ResetUnsealProcessWithContext(cmd.Context())
				if err != nil {
					return err
				}
				return printSeal(s, status)
			}
			arg := ""
			if len(args) == 1 {
				arg = args[0]
			}
			share, err := s.Secret(arg, "Unseal key share")
			if err != nil {
				return err
			}
			status, err := c.Sys().UnsealWithOptionsWithContext(cmd.Context(), &api.UnsealOpts{Key: share, Migrate: migrate})
			if err != nil {
				return err
			}
			return printSeal(s, status)
		},
	}
	cmd.Flags().BoolVar(&reset, "reset", false, "forget the shares submitted so far")
	cmd.Flags().BoolVar(&migrate, "migrate", false, "the share is meant for a change of seals")
	return cmd
}

func printSeal(s *client.Session, status *api.SealStatusResponse) error {
	return s.Print(status, func(w io.Writer) {
		rows := [][]string{{"Seal Type", status.Type}, {"Initialized", strconv.FormatBool(status.Initialized)},
			{"Sealed", strconv.FormatBool(status.Sealed)}, {"Total Shares", strconv.Itoa(status.N)}, {"Threshold", strconv.Itoa(status.T)}}
		if status.Sealed {
			rows = append(rows, []string{"Unseal Progress", fmt.Sprintf("%d/%d", status.Progress, status.T)}, []string{"Unseal Nonce", status.Nonce})
		}
		for _, warning := range status.Warnings {
			rows = append(rows, []string{"Warning", warning})
		}
		client.WriteTable(w, []string{"Key", "Value"}, rows)
	})
}
