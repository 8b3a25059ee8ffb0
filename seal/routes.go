package seal

import (
	"context"

	"conclave"
)

// SealInput asks to close the vault.
type SealInput struct {
	Node string `json:"node" doc:"Seal only the node with this id. Default: the whole cluster."`
}

// Routes are the operations of this package under sys/ that need an open vault.
func (v *Vault) Routes() []conclave.Route {
	seal := conclave.WriteRoute(conclave.Update, "seal",
		"Seal the whole cluster, or one node of it.\n\nRequests in flight are finished first. Shares, or the auto-unseal key and a restart, open it again.",
		func(context.Context, conclave.Tx, *SealInput) (*conclave.None, error) { return nil, nil }).With(conclave.Sudo, conclave.Urgent)
	seal.Finish = func(ctx context.Context, _ *conclave.Request, in any) (*conclave.Response, error) {
		input, _ := in.(*SealInput)
		if input.Node != "" {
			return &conclave.Response{}, v.SealOther(ctx, input.Node)
		}
		return &conclave.Response{}, v.SealAll(ctx)
	}
	rotate := conclave.WriteRoute(conclave.Update, "rotate",
		"Make a new version of all data keys.\n\nFrom the next request on everything is sealed with it. What is stored is sealed anew in the background, then older versions are dropped.",
		v.rotate).With(conclave.Sudo)
	rotateKeyring := rotate
	rotateKeyring.Pattern = "rotate/keyring"
	return append(append(v.rootRoutes(), v.rollCallRoutes()...),
		seal,
		rotate,
		rotateKeyring,
		conclave.ReadRoute(conclave.Read, "key-status", "Which version of the data keys is active, and since when.", v.keyStatus),
	)
}
