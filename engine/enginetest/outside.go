package enginetest

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"sync"
	"time"

	"conclave"
)

// Outside is a world beside the vault, in which an engine makes accounts and ends them: for tests of leases. It fails on
// demand. It is safe for concurrent use.
type Outside struct {
	mu       sync.Mutex // guards all below
	made     int
	accounts map[string]bool // name → it is there
	ended    int             // calls to end one
	fail     error
	hang     bool
	clings   string
	then     func(ctx context.Context, name string) error // after an account with an intent was made
	handled  func()                                       // while a request for such an account is handled
	chore    func(ctx context.Context, name string) error // the outside part of chores
	chores   map[string]int                               // name → how often that was run
}

// NewOutside returns a world without accounts.
func NewOutside() *Outside { return &Outside{accounts: map[string]bool{}} }

// Fail has all attempts to end accounts fail with err, from now on; nil lets them succeed.
func (o *Outside) Fail(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.fail = err
}

// Hang has attempts to end accounts take as long as they may.
func (o *Outside) Hang(hang bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.hang = hang
}

// Cling has the engine fail to forget an account that was ended; "" is none.
func (o *Outside) Cling(name string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.clings = name
}

func (o *Outside) clingsTo(name string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.clings == name
}

// Accounts are the names of the accounts that are there, in order.
func (o *Outside) Accounts() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	names := make([]string, 0, len(o.accounts))
	for name := range o.accounts {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Attempts is how often the engine was asked to end an account.
func (o *Outside) Attempts() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.ended
}

func (o *Outside) make() string {
	name := o.name()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.accounts[name] = true
	return name
}

// name is one that no account has had.
func (o *Outside) name() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.made++
	return "account-" + strconv.Itoa(o.made)
}

// Furnish has what is given run once an account with an intent was made, before anybody knows; an error is the
// preparation's.
func (o *Outside) Furnish(then func(ctx context.Context, name string) error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.then = then
}

// Handled has what is given run whenever a request for an account with an intent is handled, before its answer is committed.
func (o *Outside) Handled(then func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.handled = then
}

func (o *Outside) tell() {
	o.mu.Lock()
	then := o.handled
	o.mu.Unlock()
	if then != nil {
		then()
	}
}

func (o *Outside) furnish(ctx context.Context, name string) error {
	o.mu.Lock()
	o.accounts[name] = true
	then := o.then
	o.mu.Unlock()
	if then == nil {
		return nil
	}
	return then(ctx, name)
}

func (o *Outside) end(ctx context.Context, name string) error {
	o.mu.Lock()
	o.ended++
	fail, hang := o.fail, o.hang
	if fail == nil && !hang {
		delete(o.accounts, name)
	}
	o.mu.Unlock()
	if hang {
		<-ctx.Done()
		return ctx.Err()
	}
	return fail
}

// Plugin is a secrets engine of the given kind that makes accounts there: read creds/{role}.
func (o *Outside) Plugin(kind string) conclave.Plugin {
	return conclave.Plugin{Kind: kind, Doc: "Accounts that last as long as their leases.",
		Open: func(map[string]string) (conclave.Engine, error) { return &lodging{kind, o}, nil }}
}

// lodging is the engine.
type lodging struct {
	kind    string
	outside *Outside
}

var _ conclave.Leaser = (*lodging)(nil)

func (l *lodging) Kind() string { return l.kind }

type credsInput struct {
	Role   string        `path:"role" doc:"Whatever the account is for."`
	TTL    time.Duration `json:"ttl" doc:"How long it lasts."`
	MaxTTL time.Duration `json:"max_ttl" doc:"How long it can last with all renewals."`
}

type account struct {
	Name string `json:"name"`
}

func (l *lodging) Routes() []conclave.Route {
	creds := conclave.WriteRoute(conclave.Read, "creds/{role}", "Make an account.", func(ctx context.Context, tx conclave.Tx, in *credsInput) (*conclave.Response, error) {
		name, _ := conclave.Prepared[string](ctx)
		data, err := json.Marshal(account{name})
		if err != nil {
			return nil, err
		}
		if err := tx.Put("account/"+name, data); err != nil {
			return nil, err
		}
		return &conclave.Response{Data: account{name}, Lease: &conclave.Lease{TTL: in.TTL, MaxTTL: in.MaxTTL, Renewable: true, Data: data}}, nil
	})
	creds.Prepare = func(context.Context, *conclave.Request, any) (any, error) { return l.outside.make(), nil }
	return append([]conclave.Route{creds, l.suites()}, l.chores()...)
}

// suites is the same with an intent: the account's name is known before it is made.
func (l *lodging) suites() conclave.Route {
	suites := conclave.WriteRoute(conclave.Read, "suites/{role}", "Make an account that never lives without a lease.", func(ctx context.Context, tx conclave.Tx, in *credsInput) (*conclave.Response, error) {
		name, _ := conclave.Prepared[string](ctx)
		l.outside.tell()
		return &conclave.Response{Data: account{name}, Lease: &conclave.Lease{TTL: in.TTL, MaxTTL: in.MaxTTL, Renewable: true}}, tx.Put("suite/"+in.Role, []byte(name))
	})
	suites.Gather = func(view conclave.View, in any) (any, error) { return view.Get("suite/" + in.(*credsInput).Role) }
	suites.Intend = func(_ context.Context, tx conclave.Tx, _ any) (*conclave.Intent, error) {
		name := l.outside.name()
		data, err := json.Marshal(account{name})
		if err != nil {
			return nil, err
		}
		return &conclave.Intent{Lease: &conclave.Lease{Data: data}, Value: name}, tx.Put("account/"+name, data)
	}
	suites.Prepare = func(ctx context.Context, _ *conclave.Request, _ any) (any, error) {
		intent, _ := conclave.Intended(ctx)
		name, _ := intent.Value.(string)
		return name, l.outside.furnish(ctx, name)
	}
	return suites
}

func (l *lodging) RenewLease(_ context.Context, view conclave.View, lease *conclave.GrantedLease, _ time.Duration) (*conclave.Lease, error) {
	var a account
	if err := json.Unmarshal(lease.Data, &a); err != nil {
		return nil, err
	}
	if known, err := view.Get("account/" + a.Name); err != nil || known == nil {
		return nil, conclave.Errorf(conclave.Invalid, "there is no such account")
	}
	return &conclave.Lease{Renewable: true}, nil
}

func (l *lodging) GatherRevoke(view conclave.View, lease *conclave.GrantedLease) (any, error) {
	var a account
	if err := json.Unmarshal(lease.Data, &a); err != nil {
		return nil, err
	}
	_, err := view.Get("account/" + a.Name)
	return a.Name, err
}

func (l *lodging) Revoke(ctx context.Context, _ *conclave.GrantedLease, gathered any) error {
	name, _ := gathered.(string)
	return l.outside.end(ctx, name)
}

func (l *lodging) ForgetLease(tx conclave.Tx, lease *conclave.GrantedLease) error {
	var a account
	if err := json.Unmarshal(lease.Data, &a); err != nil {
		return err
	}
	if l.outside.clingsTo(a.Name) {
		return conclave.Errorf(conclave.Unavailable, "the account can't be forgotten")
	}
	return tx.Delete("account/" + a.Name)
}
