package ldap

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	ldapv3 "github.com/go-ldap/ldap/v3"

	"conclave"
)

const (
	maxPassword = 4096     // bytes
	maxOrigin   = 12 << 10 // bytes of a user's groups that a token keeps
)

const loginDoc = `Log in with the password that the directory has for a user.
Who isn't in the directory is answered as who has another password.`

var (
	errLogin      = conclave.Errorf(conclave.Invalid, "ldap operation failed: failed to bind as user")
	errNotReady   = conclave.Errorf(conclave.Invalid, "ldap backend not configured")
	errEmpty      = conclave.Errorf(conclave.Invalid, "password cannot be of zero length when passwordless binds are being denied")
	errDenied     = conclave.Errorf(conclave.Denied, "permission denied")
	errPolicies   = conclave.Errorf(conclave.Invalid, "policies have changed, not renewing")
	errUserGone   = conclave.Errorf(conclave.Invalid, "the directory doesn't know the user any more, not renewing")
	errLoginAgain = conclave.Errorf(conclave.Invalid, "the auth method isn't configured any more, or the user has too many groups: log in again")
)

type loginIn struct {
	Username string          `path:"username" doc:"The user's name."`
	Password conclave.Secret `json:"password" doc:"The user's password."`
}

// member is who the directory says has logged in. Names are in their one spelling.
type member struct {
	name   string // by which users/ knows the user
	alias  string // by which the identity store does
	groups []string
}

// origin is what a token keeps of its login.
type origin struct {
	Name     string   `json:"name"`
	Groups   []string `json:"groups"` // of the directory; null if they were too long to keep
	Policies []string `json:"policies"`
}

// guessed names the account whose password is tried. Case never counts here: to guess at two accounts that differ in case
// alone counts for both.
func guessed(_ *conclave.Request, in any) string {
	name, _ := spelling(in.(*loginIn).Username, false)
	return name
}

func gatherLogin(view conclave.View, _ any) (any, error) {
	c, err := loadConfig(view)
	if err != nil {
		return nil, err
	}
	if c == nil {
		return nil, errNotReady
	}
	if !conclave.MayComeFrom(c.BoundCIDRs, view.Request().Remote.Addr()) {
		return nil, errDenied
	}
	return c, nil
}

// askDirectory has the directory judge the password, and asks it for the user's groups.
func askDirectory(ctx context.Context, _ *conclave.Request, in any) (any, error) {
	c, ok := conclave.Gathered[*config](ctx)
	if !ok {
		return nil, errNotReady
	}
	typed, password := in.(*loginIn).Username, in.(*loginIn).Password.Reveal()
	if password == "" {
		return nil, errEmpty
	}
	name, ok := spelling(typed, c.CaseSensitiveNames)
	if !ok || len(password) > maxPassword {
		return nil, errLogin
	}
	ctx, cancel := context.WithTimeout(ctx, loginTime)
	defer cancel()
	d, err := c.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer d.close()
	found, err := d.authenticate(name, password)
	if err != nil {
		return nil, err
	}
	groups, err := d.groupsOf(found)
	if err != nil {
		return nil, err
	}
	return &member{name: found.name, alias: found.alias, groups: groups}, nil
}

// user is an entry of the directory that carries the name that was typed.
type user struct {
	dn          string
	written     string // what was typed as the directory writes it, for filters that count case
	name, alias string // as in member
}

// searches reports whether the directory is searched by an account of its own, or by nobody, and not by who logs in.
func (c *config) searches() bool { return c.DiscoverDN || c.BindDN != "" && c.BindPass != "" }

// authenticate finds the user and tries the password.
func (d *directory) authenticate(name, password string) (*user, error) {
	if d.searches() {
		if err := d.bindAccount(); err != nil {
			return nil, err
		}
		found, err := d.find(name)
		if err != nil {
			return nil, err
		}
		dn := "cn=" + rand.Text() + "," + d.UserDN // nobody's: whom nobody finds costs a bind, too
		if found != nil {
			dn = found.dn
		}
		right, err := d.bindUser(strings.TrimSuffix(dn, ","), password)
		if err != nil {
			return nil, err
		}
		if found == nil || !right {
			return nil, errLogin
		}
		return found, nil
	}
	account := fmt.Sprintf("%s=%s,%s", d.UserAttr, ldapv3.EscapeDN(name), d.UserDN)
	if d.UPNDomain != "" {
		account = name + "@" + d.UPNDomain
	}
	right, err := d.bindUser(account, password)
	if err != nil {
		return nil, err
	}
	if !right {
		return nil, errLogin
	}
	found, err := d.find(name)
	if err == nil && found == nil {
		err = errLogin // the user can't see the own entry, or has the name in another spelling
	}
	return found, err
}

// find finds the one entry that carries a name, nil if there is none or more than one.
func (d *directory) find(name string) (*user, error) {
	searched, attribute, asked, base, scope := d.UserFilter, d.UserAttr, name, d.UserDN, ldapv3.ScopeWholeSubtree
	switch {
	case d.UPNDomain != "":
		attribute, asked = "userPrincipalName", name+"@"+d.UPNDomain
		if !d.searches() {
			searched = defaultUserFilter
		}
	case !d.searches():
		base, scope = fmt.Sprintf("%s=%s,%s", d.UserAttr, ldapv3.EscapeDN(name), d.UserDN), ldapv3.ScopeBaseObject
		searched = defaultUserFilter
	}
	filter, err := filterOf(searched, names{UserAttr: attribute, Username: asked})
	if err != nil {
		return nil, err
	}
	compared, err := comparisons(filter, asked)
	if err != nil {
		return nil, err
	}
	attributes := []string{d.UserAttr}
	for _, c := range compared {
		attributes = append(attributes, c.attribute)
	}
	slices.Sort(attributes)
	entries, err := d.search(base, scope, filter, 1, slices.Compact(attributes)...)
	if err == errTooMany || err == nil && len(entries) != 1 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return d.recognise(entries[0], compared, name, asked), nil
}

// recognise takes an entry for a user if it carries the name in our spelling: what the directory takes for equal isn't
// enough. It returns nil if it doesn't, or if the entry has no single name for the identity store.
func (d *directory) recognise(entry *ldapv3.Entry, compared []comparison, name, asked string) *user {
	found := &user{dn: entry.DN, name: name, alias: name}
	for _, c := range compared {
		want, _ := spelling(c.value, d.CaseSensitiveNames)
		for _, value := range entry.GetEqualFoldAttributeValues(c.attribute) {
			if got, ok := spelling(value, d.CaseSensitiveNames); ok && got == want && found.written == "" {
				found.written = name
				if c.value == asked && asked == name {
					found.written = value
				}
			}
		}
	}
	if found.written == "" {
		return nil
	}
	switch {
	case d.UsernameAsAlias:
		return found
	case d.UPNDomain != "":
		found.alias, _ = spelling(asked, d.CaseSensitiveNames)
		return found
	}
	values := entry.GetEqualFoldAttributeValues(d.UserAttr)
	if len(values) != 1 {
		return nil
	}
	alias, ok := spelling(values[0], d.CaseSensitiveNames)
	if !ok {
		return nil
	}
	// Not what was typed: where a filter takes other attributes too, users may be able to change those of their own.
	found.name, found.alias = alias, alias
	return found
}

func login(ctx context.Context, tx conclave.Tx, _ *loginIn) (*conclave.Response, error) {
	who, ok := conclave.Prepared[*member](ctx)
	if !ok {
		return nil, errLogin
	}
	c, err := loadConfig(tx)
	if err != nil {
		return nil, err
	}
	if c == nil {
		return nil, errNotReady
	}
	policies, groups, err := granted(tx, who.name, who.groups)
	if err != nil {
		return nil, err
	}
	from := origin{Name: who.name, Groups: who.groups, Policies: append(policies, c.Policies...)}
	if len(strings.Join(from.Groups, "    ")) > maxOrigin {
		from.Groups = nil
	}
	internal, err := json.Marshal(from)
	if err != nil {
		return nil, err
	}
	resp := &conclave.Response{Login: &conclave.Login{Alias: conclave.Alias{Name: who.alias, Metadata: map[string]string{"name": who.name}}, Groups: groups,
		Terms: c.TokenTerms, Policies: policies, Metadata: map[string]string{"username": who.name}, DisplayName: who.name, Renewable: true, Internal: internal}}
	if len(who.groups) == 0 {
		resp.Warnings = []string{fmt.Sprintf("no LDAP groups found in groupDN %q; only policies from locally-defined groups available", c.GroupDN)}
	}
	return resp, nil
}

// renewal is what the directory is asked about before a login is renewed.
type renewal struct {
	Config *config
	Name   string
}

// GatherRenewal wants the directory asked if an account can search it: no password of users is kept.
func (Engine) GatherRenewal(view conclave.View, login *conclave.Login) (any, error) {
	var from origin
	if err := json.Unmarshal(login.Internal, &from); err != nil {
		return nil, nil // RenewLogin refuses
	}
	c, err := loadConfig(view)
	if err != nil || c == nil || !c.searches() {
		return nil, err
	}
	return renewal{c, from.Name}, nil
}

// AskRenewal asks the directory whether the user is still there, and in which groups.
func (Engine) AskRenewal(ctx context.Context, gathered any) (any, error) {
	asked, ok := gathered.(renewal)
	if !ok {
		return nil, errLoginAgain
	}
	ctx, cancel := context.WithTimeout(ctx, loginTime)
	defer cancel()
	d, err := asked.Config.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer d.close()
	if err := d.bindAccount(); err != nil {
		return nil, err
	}
	found, err := d.find(asked.Name)
	if err != nil {
		return nil, err
	}
	if found == nil || found.name != asked.Name {
		return nil, errUserGone
	}
	groups, err := d.groupsOf(found)
	if err != nil {
		return nil, err
	}
	return &member{name: found.name, alias: found.alias, groups: groups}, nil
}

// RenewLogin looks again at what the user and the groups of the login get: the groups that the directory says now if it
// can be asked, or those of the login. Who gets other policies than at the login must log in again.
func (Engine) RenewLogin(ctx context.Context, view conclave.View, login *conclave.Login) (*conclave.TokenTerms, error) {
	var from origin
	if err := json.Unmarshal(login.Internal, &from); err != nil {
		return nil, errLoginAgain
	}
	c, err := loadConfig(view)
	if err != nil {
		return nil, err
	}
	who, asked := conclave.Prepared[*member](ctx)
	if c == nil || from.Groups == nil && !asked {
		return nil, errLoginAgain
	}
	groups := from.Groups
	if asked {
		groups = who.groups
	}
	policies, aliases, err := granted(view, from.Name, groups)
	if err != nil {
		return nil, err
	}
	if !isSameSet(append(policies, c.Policies...), from.Policies) {
		return nil, errPolicies
	}
	if asked {
		login.Groups = append([]string{}, aliases...)
	}
	terms := c.TokenTerms
	return &terms, nil
}

func isSameSet(a, b []string) bool {
	sorted := func(list []string) []string { return slices.Compact(slices.Sorted(slices.Values(list))) }
	return slices.Equal(sorted(a), sorted(b))
}
