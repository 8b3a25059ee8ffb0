package ldap

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	ldapv3 "github.com/go-ldap/ldap/v3"
)

const (
	maxGroups      = 1000 // of one user
	maxTokenGroups = 500  // of one user in Active Directory: each is a search of its own
)

// groupsOf are the names of a user's groups, in their one spelling, in order.
func (d *directory) groupsOf(found *user) ([]string, error) {
	if !d.UseTokenGroups && (d.GroupDN == "" || d.GroupFilter == "") {
		return []string{}, nil
	}
	switch {
	case d.AnonymousGroupSearch:
		if err := d.conn.UnauthenticatedBind(""); err != nil {
			return nil, errAccount
		}
	case d.BindDN != "" && d.BindPass != "":
		if err := d.bindAccount(); err != nil {
			return nil, err
		}
	}
	named := d.filteredGroups
	if d.UseTokenGroups {
		named = d.tokenGroups
	}
	texts, err := named(found)
	if err != nil {
		return nil, err
	}
	groups := make([]string, 0, len(texts))
	for _, text := range texts {
		if name, ok := spelling(text, d.CaseSensitiveNames); ok {
			groups = append(groups, name)
		}
	}
	slices.Sort(groups)
	return slices.Compact(groups), nil
}

// filteredGroups are the groups that the filter finds.
func (d *directory) filteredGroups(found *user) ([]string, error) {
	filter, err := filterOf(d.GroupFilter, names{UserDN: found.dn, Username: found.written})
	if err != nil {
		return nil, err
	}
	entries, err := d.search(d.GroupDN, ldapv3.ScopeWholeSubtree, filter, maxGroups, d.GroupAttr)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, entry := range entries {
		if all = append(all, groupNames(entry, d.GroupAttr)...); len(all) > maxGroups {
			return nil, errTooMany
		}
	}
	return all, nil
}

// tokenGroups are the groups that Active Directory would put into the user's access token: it computes their security
// identifiers, by which they are then looked up. One that can't be looked up, as of another domain, is left out.
func (d *directory) tokenGroups(found *user) ([]string, error) {
	const attribute = "tokenGroups"
	entries, err := d.search(found.dn, ldapv3.ScopeBaseObject, "(objectClass=*)", 1, attribute)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, entry := range entries {
		ids := entry.GetEqualFoldRawAttributeValues(attribute)
		if len(ids) > maxTokenGroups {
			return nil, errTooMany
		}
		for _, id := range ids {
			sid, ok := securityID(id)
			if !ok {
				continue
			}
			groups, err := d.search("<SID="+sid+">", ldapv3.ScopeBaseObject, "(objectClass=*)", 1, "cn")
			if err != nil {
				return nil, err
			}
			for _, group := range groups {
				all = append(all, commonName(group.DN))
			}
		}
	}
	return all, nil
}

// securityID writes a Windows security identifier as text ([MS-DTYP] 2.4.2): a byte of revision, one of the number of
// sub-authorities, six of authority, big-endian, then four for each sub-authority, little-endian.
func securityID(b []byte) (string, bool) {
	if len(b) < 8 || b[0] != 1 || b[1] > 15 || len(b) != 8+4*int(b[1]) {
		return "", false
	}
	authority := uint64(binary.BigEndian.Uint16(b[2:]))<<32 | uint64(binary.BigEndian.Uint32(b[4:]))
	text := fmt.Sprintf("S-1-%d", authority)
	for rest := b[8:]; len(rest) > 0; rest = rest[4:] {
		text += fmt.Sprintf("-%d", binary.LittleEndian.Uint32(rest))
	}
	return text, true
}

// groupNames are the names that an entry has for groups: the values of an attribute, or the common name of the entry if it
// has none. A value that is a distinguished name stands for the common name in it, unless it is the entry's own name: a
// group that is called "cn=admins" isn't the group admins.
func groupNames(entry *ldapv3.Entry, attribute string) []string {
	values := entry.GetEqualFoldAttributeValues(attribute)
	if len(values) == 0 {
		return []string{commonName(entry.DN)}
	}
	own := map[string]bool{}
	if dn, err := ldapv3.ParseDN(entry.DN); err == nil && len(dn.RDNs) > 0 {
		for _, part := range dn.RDNs[0].Attributes {
			own[part.Value] = true
		}
	}
	all := make([]string, 0, len(values))
	for _, value := range values {
		if !own[value] {
			value = commonName(value)
		}
		all = append(all, value)
	}
	return all
}

// commonName is the common name that a distinguished name begins with, or text itself if there is none.
func commonName(text string) string {
	dn, err := ldapv3.ParseDN(text)
	if err != nil || len(dn.RDNs) == 0 {
		return text
	}
	for _, part := range dn.RDNs[0].Attributes {
		if strings.EqualFold(part.Type, "cn") {
			return part.Value
		}
	}
	return text
}
