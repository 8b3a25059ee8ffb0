package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"conclave/integration/lab"
	"conclave/internal/dbserver"
)

const (
	mountPath     = "bench"
	policyName    = "bench"
	approlePath   = "bench-approle"
	renewedTokens = 2048
	keysPerFolder = 100
	bodyCount     = 64 // different bodies to write
	seedClients   = 32
	prepareTime   = 10 * time.Minute
)

const policyText = `path "bench/*" { capabilities = ["create", "read", "update", "delete", "list"] }
path "bench-ssh/sign/*" { capabilities = ["update"] }
path "bench-transit/encrypt/*" { capabilities = ["update"] }
path "bench-pki/issue/*" { capabilities = ["update"] }
path "bench-database/creds/*" { capabilities = ["read"] }
path "auth/token/create" { capabilities = ["create", "update"] }
`

// target is a cluster that is ready to be measured.
type target struct {
	name   string // "ours" or "theirs", and whether its leader alone is asked
	lab    *lab.Lab
	addrs  []string // that are sent to
	config *tls.Config
	token  string
	paths  []string // of the secrets, below the mount, without "data/"
	bodies [][]byte
	login  []byte   // with a role-id and a secret-id
	tokens []string // to renew
	signed []byte   // a request's body: a key to sign

	plaintexts [][]byte // requests' bodies: texts to encrypt

	database *dbserver.Server // in which logins are made; nil if they aren't measured
}

// workload appends one request, chosen by chance, to dst.
type workload func(dst []byte, random *rand.Rand) []byte

func names() []string {
	return []string{"read", "write", "mixed", "list", "lookup", "create", "login", "renew", "ssh", "creds", "transit", "pki"}
}

func (t *target) workload(name string) workload {
	switch name {
	case "write":
		return t.write
	case "mixed":
		return func(dst []byte, random *rand.Rand) []byte {
			if random.IntN(100) < 5 {
				return t.write(dst, random)
			}
			return t.read(dst, random)
		}
	case "list":
		return func(dst []byte, random *rand.Rand) []byte {
			folder := random.IntN(len(t.paths) / keysPerFolder)
			return appendRequest(dst, "LIST", fmt.Sprintf("%s/metadata/f%03d", mountPath, folder), t.token, nil)
		}
	case "lookup":
		return func(dst []byte, _ *rand.Rand) []byte {
			return appendRequest(dst, "GET", "auth/token/lookup-self", t.token, nil)
		}
	case "create":
		body := []byte(`{"policies":["default"],"ttl":"1h"}`)
		return func(dst []byte, _ *rand.Rand) []byte {
			return appendRequest(dst, "POST", "auth/token/create", t.token, body)
		}
	case "login":
		return func(dst []byte, _ *rand.Rand) []byte {
			return appendRequest(dst, "POST", "auth/"+approlePath+"/login", "", t.login)
		}
	case "ssh":
		return t.signKey
	case "transit":
		return t.encrypt
	case "pki":
		return t.issue
	case "creds":
		return t.askCreds
	case "renew":
		body := []byte(`{"increment":"1h"}`)
		return func(dst []byte, random *rand.Rand) []byte {
			return appendRequest(dst, "POST", "auth/token/renew-self", t.tokens[random.IntN(len(t.tokens))], body)
		}
	}
	return t.read
}

func (t *target) read(dst []byte, random *rand.Rand) []byte {
	return appendRequest(dst, "GET", mountPath+"/data/"+t.paths[random.IntN(len(t.paths))], t.token, nil)
}

func (t *target) write(dst []byte, random *rand.Rand) []byte {
	return t.writeTo(dst, t.paths[random.IntN(len(t.paths))], random)
}

func (t *target) writeTo(dst []byte, path string, random *rand.Rand) []byte {
	return appendRequest(dst, "POST", mountPath+"/data/"+path, t.token, t.bodies[random.IntN(len(t.bodies))])
}

// prepare fills a cluster with secrets, and makes the token that they are read with: one with a policy, as users have.
func prepare(ctx context.Context, l *lab.Lab, o options, name string) (*target, error) {
	ctx, cancel := context.WithTimeout(ctx, prepareTime)
	defer cancel()
	t := &target{name: name, lab: l, addrs: l.Addrs, config: l.TLS()}
	node := 1
	if o.leader {
		leader, err := l.Leader(ctx)
		if err != nil {
			return nil, fmt.Errorf("find the leader: %w", err)
		}
		node = leader
		t.addrs, t.name = l.Addrs[leader-1:leader], name+", leader"
	}
	root := l.Client(node)
	answer, err := root.Do(ctx, "POST", "sys/mounts/"+mountPath, map[string]any{"type": "kv", "options": map[string]string{"version": "2"}})
	if err == nil {
		err = answer.Want(200, 204, 400) // 400: it is there from an earlier run
	}
	if err != nil {
		return nil, fmt.Errorf("mount kv: %w", err)
	}
	if err := root.Write(ctx, "sys/policies/acl/"+policyName, map[string]string{"policy": policyText}, nil); err != nil {
		return nil, err
	}
	if t.token, err = root.Token(ctx, map[string]any{"policies": []string{policyName}, "ttl": "24h"}); err != nil {
		return nil, err
	}
	if err := t.admit(ctx, root, o); err != nil {
		return nil, err
	}
	if err := t.connect(ctx, root, o); err != nil {
		t.close()
		return nil, err
	}
	random := rand.New(rand.NewPCG(1, 1))
	for range bodyCount {
		t.bodies = append(t.bodies, body(random, o.size))
	}
	for i := range o.secrets / keysPerFolder * keysPerFolder {
		t.paths = append(t.paths, fmt.Sprintf("f%03d/k%02d", i/keysPerFolder, i%keysPerFolder))
	}
	progress("%s: writing %d secrets of %d bytes", name, len(t.paths), o.size)
	return t, t.fill(ctx)
}

// admit makes what logins and renewals need, if they are measured.
func (t *target) admit(ctx context.Context, root *lab.Client, o options) error {
	if slices.Contains(o.workloads, "renew") {
		for range renewedTokens {
			token, err := root.Token(ctx, map[string]any{"policies": []string{"default"}, "ttl": "24h"})
			if err != nil {
				return err
			}
			t.tokens = append(t.tokens, token)
		}
	}
	if slices.Contains(o.workloads, "ssh") {
		if err := t.trust(ctx, root); err != nil {
			return err
		}
	}
	if slices.Contains(o.workloads, "pki") {
		if err := t.certify(ctx, root); err != nil {
			return err
		}
	}
	if slices.Contains(o.workloads, "transit") {
		if err := t.keep(ctx, root); err != nil {
			return err
		}
	}
	if !slices.Contains(o.workloads, "login") {
		return nil
	}
	answer, err := root.Do(ctx, "POST", "sys/auth/"+approlePath, map[string]string{"type": "approle"})
	if err == nil {
		err = answer.Want(200, 204, 400) // 400: it is there from an earlier run
	}
	if err != nil {
		return fmt.Errorf("mount approle: %w", err)
	}
	role := "auth/" + approlePath + "/role/bench"
	if err := root.Write(ctx, role, map[string]any{"token_ttl": "1h", "token_policies": []string{policyName}}, nil); err != nil {
		return err
	}
	var made struct {
		RoleID   string `json:"role_id"`
		SecretID string `json:"secret_id"`
	}
	if err := root.Read(ctx, role+"/role-id", &made); err != nil {
		return err
	}
	if err := root.Write(ctx, role+"/secret-id", map[string]any{}, &made); err != nil {
		return err
	}
	t.login = fmt.Appendf(nil, `{"role_id":"%s","secret_id":"%s"}`, made.RoleID, made.SecretID)
	return nil
}

// body is a secret with this many bytes of text in three members.
func body(random *rand.Rand, size int) []byte {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	text := make([]byte, size)
	for i := range text {
		text[i] = letters[random.IntN(len(letters))]
	}
	user, host := size/10, size/5
	return fmt.Appendf(nil, `{"data":{"username":"%s","host":"%s","password":"%s"}}`, text[:user], text[user:host], text[host:])
}

// fill writes each secret once.
func (t *target) fill(ctx context.Context) error {
	var group errgroup.Group
	var next atomic.Int64
	for client := range seedClients {
		group.Go(func() error {
			c, err := dial(t.addrs[client%len(t.addrs)], t.config)
			if err != nil {
				return err
			}
			defer c.close()
			if deadline, ok := ctx.Deadline(); ok {
				if err := c.deadline(deadline); err != nil {
					return err
				}
			}
			random := rand.New(rand.NewPCG(2, uint64(client)))
			var request []byte
			for i := next.Add(1) - 1; int(i) < len(t.paths) && ctx.Err() == nil; i = next.Add(1) - 1 {
				request = t.writeTo(request[:0], t.paths[i], random)
				if err := c.persist(ctx, request); err != nil {
					return fmt.Errorf("write %s: %w", t.paths[i], err)
				}
			}
			return ctx.Err()
		})
	}
	return group.Wait()
}

// persist repeats a request while the answer is that it was not done: a new mount needs its time on some servers.
func (c *conn) persist(ctx context.Context, request []byte) error {
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for range 100 {
		err := c.exchange(request)
		if refused, ok := errors.AsType[*statusError](err); !ok || !slices.Contains([]int{400, 429, 503}, refused.status) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
	return c.exchange(request)
}
