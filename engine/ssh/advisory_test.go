package ssh

import (
	"crypto/rand"
	"crypto/rsa"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"conclave"
)

// What other vaults got wrong, or what is easily got wrong, each beside a request that is right.

func principalsOf(t *testing.T, signed any) []string {
	t.Helper()
	return certificate(t, signed).ValidPrincipals
}

// CVE-2024-7594: a role without allowed users signed certificates for everybody.
func TestNoPrincipalsAreNotEverybody(t *testing.T) {
	public, _ := newKey(t)
	for _, row := range []struct {
		why    string
		role   map[string]any
		asked  map[string]any
		values identity
	}{
		{"no default user", map[string]any{"default_user": ""}, nil, nil},
		{"all users allowed", map[string]any{"default_user": "", "allowed_users": "*"}, nil, nil},
		{"asked for none", nil, map[string]any{"valid_principals": ""}, nil},
		{"asked for commas", map[string]any{"allowed_users": "*"}, map[string]any{"valid_principals": " , ,"}, nil},
		{"a template without a value", map[string]any{"default_user": "{{identity.entity.metadata.user}}", "default_user_template": true}, nil, identity{}},
		{"a template with an empty value", map[string]any{"default_user": "{{identity.entity.metadata.user}}", "default_user_template": true}, nil, identity{"identity.entity.metadata.user": ""}},
	} {
		h := as(newCA(t, row.role), "tester", row.values)
		asked := map[string]any{"public_key": public}
		for name, value := range row.asked {
			asked[name] = value
		}
		h.Fails(conclave.Update, "sign/web", asked, conclave.Invalid, "without principals")
	}
	h := newCA(t, map[string]any{"default_user": "", "allow_empty_principals": true})
	if got := principalsOf(t, h.Data(conclave.Update, "sign/web", map[string]any{"public_key": public})["signed_key"]); len(got) > 0 {
		t.Errorf("a role that says so gives principals %v", got)
	}
	h = newCA(t, map[string]any{"allowed_users": ""})
	h.Fails(conclave.Update, "sign/web", map[string]any{"public_key": public, "valid_principals": "root"}, conclave.Invalid, "not configured to allow any")
	h.Fails(conclave.Update, "sign/web", map[string]any{"public_key": public}, conclave.Invalid, "not configured to allow any")
}

func TestATemplatesValueIsOneName(t *testing.T) {
	public, _ := newKey(t)
	h := newCA(t, map[string]any{"allowed_users": "{{identity.entity.metadata.user}},x-{{identity.entity.name}}", "allowed_users_template": true,
		"default_user": "{{identity.entity.metadata.user}}", "default_user_template": true})
	sign := func(values conclave.TemplateValues, principals string) ([]string, error) {
		fields := map[string]any{"public_key": public}
		if principals != "" {
			fields["valid_principals"] = principals
		}
		response, err := as(h, "tester", values).Do(conclave.Update, "sign/web", fields)
		if err != nil {
			return nil, err
		}
		return principalsOf(t, response.Data.(*signOut).SignedKey), nil
	}
	if got, err := sign(identity{"identity.entity.metadata.user": "alice", "identity.entity.name": "bob"}, ""); err != nil || !slices.Equal(got, []string{"alice"}) {
		t.Fatalf("with a plain value: %v, %v", got, err)
	}
	if got, err := sign(identity{"identity.entity.name": "bob"}, "x-bob"); err != nil || !slices.Equal(got, []string{"x-bob"}) {
		t.Fatalf("with a value in a name: %v, %v", got, err)
	}
	for _, value := range []string{"alice,root", ",", "*", "roo?", "!alice", " root", "root ", "a\nroot", "a\x00", "{{identity.entity.name}}", "{{", "\u202eroot"} {
		values := identity{"identity.entity.metadata.user": value, "identity.entity.name": "root"}
		for _, principals := range []string{"", "root", value} {
			if got, err := sign(values, principals); err == nil {
				t.Errorf("with the value %q, asked for %q: signed for %q", value, principals, got)
			}
		}
	}
	if got, err := sign(nil, "root"); err == nil {
		t.Errorf("without an identity: signed for %q", got)
	}
	// A value never makes a list that allows all.
	h = newCA(t, map[string]any{"allowed_users": "{{identity.entity.metadata.user}}", "allowed_users_template": true})
	if got, err := sign(identity{"identity.entity.metadata.user": "*"}, "root"); err == nil {
		t.Errorf("a value of * allows %q", got)
	}
}

func TestTextsThatAreNoTemplatesStayTexts(t *testing.T) {
	public, _ := newKey(t)
	h := as(newCA(t, map[string]any{"allowed_users": "{{identity.entity.name}}"}), "tester", identity{"identity.entity.name": "root"})
	h.Fails(conclave.Update, "sign/web", map[string]any{"public_key": public, "valid_principals": "root"}, conclave.Invalid, "not a valid value")
}

func TestAStarIsAllOnlyAlone(t *testing.T) {
	public, _ := newKey(t)
	for users, all := range map[string]bool{"*": true, " * ": true, "*,ubuntu": false, "ubuntu,*": false, "u*": false, "": false} {
		h := newCA(t, map[string]any{"allowed_users": users})
		_, err := h.Do(conclave.Update, "sign/web", map[string]any{"public_key": public, "valid_principals": "root"})
		if (err == nil) != all {
			t.Errorf("allowed_users %q: %v, want all to be allowed: %v", users, err, all)
		}
	}
	for extensions, all := range map[string]bool{"*": true, "": false, "*,permit-pty": false, "permit-*": false} {
		h := newCA(t, map[string]any{"allowed_extensions": extensions})
		_, err := h.Do(conclave.Update, "sign/web", map[string]any{"public_key": public, "extensions": map[string]any{"permit-port-forwarding": ""}})
		if (err == nil) != all {
			t.Errorf("allowed_extensions %q: %v, want all to be allowed: %v", extensions, err, all)
		}
	}
}

func TestHostsStayInTheirDomains(t *testing.T) {
	public, _ := newKey(t)
	h := newCA(t, map[string]any{"allow_host_certificates": true, "allowed_domains": "example.com", "allow_subdomains": true})
	for host, allowed := range map[string]bool{"a.example.com": true, "b.a.example.com": true, "example.com": false, "badexample.com": false, ".example.com": false, "example.com.evil.org": false,
		"*": false, "a.example.com,evil.org": false, "a.example.com\n": true, "evil.org\na.example.com": false, "": false} {
		_, err := h.Do(conclave.Update, "sign/web", map[string]any{"public_key": public, "cert_type": "host", "valid_principals": host})
		if (err == nil) != allowed {
			t.Errorf("host %q: %v, want allowed: %v", host, err, allowed)
		}
	}
	h.Fails(conclave.Update, "sign/web", map[string]any{"public_key": public, "cert_type": "host"}, conclave.Invalid, "without principals")
	h.Data(conclave.Update, "roles/web", caRoleWith(map[string]any{"allow_host_certificates": true, "allowed_domains": "example.com", "allow_bare_domains": true}))
	h.Data(conclave.Update, "sign/web", map[string]any{"public_key": public, "cert_type": "host", "valid_principals": "example.com"})
	h.Fails(conclave.Update, "sign/web", map[string]any{"public_key": public, "cert_type": "host", "valid_principals": "a.example.com"}, conclave.Invalid, "not a valid value")
}

func TestKeyIDsAreTheVaults(t *testing.T) {
	public, _ := newKey(t)
	h := newCA(t, nil)
	h.Fails(conclave.Update, "sign/web", map[string]any{"public_key": public, "key_id": "vault-root"}, conclave.Invalid, "setting key_id is not allowed")
	keyID := func(displayName string) string {
		return certificate(t, as(h, displayName, nil).Data(conclave.Update, "sign/web", map[string]any{"public_key": public})["signed_key"]).KeyId
	}
	if got := keyID(""); !strings.HasPrefix(got, "vault-") || len(got) != len("vault-")+64 {
		t.Errorf("without a display name the key id is %q", got)
	}
	if got := keyID("a\nroot: accepted\x1b[2J"); strings.ContainsAny(got, "\n\x1b") {
		t.Errorf("a display name gives the key id %q", got)
	}
	h.Data(conclave.Update, "roles/web", caRoleWith(map[string]any{"key_id_format": "{{token_display_name}}/{{role_name}}"}))
	if got := keyID("{{public_key_hash}}{{role_name}}"); got != "{{public_key_hash}}{{role_name}}/web" {
		t.Errorf("a display name with variables gives the key id %q", got)
	}
	h.Data(conclave.Update, "roles/web", caRoleWith(map[string]any{"allow_user_key_ids": true}))
	h.Fails(conclave.Update, "sign/web", map[string]any{"public_key": public, "key_id": "a\nb"}, conclave.Invalid, "control characters")
	if got := certificate(t, h.Data(conclave.Update, "sign/web", map[string]any{"public_key": public, "key_id": "mine"})["signed_key"]).KeyId; got != "mine" {
		t.Errorf("a key id that is allowed became %q", got)
	}
}

func TestWeakKeysAreNotSigned(t *testing.T) {
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Skipf("no weak key can be made to try: %v", err)
	}
	key, err := ssh.NewPublicKey(weak.Public())
	if err != nil {
		t.Fatal(err)
	}
	public := string(ssh.MarshalAuthorizedKey(key))
	h := newCA(t, nil)
	h.Fails(conclave.Update, "sign/web", map[string]any{"public_key": public}, conclave.Invalid, "at least 2048 bits")
	h.Data(conclave.Update, "roles/web", caRoleWith(map[string]any{"allowed_user_key_lengths": map[string]any{"rsa": 1024}}))
	h.Data(conclave.Update, "sign/web", map[string]any{"public_key": public})
	h.Data(conclave.Update, "roles/web", caRoleWith(map[string]any{"allowed_user_key_lengths": map[string]any{"ed25519": 0, "rsa": 4096}}))
	h.Fails(conclave.Update, "sign/web", map[string]any{"public_key": public}, conclave.Invalid, "invalid size: 1024")
	h.Data(conclave.Update, "roles/web", caRoleWith(map[string]any{"allowed_user_key_lengths": map[string]any{"ed25519": 0}}))
	h.Fails(conclave.Update, "sign/web", map[string]any{"public_key": public}, conclave.Invalid, "type rsa is not allowed")
	good, _ := newKey(t)
	h.Data(conclave.Update, "sign/web", map[string]any{"public_key": good})
	for _, text := range []string{"", "ssh-ed25519", "ssh-rsa " + strings.Fields(good)[1], good + good, "command=\"x\" " + good} {
		if _, err := h.Do(conclave.Update, "sign/web", map[string]any{"public_key": text}); !conclave.Is(err, conclave.Invalid) {
			t.Errorf("public key %q: %v", text, err)
		}
	}
}

func TestExtensionsFromTemplates(t *testing.T) {
	public, _ := newKey(t)
	h := newCA(t, map[string]any{"default_extensions_template": true, "default_extensions": map[string]any{"permit-pty": "", "login@example.com": "{{identity.entity.name}}"}})
	extensions := func(values conclave.TemplateValues) (map[string]string, []string) {
		response, err := as(h, "tester", values).Do(conclave.Update, "sign/web", map[string]any{"public_key": public})
		if err != nil {
			t.Fatal(err)
		}
		return certificate(t, response.Data.(*signOut).SignedKey).Permissions.Extensions, response.Warnings
	}
	if got, warnings := extensions(identity{"identity.entity.name": "alice"}); got["login@example.com"] != "alice" || len(got) != 2 || len(warnings) > 0 {
		t.Errorf("extensions are %v, warnings %v", got, warnings)
	}
	if got, warnings := extensions(nil); len(got) != 1 || len(warnings) != 1 {
		t.Errorf("without an identity extensions are %v, warnings %v", got, warnings)
	}
	as(h, "tester", identity{"identity.entity.name": "alice,root"}).Fails(conclave.Update, "sign/web", map[string]any{"public_key": public}, conclave.Invalid, "no value that can be used")
}
