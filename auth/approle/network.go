package approle

import (
	"net/netip"
	"strings"

	"conclave"
)

// networkList checks a list of networks and removes blanks; it is never nil.
func networkList(texts []string) ([]string, error) {
	if len(texts) > maxCIDRs {
		return nil, conclave.Errorf(conclave.Invalid, "at most %d networks", maxCIDRs)
	}
	if _, err := conclave.Networks(texts); err != nil {
		return nil, err
	}
	list := make([]string, len(texts))
	for i, text := range texts {
		list[i] = strings.TrimSpace(text)
	}
	return list, nil
}

// subset checks that networks lie within limits; without limits, all do.
func subset(networks, limits []string) ([]string, error) {
	networks, err := networkList(networks)
	if err != nil || len(networks) == 0 || len(limits) == 0 {
		return networks, err
	}
	inside, err := conclave.Networks(networks)
	if err != nil {
		return nil, err
	}
	around, err := conclave.Networks(limits)
	if err != nil {
		return nil, err
	}
	for _, network := range inside {
		within := false
		for _, limit := range around {
			within = within || limit.Bits() <= network.Bits() && limit.Contains(network.Addr())
		}
		if !within {
			return nil, conclave.Errorf(conclave.Invalid, "failed to verify subset relationship between CIDR blocks on the role and CIDR blocks on the secret ID")
		}
	}
	return networks, nil
}

// common is what two lists of networks share, as a list. An empty list is no restriction; none says that they are
// restrictions that have no address in common.
func common(a, b []string) (list []string, none bool, err error) {
	if len(a) == 0 || len(b) == 0 {
		return append(append([]string{}, a...), b...), false, nil
	}
	first, err := conclave.Networks(a)
	if err != nil {
		return nil, false, err
	}
	second, err := conclave.Networks(b)
	if err != nil {
		return nil, false, err
	}
	for _, x := range first {
		for _, y := range second {
			if narrow, overlap := overlapOf(x, y); overlap && len(list) < maxCIDRs {
				list = append(list, narrow.String())
			}
		}
	}
	return list, len(list) == 0, nil
}

// overlapOf is the narrower one of two networks of which one holds the other.
func overlapOf(x, y netip.Prefix) (netip.Prefix, bool) {
	if x.Bits() > y.Bits() {
		x, y = y, x
	}
	return y, x.Contains(y.Addr())
}
