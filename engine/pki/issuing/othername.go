package issuing

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"conclave"
)

var (
	oidSAN = asn1.ObjectIdentifier{2, 5, 29, 17}

	errOtherName = conclave.Errorf(conclave.Invalid, "an other name has the form OID;UTF8:VALUE")
	errOID       = conclave.Errorf(conclave.Invalid, "an OID has the form 1.2.3")
	errSAN       = conclave.Errorf(conclave.Invalid, "could not parse the subject alternative names of the CSR")
	errSANKind   = conclave.Errorf(conclave.Invalid, "the CSR has subject alternative names of a kind that is not supported")
)

// otherName is an alternative name of a kind that has an OID, with a value that is a UTF-8 string.
type otherName struct {
	oid   asn1.ObjectIdentifier
	value string
}

// parseOID reads "1.2.840". The first two arcs are bounded as DER has them in one number.
func parseOID(text string) (asn1.ObjectIdentifier, error) {
	parts := strings.Split(text, ".")
	if len(parts) < 2 || len(parts) > 32 {
		return nil, errOID
	}
	oid := make(asn1.ObjectIdentifier, len(parts))
	for i, part := range parts {
		n, err := strconv.ParseInt(part, 10, 32)
		if err != nil || n < 0 || part != strconv.FormatInt(n, 10) {
			return nil, errOID
		}
		oid[i] = int(n)
	}
	if oid[0] > 2 || oid[0] < 2 && oid[1] > 39 {
		return nil, errOID
	}
	return oid, nil
}

// parseOtherNames reads names in the form that clients give them in.
func parseOtherNames(texts []string) ([]otherName, error) {
	parsed := make([]otherName, 0, len(texts))
	for _, text := range texts {
		oid, rest, _ := strings.Cut(text, ";")
		kind, value, found := strings.Cut(rest, ":")
		if !found || !strings.EqualFold(kind, "UTF8") && !strings.EqualFold(kind, "UTF-8") || !utf8.ValidString(value) {
			return nil, errOtherName
		}
		number, err := parseOID(oid)
		if err != nil {
			return nil, err
		}
		parsed = append(parsed, otherName{number, value})
	}
	return parsed, nil
}

// addOther checks an other name.
func (j *judge) addOther(n *names, other otherName) error {
	if len(other.value) > maxOneName {
		return errOtherName
	}
	if !slices.Equal(j.role.AllowedOtherSANs, []string{"*"}) {
		patterns, err := parseOtherNames(j.role.AllowedOtherSANs)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(patterns, func(p otherName) bool { return p.oid.Equal(other.oid) && glob(p.value, other.value) }) {
			return conclave.Errorf(conclave.Invalid, "other SAN OID %s not allowed by this role, or not with this value", other.oid)
		}
	}
	n.others = append(n.others, other)
	return nil
}

// General names by their tags (RFC 5280, 4.2.1.6).
const (
	tagOther = 0
	tagEmail = 1
	tagDNS   = 2
	tagURI   = 6
	tagIP    = 7
)

// otherNamesIn reads the other names in a CSR's extensions. Names of kinds that can't be checked are an error, for they
// would be lost without a word.
func otherNamesIn(extensions []pkix.Extension) ([]otherName, error) {
	var found []otherName
	for _, extension := range extensions {
		if !extension.Id.Equal(oidSAN) {
			continue
		}
		der := cryptobyte.String(extension.Value)
		var list cryptobyte.String
		if !der.ReadASN1(&list, cbasn1.SEQUENCE) || !der.Empty() {
			return nil, errSAN
		}
		for !list.Empty() {
			var name cryptobyte.String
			var tag cbasn1.Tag
			if !list.ReadAnyASN1(&name, &tag) {
				return nil, errSAN
			}
			switch tag {
			case cbasn1.Tag(tagEmail).ContextSpecific(), cbasn1.Tag(tagDNS).ContextSpecific(), cbasn1.Tag(tagURI).ContextSpecific(), cbasn1.Tag(tagIP).ContextSpecific():
			case cbasn1.Tag(tagOther).ContextSpecific().Constructed():
				other, err := readOther(name)
				if err != nil {
					return nil, err
				}
				if found = append(found, other); len(found) > maxNames {
					return nil, errTooManyNames
				}
			default:
				return nil, errSANKind
			}
		}
	}
	return found, nil
}

func readOther(name cryptobyte.String) (otherName, error) {
	var other otherName
	var explicit, value cryptobyte.String
	if !name.ReadASN1ObjectIdentifier(&other.oid) || !name.ReadASN1(&explicit, cbasn1.Tag(0).ContextSpecific().Constructed()) || !name.Empty() {
		return otherName{}, errSAN
	}
	if !explicit.ReadASN1(&value, cbasn1.UTF8String) || !explicit.Empty() || !utf8.Valid(value) {
		return otherName{}, errSANKind
	}
	other.value = string(value)
	return other, nil
}

// extension is the extension with all names. It is made here only if there are other names, which crypto/x509 doesn't know.
func (n *names) extension(isCritical bool) (pkix.Extension, error) {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		text := func(tag uint8, value []byte) {
			b.AddASN1(cbasn1.Tag(tag).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes(value) })
		}
		for _, other := range n.others {
			b.AddASN1(cbasn1.Tag(tagOther).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(other.oid)
				b.AddASN1(cbasn1.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
					b.AddASN1(cbasn1.UTF8String, func(b *cryptobyte.Builder) { b.AddBytes([]byte(other.value)) })
				})
			})
		}
		for _, name := range n.dns {
			text(tagDNS, []byte(name))
		}
		for _, email := range n.emails {
			text(tagEmail, []byte(email))
		}
		for _, ip := range n.ips {
			text(tagIP, ip)
		}
		for _, uri := range n.uris {
			text(tagURI, []byte(uri.String()))
		}
	})
	value, err := b.Bytes()
	if err != nil {
		return pkix.Extension{}, errSAN
	}
	return pkix.Extension{Id: oidSAN, Critical: isCritical, Value: value}, nil
}
