package mount

import (
	"encoding/hex"
	"io"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"conclave"
)

// Initial writes a new namespace's table: sys/, identity/, cubbyhole/ and auth/token/.
func Initial(tx conclave.System, random io.Reader) error {
	builtins := []*Entry{
		{Path: "auth/token/", Kind: "token", Description: "token based credentials"},
		{Path: "cubbyhole/", Kind: "cubbyhole", Description: "per-token private secret storage", Local: true},
		{Path: "identity/", Kind: "identity", Description: "identity store"},
		{Path: "sys/", Kind: "system", Description: "system endpoints used for control, policy and debugging", SealWrap: true},
	}
	for _, e := range builtins {
		ids, err := mint(random)
		if err != nil {
			return err
		}
		e.Builtin, e.UUID, e.Accessor, e.Created = true, ids.uuid, ids.accessor(e.Kind, e.Auth()), tx.Now().UnixNano()
		if e.Kind == "cubbyhole" {
			if e.Space, err = tx.CreateSpace(); err != nil {
				return err
			}
		}
	}
	return put(tx, builtins, nil)
}

// minted is the randomness of a new mount or move, made once per request.
type minted struct{ uuid, suffix string }

func mint(random io.Reader) (minted, error) {
	var raw [20]byte
	if _, err := io.ReadFull(random, raw[:]); err != nil {
		return minted{}, conclave.Errorf(conclave.Internal, "no randomness for a mount")
	}
	raw[6], raw[8] = raw[6]&0x0f|0x40, raw[8]&0x3f|0x80 // RFC 9562, version 4
	text := hex.EncodeToString(raw[:])
	uuid := strings.Join([]string{text[:8], text[8:12], text[12:16], text[16:20], text[20:32]}, "-")
	return minted{uuid, text[32:40]}, nil
}

func (m minted) accessor(kind string, auth bool) string {
	if auth {
		kind = "auth_" + kind
	}
	return kind + "_" + m.suffix
}

// checkPath holds the path of a new mount, which ends in "/", against the rules.
func checkPath(path string) error {
	bare := strings.TrimSuffix(path, "/")
	segments := strings.Split(bare, "/")
	switch {
	case len(path) > maxPath || len(segments) > maxSegments:
		return conclave.Errorf(conclave.Invalid, "a mount's path has at most %d bytes and %d segments", maxPath, maxSegments)
	case !utf8.ValidString(path) || strings.ContainsAny(path, `*+%?#\{}"`) || strings.ContainsFunc(path, unicode.IsControl) || strings.TrimSpace(bare) != bare:
		return conclave.Errorf(conclave.Invalid, "a mount's path is plain text, without wildcards")
	case segments[len(segments)-1] == "tune":
		return conclave.Errorf(conclave.Invalid, "a mount's path can't end in tune: that is where mounts are tuned")
	}
	for _, segment := range segments {
		if segment == "" || segment == "." || segment == ".." {
			return conclave.Errorf(conclave.Invalid, "a mount's path has no empty segment, . or ..")
		}
	}
	for _, own := range []string{"sys", "cubbyhole", "identity", "auth"} {
		if segments[0] == own && (own != "auth" || len(segments) == 1) {
			return conclave.Errorf(conclave.Invalid, "cannot mount under %q: the path is the vault's own", own+"/")
		}
	}
	return nil
}

// check holds an entry's contents against the limits.
func (e *Entry) check(defaults Defaults) error {
	if len(e.Description) > maxText {
		return conclave.Errorf(conclave.Invalid, "a description has at most %d bytes", maxText)
	}
	if len(e.Options) > maxOptions {
		return conclave.Errorf(conclave.Invalid, "a mount has at most %d options", maxOptions)
	}
	for key, value := range e.Options {
		if len(key) > maxText || len(value) > maxText {
			return conclave.Errorf(conclave.Invalid, "an option has at most %d bytes", maxText)
		}
	}
	c := &e.Config
	for _, list := range [][]string{c.AuditNonHMACRequestKeys, c.AuditNonHMACResponseKeys, c.PassthroughRequestHeaders, c.AllowedResponseHeaders} {
		if len(list) > maxOptions || slices.ContainsFunc(list, func(name string) bool { return name == "" || len(name) > 256 }) {
			return conclave.Errorf(conclave.Invalid, "a list of names has at most %d names of at most 256 bytes", maxOptions)
		}
	}
	if !slices.Contains([]string{"", "hidden", "unauth"}, c.ListingVisibility) {
		return conclave.Errorf(conclave.Invalid, "invalid listing_visibility: must be hidden or unauth")
	}
	if l := c.UserLockout; l != nil {
		day := int64(24 * 60 * 60)
		if !e.Auth() || l.Threshold < 0 || l.Threshold > 1000 || l.Duration < 0 || l.Duration > 365*day || l.Reset < 0 || l.Reset > 365*day {
			return conclave.Errorf(conclave.Invalid, "'user_lockout_config' is for auth methods, with a threshold of at most 1000 and times of at most a year")
		}
	}
	if c.TokenType != "" && !e.Auth() {
		return conclave.Errorf(conclave.Invalid, "'token_type' can only be set on auth methods")
	}
	if !slices.Contains([]string{"", "default-service", "default-batch", "service", "batch"}, c.TokenType) {
		return conclave.Errorf(conclave.Invalid, "invalid token_type: must be default-service, default-batch, service or batch")
	}
	if c.MaxTTL == 0 {
		if server := int64(defaults.fill().MaxTTL.Seconds()); c.DefaultTTL > server {
			return conclave.Errorf(conclave.Invalid, "default lease TTL exceeds the server's maximum of %d seconds", server)
		}
	} else if c.DefaultTTL > c.MaxTTL {
		return conclave.Errorf(conclave.Invalid, "default lease TTL of %d seconds exceeds the max lease TTL of %d seconds", c.DefaultTTL, c.MaxTTL)
	}
	return nil
}
