package integration

import (
	"crypto/ed25519"
	"net/http"
	"slices"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// TestSignedKeysAreForWhoAsks has a role's template filled in by the identity behind a token, on every node, and as it is
// at that moment.
func TestSignedKeysAreForWhoAsks(t *testing.T) {
	l := startLab(t, 3)
	ctx := within(t, 2*time.Minute)
	root := sdk(t, l, 1)
	enableAuth(t, root, "userpass")
	mustWrite(t, ctx, root, "sys/mounts/ssh", map[string]any{"type": "ssh"})
	mustWrite(t, ctx, root, "ssh/config/ca", map[string]any{"key_type": "ed25519"})
	mustWrite(t, ctx, root, "ssh/roles/web", map[string]any{"key_type": "ca", "allow_user_certificates": true, "allowed_users": "{{identity.entity.metadata.login}}", "allowed_users_template": true,
		"default_user": "{{identity.entity.metadata.login}}", "default_user_template": true})
	mustWrite(t, ctx, root, "sys/policies/acl/sign", map[string]any{"policy": `path "ssh/sign/web" { capabilities = ["update"] }`})
	mustWrite(t, ctx, root, "auth/userpass/users/alice", map[string]any{"password": "correct horse", "policies": "sign"})
	login, err := anonymous(t, l, 2).Logical().WriteWithContext(ctx, "auth/userpass/login/alice", map[string]any{"password": "correct horse"})
	if err != nil {
		t.Fatal(err)
	}
	public, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	fields := map[string]any{"public_key": string(ssh.MarshalAuthorizedKey(key))}
	for n, name := range []string{"alice", "al", "al,root", ""} {
		mustWrite(t, ctx, root, "identity/entity/id/"+login.Auth.EntityID, map[string]any{"metadata": map[string]string{"login": name}})
		client := sdk(t, l, n%3+1)
		client.SetToken(login.Auth.ClientToken)
		answer, err := client.Logical().WriteWithContext(ctx, "ssh/sign/web", fields)
		if n >= 2 {
			wantRefusal(t, err, http.StatusBadRequest, "without principals")
			continue
		}
		if err != nil {
			t.Fatalf("as %q: %v", name, err)
		}
		signed, _, _, _, err := ssh.ParseAuthorizedKey([]byte(answer.Data["signed_key"].(string)))
		if err != nil {
			t.Fatal(err)
		}
		if certificate := signed.(*ssh.Certificate); !slices.Equal(certificate.ValidPrincipals, []string{name}) {
			t.Errorf("as %q: signed for %q", name, certificate.ValidPrincipals)
		}
	}
}
