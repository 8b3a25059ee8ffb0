package kubernetes

import (
	"slices"
	"strings"

	"conclave"
	"conclave/internal/glob"
	"conclave/internal/jws"
)

// account is a service account, as its token or the API server names it.
type account struct {
	namespace, name, uid string
	secret               string // that an old token is kept in
}

// defaultIssuer is the one of Kubernetes' old tokens.
const defaultIssuer = "kubernetes/serviceaccount"

// algorithms are those that API servers sign tokens with.
var algorithms = []string{"RS256", "RS384", "RS512", "ES256", "ES384", "ES512"}

// accountOf reads whose a token says it is. Tokens of today have the object "kubernetes.io", older ones, which are kept in
// secrets, have claims beginning with "kubernetes.io/serviceaccount/".
func accountOf(claims jws.Claims) (*account, error) {
	const old = "kubernetes.io/serviceaccount/"
	found := &account{claims.Text(old + "namespace"), claims.Text(old + "service-account.name"), claims.Text(old + "service-account.uid"), claims.Text(old + "secret.name")}
	if object, isToday := claims["kubernetes.io"].(map[string]any); isToday {
		inner, _ := object["serviceaccount"].(map[string]any)
		found.namespace, found.name, found.uid = jws.Claims(object).Text("namespace"), jws.Claims(inner).Text("name"), jws.Claims(inner).Text("uid")
	}
	if !isLabel(found.namespace, 63) || !isLabel(found.name, 253) || !isLabel(found.uid, 128) || found.secret != "" && !isLabel(found.secret, 253) {
		return nil, conclave.Errorf(conclave.Denied, "the token is not that of a service account")
	}
	return found, nil
}

// isLabel reports whether text is made as names of objects are (RFC 1123 as Kubernetes reads it).
func isLabel(text string, limit int) bool {
	if text == "" || len(text) > limit {
		return false
	}
	for _, c := range []byte(text) {
		if c != '-' && c != '.' && (c < '0' || c > '9') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return true
}

// judge checks all of a token that needs nobody's help, but for its times, and returns whose it says it is. A namespace
// that isn't listed passes if the role has a selector: that is for the API server to tell.
func (a *asked) judge(token *jws.Token) (*account, error) {
	if len(a.config.keys) > 0 {
		if err := token.Verify(a.config.keys, algorithms); err != nil {
			return nil, conclave.Errorf(conclave.Denied, "%w", err)
		}
	} else if !slices.Contains(algorithms, token.Algorithm) {
		return nil, conclave.Errorf(conclave.Denied, "the token is signed with an algorithm that isn't allowed")
	}
	issuer := a.config.Issuer
	if issuer == "" {
		issuer = defaultIssuer
	}
	if !a.config.AnyIssuer && token.Claims.Text("iss") != issuer {
		return nil, conclave.Errorf(conclave.Denied, "invalid issuer (iss) claim")
	}
	audiences, err := token.Claims.Audiences()
	if err != nil || a.role.Audience != "" && !slices.Contains(audiences, a.role.Audience) {
		return nil, conclave.Errorf(conclave.Denied, "invalid audience (aud) claim")
	}
	who, err := accountOf(token.Claims)
	if err != nil {
		return nil, err
	}
	if !glob.MatchAny(a.role.Names, who.name) {
		return nil, conclave.Errorf(conclave.Denied, "service account name not authorized")
	}
	if !glob.MatchAny(a.role.Namespaces, who.namespace) && a.role.Selector == "" {
		return nil, conclave.Errorf(conclave.Denied, "namespace not authorized")
	}
	return who, nil
}

// parseUser reads the name that the API server has for a service account.
func parseUser(username string) (namespace, name string, ok bool) {
	parts := strings.Split(username, ":")
	if len(parts) != 4 || parts[0] != "system" || parts[1] != "serviceaccount" {
		return "", "", false
	}
	return parts[2], parts[3], true
}
