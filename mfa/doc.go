// Package mfa asks for a second factor when somebody logs in: passcodes of TOTP (RFC 6238). Enforcements say whose logins
// need one, methods what counts as one. A login that has shown its first factor alone is kept, until it is finished with the
// second on any node. All is below "mfa/" of a namespace's system space, as JSON:
//
//	mfa/config                           {"methods": [method, …], "enforcements": [enforcement, …]}, each in order of age
//	mfa/entity/<entity>/totp/<method>    {"key": base64, "algorithm", "digits", "period", "last": time step}
//	mfa/entity/<entity>/pending          {"logins": [{"id", "until"}, …]}: the entity's unfinished logins, oldest first
//	mfa/pending/<id>                     an unfinished login, with all that its token is made of
//
// Ids are random UUIDs and never used again. Times are Unix nanoseconds.
//
// Invariants. A method that an enforcement names is there. A passcode is good for one login over the whole cluster: the
// time step of the last one is in the entity's record, written by the transaction that judges it, and only later steps are
// taken. What an authenticator was set up with stays as it was when the method changes, but for the skew. Time is cluster
// time. Methods and enforcements are those of one namespace: they mean nothing in another.
//
// What it doesn't do: count wrong passcodes (package lockout does), make tokens, other second factors than TOTP.
package mfa
