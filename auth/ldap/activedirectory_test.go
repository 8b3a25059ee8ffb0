package ldap

import (
	"encoding/hex"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	ber "github.com/go-asn1-ber/asn1-ber"
	ldapv3 "github.com/go-ldap/ldap/v3"

	"conclave"
)

// activeDirectory answers as Active Directory does where that differs from others: people bind as name@domain, groups are
// security identifiers. It knows one user.
type activeDirectory struct {
	binds atomic.Int32
}

const (
	adUser  = "CN=Alice Liddell,CN=Users,DC=example,DC=org"
	adGroup = "CN=Domain Admins,CN=Users,DC=example,DC=org"
)

// adSID is S-1-5-21-1-2-512.
var adSID, _ = hex.DecodeString("0104000000000005" + "15000000" + "01000000" + "02000000" + "00020000")

func (a *activeDirectory) serve(conn net.Conn) {
	for {
		request, err := ber.ReadPacket(conn)
		if err != nil || len(request.Children) < 2 {
			return
		}
		id, op := request.Children[0].Value, request.Children[1]
		answer := func(tag ber.Tag, build func(*ber.Packet)) {
			message := ber.NewSequence("")
			message.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagInteger, id, ""))
			body := ber.Encode(ber.ClassApplication, ber.TypeConstructed, tag, nil, "")
			build(body)
			message.AppendChild(body)
			_, _ = conn.Write(message.Bytes())
		}
		done := func(tag ber.Tag, code int) {
			answer(tag, func(body *ber.Packet) {
				body.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagEnumerated, code, ""))
				body.AppendChild(octets(""))
				body.AppendChild(octets(""))
			})
		}
		switch op.Tag {
		case ldapv3.ApplicationBindRequest:
			a.binds.Add(1)
			code := ldapv3.LDAPResultInvalidCredentials
			// It takes accents and case for nothing.
			name := strings.NewReplacer("á", "a").Replace(strings.ToLower(op.Children[1].Data.String()))
			if name == "alice@example.org" && op.Children[2].Data.String() == "alice-secret" {
				code = ldapv3.LDAPResultSuccess
			}
			done(ldapv3.ApplicationBindResponse, code)
		case ldapv3.ApplicationSearchRequest:
			if dn, attribute, value := found(op); dn != "" {
				answer(ldapv3.ApplicationSearchResultEntry, func(body *ber.Packet) {
					values := ber.Encode(ber.ClassUniversal, ber.TypeConstructed, ber.TagSet, nil, "")
					values.AppendChild(octets(value))
					one, all := ber.NewSequence(""), ber.NewSequence("")
					one.AppendChild(octets(attribute))
					one.AppendChild(values)
					all.AppendChild(one)
					body.AppendChild(octets(dn))
					body.AppendChild(all)
				})
			}
			done(ldapv3.ApplicationSearchResultDone, ldapv3.LDAPResultSuccess)
		default:
			return
		}
	}
}

func octets(text string) *ber.Packet {
	return ber.NewString(ber.ClassUniversal, ber.TypePrimitive, ber.TagOctetString, text, "")
}

// found is the entry that a search finds, with one attribute.
func found(search *ber.Packet) (dn, attribute, value string) {
	base := search.Children[0].Data.String()
	filter, _ := ldapv3.DecompileFilter(search.Children[6])
	switch {
	case base == "DC=example,DC=org" && strings.HasPrefix(filter, "(userPrincipalName=") && strings.HasSuffix(filter, "@example.org)"):
		return adUser, "userPrincipalName", "Alice@EXAMPLE.org"
	case base == adUser:
		return adUser, "tokenGroups", string(adSID)
	case base == "<SID=S-1-5-21-1-2-512>":
		return adGroup, "cn", "Domain Admins"
	}
	return "", "", ""
}

func TestActiveDirectory(t *testing.T) {
	ad := &activeDirectory{}
	h := configured(t, map[string]any{"url": silentServer(t, ad.serve), "upndomain": "example.org", "userdn": "DC=example,DC=org", "use_token_groups": true})
	h.Data(conclave.Update, "groups/Domain Admins", map[string]any{"policies": "da"})
	login := logIn(t, h, "Alice", "alice-secret")
	if login.Alias.Name != "alice@example.org" || login.Metadata["username"] != "alice" || !slices.Equal(login.Groups, []string{"domain admins"}) || !slices.Equal(login.Policies, []string{"da"}) {
		t.Errorf("login = %+v", login)
	}
	// The directory takes this for Alice too, and her password for right; nobody learns that.
	refused(t, h, "álice", "alice-secret")
	refused(t, h, "alice", "wrong")
	if got := ad.binds.Load(); got != 3 {
		t.Errorf("%d binds, want 3", got)
	}
}

func TestSecurityIDs(t *testing.T) {
	if got, ok := securityID(adSID); got != "S-1-5-21-1-2-512" || !ok {
		t.Errorf("securityID = %q, %v", got, ok)
	}
	if got, ok := securityID([]byte{1, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}); got != "S-1-281474976710655" || !ok {
		t.Errorf("securityID = %q, %v", got, ok)
	}
	for _, b := range [][]byte{nil, {1}, adSID[:len(adSID)-1], append(slices.Clone(adSID), 0), {2, 0, 0, 0, 0, 0, 0, 5}} {
		if got, ok := securityID(b); ok {
			t.Errorf("securityID(%x) = %q", b, got)
		}
	}
}

func FuzzSecurityID(f *testing.F) {
	f.Add(adSID)
	f.Fuzz(func(t *testing.T, b []byte) {
		if text, ok := securityID(b); ok && strings.ContainsAny(text, "<>=,") {
			t.Errorf("securityID(%x) = %q", b, text)
		}
	})
}
