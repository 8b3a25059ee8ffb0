package seal

import (
	"context"
	"crypto/rand"
	"slices"

	"conclave"
)

const (
	rollCall    = "roll-call"
	rollCallDoc = `Begin a roll-call: all holders show that they have their shares.
Nothing is opened and no key is changed. The answer has a nonce, which every holder needs. Shares that are missing after an hour are
lost, or their holders are.`
)

type rollCallShare struct {
	Key   conclave.Secret `json:"key" doc:"A share, hex or base64."`
	Nonce string          `json:"nonce" doc:"The roll-call's nonce."`
}

// rollCallStatus tells whose shares were shown. Shares are numbered as they were when the vault was initialised, from 1 on.
type rollCallStatus struct {
	Nonce    string `json:"nonce" doc:"The roll-call's nonce."`
	Shares   int    `json:"shares" doc:"How many shares there are."`
	Present  []int  `json:"present" doc:"Numbers of the shares that were shown."`
	Missing  []int  `json:"missing" doc:"Numbers of the others."`
	Complete bool   `json:"complete" doc:"Whether all were shown."`
}

func (v *Vault) rollCallRoutes() []conclave.Route {
	begin := conclave.WriteRoute(conclave.Update, "shares/roll-call", rollCallDoc, v.beginRollCall).With(conclave.Sudo, conclave.OfCluster)
	begin.Prepare = func(context.Context, *conclave.Request, any) (any, error) { return mintAttempt(rand.Reader) }
	return []conclave.Route{
		begin,
		conclave.ReadRoute(conclave.Read, "shares/roll-call", "Whose shares were shown in a roll-call.", v.rollCallProgress).With(conclave.Public, conclave.OfCluster),
		conclave.WriteRoute(conclave.Update, "shares/roll-call/update", "Show a share in a roll-call.", v.answerRollCall).With(conclave.Public, conclave.OfCluster),
		conclave.WriteRoute(conclave.Delete, "shares/roll-call", "End a roll-call.", v.endRollCall).With(conclave.Public, conclave.OfCluster),
	}
}

func (b *blob) rollCall(a *attempt) *rollCallStatus {
	out := &rollCallStatus{Nonce: a.Nonce, Shares: b.Shares, Present: []int{}, Missing: []int{}}
	for at := range b.Shares {
		if slices.Contains(a.Shown, at) {
			out.Present = append(out.Present, at+1)
		} else {
			out.Missing = append(out.Missing, at+1)
		}
	}
	out.Complete = len(out.Missing) == 0
	return out
}

func (v *Vault) beginRollCall(ctx context.Context, tx conclave.Tx, _ *conclave.None) (*rollCallStatus, error) {
	minted, ok := conclave.Prepared[*mintedAttempt](ctx)
	if !ok {
		return nil, conclave.Errorf(conclave.Internal, "no randomness was prepared")
	}
	b, err := blobIn(tx)
	if err != nil {
		return nil, err
	}
	a, err := begin(tx, rollCall, b, minted.random, struct{}{})
	if err != nil {
		return nil, err
	}
	return b.rollCall(a), nil
}

func (v *Vault) rollCallProgress(_ context.Context, view conclave.View, in *rootNonce) (*rollCallStatus, error) {
	if in.Nonce == "" {
		return nil, errNeedsNonce
	}
	b, err := blobIn(view)
	if err != nil {
		return nil, err
	}
	a, err := loadAttempt(view, rollCall, in.Nonce)
	if err != nil {
		return nil, err
	}
	if a == nil || !slices.Equal(a.Salt, b.Salt) {
		return nil, errNoAttempt
	}
	return b.rollCall(a), nil
}

func (v *Vault) answerRollCall(_ context.Context, tx conclave.Tx, in *rollCallShare) (*rollCallStatus, error) {
	share, err := DecodeShare(in.Key)
	if err != nil {
		return nil, err
	}
	b, err := blobIn(tx)
	if err != nil {
		return nil, err
	}
	a, err := show(tx, rollCall, in.Nonce, b, share)
	if err != nil {
		return nil, err
	}
	return b.rollCall(a), nil
}

func (v *Vault) endRollCall(_ context.Context, tx conclave.Tx, in *rootNonce) (*conclave.None, error) {
	if in.Nonce == "" {
		return nil, errNeedsNonce
	}
	return nil, cancel(tx, rollCall, in.Nonce)
}
