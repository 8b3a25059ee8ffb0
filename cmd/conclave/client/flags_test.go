package client

import (
	"slices"
	"testing"

	"github.com/spf13/cobra"
)

// tree is a command line with what the rewriting has to tell apart.
func tree() *cobra.Command {
	root := &cobra.Command{Use: "conclave"}
	NewSession().AddFlags(root)
	kv := &cobra.Command{Use: "kv"}
	kv.PersistentFlags().String("mount", "", "")
	put := &cobra.Command{Use: "put", Run: func(*cobra.Command, []string) {}}
	put.Flags().Int("cas", -1, "")
	put.Flags().BoolP("force", "f", false, "")
	put.Flags().StringSlice("policy", nil, "")
	kv.AddCommand(put)
	login := &cobra.Command{Use: "login", Annotations: map[string]string{Foreign: "true"}, Run: func(*cobra.Command, []string) {}}
	login.Flags().String("role", "", "")
	root.AddCommand(kv, login)
	return root
}

func TestLongFlagsTakesOneDashForTwo(t *testing.T) {
	for _, tc := range []struct {
		name      string
		args, out []string
	}{
		{"value after equals", []string{"kv", "put", "-cas=0", "a"}, []string{"kv", "put", "--cas=0", "a"}},
		{"value apart", []string{"kv", "put", "-cas", "0", "a"}, []string{"kv", "put", "--cas=0", "a"}},
		{"two dashes", []string{"kv", "put", "--cas", "0", "a"}, []string{"kv", "put", "--cas=0", "a"}},
		{"after the arguments", []string{"kv", "put", "a", "b=c", "-format=json"}, []string{"kv", "put", "a", "b=c", "--format=json"}},
		{"before the words of the command", []string{"-format", "json", "kv", "put", "a"}, []string{"--format=json", "kv", "put", "a"}},
		{"of a command below", []string{"kv", "-cas", "3", "put", "a"}, []string{"kv", "--cas=3", "put", "a"}},
		{"switch takes no value", []string{"kv", "put", "-force", "a"}, []string{"kv", "put", "--force", "a"}},
		{"switch with a value", []string{"kv", "put", "-force=false", "a"}, []string{"kv", "put", "--force=false", "a"}},
		{"single letter", []string{"kv", "put", "-f", "a"}, []string{"kv", "put", "-f", "a"}},
		{"standard input", []string{"kv", "put", "a", "-"}, []string{"kv", "put", "a", "-"}},
		{"a value like a flag", []string{"kv", "put", "-mount", "-force", "a"}, []string{"kv", "put", "--mount=-force", "a"}},
		{"a value like a command", []string{"kv", "-mount", "put", "put", "a"}, []string{"kv", "--mount=put", "put", "a"}},
		{"a value with an equals sign", []string{"kv", "put", "-policy=a=b"}, []string{"kv", "put", "--policy=a=b"}},
		{"after two dashes nothing is a flag", []string{"kv", "put", "--", "-cas=0", "-x"}, []string{"kv", "put", "--", "-cas=0", "-x"}},
		{"handed on as it is", []string{"login", "-role", "a", "host", "-role=b", "-oX=y"}, []string{"login", "--role=a", "host", "-role=b", "-oX=y"}},
		{"an alias", []string{"kv", "put", "-ns=team", "a"}, []string{"kv", "put", "--namespace=team", "a"}},
		{"unknown, for the error", []string{"kv", "put", "-bogus"}, []string{"kv", "put", "--bogus"}},
		{"a negative number", []string{"kv", "put", "-1"}, []string{"kv", "put", "-1"}},
		{"a value is missing", []string{"kv", "put", "-mount"}, []string{"kv", "put", "--mount"}},
		{"completions", []string{"__complete", "kv", "put", "-ca"}, []string{"__complete", "kv", "put", "-ca"}},
		{"an argument with underscores", []string{"kv", "put", "__a=1", "-cas=1"}, []string{"kv", "put", "__a=1", "--cas=1"}},
		{"nothing", nil, []string{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := LongFlags(tree(), tc.args); !slices.Equal(got, tc.out) {
				t.Errorf("LongFlags(%q) = %q, want %q", tc.args, got, tc.out)
			}
		})
	}
}

func FuzzLongFlags(f *testing.F) {
	f.Add("kv", "-cas=0", "put", "-")
	f.Add("--", "-x", "-mount", "")
	f.Add("-", "--=", "-=", "-ns")
	f.Fuzz(func(t *testing.T, a, b, c, d string) {
		args := []string{a, b, c, d}
		once := LongFlags(tree(), args)
		if again := LongFlags(tree(), once); !slices.Equal(once, again) {
			t.Errorf("LongFlags(%q) = %q, but of that it makes %q", args, once, again)
		}
	})
}
