package client

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"

	"github.com/hashicorp/vault/api"
)

// Exit codes, as Vault's.
const (
	ExitLocal  = 1 // wrong flags or arguments, unreadable files: nothing was sent
	ExitRemote = 2 // the vault refused, has nothing there, or can't be reached
)

// ExitError is an error that the program ends with. A nil Err prints nothing.
type ExitError struct {
	Code int
	Err  error
}

func (e *ExitError) Error() string {
	if e.Err == nil {
		return ""
	}
	return e.Err.Error()
}

// Unwrap returns what went wrong.
func (e *ExitError) Unwrap() error { return e.Err }

// Usagef is an error in how the command was called.
func Usagef(format string, args ...any) error {
	return &ExitError{ExitLocal, fmt.Errorf(format, args...)}
}

func localf(format string, args ...any) error { return Usagef(format, args...) }

// Remotef is an error of what was asked for: it isn't there, it isn't as expected.
func Remotef(format string, args ...any) error {
	return &ExitError{ExitRemote, fmt.Errorf(format, args...)}
}

// ExitCode is what the program ends with for err.
func ExitCode(err error) int {
	if err == nil {
		return 0
	}
	if e, ok := errors.AsType[*ExitError](err); ok {
		return e.Code
	}
	if _, ok := errors.AsType[*api.ResponseError](err); ok {
		return ExitRemote
	}
	if _, ok := errors.AsType[*url.Error](err); ok {
		return ExitRemote
	}
	return ExitLocal
}

// Explain is err as the person at the terminal reads it: what happened, and what can be done. It is empty for an
// error that has nothing to print.
func (s *Session) Explain(err error) string {
	text := strings.TrimRight(err.Error(), "\n")
	if text == "" {
		return ""
	}
	if answer, ok := errors.AsType[*api.ResponseError](err); ok {
		text = describe(answer)
		if s.requestID != "" {
			text += "\nRequest: " + s.requestID
		}
	}
	if hint := s.hint(err); hint != "" {
		text += "\n\n" + hint
	}
	return text
}

func describe(e *api.ResponseError) string {
	var b strings.Builder
	fmt.Fprintf(&b, "the vault answered %d %s\n\n", e.StatusCode, http.StatusText(e.StatusCode))
	if e.NamespacePath != "" && e.NamespacePath != "root/" {
		fmt.Fprintf(&b, "Namespace: %s\n", e.NamespacePath)
	}
	fmt.Fprintf(&b, "URL: %s %s", e.HTTPMethod, e.URL)
	for _, line := range e.Errors {
		fmt.Fprintf(&b, "\n* %s", strings.TrimSpace(line))
	}
	return b.String()
}

// hint says what to do about err, or nothing.
func (s *Session) hint(err error) string {
	if answer, ok := errors.AsType[*api.ResponseError](err); ok {
		if answer.StatusCode == http.StatusForbidden && strings.Contains(answer.URL, "/v1/auth/") && strings.Contains(answer.URL, "/login") {
			return "Nobody is let in there now: the account may be locked for a while after wrong guesses, or this address not allowed."
		}
		if answer.StatusCode == http.StatusForbidden && strings.HasSuffix(answer.URL, "/v1/sys/mfa/validate") {
			return "A passcode is good once, and for about half a minute: log in again with the next one. Wrong ones lock the factor for a while."
		}
		if answer.StatusCode == http.StatusForbidden && s.tokenless {
			return "No token was sent. Log in with `conclave login`, or set CONCLAVE_TOKEN."
		}
		return answerHint(answer)
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return "The node's certificate is signed by a CA that this machine doesn't know. Name its file: -ca-cert=FILE, or the variable CONCLAVE_CACERT."
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return "The node's certificate is for another name. Use that name in -address, or give it with -tls-server-name."
	}
	if _, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		return "The node's certificate can't be used. `openssl x509 -noout -dates -in FILE` shows when it expires; renew it and send the server SIGHUP."
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return "The host's name can't be found. Check the address " + s.address + ": -address, or the variable CONCLAVE_ADDR."
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return "Nothing listens at " + s.address + ". Start a server (`conclave server -config FILE`, or a lab: `conclave local up`), or name another node: -address, CONCLAVE_ADDR."
	}
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		return "The node at " + s.address + " didn't answer in time. Ask another one: -address, or the variable CONCLAVE_ADDR."
	}
	switch text := err.Error(); {
	case strings.Contains(text, "server gave HTTP response to HTTPS client"):
		return "The node speaks plain HTTP. Use http:// in -address or CONCLAVE_ADDR, if that is meant."
	case strings.Contains(text, "malformed HTTP response") && strings.Contains(text, `\x15\x03`):
		return "The node speaks TLS. Use https:// in -address or CONCLAVE_ADDR."
	case strings.Contains(text, "certificate required"):
		return "The node asks for a client certificate: -client-cert and -client-key."
	}
	return ""
}

func answerHint(e *api.ResponseError) string {
	said := strings.ToLower(strings.Join(e.Errors, "\n"))
	switch e.StatusCode {
	case http.StatusForbidden:
		switch {
		case strings.Contains(said, "bad token"), strings.Contains(said, "missing client token"), strings.Contains(said, "invalid token"),
			strings.HasSuffix(e.URL, "/auth/token/lookup-self"):
			return "The token is missing, expired or revoked. Log in with `conclave login`, or set CONCLAVE_TOKEN."
		case strings.Contains(said, "preflight"):
			return "Nothing is mounted there, or nothing that this token may see. `conclave secrets list` shows what is."
		}
		return "The token isn't good any more, or its policies don't allow this. `conclave token lookup` shows whose it is, `conclave token capabilities PATH` what it may do there. Who may ask learns more from `conclave why` and the request's id."
	case http.StatusServiceUnavailable:
		switch {
		case strings.Contains(said, "sealed"):
			return "The vault is sealed. Open it with `conclave operator unseal`, once per share holder, on any node."
		case strings.Contains(said, "initialized") || strings.Contains(said, "initialised"):
			return "The vault has not been initialised. Do it once, on any node: `conclave operator init`."
		case strings.Contains(said, "locked by"):
			return "Somebody has locked the namespace. `conclave namespace unlock` lets requests in again, for whoever has the key."
		}
		return "Nothing was done. Try again in a moment; `conclave status` and `conclave operator raft list-peers` show how the cluster is."
	case http.StatusMethodNotAllowed:
		return "The path exists, but not this operation. `conclave path-help PATH` shows what there is."
	case http.StatusTooManyRequests:
		return "Too many requests. Try again in a moment."
	case http.StatusBadRequest:
		if strings.Contains(said, "http request to an https server") {
			return "The node speaks TLS. Use https:// in -address or CONCLAVE_ADDR."
		}
		if strings.Contains(said, "wrapping token") {
			return "A wrapping token works once, and not for long. If nobody on your side has used this one, take what it held for known to others."
		}
		if strings.Contains(said, "not initialized") || strings.Contains(said, "not initialised") {
			return "The vault has not been initialised. Do it once, on any node: `conclave operator init`."
		}
	case http.StatusNotFound:
		if strings.Contains(said, "no handler") || strings.Contains(said, "unsupported path") {
			return "Nothing is mounted there. `conclave secrets list` shows what is."
		}
	}
	return ""
}
