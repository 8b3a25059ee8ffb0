// Package mount keeps a namespace's mount table: which engine or auth method serves which paths, with what options, and
// in which space it stores. The table is one record, "mounts" in the system space, and is decoded once per version.
//
//	{"entries": [entry, …], "moves": [move, …]}      JSON, at most 1 MiB, entries sorted by path
//
// Paths are canonical and end in "/". Auth methods are below "auth/". No mount lies below another. The paths sys/,
// auth/token/ and cubbyhole/ are the vault's own: they are in the table from the start and stay there.
//
// The space of a mount holds its keys: dropping the entry and the space destroys all that the mount has stored. Moving a
// mount changes its path only.
package mount
