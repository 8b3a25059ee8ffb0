package quota

import (
	"slices"
	"strings"
)

// index finds the most specific of many places: the longest one that a path lies in. The zero index has none.
type index struct {
	paths map[string]entry // exactly this path, without a slash at its end → place
	stems map[string]entry // what comes before "*" → place
	trees map[string]entry // mount or namespace, ends in "/"; "" is everything → place
	roles map[string]entry // mount and role → place
	// lengths are those of stems, longest first.
	lengths []int
}

// entry is one place and the number that it was added under.
type entry struct {
	place Place
	at    int
}

func roleKey(mount, role string) string { return mount + "\x00" + role }

func (x *index) add(p Place, at int) {
	put := func(m *map[string]entry, key string) {
		if *m == nil {
			*m = map[string]entry{}
		}
		(*m)[key] = entry{p, at}
	}
	path := p.Path()
	stem, open := strings.CutSuffix(path, "*")
	switch {
	case p.Role != "":
		put(&x.roles, roleKey(path, p.Role))
	case open:
		put(&x.stems, stem)
		if i, found := slices.BinarySearchFunc(x.lengths, len(stem), func(a, b int) int { return b - a }); !found {
			x.lengths = slices.Insert(x.lengths, i, len(stem))
		}
	case p.Suffix != "":
		put(&x.paths, path)
	default:
		put(&x.trees, path)
	}
}

// find returns the number of the place that a path, namespace and all, lies in. inner reports whether a name is that of a
// namespace directly below another: what is in there isn't reached by quotas that aren't inheritable.
func (x *index) find(path string, inner func(namespace, name string) bool) (at int, ok bool) {
	path = strings.TrimSuffix(path, "/")
	if e, ok := x.paths[path]; ok {
		return e.at, true
	}
	path += "/"
	for end := len(path); ; end = strings.LastIndexByte(path[:end-1], '/') + 1 {
		// What is between this and the next longer tree comes first, and a stem before the tree that it equals.
		if e, ok := x.tree(path, end, inner); ok {
			if stem, ok := x.stem(path, end); ok {
				return stem.at, true
			}
			return e.at, true
		}
		if end == 0 {
			break
		}
	}
	e, ok := x.stem(path, 0)
	return e.at, ok
}

func (x *index) tree(path string, end int, inner func(namespace, name string) bool) (entry, bool) {
	e, ok := x.trees[path[:end]]
	if !ok || e.place.Mount != "" || e.place.Inheritable {
		return e, ok
	}
	name, _, _ := strings.Cut(path[end:], "/")
	return e, name == "" || !inner(e.place.Namespace, name)
}

// stem returns the longest stem of a path that has at least some bytes.
func (x *index) stem(path string, least int) (entry, bool) {
	for _, length := range x.lengths {
		if length < least {
			break
		}
		if length <= len(path) {
			if e, ok := x.stems[path[:length]]; ok {
				return e, true
			}
		}
	}
	return entry{}, false
}

// ofRole returns the number of the place for logins of a role. mount begins with its namespace and ends in "/".
func (x *index) ofRole(mount, role string) (at int, ok bool) {
	if role == "" {
		return 0, false
	}
	e, ok := x.roles[roleKey(mount, role)]
	return e.at, ok
}
