package client

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// aliases are short forms of long flags: name → flag.
var aliases = map[string]string{"ns": "namespace"}

// Foreign is the annotation of a command that hands what follows its first argument to another program, as it is.
const Foreign = "foreign"

// LongFlags rewrites arguments in the manner of Vault's command line, where one dash begins a long flag, into pflag's,
// where two do: "-format=json" and "-format json" become "--format=json". Flags may stand before and after the words
// of the command and its arguments. What is a flag's value is never taken for a flag, nothing changes after "--" or in what
// a command hands on, and single letters ("-f") stay as they are.
func LongFlags(root *cobra.Command, args []string) []string {
	out := make([]string, 0, len(args))
	cmd := root
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			return append(out, args[i:]...)
		}
		if !strings.HasPrefix(arg, "-") || arg == "-" {
			if cmd == root && strings.HasPrefix(arg, cobra.ShellCompRequestCmd) {
				return append(out, args[i:]...) // the shell asks for completions
			}
			if sub := child(cmd, arg); sub != nil {
				cmd = sub
			} else if cmd.Annotations[Foreign] != "" {
				return append(out, args[i:]...)
			}
			out = append(out, arg)
			continue
		}
		name, value, given := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		if alias, ok := aliases[name]; ok {
			name = alias
		}
		flag := lookup(cmd, name)
		switch {
		case flag == nil && strings.HasPrefix(arg, "--"), len(name) < 2, !isLetter(name[0]):
			out = append(out, arg)
		case given:
			out = append(out, "--"+name+"="+value)
		case flag == nil || flag.NoOptDefVal != "" || i+1 == len(args):
			out = append(out, "--"+name)
		default:
			i++
			out = append(out, "--"+name+"="+args[i])
		}
	}
	return out
}

func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }

func child(cmd *cobra.Command, word string) *cobra.Command {
	for _, sub := range cmd.Commands() {
		if sub.Name() == word || sub.HasAlias(word) {
			return sub
		}
	}
	return nil
}

// lookup finds a flag of cmd, one that it inherits, or, because a flag may stand before the word of its command, one of
// a command below.
func lookup(cmd *cobra.Command, name string) *pflag.Flag {
	for c := cmd; c != nil; c = c.Parent() {
		if c == cmd {
			if flag := c.Flags().Lookup(name); flag != nil {
				return flag
			}
		}
		if flag := c.PersistentFlags().Lookup(name); flag != nil {
			return flag
		}
	}
	for _, sub := range cmd.Commands() {
		if flag := below(sub, name); flag != nil {
			return flag
		}
	}
	return nil
}

func below(cmd *cobra.Command, name string) *pflag.Flag {
	if flag := cmd.Flags().Lookup(name); flag != nil {
		return flag
	}
	for _, sub := range cmd.Commands() {
		if flag := below(sub, name); flag != nil {
			return flag
		}
	}
	return nil
}
