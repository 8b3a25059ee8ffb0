package ssh

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"conclave"
	"conclave/engine/enginetest"
)

func TestConformance(t *testing.T) {
	plugin := Plugin()
	if _, err := plugin.Open(nil); err != nil {
		t.Fatal(err)
	}
	plugin.Open = func(map[string]string) (conclave.Engine, error) { return quick(), nil }
	enginetest.Conformance(t, plugin, enginetest.AnswersAbsent("config/issuers"))
}

// quick is an engine that generates each kind of key once, and small ones of RSA.
func quick() Engine {
	made := map[string]*keyPair{}
	return Engine{func(kind string, bits int64) (*keyPair, error) {
		if kind == ssh.KeyAlgoRSA || kind == kindRSA {
			kind = kindRSA
			if bits == 0 {
				bits = minRSABits
			}
		}
		name := fmt.Sprint(kind, bits)
		if made[name] == nil {
			key, err := generate(rand.Reader, kind, bits)
			if err != nil {
				return nil, err
			}
			made[name] = key
		}
		return made[name], nil
	}}
}

// identity is what a caller's templates have for values.
type identity map[string]string

func (i identity) Resolve(template string) (string, bool) {
	value, ok := i[template]
	return value, ok
}

func as(h *enginetest.Harness, displayName string, values conclave.TemplateValues) *enginetest.Harness {
	return h.As(&conclave.Caller{TokenID: "t", DisplayName: displayName, EntityID: "e", Identity: values})
}

// newCA is a mount with an authority and a role that others are made from.
func newCA(t testing.TB, role map[string]any) *enginetest.Harness {
	t.Helper()
	h := enginetest.New(t, quick())
	h.Data(conclave.Update, "config/ca", map[string]any{"key_type": "ed25519"})
	h.Data(conclave.Update, "roles/web", caRoleWith(role))
	return h
}

// caRoleWith is a role of users with other fields.
func caRoleWith(more map[string]any) map[string]any {
	role := map[string]any{"key_type": "ca", "allow_user_certificates": true, "allowed_users": "ubuntu,deploy", "default_user": "ubuntu"}
	for name, value := range more {
		role[name] = value
	}
	return role
}

// newKey makes a key pair of a user: the line of authorized_keys.
func newKey(t testing.TB) (string, ed25519.PrivateKey) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return string(ssh.MarshalAuthorizedKey(key)), private
}

// certificate decodes what was signed.
func certificate(t testing.TB, signed any) *ssh.Certificate {
	t.Helper()
	key, _, _, rest, err := ssh.ParseAuthorizedKey([]byte(signed.(string)))
	if err != nil || len(rest) > 0 {
		t.Fatalf("signed_key can't be read: %v", err)
	}
	return key.(*ssh.Certificate)
}

// authority checks that certificates are signed by the mount's default issuer.
func authority(t testing.TB, h *enginetest.Harness) ssh.PublicKey {
	t.Helper()
	response, err := h.Do(conclave.Read, "public_key", nil)
	if err != nil {
		t.Fatal(err)
	}
	key, err := parsePublicKey(string(response.Raw.Body))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestSignedKeyIsWhatTheRoleSays(t *testing.T) {
	h := newCA(t, map[string]any{"ttl": "30m", "max_ttl": "1h", "default_extensions": map[string]any{"permit-pty": ""}, "allowed_extensions": "permit-pty,permit-port-forwarding",
		"default_critical_options": map[string]any{"force-command": "/bin/true"}})
	public, _ := newKey(t)
	data := h.Data(conclave.Update, "sign/web", map[string]any{"public_key": public})
	c := certificate(t, data["signed_key"])
	checker := ssh.CertChecker{Clock: h.Now, SupportedCriticalOptions: []string{"force-command"},
		IsUserAuthority: func(auth ssh.PublicKey) bool {
			return string(auth.Marshal()) == string(authority(t, h).Marshal())
		}}
	if err := checker.CheckCert("ubuntu", c); err != nil || !checker.IsUserAuthority(c.SignatureKey) {
		t.Fatalf("the certificate isn't good for ubuntu: %v", err)
	}
	if err := checker.CheckCert("root", c); err == nil {
		t.Error("the certificate is good for root")
	}
	if fmt.Sprintf("%x", c.Serial) != data["serial_number"] || len(c.Permissions.Extensions) != 1 || c.Permissions.CriticalOptions["force-command"] != "/bin/true" {
		t.Errorf("certificate has serial %x, answered %v, and %v", c.Serial, data["serial_number"], c.Permissions)
	}
	if from, to := int64(c.ValidAfter), int64(c.ValidBefore); from != h.Now().Unix()-30 || to != h.Now().Add(30*time.Minute).Unix() {
		t.Errorf("valid from %d to %d, now is %d", from, to, h.Now().Unix())
	}
	if !strings.HasPrefix(c.KeyId, "vault-tester-") || len(c.KeyId) != len("vault-tester-")+64 {
		t.Errorf("key id is %q", c.KeyId)
	}
	c = certificate(t, h.Data(conclave.Update, "sign/web", map[string]any{"public_key": public, "valid_principals": "deploy", "ttl": "1h",
		"extensions": map[string]any{"permit-port-forwarding": ""}})["signed_key"])
	if _, ok := c.Permissions.Extensions["permit-pty"]; ok || len(c.ValidPrincipals) != 1 || c.ValidPrincipals[0] != "deploy" {
		t.Errorf("asked for deploy without a terminal, got %v, %v", c.ValidPrincipals, c.Permissions)
	}
	h.Fails(conclave.Update, "sign/web", map[string]any{"public_key": public, "ttl": "61m"}, conclave.Invalid, "larger than maximum")
	h.Fails(conclave.Update, "sign/none", map[string]any{"public_key": public}, conclave.Invalid, "Unknown role")
	h.Fails(conclave.Update, "sign/web", map[string]any{"public_key": public, "cert_type": "host"}, conclave.Invalid, "not allowed by role")
	h.Fails(conclave.Update, "sign/web", map[string]any{"public_key": string(ssh.MarshalAuthorizedKey(c))}, conclave.Invalid, "is a certificate")
	h.Fails(conclave.Update, "sign/web", map[string]any{"public_key": public, "extensions": map[string]any{"permit-X11-forwarding": ""}}, conclave.Invalid, "not on allowed list")
}

func TestIssueMakesAKeyOfTheKindAskedFor(t *testing.T) {
	h := newCA(t, map[string]any{"allowed_user_key_lengths": map[string]any{"ed25519": 0, "ec": []int{256, 384}, "rsa": 2048}})
	for _, row := range []struct {
		kind, bits, format string
		ok                 bool
	}{
		{"ed25519", "0", "ssh-ed25519", true}, {"ec", "256", "ecdsa-sha2-nistp256", true}, {"ec", "384", "ecdsa-sha2-nistp384", true}, {"ec", "521", "", false},
		{"rsa", "2048", "ssh-rsa", true}, {"rsa", "3072", "", false}, {"rsa", "1024", "", false}, {"dsa", "0", "", false},
	} {
		response, err := h.Do(conclave.Update, "issue/web", map[string]any{"key_type": row.kind, "key_bits": row.bits})
		if (err == nil) != row.ok {
			t.Errorf("%s of %s bits: %v, want success %v", row.kind, row.bits, err, row.ok)
		}
		if err != nil {
			continue
		}
		data := enginetest.Decode(t, response.Data)
		signer, err := ssh.ParsePrivateKey([]byte(data["private_key"].(string)))
		if err != nil {
			t.Fatalf("%s: the private key can't be read: %v", row.kind, err)
		}
		c := certificate(t, data["signed_key"])
		if c.Key.Type() != row.format || string(signer.PublicKey().Marshal()) != string(c.Key.Marshal()) || data["private_key_type"] != row.kind {
			t.Errorf("%s: key of type %s, answered %v; the private key is its: %v", row.kind, c.Key.Type(), data["private_key_type"], false)
		}
	}
}

func TestSSHKeygenAgrees(t *testing.T) {
	keygen, err := exec.LookPath("ssh-keygen")
	if err != nil {
		missing(t, "openssh-client")
	}
	for _, kind := range []string{"rsa", "ed25519", "ecdsa-sha2-nistp384"} {
		t.Run(kind, func(t *testing.T) {
			h := enginetest.New(t, quick(), enginetest.Fast())
			h.Data(conclave.Update, "config/ca", map[string]any{"key_type": kind, "key_bits": map[string]int{"rsa": 2048}[kind]})
			h.Data(conclave.Update, "roles/web", caRoleWith(map[string]any{"allow_host_certificates": true, "allowed_domains": "example.com", "allow_subdomains": true, "key_id_format": "role {{role_name}}",
				"default_extensions": map[string]any{"permit-pty": ""}, "allowed_critical_options": "source-address"}))
			public, _ := newKey(t)
			data := h.Data(conclave.Update, "sign/web", map[string]any{"public_key": public, "valid_principals": "deploy,ubuntu", "critical_options": map[string]any{"source-address": "192.0.2.0/24"}})
			shown := inspect(t, keygen, data["signed_key"].(string))
			for _, want := range []string{"user certificate", `Key ID: "role web"`, "deploy", "ubuntu", "permit-pty", "source-address 192.0.2.0/24", ssh.FingerprintSHA256(authority(t, h))} {
				if !strings.Contains(shown, want) {
					t.Errorf("ssh-keygen -L doesn't show %q:\n%s", want, shown)
				}
			}
			data = h.Data(conclave.Update, "sign/web", map[string]any{"public_key": public, "cert_type": "host", "valid_principals": "a.example.com"})
			if shown := inspect(t, keygen, data["signed_key"].(string)); !strings.Contains(shown, "host certificate") || !strings.Contains(shown, "a.example.com") {
				t.Errorf("of a host certificate ssh-keygen -L shows:\n%s", shown)
			}
		})
	}
}

func inspect(t *testing.T, keygen, signed string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "key-cert.pub")
	if err := os.WriteFile(file, []byte(signed), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(keygen, "-L", "-f", file).CombinedOutput()
	if err != nil {
		t.Fatalf("ssh-keygen -L: %v: %s", err, out)
	}
	return string(out)
}

// missing skips a test for want of a package, which the project's own machines have.
func missing(t *testing.T, name string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("package %s is not installed", name)
	}
	t.Skipf("package %s is not installed", name)
}

func TestIssuersAreSeveral(t *testing.T) {
	h := enginetest.New(t, quick(), enginetest.Fast())
	h.Fails(conclave.Read, "config/ca", nil, conclave.Invalid, "keys haven't been configured yet")
	h.Fails(conclave.Read, "public_key", nil, conclave.NotFound, "")
	first := h.Data(conclave.Update, "config/ca", map[string]any{"key_type": "ed25519", "issuer_name": "old"})
	h.Fails(conclave.Update, "config/ca", map[string]any{"key_type": "ed25519"}, conclave.Invalid, "keys are already configured")
	h.Fails(conclave.Update, "issuers/import/old", map[string]any{"key_type": "ed25519"}, conclave.Invalid, "already in use")
	second := h.Data(conclave.Update, "issuers/import/new", map[string]any{"key_type": "ed25519"})
	h.Data(conclave.Update, "roles/web", caRoleWith(nil))
	h.Data(conclave.Update, "roles/new", caRoleWith(map[string]any{"issuer_ref": "new"}))
	public, _ := newKey(t)
	signedBy := func(role string) any {
		return h.Data(conclave.Update, "sign/"+role, map[string]any{"public_key": public})["issuer_id"]
	}
	if signedBy("web") != first["issuer_id"] || signedBy("new") != second["issuer_id"] {
		t.Error("a role doesn't sign with its issuer")
	}
	h.Data(conclave.Update, "config/issuers", map[string]any{"default": "new"})
	if signedBy("web") != second["issuer_id"] {
		t.Error("the default issuer isn't the one that was set")
	}
	list := h.Data(conclave.List, "issuers", nil)
	if keys := list["keys"].([]any); len(keys) != 2 {
		t.Errorf("issuers are %v", keys)
	}
	h.Data(conclave.Update, "issuer/old", map[string]any{"issuer_name": "older"})
	h.Fails(conclave.Read, "issuer/old", nil, conclave.NotFound, "")
	if got := h.Data(conclave.Read, "issuer/older", nil); got["public_key"] != first["public_key"] {
		t.Errorf("by its new name: %v", got)
	}
	response, err := h.Do(conclave.Delete, "issuer/new", nil)
	if err != nil || len(response.Warnings) != 1 {
		t.Errorf("deleting the default issuer: %v, %v", response, err)
	}
	h.Fails(conclave.Update, "sign/new", map[string]any{"public_key": public}, conclave.Invalid, "issuer is not there")
	h.Data(conclave.Delete, "config/ca", nil)
	h.Fails(conclave.List, "issuers", nil, conclave.NotFound, "")
	for path := range h.Stored() {
		if !strings.HasPrefix(path, rolesDir) {
			t.Errorf("%s is left over", path)
		}
	}
}

func TestImportedKeySigns(t *testing.T) {
	h := enginetest.New(t, quick(), enginetest.Fast())
	own, err := generate(rand.Reader, "ed25519", 0)
	if err != nil {
		t.Fatal(err)
	}
	other, _ := newKey(t)
	given := map[string]any{"private_key": own.private.Reveal(), "public_key": own.public, "generate_signing_key": false}
	h.Fails(conclave.Update, "config/ca", map[string]any{"private_key": own.private.Reveal(), "public_key": other}, conclave.Invalid, "not the public key of private_key")
	h.Fails(conclave.Update, "config/ca", map[string]any{"private_key": "-----BEGIN nonsense"}, conclave.Invalid, "Unable to parse private_key")
	h.Fails(conclave.Update, "config/ca", map[string]any{"generate_signing_key": false}, conclave.Invalid, "missing private_key")
	h.Fails(conclave.Update, "config/ca", map[string]any{"generate_signing_key": true, "private_key": own.private.Reveal()}, conclave.Invalid, "must not be set")
	h.Data(conclave.Update, "config/ca", given)
	if got := h.Data(conclave.Read, "config/ca", nil); got["public_key"] != own.public || got["private_key"] != nil {
		t.Errorf("config/ca shows %v", got)
	}
}

func TestRoleIsReadAsItWasWritten(t *testing.T) {
	h := newCA(t, map[string]any{"allowed_user_key_lengths": map[string]any{"rsa": "2048,4096", "ec": 256}, "not_before_duration": "5m", "ttl": 60})
	got := h.Data(conclave.Read, "roles/web", nil)
	for name, want := range map[string]string{"ttl": "60", "not_before_duration": "300", "algorithm_signer": `"default"`, "issuer_ref": `"default"`, "allowed_users": `"ubuntu,deploy"`,
		"allowed_user_key_lengths": `{"ec":[256],"rsa":[2048,4096]}`, "default_extensions": "{}", "allow_empty_principals": "false"} {
		if encoded, _ := json.Marshal(got[name]); string(encoded) != want {
			t.Errorf("%s is %s, want %s", name, encoded, want)
		}
	}
	if _, shown := got["cidr_list"]; shown {
		t.Error("a role of type ca shows cidr_list")
	}
	h.Data(conclave.Update, "roles/web", caRoleWith(nil))
	if got := h.Data(conclave.Read, "roles/web", nil); got["ttl"] != json.Number("0") {
		t.Errorf("after writing without a ttl it is %v: what isn't given takes its default", got["ttl"])
	}
	h.Data(conclave.Delete, "roles/web", nil)
	h.Fails(conclave.Read, "roles/web", nil, conclave.NotFound, "")
	for text, fields := range map[string]map[string]any{
		"missing key type":         {"key_type": ""},
		"invalid key type":         {"key_type": "x"},
		"no longer supported":      {"key_type": "dynamic"},
		"must be set to 'true'":    {"allow_user_certificates": false},
		"less than":                {"ttl": 2, "max_ttl": 1},
		"unknown algorithm signer": {"algorithm_signer": "md5"},
		"template that is not":     {"allowed_users": "{{identity.entity.name", "allowed_users_template": true},
		"no control characters":    {"allowed_users": "a\nb"},
	} {
		h.Fails(conclave.Update, "roles/bad", caRoleWith(fields), conclave.Invalid, text)
	}
}
