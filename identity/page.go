package identity

import "conclave"

// Entities lists the ids of entities, after one and at most limit of them; limit <= 0 means all.
func Entities(view conclave.View, after string, limit int) ([]string, error) {
	return view.List(entityDir, after, limit)
}
