// Package audit is the record of every request: what it says, how it is sealed, the log that it is chained into, the
// devices that it is followed to, and the export that verifies without keys.
//
//	Entry ── Encode, Hasher ──▶ record ── Sealer ──▶ Sealed ── Log ──▶ segments ── Read ──▶ sinks, export
//
// Invariants:
//
//   - A record holds no secret: values are HMACs before they enter it.
//   - A record's digest is in the transaction that it is about, so an effect and its record are in the state together
//     or not at all.
//   - Nothing is dropped but whole epochs whose end somebody has confirmed; a full log refuses.
//   - Damage, gaps and changes are named by the record where they begin.
//
// What it will not do: promise that a cut tail shows to somebody who has only the log. Verify compares with the state
// if it is given one, and says so if it isn't.
package audit
