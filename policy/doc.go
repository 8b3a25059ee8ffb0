// Package policy parses access-control policies, compiles them and decides with them. A policy is HCL or JSON text, a
// list of rules; a rule names a pattern of paths and what may be done there. All questions — may this request pass,
// what capabilities are there on a path, is anything open under a mount — are answered by the same code.
//
// A pattern is an exact path, or ends in "*" (any continuation), or has "+" for whole segments (any one segment). When
// several patterns match a path, the one of highest priority decides alone, as Vault documents it: an exact path wins;
// of two others, the one whose first wildcard comes earlier loses, then the one that ends in "*", then the one with
// more "+", then the shorter, then the lexicographically smaller. Rules of the same pattern in several policies are
// merged: capabilities add up, and deny wins over everything.
//
// LIST and SCAN ask for a directory, "secret/team/". An exact rule for it decides, then an exact rule for the path
// without the slash. Otherwise both spellings are looked up: a deny that decides either of them holds, so that no
// spelling gets past it, and else the rule of higher priority decides.
//
// The package stores policies below "policy/" of the system space. What it doesn't do: authenticate, or cache what a
// token may do beyond the compiled rules.
package policy
