package kv

import "testing"

func TestResolveFindsThePathInItsMount(t *testing.T) {
	for _, tc := range []struct {
		name               string
		found, mount, path string
		versioned          bool
		data               string
	}{
		{"version 2", "secret", "", "secret/app/db", true, "secret/data/app/db"},
		{"version 1", "old", "", "old/app", false, "old/app"},
		{"the mount itself", "secret", "", "secret", true, "secret/data"},
		{"a deep mount", "team/a/kv", "", "team/a/kv/app", true, "team/a/kv/data/app"},
		{"with -mount", "secret", "secret", "app/db", true, "secret/data/app/db"},
		{"with -mount and the mount's name again", "secret", "secret", "secret/app", true, "secret/data/secret/app"},
		{"-mount names a folder of a mount", "secret", "secret/team", "app", true, "secret/data/team/app"},
		{"a path that begins like the mount", "secret", "secret", "secrets", true, "secret/data/secrets"},
		{"no mount is known", "", "", "kv/app", false, "kv/app"},
		{"no mount is known, with -mount", "", "kv", "app", false, "kv/app"},
		{"-mount alone", "secret", "secret", "", true, "secret/data"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := resolve(tc.found, tc.mount, tc.path, tc.versioned).at("data"); got != tc.data {
				t.Errorf("resolve(%q, %q, %q).at(data) = %q, want %q", tc.found, tc.mount, tc.path, got, tc.data)
			}
		})
	}
}
