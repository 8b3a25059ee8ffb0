// Package ldap is the auth method for people that an LDAP directory knows: OpenLDAP, Active Directory and others. A login
// binds to the directory as the user; policies come from the names of the user and of the groups that the directory has.
//
// All that goes over the network happens in Prepare, bounded in time and size. No password is kept. An empty password
// never reaches a directory, since it would bind as nobody and succeed. Referrals aren't followed.
//
// A user has one spelling: what is typed is brought into it before anything else sees it, and what the directory finds
// must carry the name in that spelling. Directories match more than they should (case, width, accents, blanks); one that
// finds Alice under twenty names would otherwise give her twenty identities, or a guesser twenty times the guesses.
package ldap

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"conclave"
)

const kind = "ldap"

// Limits of names and lists.
const (
	maxName = 256 // bytes of a user's or group's name
	maxList = 256 // groups or policies of one user or group
)

// Plugin is the method's line in the list of plug-ins.
func Plugin() conclave.Plugin {
	return conclave.Plugin{
		Kind: kind,
		Doc:  "Logs in people whom an LDAP directory knows.",
		Open: func(map[string]string) (conclave.Engine, error) { return Engine{}, nil },
		Auth: true,
	}
}

// Engine serves the routes. It has no state.
type Engine struct{}

var _ conclave.Renewer = Engine{}

// Kind is "ldap".
func (Engine) Kind() string { return kind }

// Routes are those of the configuration, of what users and groups get, and the login.
func (Engine) Routes() []conclave.Route {
	login := conclave.WriteRoute(conclave.Update, "login/{username}", loginDoc, login).With(conclave.Public)
	login.Gather, login.Guess, login.Prepare = gatherLogin, guessed, askDirectory
	return []conclave.Route{
		login,
		conclave.WriteRoute(conclave.Update, "config", configDoc, writeConfig),
		conclave.ReadRoute(conclave.Read, "config", "Read the configuration, without its secrets.", readConfig),
		conclave.WriteRoute(conclave.Update, "users/{name}", "Give a user policies, and groups beside those of the directory.", writeUser),
		conclave.ReadRoute(conclave.Read, "users/{name}", "Read what a user gets.", readUser),
		conclave.WriteRoute(conclave.Delete, "users/{name}", "Remove what a user gets; the directory decides who logs in.", remove("users/")),
		conclave.ReadRoute(conclave.List, "users", "List the users that get something.", listNames("users/")),
		conclave.WriteRoute(conclave.Update, "groups/{name}", "Give a group's members policies.", writeGroup),
		conclave.ReadRoute(conclave.Read, "groups/{name}", "Read what a group's members get.", readGroup),
		conclave.WriteRoute(conclave.Delete, "groups/{name}", "Remove what a group's members get.", remove("groups/")),
		conclave.ReadRoute(conclave.List, "groups", "List the groups whose members get something.", listNames("groups/")),
	}
}

// spelling brings a name into its one spelling; ok is false if it has none. It follows what directories do before they
// compare (RFC 4518): NFKC, lower case unless case counts, runs of blanks as one, none at the ends. Case is mapped letter by
// letter and only where two letters are a pair, not folded: "ß" isn't "ss" and "İ" isn't "i", so that two people never
// become one. Characters that aren't seen, which directories leave out, are refused.
func spelling(name string, caseCounts bool) (spelled string, ok bool) {
	if len(name) > 4*maxName || !utf8.ValidString(name) {
		return "", false
	}
	name = norm.NFKC.String(name)
	if !caseCounts {
		name = norm.NFKC.String(strings.Map(small, name))
	}
	name = strings.Join(strings.Fields(name), " ")
	if name == "" || len(name) > maxName || strings.ContainsFunc(name, isUnseen) {
		return "", false
	}
	return name, true
}

// small is the small letter of a capital that shares it with no other.
func small(r rune) rune {
	if lower := unicode.ToLower(r); unicode.ToUpper(lower) == r {
		return lower
	}
	return r
}

// isUnseen reports whether a character leaves no trace in print: controls, formats, fillers, and what isn't assigned.
func isUnseen(r rune) bool {
	return r == utf8.RuneError || !unicode.IsPrint(r) || unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}
