package keys

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"strconv"
	"time"

	"conclave"
)

// maxBackup bounds a backup that is read, in bytes of base64.
const maxBackup = 8 << 20

// A backup is base64 of JSON, in the members and with the values that Vault's transit engine writes and reads:
//
//	{"policy": {…, "keys": {"2": {…}}}, "archived_keys": {"keys": [{}, {…}, {…}]}}
//
// policy.keys has the versions that still decrypt; archived_keys has all, by number, counted from min_available_version.
type backup struct {
	Policy   *backupKey      `json:"policy"`
	Archived *backupVersions `json:"archived_keys"`
}

type backupKey struct {
	Name              string                    `json:"name"`
	Size              int                       `json:"key_size,omitempty"`
	Keys              map[string]*backupVersion `json:"keys"` // number → version
	Derived           bool                      `json:"derived"`
	KDF               int                       `json:"kdf"`
	Convergent        bool                      `json:"convergent_encryption"`
	Exportable        bool                      `json:"exportable"`
	MinDecryption     int                       `json:"min_decryption_version"`
	MinEncryption     int                       `json:"min_encryption_version"`
	Latest            int                       `json:"latest_version"`
	Archive           int                       `json:"archive_version"`
	ArchiveMin        int                       `json:"archive_min_version"`
	MinAvailable      int                       `json:"min_available_version"`
	DeletionAllowed   bool                      `json:"deletion_allowed"`
	ConvergentVersion int                       `json:"convergent_version"`
	Type              int                       `json:"type"`
	Backup            *Moment                   `json:"backup_info"`
	Restore           *Moment                   `json:"restore_info"`
	PlaintextBackup   bool                      `json:"allow_plaintext_backup"`
	Template          string                    `json:"version_template"`
	StoragePrefix     string                    `json:"storage_prefix"`
	AutoRotate        time.Duration             `json:"auto_rotate_period"`
	Imported          bool
	RotatesImported   bool `json:"AllowImportedKeyRotation"`
	SoftDeleted       bool `json:"soft_deleted"`
}

type backupVersions struct {
	Keys []*backupVersion `json:"keys"`
}

type backupVersion struct {
	Key        []byte     `json:"key"`
	HMAC       []byte     `json:"hmac_key"`
	Created    time.Time  `json:"time"`
	ECX        *big.Int   `json:"ec_x"`
	ECY        *big.Int   `json:"ec_y"`
	ECD        *big.Int   `json:"ec_d"`
	RSA        *backupRSA `json:"rsa_key"`
	RSAPublic  *backupRSA `json:"rsa_public_key"`
	Public     string     `json:"public_key"`
	Convergent int        `json:"convergent_version"`
	Unix       int64      `json:"creation_time"`
	Chain      [][]byte   `json:"certificate_chain"`
}

type backupRSA struct {
	N      *big.Int
	E      int
	D      *big.Int   `json:",omitempty"`
	Primes []*big.Int `json:",omitempty"`
}

// The numbers of Vault's backups.
const (
	kdfHKDF        = 1
	eachVersion    = -1 // convergent_version of keys whose versions say by themselves how nonces are derived
	maxRSAExponent = 1<<31 - 1
)

// EncodeBackup makes a backup of all versions.
func (k *Key) EncodeBackup() (string, error) {
	b := &backup{&backupKey{Name: k.Name, Size: k.Size, Keys: map[string]*backupVersion{}, Derived: k.Derived, Convergent: k.Convergent,
		Exportable: k.Exportable, MinDecryption: k.MinDecryption, MinEncryption: k.MinEncryption, Latest: k.Latest(), Archive: k.Latest(),
		ArchiveMin: k.MinAvailable, MinAvailable: k.MinAvailable, DeletionAllowed: k.DeletionAllowed, Type: table[k.Type].number,
		Backup: k.Backup, Restore: k.Restore, PlaintextBackup: k.PlaintextBackup, AutoRotate: k.AutoRotate.Duration(),
		Imported: k.Imported, RotatesImported: k.RotatesImported, SoftDeleted: k.SoftDeleted}, &backupVersions{}}
	if k.Derived {
		b.Policy.KDF = kdfHKDF
	}
	if k.Convergent {
		b.Policy.ConvergentVersion = eachVersion
	}
	for n := k.MinAvailable; n <= k.Latest(); n++ {
		out := &backupVersion{}
		if v := k.Version(n); v != nil { // version 0 is only there so that the list can be counted
			var err error
			if out, err = k.backupVersion(v); err != nil {
				return "", err
			}
		}
		b.Archived.Keys = append(b.Archived.Keys, out)
		if n >= k.MinDecryption {
			b.Policy.Keys[strconv.Itoa(n)] = out
		}
	}
	encoded, err := json.Marshal(b)
	if err != nil {
		return "", conclave.Errorf(conclave.Internal, "encode a backup: %w", err)
	}
	return base64.StdEncoding.EncodeToString(encoded), nil
}

func (k *Key) backupVersion(v *Version) (*backupVersion, error) {
	m, err := v.parsed()
	if err != nil {
		return nil, err
	}
	out := &backupVersion{HMAC: v.HMACKey(k), Created: v.Created, Unix: v.Created.Unix(), Convergent: v.Convergent, Chain: v.Chain}
	switch public := m.public.(type) {
	case ed25519.PublicKey:
		out.Key, out.Public = v.Secret, base64.StdEncoding.EncodeToString(public)
	case *ecdsa.PublicKey:
		point, err := public.Bytes() // 0x04 ‖ x ‖ y
		if err != nil {
			return nil, errDamaged
		}
		half := len(point) / 2
		out.ECX, out.ECY = new(big.Int).SetBytes(point[1:1+half]), new(big.Int).SetBytes(point[1+half:])
		if m.ecdsa != nil {
			scalar, err := m.ecdsa.Bytes()
			if err != nil {
				return nil, errDamaged
			}
			out.ECD = new(big.Int).SetBytes(scalar)
		}
		if out.Public, err = k.ExportPublic(v, FormPlain); err != nil {
			return nil, err
		}
	case *rsa.PublicKey:
		out.RSAPublic = &backupRSA{N: public.N, E: public.E}
		if m.rsa != nil {
			out.RSA = &backupRSA{public.N, public.E, m.rsa.D, m.rsa.Primes}
		}
	default:
		out.Key = v.Secret
	}
	return out, nil
}

// DecodeBackup is the reverse of EncodeBackup. The caller checks the name.
func DecodeBackup(text string) (*Key, error) {
	if len(text) > maxBackup {
		return nil, conclave.Errorf(conclave.TooLarge, "a backup has at most %d bytes", maxBackup)
	}
	encoded, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, conclave.Errorf(conclave.Invalid, "the backup isn't base64")
	}
	b := &backup{}
	if json.Unmarshal(encoded, b) != nil || b.Policy == nil {
		return nil, errBackup
	}
	p := b.Policy
	kind, known := typeByNumber(p.Type, p.Size)
	switch {
	case !known:
		return nil, conclave.Errorf(conclave.Invalid, "the backup is of a type of key that there is none of here")
	case p.Derived && p.KDF != kdfHKDF:
		return nil, conclave.Errorf(conclave.Invalid, "the backup is of a key that derives others in a way that is no longer in use")
	case p.Template != "" && p.Template != "vault:v{{version}}:":
		return nil, conclave.Errorf(conclave.Invalid, "the backup is of a key that marks its versions in another way")
	case p.MinAvailable < 0 || p.Latest < 1 || p.Latest < p.MinAvailable || p.Latest-p.MinAvailable > MaxVersions || p.AutoRotate < 0:
		return nil, errBackup
	}
	k := &Key{Name: p.Name, Type: kind, Derived: p.Derived, Convergent: p.Convergent, Size: p.Size, Exportable: p.Exportable,
		PlaintextBackup: p.PlaintextBackup, DeletionAllowed: p.DeletionAllowed, SoftDeleted: p.SoftDeleted, Imported: p.Imported,
		RotatesImported: p.RotatesImported, MinDecryption: max(p.MinDecryption, 1), MinEncryption: p.MinEncryption, MinAvailable: p.MinAvailable,
		AutoRotate: conclave.InSeconds(p.AutoRotate), Backup: p.Backup, Restore: p.Restore, First: max(p.MinAvailable, 1)}
	for n := k.First; n <= p.Latest; n++ {
		in := p.Keys[strconv.Itoa(n)]
		if at := n - p.MinAvailable; in == nil && b.Archived != nil && at < len(b.Archived.Keys) {
			in = b.Archived.Keys[at]
		}
		v, err := k.restoreVersion(in, p.ConvergentVersion)
		if err != nil {
			return nil, err
		}
		v.prepare(k)
		k.Versions = append(k.Versions, v)
	}
	if !k.isSound() {
		return nil, errBackup
	}
	return k, nil
}

var errBackup = conclave.Errorf(conclave.Invalid, "the backup can't be read")

// restoreVersion reads and checks a version: what is stored was parsed once.
func (k *Key) restoreVersion(in *backupVersion, convergent int) (*Version, error) {
	if in == nil {
		return nil, errBackup
	}
	v := &Version{Created: in.Created, Secret: in.Key, HMAC: in.HMAC, Chain: in.Chain, Convergent: in.Convergent}
	if in.Created.IsZero() {
		v.Created = time.Unix(in.Unix, 0).UTC()
	}
	if k.Convergent && v.Convergent == 0 {
		v.Convergent = max(convergent, 1)
	}
	var err error
	switch {
	case k.Type == HMACOnly:
		v.HMAC = nil
	case k.Type == Ed25519 && len(in.Key) == 0:
		var public []byte
		if public, err = base64.StdEncoding.DecodeString(in.Public); err == nil && len(public) == ed25519.PublicKeySize {
			v.Public, err = x509.MarshalPKIXPublicKey(ed25519.PublicKey(public))
		}
	case k.Type.isECDSA():
		v.Secret, v.Public, err = k.restoreECDSA(in)
	case k.Type.isRSA() && in.RSA != nil:
		v.Secret, err = restoreRSA(in.RSA)
	case k.Type.isRSA() && in.RSAPublic != nil && in.RSAPublic.N != nil:
		v.Public, err = x509.MarshalPKIXPublicKey(&rsa.PublicKey{N: in.RSAPublic.N, E: in.RSAPublic.E})
	}
	if err != nil {
		return nil, errBackup
	}
	if _, err := v.parse(k.Type, k.Derived); err != nil {
		return nil, errBackup
	}
	if k.Type == Ed25519 && len(v.Secret) > 0 && !bytes.Equal(v.Secret, ed25519.NewKeyFromSeed(v.Secret[:ed25519.SeedSize])) {
		return nil, errBackup
	}
	return v, nil
}

func (k *Key) restoreECDSA(in *backupVersion) (secret, public []byte, err error) {
	curve := table[k.Type].curve
	size := (curve.Params().BitSize + 7) / 8
	if in.ECD != nil {
		if in.ECD.Sign() <= 0 || in.ECD.BitLen() > 8*size {
			return nil, nil, errBackup
		}
		key, err := ecdsa.ParseRawPrivateKey(curve, in.ECD.FillBytes(make([]byte, size)))
		if err != nil {
			return nil, nil, err
		}
		secret, err = x509.MarshalPKCS8PrivateKey(key)
		return secret, nil, err
	}
	if in.ECX == nil || in.ECY == nil || in.ECX.Sign() < 0 || in.ECY.Sign() < 0 || in.ECX.BitLen() > 8*size || in.ECY.BitLen() > 8*size {
		return nil, nil, errBackup
	}
	point := append([]byte{4}, in.ECX.FillBytes(make([]byte, size))...)
	key, err := ecdsa.ParseUncompressedPublicKey(curve, append(point, in.ECY.FillBytes(make([]byte, size))...))
	if err != nil {
		return nil, nil, err
	}
	public, err = x509.MarshalPKIXPublicKey(key)
	return nil, public, err
}

// restoreRSA makes a key of its numbers, which it doesn't trust.
func restoreRSA(in *backupRSA) ([]byte, error) {
	const longest = 4096
	if in.N == nil || in.D == nil || len(in.Primes) != 2 || in.N.BitLen() > longest || in.D.BitLen() > longest || in.E < 3 || in.E > maxRSAExponent || in.D.Sign() <= 0 {
		return nil, errBackup
	}
	for _, prime := range in.Primes {
		if prime == nil || prime.Sign() <= 0 || prime.BitLen() > longest/2+1 {
			return nil, errBackup
		}
	}
	key := &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: in.N, E: in.E}, D: in.D, Primes: in.Primes}
	if err := key.Validate(); err != nil {
		return nil, err
	}
	key.Precompute()
	return x509.MarshalPKCS8PrivateKey(key)
}

// Agree is the secret that a version's private ECDSA key and somebody's public one agree on (ECDH, SP 800-56A).
func (v *Version) Agree(with any) ([]byte, error) {
	m, err := v.parsed()
	if err != nil {
		return nil, err
	}
	peer, ok := with.(*ecdsa.PublicKey)
	if !ok || m.ecdsa == nil || peer.Curve != m.ecdsa.Curve {
		return nil, conclave.Errorf(conclave.Invalid, "the two keys aren't on one curve")
	}
	var private *ecdh.PrivateKey
	if private, err = m.ecdsa.ECDH(); err == nil {
		var public *ecdh.PublicKey
		if public, err = peer.ECDH(); err == nil {
			return private.ECDH(public)
		}
	}
	return nil, conclave.Errorf(conclave.Invalid, "the two keys don't agree on a secret")
}
