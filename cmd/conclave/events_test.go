package main

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"conclave"
)

// told subscribes, and returns what n events were about; "team/" before it is the namespace.
func (v *vault) told(token conclave.Secret, path string, fields map[string]any, n int) (about []string, err error) {
	v.t.Helper()
	response, err := v.do(token, conclave.Read, path, fields)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(v.t.Context(), 20*time.Second)
	defer cancel()
	enough := errors.New("enough")
	err = response.Stream(ctx, func(_ context.Context, raw []byte) error {
		var m struct {
			Data struct {
				Event     struct{ Metadata map[string]string }
				EventType string `json:"event_type"`
				Namespace string
			}
		}
		if err := json.Unmarshal(raw, &m); err != nil {
			return err
		}
		about = append(about, m.Data.EventType+" "+m.Data.Namespace+m.Data.Event.Metadata["data_path"])
		if len(about) == n {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		v.t.Errorf("%s: %v after %q", path, err, about)
	}
	return about, nil
}

func (v *vault) wantTold(token conclave.Secret, path string, fields map[string]any, want ...string) {
	v.t.Helper()
	got, err := v.told(token, path, fields, len(want))
	if err != nil || !slices.Equal(got, want) {
		v.t.Errorf("%s %v: told %q, %v, want %q", path, fields, got, err, want)
	}
}

// follows runs the node's stream until the test ends.
func (v *vault) follows() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- v.events.Stream.Run(ctx) }()
	v.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			v.t.Error(err)
		}
	})
}

const subscribeAll = "sys/events/subscribe/*"

// A cursor from before what is kept is refused with the oldest, from which a client can go on.
func TestCursorsOfDroppedEpochsNameTheOldest(t *testing.T) {
	v := openVault(t)
	v.follows()
	old := v.must(conclave.Read, subscribeAll, nil)["cursor"]
	put := func(path string) {
		v.must(conclave.Update, "secret/data/"+path, map[string]any{"data": map[string]any{"x": 1}})
	}
	put("before")
	v.wantTold(v.root, subscribeAll, map[string]any{"since": old}, "kv-v2/data-write secret/data/before")
	head := v.closeEpoch()
	v.must(conclave.Update, "sys/rotate", nil) // other keys from here on
	put("after")
	v.wantTold(v.root, subscribeAll, map[string]any{"since": old}, "kv-v2/data-write secret/data/before", "kv-v2/data-write secret/data/after")
	v.must(conclave.Update, "sys/audit-prune", map[string]any{"epoch": json.Number("0"), "head": head})
	_, err := v.do(v.root, conclave.Read, subscribeAll, map[string]any{"since": old})
	if !conclave.Is(err, conclave.Invalid) {
		t.Fatalf("a cursor of an epoch that was dropped: %v, want Invalid", err)
	}
	_, oldest, _ := strings.Cut(err.Error(), "oldest cursor is ")
	v.wantTold(v.root, subscribeAll, map[string]any{"since": oldest}, "kv-v2/data-write secret/data/after")
	v.wantTold(v.root, subscribeAll, map[string]any{"since": "oldest"}, "kv-v2/data-write secret/data/after")
}

// Events stay in their namespace, and with what the namespace was.
func TestEventsOfNamespaces(t *testing.T) {
	v := openVault(t)
	v.follows()
	found := func(name string) {
		v.must(conclave.Update, "sys/namespaces/"+name, nil)
		v.must(conclave.Update, name+"/sys/mounts/kv", map[string]any{"type": "kv"})
	}
	put := func(path string) { v.must(conclave.Update, path, map[string]any{"x": "y"}) }
	start := v.must(conclave.Read, subscribeAll, nil)["cursor"]
	found("team")
	found("other")
	put("team/kv/a")
	put("other/kv/b")
	put("cubbyhole/x") // which tells nothing
	v.must(conclave.Update, "secret/data/c", map[string]any{"data": map[string]any{"x": 1}})
	since := func(more map[string]any) map[string]any {
		fields := map[string]any{"since": start}
		for name, value := range more {
			fields[name] = value
		}
		return fields
	}
	v.wantTold(v.root, subscribeAll, since(nil), "kv-v2/data-write secret/data/c")
	v.wantTold(v.root, subscribeAll, since(map[string]any{"namespaces": "team"}), "kv-v1/write team/kv/a", "kv-v2/data-write secret/data/c")
	v.wantTold(v.root, subscribeAll, since(map[string]any{"namespaces": "*"}), "kv-v1/write team/kv/a", "kv-v1/write other/kv/b", "kv-v2/data-write secret/data/c")
	v.wantTold(v.root, "team/"+subscribeAll, since(map[string]any{"namespaces": "*"}), "kv-v1/write team/kv/a")

	// Policies are those of the namespace where the token lives, and paths are as these see them.
	v.must(conclave.Update, "sys/policies/acl/above", map[string]any{"policy": `path "+/sys/events/subscribe/*" { capabilities = ["read"] }
path "sys/events/subscribe/*" { capabilities = ["read"] }
path "team/kv/*" { capabilities = ["read"] }`})
	above := v.token(map[string]any{"policies": []any{"above"}})
	v.wantTold(above, subscribeAll, since(map[string]any{"namespaces": []any{"team", "other"}}), "kv-v1/write team/kv/a")
	v.wantTold(above, "team/"+subscribeAll, since(nil), "kv-v1/write team/kv/a")

	// Whoever has the namespace's name later isn't told what happened before.
	v.must(conclave.Delete, "team/sys/mounts/kv", nil)
	v.must(conclave.Delete, "sys/namespaces/team", nil)
	found("team")
	put("team/kv/new")
	v.wantTold(v.root, "team/"+subscribeAll, since(nil), "kv-v1/write team/kv/new")
	v.wantTold(above, subscribeAll, since(map[string]any{"namespaces": "team"}), "kv-v1/write team/kv/new")
}

// A token that has spent its uses, or has expired, is told nothing more.
func TestSubscriptionsEndWithTheirToken(t *testing.T) {
	v := openVault(t)
	v.follows()
	v.must(conclave.Update, "sys/policies/acl/p", map[string]any{"policy": `path "sys/events/subscribe/*" { capabilities = ["read"] }`})
	once := v.token(map[string]any{"policies": []any{"p"}, "num_uses": json.Number("1")})
	response, err := v.do(once, conclave.Read, subscribeAll, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := response.Stream(ctx, nil); !conclave.Is(err, conclave.Denied) || !strings.Contains(err.Error(), "since=c1-") {
		t.Errorf("the subscription of a token without uses ended with %v", err)
	}
	brief := v.token(map[string]any{"policies": []any{"p"}, "ttl": "1s"})
	if response, err = v.do(brief, conclave.Read, subscribeAll, nil); err != nil {
		t.Fatal(err)
	}
	if err := response.Stream(ctx, nil); !conclave.Is(err, conclave.Denied) {
		t.Errorf("the subscription of a token that expires ended with %v", err)
	}
}

// That a login was locked is told, and so is what the vault does by itself, in records of its own.
func TestLockedLoginsAreTold(t *testing.T) {
	v := openVault(t)
	v.follows()
	v.must(conclave.Update, "sys/auth/userpass", map[string]any{"type": "userpass"})
	v.must(conclave.Update, "auth/userpass/users/ann", map[string]any{"password": "right"})
	start := v.must(conclave.Read, subscribeAll, nil)["cursor"]
	for range 5 {
		if _, err := v.do(conclave.Secret{}, conclave.Update, "auth/userpass/login/ann", map[string]any{"password": "wrong"}); err == nil {
			t.Fatal("a wrong password logs in")
		}
	}
	v.wantTold(v.root, subscribeAll, map[string]any{"since": start}, "login/locked sys/locked-users")
}

// Who is told of events about a path can be asked for.
func TestWhoMaySubscribe(t *testing.T) {
	v := openVault(t)
	v.must(conclave.Update, "sys/policies/acl/watches", map[string]any{"policy": `path "secret/data/*" { capabilities = ["subscribe"] subscribe_event_types = ["*"] }`})
	v.must(conclave.Update, "sys/policies/acl/reads", map[string]any{"policy": `path "secret/data/*" { capabilities = ["read"] }`})
	if got, want := v.holders("policies", "secret/data/a", "subscribe", 10), []string{"watches subscribe"}; !slices.Equal(got, want) && !slices.Equal(got, append([]string{"root root"}, want...)) {
		t.Errorf("those who may subscribe are %q, want %q", got, want)
	}
}
