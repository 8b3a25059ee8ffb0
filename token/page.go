package token

import "conclave"

// Accessors lists the accessors of tokens, whether or not they live, after one and at most limit of them; limit <= 0 means
// all.
func Accessors(view conclave.View, after string, limit int) ([]string, error) {
	return listAccessors(view, after, limit)
}
