// Package access is the commands for questions about policies: who may do what, why not, and what a change would change.
package access

import (
	"conclave/cmd/conclave/client"

	"github.com/spf13/cobra"
)

// AddTo adds the commands that try policies out to the group of policies, which it returns.
func AddTo(group *cobra.Command, s *client.Session) *cobra.Command {
	group.AddCommand(Test(s), Diff(s))
	return group
}
