package database

import (
	"math/rand/v2"

	"conclave"
)

// statementsOf reads a list of statements, or a text, which stays one: commas are part of it.
func statementsOf(field string, raw any) ([]string, error) {
	var list []any
	switch raw := raw.(type) {
	case nil:
	case []any:
		list = raw
	default:
		list = []any{raw}
	}
	statements, size := []string{}, 0
	for _, item := range list {
		text, ok := item.(string)
		if !ok {
			return nil, conclave.Errorf(conclave.Invalid, "field %q: must be a list of statements", field)
		}
		if text == "" {
			continue
		}
		statements = append(statements, text)
		size += len(text)
	}
	if len(statements) > maxStatements || size > maxText {
		return nil, conclave.Errorf(conclave.Invalid, "field %q: at most %d statements of %d bytes together", field, maxStatements, maxText)
	}
	return statements, nil
}

// deterministic is randomness that is the same each time, for trying out a template in a handler.
func deterministic() *rand.ChaCha8 { return rand.NewChaCha8([32]byte{'n', 'a', 'm', 'e', 's'}) }

// emit says what happened to something of the mount.
func emit(tx conclave.Tx, what, path, name string) error {
	return tx.Emit(conclave.Event{Type: "database/" + what, Path: path, Metadata: map[string]string{"name": name, "operation": what, "modified": "true"}})
}
