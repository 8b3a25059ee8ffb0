package access

import (
	"context"
	"fmt"
	"io"
	"strings"

	"conclave/cmd/conclave/client"
	"conclave/policy"

	"github.com/spf13/cobra"
)

// Diff is the command that shows what a change of a policy would newly allow or deny.
func Diff(s *client.Session) *cobra.Command {
	d := &diffCommand{session: s}
	cmd := &cobra.Command{
		Use: "diff [OLD] NEW", Short: "Show what a change of a policy would newly allow or deny", Args: cobra.RangeArgs(1, 2),
		Long: "Show what a change of a policy would newly allow or deny, as example paths: one for each change that there is.\n\n" +
			"OLD and NEW are files, - is standard input. Without OLD, NEW is compared with the stored policy of its name, which is that of the file\n" +
			"without its extension, or what -name says; that takes the capability to read the policy.\n\n" +
			"A rule decides alone where it matches best, so that what a change does can depend on the other policies of a token: -with names files of\n" +
			"those. Identity templates are shown as <identity.…>.",
		Example: "  conclave policy diff team.hcl\n  conclave policy diff team.old.hcl team.hcl -with=default.hcl",
		RunE:    func(cmd *cobra.Command, args []string) error { return d.run(cmd.Context(), args) },
	}
	f := cmd.Flags()
	f.StringVar(&d.name, "name", "", "`name` of the stored policy")
	f.StringArrayVar(&d.with, "with", nil, "`file` of another policy that applies before and after; may be repeated")
	return cmd
}

type diffCommand struct {
	session *client.Session
	name    string
	with    []string
}

// shownTemplates stands for every identity.
type shownTemplates struct{}

// Resolve shows the template itself.
func (shownTemplates) Resolve(template string) (string, bool) { return "<" + template + ">", true }

func (d *diffCommand) run(ctx context.Context, args []string) error {
	file := args[len(args)-1]
	name := d.name
	if name == "" {
		name = nameOf(file)
	}
	if file == "-" && name == "-" {
		if len(args) == 1 {
			return client.Usagef("-name says which policy it is compared with")
		}
		name = "new"
	}
	after, err := d.read(name, file)
	if err != nil {
		return err
	}
	var before *policy.Policy
	if len(args) == 2 {
		before, err = d.read(name, args[0])
	} else {
		before, err = d.stored(ctx, name)
	}
	if err != nil {
		return err
	}
	others := make([]*policy.Policy, 0, len(d.with)+1)
	for _, file := range d.with {
		p, err := d.read(nameOf(file), file)
		if err != nil {
			return err
		}
		others = append(others, p)
	}
	was := policy.CompileFor(shownTemplates{}, append(others[:len(others):len(others)], before)...)
	is := policy.CompileFor(shownTemplates{}, append(others[:len(others):len(others)], after)...)
	changes, complete := policy.Compare(was, is)
	return d.show(changes, complete)
}

func (d *diffCommand) read(name, file string) (*policy.Policy, error) {
	text, err := d.session.Text(file)
	if err != nil {
		return nil, err
	}
	p, err := policy.Parse(name, text)
	if err != nil {
		return nil, client.Usagef("%s: %w", file, err)
	}
	return p, nil
}

// stored is the policy that the vault has, nil if it has none of that name.
func (d *diffCommand) stored(ctx context.Context, name string) (*policy.Policy, error) {
	text, err := stored(ctx, d.session, name)
	if err != nil || text == "" {
		return nil, err
	}
	p, err := policy.Parse(name, text)
	if err != nil {
		return nil, client.Remotef("the stored policy can't be read: %w", err)
	}
	return p, nil
}

func (d *diffCommand) show(changes []policy.Change, complete bool) error {
	if changes == nil {
		changes = []policy.Change{}
	}
	if !complete {
		fmt.Fprintln(d.session.Err, "Warning: there are too many rules to compare all that overlap; not every change is shown.")
	}
	return d.session.Print(map[string]any{"changes": changes, "complete": complete}, func(w io.Writer) {
		if len(changes) == 0 {
			fmt.Fprintln(w, "Nothing would change.")
			return
		}
		rows := make([][]string, len(changes))
		for i, c := range changes {
			rows[i] = []string{c.Path, join(c.Gained), join(c.Lost), strings.Join(remarks(&c), "; ")}
		}
		client.WriteTable(w, []string{"Example", "Allowed now", "Not any more", "By"}, rows)
	})
}

func join(names []string) string {
	if len(names) == 0 {
		return "-"
	}
	return strings.Join(names, ", ")
}

// remarks say what decided before and what decides now.
func remarks(c *policy.Change) []string {
	var all []string
	switch {
	case c.After == "":
		all = append(all, fmt.Sprintf("nothing instead of %q", c.Before))
	case c.Before == "" || c.Before == c.After:
		all = append(all, fmt.Sprintf("%q (%s)", c.After, strings.Join(c.Rules, ", ")))
	default:
		all = append(all, fmt.Sprintf("%q (%s) instead of %q", c.After, strings.Join(c.Rules, ", "), c.Before))
	}
	for _, remark := range []struct {
		so   bool
		text string
	}{{c.Denied, "denied, whatever other policies say there"}, {c.Undenied, "no longer denied against other policies"}, {c.Limits, "with other limits"}} {
		if remark.so {
			all = append(all, remark.text)
		}
	}
	return all
}
