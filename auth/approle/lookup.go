package approle

import (
	"context"
	"time"

	"conclave"
)

// lookupOut is what Vault answers about a secret-id.
type lookupOut struct {
	Accessor   string            `json:"secret_id_accessor" doc:"Its accessor."`
	NumUses    int               `json:"secret_id_num_uses" doc:"Logins that it is still good for; 0 is unlimited."`
	TTL        conclave.Seconds  `json:"secret_id_ttl" doc:"Time to live at creation; 0 is unlimited."`
	Created    string            `json:"creation_time" doc:"When it was made."`
	Expires    string            `json:"expiration_time" doc:"When it ends; year 1 if never."`
	Updated    string            `json:"last_updated_time" doc:"When it was made: uses don't change it."`
	Metadata   map[string]string `json:"metadata" doc:"Metadata for tokens of its logins."`
	CIDRs      []string          `json:"cidr_list" doc:"Addresses or networks that logins may come from."`
	TokenCIDRs []string          `json:"token_bound_cidrs" doc:"Addresses or networks that tokens may be used from."`
}

// show answers about a secret-id, nil if it can't be used any more.
func (s *secretID) show(view conclave.View, hash string) (*lookupOut, error) {
	uses, usable, err := s.left(view, hash)
	if err != nil || !usable {
		return nil, err
	}
	out := &lookupOut{Accessor: s.Accessor, NumUses: uses, TTL: s.TTL, Created: stamp(s.Created), Expires: stamp(s.Expires),
		Updated: stamp(s.Created), Metadata: s.Metadata, CIDRs: s.CIDRs, TokenCIDRs: s.TokenCIDRs}
	if out.Metadata == nil {
		out.Metadata = map[string]string{}
	}
	if out.CIDRs == nil {
		out.CIDRs = []string{}
	}
	if out.TokenCIDRs == nil {
		out.TokenCIDRs = []string{}
	}
	return out, nil
}

func stamp(nanoseconds int64) string {
	if nanoseconds == 0 {
		return time.Time{}.Format(time.RFC3339Nano)
	}
	return time.Unix(0, nanoseconds).UTC().Format(time.RFC3339Nano)
}

type secretIn struct {
	named
	SecretID conclave.Secret `json:"secret_id" doc:"The secret-id."`
}

// find returns what is stored of a role's secret-id, nil if there is nothing.
func (in *secretIn) find(view conclave.View) (*role, string, *secretID, error) {
	r, err := existing(view, in.Name)
	if err != nil {
		return nil, "", nil, err
	}
	if in.SecretID.Empty() {
		return nil, "", nil, conclave.Errorf(conclave.Invalid, "missing secret_id")
	}
	hash := r.hash(in.SecretID.Reveal())
	s, err := secretAt(view, hash)
	return r, hash, s, err
}

func lookupSecret(_ context.Context, view conclave.View, in *secretIn) (*lookupOut, error) {
	_, hash, s, err := in.find(view)
	if err != nil || s == nil {
		return nil, err
	}
	return s.show(view, hash)
}

func destroySecret(_ context.Context, tx conclave.Tx, in *secretIn) (*conclave.None, error) {
	r, hash, s, err := in.find(tx)
	if err != nil || s == nil {
		return nil, err
	}
	return nil, s.remove(tx, r.UID, hash)
}
