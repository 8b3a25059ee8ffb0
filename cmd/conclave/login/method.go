package login

import (
	"context"
	"errors"
	"io/fs"
	"strings"

	"conclave/cmd/conclave/client"

	"github.com/hashicorp/vault/api"
)

// attempt is one login by way of a method.
type attempt struct {
	s      *client.Session
	c      *api.Client
	mount  string         // where the method is mounted: auth/PATH/
	fields map[string]any // what the arguments say
}

// method is one way to log in.
type method struct {
	name  string
	login func(ctx context.Context, a *attempt) (*api.Secret, error)
	usage string
}

// serviceAccountToken is where Kubernetes puts the token of a pod's service account.
const serviceAccountToken = "/var/run/secrets/kubernetes.io/serviceaccount/token"

// methods are the ways to log in other than by token.
var methods = []method{
	{"approle", withSecret("secret_id", "Secret ID", "role_id"), `A machine logs in with the role-id of its role and a secret-id that it was given for it.

  conclave login -method=approle role_id=web secret_id=@secret-id

role_id     The role's identifier.
secret_id   What proves that the role is meant for this machine; asked for if it isn't given. Empty for a role without.`},
	{"cert", withCertificate, `Whoever holds the key of a TLS certificate that a role trusts logs in by connecting with it.

  conclave login -method=cert -client-cert=web.pem -client-key=web.key name=web

name        The role to log in with. Without a name the roles are tried in order.`},
	{"jwt", withSecret("jwt", "JWT", ""), `Whoever has a signed token (JWT) of an issuer that the mount trusts logs in with it.

  conclave login -method=jwt role=ci jwt=@token

role        The role to log in with; the mount's default_role if it isn't given.
jwt         The token; asked for if it isn't given.`},
	{"kubernetes", withServiceAccount, `A pod logs in with the token of its service account.

  conclave login -method=kubernetes role=web

role        The role to log in with.
jwt         The token; if it isn't given, that of the pod: ` + serviceAccountToken},
	{"ldap", withPassword("LOGNAME", "USER"), `A person whom a directory knows logs in with a name and a password.

  conclave login -method=ldap username=ann

username    The name in the directory; the name of this machine's user (LOGNAME) if it isn't given.
password    Asked for if it isn't given.`},
	{"oidc", withBrowser, `A person logs in to an OpenID provider with a browser, which this command opens and waits for.

  conclave login -method=oidc role=dev

role            The role to log in with; the mount's default_role if it isn't given. Its allowed_redirect_uris must have
                http://localhost:8250/oidc/callback, or what the fields below make of it.
skip_browser    true: show the address only, and open no browser.
listenaddress   Where to wait for the browser: localhost.
port            The port to wait at: 8250.
callbackmethod  The scheme of the address that the provider sends the browser back to: http.
callbackhost    The host of that address: localhost.
callbackport    The port of that address: port.`},
	{"okta", withPassword(), passwordUsage("okta", "an Okta organisation")},
	{"radius", withPassword(), passwordUsage("radius", "a RADIUS server")},
	{"userpass", withPassword(), passwordUsage("userpass", "the vault")},
}

func passwordUsage(name, who string) string {
	return "A person logs in with a name and a password that " + who + " knows.\n\n  conclave login -method=" + name + " username=ann\n\n" +
		"username    The name.\npassword    Asked for if it isn't given."
}

func find(name string) *method {
	for i := range methods {
		if methods[i].name == strings.ToLower(name) {
			return &methods[i]
		}
	}
	return nil
}

// names are those that -method takes.
func names() []string {
	all := []string{"token"}
	for _, m := range methods {
		all = append(all, m.name)
	}
	return all
}

// field is a field that the arguments give, once.
func (a *attempt) field(name string) (string, error) {
	switch value := a.fields[name].(type) {
	case nil:
		return "", nil
	case string:
		return value, nil
	case []any:
		return "", client.Usagef("%s is given more than once", name)
	default:
		return client.Text(value), nil
	}
}

// ask makes sure that a field has a value, which is a secret.
func (a *attempt) ask(name, question string) error {
	if _, given := a.fields[name]; given {
		return nil
	}
	secret, err := a.s.Prompt(question)
	a.fields[name] = secret
	return err
}

// send writes the fields to a route of the mount.
func (a *attempt) send(ctx context.Context, route string) (*api.Secret, error) {
	return a.c.Logical().WriteWithContext(ctx, a.mount+route, a.fields)
}

// login writes the fields to the route that logs in.
func (a *attempt) login(ctx context.Context) (*api.Secret, error) { return a.send(ctx, "login") }

// withPassword logs in below a name; where it isn't given, the variables are asked for it.
func withPassword(variables ...string) func(ctx context.Context, a *attempt) (*api.Secret, error) {
	return func(ctx context.Context, a *attempt) (*api.Secret, error) {
		name, err := a.field("username")
		if err != nil {
			return nil, err
		}
		for _, variable := range variables {
			if name == "" {
				name = a.s.Getenv(variable)
			}
		}
		if name == "" {
			return nil, client.Usagef("a name is needed: username=NAME")
		}
		delete(a.fields, "username")
		if err := a.ask("password", "Password"); err != nil {
			return nil, err
		}
		return a.send(ctx, "login/"+name)
	}
}

// withSecret logs in with a secret, and with another field where it is needed beside it.
func withSecret(name, question, needed string) func(ctx context.Context, a *attempt) (*api.Secret, error) {
	return func(ctx context.Context, a *attempt) (*api.Secret, error) {
		if _, given := a.fields[needed]; !given && needed != "" {
			return nil, client.Usagef("%s is needed: %s=…", needed, needed)
		}
		if err := a.ask(name, question); err != nil {
			return nil, err
		}
		return a.login(ctx)
	}
}

func withServiceAccount(ctx context.Context, a *attempt) (*api.Secret, error) {
	if _, given := a.fields["jwt"]; !given {
		token, err := a.s.Secret("@"+serviceAccountToken, "")
		if errors.Is(err, fs.ErrNotExist) {
			return nil, client.Usagef("this isn't a pod: give the token of a service account, jwt=@FILE")
		}
		if err != nil {
			return nil, err
		}
		a.fields["jwt"] = token
	}
	return a.login(ctx)
}

func withCertificate(ctx context.Context, a *attempt) (*api.Secret, error) {
	if !a.s.ShowsCertificate() {
		return nil, client.Usagef("there is no certificate to log in with: -client-cert=FILE -client-key=FILE")
	}
	return a.login(ctx)
}
