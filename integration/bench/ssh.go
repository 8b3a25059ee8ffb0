package main

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"math/rand/v2"

	"golang.org/x/crypto/ssh"

	"conclave/integration/lab"
)

const sshPath = "bench-ssh"

// signKey asks for a certificate.
func (t *target) signKey(dst []byte, _ *rand.Rand) []byte {
	return appendRequest(dst, "POST", sshPath+"/sign/bench", t.token, t.signed)
}

// trust makes an authority with an Ed25519 key, a role, and a user's key for it to sign.
func (t *target) trust(ctx context.Context, root *lab.Client) error {
	answer, err := root.Do(ctx, "POST", "sys/mounts/"+sshPath, map[string]string{"type": "ssh"})
	if err == nil {
		err = answer.Want(200, 204, 400) // 400: it is there from an earlier run
	}
	if err != nil {
		return fmt.Errorf("mount ssh: %w", err)
	}
	if answer, err = root.Do(ctx, "POST", sshPath+"/config/ca", map[string]any{"generate_signing_key": true, "key_type": "ed25519"}); err == nil {
		err = answer.Want(200, 204, 400) // 400: likewise
	}
	if err != nil {
		return fmt.Errorf("make an SSH authority: %w", err)
	}
	role := map[string]any{"key_type": "ca", "allow_user_certificates": true, "allowed_users": "ubuntu", "default_user": "ubuntu", "ttl": "30m",
		"default_extensions": map[string]string{"permit-pty": ""}}
	if err := root.Write(ctx, sshPath+"/roles/bench", role, nil); err != nil {
		return err
	}
	public, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		return err
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		return err
	}
	line := ssh.MarshalAuthorizedKey(key)
	t.signed = fmt.Appendf(nil, `{"public_key":"%s"}`, line[:len(line)-1])
	return nil
}
