package approle

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"io"
	"maps"
	"strings"
	"unicode"
	"unicode/utf8"

	"conclave"
)

// settings are what clients may set of a role.
type settings struct {
	conclave.TokenTerms
	BindSecretID       bool              `json:"bind_secret_id" doc:"Whether logins must present a secret-id. Without it, a role needs a list of addresses that logins may come from."`
	SecretIDBoundCIDRs []string          `json:"secret_id_bound_cidrs" doc:"Addresses or networks that logins may come from; empty is all."`
	SecretIDNumUses    int               `json:"secret_id_num_uses" doc:"Uses of each secret-id, unless it is made with fewer; 0 is unlimited."`
	SecretIDTTL        conclave.Seconds  `json:"secret_id_ttl" doc:"Time to live of each secret-id, unless it is made with less; 0 is unlimited."`
	LocalSecretIDs     bool              `json:"local_secret_ids" doc:"Kept for clients that ask for it; every secret-id belongs to this cluster. Set at creation only."`
	AliasMetadata      map[string]string `json:"alias_metadata" doc:"Metadata of the identity alias of whoever logs in."`
}

// role is what is stored of a role. What is loaded is shared and must not be changed.
type role struct {
	Settings settings `json:"settings"`
	Name     string   `json:"name"` // in lower case
	RoleID   string   `json:"role_id"`
	UID      string   `json:"uid"` // of this role for ever: one that is made again under the same name has another
	Key      []byte   `json:"key"` // of the hashes of its secret-ids

	internal json.RawMessage // of its logins
}

func decodeRole(value []byte) (any, error) {
	r := &role{}
	if err := json.Unmarshal(value, r); err != nil || r.Name == "" || r.RoleID == "" || r.UID == "" || len(r.Key) != keyBytes {
		return nil, damaged("role")
	}
	internal, err := json.Marshal(remembered{r.Name, r.UID})
	r.internal = internal
	return r, err
}

// roleByID returns the role of a role-id, nil if there is none.
func roleByID(view conclave.View, roleID string) (*role, error) {
	return roleAt(view, keyOf(roleID))
}

func roleAt(view conclave.View, key string) (*role, error) {
	loaded, err := view.Load(rolesDir+key, decodeRole)
	r, _ := loaded.(*role)
	return r, err
}

// roleNamed returns the role of a name in any case, nil if there is none.
func roleNamed(view conclave.View, name string) (*role, error) {
	name, valid := normalName(name)
	if !valid {
		return nil, nil
	}
	key, err := view.Get(namesDir + name)
	if err != nil || key == nil {
		return nil, err
	}
	r, err := roleAt(view, string(key))
	if err == nil && r == nil {
		err = damaged("role's name")
	}
	return r, err
}

// existing is roleNamed for routes below a role: without one, the answer is NotFound.
func existing(view conclave.View, name string) (*role, error) {
	r, err := roleNamed(view, name)
	if err == nil && r == nil {
		err = conclave.Errorf(conclave.NotFound, "role %q does not exist", name)
	}
	return r, err
}

// normalName is a role's name in its one spelling, lower case: letters, digits, "_", and between them "-" and ".".
func normalName(name string) (string, bool) {
	if name == "" || len(name) > maxRoleName {
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

// isVisible reports whether a text can be told from any other by looking at it: no control characters, none that isn't
// seen, no blanks around it.
func isVisible(text string) bool {
	if !utf8.ValidString(text) || strings.TrimSpace(text) != text {
		return false
	}
	return strings.IndexFunc(text, func(c rune) bool { return !unicode.IsPrint(c) }) < 0
}

// check holds settings against the rules and brings them into their one spelling.
func (s *settings) check() error {
	if err := s.TokenTerms.Check(); err != nil {
		return err
	}
	switch {
	case s.SecretIDNumUses < 0:
		return conclave.Errorf(conclave.Invalid, "secret_id_num_uses cannot be negative")
	case s.SecretIDNumUses > maxNumUses:
		return conclave.Errorf(conclave.Invalid, "secret_id_num_uses is at most %d", maxNumUses)
	case s.SecretIDTTL < 0 || s.SecretIDTTL > maxTTL:
		return conclave.Errorf(conclave.Invalid, "secret_id_ttl must be between 0 and a hundred years")
	case !s.BindSecretID && len(s.SecretIDBoundCIDRs) == 0 && len(s.BoundCIDRs) == 0:
		return conclave.Errorf(conclave.Invalid, "at least one constraint should be enabled on the role")
	}
	var err error
	if s.SecretIDBoundCIDRs, err = networkList(s.SecretIDBoundCIDRs); err != nil {
		return err
	}
	if s.BoundCIDRs, err = networkList(s.BoundCIDRs); err != nil {
		return err
	}
	if s.AliasMetadata == nil {
		s.AliasMetadata = map[string]string{}
	}
	return checkMetadata(s.AliasMetadata)
}

func checkMetadata(metadata map[string]string) error {
	if len(metadata) > maxMetadata {
		return conclave.Errorf(conclave.Invalid, "metadata has at most %d entries", maxMetadata)
	}
	for key, value := range metadata {
		if key == "" || len(key) > maxText || len(value) > maxText {
			return conclave.Errorf(conclave.Invalid, "a key of metadata has between 1 and %d bytes, a value at most %d", maxText, maxText)
		}
	}
	return nil
}

// save stores r in place of old, which is nil for a new role. A role-id names one role only.
func (r *role) save(tx conclave.Tx, old *role) error {
	key := keyOf(r.RoleID)
	if old == nil || old.RoleID != r.RoleID {
		other, err := roleAt(tx, key)
		if err != nil {
			return err
		}
		if other != nil {
			return conclave.Errorf(conclave.Invalid, "role_id already in use")
		}
		if err := tx.Put(namesDir+r.Name, []byte(key)); err != nil {
			return err
		}
		if old != nil {
			if err := tx.Delete(rolesDir + keyOf(old.RoleID)); err != nil {
				return err
			}
		}
	}
	value, err := json.Marshal(r)
	if err != nil {
		return conclave.Errorf(conclave.Internal, "encode role: %w", err)
	}
	return tx.Put(rolesDir+key, value)
}

func roleRoutes() []conclave.Route {
	exists := func(view conclave.View, in any) (bool, error) {
		r, err := roleNamed(view, in.(*roleIn).Name)
		return r != nil, err
	}
	write := conclave.WriteRoute(conclave.Update, "role/{role_name}", roleWriteDoc, writeRole)
	write.Prepare, write.Exists = prepareRole, exists
	return []conclave.Route{
		conclave.ReadRoute(conclave.List, "role", "List the names of the roles.", listRoles),
		write,
		conclave.ReadRoute(conclave.Read, "role/{role_name}", "Read the settings of a role.", readRole),
		conclave.WriteRoute(conclave.Delete, "role/{role_name}", roleDeleteDoc, deleteRole),
		conclave.ReadRoute(conclave.Read, "role/{role_name}/role-id", "Read the role-id of a role.", readRoleID),
		conclave.WriteRoute(conclave.Update, "role/{role_name}/role-id", "Set the role-id of a role; the old one logs in no more.", writeRoleID),
	}
}

// named is the input of routes below a role.
type named struct {
	Name string `path:"role_name" doc:"Name of the role, in any case."`
}

type listIn struct {
	After string `json:"after" doc:"Return only names after this one."`
	Limit int    `json:"limit" doc:"Return at most so many names; 0 for all."`
}

func listRoles(_ context.Context, view conclave.View, in *listIn) (*conclave.Keys, error) {
	names, err := view.List(namesDir, in.After, in.Limit)
	return &conclave.Keys{Keys: names}, err
}

const roleWriteDoc = `Create a role, or change settings of one.
What isn't given stays as it is. The name is used in lower case: letters, digits and "_", and between them "-" and ".". A
new role gets a random role-id unless one is given.`

type roleIn struct {
	named
	settings
	RoleID     string           `json:"role_id" doc:"The role-id; random if a new role is given none."`
	OldPolicy  []string         `json:"policies" doc:"The old name of token_policies."`
	OldPeriod  conclave.Seconds `json:"period" doc:"The old name of token_period."`
	OldNetwork []string         `json:"bound_cidr_list" doc:"The old name of secret_id_bound_cidrs."`
	Fields     map[string]any   `json:"*"`
}

// oldNames are fields that clients of older versions send: old name → name.
var oldNames = map[string]string{"policies": "token_policies", "period": "token_period", "bound_cidr_list": "secret_id_bound_cidrs"}

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

// keyBytes is the size of a role's key, that of SHA-256.
const keyBytes = 32

// fresh is the randomness of a new role.
type fresh struct {
	roleID, uid string
	key         [keyBytes]byte
}

func prepareRole(context.Context, *conclave.Request, any) (any, error) {
	roleID, err := uuid(rand.Reader)
	if err != nil {
		return nil, err
	}
	f := &fresh{roleID: roleID}
	var uid [16]byte
	for _, random := range [][]byte{uid[:], f.key[:]} {
		if _, err := io.ReadFull(rand.Reader, random); err != nil {
			return nil, conclave.Errorf(conclave.Internal, "no randomness for a role")
		}
	}
	f.uid = base64.RawURLEncoding.EncodeToString(uid[:])
	return f, nil
}

func writeRole(ctx context.Context, tx conclave.Tx, in *roleIn) (*conclave.Response, error) {
	name, valid := normalName(in.Name)
	if !valid {
		return nil, conclave.Errorf(conclave.Invalid, "a role's name is made of letters, digits and _, with - and . between them, and has at most %d bytes", maxRoleName)
	}
	old, err := roleNamed(tx, name)
	if err != nil {
		return nil, err
	}
	r := &role{}
	if old != nil {
		*r = *old
	} else {
		f, ok := conclave.Prepared[*fresh](ctx)
		if !ok {
			return nil, conclave.Errorf(conclave.Internal, "nothing was prepared for a new role")
		}
		*r = role{Name: name, RoleID: f.roleID, UID: f.uid, Key: f.key[:], Settings: settings{BindSecretID: true}}
	}
	if err := conclave.Merge(&r.Settings, present(in.Fields)); err != nil {
		return nil, err
	}
	if old != nil && r.Settings.LocalSecretIDs != old.Settings.LocalSecretIDs {
		return nil, conclave.Errorf(conclave.Invalid, "local_secret_ids can only be modified during role creation")
	}
	if raw := in.Fields["role_id"]; raw != nil {
		if err := checkRoleID(in.RoleID); err != nil {
			return nil, err
		}
		r.RoleID = in.RoleID
	}
	if err := r.Settings.check(); err != nil {
		return nil, err
	}
	response := &conclave.Response{Warnings: r.Settings.adjust(tx.Mount())}
	if err := clearGone(tx, clearOnWrite); err != nil {
		return nil, err
	}
	return response, r.save(tx, old)
}

// adjust makes of token types what a role can mean by them, and says what isn't as it was asked for.
func (s *settings) adjust(mount *conclave.Mount) (warnings []string) {
	if plain, short := strings.CutPrefix(s.Type, "default-"); short {
		warnings = append(warnings, s.Type+" has no useful meaning; adjusting to "+plain)
		s.Type = plain
	}
	if mount != nil && mount.MaxTTL > 0 && s.MaxTTL.Duration() > mount.MaxTTL {
		warnings = append(warnings, "token_max_ttl is greater than the backend mount's maximum TTL value; issued tokens' max TTL value will be truncated")
	}
	return warnings
}

func checkRoleID(roleID string) error {
	if roleID == "" {
		return conclave.Errorf(conclave.Invalid, "missing role_id")
	}
	if len(roleID) > maxRoleID || !isVisible(roleID) {
		return conclave.Errorf(conclave.Invalid, "a role_id has at most %d bytes, all of them visible, and no blanks around it", maxRoleID)
	}
	return nil
}

func readRole(_ context.Context, view conclave.View, in *named) (*settings, error) {
	r, err := roleNamed(view, in.Name)
	if err == nil && r == nil {
		err = &conclave.Error{Kind: conclave.NotFound}
	}
	if err != nil {
		return nil, err
	}
	return &r.Settings, nil
}

const roleDeleteDoc = `Delete a role, and with it all of its secret-ids.
None of them logs in any more. Where there are very many, what is stored of them is cleared away by later writes.`

func deleteRole(_ context.Context, tx conclave.Tx, in *named) (*conclave.None, error) {
	r, err := roleNamed(tx, in.Name)
	if err != nil || r == nil {
		return nil, err
	}
	if err := tx.Delete(rolesDir + keyOf(r.RoleID)); err != nil {
		return nil, err
	}
	if err := tx.Delete(namesDir + r.Name); err != nil {
		return nil, err
	}
	left, err := clearRole(tx, r.UID, clearOnDelete)
	if err != nil || left > 0 {
		return nil, err
	}
	return nil, tx.Put(goneDir+r.UID, mark()) // there may be more
}

type roleIDOut struct {
	RoleID string `json:"role_id" doc:"What logins present beside a secret-id. It is no secret by itself."`
}

func readRoleID(_ context.Context, view conclave.View, in *named) (*roleIDOut, error) {
	r, err := existing(view, in.Name)
	if err != nil {
		return nil, err
	}
	return &roleIDOut{r.RoleID}, nil
}

type roleIDIn struct {
	named
	RoleID string `json:"role_id" doc:"The new role-id: visible characters, no blanks around it."`
}

func writeRoleID(_ context.Context, tx conclave.Tx, in *roleIDIn) (*conclave.None, error) {
	old, err := existing(tx, in.Name)
	if err != nil {
		return nil, err
	}
	if err := checkRoleID(in.RoleID); err != nil {
		return nil, err
	}
	r := *old
	r.RoleID = in.RoleID
	return nil, r.save(tx, old)
}
