package passcode

import (
	"testing"
)

// TestCodesOfTheRFC has the vectors of RFC 6238, appendix B.
func TestCodesOfTheRFC(t *testing.T) {
	const seed = "1234567890123456789012345678901234567890123456789012345678901234"
	keys := map[string][]byte{"SHA1": []byte(seed[:20]), "SHA256": []byte(seed[:32]), "SHA512": []byte(seed)}
	for _, row := range []struct {
		at        int64
		algorithm string
		want      string
	}{
		{59, "SHA1", "94287082"}, {59, "SHA256", "46119246"}, {59, "SHA512", "90693936"},
		{1111111109, "SHA1", "07081804"}, {1111111109, "SHA256", "68084774"}, {1111111109, "SHA512", "25091201"},
		{1111111111, "SHA1", "14050471"}, {1111111111, "SHA256", "67062674"}, {1111111111, "SHA512", "99943326"},
		{1234567890, "SHA1", "89005924"}, {1234567890, "SHA256", "91819424"}, {1234567890, "SHA512", "93441116"},
		{2000000000, "SHA1", "69279037"}, {2000000000, "SHA256", "90698825"}, {2000000000, "SHA512", "38618901"},
		{20000000000, "SHA1", "65353130"}, {20000000000, "SHA256", "77737706"}, {20000000000, "SHA512", "47863826"},
	} {
		p := Parameters{Key: keys[row.algorithm], Algorithm: row.algorithm, Digits: 8, Period: 30}
		if got, err := p.Code(row.at / 30); got != row.want || err != nil {
			t.Errorf("at %d with %s: %q, %v, want %q", row.at, row.algorithm, got, err, row.want)
		}
	}
}

func FuzzNormal(f *testing.F) {
	f.Add("123456")
	f.Add(" 123456\n")
	f.Add("１２３４５６")
	f.Fuzz(func(t *testing.T, text string) {
		got, ok := Normal(text, 6)
		if again, still := Normal(got, 6); ok && (again != got || !still || len(got) != 6) {
			t.Errorf("Normal(%q) = %q, which becomes %q", text, got, again)
		}
	})
}
