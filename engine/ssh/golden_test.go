package ssh

import (
	"testing"

	"golang.org/x/crypto/ssh"

	"conclave"
	"conclave/engine/enginetest"
)

// The first formats of what is stored, which have to be read for ever.
const (
	goldenIssuer = `{"id":"8f9f1f0e-6f0a-4c1e-9a51-2a3f6f1d0b77","name":"old","public_key":"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4\n",` +
		`"private_key":"-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f\n-----END PRIVATE KEY-----\n"}`
	goldenRole = `{"key_type":"ca","default_user":"ubuntu","allowed_users":"ubuntu","allow_user_certificates":true,"ttl":60,"max_ttl":0,"not_before_duration":5,"algorithm_signer":"default","issuer_ref":"old",` +
		`"default_extensions":{"permit-pty":""},"allowed_user_key_lengths":{"ed25519":[0]}}`
	goldenOTPRole     = `{"key_type":"otp","default_user":"u","cidr_list":"192.0.2.0/24","port":22}`
	goldenPassword    = `{"username":"u","ip":"192.0.2.1","role_name":"otp","expires":4102444800000000000}`
	goldenZeroAddress = `{"roles":["otp"]}`
)

func TestFirstFormatsAreRead(t *testing.T) {
	h := enginetest.New(t, quick())
	const id = "8f9f1f0e-6f0a-4c1e-9a51-2a3f6f1d0b77"
	h.Store("issuers/"+id, []byte(goldenIssuer))
	h.Store("names/old", []byte(id))
	h.Store("config/issuers", []byte(id))
	h.Store("config/zeroaddress", []byte(goldenZeroAddress))
	h.Store("roles/web", []byte(goldenRole))
	h.Store("roles/otp", []byte(goldenOTPRole))
	h.Store(otpPath("11111111-2222-4333-8444-555555555555"), []byte(goldenPassword))
	public, _ := newKey(t)
	c := certificate(t, h.Data(conclave.Update, "sign/web", map[string]any{"public_key": public})["signed_key"])
	if got := string(ssh.MarshalAuthorizedKey(c.SignatureKey)); got != "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4\n" || c.ValidBefore-c.ValidAfter != 65 {
		t.Errorf("signed by %q, valid for %d seconds", got, c.ValidBefore-c.ValidAfter)
	}
	h.Data(conclave.Update, "creds/otp", map[string]any{"ip": "198.51.100.1"})
	h.Data(conclave.Update, "verify", map[string]any{"otp": "11111111-2222-4333-8444-555555555555"})
	if otpPath("a") != "otp/ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb" {
		t.Errorf("the password a is stored at %q", otpPath("a"))
	}
	for _, path := range []string{"issuers/" + id, "roles/web", "config/zeroaddress"} {
		h.Store(path, []byte(`{"damaged`))
	}
	h.Fails(conclave.Update, "sign/web", map[string]any{"public_key": public}, conclave.Internal, "damaged")
	h.Fails(conclave.Read, "config/ca", nil, conclave.Internal, "damaged")
	h.Fails(conclave.Read, "config/zeroaddress", nil, conclave.Internal, "damaged")
}
