package ssh

import (
	"context"
	"encoding/json"

	"conclave"
)

func zeroAddressRoutes() []conclave.Route {
	const doc = "Set the roles of type otp whose servers may have any address.\nThe networks of these roles are ignored."
	return []conclave.Route{
		conclave.WriteRoute(conclave.Update, "config/zeroaddress", doc, writeZeroAddress),
		conclave.ReadRoute(conclave.Read, "config/zeroaddress", "Read the roles whose servers may have any address.", readZeroAddress),
		conclave.WriteRoute(conclave.Delete, "config/zeroaddress", "Have every role keep to its networks.", deleteZeroAddress),
	}
}

type zeroAddress struct {
	Roles []string `json:"roles" doc:"Names of the roles."`
}

// zeroAddressRolesOf are the roles that any address may be named to. What is loaded must not be changed.
func zeroAddressRolesOf(view conclave.View) ([]string, error) {
	loaded, err := view.Load(zeroAddressPath, decodeZeroAddress)
	if err != nil || loaded == nil {
		return nil, err
	}
	return loaded.(*zeroAddress).Roles, nil
}

func decodeZeroAddress(value []byte) (any, error) {
	z := &zeroAddress{}
	if err := json.Unmarshal(value, z); err != nil {
		return nil, damaged("config/zeroaddress")
	}
	return z, nil
}

func saveZeroAddressRoles(tx conclave.Tx, roles []string) error {
	value, err := json.Marshal(zeroAddress{roles})
	if err != nil {
		return conclave.Errorf(conclave.Internal, "encode config/zeroaddress: %w", err)
	}
	return tx.Put(zeroAddressPath, value)
}

func writeZeroAddress(_ context.Context, tx conclave.Tx, in *zeroAddress) (*conclave.None, error) {
	if len(in.Roles) == 0 {
		return nil, conclave.Errorf(conclave.Invalid, "Missing roles")
	}
	if len(in.Roles) > maxList {
		return nil, conclave.Errorf(conclave.Invalid, "at most %d roles", maxList)
	}
	for _, name := range in.Roles {
		r, err := roleNamed(tx, name)
		if err != nil {
			return nil, err
		}
		if r == nil {
			return nil, conclave.Errorf(conclave.Invalid, "Role %q does not exist", name)
		}
	}
	return nil, saveZeroAddressRoles(tx, in.Roles)
}

func readZeroAddress(_ context.Context, view conclave.View, _ *conclave.None) (*zeroAddress, error) {
	roles, err := zeroAddressRolesOf(view)
	if err != nil {
		return nil, err
	}
	if roles == nil {
		return nil, notFound()
	}
	return &zeroAddress{roles}, nil
}

func deleteZeroAddress(_ context.Context, tx conclave.Tx, _ *conclave.None) (*conclave.None, error) {
	return nil, tx.Delete(zeroAddressPath)
}
