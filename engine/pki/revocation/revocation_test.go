package revocation

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"conclave"
	"conclave/engine/pki/issuing"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 678, time.UTC)

func golden(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return bytes.TrimSpace(text)
}

var sheet = newSheet([]Entry{{Serial: []byte{1}, At: now.UnixNano(), Expires: now.Add(time.Hour).Unix()},
	{Serial: bytes.Repeat([]byte{0xab}, 20), At: now.Add(time.Second).UnixNano(), Expires: -1, Reason: 4}})

func TestFormatsAreAsShipped(t *testing.T) {
	want, err := hex.DecodeString(string(golden(t, "sheet.hex")))
	if err != nil {
		t.Fatal(err)
	}
	if got := sheet.Encode(); !bytes.Equal(got, want) {
		t.Errorf("a sheet encodes as %x, want %x", got, want)
	}
	if got, err := DecodeSheet(want); err != nil || !reflect.DeepEqual(got, sheet) {
		t.Errorf("a sheet decodes as %v, %v", got, err)
	}
	head, err := DecodeHead(golden(t, "head.json"))
	if err != nil || !reflect.DeepEqual(head, &Head{Changed: 1767323045000000678, Base: 1767323045000000600, First: 2, Next: 5, Count: 300, made: &editions{}}) {
		t.Errorf("a head decodes as %+v, %v", head, err)
	}
	config, err := DecodeConfig(golden(t, "config.json"))
	if err != nil || !reflect.DeepEqual(config, &Config{Disable: true, Expiry: 3600, OCSPDisable: true, OCSPExpiry: 60, AutoRebuild: true, Grace: 600, EnableDelta: true, DeltaPeriod: 300, MaxEntries: 10, Changed: 5, Unified: true, UnifiedPaths: true}) {
		t.Errorf("a configuration decodes as %+v, %v", config, err)
	}
	for n := range want {
		if got, err := DecodeSheet(want[:n]); err == nil && len(got.Entries) == len(sheet.Entries) {
			t.Errorf("a sheet cut to %d bytes decodes", n)
		}
	}
}

func FuzzDecodeSheet(f *testing.F) {
	f.Add(sheet.Encode())
	f.Add([]byte{tagSheet})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := DecodeSheet(b)
		if err != nil {
			return
		}
		if again, err := DecodeSheet(s.Encode()); err != nil || !reflect.DeepEqual(again, s) {
			t.Errorf("%x: %v, then %v, %v", b, s, again, err)
		}
	})
}

// authorityFor is an issuer with its key.
func authorityFor(t testing.TB) (*x509.Certificate, crypto.Signer) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, NotBefore: now, NotAfter: now.Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, SubjectKeyId: []byte{1, 2}}
	cert, err := issuing.Sign(template, nil, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func TestEditionsFollowChangesAndPeriods(t *testing.T) {
	config := &Config{Expiry: conclave.InSeconds(72 * time.Hour), AutoRebuild: true, Grace: conclave.InSeconds(12 * time.Hour)}
	period := 60 * time.Hour
	head := &Head{Changed: now.UnixNano(), Base: now.Add(-time.Hour).UnixNano()}
	for after, want := range map[time.Duration]Edition{
		0:              {now.UnixNano(), head.Base},
		period - 1:     {now.UnixNano(), head.Base},
		period:         {now.Add(period).UnixNano(), now.Add(period).UnixNano()},
		3*period + 100: {now.Add(3 * period).UnixNano(), now.Add(3 * period).UnixNano()},
		-time.Hour:     {now.UnixNano(), head.Base}, // a clock that was set back
	} {
		got, until := config.Edition(head, now.Add(after))
		if got != want || !until.After(now.Add(after)) {
			t.Errorf("after %s: %+v until %v, want %+v", after, got, until, want)
		}
	}
	config.DeltaPeriod = 600
	for after, want := range map[time.Duration]time.Duration{0: 0, 9 * time.Minute: 0, 25 * time.Minute: 20 * time.Minute, period + time.Minute: period, period + 11*time.Minute: period + 10*time.Minute} {
		got, until := config.DeltaEdition(head, now.Add(after))
		if got.Number != now.Add(want).UnixNano() || until.Sub(now) != want+10*time.Minute {
			t.Errorf("after %s the delta is of %s, until %s", after, time.Unix(0, got.Number).Sub(now), until.Sub(now))
		}
	}
	config.Changed = now.Add(time.Minute).UnixNano()
	if got, _ := config.Edition(head, now.Add(time.Hour)); got.Number != config.Changed {
		t.Errorf("after a change of the configuration the number is %d", got.Number)
	}
	config.Changed = 0
	grown := *head
	config.Rebase(&grown, now.Add(time.Hour))
	if grown.Base != head.Base {
		t.Error("a base moves within its period")
	}
	config.Rebase(&grown, now.Add(period+time.Hour))
	if grown.Base != now.Add(period).UnixNano() {
		t.Errorf("after a period the base is %d", grown.Base)
	}
	if touched := head.Touch(now.Add(-time.Hour), config); touched != head.Changed+1 {
		t.Errorf("a change in the past has the number %d", touched)
	}
}

func TestListsAndDeltas(t *testing.T) {
	cert, key := authorityFor(t)
	list := List{Edition: Edition{Number: sheet.Entries[1].At, Base: sheet.Entries[0].At}, Expiry: time.Hour, Sheets: []*Sheet{sheet}}
	der, err := list.Sign(cert, issuing.Steady(key))
	if err != nil {
		t.Fatal(err)
	}
	if again, err := list.Sign(cert, issuing.Steady(key)); err != nil || !bytes.Equal(der, again) {
		t.Error("two nodes make different lists")
	}
	crl, err := x509.ParseRevocationList(der)
	if err != nil || crl.CheckSignatureFrom(cert) != nil || len(crl.RevokedCertificateEntries) != 2 || crl.RevokedCertificateEntries[1].ReasonCode != 4 || crl.Number.Int64() != sheet.Entries[1].At {
		t.Errorf("%+v, %v", crl, err)
	}
	list.IsDelta = true
	if der, err = list.Sign(cert, issuing.Steady(key)); err != nil {
		t.Fatal(err)
	}
	delta, err := x509.ParseRevocationList(der)
	if err != nil || len(delta.RevokedCertificateEntries) != 1 || delta.RevokedCertificateEntries[0].SerialNumber.Cmp(new(big.Int).SetBytes(sheet.Entries[1].Serial)) != 0 {
		t.Fatalf("%+v, %v", delta, err)
	}
	indicated := false
	for _, extension := range delta.Extensions {
		indicated = indicated || extension.Id.Equal(oidDelta) && extension.Critical
	}
	if !indicated {
		t.Error("a delta doesn't say that it is one")
	}
}

func TestQuestionsAndAnswers(t *testing.T) {
	cert, key := authorityFor(t)
	other, _ := authorityFor(t)
	about := &x509.Certificate{SerialNumber: big.NewInt(77)}
	for _, hash := range []crypto.Hash{crypto.SHA1, crypto.SHA256} {
		der, err := ocsp.CreateRequest(about, cert, &ocsp.RequestOptions{Hash: hash})
		if err != nil {
			t.Fatal(err)
		}
		q, err := DecodeQuestion(base64.StdEncoding.EncodeToString(der))
		if err != nil {
			t.Fatal(err)
		}
		if same, err := DecodeQuestion(base64.RawURLEncoding.EncodeToString(der)); err != nil || same.Serial().Cmp(q.Serial()) != 0 {
			t.Errorf("the other base64: %v", err)
		}
		if !q.IsAbout(cert) || q.IsAbout(other) || q.Serial().Int64() != 77 {
			t.Errorf("%v: about %v, about another %v", hash, q.IsAbout(cert), q.IsAbout(other))
		}
		for _, revoked := range []*Entry{nil, {At: now.UnixNano(), Reason: 1}} {
			signed, err := (&Answer{Revoked: revoked, Now: now, Expiry: time.Hour}).Sign(q, cert, issuing.Steady(key))
			if err != nil {
				t.Fatal(err)
			}
			response, err := ocsp.ParseResponseForCert(signed, about, cert)
			if err != nil {
				t.Fatal(err)
			}
			if want := map[bool]int{true: ocsp.Revoked, false: ocsp.Good}[revoked != nil]; response.Status != want || response.NextUpdate.Sub(response.ThisUpdate) != time.Hour {
				t.Errorf("status %d, want %d", response.Status, want)
			}
		}
	}
	for _, text := range []string{"", "AAAA", "%%%", strings.Repeat("A", 3*MaxRequest)} {
		if _, err := DecodeQuestion(text); err == nil {
			t.Errorf("%.20q is read", text)
		}
	}
}

func FuzzParseQuestion(f *testing.F) {
	cert, _ := authorityFor(f)
	der, err := ocsp.CreateRequest(&x509.Certificate{SerialNumber: big.NewInt(77)}, cert, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(der)
	f.Add([]byte{0x30, 0})
	f.Fuzz(func(t *testing.T, der []byte) {
		q, err := ParseQuestion(der)
		if err == nil {
			_ = q.IsAbout(cert)
			_ = q.Serial()
		}
	})
}

// BenchmarkSignList makes a list of 100,000 entries, as after each change of one that long.
func BenchmarkSignList(b *testing.B) {
	cert, key := authorityFor(b)
	list := List{Edition: Edition{Number: now.UnixNano()}, Expiry: time.Hour}
	for range 100_000 / SheetSize {
		var s []Entry
		for range SheetSize {
			serial := make([]byte, 20)
			_, _ = rand.Read(serial)
			serial[0] |= 1
			s = append(s, Entry{Serial: serial, At: now.UnixNano(), Expires: now.Unix()})
		}
		list.Sheets = append(list.Sheets, newSheet(s))
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := list.Sign(cert, issuing.Steady(key)); err != nil {
			b.Fatal(err)
		}
	}
}
