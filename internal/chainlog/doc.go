// Package chainlog is a log of opaque records that shows when it was tampered with. Each record is the next link of a
// hash chain and a leaf of a Merkle tree (RFC 6962); records lie in segment files, which replicas that append the same
// records write alike, byte for byte.
//
// Invariants:
//
//   - The log ends where its owner's State says. What lies beyond was written before a crash and will be again.
//   - A State, and through the head of its chain every record before it, is fixed by the records alone.
//   - Nothing is dropped but whole epochs, by Prune, and State says where history starts since.
//   - What was flushed is readable at once; what was synced survives a crash of the machine.
//
// What it will not do: look into a record; show a cut tail to somebody who has no State to compare with, which no chain
// alone can; start goroutines. Package audit says what records mean.
package chainlog
