package main

import (
	"context"
	"fmt"
	"math/rand/v2"

	"conclave/integration/lab"
)

const pkiPath = "bench-pki"

// issue asks for a certificate of an ECDSA key on P-256 that is made for it; no copy is kept.
func (t *target) issue(dst []byte, random *rand.Rand) []byte {
	body := fmt.Appendf(nil, `{"common_name":"host-%d.example.com","ttl":"24h"}`, random.IntN(1_000_000))
	return appendRequest(dst, "POST", pkiPath+"/issue/bench", t.token, body)
}

// certify makes the authority that issues, and its role.
func (t *target) certify(ctx context.Context, root *lab.Client) error {
	answer, err := root.Do(ctx, "POST", "sys/mounts/"+pkiPath, map[string]string{"type": "pki"})
	if err == nil {
		err = answer.Want(200, 204, 400) // 400: it is there from an earlier run
	}
	if err != nil {
		return fmt.Errorf("mount pki: %w", err)
	}
	if err := root.Write(ctx, pkiPath+"/root/generate/internal", map[string]any{"common_name": "bench", "key_type": "ec", "ttl": "720h"}, nil); err != nil {
		return fmt.Errorf("make an authority: %w", err)
	}
	return root.Write(ctx, pkiPath+"/roles/bench", map[string]any{"allowed_domains": "example.com", "allow_subdomains": true, "key_type": "ec", "no_store": true}, nil)
}
