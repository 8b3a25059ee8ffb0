package audit

import (
	"context"

	"golang.org/x/mod/sumdb/tlog"

	"conclave/internal/chainlog"
)

// The log that records go into: segment files in which every record is the next link of a hash chain and a leaf of a
// Merkle tree. Package chainlog is the log itself, which doesn't know what a record says; this package is its only
// name for others.
type (
	Log           = chainlog.Log
	LogOptions    = chainlog.LogOptions
	State         = chainlog.State
	Base          = chainlog.Base
	Frame         = chainlog.Frame
	Sealed        = chainlog.Sealed
	EpochStart    = chainlog.EpochStart
	File          = chainlog.File
	Report        = chainlog.Report
	EpochReport   = chainlog.EpochReport
	Fault         = chainlog.Fault
	VerifyOptions = chainlog.VerifyOptions
)

// Limits of the log.
const (
	MaxBox    = chainlog.MaxBox
	MaxReason = chainlog.MaxReason
)

// ErrPruned is returned for records that were dropped after their export.
var ErrPruned = chainlog.ErrPruned

// LeafHash is the hash of a record in the tree; box is SHA-256 of the sealed record.
func LeafHash(digest *[32]byte, box [32]byte) tlog.Hash { return chainlog.LeafHash(digest, box) }

// ParseEpochStart reads the box of an epoch's first record.
func ParseEpochStart(box []byte) (EpochStart, error) { return chainlog.ParseEpochStart(box) }

// CheckReason reports whether text can be the reason of an epoch.
func CheckReason(text string) error { return chainlog.CheckReason(text) }

// OpenLog opens the log in dir as it was at a state.
func OpenLog(dir string, at State, options LogOptions) (*Log, error) {
	return chainlog.OpenLog(dir, at, options)
}

// VerifyDir checks the segments in a directory, whether or not a node is running on it.
func VerifyDir(ctx context.Context, dir string, options VerifyOptions) (Report, error) {
	return chainlog.VerifyDir(ctx, dir, options)
}

func link(head *[32]byte, seq, index uint64, stamp int64, leaf *tlog.Hash) [32]byte {
	return chainlog.Link(head, seq, index, stamp, leaf)
}

// parseHash reads 64 hex digits.
func parseHash(dst *[32]byte, text string) error { return chainlog.ParseHash(dst, text) }
