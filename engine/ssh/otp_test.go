package ssh

import (
	"context"
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"conclave"
	"conclave/engine/enginetest"
)

func newOTP(t testing.TB, more map[string]any) *enginetest.Harness {
	t.Helper()
	h := enginetest.New(t, quick())
	role := map[string]any{"key_type": "otp", "default_user": "ubuntu", "cidr_list": "192.0.2.0/24,2001:db8::/32", "exclude_cidr_list": "192.0.2.128/25"}
	for name, value := range more {
		role[name] = value
	}
	h.Data(conclave.Update, "roles/otp", role)
	return h
}

func TestOneTimePasswordWorksOnce(t *testing.T) {
	h := newOTP(t, nil)
	response, err := h.Do(conclave.Update, "creds/otp", map[string]any{"ip": "192.0.2.7"})
	if err != nil {
		t.Fatal(err)
	}
	made := response.Data.(*credsOut)
	if made.KeyType != "otp" || made.Username != "ubuntu" || made.IP != "192.0.2.7" || made.Port != 22 || response.Lease == nil || response.Lease.TTL != h.View().Mount().DefaultTTL {
		t.Fatalf("answer is %+v with lease %+v", made, response.Lease)
	}
	for path, value := range h.Stored() {
		if strings.Contains(path+string(value), made.Key) {
			t.Errorf("%s holds the password", path)
		}
	}
	for _, wrong := range []string{"", made.Key[1:], strings.ToUpper(made.Key), made.Key + " ", "nonsense"} {
		h.Fails(conclave.Update, "verify", map[string]any{"otp": wrong}, conclave.Invalid, "OTP not found")
	}
	got := h.Data(conclave.Update, "verify", map[string]any{"otp": made.Key})
	if got["username"] != "ubuntu" || got["ip"] != "192.0.2.7" || got["role_name"] != "otp" {
		t.Errorf("verified as %v", got)
	}
	h.Fails(conclave.Update, "verify", map[string]any{"otp": made.Key}, conclave.Invalid, "OTP not found")
	if got := h.Data(conclave.Update, "verify", map[string]any{"otp": "verify-echo-request"}); got["message"] != "verify-echo-response" {
		t.Errorf("echo is %v", got)
	}
}

func TestOneTimePasswordEndsWithItsLease(t *testing.T) {
	h := newOTP(t, nil)
	make := func() (*credsOut, *conclave.Lease) {
		response, err := h.Do(conclave.Update, "creds/otp", map[string]any{"ip": "2001:db8::1"})
		if err != nil {
			t.Fatal(err)
		}
		return response.Data.(*credsOut), response.Lease
	}
	late, lease := make()
	h.Advance(lease.TTL)
	h.Fails(conclave.Update, "verify", map[string]any{"otp": late.Key}, conclave.Invalid, "OTP not found")
	// What is forgotten is removed, and forgetting it again is no error.
	revoked, lease := make()
	granted := &conclave.GrantedLease{Data: lease.Data}
	if err := (Engine{}).Revoke(t.Context(), granted, nil); err != nil {
		t.Fatal(err)
	}
	forget := conclave.WriteRoute(conclave.Update, "forget", "Forget a lease.", func(_ context.Context, tx conclave.Tx, _ *conclave.None) (*conclave.None, error) {
		return nil, Engine{}.ForgetLease(tx, granted)
	})
	other := h.Reopen(routes{forget})
	other.Data(conclave.Update, "forget", nil)
	other.Data(conclave.Update, "forget", nil)
	h.Fails(conclave.Update, "verify", map[string]any{"otp": revoked.Key}, conclave.Invalid, "OTP not found")
	for _, data := range []string{"", "{}", `{"path":"roles/otp"}`, `{"path":"otp/"}`} {
		granted.Data = json.RawMessage(data)
		if _, err := other.Do(conclave.Update, "forget", nil); err == nil {
			t.Errorf("a lease with the data %q is forgotten", data)
		}
	}
	if _, err := (Engine{}).RenewLease(t.Context(), h.View(), granted, time.Hour); err == nil {
		t.Error("the lease can be renewed")
	}
}

func TestOneTimePasswordsAreForUsersAndServersOfTheRole(t *testing.T) {
	h := newOTP(t, map[string]any{"allowed_users": "deploy, admin"})
	for _, row := range []struct {
		user, ip string
		ok       bool
	}{
		{"", "192.0.2.7", true}, {"ubuntu", "192.0.2.7", true}, {"admin", "192.0.2.7", true}, {"root", "192.0.2.7", false}, {"deploy,admin", "192.0.2.7", false}, {"deploy\n", "192.0.2.7", false},
		{"", "192.0.2.200", false}, {"", "198.51.100.1", false}, {"", "", false}, {"", "localhost", false}, {"", "::ffff:192.0.2.7", true}, {"", "192.0.2.7/32", false}, {"", "fe80::1%eth0", false},
	} {
		if _, err := h.Do(conclave.Update, "creds/otp", map[string]any{"username": row.user, "ip": row.ip}); (err == nil) != row.ok {
			t.Errorf("user %q on %q: %v, want success %v", row.user, row.ip, err, row.ok)
		}
	}
	h.Data(conclave.Update, "roles/all", map[string]any{"key_type": "otp", "default_user": "u", "allowed_users": "*"})
	h.Fails(conclave.Update, "creds/all", map[string]any{"ip": "198.51.100.1"}, conclave.Invalid, "does not belong to role")
	h.Fails(conclave.Update, "config/zeroaddress", map[string]any{"roles": "none"}, conclave.Invalid, "does not exist")
	h.Data(conclave.Update, "config/zeroaddress", map[string]any{"roles": "all"})
	h.Data(conclave.Update, "creds/all", map[string]any{"ip": "198.51.100.1", "username": "root"})
	found := func(ip string) []string {
		return roleNames(h.Data(conclave.Update, "lookup", map[string]any{"ip": ip})["roles"])
	}
	if got := found("192.0.2.7"); !slices.Equal(got, []string{"all", "otp"}) {
		t.Errorf("roles of an address: %v", got)
	}
	if got := found("198.51.100.1"); !slices.Equal(got, []string{"all"}) {
		t.Errorf("roles of any address: %v", got)
	}
	h.Data(conclave.Delete, "roles/all", nil)
	if got := found("198.51.100.1"); len(got) > 0 {
		t.Errorf("a role that is gone is found: %v", got)
	}
	h.Data(conclave.Delete, "config/zeroaddress", nil)
	h.Fails(conclave.Read, "config/zeroaddress", nil, conclave.NotFound, "")
	public, _ := newKey(t)
	h.Fails(conclave.Update, "sign/otp", map[string]any{"public_key": public}, conclave.Invalid, "not allowed here")
	if got := h.Data(conclave.Read, "roles/otp", nil); len(got) != 6 || got["port"] != json.Number("22") {
		t.Errorf("a role of type otp shows %v", got)
	}
}

func roleNames(list any) []string {
	var names []string
	for _, name := range list.([]any) {
		names = append(names, name.(string))
	}
	return names
}

func FuzzRecords(f *testing.F) {
	f.Add([]byte(`{"username":"u","ip":"192.0.2.7","role_name":"r","expires":1}`))
	f.Add([]byte(`{"key_type":"ca","allowed_users":"{{x}}"}`))
	f.Add([]byte(`{"id":"i","public_key":"k","private_key":"p"}`))
	f.Fuzz(func(t *testing.T, value []byte) {
		_, _ = decodePassword(value)
		_, _ = decodeIssuer(value)
		_, _ = decodeZeroAddress(value)
		if decoded, err := decodeRole(value); err == nil {
			r := decoded.(*role)
			_, _ = r.principals(false, nil, identity{"x": string(value)})
			_ = r.holds(netip.MustParseAddr("192.0.2.1"))
		}
		_, _ = parsePublicKey(string(value))
		if name, ok := render(string(value), identity{"x": string(value)}); ok && strings.Count(name, ",") > strings.Count(string(value), ",") {
			t.Errorf("rendering %q made a list of it", value)
		}
	})
}

// routes is an engine of the tests' own routes.
type routes []conclave.Route

func (routes) Kind() string               { return kind }
func (r routes) Routes() []conclave.Route { return r }
