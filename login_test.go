package conclave

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestTermsAreBroughtIntoOneSpelling(t *testing.T) {
	terms := TokenTerms{Policies: []string{" Dev ", "", "ops"}, BoundCIDRs: []string{"192.0.2.1", "2001:db8::/32"}}
	if err := terms.Check(); err != nil {
		t.Fatal(err)
	}
	if want := []string{"dev", "ops"}; !slices.Equal(terms.Policies, want) || terms.Type != "default" {
		t.Errorf("terms = %+v, want policies %v and the type default", terms, want)
	}
}

func TestTermsThatCannotBeAreRefused(t *testing.T) {
	for name, terms := range map[string]TokenTerms{
		"an unknown type":         {Type: "eternal"},
		"a negative time":         {TTL: -1},
		"a thousand years":        {Period: 1000 * 365 * 86400},
		"a TTL past the maximum":  {TTL: 2, MaxTTL: 1},
		"a periodic batch token":  {Type: "batch", Period: 1},
		"a counted batch token":   {Type: "batch", NumUses: 1},
		"the policy root":         {Policies: []string{"Root "}},
		"a network that is none":  {BoundCIDRs: []string{"all"}},
		"a name of many bytes":    {Policies: []string{strings.Repeat("a", 300)}},
		"an address with a zone":  {BoundCIDRs: []string{"fe80::1%eth0"}},
		"more policies than fit":  {Policies: make([]string, 300)},
		"IPv4 and IPv6 in one":    {BoundCIDRs: []string{"::ffff:0:0/90"}},
		"more uses than no uses":  {NumUses: -1},
		"a network with no width": {BoundCIDRs: []string{"192.0.2.0/"}},
	} {
		if err := terms.Check(); !Is(err, Invalid) {
			t.Errorf("%s: %v, want Invalid", name, err)
		}
	}
}

func TestMayComeFrom(t *testing.T) {
	tests := []struct {
		networks string
		address  string
		want     bool
	}{
		{"", "203.0.113.9", true},
		{"192.0.2.0/24", "192.0.2.200", true},
		{"192.0.2.0/24", "192.0.3.1", false},
		{"192.0.2.7", "::ffff:192.0.2.7", true},
		{"::ffff:192.0.2.0/120", "192.0.2.7", true},
		{"10.0.0.0/8 2001:db8::/32", "2001:db8::7", true},
		{"nonsense", "192.0.2.7", false},
	}
	for _, test := range tests {
		if got := MayComeFrom(strings.Fields(test.networks), netip.MustParseAddr(test.address)); got != test.want {
			t.Errorf("MayComeFrom(%q, %s) = %v, want %v", test.networks, test.address, got, test.want)
		}
	}
}

func TestSecondsAreGivenAsDurationsAndShownAsNumbers(t *testing.T) {
	var in struct {
		TTL Seconds `json:"ttl"`
	}
	for text, want := range map[string]Seconds{`{"ttl":"1h"}`: 3600, `{"ttl":90}`: 90, `{"ttl":"90"}`: 90, `{"ttl":"2d"}`: 172800, `{"ttl":""}`: 0} {
		if err := bind(&in, nil, decode(t, text)); err != nil || in.TTL != want {
			t.Errorf("bind(%s) = %d, %v, want %d", text, in.TTL, err, want)
		}
	}
	if err := bind(&in, nil, decode(t, `{"ttl":"soon"}`)); !Is(err, Invalid) {
		t.Errorf("bind accepts a duration that is none: %v", err)
	}
	if text, err := json.Marshal(in); err != nil || strings.Contains(string(text), `"`+"h") {
		t.Errorf("Marshal = %s, %v", text, err)
	}
	if d := Seconds(90).Duration(); d != 90*time.Second {
		t.Errorf("Duration = %v", d)
	}
}

func TestMergeKeepsWhatIsNotGiven(t *testing.T) {
	role := struct {
		TokenTerms
		Bound string `json:"bound"`
	}{TokenTerms: TokenTerms{TTL: 60, Policies: []string{"dev"}}, Bound: "x"}
	if err := Merge(&role, decode(t, `{"token_ttl":"2m","bound":null,"unknown":1}`)); err != nil {
		t.Fatal(err)
	}
	if role.TTL != 120 || role.Bound != "x" || !slices.Equal(role.Policies, []string{"dev"}) {
		t.Errorf("merged to %+v", role)
	}
	if err := Merge(&role, decode(t, `{"token_policies":""}`)); err != nil || len(role.Policies) != 0 {
		t.Errorf("an empty list leaves %v, %v", role.Policies, err)
	}
}
