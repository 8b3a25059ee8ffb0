// Package store is the encrypted, transactional view over the replicated state: what handlers see as paths and values
// is, below, a chain of name tokens and sealed records, and every read is noted so that the cluster can judge the whole
// request.
//
// A path "a/b/c" in a space is the child "c" of the directory "b/" of the directory "a/" of the top. Each step is a
// 16-byte token, a keyed hash of the parent's token and the segment, so that neither log nor state shows a name:
//
//	key    'r' ‖ space (8) ‖ token of the directory (16) ‖ token of the child (16)
//	value  length of the sealed name (2) ‖ sealed name ‖ sealed value
//
// A directory is a record too, under the segment with its slash and without a value, so that a leaf and a directory may
// share a name. It is made with its first child and removed with its last.
//
// The version of a record is the snapshot's index + 1, chosen here before encryption and bound into the ciphertext. It
// grows with every write of the key, also over delete and recreate, because every written key is among the
// transaction's reads.
package store
