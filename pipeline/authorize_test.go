package pipeline

import (
	"testing"

	"conclave"
)

// Clients look for "invalid token" to know that they must log in again. It is said of the token alone: what is mounted
// shows neither in it nor in its absence.
func TestTokenThatIsNoneIsSaidToBeInvalid(t *testing.T) {
	const invalid = "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"
	h := newHouse(t)
	resp, err := h.do(t, conclave.Update, "auth/door/login/ann", conclave.Secret{})
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		token conclave.Secret
		want  string
	}{
		"no token":          {conclave.Secret{}, "permission denied"},
		"unknown token":     {conclave.NewSecret("hvs.nothing"), invalid},
		"a token, no right": {resp.Auth.ClientToken, "permission denied"},
	} {
		for _, path := range []string{"sys/mounts", "nowhere/at/all", "sys/none"} {
			if _, err := h.do(t, conclave.Read, path, tc.token); !conclave.Is(err, conclave.Denied) || err.Error() != tc.want {
				t.Errorf("%s at %s: %v, want %q", name, path, err, tc.want)
			}
		}
	}
	if _, err := h.do(t, conclave.Read, "auth/token/lookup-self", resp.Auth.ClientToken); err != nil {
		t.Errorf("a good token: %v", err)
	}
}
