package namespace

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"io"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"conclave"
)

// Setup is what the routes need. All members must be given; Random must be a cryptographic source.
type Setup struct {
	// Found fills the system space of a new namespace.
	Found func(tx conclave.System) error
	// Mounted reports whether something is mounted at a path or below it.
	Mounted func(view conclave.View, path string) (bool, error)
	// Empty refuses a namespace that holds something that can't be destroyed with it: leases that aren't revoked.
	Empty func(system conclave.System) error
	// Spaces are those that go with a namespace, beside its system space.
	Spaces func(view conclave.View) ([]conclave.Space, error)
	// Root is the system space of the root namespace, in the transaction of a view: what locks a namespace is kept above it.
	Root   func(view conclave.View) (conclave.System, error)
	Random io.Reader
}

// Routes are those below sys/ that manage the namespaces below the request's own.
func Routes(setup Setup) []conclave.Route {
	s := &setup
	write := conclave.WriteRoute(conclave.Update, "namespaces/{name}", "Make a namespace, or change its metadata.", s.write)
	write.Prepare = s.mint
	lockDoc := "Refuse all requests to a namespace and those below it; the answer has the key that unlocks it."
	unlockDoc := "Let requests in again. Root tokens need no key."
	lock := conclave.WriteRoute(conclave.Update, "namespaces/api-lock/lock/{path...}", lockDoc, s.lock).With(conclave.Sudo)
	lockOwn := conclave.WriteRoute(conclave.Update, "namespaces/api-lock/lock", lockDoc, s.lockOwn).With(conclave.Sudo)
	lock.Prepare, lockOwn.Prepare = s.mint, s.mint
	return []conclave.Route{
		conclave.ReadRoute(conclave.List, "namespaces", "List the namespaces directly below.", s.list),
		conclave.ReadRoute(conclave.Read, "namespaces/{name}", "Read about a namespace.", s.read),
		write,
		conclave.WriteRoute(conclave.Patch, "namespaces/{name}", "Change some of a namespace's metadata; null removes an entry.", s.patch),
		conclave.WriteRoute(conclave.Delete, "namespaces/{name}", "Delete a namespace. All that it holds is destroyed, with the keys that it was encrypted with.", s.remove),
		lock,
		lockOwn,
		conclave.WriteRoute(conclave.Update, "namespaces/api-lock/unlock/{path...}", unlockDoc, s.unlock).With(conclave.Sudo),
		conclave.WriteRoute(conclave.Update, "namespaces/api-lock/unlock", unlockDoc, s.unlockOwn).With(conclave.Sudo),
	}
}

// minted is the randomness of a new namespace or lock.
type minted struct{ id, uuid, key string }

const idLetters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

func (s *Setup) mint(context.Context, *conclave.Request, any) (any, error) {
	var raw [56]byte
	if _, err := io.ReadFull(s.Random, raw[:]); err != nil {
		return nil, conclave.Errorf(conclave.Internal, "no randomness for a namespace")
	}
	id := make([]byte, 8)
	for i := range id {
		id[i] = idLetters[int(raw[i])%len(idLetters)] // a name, no secret: that some letters are likelier doesn't matter
	}
	raw[8+6], raw[8+8] = raw[8+6]&0x0f|0x40, raw[8+8]&0x3f|0x80 // RFC 9562, version 4
	text := hex.EncodeToString(raw[8:24])
	uuid := strings.Join([]string{text[:8], text[8:12], text[12:16], text[16:20], text[20:]}, "-")
	return minted{string(id), uuid, base64.RawURLEncoding.EncodeToString(raw[24:])}, nil
}

func prepared(ctx context.Context) (minted, error) {
	m, ok := conclave.Prepared[minted](ctx)
	if !ok {
		return minted{}, conclave.Errorf(conclave.Internal, "no randomness was prepared")
	}
	return m, nil
}

type nameInput struct {
	Name string `path:"name" doc:"The namespace's name, one segment."`
}

// info is how a namespace is shown.
type info struct {
	ID       string            `json:"id" doc:"A short name that is never used again."`
	UUID     string            `json:"uuid" doc:"A long name that is never used again."`
	Path     string            `json:"path" doc:"Where it is, from the root namespace on."`
	Locked   bool              `json:"locked" doc:"Whether requests to it are refused."`
	Tainted  bool              `json:"tainted" doc:"Always false: deleting is done at once."`
	Metadata map[string]string `json:"custom_metadata" doc:"Metadata for people and tools."`
}

func describe(view conclave.View, e *Entry) *info {
	metadata := e.Metadata
	if metadata == nil {
		metadata = map[string]string{}
	}
	return &info{ID: e.ID, UUID: e.UUID, Path: view.Namespace().Path + e.Name + "/", Locked: e.Locked(), Metadata: metadata}
}

func (s *Setup) list(_ context.Context, view conclave.View, _ *conclave.None) (*conclave.Keys, error) {
	table, err := Load(view)
	if err != nil || table == nil {
		return &conclave.Keys{}, err
	}
	out := &conclave.Keys{KeyInfo: map[string]any{}}
	for _, e := range table.Children {
		out.Keys = append(out.Keys, e.Name+"/")
		out.KeyInfo[e.Name+"/"] = describe(view, e)
	}
	return out, nil
}

func find(view conclave.View, name string) (*Table, *Entry, error) {
	table, err := Load(view)
	if err != nil {
		return nil, nil, err
	}
	e := table.Find(name)
	if e == nil {
		return table, nil, &conclave.Error{Kind: conclave.NotFound}
	}
	return table, e, nil
}

func (s *Setup) read(_ context.Context, view conclave.View, in *nameInput) (*info, error) {
	_, e, err := find(view, in.Name)
	if err != nil {
		return nil, err
	}
	return describe(view, e), nil
}

type writeInput struct {
	nameInput
	Metadata map[string]string `json:"custom_metadata" doc:"Metadata for people and tools."`
}

func (s *Setup) write(ctx context.Context, tx conclave.Tx, in *writeInput) (*info, error) {
	ids, err := prepared(ctx)
	if err != nil {
		return nil, err
	}
	if err := checkMetadata(in.Metadata); err != nil {
		return nil, err
	}
	table, err := Load(tx)
	if err != nil {
		return nil, err
	}
	if e := table.Find(in.Name); e != nil {
		next := *e
		if in.Metadata != nil {
			next.Metadata = in.Metadata
		}
		return describe(tx, &next), table.with(tx, e, &next)
	}
	e := &Entry{Name: in.Name, ID: ids.id, UUID: ids.uuid, Metadata: in.Metadata, Created: tx.Now().UnixNano()}
	if err := s.found(tx, e); err != nil {
		return nil, err
	}
	return describe(tx, e), table.with(tx, nil, e)
}

// found checks that a namespace can be there, and makes its system space.
func (s *Setup) found(tx conclave.Tx, e *Entry) error {
	if err := checkName(e.Name); err != nil {
		return err
	}
	if strings.Count(tx.Namespace().Path, "/") >= MaxDepth {
		return conclave.Errorf(conclave.Invalid, "namespaces can be nested %d deep", MaxDepth)
	}
	taken, err := s.Mounted(tx, e.Name+"/")
	if err != nil {
		return err
	}
	if taken {
		return conclave.Errorf(conclave.Invalid, "path is already in use by a mount at or below %s/", e.Name)
	}
	system, ok := tx.(conclave.System)
	if !ok {
		return conclave.Errorf(conclave.Internal, "namespaces are made outside the system space")
	}
	if e.Space, err = system.CreateSpace(); err != nil {
		return err
	}
	below, err := open(system, e)
	if err != nil {
		return err
	}
	return s.Found(below)
}

// reserved are names that paths of every namespace begin with.
var reserved = []string{"root", "sys", "audit", "auth", "cubbyhole", "identity"}

func checkName(name string) error {
	switch {
	case name == "" || len(name) > maxName || !utf8.ValidString(name):
		return conclave.Errorf(conclave.Invalid, "a namespace's name has 1 to %d bytes of UTF-8", maxName)
	case strings.ContainsAny(name, "/*+%?#\\{}\"'`<>|&;$!^~[](), ") || strings.ContainsFunc(name, func(r rune) bool { return unicode.IsControl(r) || !unicode.IsPrint(r) }):
		return conclave.Errorf(conclave.Invalid, "a namespace's name is letters, digits and - _ . @ : =")
	case strings.Trim(name, ".") == "" || slices.Contains(reserved, strings.ToLower(name)):
		return conclave.Errorf(conclave.Invalid, "%q can't be a namespace's name", name)
	}
	return nil
}

func checkMetadata(metadata map[string]string) error {
	if len(metadata) > maxMetadata {
		return conclave.Errorf(conclave.Invalid, "a namespace has at most %d entries of metadata", maxMetadata)
	}
	for key, value := range metadata {
		if key == "" || len(key) > maxText || len(value) > maxText {
			return conclave.Errorf(conclave.Invalid, "metadata has keys and values of at most %d bytes", maxText)
		}
	}
	return nil
}

type patchInput struct {
	nameInput
	Metadata map[string]any `json:"custom_metadata" doc:"Entries to change; null removes one."`
}

func (s *Setup) patch(_ context.Context, tx conclave.Tx, in *patchInput) (*info, error) {
	table, e, err := find(tx, in.Name)
	if err != nil {
		return nil, err
	}
	next := *e
	next.Metadata = map[string]string{}
	for key, value := range e.Metadata {
		next.Metadata[key] = value
	}
	for key, value := range in.Metadata {
		switch value := value.(type) {
		case nil:
			delete(next.Metadata, key)
		case string:
			next.Metadata[key] = value
		default:
			return nil, conclave.Errorf(conclave.Invalid, "metadata has values that are strings")
		}
	}
	if err := checkMetadata(next.Metadata); err != nil {
		return nil, err
	}
	return describe(tx, &next), table.with(tx, e, &next)
}

func (s *Setup) remove(_ context.Context, tx conclave.Tx, in *nameInput) (*conclave.None, error) {
	table, e, err := find(tx, in.Name)
	if err != nil {
		if conclave.Is(err, conclave.NotFound) {
			return nil, nil // as clients expect: what isn't there is gone
		}
		return nil, err
	}
	system, ok := tx.(conclave.System)
	if !ok {
		return nil, conclave.Errorf(conclave.Internal, "namespaces are deleted outside the system space")
	}
	below, err := open(system, e)
	if err != nil {
		return nil, err
	}
	children, err := Load(below)
	if err != nil {
		return nil, err
	}
	if children != nil && len(children.Children) > 0 {
		return nil, conclave.Errorf(conclave.Invalid, "the namespace has others below it: delete those first")
	}
	if err := s.Empty(below); err != nil {
		return nil, err
	}
	spaces, err := s.Spaces(below)
	if err != nil {
		return nil, err
	}
	for _, space := range append(spaces, e.Space) {
		if err := system.DropSpace(space); err != nil {
			return nil, err
		}
	}
	return nil, table.with(tx, e, nil)
}

type lockInput struct {
	Path string `path:"path" doc:"The namespace, relative to the request's own."`
}

type lockOutput struct {
	UnlockKey string `json:"unlock_key" doc:"What unlocks the namespace. It is shown once."`
}

// lockable is a namespace with the system space that lists it.
type lockable struct {
	system conclave.System
	table  *Table
	entry  *Entry
}

// own is the namespace of the request.
func (s *Setup) own(tx conclave.Tx) (*lockable, error) {
	if tx.Namespace().IsRoot() {
		return nil, conclave.Errorf(conclave.Invalid, "the root namespace can't be locked: seal the vault instead")
	}
	root, err := s.Root(tx)
	if err != nil {
		return nil, err
	}
	return below(root, tx.Namespace().Path)
}

// below finds the namespace at a path.
func below(tx conclave.Tx, path string) (*lockable, error) {
	system, ok := tx.(conclave.System)
	if !ok {
		return nil, conclave.Errorf(conclave.Internal, "namespaces are locked outside the system space")
	}
	segments := strings.Split(strings.TrimSuffix(path, "/"), "/")
	for i, name := range segments {
		table, e, err := find(system, name)
		if err != nil {
			return nil, err
		}
		if i == len(segments)-1 {
			return &lockable{system, table, e}, nil
		}
		if system, err = open(system, e); err != nil {
			return nil, err
		}
	}
	return nil, &conclave.Error{Kind: conclave.NotFound}
}

func (s *Setup) lock(ctx context.Context, tx conclave.Tx, in *lockInput) (*lockOutput, error) {
	l, err := below(tx, in.Path)
	if err != nil {
		return nil, err
	}
	return l.lock(ctx)
}

func (s *Setup) lockOwn(ctx context.Context, tx conclave.Tx, _ *conclave.None) (*lockOutput, error) {
	l, err := s.own(tx)
	if err != nil {
		return nil, err
	}
	return l.lock(ctx)
}

func (l *lockable) lock(ctx context.Context) (*lockOutput, error) {
	ids, err := prepared(ctx)
	if err != nil {
		return nil, err
	}
	if l.entry.Locked() {
		return nil, conclave.Errorf(conclave.Invalid, "the namespace is locked already")
	}
	sum := sha256.Sum256([]byte(ids.key))
	next := *l.entry
	next.Lock = sum[:]
	return &lockOutput{ids.key}, l.table.with(l.system, l.entry, &next)
}

type unlockKey struct {
	UnlockKey conclave.Secret `json:"unlock_key" doc:"The key that locking answered; root tokens need none."`
}

type unlockInput struct {
	lockInput
	unlockKey
}

func (s *Setup) unlock(_ context.Context, tx conclave.Tx, in *unlockInput) (*conclave.None, error) {
	l, err := below(tx, in.Path)
	if err != nil {
		return nil, err
	}
	return nil, l.unlock(tx.Caller(), in.UnlockKey)
}

func (s *Setup) unlockOwn(_ context.Context, tx conclave.Tx, in *unlockKey) (*conclave.None, error) {
	l, err := s.own(tx)
	if err != nil {
		return nil, err
	}
	return nil, l.unlock(tx.Caller(), in.UnlockKey)
}

func (l *lockable) unlock(caller *conclave.Caller, key conclave.Secret) error {
	if !l.entry.Locked() {
		return conclave.Errorf(conclave.Invalid, "the namespace is not locked")
	}
	sum := sha256.Sum256([]byte(key.Reveal()))
	if (caller == nil || !caller.Root) && subtle.ConstantTimeCompare(sum[:], l.entry.Lock) != 1 {
		return conclave.Errorf(conclave.Denied, "permission denied")
	}
	next := *l.entry
	next.Lock = nil
	return l.table.with(l.system, l.entry, &next)
}
