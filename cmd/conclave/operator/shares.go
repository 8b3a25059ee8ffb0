package operator

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"conclave/cmd/conclave/client"

	"github.com/hashicorp/vault/api"
	"github.com/spf13/cobra"
)

const rollCallPath = "sys/shares/roll-call"

func shares(s *client.Session) *cobra.Command {
	group := &cobra.Command{Use: "shares", Short: "Look after the shares of the unseal key"}
	group.AddCommand(rollCall(s))
	return group
}

func rollCall(s *client.Session) *cobra.Command {
	var begin, status, end bool
	var nonce string
	cmd := &cobra.Command{
		Use: "roll-call [- | @FILE | KEY]", Short: "Have all holders show that they have their shares", Args: cobra.MaximumNArgs(1),
		Long: "Have all holders show that they have their shares. Nothing is opened and no key is changed. An operator begins with -init,\n" +
			"which takes a token, and tells the holders the nonce; each shows the share with -nonce, on any node, without a token. -status\n" +
			"tells whose shares are missing. A roll-call ends after an hour. The share is asked for, hidden; - reads it from standard\n" +
			"input and @FILE from a file.",
		Example: "  conclave operator shares roll-call -init\n  conclave operator shares roll-call -nonce=NONCE\n  conclave operator shares roll-call -status -nonce=NONCE",
		RunE: s.Connected(func(ctx context.Context, c *api.Client, args []string) error {
			if !begin && nonce == "" {
				return client.Usagef("give the roll-call's -nonce, which -init showed, or begin one with -init")
			}
			known := rollCallPath + "?" + url.Values{"nonce": {nonce}}.Encode()
			switch {
			case begin:
				return printRollCall(s)(client.Request(ctx, c, http.MethodPut, rollCallPath, map[string]any{}))
			case status:
				return printRollCall(s)(requestURL(ctx, c, http.MethodGet, known))
			case end:
				if _, err := requestURL(ctx, c, http.MethodDelete, known); err != nil {
					return err
				}
				return s.Done("Success! The roll-call has ended.")
			}
			arg := ""
			if len(args) == 1 {
				arg = args[0]
			}
			share, err := s.Secret(arg, "Unseal key share")
			if err != nil {
				return err
			}
			return printRollCall(s)(client.Request(ctx, c, http.MethodPut, rollCallPath+"/update", map[string]any{"key": share, "nonce": nonce}))
		}),
	}
	cmd.Flags().BoolVar(&begin, "init", false, "begin a roll-call")
	cmd.Flags().BoolVar(&status, "status", false, "show whose shares are missing")
	cmd.Flags().BoolVar(&end, "cancel", false, "end the roll-call")
	cmd.Flags().StringVar(&nonce, "nonce", "", "the roll-call's `nonce`")
	cmd.MarkFlagsMutuallyExclusive("init", "status", "cancel")
	return cmd
}

// requestURL makes a request whose parameters are in its path.
func requestURL(ctx context.Context, c *api.Client, method, target string) (*api.Secret, error) {
	path, query, _ := strings.Cut(target, "?")
	r := c.NewRequest(method, "/v1/"+path)
	params, err := url.ParseQuery(query)
	if err != nil {
		return nil, err
	}
	r.Params = params
	resp, err := c.RawRequestWithContext(ctx, r)
	if resp != nil {
		defer resp.Body.Close()
	}
	if err != nil || resp.StatusCode == http.StatusNoContent {
		return nil, err
	}
	return api.ParseSecret(resp.Body)
}

func printRollCall(s *client.Session) func(*api.Secret, error) error {
	return func(secret *api.Secret, err error) error {
		if err != nil || secret == nil {
			return err
		}
		return s.Print(secret.Data, func(w io.Writer) {
			rows := [][]string{{"Nonce", fmt.Sprint(secret.Data["nonce"])}, {"Shares", fmt.Sprint(secret.Data["shares"])},
				{"Present", numbers(secret.Data["present"])}, {"Missing", numbers(secret.Data["missing"])}}
			client.WriteTable(w, []string{"Key", "Value"}, rows)
		})
	}
}

func numbers(list any) string {
	all, _ := list.([]any)
	if len(all) == 0 {
		return "none"
	}
	texts := make([]string, len(all))
	for i, n := range all {
		texts[i] = fmt.Sprint(n)
	}
	return strings.Join(texts, ", ")
}
