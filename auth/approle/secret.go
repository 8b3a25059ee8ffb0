package approle

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"

	"conclave"
)

// secretID is what is stored of a secret-id; the secret-id itself isn't. What is loaded is shared and must not be
// changed. Times are Unix nanoseconds.
type secretID struct {
	Accessor   string            `json:"accessor"`
	Created    int64             `json:"created"`
	Expires    int64             `json:"expires,omitempty"` // 0 is never
	TTL        conclave.Seconds  `json:"ttl,omitempty"`
	NumUses    int               `json:"num_uses,omitempty"` // at creation; 0 is unlimited
	Metadata   map[string]string `json:"meta,omitempty"`
	CIDRs      []string          `json:"cidrs,omitempty"`       // that logins may come from
	TokenCIDRs []string          `json:"token_cidrs,omitempty"` // that tokens may be used from, in place of the role's
}

func decodeSecret(value []byte) (any, error) {
	s := &secretID{}
	if err := json.Unmarshal(value, s); err != nil || s.Accessor == "" || s.Created == 0 || s.NumUses < 0 {
		return nil, damaged("secret-id")
	}
	return s, nil
}

// hash is the name that a secret-id of the role is stored under.
func (r *role) hash(secret string) string {
	mac := hmac.New(sha256.New, r.Key)
	mac.Write([]byte(secret))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// secretAt returns what is stored of a secret-id by its hash, nil if there is nothing. It may have ended.
func secretAt(view conclave.View, hash string) (*secretID, error) {
	loaded, err := view.Load(secretsDir+hash, decodeSecret)
	s, _ := loaded.(*secretID)
	return s, err
}

func (s *secretID) expired(view conclave.View) bool {
	return s.Expires != 0 && view.Reached(time.Unix(0, s.Expires))
}

// left is how many uses a secret-id has, 0 if they are unlimited, and whether it can still be used at all.
func (s *secretID) left(view conclave.View, hash string) (int, bool, error) {
	if s.expired(view) {
		return 0, false, nil
	}
	if s.NumUses == 0 {
		return 0, true, nil
	}
	uses, there, err := view.Cell(usesDir + hash)
	return int(uses), there && uses > 0, err
}

// use takes a use of the secret-id, when the transaction is judged. refusal is the outcome if none is left then. What is
// used up is left to be cleared away: removing it here would have logins wait for each other.
func (s *secretID) use(tx conclave.Tx, hash string, refusal error) error {
	if s.NumUses == 0 {
		return nil
	}
	return tx.AddCell(usesDir+hash, -1, 0, refusal)
}

// remove deletes all that is stored of a secret-id.
func (s *secretID) remove(tx conclave.Tx, uid, hash string) error {
	if s.NumUses > 0 {
		if err := tx.SetCell(usesDir+hash, 0, false); err != nil {
			return err
		}
	}
	if err := tx.Delete(accessorPath(uid, s.Accessor)); err != nil {
		return err
	}
	return tx.Delete(secretsDir + hash)
}

// store keeps a new secret-id of the role. One that was there under the same hash must have ended.
func (s *secretID) store(tx conclave.Tx, r *role, hash string) error {
	old, err := secretAt(tx, hash)
	if err != nil {
		return err
	}
	if old != nil {
		_, usable, err := old.left(tx, hash)
		if err != nil {
			return err
		}
		if usable {
			return conclave.Errorf(conclave.Invalid, "SecretID is already registered")
		}
		if err := old.remove(tx, r.UID, hash); err != nil {
			return err
		}
	}
	value, err := json.Marshal(s)
	if err != nil {
		return conclave.Errorf(conclave.Internal, "encode secret-id: %w", err)
	}
	if s.NumUses > 0 {
		if err := tx.SetCell(usesDir+hash, int64(s.NumUses), true); err != nil {
			return err
		}
	}
	if err := tx.Put(accessorPath(r.UID, s.Accessor), []byte(hash)); err != nil {
		return err
	}
	return tx.Put(secretsDir+hash, value)
}

func secretRoutes() []conclave.Route {
	generate := conclave.WriteRoute(conclave.Update, "role/{role_name}/secret-id", generateDoc, generateSecret)
	custom := conclave.WriteRoute(conclave.Update, "role/{role_name}/custom-secret-id", customDoc, customSecret)
	generate.Prepare, custom.Prepare = prepareSecret, prepareSecret
	return []conclave.Route{
		generate,
		custom,
		conclave.ReadRoute(conclave.Update, "role/{role_name}/secret-id/lookup", "Read what belongs to a secret-id; the answer is empty if there is none.", lookupSecret),
		conclave.WriteRoute(conclave.Update, "role/{role_name}/secret-id/destroy", "Destroy a secret-id; there need not be one.", destroySecret),
		conclave.WriteRoute(conclave.Delete, "role/{role_name}/secret-id/destroy", "Destroy a secret-id; there need not be one.", destroySecret),
		loginRoute(),
		conclave.WriteRoute(conclave.Update, "tidy/secret-id", tidyDoc, tidy),
	}
}

// made is the randomness of a new secret-id.
type made struct {
	secret, accessor string
	sweeps           bool   // whether this one looks for others that have ended
	from             string // and from which accessor on
}

func prepareSecret(context.Context, *conclave.Request, any) (any, error) {
	var texts [3]string
	for i := range texts {
		var err error
		if texts[i], err = uuid(rand.Reader); err != nil {
			return nil, err
		}
	}
	var chance [1]byte
	if _, err := rand.Read(chance[:]); err != nil {
		return nil, conclave.Errorf(conclave.Internal, "no randomness for a secret-id")
	}
	return &made{secret: texts[0], accessor: texts[1], sweeps: chance[0]%sweepEvery == 0, from: texts[2]}, nil
}

const generateDoc = `Make a secret-id for a role.
It is shown in this answer and never again. What it says of itself can only narrow what the role says.`

// terms are what a new secret-id says of itself.
type terms struct {
	Metadata   any               `json:"metadata" doc:"Metadata for tokens of its logins: an object, its JSON as a string, or key=value pairs."`
	CIDRs      []string          `json:"cidr_list" doc:"Addresses or networks that logins may come from, within the role's."`
	TokenCIDRs []string          `json:"token_bound_cidrs" doc:"Addresses or networks that tokens may be used from, within the role's."`
	NumUses    *int              `json:"num_uses" doc:"Logins that it is good for, at most the role's number; 0 is unlimited."`
	TTL        *conclave.Seconds `json:"ttl" doc:"Time to live, at most the role's; 0 is unlimited."`
}

type generateIn struct {
	named
	terms
}

type generateOut struct {
	SecretID string           `json:"secret_id" doc:"The secret-id."`
	Accessor string           `json:"secret_id_accessor" doc:"By which it can be looked up and destroyed, but not used."`
	TTL      conclave.Seconds `json:"secret_id_ttl" doc:"Time to live; 0 is unlimited."`
	NumUses  int              `json:"secret_id_num_uses" doc:"Logins that it is good for; 0 is unlimited."`
}

// AccessorOf is what whoever has the answer wrapped is told: Terraform keeps it to destroy the secret-id by.
func (o *generateOut) AccessorOf() string { return o.Accessor }

func generateSecret(ctx context.Context, tx conclave.Tx, in *generateIn) (*generateOut, error) {
	m, ok := conclave.Prepared[*made](ctx)
	if !ok {
		return nil, conclave.Errorf(conclave.Internal, "nothing was prepared for a secret-id")
	}
	return register(tx, in.Name, &in.terms, m, m.secret)
}

const customDoc = `Register a secret-id that you have chosen for a role.
It is as hard to guess as you have made it: at least 128 bits from a random source are wanted. No two of a role are alike.`

type customIn struct {
	named
	terms
	SecretID conclave.Secret `json:"secret_id" doc:"The secret-id: at most 4096 bytes, all of them visible, no blanks around it."`
}

func customSecret(ctx context.Context, tx conclave.Tx, in *customIn) (*generateOut, error) {
	m, ok := conclave.Prepared[*made](ctx)
	if !ok {
		return nil, conclave.Errorf(conclave.Internal, "nothing was prepared for a secret-id")
	}
	secret := in.SecretID.Reveal()
	if secret == "" {
		return nil, conclave.Errorf(conclave.Invalid, "missing secret_id")
	}
	if len(secret) > maxSecretID || !isVisible(secret) {
		return nil, conclave.Errorf(conclave.Invalid, "a secret_id has at most %d bytes, all of them visible, and no blanks around it", maxSecretID)
	}
	return register(tx, in.Name, &in.terms, m, secret)
}

func register(tx conclave.Tx, name string, t *terms, m *made, secret string) (*generateOut, error) {
	r, err := existing(tx, name)
	if err != nil {
		return nil, err
	}
	if !r.Settings.BindSecretID {
		return nil, conclave.Errorf(conclave.Invalid, "bind_secret_id is not set on the role")
	}
	s := &secretID{Accessor: m.accessor, Created: tx.Now().UnixNano()}
	if err := s.take(t, &r.Settings); err != nil {
		return nil, err
	}
	if mount := tx.Mount(); mount != nil && mount.MaxTTL > 0 && s.TTL.Duration() > mount.MaxTTL {
		s.TTL = conclave.InSeconds(mount.MaxTTL)
	}
	if s.TTL > 0 {
		s.Expires = tx.Now().Add(s.TTL.Duration()).UnixNano()
	}
	if err := s.store(tx, r, r.hash(secret)); err != nil {
		return nil, err
	}
	if m.sweeps {
		if err := sweep(tx, r.UID, m.from); err != nil {
			return nil, err
		}
	}
	return &generateOut{SecretID: secret, Accessor: s.Accessor, TTL: s.TTL, NumUses: s.NumUses}, nil
}

// take sets what a secret-id says of itself, which must lie within what its role says.
func (s *secretID) take(t *terms, limits *settings) (err error) {
	if s.CIDRs, err = subset(t.CIDRs, limits.SecretIDBoundCIDRs); err != nil {
		return err
	}
	if s.TokenCIDRs, err = subset(t.TokenCIDRs, limits.BoundCIDRs); err != nil {
		return err
	}
	if s.Metadata, err = parseMetadata(t.Metadata); err != nil {
		return err
	}
	s.NumUses, s.TTL = limits.SecretIDNumUses, limits.SecretIDTTL
	if t.NumUses != nil {
		s.NumUses = *t.NumUses
	}
	if t.TTL != nil {
		s.TTL = *t.TTL
	}
	switch {
	case s.NumUses < 0:
		return conclave.Errorf(conclave.Invalid, "num_uses cannot be negative")
	case s.NumUses > maxNumUses:
		return conclave.Errorf(conclave.Invalid, "num_uses is at most %d", maxNumUses)
	case limits.SecretIDNumUses > 0 && (s.NumUses == 0 || s.NumUses > limits.SecretIDNumUses):
		return conclave.Errorf(conclave.Invalid, "num_uses cannot be higher than the role's secret_id_num_uses")
	case s.TTL < 0 || s.TTL > maxTTL:
		return conclave.Errorf(conclave.Invalid, "ttl must be between 0 and a hundred years")
	case limits.SecretIDTTL > 0 && (s.TTL == 0 || s.TTL > limits.SecretIDTTL):
		return conclave.Errorf(conclave.Invalid, "ttl cannot be longer than the role's secret_id_ttl")
	}
	return nil
}

// parseMetadata reads metadata in the spellings that clients use: an object, a string with its JSON, or key=value pairs.
func parseMetadata(raw any) (map[string]string, error) {
	if text, isText := raw.(string); isText && strings.HasPrefix(strings.TrimSpace(text), "{") {
		var members map[string]any
		if err := json.Unmarshal([]byte(text), &members); err != nil {
			return nil, conclave.Errorf(conclave.Invalid, "failed to parse metadata: not a JSON object")
		}
		raw = members
	}
	into := struct {
		Metadata map[string]string `json:"metadata"`
	}{}
	if err := conclave.Merge(&into, map[string]any{"metadata": raw}); err != nil {
		return nil, err
	}
	return into.Metadata, checkMetadata(into.Metadata)
}
