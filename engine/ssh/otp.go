package ssh

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/netip"
	"slices"
	"time"

	"conclave"
)

// What a server's helper asks to see whether it reaches the vault, and the answer.
const (
	echoRequest  = "verify-echo-request"
	echoResponse = "verify-echo-response"
)

// password is a one-time password as it is stored, under its hash.
type password struct {
	User    string `json:"username"`
	IP      string `json:"ip"`
	Role    string `json:"role_name"`
	Expires int64  `json:"expires"` // in nanoseconds since 1970
}

func otpPath(otp string) string {
	sum := sha256.Sum256([]byte(otp))
	return otpDir + hex.EncodeToString(sum[:])
}

func decodePassword(value []byte) (*password, error) {
	p := &password{}
	if err := json.Unmarshal(value, p); err != nil || p.User == "" || p.IP == "" || p.Role == "" {
		return nil, damaged("a one-time password")
	}
	return p, nil
}

func otpRoutes() []conclave.Route {
	creds := conclave.WriteRoute(conclave.Update, "creds/{role}", "Make a one-time password for a user on a server.", makePassword)
	creds.Prepare = func(context.Context, *conclave.Request, any) (any, error) { return uuid(rand.Reader) }
	return []conclave.Route{
		creds,
		conclave.WriteRoute(conclave.Update, "verify", "Verify a one-time password, which takes it.\nServers ask it at logins, without a token. "+echoRequest+" is answered and takes nothing.", verify).With(conclave.Public),
		conclave.ReadRoute(conclave.Update, "lookup", "List the roles of type otp that a server's address belongs to.", lookup),
	}
}

type credsIn struct {
	Role     string `path:"role" doc:"Name of the role."`
	Username string `json:"username" doc:"User on the server; the role's default user unless given."`
	IP       string `json:"ip" doc:"Address of the server."`
}

type credsOut struct {
	KeyType  string `json:"key_type" doc:"otp."`
	Key      string `json:"key" doc:"The password."`
	Username string `json:"username" doc:"The user."`
	IP       string `json:"ip" doc:"The server's address."`
	Port     int    `json:"port" doc:"The server's port."`
}

// heldBy is what the lease knows: enough to remove the password.
type heldBy struct {
	Path string `json:"path"`
}

func makePassword(ctx context.Context, tx conclave.Tx, in *credsIn) (*conclave.Response, error) {
	otp, ok := conclave.Prepared[string](ctx)
	if !ok {
		return nil, conclave.Errorf(conclave.Internal, "no password was prepared")
	}
	if in.IP == "" {
		return nil, conclave.Errorf(conclave.Invalid, "Missing ip")
	}
	r, err := roleOf(tx, in.Role, typeOTP)
	if err != nil {
		return nil, err
	}
	user, err := r.userFor(in.Username)
	if err != nil {
		return nil, err
	}
	address, err := parseAddress(in.IP)
	if err != nil {
		return nil, err
	}
	zero, err := zeroAddressRolesOf(tx)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(zero, in.Role) && !r.holds(address) {
		return nil, conclave.Errorf(conclave.Invalid, "Error validating IP: IP does not belong to role")
	}
	ttl := tx.Mount().DefaultTTL
	path := otpPath(otp)
	value, err := json.Marshal(password{user, address.String(), in.Role, tx.Now().Add(ttl).UnixNano()})
	if err != nil {
		return nil, conclave.Errorf(conclave.Internal, "encode a one-time password: %w", err)
	}
	held, err := json.Marshal(heldBy{path})
	if err != nil {
		return nil, conclave.Errorf(conclave.Internal, "encode a lease: %w", err)
	}
	return &conclave.Response{
		Data:  &credsOut{typeOTP, otp, user, address.String(), r.Port},
		Lease: &conclave.Lease{TTL: ttl, MaxTTL: ttl, Data: held},
	}, tx.Put(path, value)
}

// userFor is the user that a password is for: the default one, or one that the role allows.
func (r *role) userFor(asked string) (string, error) {
	if asked == "" || asked == r.DefaultUser {
		return r.DefaultUser, nil
	}
	if len(asked) > maxPrincipal || !printable(asked) {
		return "", conclave.Errorf(conclave.Invalid, "a user's name has at most %d bytes and no control characters", maxPrincipal)
	}
	if everything(r.AllowedUsers) || slices.Contains(splitNames(r.AllowedUsers), asked) {
		return asked, nil
	}
	return "", conclave.Errorf(conclave.Invalid, "Username is not present is allowed users list")
}

func parseAddress(text string) (netip.Addr, error) {
	address, err := netip.ParseAddr(text)
	if err != nil || address.Zone() != "" {
		return netip.Addr{}, conclave.Errorf(conclave.Invalid, "Invalid IP %q", text)
	}
	return address.Unmap(), nil
}

// holds reports whether a server's address is among those of the role.
func (r *role) holds(address netip.Addr) bool {
	within := func(list string) bool {
		parsed, err := networks(list)
		return err == nil && slices.ContainsFunc(parsed, func(n netip.Prefix) bool { return n.Contains(address) })
	}
	return within(r.CIDRList) && !within(r.ExcludeCIDRList)
}

type verifyIn struct {
	OTP conclave.Secret `json:"otp" doc:"The password."`
}

type verifyOut struct {
	Message  string `json:"message,omitempty" doc:"Answer to an echo request."`
	Username string `json:"username,omitempty" doc:"User that it is for."`
	IP       string `json:"ip,omitempty" doc:"Address of the server that it is for: a server must check that it is its own."`
	Role     string `json:"role_name,omitempty" doc:"Role that it was made with."`
}

func verify(_ context.Context, tx conclave.Tx, in *verifyIn) (*verifyOut, error) {
	otp := in.OTP.Reveal()
	if otp == echoRequest {
		return &verifyOut{Message: echoResponse}, nil
	}
	path := otpPath(otp)
	value, err := tx.Get(path)
	if err != nil {
		return nil, err
	}
	if value == nil {
		return nil, conclave.Errorf(conclave.Invalid, "OTP not found")
	}
	p, err := decodePassword(value)
	if err != nil {
		return nil, err
	}
	if tx.Reached(time.Unix(0, p.Expires)) {
		return nil, conclave.Errorf(conclave.Invalid, "OTP not found")
	}
	return &verifyOut{Username: p.User, IP: p.IP, Role: p.Role}, tx.Delete(path)
}

type lookupIn struct {
	IP string `json:"ip" doc:"Address of the server."`
}

type lookupOut struct {
	Roles []string `json:"roles" doc:"Names of the roles."`
}

func lookup(_ context.Context, view conclave.View, in *lookupIn) (*lookupOut, error) {
	if in.IP == "" {
		return nil, conclave.Errorf(conclave.Invalid, "Missing ip")
	}
	address, err := parseAddress(in.IP)
	if err != nil {
		return nil, err
	}
	zero, err := zeroAddressRolesOf(view)
	if err != nil {
		return nil, err
	}
	names, err := view.List(rolesDir, "", maxLookup)
	if err != nil {
		return nil, err
	}
	out := &lookupOut{Roles: []string{}}
	for _, name := range names {
		r, err := roleNamed(view, name)
		if err != nil {
			return nil, err
		}
		if r != nil && r.KeyType == typeOTP && (slices.Contains(zero, name) || r.holds(address)) {
			out.Roles = append(out.Roles, name)
		}
	}
	return out, nil
}

// RenewLease refuses: a password that works once needs no longer life.
func (Engine) RenewLease(context.Context, conclave.View, *conclave.GrantedLease, time.Duration) (*conclave.Lease, error) {
	return nil, conclave.Errorf(conclave.Invalid, "one-time passwords can't be renewed")
}

// GatherRevoke finds nothing: the password is known to nobody but the vault.
func (Engine) GatherRevoke(conclave.View, *conclave.GrantedLease) (any, error) { return nil, nil }

// Revoke has nothing to do outside of the vault.
func (Engine) Revoke(context.Context, *conclave.GrantedLease, any) error { return nil }

// ForgetLease removes the password, if nobody has used it.
func (Engine) ForgetLease(tx conclave.Tx, lease *conclave.GrantedLease) error {
	var held heldBy
	if err := json.Unmarshal(lease.Data, &held); err != nil || len(held.Path) != len(otpPath("")) || held.Path[:len(otpDir)] != otpDir {
		return damaged("a one-time password's lease")
	}
	return tx.Delete(held.Path)
}
