package stored

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"math/big"
	"reflect"
	"strings"
	"testing"
	"time"

	"conclave"
	"conclave/engine/enginetest"
)

func TestSerialNumbersHaveOneName(t *testing.T) {
	for text, want := range map[string]string{"3B:9d:01": "3b9d01", "3b-9d-01": "3b9d01", "3b9d01": "3b9d01", "00:3b": "3b", "0001": "01", "00": "00"} {
		if got, err := ParseSerial(text); err != nil || got != want {
			t.Errorf("ParseSerial(%q) = %q, %v, want %q", text, got, err, want)
		}
	}
	for _, text := range []string{"", ":", "3b:", ":3b", "3b::9d", "3", "3:b", "3b/9d", "..", "zz", "0x3b", "3b 9d", strings.Repeat("ab", 33), "3b\n"} {
		if got, err := ParseSerial(text); err == nil {
			t.Errorf("ParseSerial(%q) = %q", text, got)
		}
	}
	if got := SerialText(SerialName(big.NewInt(0x3b9d01))); got != "3b:9d:01" {
		t.Errorf("SerialText = %q", got)
	}
}

func FuzzParseSerial(f *testing.F) {
	f.Add("3b:9d:01")
	f.Add("../x")
	f.Fuzz(func(t *testing.T, text string) {
		name, err := ParseSerial(text)
		if err != nil {
			return
		}
		if again, err := ParseSerial(SerialText(name)); err != nil || again != name || strings.ContainsAny(name, "/.:-") {
			t.Errorf("ParseSerial(%q) = %q, then %q, %v", text, name, again, err)
		}
	})
}

func TestCertificatesAreStoredAsShipped(t *testing.T) {
	kept := &Certificate{Authority: "000102030405060708090a0b0c0d0e0f", DER: []byte{0x30, 0}}
	want, err := hex.DecodeString("01000102030405060708090a0b0c0d0e0f3000")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := kept.Encode(); err != nil || !bytes.Equal(got, want) {
		t.Errorf("encodes as %x, %v", got, err)
	}
	if got, err := DecodeCertificate(want); err != nil || !reflect.DeepEqual(got, kept) {
		t.Errorf("decodes as %v, %v", got, err)
	}
	for n := range 18 {
		if _, err := DecodeCertificate(want[:n]); err == nil {
			t.Errorf("cut to %d bytes it decodes", n)
		}
	}
	if CertPath("3b9d01") != "cert/01/3b9d01" || RevokedPath("3b9d01") != "revoked/01/3b9d01" || ExpiryPath(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), "3b9d01") != "expiry/20260102/03/3b9d01" {
		t.Error("paths are others than shipped")
	}
}

func FuzzDecodeCertificate(f *testing.F) {
	f.Add(append([]byte{tagCertificate}, make([]byte, 20)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		kept, err := DecodeCertificate(b)
		if err != nil {
			return
		}
		if again, err := kept.Encode(); err != nil || !bytes.Equal(again, b) {
			t.Errorf("%x encodes as %x, %v", b, again, err)
		}
	})
}

// A serial number that is taken is no reason to forget the certificate that has it.
func TestSerialNumbersDoNotCollide(t *testing.T) {
	tx := enginetest.NewMemory(t)
	first, second := &x509.Certificate{SerialNumber: big.NewInt(5), Raw: []byte("first")}, &x509.Certificate{SerialNumber: big.NewInt(5), Raw: []byte("second")}
	of := strings.Repeat("ab", 16)
	if err := Keep(tx, first, of); err != nil {
		t.Fatal(err)
	}
	if err := Keep(tx, second, of); !conclave.Is(err, conclave.Unavailable) {
		t.Errorf("kept another one: %v", err)
	}
	if kept, err := LoadCert(tx, "05"); err != nil || string(kept.DER) != "first" {
		t.Errorf("kept is %v, %v", kept, err)
	}
}
