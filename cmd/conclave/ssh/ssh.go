// Package ssh is the command that logs in to a server by SSH with what the vault gives: a signed key, or a password that
// works once.
package ssh

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strings"

	"conclave/cmd/conclave/client"

	"github.com/hashicorp/vault/api"
	"github.com/spf13/cobra"
)

// options are the flags, named as Vault's are.
type options struct {
	mode, role, mount      string
	noExec                 bool
	strict, knownHosts     string
	publicKey, privateKey  string
	principals, extensions string
	hostMount, hostNames   string
	executable             string
}

// login is one login: what is asked of the vault, and what ssh is started with.
type login struct {
	options
	session    *client.Session
	vault      *api.Client
	user, host string
	arguments  []string // for ssh, as they came
	dir        string   // for files that the login needs
}

const long = `Log in to a server with what the vault gives. What follows the server's name is for ssh, as it is.

Mode ca has a public key signed and logs in with it: -role names a role of type ca. The user is asked for as the
certificate's principal. With -host-key-mount-point, the server must show a host key that the authority of that mount
has signed.

Mode otp gets a password that works once, for a server whose name or address the role allows. If sshpass is installed
it enters the password; otherwise the password is shown, to be typed.`

// Command is the command.
func Command(s *client.Session) *cobra.Command {
	o := options{}
	cmd := &cobra.Command{
		Use: "ssh -mode=MODE -role=ROLE [USER@]SERVER [ARGUMENTS OF SSH]", Short: "Log in to a server with a signed key or a one-time password", Long: long,
		Example:     "  conclave ssh -mode=ca -role=ops deploy@server.example.com\n  conclave ssh -mode=otp -role=legacy ubuntu@192.0.2.17 uptime",
		Annotations: map[string]string{client.Foreign: "true"}, Args: cobra.MinimumNArgs(1),
		RunE: s.Connected(func(ctx context.Context, c *api.Client, args []string) error { return run(ctx, s, c, o, args) }),
	}
	f := cmd.Flags()
	f.SetInterspersed(false)
	f.StringVar(&o.mode, "mode", "", "ca or otp")
	f.StringVar(&o.role, "role", "", "`name` of the role")
	f.StringVar(&o.mount, "mount-point", "ssh/", "`path` of the engine")
	f.BoolVar(&o.noExec, "no-exec", false, "show what the vault gives, and don't start ssh")
	f.StringVar(&o.strict, "strict-host-key-checking", "ask", "`value` for ssh's StrictHostKeyChecking")
	f.StringVar(&o.knownHosts, "user-known-hosts-file", "", "`file` for ssh's UserKnownHostsFile; default: ssh's own")
	f.StringVar(&o.publicKey, "public-key-path", "", "`file` of the public key to have signed; default: the first of ~/.ssh/id_ed25519.pub, id_ecdsa.pub and id_rsa.pub")
	f.StringVar(&o.privateKey, "private-key-path", "", "`file` of the private key; default: that of the public key without .pub")
	f.StringVar(&o.principals, "valid-principals", "", "`names` that the certificate is for, with commas; default: the user")
	f.StringVar(&o.extensions, "extensions", "", "`names` of the certificate's extensions, with commas; default: the role's")
	f.StringVar(&o.hostMount, "host-key-mount-point", "", "`path` of the engine whose authority has signed the server's host key")
	f.StringVar(&o.hostNames, "host-key-hostnames", "*", "`names` of servers that this authority is trusted for, with commas")
	f.StringVar(&o.executable, "ssh-executable", "ssh", "`program` to start")
	s.AddField(cmd)
	return cmd
}

func run(ctx context.Context, s *client.Session, c *api.Client, o options, args []string) (err error) {
	if o.role == "" {
		return client.Usagef("name a role: -role=ROLE")
	}
	l := &login{options: o, session: s, vault: c, arguments: args[1:]}
	if l.user, l.host, err = split(args[0]); err != nil {
		return err
	}
	if l.dir, err = os.MkdirTemp("", "conclave-ssh-"); err != nil {
		return client.Usagef("make a directory for the login: %w", err)
	}
	defer func() { _ = os.RemoveAll(l.dir) }()
	switch o.mode {
	case "ca":
		return l.withKey(ctx)
	case "otp":
		return l.withPassword(ctx)
	}
	return client.Usagef("name a mode: -mode=ca or -mode=otp")
}

// split takes a server's name apart. Without a user it is the one at the terminal. What begins with a dash would be an
// option of ssh.
func split(name string) (login, host string, err error) {
	at := strings.LastIndexByte(name, '@')
	if at >= 0 {
		login, host = name[:at], name[at+1:]
	} else {
		host = name
		current, err := user.Current()
		if err != nil {
			return "", "", client.Usagef("name the user: USER@SERVER")
		}
		login = current.Username
	}
	if login == "" || host == "" || strings.HasPrefix(host, "-") || strings.HasPrefix(login, "-") {
		return "", "", client.Usagef("name the server: [USER@]SERVER")
	}
	return login, host, nil
}

func (l *login) path(operation, role string) string {
	return strings.Trim(l.mount, "/") + "/" + operation + "/" + role
}

// ask sends a request, and wants an answer with data.
func (l *login) ask(ctx context.Context, method, path string, body any) (*api.Secret, error) {
	secret, err := client.Request(ctx, l.vault, method, path, body)
	if err != nil {
		return nil, err
	}
	if secret == nil || secret.Data == nil {
		return nil, client.Remotef("the vault answered nothing for %s", path)
	}
	return secret, nil
}

// keys finds the files of the key pair.
func (l *login) keys() (public, private string, err error) {
	public = l.publicKey
	if public == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", "", client.Usagef("name the key: -public-key-path=FILE")
		}
		names := []string{"id_ed25519.pub", "id_ecdsa.pub", "id_rsa.pub"}
		at := slices.IndexFunc(names, func(name string) bool {
			_, err := os.Stat(filepath.Join(home, ".ssh", name))
			return err == nil
		})
		if at < 0 {
			return "", "", client.Usagef("there is no key in ~/.ssh: make one with ssh-keygen, or name one with -public-key-path=FILE")
		}
		public = filepath.Join(home, ".ssh", names[at])
	}
	private = l.privateKey
	if private == "" {
		trimmed, ok := strings.CutSuffix(public, ".pub")
		if !ok {
			return "", "", client.Usagef("name the private key: -private-key-path=FILE")
		}
		private = trimmed
	}
	return public, private, nil
}

func (l *login) withKey(ctx context.Context) error {
	public, private, err := l.keys()
	if err != nil {
		return err
	}
	text, err := os.ReadFile(public)
	if err != nil {
		return client.Usagef("read the public key: %w", err)
	}
	principals := l.principals
	if principals == "" {
		principals = l.user
	}
	fields := map[string]any{"public_key": string(text), "valid_principals": principals, "cert_type": "user"}
	if l.extensions != "" {
		extensions := map[string]string{}
		for name := range strings.SplitSeq(l.extensions, ",") {
			extensions[strings.TrimSpace(name)] = ""
		}
		fields["extensions"] = extensions
	}
	secret, err := l.ask(ctx, http.MethodPut, l.path("sign", l.role), fields)
	if err != nil {
		return err
	}
	if l.noExec {
		return l.session.PrintSecret(secret)
	}
	signed, _ := secret.Data["signed_key"].(string)
	if signed == "" {
		return client.Remotef("the vault answered no signed key")
	}
	certificate := filepath.Join(l.dir, "id-cert.pub")
	if err := os.WriteFile(certificate, []byte(signed), 0o600); err != nil {
		return client.Usagef("keep the signed key: %w", err)
	}
	known, err := l.trustHosts(ctx)
	if err != nil {
		return err
	}
	arguments := []string{"-i", private, "-o", "CertificateFile=" + certificate, "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=" + l.strict}
	if known != "" {
		arguments = append(arguments, "-o", "UserKnownHostsFile="+known)
	}
	return l.start(ctx, l.executable, arguments, nil)
}

// trustHosts is the file of known hosts: the one that was named, or one that has the authority for host keys.
func (l *login) trustHosts(ctx context.Context) (string, error) {
	if l.hostMount == "" {
		return l.knownHosts, nil
	}
	secret, err := l.ask(ctx, http.MethodGet, strings.Trim(l.hostMount, "/")+"/config/ca", nil)
	if err != nil {
		return "", err
	}
	key, _ := secret.Data["public_key"].(string)
	if key == "" || strings.ContainsAny(strings.TrimSpace(key), "\r\n") || strings.ContainsAny(l.hostNames, " \t\r\n") {
		return "", client.Remotef("the vault answered no key that host keys are signed with")
	}
	file := filepath.Join(l.dir, "known_hosts")
	if err := os.WriteFile(file, []byte("@cert-authority "+l.hostNames+" "+strings.TrimSpace(key)+"\n"), 0o600); err != nil {
		return "", client.Usagef("keep the key of the authority: %w", err)
	}
	return file, nil
}

func (l *login) withPassword(ctx context.Context) error {
	address := l.host
	if net.ParseIP(address) == nil {
		addresses, err := net.DefaultResolver.LookupIP(ctx, "ip", l.host)
		if err != nil || len(addresses) == 0 {
			return client.Usagef("%s has no address that is known here", l.host)
		}
		address = addresses[0].String()
	}
	secret, err := l.ask(ctx, http.MethodPut, l.path("creds", l.role), map[string]any{"username": l.user, "ip": address})
	if err != nil {
		return err
	}
	if l.noExec {
		return l.session.PrintSecret(secret)
	}
	password, _ := secret.Data["key"].(string)
	if password == "" {
		return client.Remotef("the vault answered no password")
	}
	arguments := []string{"-o", "StrictHostKeyChecking=" + l.strict}
	if l.knownHosts != "" {
		arguments = append(arguments, "-o", "UserKnownHostsFile="+l.knownHosts)
	}
	if port := client.Text(secret.Data["port"]); port != "" && port != "22" && !slices.ContainsFunc(l.arguments, func(a string) bool { return strings.HasPrefix(a, "-p") }) {
		arguments = append(arguments, "-p", port)
	}
	helper, err := exec.LookPath("sshpass")
	if err != nil {
		if _, err := l.session.Err.Write([]byte("The password, which works once: " + password + "\n(It is entered for you if sshpass is installed.)\n")); err != nil {
			return err
		}
		return l.start(ctx, l.executable, arguments, nil)
	}
	// The password goes through the environment: arguments are for all to see who are on this machine.
	return l.start(ctx, helper, append([]string{"-e", l.executable}, arguments...), []string{"SSHPASS=" + password})
}

// start runs a program with the terminal, and ends as it does. ssh takes its own options after the
// server's name, too.
func (l *login) start(ctx context.Context, program string, arguments, environment []string) error {
	arguments = append(arguments, "-l", l.user, l.host)
	cmd := exec.CommandContext(ctx, program, append(arguments, l.arguments...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = l.session.In, l.session.Out, l.session.Err
	cmd.Env = append(os.Environ(), environment...)
	err := cmd.Run()
	if ended, ok := errors.AsType[*exec.ExitError](err); ok && ended.ExitCode() > 0 {
		return &client.ExitError{Code: ended.ExitCode()}
	}
	if err != nil {
		return client.Usagef("start %s: %w", program, err)
	}
	return nil
}
