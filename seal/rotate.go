package seal

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"time"

	"conclave"
	"conclave/crypto"
	"conclave/fsm"
	"conclave/mount"
	"conclave/namespace"
	"conclave/store"
)

// Limits of the re-encryption that follows a rotation.
const (
	rewrapRecords = 128                    // of one transaction
	rewrapPause   = 20 * time.Millisecond  // between transactions, so that requests come first
	rewrapIdle    = 5 * time.Second        // between looks for old keys
	rewrapRetry   = 500 * time.Millisecond // after a conflict or a failed commit
)

// rotate makes a new version of every data key, in one transaction. What was sealed with older keys stays readable and
// is sealed anew in the background; then the old keys are dropped.
func (v *Vault) rotate(_ context.Context, tx conclave.Tx, _ *conclave.None) (*conclave.None, error) {
	view, ok := tx.(*store.View)
	if !ok {
		return nil, errors.New("rotation outside the system space")
	}
	keyring := view.Tx().Keyring().Clone()
	if n := len(keyring.AuditData); n >= crypto.MaxAuditKeys {
		return nil, conclave.Errorf(conclave.Invalid, "the keys can't be rotated: there are %d keys of audit records, the most there can be. "+
			"Each rotation adds one; it goes some time after the records that need it were exported and dropped (conclave audit rotate, export, prune)", n)
	}
	if err := keyring.Rotate(rand.Reader, view.Now().Unix()); err != nil {
		return nil, conclave.Errorf(conclave.Invalid, "the keys can't be rotated yet: %s", err.Error())
	}
	if err := view.Tx().PutKeyring(keyring); err != nil {
		return nil, err
	}
	return nil, changeSpaces(view, func(space conclave.Space) (conclave.Space, error) {
		return changeKeys(space, func(keys *crypto.SpaceKeys) error { return keys.Rotate(rand.Reader) })
	})
}

// changeSpaces stores the keys that change returns for each space of the vault but the root system space: those of all
// mounts and namespaces.
func changeSpaces(root *store.View, change func(conclave.Space) (conclave.Space, error)) error {
	return namespace.Walk(root, conclave.Namespace{}, func(_ conclave.Namespace, system conclave.System) error {
		if err := mount.ChangeSpaces(system, change); err != nil {
			return err
		}
		return namespace.ChangeSpaces(system, change)
	})
}

func changeKeys(space conclave.Space, change func(*crypto.SpaceKeys) error) (conclave.Space, error) {
	var keys crypto.SpaceKeys
	if err := keys.UnmarshalBinary(space.Keys); err != nil {
		return space, err
	}
	if err := change(&keys); err != nil {
		return space, err
	}
	encoded, err := keys.MarshalBinary()
	return conclave.Space{ID: space.ID, Keys: encoded}, err
}

// KeyStatus is the answer of sys/key-status.
type KeyStatus struct {
	Term        uint32    `json:"term" doc:"Number of the active data key, counted from 1."`
	InstallTime time.Time `json:"install_time" doc:"When it was installed."`
	Encryptions int64     `json:"encryptions" doc:"Always 0: each message has a key of its own, so that there is nothing to count."`
}

func (v *Vault) keyStatus(_ context.Context, view conclave.View, _ *conclave.None) (*conclave.Response, error) {
	system, ok := view.(*store.View)
	if !ok {
		return nil, errors.New("key status outside the system space")
	}
	keyring := system.Tx().Keyring()
	status := KeyStatus{Term: keyring.Term}
	for _, installed := range keyring.Installed {
		if installed.Term == keyring.Term {
			status.InstallTime = time.Unix(installed.UnixSeconds, 0).UTC()
		}
	}
	return &conclave.Response{Data: status, TopLevel: true}, nil
}

// Reencrypt seals anew what is sealed with old data keys, a bounded step at a time, and drops old keys that nothing
// needs any more. It runs on the leader until ctx ends.
func (v *Vault) Reencrypt(ctx context.Context) error {
	for {
		pause := rewrapIdle
		if !v.Store.Locked() {
			done, err := v.reencryptAll(ctx)
			if err != nil && ctx.Err() == nil {
				v.Logger.Debug("re-encryption is interrupted and goes on later", "error", err)
			}
			if !done {
				pause = rewrapRetry
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// oldSpace is a space that holds keys of more than one term, as it was when the walk through it began.
type oldSpace struct {
	space conclave.Space
	root  bool   // it is the system space, whose keys are in the keyring
	term  uint32 // of the system space: the active key then, which all of it has after the walk
}

var errRotatedAgain = conclave.Errorf(conclave.Unavailable, "the keys were rotated again meanwhile")

// reencryptAll works through the spaces that have old keys. done says that there is nothing left.
func (v *Vault) reencryptAll(ctx context.Context) (done bool, err error) {
	spaces, err := v.oldSpaces()
	if err != nil || len(spaces) == 0 {
		return err == nil, err
	}
	for _, s := range spaces {
		if err := v.reencryptSpace(ctx, s); err != nil {
			return false, err
		}
		if err := v.dropOld(ctx, s); err != nil {
			return false, err
		}
	}
	return true, nil
}

func (v *Vault) oldSpaces() ([]oldSpace, error) {
	tx, err := v.Store.Begin()
	if err != nil {
		return nil, err
	}
	defer tx.Close()
	var old []oldSpace
	if root := tx.Keyring().Root; len(root.Data) > 1 {
		old = append(old, oldSpace{root: true, term: root.Active})
	}
	var spaces []conclave.Space
	err = changeSpaces(tx.System(), func(space conclave.Space) (conclave.Space, error) {
		spaces = append(spaces, space)
		return space, nil
	})
	if err != nil {
		return nil, err
	}
	for _, space := range spaces {
		var keys crypto.SpaceKeys
		if err := keys.UnmarshalBinary(space.Keys); err != nil {
			return nil, err
		}
		if len(keys.Data) > 1 {
			old = append(old, oldSpace{space: space})
		}
	}
	return old, nil
}

// reencryptSpace walks the space once; a step that conflicts is done again.
func (v *Vault) reencryptSpace(ctx context.Context, s oldSpace) error {
	for from, more := fsm.Key(""), true; more; {
		next, err := v.reencryptStep(ctx, s, from)
		if _, conflict := errors.AsType[*store.ErrConflict](err); conflict {
			continue
		}
		if err != nil {
			return err
		}
		from, more = next, next != ""
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(rewrapPause):
		}
	}
	return nil
}

func (v *Vault) reencryptStep(ctx context.Context, s oldSpace, from fsm.Key) (fsm.Key, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	tx, err := v.Store.Begin()
	if err != nil {
		return "", err
	}
	defer tx.Close()
	view, err := s.open(tx)
	if err != nil {
		return "", err
	}
	next, rewritten, err := view.Rewrap(from, rewrapRecords)
	if err != nil || rewritten == 0 {
		return next, err
	}
	_, err = tx.Commit(ctx, fsm.AuditRecord{})
	return next, err
}

func (s oldSpace) open(tx *store.Tx) (*store.View, error) {
	if s.root {
		return tx.System(), nil
	}
	return tx.Space(s.space, "", nil)
}

// dropOld removes the old keys of a space that was walked through, unless a rotation came since: then what the walk has
// sealed anew has a key that is old by now. A record that was written with one of them meanwhile would have been judged
// against the keyring or mount table that this changes, so there is none.
func (v *Vault) dropOld(ctx context.Context, s oldSpace) error {
	tx, err := v.Store.Begin()
	if err != nil {
		return err
	}
	defer tx.Close()
	if s.root {
		keyring := tx.Keyring().Clone()
		if keyring.Root.Active != s.term {
			return errRotatedAgain
		}
		if err := dropTerms(keyring.Root); err != nil {
			return err
		}
		if err := tx.PutKeyring(keyring); err != nil {
			return err
		}
	} else if err := changeSpaces(tx.System(), func(space conclave.Space) (conclave.Space, error) {
		if space.ID != s.space.ID {
			return space, nil
		}
		if !bytes.Equal(space.Keys, s.space.Keys) {
			return space, errRotatedAgain
		}
		return changeKeys(space, dropTerms)
	}); err != nil {
		return err
	}
	_, err = tx.Commit(ctx, fsm.AuditRecord{})
	return err
}

func dropTerms(keys *crypto.SpaceKeys) error {
	for term := range keys.Data {
		if term != keys.Active {
			if err := keys.Drop(term); err != nil {
				return err
			}
		}
	}
	return nil
}

// OldSpaces counts the spaces that still hold keys of an earlier term: work that the re-encryption has before it.
func (v *Vault) OldSpaces() (int, error) {
	old, err := v.oldSpaces()
	return len(old), err
}
