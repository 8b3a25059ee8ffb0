package ldap

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"

	ldapv3 "github.com/go-ldap/ldap/v3"

	"conclave"
)

// Limits of what a directory may cost.
const (
	loginTime  = 10 * time.Second // of one login, whatever the configuration says
	maxAnswers = 8 << 20          // bytes that a directory may send in one login
)

var (
	errUnreachable = conclave.Errorf(conclave.Unavailable, "ldap operation failed: the directory can't be reached or gives no answer")
	errAccount     = conclave.Errorf(conclave.Unavailable, "ldap operation failed: the directory refuses the account that searches")
	errTooMuch     = errors.New("the directory sends too much")
)

// directory is one connection to a directory. Errors of its methods are the client's: they say no more than who is at
// fault.
type directory struct {
	*config
	conn *ldapv3.Conn
	stop func() bool
}

// connect tries the servers in turn. The connection lives no longer than ctx.
func (c *config) connect(ctx context.Context) (*directory, error) {
	servers, err := c.servers()
	if err != nil {
		return nil, err
	}
	limit := loginTime / time.Duration(len(servers)+1) // so that one that is silent leaves time for the others
	if asked := c.ConnectionTimeout.Duration(); asked > 0 {
		limit = min(limit, asked)
	}
	for _, at := range servers {
		conn, err := c.dial(ctx, at, limit)
		if err != nil {
			continue
		}
		d := &directory{config: c, conn: conn}
		d.stop = context.AfterFunc(ctx, func() { _ = conn.Close() })
		return d, nil
	}
	return nil, errUnreachable
}

func (c *config) dial(ctx context.Context, at server, limit time.Duration) (*ldapv3.Conn, error) {
	secured, err := c.tls(at.host)
	if err != nil {
		return nil, err
	}
	connecting, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var dialer net.Dialer
	raw, err := dialer.DialContext(connecting, "tcp", at.address)
	if err != nil {
		return nil, err
	}
	if deadline, ok := connecting.Deadline(); ok {
		_ = raw.SetDeadline(deadline)
	}
	bounded := &bounded{Conn: raw}
	bounded.left.Store(maxAnswers)
	var conn *ldapv3.Conn
	if at.isTLS {
		encrypted := tls.Client(bounded, secured)
		if err := encrypted.HandshakeContext(connecting); err != nil {
			_ = raw.Close()
			return nil, err
		}
		conn = ldapv3.NewConn(encrypted, true)
	} else {
		conn = ldapv3.NewConn(bounded, false)
	}
	conn.SetTimeout(c.answerTime())
	conn.Start()
	if !at.isTLS && c.StartTLS {
		if err := conn.StartTLS(secured); err != nil {
			_ = conn.Close()
			return nil, err
		}
	}
	if deadline, ok := ctx.Deadline(); ok {
		_ = raw.SetDeadline(deadline)
	}
	return conn, nil
}

func (c *config) answerTime() time.Duration {
	if limit := c.RequestTimeout.Duration(); limit > 0 {
		return min(limit, loginTime)
	}
	return loginTime
}

func (d *directory) close() {
	d.stop()
	_ = d.conn.Close()
}

// bounded is a connection that ends when its peer has sent too much.
type bounded struct {
	net.Conn
	left atomic.Int64
}

var _ io.Reader = (*bounded)(nil)

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.Conn.Read(p)
	if b.left.Add(-int64(n)) < 0 {
		return 0, errTooMuch
	}
	return n, err
}

// bindAccount makes the connection that of the account that searches, or nobody's.
func (d *directory) bindAccount() error {
	err := error(nil)
	if d.BindPass != "" {
		err = d.conn.Bind(d.BindDN, d.BindPass)
	} else {
		err = d.conn.UnauthenticatedBind(d.BindDN)
	}
	switch {
	case err == nil:
		return nil
	case isOutOfOrder(err):
		return errUnreachable
	}
	return errAccount
}

// bindUser reports whether a password is the one of an entry. An empty one never is.
func (d *directory) bindUser(dn, password string) (bool, error) {
	if password == "" || dn == "" {
		return false, nil
	}
	err := d.conn.Bind(dn, password)
	if err != nil && isOutOfOrder(err) {
		return false, errUnreachable
	}
	return err == nil, nil
}

// isOutOfOrder tells a directory that doesn't work, or isn't asked as it wants to be, from one that says no.
func isOutOfOrder(err error) bool {
	failure, ok := errors.AsType[*ldapv3.Error](err)
	if !ok {
		return true
	}
	switch failure.ResultCode {
	case ldapv3.ErrorNetwork, ldapv3.ErrorUnexpectedMessage, ldapv3.ErrorUnexpectedResponse, ldapv3.LDAPResultOperationsError,
		ldapv3.LDAPResultProtocolError, ldapv3.LDAPResultTimeLimitExceeded, ldapv3.LDAPResultTimeout, ldapv3.LDAPResultServerDown,
		ldapv3.LDAPResultConfidentialityRequired, ldapv3.LDAPResultStrongAuthRequired, ldapv3.LDAPResultAuthMethodNotSupported,
		ldapv3.LDAPResultBusy, ldapv3.LDAPResultUnavailable, ldapv3.LDAPResultOther:
		return true
	}
	return false
}

// search is a search for at most limit entries below base, or for base itself. What isn't there is no entries. Of the
// entries that a directory finds elsewhere it only sends referrals, which are left alone.
func (d *directory) search(base string, scope int, filter string, limit int, attributes ...string) ([]*ldapv3.Entry, error) {
	request := &ldapv3.SearchRequest{BaseDN: base, Scope: scope, DerefAliases: derefs[d.DereferenceAliases], SizeLimit: limit + 1,
		TimeLimit: int(d.answerTime() / time.Second), Filter: filter, Attributes: attributes, EnforceSizeLimit: true}
	ask := d.conn.Search
	if d.MaxPageSize > 0 && scope != ldapv3.ScopeBaseObject && limit > 1 {
		request.SizeLimit = 0 // of pages, not of the whole
		ask = func(r *ldapv3.SearchRequest) (*ldapv3.SearchResult, error) {
			return d.conn.SearchWithPaging(r, uint32(d.MaxPageSize))
		}
	}
	result, err := ask(request)
	switch {
	case err == nil && len(result.Entries) <= limit:
		return result.Entries, nil
	case err == nil, errors.Is(err, ldapv3.ErrSizeLimitExceeded), ldapv3.IsErrorWithCode(err, ldapv3.LDAPResultSizeLimitExceeded):
		return nil, errTooMany
	case isOutOfOrder(err):
		return nil, errUnreachable
	}
	return nil, nil // there is no such base, or the account may not see it
}

// errTooMany is more entries than asked for.
var errTooMany = conclave.Errorf(conclave.Unavailable, "ldap operation failed: the directory finds too many entries")
