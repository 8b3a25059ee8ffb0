package kv

import (
	"strconv"

	"conclave"
)

// What happens to secrets, under Vault's names. Events about data are about data/<path>, whichever route made them happen:
// whoever may read the data may know of them. Those about settings are about metadata/<path>.
const (
	dataDir     = "data/"
	metadataDir = "metadata/"
)

// emitData tells of a change of the data of a versioned secret.
func (s *secret) emitData(tx conclave.Tx, operation, path string) error {
	return s.emit(tx, operation, dataDir+path)
}

func (s *secret) emit(tx conclave.Tx, operation, about string) error {
	return tx.Emit(conclave.Event{Type: "kv-v2/" + operation, Path: about, Metadata: map[string]string{
		"operation": operation, "modified": "true",
		"current_version": strconv.FormatUint(s.current, 10), "oldest_version": strconv.FormatUint(s.oldest, 10),
	}})
}

// emitPlain tells of what happens without versions.
func emitPlain(tx conclave.Tx, eventType, operation, about string) error {
	return tx.Emit(conclave.Event{Type: eventType, Path: about, Metadata: map[string]string{"operation": operation, "modified": "true"}})
}
