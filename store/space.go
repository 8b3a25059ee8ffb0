package store

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"reflect"
	"time"

	"conclave"
	"conclave/crypto"
	"conclave/fsm"
	"conclave/passwordpolicy"
)

// View is one space as a handler sees it, below a prefix: it implements conclave.System, of which handlers get the part
// that is theirs.
type View struct {
	tx     *Tx
	space  *openSpace
	prefix string
	mount  *conclave.Mount
	home   *View // the system space of the mount's namespace; nil if the view itself is of a system space
}

var _ conclave.System = (*View)(nil)

// decodedKey names a decoded object: by what function, from which item.
type decodedKey struct {
	key    fsm.Key
	decode uintptr
}

type decoded struct {
	version uint64
	object  any
}

// System is the root namespace's system space.
func (tx *Tx) System() *View { return &View{tx: tx, space: tx.ring.system} }

// Space opens the space below prefix ("" is all of it, others end in "/") for a mount's handlers.
func (tx *Tx) Space(space conclave.Space, prefix string, mount *conclave.Mount) (*View, error) {
	opened, err := tx.unlocked.open(space.ID, space.Keys)
	if err != nil {
		return nil, tx.fail(fmt.Errorf("open space %d: %w", space.ID, err))
	}
	return &View{tx: tx, space: opened, prefix: prefix, mount: mount}, nil
}

// Mounted opens the space of a mount of the namespace whose system space v is.
func (v *View) Mounted(space conclave.Space, prefix string, mount *conclave.Mount) (*View, error) {
	inner, err := v.tx.Space(space, prefix, mount)
	if err == nil {
		inner.home = v
	}
	return inner, err
}

// WithMount is the same view with what its handlers see as their mount.
func (v *View) WithMount(mount *conclave.Mount) *View {
	return &View{tx: v.tx, space: v.space, prefix: v.prefix, mount: mount, home: v.home}
}

// Now is cluster time when the transaction began.
func (v *View) Now() time.Time { return v.tx.Now() }

// Reached reports whether cluster time has reached at.
func (v *View) Reached(at time.Time) bool { return v.tx.Reached(at) }

// Request is the request that is being executed.
func (v *View) Request() *conclave.Request { return v.tx.request }

// Caller is who makes the request.
func (v *View) Caller() *conclave.Caller { return v.tx.caller }

// Namespace is where the request is made.
func (v *View) Namespace() conclave.Namespace { return v.tx.namespace }

// Mount is the mount whose route runs.
func (v *View) Mount() *conclave.Mount { return v.mount }

// PasswordPolicy returns the text of the namespace's password policy of that name, "" if there is none.
func (v *View) PasswordPolicy(name string) (string, error) {
	home := v
	if v.home != nil {
		home = v.home
	}
	return passwordpolicy.Text(home, name)
}

func (v *View) locate(path string) (*place, error) {
	p, err := v.tx.store.locate(v.space, v.prefix+path)
	if err != nil {
		return nil, v.tx.fail(err)
	}
	return p, nil
}

// locateLeaf refuses what can't hold a value.
func (v *View) locateLeaf(path string) (*place, error) {
	p, err := v.locate(path)
	if err == nil && (p.name == "" || p.name[len(p.name)-1] == '/') {
		err = v.tx.fail(conclave.Errorf(conclave.Invalid, "a path that ends in a slash holds no value"))
	}
	return p, err
}

// Get returns the value at path, nil if there is none.
func (v *View) Get(path string) ([]byte, error) {
	p, err := v.locateLeaf(path)
	if err != nil {
		return nil, err
	}
	if w, ok := v.tx.plain[p.key]; ok {
		return w.value, nil
	}
	version, item, err := v.tx.get(p.key)
	if err != nil || version == 0 {
		return nil, err
	}
	return v.open(p, version, item)
}

func (v *View) open(p *place, version uint64, item []byte) ([]byte, error) {
	_, sealed, err := unpackRecord(item)
	if err != nil {
		return nil, v.tx.fail(err)
	}
	value, err := v.space.cipher.OpenValue(nil, []byte(p.key), p.name, version, sealed)
	if err != nil {
		return nil, v.tx.fail(fmt.Errorf("open a record of space %d: %w", v.space.id, err))
	}
	if value == nil {
		value = []byte{}
	}
	return value, nil
}

// Load returns the decoded object at path, nil if there is none.
func (v *View) Load(path string, decode func([]byte) (any, error)) (any, error) {
	p, err := v.locateLeaf(path)
	if err != nil {
		return nil, err
	}
	if w, ok := v.tx.plain[p.key]; ok {
		if w.gone {
			return nil, nil
		}
		return decode(w.value)
	}
	version, item, err := v.tx.get(p.key)
	if err != nil || version == 0 {
		return nil, err
	}
	key := decodedKey{p.key, reflect.ValueOf(decode).Pointer()}
	if cached, ok := v.tx.store.decoded.get(key); ok && cached.version == version {
		return cached.object, nil
	}
	value, err := v.open(p, version, item)
	if err != nil {
		return nil, err
	}
	object, err := decode(value)
	if err != nil {
		return nil, v.tx.fail(err)
	}
	v.tx.store.decoded.set(key, decoded{version, object})
	return object, nil
}

// Put stores value at path, and makes the directories on the way.
func (v *View) Put(path string, value []byte) error { return v.putAt(path, value, false) }

// PutNew stores value at a path where nothing can be. The first look at an absent key costs more than the write: it asks
// every level of the store.
func (v *View) PutNew(path string, value []byte) error { return v.putAt(path, value, true) }

func (v *View) putAt(path string, value []byte, isNew bool) error {
	if len(value) > conclave.MaxValue {
		return v.tx.fail(conclave.Errorf(conclave.TooLarge, "value is larger than %d bytes", conclave.MaxValue))
	}
	p, err := v.locateLeaf(path)
	if err != nil {
		return err
	}
	if err := v.makeDirs(p); err != nil {
		return err
	}
	if isNew {
		v.tx.note(p.key, 0)
	}
	return v.put(p.key, p.parent(), p.name, bytes.Clone(value))
}

func (v *View) put(key fsm.Key, dir crypto.Token, name string, value []byte) error {
	version, _, err := v.tx.get(key)
	if err != nil {
		return err
	}
	op := fsm.Replace
	if version == 0 {
		op = fsm.Create
	}
	next := v.tx.NextVersion()
	sealedName := v.space.cipher.SealName(nil, []byte(key), name)
	var sealedValue []byte
	if value != nil {
		sealedValue = v.space.cipher.SealValue(nil, []byte(key), name, next, value)
	}
	v.remember(key, leaf{space: v.space, dir: dir, name: name, value: value})
	return v.tx.write(fsm.Write{Op: op, Key: key, Version: next, Value: packRecord(sealedName, sealedValue)})
}

func (v *View) remember(key fsm.Key, w leaf) {
	if v.tx.plain == nil {
		v.tx.plain = map[fsm.Key]leaf{}
	}
	v.tx.plain[key] = w
}

// makeDirs makes the records of the directories above p that aren't there.
func (v *View) makeDirs(p *place) error {
	for i, segment := range p.segs {
		key := recordKey(fsm.ClassRecord, v.space.id, p.dirs[i], p.dirs[i+1])
		if w, ok := v.tx.plain[key]; ok && !w.gone {
			continue
		} else if !ok {
			version, _, err := v.tx.get(key)
			if err != nil {
				return err
			}
			if version != 0 {
				continue
			}
		}
		if err := v.put(key, p.dirs[i], segment, nil); err != nil {
			return err
		}
	}
	return nil
}

// Delete removes the value at path, and the directories that it leaves empty.
func (v *View) Delete(path string) error {
	p, err := v.locateLeaf(path)
	if err != nil {
		return err
	}
	removed, err := v.remove(p.key, p.parent(), p.name)
	if err != nil || !removed {
		return err
	}
	gone := p.key
	for i := len(p.segs) - 1; i >= 0; i-- {
		empty, err := v.emptyDir(p.dirs[i+1], gone)
		if err != nil || !empty {
			return err
		}
		v.tx.emptied = append(v.tx.emptied, dirOf{v.space.id, p.dirs[i+1]})
		gone = recordKey(fsm.ClassRecord, v.space.id, p.dirs[i], p.dirs[i+1])
		if _, err := v.remove(gone, p.dirs[i], p.segs[i]); err != nil {
			return err
		}
	}
	return nil
}

// remove deletes one record and reports whether there was one.
func (v *View) remove(key fsm.Key, dir crypto.Token, name string) (bool, error) {
	version, _, err := v.tx.get(key)
	if err != nil {
		return false, err
	}
	written, wrote := v.tx.plain[key]
	if wrote && written.gone || !wrote && version == 0 {
		return false, nil
	}
	v.remember(key, leaf{space: v.space, dir: dir, name: name, gone: true})
	if version == 0 {
		v.tx.unwrite(key) // made and removed by this transaction: nothing to do for the cluster
		return true, nil
	}
	return true, v.tx.write(fsm.Write{Op: fsm.Delete, Key: key})
}

// unwrite takes back the write of a key that was not there before.
func (tx *Tx) unwrite(key fsm.Key) {
	at, ok := tx.writeAt[key]
	if !ok {
		return
	}
	last := len(tx.writes) - 1
	moved, hadRefusal := tx.writes[last], tx.refusals[last]
	tx.size -= len(tx.writes[at].Value) + len(key)
	tx.writes[at] = moved
	tx.writeAt[moved.Key] = at
	if hadRefusal != nil {
		tx.refusals[at] = hadRefusal
		delete(tx.refusals, last)
	}
	tx.writes = tx.writes[:last]
	delete(tx.writeAt, key)
}

// Cell returns the counter at path, with what this transaction adds to it.
func (v *View) Cell(path string) (int64, bool, error) {
	p, err := v.locateLeaf(path)
	if err != nil {
		return 0, false, err
	}
	key := cellKey(p.key)
	added := int64(0)
	if i, ok := v.tx.writeAt[key]; ok {
		switch w := v.tx.writes[i]; w.Op {
		case fsm.AddCell:
			added = w.Delta
		default:
			return w.Delta, w.Op == fsm.SetCell, nil
		}
	}
	version, item, err := v.tx.view.Get(key)
	if err != nil {
		return 0, false, v.tx.fail(err)
	}
	v.tx.note(key, version)
	if item == nil {
		return 0, false, nil
	}
	return int64(version) + added, true, nil
}

// SetCell makes, sets or removes the counter at path.
func (v *View) SetCell(path string, value int64, present bool) error {
	p, err := v.locateLeaf(path)
	if err != nil {
		return err
	}
	if !present {
		return v.tx.write(fsm.Write{Op: fsm.DropCell, Key: cellKey(p.key)})
	}
	return v.tx.write(fsm.Write{Op: fsm.SetCell, Key: cellKey(p.key), Delta: value})
}

// AddCell adds to the counter at path when the transaction is judged.
func (v *View) AddCell(path string, delta, floor int64, refusal error) error {
	p, err := v.locateLeaf(path)
	if err != nil {
		return err
	}
	key := cellKey(p.key)
	if i, ok := v.tx.writeAt[key]; ok {
		w := v.tx.writes[i]
		if w.Op == fsm.DropCell {
			return v.tx.fail(refusal)
		}
		delta += w.Delta
		if w.Op == fsm.SetCell {
			if delta < floor {
				return v.tx.fail(refusal)
			}
			return v.tx.write(fsm.Write{Op: fsm.SetCell, Key: key, Delta: delta})
		}
	}
	if err := v.tx.write(fsm.Write{Op: fsm.AddCell, Key: key, Delta: delta, Floor: floor}); err != nil {
		return err
	}
	if v.tx.refusals == nil {
		v.tx.refusals = map[int]error{}
	}
	v.tx.refusals[v.tx.writeAt[key]] = refusal
	return nil
}

// CreateSpace makes a space with fresh keys.
func (v *View) CreateSpace() (conclave.Space, error) {
	keys, err := crypto.NewSpaceKeys(rand.Reader)
	if err != nil {
		return conclave.Space{}, v.tx.fail(err)
	}
	encoded, err := keys.MarshalBinary()
	if err != nil {
		return conclave.Space{}, v.tx.fail(err)
	}
	var id [8]byte
	_, _ = rand.Read(id[:])
	id[0] |= 0x80 // far from the reserved small ids
	return conclave.Space{ID: binary.BigEndian.Uint64(id[:]), Keys: encoded}, nil
}

// DropSpace removes all that is stored in a space.
func (v *View) DropSpace(space conclave.Space) error {
	if space.ID == RootSpace {
		return v.tx.fail(conclave.Errorf(conclave.Invalid, "the root system space can't be dropped"))
	}
	var key [9]byte
	key[0] = fsm.ClassRecord
	binary.BigEndian.PutUint64(key[1:], space.ID)
	return v.tx.write(fsm.Write{Op: fsm.DropSpace, Key: fsm.Key(key[:])})
}

// Open returns another space within this transaction.
func (v *View) Open(space conclave.Space) (conclave.Tx, error) {
	return v.tx.Space(space, "", v.mount)
}

// Tx is the transaction that the view belongs to.
func (v *View) Tx() *Tx { return v.tx }
