package userpass

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"maps"
	"strconv"
	"strings"

	"golang.org/x/crypto/bcrypt"

	"conclave"
)

// settings are what clients may set of a user beside the password.
type settings struct {
	conclave.TokenTerms
	AliasMetadata map[string]string `json:"alias_metadata" doc:"Metadata of the identity alias of the user."`
}

// user is what is stored of a user. What is loaded is shared and must not be changed.
type user struct {
	Settings settings `json:"settings"`
	UID      string   `json:"uid"`  // of this user for ever: one who is made again under the same name has another
	Hash     string   `json:"hash"` // of the password
}

func decodeUser(value []byte) (any, error) {
	u := &user{}
	if err := json.Unmarshal(value, u); err != nil || u.UID == "" || u.Hash == "" {
		return nil, conclave.Errorf(conclave.Internal, "the stored record of a user is damaged")
	}
	return u, nil
}

// userNamed returns the user of a name in any case, nil if there is none.
func userNamed(view conclave.View, name string) (*user, error) {
	name, valid := normalName(name)
	if !valid {
		return nil, nil
	}
	loaded, err := view.Load(usersDir+name, decodeUser)
	u, _ := loaded.(*user)
	return u, err
}

// normalName is a user's name in its one spelling, lower case: letters, digits, "_", and between them "-" and ".".
func normalName(name string) (string, bool) {
	if name == "" || len(name) > maxName {
		return "", false
	}
	for i := range len(name) {
		c := name[i]
		word := c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		inner := (c == '-' || c == '.') && i > 0 && i < len(name)-1
		if !word && !inner {
			return "", false
		}
	}
	return strings.ToLower(name), true
}

// save stores the user under a name in its one spelling.
func (u *user) save(tx conclave.Tx, name string) error {
	value, err := json.Marshal(u)
	if err != nil {
		return conclave.Errorf(conclave.Internal, "encode user: %w", err)
	}
	return tx.Put(usersDir+name, value)
}

// check holds settings against the rules and brings them into their one spelling.
func (s *settings) check() error {
	if err := s.TokenTerms.Check(); err != nil {
		return err
	}
	networks := make([]string, len(s.BoundCIDRs))
	for i, text := range s.BoundCIDRs {
		networks[i] = strings.TrimSpace(text)
	}
	s.BoundCIDRs = networks
	if s.AliasMetadata == nil {
		s.AliasMetadata = map[string]string{}
	}
	if len(s.AliasMetadata) > maxMetadata {
		return conclave.Errorf(conclave.Invalid, "metadata has at most %d entries", maxMetadata)
	}
	for key, value := range s.AliasMetadata {
		if key == "" || len(key) > maxText || len(value) > maxText {
			return conclave.Errorf(conclave.Invalid, "a key of metadata has between 1 and %d bytes, a value at most %d", maxText, maxText)
		}
	}
	return nil
}

func (e *Engine) userRoutes() []conclave.Route {
	write := conclave.WriteRoute(conclave.Update, "users/{username}", userWriteDoc, writeUser)
	write.Prepare = func(ctx context.Context, _ *conclave.Request, in any) (any, error) {
		return e.prepare(ctx, &in.(*userIn).credentials)
	}
	write.Exists = func(view conclave.View, in any) (bool, error) {
		u, err := userNamed(view, in.(*userIn).Name)
		return u != nil, err
	}
	password := conclave.WriteRoute(conclave.Update, "users/{username}/password", "Set the password of a user.", writePassword)
	password.Prepare = func(ctx context.Context, _ *conclave.Request, in any) (any, error) {
		return e.prepare(ctx, &in.(*passwordIn).credentials)
	}
	return []conclave.Route{
		conclave.ReadRoute(conclave.List, "users", "List the names of the users.", listUsers),
		write,
		conclave.ReadRoute(conclave.Read, "users/{username}", "Read the settings of a user; the password is in no answer.", readUser),
		conclave.WriteRoute(conclave.Delete, "users/{username}", userDeleteDoc, deleteUser),
		password,
		conclave.WriteRoute(conclave.Update, "users/{username}/policies", "Set the policies of a user.", writePolicies),
	}
}

// named is the input of routes below a user.
type named struct {
	Name string `path:"username" doc:"Name of the user, in any case."`
}

type listIn struct {
	After string `json:"after" doc:"Return only names after this one."`
	Limit int    `json:"limit" doc:"Return at most so many names; 0 for all."`
}

func listUsers(_ context.Context, view conclave.View, in *listIn) (*conclave.Keys, error) {
	names, err := view.List(usersDir, in.After, in.Limit)
	return &conclave.Keys{Keys: names}, err
}

// credentials are how a password is set.
type credentials struct {
	Password conclave.Secret `json:"password" doc:"The password: at most 72 bytes."`
	Hash     conclave.Secret `json:"password_hash" doc:"In place of the password its bcrypt hash, of a cost of at most 12."`
}

// fresh is what is prepared of a write: the hash, if a password is set, and the identity of a new user.
type fresh struct {
	uid  string
	hash string
	cost int // of an imported hash
}

func (e *Engine) prepare(ctx context.Context, c *credentials) (*fresh, error) {
	var uid [16]byte
	if _, err := rand.Read(uid[:]); err != nil {
		return nil, conclave.Errorf(conclave.Internal, "no randomness for a user")
	}
	f := &fresh{uid: base64.RawURLEncoding.EncodeToString(uid[:])}
	var err error
	switch {
	case c.Password.Empty() && c.Hash.Empty():
		return f, nil
	case !c.Password.Empty() && !c.Hash.Empty():
		return nil, conclave.Errorf(conclave.Invalid, "only one of password or password_hash may be provided")
	case !c.Hash.Empty():
		f.hash = c.Hash.Reveal()
		f.cost, err = checkHash(f.hash)
		return f, err
	}
	if err := checkPassword(c.Password.Reveal()); err != nil {
		return nil, err
	}
	done, err := e.turns.take(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	hash, err := bcrypt.GenerateFromPassword([]byte(c.Password.Reveal()), e.cost)
	if err != nil {
		return nil, conclave.Errorf(conclave.Internal, "the password can't be hashed")
	}
	f.hash = string(hash)
	return f, nil
}

// costOf is the cost that each login of the mount takes.
func costOf(view conclave.View, least int) (int, error) {
	value, err := view.Get(costPath)
	if err != nil || value == nil {
		return least, err
	}
	cost, err := strconv.Atoi(string(value))
	if err != nil || cost < bcrypt.MinCost || cost > maxCost {
		return 0, conclave.Errorf(conclave.Internal, "the stored cost of logins is damaged")
	}
	return max(cost, least), nil
}

// set gives the user the prepared hash. Logins take as long as the one of the highest cost from then on.
func (u *user) set(tx conclave.Tx, f *fresh) error {
	u.Hash = f.hash
	cost, err := costOf(tx, hashCost)
	if err != nil || f.cost <= cost {
		return err
	}
	return tx.Put(costPath, strconv.AppendInt(nil, int64(f.cost), 10))
}

const userWriteDoc = `Create a user, or change settings of one.
What isn't given stays as it is; a new user needs a password. The name is used in lower case: letters, digits and "_", and
between them "-" and ".". Tokens of earlier logins live on; when policies have changed, they are not renewed.`

type userIn struct {
	named
	credentials
	settings
	OldPolicies []string         `json:"policies" doc:"The old name of token_policies."`
	OldTTL      conclave.Seconds `json:"ttl" doc:"The old name of token_ttl."`
	OldMaxTTL   conclave.Seconds `json:"max_ttl" doc:"The old name of token_max_ttl."`
	OldNetworks []string         `json:"bound_cidrs" doc:"The old name of token_bound_cidrs."`
	Fields      map[string]any   `json:"*"`
}

// oldNames are fields that clients of older versions send: old name → name.
var oldNames = map[string]string{"policies": "token_policies", "ttl": "token_ttl", "max_ttl": "token_max_ttl", "bound_cidrs": "token_bound_cidrs"}

// present are the fields under today's names; one that is given under both has the value of today's.
func present(fields map[string]any) map[string]any {
	renamed := maps.Clone(fields)
	for old, name := range oldNames {
		value, given := fields[old]
		if _, both := fields[name]; given && !both {
			renamed[name] = value
		}
	}
	return renamed
}

func writeUser(ctx context.Context, tx conclave.Tx, in *userIn) (*conclave.None, error) {
	name, valid := normalName(in.Name)
	if !valid {
		return nil, conclave.Errorf(conclave.Invalid, "a user's name is made of letters, digits and _, with - and . between them, and has at most %d bytes", maxName)
	}
	old, err := userNamed(tx, name)
	if err != nil {
		return nil, err
	}
	f, ok := conclave.Prepared[*fresh](ctx)
	if !ok {
		return nil, conclave.Errorf(conclave.Internal, "nothing was prepared for a user")
	}
	u := &user{UID: f.uid}
	if old != nil {
		*u = *old
	} else if f.hash == "" {
		return nil, conclave.Errorf(conclave.Invalid, "missing password: a new user needs password or password_hash")
	}
	if f.hash != "" {
		if err := u.set(tx, f); err != nil {
			return nil, err
		}
	}
	if err := conclave.Merge(&u.Settings, present(in.Fields)); err != nil {
		return nil, err
	}
	if err := u.Settings.check(); err != nil {
		return nil, err
	}
	return nil, u.save(tx, name)
}

func readUser(_ context.Context, view conclave.View, in *named) (*settings, error) {
	u, err := userNamed(view, in.Name)
	if err == nil && u == nil {
		err = &conclave.Error{Kind: conclave.NotFound}
	}
	if err != nil {
		return nil, err
	}
	return &u.Settings, nil
}

const userDeleteDoc = `Delete a user; there need not be one.
Tokens of earlier logins live until their time ends, but are not renewed any more. Revoke them by prefix to end them now.`

func deleteUser(_ context.Context, tx conclave.Tx, in *named) (*conclave.None, error) {
	name, valid := normalName(in.Name)
	if !valid {
		return nil, nil
	}
	return nil, tx.Delete(usersDir + name)
}

// change loads an existing user, has it changed and stores it.
func change(tx conclave.Tx, name string, how func(u *user) error) error {
	old, err := userNamed(tx, name)
	if err != nil {
		return err
	}
	if old == nil {
		return conclave.Errorf(conclave.NotFound, "username does not exist")
	}
	u := *old
	if err := how(&u); err != nil {
		return err
	}
	name, _ = normalName(name)
	return u.save(tx, name)
}

type passwordIn struct {
	named
	credentials
}

func writePassword(ctx context.Context, tx conclave.Tx, in *passwordIn) (*conclave.None, error) {
	f, ok := conclave.Prepared[*fresh](ctx)
	if !ok || f.hash == "" {
		return nil, conclave.Errorf(conclave.Invalid, "missing password: give password or password_hash")
	}
	return nil, change(tx, in.Name, func(u *user) error { return u.set(tx, f) })
}

type policiesIn struct {
	named
	Policies    []string `json:"token_policies" doc:"Policies of the tokens."`
	OldPolicies []string `json:"policies" doc:"The old name of token_policies."`
}

func writePolicies(_ context.Context, tx conclave.Tx, in *policiesIn) (*conclave.None, error) {
	policies, given := present(tx.Request().Fields)["token_policies"]
	if !given || policies == nil {
		return nil, conclave.Errorf(conclave.Invalid, "missing token_policies")
	}
	return nil, change(tx, in.Name, func(u *user) error {
		if err := conclave.Merge(&u.Settings, map[string]any{"token_policies": policies}); err != nil {
			return err
		}
		return u.Settings.check()
	})
}
