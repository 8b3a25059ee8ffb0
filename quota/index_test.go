package quota

import (
	"strings"
	"testing"

	"conclave"
)

func TestMostSpecificQuotaApplies(t *testing.T) {
	places := map[string]Place{
		"everything":      {Inheritable: true},
		"team":            {Namespace: "team/"},
		"org":             {Namespace: "org/", Inheritable: true},
		"inner":           {Namespace: "org/inner/"},
		"kv":              {Mount: "kv/"},
		"kv below foo":    {Mount: "kv/", Suffix: "data/foo/*"},
		"kv below f":      {Mount: "kv/", Suffix: "data/f*"},
		"kv bar":          {Mount: "kv/", Suffix: "data/foo/bar"},
		"all of pki":      {Mount: "pki/", Suffix: "*"},
		"pki":             {Mount: "pki/"},
		"team's userpass": {Namespace: "team/", Mount: "auth/userpass/"},
		"web":             {Mount: "auth/approle/", Role: "web"},
	}
	var x index
	names := []string{}
	for name, place := range places {
		x.add(place, len(names))
		names = append(names, name)
	}
	inner := func(outer, name string) bool {
		return outer == "" && (name == "team" || name == "org" || name == "other") || outer == "team/" && name == "sub" || outer == "org/" && name == "inner" || outer == "org/inner/" && name == "deep"
	}
	tests := map[string]string{
		"sys/mounts":                    "everything",
		"kv":                            "kv",
		"kv/":                           "kv",
		"kv/data/x":                     "kv",
		"kvx/data/x":                    "everything",
		"kv/data/foo":                   "kv below foo", // what is a directory's is also the directory
		"kv/data/fo":                    "kv below f",
		"kv/data/foo/bar":               "kv bar",
		"kv/data/foo/bar/":              "kv bar",
		"kv/data/foo/bar/x":             "kv below foo",
		"pki":                           "all of pki",
		"pki/issue":                     "all of pki",
		"team/kv/data/foo/bar":          "team",
		"team/auth/userpass/login/a":    "team's userpass",
		"team/sub/auth/userpass/login/": "everything",
		"team/sub/kv/x":                 "everything",
		"org/kv/x":                      "org",
		"org/other/x":                   "org",
		"org/inner/x":                   "inner",
		"org/inner/deep/x":              "org",
		"other/kv/x":                    "everything",
		"auth/approle/login":            "everything",
	}
	for path, want := range tests {
		at, ok := x.find(path, inner)
		if !ok || names[at] != want {
			t.Errorf("find(%q) = %q, want %q", path, names[max(0, at)], want)
		}
	}
	if at, ok := x.ofRole("auth/approle/", "web"); !ok || names[at] != "web" {
		t.Error("the quota of a role isn't found")
	}
	for _, role := range []string{"", "other"} {
		if _, ok := x.ofRole("auth/approle/", role); ok {
			t.Errorf("role %q has a quota", role)
		}
	}
	if _, ok := new(index).find("a/b", inner); ok {
		t.Error("an empty index has something")
	}
}

func TestExemptPathsHaveNoLimit(t *testing.T) {
	rules := newRules(record{Config: &Config{Exempt: []string{"sys/mounts", "kv/open*"}, ExemptAbsolute: []string{"team/kv/x"}}})
	for path, want := range map[string]bool{"sys/mounts": true, "sys/mounts/x": false, "kv/open/a": true, "kv/openly": true, "kv/x": false} {
		if got := rules.exempt("", path); got != want {
			t.Errorf("exempt(%q) = %v, want %v", path, got, want)
		}
	}
	if !rules.exempt("team/", "kv/x") || !rules.exempt("team/", "sys/mounts/") {
		t.Error("paths of a namespace aren't exempt")
	}
}

// golden is a record as the first release writes it.
const golden = `{"config":{"exempt":["sys/health"],"exempt_absolute":null,"audit":true},` +
	`"rate":[{"mount":"kv/","suffix":"data/*","name":"a","rate":1.5,"interval":60,"block":5,"changed":7}],` +
	`"leases":[{"namespace":"team/","inheritable":true,"name":"b","max":3,"id":"1.b"}]}`

func TestStoredRulesStayReadable(t *testing.T) {
	rules, err := decode([]byte(golden))
	if err != nil {
		t.Fatal(err)
	}
	if r := rules.Rates[0]; r.Path() != "kv/data/*" || r.Rate != 1.5 || r.Interval != 60 || r.Block != 5 || r.Changed != 7 || r.Together {
		t.Errorf("the rate limit is %+v", r)
	}
	if r := rules.Leases[0]; r.Path() != "team/" || r.Max != 3 || r.ID != "1.b" || !r.Inheritable {
		t.Errorf("the lease count is %+v", r)
	}
	if !rules.settled.Audit || rules.settled.Exempt[0] != "sys/health" {
		t.Errorf("the configuration is %+v", rules.settled)
	}
}

func FuzzDecodeRules(f *testing.F) {
	f.Add([]byte(golden))
	f.Add([]byte(`{"rate":[null]}`))
	f.Fuzz(func(t *testing.T, value []byte) {
		rules, err := decode(value)
		if err != nil {
			if !conclave.Is(err, conclave.Internal) {
				t.Errorf("decode: %v, want Internal", err)
			}
			return
		}
		for _, r := range rules.Rates {
			if at, ok := rules.rates.find(strings.TrimSuffix(r.Path(), "*")+"/x", func(_, _ string) bool { return true }); ok && rules.Rates[at] == nil {
				t.Error("a rule that isn't there was found")
			}
		}
	})
}
