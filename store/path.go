package store

import (
	"encoding/binary"
	"strings"

	"conclave"
	"conclave/crypto"
	"conclave/fsm"
)

// pathKey names a path of a space in the cache of places.
type pathKey struct {
	space uint64
	path  string
}

// place is where a path is stored.
type place struct {
	name string         // the last segment, with its slash if it is a directory
	dirs []crypto.Token // tokens of the directories on the way: dirs[0] is the top, the last one is the parent
	segs []string       // names of the directories on the way, with slash: segs[i] is in dirs[i]
	key  fsm.Key        // of the record
	self crypto.Token   // the token of the path itself
}

// locate returns the place of a path: "a/b" is a leaf, "a/b/" a directory; "" is the top, which has no record.
func (s *Store) locate(space *openSpace, path string) (*place, error) {
	cacheKey := pathKey{space.id, path}
	if p, ok := s.paths.get(cacheKey); ok {
		return p, nil
	}
	p, err := locate(space, path)
	if err != nil {
		return nil, err
	}
	s.paths.set(cacheKey, p)
	return p, nil
}

func locate(space *openSpace, path string) (*place, error) {
	p := &place{dirs: []crypto.Token{{}}}
	if path == "" {
		return p, nil
	}
	rest := path
	for depth := 0; ; depth++ {
		if depth == conclave.MaxDepth {
			return nil, conclave.Errorf(conclave.Invalid, "path has more than %d segments", conclave.MaxDepth)
		}
		segment, below, more := strings.Cut(rest, "/")
		if segment == "" || len(segment) > conclave.MaxName {
			return nil, conclave.Errorf(conclave.Invalid, "path has an empty segment or one of more than %d bytes", conclave.MaxName)
		}
		if more {
			segment += "/"
		}
		parent := p.dirs[len(p.dirs)-1]
		token := space.cipher.Child(parent, segment)
		if !more || below == "" {
			p.name, p.self = segment, token
			p.key = recordKey(fsm.ClassRecord, space.id, parent, token)
			return p, nil
		}
		p.segs = append(p.segs, segment)
		p.dirs = append(p.dirs, token)
		rest = below
	}
}

func (p *place) parent() crypto.Token { return p.dirs[len(p.dirs)-1] }

func recordKey(class byte, space uint64, parent, child crypto.Token) fsm.Key {
	var b [41]byte
	b[0] = class
	binary.BigEndian.PutUint64(b[1:], space)
	copy(b[9:], parent[:])
	copy(b[25:], child[:])
	return fsm.Key(b[:])
}

// dirPrefix is what the keys of all children of a directory begin with.
func dirPrefix(class byte, space uint64, dir crypto.Token) fsm.Key {
	var b [25]byte
	b[0] = class
	binary.BigEndian.PutUint64(b[1:], space)
	copy(b[9:], dir[:])
	return fsm.Key(b[:])
}

func cellKey(record fsm.Key) fsm.Key { return fsm.Key(string(fsm.ClassCell) + string(record[1:])) }
