package cert

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"math/big"
	"net/http"
	"slices"
	"strconv"
	"time"

	"conclave"
)

// Limits of revocation lists.
const (
	maxCRLs    = 256
	maxRevoked = 100_000 // serial numbers in one list
	maxSerial  = 32      // bytes of a serial number
	shown      = 10_000  // serial numbers that reading a list shows
	perShard   = 8_000   // serial numbers that are stored together, about
	maxCRL     = 8 << 20 // bytes of a list
	maxFetched = 2       // lists that one login fetches
)

var (
	errCRLSource   = conclave.Errorf(conclave.Invalid, "give either crl, or a url with http or https")
	errCRLFetch    = conclave.Errorf(conclave.Invalid, "failed to fetch CRL")
	errCRLOther    = conclave.Errorf(conclave.Invalid, "the CRL from the URL isn't a later one of the same kind: delete the one that is there first")
	errCRLUnknown  = conclave.Errorf(conclave.Invalid, "a CRL from a URL must be signed by the authority of a role")
	errCRLFormat   = conclave.Errorf(conclave.Invalid, "failed to parse CRL")
	errCRLKind     = conclave.Errorf(conclave.Invalid, "the CRL is a delta or an indirect one: upload the full list of each issuer")
	errCRLTimes    = conclave.Errorf(conclave.Invalid, "the CRL isn't valid now: look at its thisUpdate and nextUpdate")
	errCRLSize     = conclave.Errorf(conclave.TooLarge, "a CRL has at most %d entries and %d bytes", maxRevoked, maxCRL)
	errCRLForged   = conclave.Errorf(conclave.Invalid, "the CRL isn't signed by the authority whose name it has")
	errTooManyCRLs = conclave.Errorf(conclave.Invalid, "there are %d revocation lists already", maxCRLs)
	errOutdated    = conclave.Errorf(conclave.Invalid, "the revocation list of the certificate's issuer has expired")
	errRevoked     = conclave.Errorf(conclave.Invalid, "the certificate, or one of its issuers, is revoked")
)

// list is a revocation list without what it revokes, stored as JSON. Serial numbers are stored beside it, in shards: sorted
// decimal numbers as a JSON list at "revoked/NAME/SHARD", where SHARD is the number's SHA-256, as a big-endian number of
// its first four bytes, modulo Shards.
type list struct {
	Name          string    `json:"name" doc:"The name."`
	Issuer        []byte    `json:"issuer" doc:"Subject of the authority, DER."`
	IssuerName    string    `json:"issuer_name" doc:"Subject of the authority."`
	AuthorityKey  []byte    `json:"authority_key" doc:"Key identifier of the authority."`
	ThisUpdate    time.Time `json:"this_update" doc:"When the list was made."`
	NextUpdate    time.Time `json:"next_update" doc:"When the list ends."`
	AcceptExpired bool      `json:"accept_expired" doc:"Whether certificates of its issuer log in after that."`
	URL           string    `json:"url,omitempty" doc:"Where it was fetched from."`
	Part          []byte    `json:"part,omitempty" doc:"Issuing distribution point, DER: which of the issuer's certificates it is about, if not all."`
	Count         int       `json:"count" doc:"Number of revoked certificates."`
	Shards        int       `json:"shards" doc:"Number of parts."`
}

type crlIn struct {
	Name          string `path:"name" doc:"Name of the list, in lower case."`
	CRL           string `json:"crl" doc:"The revocation list, PEM or base64 of DER."`
	URL           string `json:"url" doc:"Where to fetch the list from, instead of crl: http or https. Logins fetch it again when it has ended."`
	AcceptExpired bool   `json:"accept_expired" doc:"Let certificates of its issuer log in after the list's end; what it revokes stays revoked."`
}

type crlOut struct {
	Serials       map[string]struct{} `json:"serials" doc:"Serial numbers that are revoked; at most 10,000 are shown."`
	Count         int                 `json:"count" doc:"Number of revoked certificates."`
	Issuer        string              `json:"issuer" doc:"Subject of the authority."`
	ThisUpdate    time.Time           `json:"this_update" doc:"When the list was made."`
	NextUpdate    *time.Time          `json:"next_update" doc:"When the list ends; null if it doesn't say."`
	AcceptExpired bool                `json:"accept_expired" doc:"Whether certificates of its issuer log in after that."`
	URL           string              `json:"url" doc:"Where it was fetched from; empty if it was uploaded."`
}

const crlDoc = `Upload a revocation list, in place of the one of that name.
Certificates of its issuer that it has log in no more, nor is a token of theirs renewed. After the end that the list itself
gives, no certificate of its issuer logs in until a newer one is there, unless accept_expired is set. The list must be valid
now. Its signature is checked if a role has the authority; one that is fetched from a URL must have the signature of a role's.`

// parsedCRL is a list with the serial numbers that it revokes.
type parsedCRL struct {
	raw    *x509.RevocationList
	list   list
	shards [][]string
}

func prepareCRL(ctx context.Context, _ *conclave.Request, in any) (any, error) {
	from := in.(*crlIn)
	switch {
	case from.URL == "":
		return parseCRL([]byte(from.CRL))
	case from.CRL != "" || len(from.URL) > maxText || !isServer(from.URL):
		return nil, errCRLSource
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	return fetchCRL(ctx, from.URL)
}

// fetchCRL gets a list from where its authority publishes it. It follows no redirects.
func fetchCRL(ctx context.Context, from string) (*parsedCRL, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, errCRLSource
	}
	resp, err := newResponderClient().Do(req)
	if err != nil {
		return nil, errCRLFetch
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 2*maxCRL+1))
	if err != nil || resp.StatusCode != http.StatusOK {
		return nil, errCRLFetch
	}
	return parseCRL(body)
}

// parseCRL reads a list in PEM or base64 or DER.
func parseCRL(text []byte) (*parsedCRL, error) {
	if len(text) > 2*maxCRL {
		return nil, errCRLSize
	}
	der := bytes.TrimSpace(text)
	if block, _ := pem.Decode(der); block != nil {
		der = block.Bytes
	} else if decoded, err := base64.StdEncoding.DecodeString(string(der)); err == nil {
		der = decoded
	}
	raw, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, errCRLFormat
	}
	if len(raw.RevokedCertificateEntries) > maxRevoked {
		return nil, errCRLSize
	}
	if isPartial(raw) {
		return nil, errCRLKind
	}
	parsed := &parsedCRL{raw: raw, list: list{Issuer: raw.RawIssuer, IssuerName: raw.Issuer.String(), AuthorityKey: raw.AuthorityKeyId,
		ThisUpdate: raw.ThisUpdate, NextUpdate: raw.NextUpdate, Count: len(raw.RevokedCertificateEntries)}}
	for _, extension := range raw.Extensions {
		if extension.Id.Equal(oidDistribution) {
			parsed.list.Part = extension.Value
		}
	}
	parsed.list.Shards = 1 + parsed.list.Count/perShard
	parsed.shards = make([][]string, parsed.list.Shards)
	for _, entry := range raw.RevokedCertificateEntries {
		if len(entry.SerialNumber.Bytes()) > maxSerial {
			return nil, errCRLFormat
		}
		at := parsed.list.shard(entry.SerialNumber)
		parsed.shards[at] = append(parsed.shards[at], entry.SerialNumber.String())
	}
	for _, shard := range parsed.shards {
		slices.Sort(shard)
	}
	return parsed, nil
}

// Extensions of RFC 5280, 5.2.
var (
	oidDelta        = asn1.ObjectIdentifier{2, 5, 29, 27}
	oidDistribution = asn1.ObjectIdentifier{2, 5, 29, 28}
)

// isPartial reports whether a list says which others have changed, or speaks for other issuers.
func isPartial(raw *x509.RevocationList) bool {
	for _, extension := range raw.Extensions {
		if extension.Id.Equal(oidDelta) {
			return true
		}
		if !extension.Id.Equal(oidDistribution) {
			continue
		}
		var point struct {
			DistributionPoint asn1.RawValue  `asn1:"optional,tag:0"`
			OnlyUser          bool           `asn1:"optional,tag:1"`
			OnlyCA            bool           `asn1:"optional,tag:2"`
			OnlySome          asn1.BitString `asn1:"optional,tag:3"`
			Indirect          bool           `asn1:"optional,tag:4"`
			OnlyAttribute     bool           `asn1:"optional,tag:5"`
		}
		if _, err := asn1.Unmarshal(extension.Value, &point); err != nil || point.Indirect || point.OnlyAttribute {
			return true
		}
	}
	return false
}

func (l *list) shard(serial *big.Int) int {
	sum := sha256.Sum256([]byte(serial.String()))
	first := uint32(sum[0])<<24 | uint32(sum[1])<<16 | uint32(sum[2])<<8 | uint32(sum[3])
	return int(first % uint32(l.Shards))
}

func (l *list) shardPath(shard int) string { return "revoked/" + l.Name + "/" + strconv.Itoa(shard) }

func writeCRL(ctx context.Context, tx conclave.Tx, in *crlIn) (*conclave.None, error) {
	name, err := canonicalName(in.Name)
	if err != nil {
		return nil, err
	}
	parsed, ok := conclave.Prepared[*parsedCRL](ctx)
	if !ok {
		return nil, errCRLFormat
	}
	parsed.list.Name, parsed.list.AcceptExpired, parsed.list.URL = name, in.AcceptExpired, in.URL
	return nil, parsed.store(tx)
}

// store puts a list in place of the one of its name.
func (p *parsedCRL) store(tx conclave.Tx) error {
	made := p.list
	if !tx.Reached(made.ThisUpdate) || made.isOver(tx) {
		return errCRLTimes
	}
	switch isSigned, err := isIssuerKnown(tx, p.raw); {
	case err != nil:
		return err
	case !isSigned && made.URL != "":
		return errCRLUnknown
	}
	old, err := loadList(tx, made.Name)
	if err != nil {
		return err
	}
	if old != nil && made.URL != "" && !made.succeeds(old) {
		return errCRLOther
	}
	if old == nil {
		names, err := tx.List("crls/", "", maxCRLs)
		if err != nil {
			return err
		}
		if len(names) == maxCRLs {
			return errTooManyCRLs
		}
	}
	if err := old.remove(tx); err != nil {
		return err
	}
	for i, shard := range p.shards {
		value, err := json.Marshal(shard)
		if err != nil {
			return err
		}
		if err := tx.Put(made.shardPath(i), value); err != nil {
			return err
		}
	}
	value, err := json.Marshal(made)
	if err != nil {
		return err
	}
	return tx.Put("crls/"+made.Name, value)
}

// succeeds reports whether a list that was fetched is about the same certificates as the one before, and no older. Whoever
// sits between us and the authority can't put another of its lists in place of it.
func (l *list) succeeds(old *list) bool {
	return bytes.Equal(l.Issuer, old.Issuer) && bytes.Equal(l.Part, old.Part) && !l.ThisUpdate.Before(old.ThisUpdate)
}

// isIssuerKnown reports whether an authority of some role has signed a list. One that has such an authority's name, but not
// its signature, is an error. With more roles than can be looked at, nobody is known.
func isIssuerKnown(view conclave.View, raw *x509.RevocationList) (bool, error) {
	roles, err := rolesFor(view, "")
	if err == error(errTooManyRoles) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	isNamed := false
	for _, role := range roles {
		for _, anchor := range role.anchors {
			if !bytes.Equal(anchor.RawSubject, raw.RawIssuer) {
				continue
			}
			if isNamed = true; raw.CheckSignatureFrom(anchor) == nil {
				return true, nil
			}
		}
	}
	if isNamed {
		return false, errCRLForged
	}
	return false, nil
}

func loadList(view conclave.View, name string) (*list, error) {
	found, err := view.Load("crls/"+name, func(value []byte) (any, error) {
		l := &list{}
		return l, json.Unmarshal(value, l)
	})
	if err != nil || found == nil {
		return nil, err
	}
	return found.(*list), nil
}

// remove takes away a list and its shards. A nil list has none.
func (l *list) remove(tx conclave.Tx) error {
	if l == nil {
		return nil
	}
	for i := range l.Shards {
		if err := tx.Delete(l.shardPath(i)); err != nil {
			return err
		}
	}
	return tx.Delete("crls/" + l.Name)
}

func readCRL(_ context.Context, view conclave.View, in *nameIn) (*crlOut, error) {
	name, err := canonicalName(in.Name)
	if err != nil {
		return nil, err
	}
	l, err := loadList(view, name)
	if err != nil {
		return nil, err
	}
	if l == nil {
		return nil, &conclave.Error{Kind: conclave.NotFound}
	}
	out := &crlOut{Serials: map[string]struct{}{}, Count: l.Count, Issuer: l.IssuerName, ThisUpdate: l.ThisUpdate, AcceptExpired: l.AcceptExpired, URL: l.URL}
	if !l.NextUpdate.IsZero() {
		out.NextUpdate = &l.NextUpdate
	}
	for i := 0; i < l.Shards && len(out.Serials) < shown; i++ {
		serials, err := l.load(view, i)
		if err != nil {
			return nil, err
		}
		for _, serial := range serials[:min(len(serials), shown-len(out.Serials))] {
			out.Serials[serial] = struct{}{}
		}
	}
	return out, nil
}

func deleteCRL(_ context.Context, tx conclave.Tx, in *nameIn) (*conclave.None, error) {
	name, err := canonicalName(in.Name)
	if err != nil {
		return nil, err
	}
	l, err := loadList(tx, name)
	if err != nil {
		return nil, err
	}
	return nil, l.remove(tx)
}

func (l *list) load(view conclave.View, shard int) ([]string, error) {
	found, err := view.Load(l.shardPath(shard), func(value []byte) (any, error) {
		var serials []string
		err := json.Unmarshal(value, &serials)
		return serials, err
	})
	if err != nil || found == nil {
		return nil, err
	}
	return found.([]string), nil
}

// isOver judges the list's end by cluster time. A list without an end has none.
func (l *list) isOver(view conclave.View) bool {
	return !l.NextUpdate.IsZero() && view.Reached(l.NextUpdate)
}
