package seal

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"

	"github.com/ProtonMail/go-crypto/openpgp"

	"conclave"
	"conclave/audit"
	"conclave/cluster"
	"conclave/crypto"
	"conclave/fsm"
	"conclave/store"
	"conclave/token"
)

// InitRequest asks for a new vault.
type InitRequest struct {
	Shares, Threshold int
	PGPKeys           []string // one a share, base64 of the binary form; empty: shares are answered in clear
	RootTokenPGPKey   string
	// RootToken is the first token's value; empty: one is made. Only the development server sets it.
	RootToken conclave.Secret
}

// InitResult is all that is ever shown of the shares and the first root token.
type InitResult struct {
	Keys       []string // hex; with PGP, hex of the message
	KeysBase64 []string
	RootToken  string
	// Fingerprints are those of the PGP keys, in the order of the shares.
	Fingerprints []string
	// Members are the nodes that shares will be sent to: the list doesn't grow before the vault is open.
	Members []cluster.Member
}

// Init makes the vault: keys, shares, first root token. Until the vault has been opened once it may be repeated, and
// what an earlier one gave out is then void.
func (v *Vault) Init(ctx context.Context, req InitRequest) (*InitResult, error) {
	pgp, err := v.checkInit(&req)
	if err != nil {
		return nil, err
	}
	var rootPGP []*openpgp.Entity
	if req.RootTokenPGPKey != "" {
		if rootPGP, err = parsePGP([]string{req.RootTokenPGPKey}); err != nil {
			return nil, err
		}
	}
	root, unsealKey := make([]byte, crypto.KeySize), make([]byte, crypto.KeySize)
	defer crypto.Wipe(root)
	defer crypto.Wipe(unsealKey)
	_, _ = rand.Read(root)
	_, _ = rand.Read(unsealKey)
	shares, err := splitKey(unsealKey, req.Shares, req.Threshold)
	if err != nil {
		return nil, err
	}
	keyring, err := crypto.NewKeyring(rand.Reader, v.Node.Now().Unix())
	if err != nil {
		return nil, err
	}
	b, err := v.newBlob(req, root, unsealKey, shares, keyring)
	if err != nil {
		return nil, err
	}
	first, err := v.found(ctx, b, root, keyring, req.RootToken)
	if err != nil {
		return nil, err
	}
	result, err := present(shares, first, pgp, rootPGP)
	if err != nil {
		return nil, err
	}
	result.Members = v.Node.Members()
	return result, nil
}

// checkInit refuses what can't become a vault, and vaults that are one.
func (v *Vault) checkInit(req *InitRequest) ([]*openpgp.Entity, error) {
	switch {
	case req.Shares < 1 || req.Shares > MaxShares:
		return nil, conclave.Errorf(conclave.Invalid, "invalid seal configuration: secret_shares must be between 1 and %d", MaxShares)
	case req.Threshold < 1 || req.Threshold > req.Shares:
		return nil, conclave.Errorf(conclave.Invalid, "invalid seal configuration: secret_threshold must be between 1 and secret_shares")
	case req.Threshold == 1 && req.Shares > 1:
		return nil, conclave.Errorf(conclave.Invalid, "invalid seal configuration: secret_threshold must be greater than one for multiple shares")
	case len(req.PGPKeys) > 0 && len(req.PGPKeys) != req.Shares:
		return nil, conclave.Errorf(conclave.Invalid, "incorrect number of pgp_keys: one is needed for each of the %d shares", req.Shares)
	}
	voters := 0
	for _, m := range v.Node.Members() {
		if m.Voter {
			voters++
		}
	}
	if voters < v.MinVoters {
		return nil, conclave.Errorf(conclave.Unavailable, "only %d of %d expected nodes have joined: start the others first", voters, v.MinVoters)
	}
	opened, err := v.plain(openedItem)
	if err != nil {
		return nil, err
	}
	if len(opened) > 0 {
		return nil, conclave.Errorf(conclave.Invalid, "Vault is already initialized")
	}
	return parsePGP(req.PGPKeys)
}

// splitKey is Shamir's sharing; a single share is the key itself, as Vault has it.
func splitKey(key []byte, shares, threshold int) ([][]byte, error) {
	if shares == 1 {
		return [][]byte{append([]byte(nil), key...)}, nil
	}
	return crypto.Split(key, shares, threshold, rand.Reader)
}

func combineKey(shares [][]byte) ([]byte, error) {
	if len(shares) == 1 {
		return append([]byte(nil), shares[0]...), nil
	}
	return crypto.Combine(shares)
}

func (v *Vault) newBlob(req InitRequest, root, unsealKey []byte, shares [][]byte, keyring *crypto.Keyring) (*blob, error) {
	id := v.ClusterID()
	b := &blob{Format: blobFormat, Cluster: id[:], Kind: kindShamir, Shares: req.Shares, Threshold: req.Threshold,
		Salt: make([]byte, 32), Created: v.Node.Now().Unix()}
	_, _ = rand.Read(b.Salt)
	for _, share := range shares {
		b.Hashes = append(b.Hashes, crypto.HashShare([32]byte(b.Salt), share))
	}
	var err error
	if b.Shamir, err = crypto.WrapRootKey(unsealKey, root, b.aad(kindShamir)); err != nil {
		return nil, err
	}
	if v.StaticKey != nil {
		b.Kind = kindStatic
		if b.Static, err = crypto.WrapRootKey(v.StaticKey, root, b.aad(kindStatic)); err != nil {
			return nil, err
		}
	}
	if b.Audit, err = crypto.PublicHPKE(keyring.AuditPrivate); err != nil {
		return nil, err
	}
	signer, ok := keyring.ClusterPrivate.Public().(ed25519.PublicKey)
	if !ok {
		return nil, errors.New("the keyring has no cluster key")
	}
	b.Signer = signer
	return b, nil
}

// found writes the vault in one transaction and returns the first root token.
func (v *Vault) found(ctx context.Context, b *blob, root []byte, keyring *crypto.Keyring, given conclave.Secret) (conclave.Secret, error) {
	held := v.arena.Hold(append([]byte(nil), root...))
	defer held.Wipe()
	none := conclave.Secret{}
	tx, err := v.Store.Initialize(rootKey{held}, b.cluster(), keyring)
	if err != nil {
		return none, err
	}
	defer tx.Close()
	if opened, err := tx.Plain(openedItem); err != nil || opened != nil {
		return none, conclave.Errorf(conclave.Invalid, "Vault is already initialized")
	}
	encoded, err := b.encode()
	if err != nil {
		return none, err
	}
	if err := tx.PutBound(blobItem, encoded); err != nil {
		return none, err
	}
	system := tx.System()
	if err := v.Found(system); err != nil {
		return none, err
	}
	first, err := token.Mint(rand.Reader)
	if err != nil {
		return none, err
	}
	if !given.Empty() {
		first.Secret = given
	}
	if _, err := token.CreateRoot(system, first); err != nil {
		return none, err
	}
	record, err := v.foundingRecord(ctx, b, keyring)
	if err != nil {
		return none, err
	}
	if _, err = tx.Commit(ctx, record); err != nil {
		if _, conflict := errors.AsType[*store.ErrConflict](err); conflict {
			err = conclave.Errorf(conclave.Unavailable, "another initialisation came first: look at `conclave status`, then repeat this one if need be")
		}
		return none, err
	}
	return first.Secret, nil
}

func (v *Vault) foundingRecord(ctx context.Context, b *blob, keyring *crypto.Keyring) (fsm.AuditRecord, error) {
	sealer, err := audit.NewSealer(b.cluster(), keyring.AuditActive, keyring.AuditData[keyring.AuditActive])
	if err != nil {
		return fsm.AuditRecord{}, err
	}
	entry := &audit.Entry{Time: v.Node.Now(), RequestID: conclave.RequestID(ctx), Attempt: 1, Node: v.Node.Self().NodeID,
		Operation: conclave.Update, Path: "sys/init"}
	digest, box, err := sealer.Seal(audit.Encode(nil, entry, audit.NewHasher(keyring.AuditHMAC)))
	return fsm.AuditRecord{Digest: digest, Box: box}, err
}

// present puts shares and token into the form that clients expect.
func present(shares [][]byte, first conclave.Secret, pgp, rootPGP []*openpgp.Entity) (*InitResult, error) {
	result := &InitResult{RootToken: first.Reveal()}
	for i, share := range shares {
		raw := share
		if len(pgp) > 0 {
			message, err := encryptText(pgp[i], hex.EncodeToString(share))
			if err != nil {
				return nil, err
			}
			if raw, err = base64.StdEncoding.DecodeString(message); err != nil {
				return nil, err
			}
			result.Fingerprints = append(result.Fingerprints, fingerprint(pgp[i]))
		}
		result.Keys = append(result.Keys, hex.EncodeToString(raw))
		result.KeysBase64 = append(result.KeysBase64, base64.StdEncoding.EncodeToString(raw))
		crypto.Wipe(share)
	}
	if len(rootPGP) > 0 {
		message, err := encryptText(rootPGP[0], first.Reveal())
		if err != nil {
			return nil, err
		}
		result.RootToken = message
	}
	return result, nil
}

// DecodeShare reads a share as clients send it: hex, or base64.
func DecodeShare(key conclave.Secret) ([]byte, error) {
	text := key.Reveal()
	if share, err := hex.DecodeString(text); err == nil && len(share) > 0 {
		return share, nil
	}
	if share, err := base64.StdEncoding.DecodeString(text); err == nil && len(share) > 0 {
		return share, nil
	}
	return nil, conclave.Errorf(conclave.Invalid, "'key' must be a valid hex or base64 string")
}
