// Package token keeps access tokens: their records, the tree they form, and the routes of auth/token/.
//
// A token is known by a hash of its secret, its name, which is also its accessor; the secret itself is stored nowhere. A
// token that somebody chose may be guessed, so its name is another hash, which isn't shown, and its accessor is random. All
// is below "token/" of the system space:
//
//	token/id/<name>                 the record, JSON; see NameOf
//	token/accessor/<accessor>       name, of tokens that somebody chose
//	token/uses/<name>               cell: uses left, if they are limited
//	token/child/<parent>/<name>     empty: the token name is a child of parent
//	token/expiry/<hour>/<name>      empty: the token expires within that hour since 1970 (16 hex digits)
//	token/bridge/<name>             a mark: name was revoked without its children
//	token/held/<name>/<key>         something that ends with the token, such as a lease
//	token/bereft/<name>             a mark: name has ended, and what it held is still to be ended
//	token/spending/<name>           a mark: name has limited uses and held something; it ends with the last use
//	token/dead/<name>               a mark: the children of name, or its uses, are still to be cleared away
//
// Invariants. A token lives as long as its record is there, its time hasn't come, and its parent lives: authentication
// walks up to the root of the tree, so that revoking a token is one write and kills all below it at once, on every
// node. What is left of the dead is cleared in bounded steps by [Tidy] and [Expire]. A parent that was revoked without
// its children leaves a bridge that says so until each child is an orphan. The depth of a tree is at most [MaxDepth].
//
// A batch token is stored nowhere: it is its own record, sealed with a key of its namespace (token/batch). It lives until
// its time comes or its parent ends, can't be renewed or revoked, and has neither accessor, uses nor children.
package token
