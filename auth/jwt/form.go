package jwt

import (
	"context"
	"fmt"
	"html"
	"net/url"
	"strings"

	"conclave"
	"conclave/internal/jws"
)

const postDoc = `Take what the issuer posts through the browser (response mode form_post).
The answer is a page that goes on to the user interface; the login ends with a read of the same path.`

type postIn struct {
	State   string          `json:"state" doc:"The parameter state."`
	Code    conclave.Secret `json:"code" doc:"The issuer's code."`
	IDToken conclave.Secret `json:"id_token" doc:"The issuer's ID token."`
	Error   string          `json:"error" doc:"Why the issuer refused."`
}

func postAttempt(_ context.Context, tx conclave.Tx, in *postIn) (*conclave.Response, error) {
	cfg, err := loadConfig(tx)
	if err != nil {
		return nil, err
	}
	if cfg == nil {
		return nil, loginFailed("Could not load configuration.")
	}
	if cfg.ResponseMode != "form_post" {
		return nil, conclave.Errorf(conclave.Unsupported, "unsupported operation")
	}
	begun, path, err := loadAttempt(tx, in.State)
	if err != nil {
		return nil, err
	}
	code, idToken := in.Code.Reveal(), in.IDToken.Reveal()
	switch {
	case begun.Posted:
		return nil, errNoState // only the first answer counts
	case in.Error != "":
		return nil, loginFailed(oauthError(strings.ToLower(strings.TrimSpace(in.Error))))
	case code == "" && idToken == "":
		return nil, loginFailed("No code or id_token received.")
	case len(code) > maxCode || len(idToken) > jws.MaxToken:
		return nil, loginFailed("The code or id_token is too long.")
	}
	begun.Posted, begun.Code, begun.IDToken = true, code, idToken
	if err := putAttempt(tx, path, begun); err != nil {
		return nil, err
	}
	return &conclave.Response{Raw: &conclave.Raw{ContentType: "text/html; charset=utf-8", Body: onwards(tx, in.State)}}, nil
}

// onwards is a page that sends the browser to the user interface.
func onwards(view conclave.View, state string) []byte {
	mount := strings.TrimSuffix(strings.TrimPrefix(view.Mount().Path, "auth/"), "/")
	query := url.Values{"code": {noCode}, "state": {state}}
	if request := view.Request(); request != nil && request.Namespace != "" {
		query.Set("namespace", strings.TrimSuffix(request.Namespace, "/"))
	}
	address := url.URL{Path: "/ui/vault/auth/" + mount + "/oidc/callback", RawQuery: query.Encode()}
	return fmt.Appendf(nil, "<!DOCTYPE html>\n<meta http-equiv=\"refresh\" content=\"0;url=%s\">\n<title>Login</title>\n<p>Going on with the login.\n",
		html.EscapeString(address.String()))
}
