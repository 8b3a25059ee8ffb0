package access

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"

	"conclave"
	"conclave/cmd/conclave/client"
	"conclave/policy"

	"github.com/hashicorp/vault/api"
	"github.com/spf13/cobra"
)

// maxCases bounds the cases of one test; a vault takes as many checks at once.
const maxCases = 1024

// testCommand holds what `policy test` was given.
type testCommand struct {
	session          *client.Session
	files, names     []string
	accessor, entity string
	self, sudo       bool
	cases            string
	templates        map[string]string
	checks           []check
	expected         []string // of cases: allow or deny, by check
	candidates       map[string]string
	results          []policy.Answer
	applied          []string // the policies
}

// check is one question, as the vault takes it.
type check struct {
	Path      string         `json:"path"`
	Operation string         `json:"operation"`
	Sudo      bool           `json:"sudo,omitempty"`
	Fields    map[string]any `json:"fields,omitempty"`
}

// Test is the command that tries policies out.
func Test(s *client.Session) *cobra.Command {
	t := &testCommand{session: s}
	cmd := &cobra.Command{
		Use: "test [OPERATION PATH [KEY=VALUE]...]", Short: "Say what policies, or a token, would be allowed",
		Long: "Say whether an operation on a path would be allowed, and which rule decides.\n\n" +
			"With -file alone it is decided here, without a vault. With -policy, -accessor, -entity or -self it is decided by the vault, which takes\n" +
			"the capability update on sys/access/simulate; files then stand in for stored policies of their names. A file's policy is named like the\n" +
			"file, without its extension.\n\n" +
			"-cases names a file with one case a line, `allow OPERATION PATH [KEY=VALUE]...` or `deny …`; # begins a comment. The exit code is 2 if a\n" +
			"case doesn't come out so, or without cases if the operation would be denied.",
		Example: "  conclave policy test -file=team.hcl read secret/data/team/app\n" +
			"  conclave policy test -file=team.hcl -cases=team.cases\n" +
			"  conclave policy test -accessor=Ab3… -file=team.hcl update secret/data/team/app",
		RunE: func(cmd *cobra.Command, args []string) error { return t.run(cmd.Context(), args) },
	}
	f := cmd.Flags()
	f.StringArrayVar(&t.files, "file", nil, "`file` with a policy; may be repeated")
	f.StringArrayVar(&t.names, "policy", nil, "`name` of a stored policy; may be repeated")
	f.StringVar(&t.accessor, "accessor", "", "`accessor` of the token whose policies apply")
	f.StringVar(&t.entity, "entity", "", "`id` of the entity whose policies apply")
	f.BoolVar(&t.self, "self", false, "the policies of your own token apply")
	f.BoolVar(&t.sudo, "sudo", false, "the path needs the capability sudo as well")
	f.StringVar(&t.cases, "cases", "", "`file` of cases; - for standard input")
	f.StringToStringVar(&t.templates, "template", nil, "`name=value` of an identity template, such as identity.entity.name=ann; without a vault only")
	return cmd
}

func (t *testCommand) run(ctx context.Context, args []string) error {
	if err := t.readChecks(args); err != nil {
		return err
	}
	t.candidates = map[string]string{}
	for _, file := range t.files {
		text, err := t.session.Text(file)
		if err != nil {
			return err
		}
		name := nameOf(file)
		if _, twice := t.candidates[name]; twice {
			return client.Usagef("two files have policies of the name %q", name)
		}
		t.candidates[name] = text
	}
	online := len(t.names) > 0 || t.accessor != "" || t.entity != "" || t.self
	var err error
	switch {
	case !online && len(t.files) == 0:
		return client.Usagef("whose policies? -file, -policy, -accessor, -entity or -self says it")
	case online && len(t.templates) > 0:
		return client.Usagef("-template goes with -file alone: the vault knows identities itself")
	case online:
		err = t.askVault(ctx)
	default:
		err = t.decideHere()
	}
	if err != nil {
		return err
	}
	return t.report()
}

// nameOf is the name of the policy in a file.
func nameOf(file string) string {
	base := filepath.Base(strings.TrimPrefix(file, "@"))
	return policy.NormalName(strings.TrimSuffix(base, filepath.Ext(base)))
}

func (t *testCommand) readChecks(args []string) error {
	switch {
	case t.cases != "" && len(args) > 0:
		return client.Usagef("give -cases or an operation and a path, not both")
	case t.cases == "":
		c, err := t.parse(args)
		t.checks = append(t.checks, c)
		return err
	}
	text, err := t.session.Text(t.cases)
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(strings.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		line, _, _ := strings.Cut(lines.Text(), "#")
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		if words[0] != "allow" && words[0] != "deny" {
			return client.Usagef("%s, line %d: a case begins with allow or deny", t.cases, n)
		}
		c, err := t.parse(words[1:])
		if err != nil {
			return client.Usagef("%s, line %d: %w", t.cases, n, err)
		}
		if len(t.checks) == maxCases {
			return client.Usagef("%s has more than %d cases", t.cases, maxCases)
		}
		t.checks, t.expected = append(t.checks, c), append(t.expected, words[0])
	}
	if len(t.checks) == 0 {
		return client.Usagef("%s has no cases", t.cases)
	}
	return lines.Err()
}

func (t *testCommand) parse(words []string) (check, error) {
	if len(words) < 2 {
		return check{}, client.Usagef("an operation and a path are needed: read secret/data/app")
	}
	op, err := policy.ParseOperation(words[0])
	if err != nil {
		return check{}, client.Usagef("%w", err)
	}
	c := check{Path: strings.TrimPrefix(strings.TrimPrefix(words[1], "/"), "v1/"), Operation: op.String(), Sudo: t.sudo}
	for _, word := range words[2:] {
		key, value, ok := strings.Cut(word, "=")
		if !ok {
			return check{}, client.Usagef("fields are key=value")
		}
		if c.Fields == nil {
			c.Fields = map[string]any{}
		}
		c.Fields[key] = value
	}
	return c, nil
}

// values are identity templates that were given on the command line.
type values map[string]string

// Resolve is the value of a template.
func (v values) Resolve(template string) (string, bool) {
	value, ok := v[template]
	return value, ok
}

func (t *testCommand) decideHere() error {
	policies := make([]*policy.Policy, 0, len(t.files))
	for _, file := range t.files {
		name := nameOf(file)
		p, err := policy.Parse(name, t.candidates[name])
		if err != nil {
			return client.Usagef("%s: %w", file, err)
		}
		policies, t.applied = append(policies, p), append(t.applied, p.Name)
	}
	acl := policy.CompileFor(values(t.templates), policies...)
	for _, c := range t.checks {
		op, err := policy.ParseOperation(c.Operation)
		if err != nil {
			return err
		}
		t.results = append(t.results, acl.Answer(policy.Check{Path: c.Path, Operation: op, Sudo: c.Sudo, Fields: c.Fields}))
	}
	return nil
}

func (t *testCommand) askVault(ctx context.Context) error {
	c, err := t.session.Client()
	if err != nil {
		return err
	}
	body := map[string]any{"policies": t.names, "accessor": t.accessor, "entity_id": t.entity, "candidates": t.candidates, "checks": t.checks}
	if t.self {
		body["token"] = c.Token()
	}
	secret, err := client.Request(ctx, c, http.MethodPost, "sys/access/simulate", body)
	if err != nil {
		return err
	}
	var answer struct {
		Policies []string        `json:"policies"`
		Results  []policy.Answer `json:"results"`
	}
	if err := decode(secret, &answer); err != nil {
		return err
	}
	if len(answer.Results) != len(t.checks) {
		return client.Remotef("the vault answered %d of %d checks", len(answer.Results), len(t.checks))
	}
	t.applied, t.results = answer.Policies, answer.Results
	return nil
}

// report shows the results, and ends with an exit code that scripts can act on.
func (t *testCommand) report() error {
	failed := 0
	rows := make([][]string, len(t.results))
	for i, r := range t.results {
		word := map[bool]string{true: "allow", false: "deny"}[r.Allowed]
		switch {
		case t.expected == nil && !r.Allowed:
			failed++
		case t.expected != nil && t.expected[i] != word:
			failed++
			word += ", not " + t.expected[i]
		}
		rows[i] = []string{word, r.Operation, r.Path, r.Because}
	}
	value := map[string]any{"policies": t.applied, "results": t.results, "failed": failed}
	err := t.session.Print(value, func(w io.Writer) { client.WriteTable(w, []string{"Decision", "Operation", "Path", "Why"}, rows) })
	switch {
	case err != nil:
		return err
	case failed > 0 && t.expected != nil:
		return client.Remotef("%d of %d cases came out otherwise", failed, len(t.results))
	case failed > 0:
		return &client.ExitError{Code: client.ExitRemote}
	}
	return nil
}

// decode reads an answer's data.
func decode(secret *api.Secret, into any) error {
	if secret == nil || secret.Data == nil {
		return client.Remotef("the vault's answer is empty")
	}
	text, err := json.Marshal(secret.Data)
	if err == nil {
		err = json.Unmarshal(text, into)
	}
	if err != nil {
		return client.Remotef("the vault's answer can't be read: %w", err)
	}
	return nil
}

// stored reads a policy's text from the vault, nothing if there is none of that name.
func stored(ctx context.Context, s *client.Session, name string) (string, error) {
	c, err := s.Client()
	if err != nil {
		return "", err
	}
	secret, err := client.Request(ctx, c, http.MethodGet, "sys/policies/acl/"+policy.NormalName(name), nil)
	if err != nil || secret == nil {
		return "", err
	}
	text, ok := secret.Data["policy"].(string)
	if !ok {
		return "", fmt.Errorf("read policy %s: %w", name, conclave.Errorf(conclave.Internal, "the answer holds no text"))
	}
	return text, nil
}
