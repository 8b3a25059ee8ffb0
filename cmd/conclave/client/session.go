// Package client is what all commands of the command line share: the flags and variables that say which vault to talk
// to and how, the token file, the forms of output, input from arguments and prompts, and errors that say what to do.
//
// It keeps no state beyond one run of the program. Secrets come from prompts, standard input, files or variables;
// none has to be an argument, where every user of the machine could read it.
package client

import (
	"context"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/spf13/cobra"
)

// Session is one run of the program: its streams, its environment and the flags that all commands have.
type Session struct {
	In       io.Reader
	Out, Err io.Writer
	Getenv   func(string) string

	// The values of the global flags; empty means "not given".
	Address, Namespace            string
	CACert, CAPath                string
	ClientCert, ClientKey         string
	TLSServerName, Format, Field  string
	WrapTTL                       string
	Headers, MFA                  []string
	TLSSkipVerify, NonInteractive bool

	// requestID is that of the last answer, if the server told it.
	requestID string
	// address is where the last client went.
	address string
	// tokenless says that the last client had no token to send.
	tokenless bool
}

// NewSession is a Session of this process.
func NewSession() *Session {
	return &Session{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Getenv: os.Getenv}
}

// AddFlags gives cmd, and all commands below it, the flags that say which vault to talk to.
func (s *Session) AddFlags(cmd *cobra.Command) {
	f := cmd.PersistentFlags()
	f.StringVar(&s.Address, "address", "", "`URL` of a node (CONCLAVE_ADDR, VAULT_ADDR; default "+api.DefaultAddress+")")
	f.StringVar(&s.Namespace, "namespace", "", "`namespace` to work in (CONCLAVE_NAMESPACE)")
	f.StringVar(&s.CACert, "ca-cert", "", "`file` of CA certificates that the node's is checked with (CONCLAVE_CACERT)")
	f.StringVar(&s.CAPath, "ca-path", "", "`directory` of CA certificates (CONCLAVE_CAPATH)")
	f.StringVar(&s.ClientCert, "client-cert", "", "`file` of the certificate to show to the node (CONCLAVE_CLIENT_CERT)")
	f.StringVar(&s.ClientKey, "client-key", "", "`file` of that certificate's key (CONCLAVE_CLIENT_KEY)")
	f.StringVar(&s.TLSServerName, "tls-server-name", "", "`name` that the node's certificate must have (CONCLAVE_TLS_SERVER_NAME)")
	f.BoolVar(&s.TLSSkipVerify, "tls-skip-verify", false, "don't check the node's certificate: anybody can answer then (CONCLAVE_SKIP_VERIFY)")
	f.StringVar(&s.Format, "format", "", "`form` of the output: table, json or yaml (CONCLAVE_FORMAT; default table)")
	f.StringVar(&s.WrapTTL, "wrap-ttl", "", "wrap the answer in a single-use token that lives for this `duration` (CONCLAVE_WRAP_TTL)")
	f.StringArrayVar(&s.Headers, "header", nil, "`key=value` of a header to send; may be repeated")
	f.StringArrayVar(&s.MFA, "mfa", nil, "`METHOD:PASSCODE` of a second factor, for a login in one step; may be repeated (CONCLAVE_MFA)")
	f.BoolVar(&s.NonInteractive, "non-interactive", false, "never ask on the terminal")
}

// AddField gives cmd the flag that prints one field of the answer and nothing else.
func (s *Session) AddField(cmd *cobra.Command) {
	cmd.Flags().StringVar(&s.Field, "field", "", "print the value of this `field` alone")
}

// shared are the variables that may be written with CONCLAVE_ instead of VAULT_; the former win.
var shared = []string{"ADDR", "TOKEN", "NAMESPACE", "CACERT", "CACERT_BYTES", "CAPATH", "CLIENT_CERT", "CLIENT_KEY", "CLIENT_TIMEOUT",
	"TLS_SERVER_NAME", "SKIP_VERIFY", "FORMAT", "WRAP_TTL", "MAX_RETRIES", "RATE_LIMIT", "SRV_LOOKUP", "HTTP_PROXY", "PROXY_ADDR",
	"DISABLE_REDIRECTS"}

// AdoptEnvironment sets VAULT_X to what CONCLAVE_X is, for each variable that both programs have. The client library
// reads its settings from there.
func AdoptEnvironment() error {
	for _, name := range shared {
		if value := os.Getenv("CONCLAVE_" + name); value != "" {
			if err := os.Setenv("VAULT_"+name, value); err != nil {
				return err
			}
		}
	}
	return nil
}

// env is the variable CONCLAVE_name, or VAULT_name.
func (s *Session) env(name string) string {
	if value := s.Getenv("CONCLAVE_" + name); value != "" {
		return value
	}
	return s.Getenv("VAULT_" + name)
}

// TokenVariable names the variable that commands have their token from, if one is set.
func (s *Session) TokenVariable() string {
	for _, name := range []string{"CONCLAVE_TOKEN", "VAULT_TOKEN"} {
		if s.Getenv(name) != "" {
			return name
		}
	}
	return ""
}

// ShowsCertificate reports whether flags or environment name a certificate to show to nodes.
func (s *Session) ShowsCertificate() bool { return s.ClientCert != "" || s.env("CLIENT_CERT") != "" }

// Client connects as flags and environment say, with the token of the environment or the token file.
func (s *Session) Client() (*api.Client, error) {
	c, err := s.connect(s.Address)
	if err != nil {
		return nil, err
	}
	if c.Token() == "" {
		token, err := s.tokenFiles().Read()
		if err != nil {
			return nil, err
		}
		c.SetToken(token)
	}
	s.tokenless = c.Token() == ""
	return c, nil
}

// Connected is what a command runs that begins by connecting.
func (s *Session) Connected(run func(ctx context.Context, c *api.Client, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		c, err := s.Client()
		if err != nil {
			return err
		}
		return run(cmd.Context(), c, args)
	}
}

// ClientAt is Client with an address of its own.
func (s *Session) ClientAt(address string) (*api.Client, error) {
	c, err := s.Client()
	if err != nil {
		return nil, err
	}
	s.address = address
	return c, c.SetAddress(address)
}

func (s *Session) connect(address string) (*api.Client, error) {
	config := api.DefaultConfig()
	if config.Error != nil {
		return nil, localf("read the environment: %w", config.Error)
	}
	if address != "" {
		config.Address = address
	}
	if s.CACert != "" || s.CAPath != "" || s.ClientCert != "" || s.ClientKey != "" || s.TLSServerName != "" || s.TLSSkipVerify {
		err := config.ConfigureTLS(&api.TLSConfig{CACert: s.CACert, CAPath: s.CAPath, ClientCert: s.ClientCert, ClientKey: s.ClientKey,
			TLSServerName: s.TLSServerName, Insecure: s.TLSSkipVerify})
		if err != nil {
			return nil, localf("set up TLS: %w", err)
		}
	}
	c, err := api.NewClient(config)
	if err != nil {
		return nil, localf("set up the client: %w", err)
	}
	if s.env("MAX_RETRIES") == "" {
		c.SetMaxRetries(0) // whoever types a command sees an error at once and decides
	}
	s.address = c.Address()
	if ns := s.Namespace; ns != "" {
		c.SetNamespace(ns)
	} else if ns := s.env("NAMESPACE"); ns != "" {
		c.SetNamespace(ns)
	}
	if s.WrapTTL != "" {
		c.SetWrappingLookupFunc(func(string, string) string { return s.WrapTTL })
	}
	if factors := s.MFA; len(factors) > 0 {
		c.SetMFACreds(factors)
	} else if factor := s.env("MFA"); factor != "" {
		c.SetMFACreds([]string{factor})
	}
	for _, header := range s.Headers {
		key, value, ok := strings.Cut(header, "=")
		if !ok || key == "" || strings.HasPrefix(strings.ToLower(key), "x-vault-") {
			return nil, Usagef("-header is key=value, and the headers X-Vault-… have flags of their own")
		}
		c.AddHeader(key, value)
	}
	return c.WithResponseCallbacks(func(resp *api.Response) {
		s.requestID = resp.Header.Get("X-Request-Id")
	}), nil
}

// Request sends what the client library has no method for, and returns the parsed answer: nil for an empty one, and
// where nothing is to read, list or delete.
func Request(ctx context.Context, c *api.Client, method, path string, body any) (*api.Secret, error) {
	r := c.NewRequest(method, "/v1/"+path)
	if body != nil {
		if err := r.SetJSONBody(body); err != nil {
			return nil, err
		}
	}
	resp, err := c.RawRequestWithContext(ctx, r)
	if resp != nil {
		defer resp.Body.Close()
	}
	if changes := method == http.MethodPost || method == http.MethodPut || method == http.MethodPatch; resp != nil && resp.StatusCode == http.StatusNotFound && !changes {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return api.ParseSecret(resp.Body)
}

// PollEvery is how often commands that wait look again.
const PollEvery = 100 * time.Millisecond

// Pause waits for d, or for the end of ctx.
func Pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
