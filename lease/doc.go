// Package lease keeps leases: what engines have given out for a limited time, and must be ended outside of the vault. All
// is below "lease/" of the system space of the mount's namespace:
//
//	lease/id/<id>                                 the record of a lease that runs, JSON
//	lease/expiry/<hour>/<slot>/<key>              id: the lease must be looked at when that slot is over
//	lease/ending/<key>                            the record of a lease that is over, and to be ended outside, JSON
//	lease/due/<mount>/<hour>/<slot>/<key>         a mark: the next attempt to end it is due when that slot is over
//	lease/abandoned/<key>                         the record of a lease that a person gave up, JSON
//	lease/damaged/<key>                           a note that the record of a lease can't be read, JSON
//	lease/jobs                                    what is being revoked by prefix, JSON
//	lease/mount/<mount>, lease/count/<mount>      a mark, and a cell: the mount's leases that run or are ending
//
// An id is "<mount path><path of the request>/<key>", so that a listing finds leases by prefix; a key is 24 random letters
// and digits (142 bits), below the root namespace followed by "." and the namespace's id. Hours count from 1970, 16 hex digits; a
// slot is five seconds of an hour, three hex digits; mounts are named by their UUIDs.
//
// Invariants. All entries of a lease are written in one transaction. A lease that runs has exactly one entry in the index
// of expiry, at a time that isn't after its end: a renewal leaves it where it is, and whoever comes to look moves it. A
// lease is over when its time has come, the token that it belongs to has ended, or a prefix that covers it is revoked:
// that is judged at each use, whether or not the reaper has come. A lease that is over stays in the queue until its engine
// has ended it, or until a person abandons it, saying why; what is abandoned stays visible.
//
// Nothing is loaded at start. Each step of the reaper reads as much as it does, however many leases there are.
package lease
