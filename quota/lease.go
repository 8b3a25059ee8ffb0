package quota

import (
	"context"
	"errors"
	"slices"
	"strconv"

	"conclave"
)

const (
	countersDir = "quota/leases/" // in the root namespace: cells of what is left
	hereDir     = "quota/here/"   // in others: cells of what is counted there
	knownDir    = "quota/known/"  // in others: values that say which of those cells there are
	maxLeases   = 1 << 40
)

func leaseName(r *LeaseRule) string { return r.Name }

func (r *LeaseRule) cell() string { return countersDir + r.ID }

// ErrLeases is why a lease isn't given.
var ErrLeases = conclave.Errorf(conclave.Limited, "lease count quota exceeded")

// Lease is what lease counts look at.
type Lease struct {
	Namespace conclave.Namespace // of the mount
	Mount     string             // relative to the namespace, ends in "/"
	Path      string             // of the request, relative to the namespace: it begins with the mount
	Role      string             // of a login, else ""
}

// TakeLease counts a lease that the transaction makes, under the most specific lease count of its path. root is the root
// namespace's system space, local the lease's own namespace's, in that transaction. counted names where it was counted, ""
// if nothing limits it: it belongs into what is stored of the lease, for GiveBack. If the limit is reached, [ErrLeases] is
// the outcome of the transaction when it is judged. Transactions that count don't conflict with each other.
func TakeLease(root, local conclave.Tx, lease Lease) (counted string, err error) {
	rule, err := leaseRule(root, lease)
	if err != nil || rule == nil {
		return "", err
	}
	// The cell holds what is left, so that a limit is a floor.
	if err := root.AddCell(rule.cell(), -1, 0, ErrLeases); err != nil || lease.Namespace.IsRoot() {
		return rule.ID, err
	}
	known, err := local.Get(knownDir + rule.ID)
	switch {
	case err != nil:
		return "", err
	case known != nil:
		return rule.ID, local.AddCell(hereDir+rule.ID, 1, -maxLeases, ErrLeases)
	}
	if err := local.Put(knownDir+rule.ID, []byte{1}); err != nil {
		return "", err
	}
	return rule.ID, local.SetCell(hereDir+rule.ID, 1, true)
}

// LeasesLeft is ErrLeases if no lease can be given for a path: for what is limited and not counted, such as batch tokens.
func LeasesLeft(root conclave.View, lease Lease) error {
	rule, err := leaseRule(root, lease)
	if err != nil || rule == nil {
		return err
	}
	left, _, err := root.Cell(rule.cell())
	if err == nil && left <= 0 {
		err = ErrLeases
	}
	return err
}

// CountsLeases reports whether there is any lease count.
func CountsLeases(root conclave.View) (bool, error) {
	rules, err := Load(root)
	return err == nil && len(rules.Leases) > 0, err
}

func leaseRule(root conclave.View, lease Lease) (*LeaseRule, error) {
	rules, err := Load(root)
	if err != nil || len(rules.Leases) == 0 {
		return nil, err
	}
	at, ok := rules.leases.ofRole(lease.Namespace.Path+lease.Mount, lease.Role)
	if !ok {
		at, ok = rules.leases.find(lease.Namespace.Path+lease.Path, func(outer, _ string) bool { return outer != lease.Namespace.Path })
	}
	if !ok {
		return nil, nil
	}
	return rules.Leases[at], nil
}

// GiveBack undoes TakeLease, in the transaction that removes the lease. counted is what that returned.
func GiveBack(root, local conclave.Tx, counted string) error {
	if counted == "" {
		return nil
	}
	rules, err := Load(root)
	if err != nil {
		return err
	}
	known, err := local.Get(knownDir + counted)
	if err != nil {
		return err
	}
	// A count that is gone, or counts something else by now, has no cell.
	if named(rules.Leases, counted, func(r *LeaseRule) string { return r.ID }) == nil {
		if known == nil {
			return nil
		}
		return errors.Join(local.Delete(knownDir+counted), local.SetCell(hereDir+counted, 0, false))
	}
	if known != nil {
		if err := local.AddCell(hereDir+counted, -1, -maxLeases, ErrLeases); err != nil {
			return err
		}
	}
	return root.AddCell(countersDir+counted, 1, -maxLeases, ErrLeases)
}

// ForgetNamespace gives back all that is counted in a namespace, in the transaction that deletes it. local is its system
// space, which isn't the root namespace's.
func ForgetNamespace(root conclave.Tx, local conclave.View) error {
	rules, err := Load(root)
	if err != nil {
		return err
	}
	for _, rule := range rules.Leases {
		n, there, err := local.Cell(hereDir + rule.ID)
		if err == nil && there && n > 0 {
			err = root.AddCell(rule.cell(), n, -maxLeases, ErrLeases)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

type leaseInput struct {
	Name        string `path:"name" doc:"The quota's name."`
	Path        string `json:"path" doc:"A namespace, a mount or a path below one, with * at its end as a prefix; empty is everything."`
	Max         int64  `json:"max_leases" doc:"How many leases there may be at once; more than 0."`
	Role        string `json:"role" doc:"Only logins with this role of an auth method."`
	Inheritable *bool  `json:"inheritable" doc:"Holds in the namespaces below as well; by default only for the quota of everything."`
	Type        string `json:"type" doc:"Kept for clients: lease-count."`
}

type leaseOutput struct {
	Counter     int64  `json:"counter" doc:"How many leases are counted."`
	Inheritable *bool  `json:"inheritable,omitempty" doc:"Whether the namespaces below have it too; shown for namespaces only."`
	Max         int64  `json:"max_leases" doc:"How many there may be at once."`
	Name        string `json:"name" doc:"The quota's name."`
	Path        string `json:"path" doc:"What it is about."`
	Role        string `json:"role" doc:"The role of logins."`
	Type        string `json:"type" doc:"lease-count."`
}

func listLeases(_ context.Context, view conclave.View, _ *conclave.None) (*conclave.Keys, error) {
	rules, err := Load(view)
	if err != nil {
		return nil, err
	}
	return keysOf(rules.Leases, leaseName), nil
}

func readLease(_ context.Context, view conclave.View, in *nameInput) (*leaseOutput, error) {
	rules, err := Load(view)
	if err != nil {
		return nil, err
	}
	r := named(rules.Leases, in.Name, leaseName)
	if r == nil {
		return nil, &conclave.Error{Kind: conclave.NotFound}
	}
	left, _, err := view.Cell(r.cell())
	if err != nil {
		return nil, err
	}
	return &leaseOutput{Counter: r.Max - left, Inheritable: r.shown(), Max: r.Max, Name: r.Name, Path: r.Path(), Role: r.Role, Type: "lease-count"}, nil
}

func (s *Setup) writeLease(_ context.Context, tx conclave.Tx, in *leaseInput) (*conclave.None, error) {
	rules, err := Load(tx)
	if err != nil {
		return nil, err
	}
	if in.Max <= 0 || in.Max > maxLeases {
		return nil, conclave.Errorf(conclave.Invalid, "'max_leases' is invalid")
	}
	if err := checkName(in.Name); err != nil {
		return nil, err
	}
	at, err := s.place(tx, in.Path, in.Role, in.Inheritable)
	if err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(rules.Leases, func(o *LeaseRule) bool { return o.Name != in.Name && o.same(at) }); i >= 0 {
		return nil, errSimilar(rules.Leases[i].Name)
	}
	r := &LeaseRule{Place: at, Name: in.Name, Max: in.Max}
	switch old := named(rules.Leases, in.Name, leaseName); {
	case old == nil || !old.same(at):
		if old != nil {
			if err := tx.SetCell(old.cell(), 0, false); err != nil {
				return nil, err
			}
		}
		r.ID = strconv.FormatInt(tx.Now().UnixNano(), 36) + "." + in.Name
		err = tx.SetCell(r.cell(), r.Max, true)
	default:
		r.ID = old.ID
		if r.Max != old.Max { // below 0 if there are more leases than that by now
			err = tx.AddCell(r.cell(), r.Max-old.Max, -maxLeases, ErrLeases)
		}
	}
	if err != nil {
		return nil, err
	}
	next := rules.record
	next.Leases = without(rules.Leases, in.Name, leaseName, r)
	return nil, next.store(tx)
}

func deleteLease(_ context.Context, tx conclave.Tx, in *nameInput) (*conclave.None, error) {
	rules, err := Load(tx)
	if err != nil {
		return nil, err
	}
	r := named(rules.Leases, in.Name, leaseName)
	if r == nil {
		return nil, nil
	}
	if err := tx.SetCell(r.cell(), 0, false); err != nil {
		return nil, err
	}
	next := rules.record
	next.Leases = without(rules.Leases, in.Name, leaseName, nil)
	return nil, next.store(tx)
}
