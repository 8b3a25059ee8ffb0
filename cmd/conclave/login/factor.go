package login

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"conclave/cmd/conclave/client"

	"github.com/hashicorp/vault/api"
)

// passFactors shows the second factors that a login has to have before there is a token: passcodes, which are asked for.
// Where one of several factors is enough, the first that takes a passcode is.
func (a *attempt) passFactors(ctx context.Context, secret *api.Secret) (*api.Secret, error) {
	if secret == nil || secret.Auth == nil || secret.Auth.MFARequirement == nil || secret.Auth.ClientToken != "" {
		return secret, nil
	}
	required := secret.Auth.MFARequirement
	given := make(map[string]any) // method id → passcodes
	for _, name := range slices.Sorted(maps.Keys(required.MFAConstraints)) {
		factor := choose(required.MFAConstraints[name])
		if factor == nil {
			return nil, client.Remotef("the login needs another factor, %s, of which the vault names no method", name)
		}
		passcodes := []string{}
		if factor.UsesPasscode {
			label := factor.Name
			if label == "" {
				label = factor.ID
			}
			passcode, err := a.s.Prompt(fmt.Sprintf("Passcode of %s (%s)", label, factor.Type))
			if err != nil {
				return nil, err
			}
			passcodes = append(passcodes, passcode)
		} else {
			fmt.Fprintf(a.s.Err, "Confirm the login with %s.\n", factor.Type)
		}
		given[factor.ID] = passcodes
	}
	return a.c.Sys().MFAValidateWithContext(ctx, required.MFARequestID, given)
}

func choose(constraint *api.MFAConstraintAny) *api.MFAMethodID {
	if constraint == nil || len(constraint.Any) == 0 {
		return nil
	}
	for i := range constraint.Any {
		if constraint.Any[i].UsesPasscode {
			return constraint.Any[i]
		}
	}
	return constraint.Any[0]
}
