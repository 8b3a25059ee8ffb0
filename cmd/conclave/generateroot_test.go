package main

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"sync"
	"testing"

	"conclave"
	"conclave/seal"
)

const (
	rootAttempt = "sys/generate-root/attempt"
	rootUpdate  = "sys/generate-root/update"
)

// attempt is what the routes of generate-root answer.
type attempt struct {
	Nonce, OTP         string
	Started, Complete  bool
	Progress, Required int
	Encoded            string `json:"encoded_token"`
	OTPLength          int    `json:"otp_length"`
}

// ceremony makes a request without a token.
func (v *vault) ceremony(op conclave.Operation, path string, fields map[string]any) (a attempt, err error) {
	v.t.Helper()
	resp, err := v.do(conclave.Secret{}, op, path, fields)
	if err != nil || resp.Data == nil {
		return a, err
	}
	raw, ok := resp.Data.(json.RawMessage)
	if !ok || json.Unmarshal(raw, &a) != nil {
		v.t.Fatalf("%s answers %v", path, resp.Data)
	}
	return a, nil
}

// sharedVault is an open vault with five shares, of which three are needed.
func sharedVault(t *testing.T) (*vault, []string) {
	t.Helper()
	v := startVault(t, t.TempDir(), nil)
	opened := v.initialize(seal.InitRequest{Shares: 5, Threshold: 3})
	for _, key := range opened.Keys[:3] {
		share, err := seal.DecodeShare(conclave.NewSecret(key))
		if err == nil {
			_, err = v.vaultPart().Submit(t.Context(), share)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	v.root = conclave.NewSecret(opened.RootToken)
	return v, opened.Keys
}

func decoded(t *testing.T, encoded, otp string) conclave.Secret {
	t.Helper()
	raw, err := base64.RawStdEncoding.DecodeString(encoded)
	if err != nil || len(raw) != len(otp) {
		t.Fatalf("an encoded token of %d bytes, %v; the password has %d", len(raw), err, len(otp))
	}
	for i := range raw {
		raw[i] ^= otp[i]
	}
	return conclave.NewSecret(string(raw))
}

func TestSharesMakeARootToken(t *testing.T) {
	v, keys := sharedVault(t)
	if a, err := v.ceremony(conclave.Read, rootAttempt, nil); err != nil || a.Started || a.Required != 3 || a.OTPLength != 28 {
		t.Fatalf("before: %+v, %v", a, err)
	}
	begun, err := v.ceremony(conclave.Update, rootAttempt, map[string]any{})
	if err != nil || begun.Nonce == "" || len(begun.OTP) != 28 {
		t.Fatalf("begun: %+v, %v", begun, err)
	}
	give := func(key, nonce string) (attempt, error) {
		return v.ceremony(conclave.Update, rootUpdate, map[string]any{"key": key, "nonce": nonce})
	}
	if a, err := give(keys[0], begun.Nonce); err != nil || a.Progress != 1 || a.Complete {
		t.Fatalf("first share: %+v, %v", a, err)
	}
	for what, row := range map[string]struct{ key, nonce, says string }{
		"the same share":   {keys[0], begun.Nonce, "already"},
		"a foreign share":  {strings.Repeat("00", 33), begun.Nonce, "no share of this vault"},
		"no share":         {"zz", begun.Nonce, "hex or base64"},
		"another nonce":    {keys[1], strings.Repeat("0", 32), "no such attempt"},
		"no nonce":         {keys[1], "", "nonce"},
		"a nonce's prefix": {keys[1], begun.Nonce[:31], "no such attempt"},
	} {
		if _, err := give(row.key, row.nonce); !conclave.Is(err, conclave.Invalid) || !strings.Contains(err.Error(), row.says) {
			t.Errorf("%s: %v, want %q", what, err, row.says)
		}
	}
	if a, err := v.ceremony(conclave.Read, rootAttempt, nil); err != nil || !a.Started || a.Progress != 1 || a.Nonce != "" {
		t.Errorf("what strangers see: %+v, %v, want no nonce", a, err)
	}
	if _, err := v.ceremony(conclave.Delete, rootAttempt, nil); !conclave.Is(err, conclave.Invalid) {
		t.Errorf("cancelled without the nonce: %v", err)
	}
	if a, err := give(keys[3], begun.Nonce); err != nil || a.Progress != 2 {
		t.Fatalf("second share: %+v, %v", a, err)
	}
	last, err := give(keys[4], begun.Nonce)
	if err != nil || !last.Complete || last.Encoded == "" {
		t.Fatalf("third share: %+v, %v", last, err)
	}
	root := decoded(t, last.Encoded, begun.OTP)
	if !strings.HasPrefix(root.Reveal(), "hvs.") {
		t.Errorf("the token has another form")
	}
	if _, err := v.do(root, conclave.Read, "sys/mounts", nil); err != nil {
		t.Errorf("the token: %v", err)
	}
	if _, err := v.do(root, conclave.Update, "auth/token/revoke-self", nil); err != nil {
		t.Errorf("revoke the token: %v", err)
	}
	if _, err := give(keys[1], begun.Nonce); err == nil {
		t.Error("the attempt goes on after its end")
	}
}

func TestLastSharesAtOnceMakeOneRootToken(t *testing.T) {
	v, keys := sharedVault(t)
	otp := strings.Repeat("x", 28)
	if _, err := v.ceremony(conclave.Update, rootAttempt, map[string]any{"otp": "short"}); !conclave.Is(err, conclave.Invalid) {
		t.Errorf("a short password: %v", err)
	}
	begun, err := v.ceremony(conclave.Update, rootAttempt, map[string]any{"otp": otp})
	if err != nil || begun.OTP != "" {
		t.Fatalf("begun: %+v, %v", begun, err)
	}
	var wait sync.WaitGroup
	made := make(chan string, len(keys))
	for _, key := range keys {
		wait.Go(func() {
			a, err := v.ceremony(conclave.Update, rootUpdate, map[string]any{"key": key, "nonce": begun.Nonce})
			if err == nil && a.Complete {
				made <- a.Encoded
			}
		})
	}
	wait.Wait()
	close(made)
	if len(made) != 1 {
		t.Fatalf("%d tokens were made", len(made))
	}
	if _, err := v.do(decoded(t, <-made, otp), conclave.Read, "sys/mounts", nil); err != nil {
		t.Error(err)
	}
}

func TestNobodyDisturbsARunningAttempt(t *testing.T) {
	v, keys := sharedVault(t)
	begun, err := v.ceremony(conclave.Update, rootAttempt, map[string]any{})
	if err == nil {
		_, err = v.ceremony(conclave.Update, rootUpdate, map[string]any{"key": keys[0], "nonce": begun.Nonce})
	}
	if err != nil {
		t.Fatal(err)
	}
	var newest attempt
	for range 20 {
		if newest, err = v.ceremony(conclave.Update, rootAttempt, map[string]any{}); err != nil {
			t.Fatal(err)
		}
	}
	if a, err := v.ceremony(conclave.Read, rootAttempt, map[string]any{"nonce": begun.Nonce}); err != nil || a.Nonce != begun.Nonce || a.Progress != 1 {
		t.Fatalf("after others have begun: %+v, %v", a, err)
	}
	if _, err := v.ceremony(conclave.Delete, rootAttempt, map[string]any{"nonce": newest.Nonce}); err != nil {
		t.Error(err)
	}
	if _, err := v.ceremony(conclave.Delete, rootAttempt, map[string]any{"nonce": begun.Nonce}); err != nil {
		t.Error(err)
	}
	if _, err := v.ceremony(conclave.Update, rootUpdate, map[string]any{"key": keys[1], "nonce": begun.Nonce}); !conclave.Is(err, conclave.Invalid) {
		t.Errorf("a share for a cancelled attempt: %v", err)
	}
}

func TestRollCallTellsWhoseSharesAreMissing(t *testing.T) {
	v, keys := sharedVault(t)
	const path = "sys/shares/roll-call"
	if _, err := v.do(conclave.Secret{}, conclave.Update, path, nil); !conclave.Is(err, conclave.Denied) {
		t.Errorf("begun without a token: %v", err)
	}
	nonce, _ := v.must(conclave.Update, path, nil)["nonce"].(string)
	show := func(key string) (map[string]any, error) {
		resp, err := v.do(conclave.Secret{}, conclave.Update, path+"/update", map[string]any{"key": key, "nonce": nonce})
		if err != nil {
			return nil, err
		}
		return dataOf(t, resp), nil
	}
	for _, at := range []int{4, 0, 2, 1} {
		if _, err := show(keys[at]); err != nil {
			t.Fatal(err)
		}
	}
	for _, wrong := range []string{keys[4], strings.Repeat("11", 33)} {
		if _, err := show(wrong); !conclave.Is(err, conclave.Invalid) {
			t.Errorf("a share that doesn't count: %v", err)
		}
	}
	now := v.must(conclave.Read, path, map[string]any{"nonce": nonce})
	if missing, _ := json.Marshal(now["missing"]); string(missing) != "[4]" || now["complete"] != false {
		t.Errorf("missing %s, %v", missing, now)
	}
	if all, err := show(keys[3]); err != nil || all["complete"] != true {
		t.Errorf("after the last: %v, %v", all, err)
	}
	if _, err := v.do(conclave.Secret{}, conclave.Read, path, nil); !conclave.Is(err, conclave.Invalid) {
		t.Errorf("read without the nonce: %v", err)
	}
	v.must(conclave.Read, "sys/mounts", nil)
}
