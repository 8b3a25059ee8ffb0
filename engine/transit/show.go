package transit

import (
	"encoding/base64"
	"encoding/pem"
	"strconv"
	"strings"
	"time"

	"conclave"
	"conclave/engine/transit/keys"
)

// keyOut is what clients are shown of a key.
type keyOut struct {
	Name            string         `json:"name"`
	Type            keys.Type      `json:"type"`
	Derived         bool           `json:"derived"`
	DeletionAllowed bool           `json:"deletion_allowed"`
	MinAvailable    int            `json:"min_available_version"`
	MinDecryption   int            `json:"min_decryption_version"`
	MinEncryption   int            `json:"min_encryption_version"`
	Latest          int            `json:"latest_version"`
	Exportable      bool           `json:"exportable"`
	PlaintextBackup bool           `json:"allow_plaintext_backup"`
	Encrypts        bool           `json:"supports_encryption"`
	Decrypts        bool           `json:"supports_decryption"`
	Signs           bool           `json:"supports_signing"`
	Derives         bool           `json:"supports_derivation"`
	AutoRotate      int64          `json:"auto_rotate_period"`
	Imported        bool           `json:"imported_key"`
	RotatesImported *bool          `json:"imported_key_allow_rotation,omitempty"`
	SoftDeleted     bool           `json:"soft_deleted"`
	Size            int            `json:"key_size,omitempty"`
	Backup          *keys.Moment   `json:"backup_info,omitempty"`
	Restore         *keys.Moment   `json:"restore_info,omitempty"`
	KDF             string         `json:"kdf,omitempty"`
	Convergent      *bool          `json:"convergent_encryption,omitempty"`
	ConvergentKind  *int           `json:"convergent_encryption_version,omitempty"`
	Keys            map[string]any `json:"keys,omitempty"` // number → time of creation, or *versionOut
}

// versionOut is what is shown of a version that has a public half.
type versionOut struct {
	Name             string    `json:"name"`
	PublicKey        string    `json:"public_key"`
	CertificateChain string    `json:"certificate_chain"`
	Created          time.Time `json:"creation_time"`
}

// perVersion is the convergent_encryption_version of keys whose versions each say how nonces are derived, in Vault's words.
const perVersion = -1

// show answers with a key. context chooses the public half of a derived key.
func show(key *keys.Key, context []byte) (*conclave.Response, error) {
	out := &keyOut{Name: key.Name, Type: key.Type, Derived: key.Derived, DeletionAllowed: key.DeletionAllowed,
		MinAvailable: key.MinAvailable, MinDecryption: key.MinDecryption, MinEncryption: key.MinEncryption, Latest: key.Latest(),
		Exportable: key.Exportable, PlaintextBackup: key.PlaintextBackup,
		Encrypts: key.Type.Encrypts(), Decrypts: key.Type.Encrypts(), Signs: key.Type.Signs(), Derives: key.Type.Derives(),
		AutoRotate: int64(key.AutoRotate), Imported: key.Imported, SoftDeleted: key.SoftDeleted, Size: key.Size, Backup: key.Backup, Restore: key.Restore}
	if key.Imported {
		out.RotatesImported = &key.RotatesImported
	}
	if key.Derived {
		out.KDF, out.Convergent = "hkdf_sha256", &key.Convergent
		if key.Convergent {
			out.ConvergentKind = new(int)
			*out.ConvergentKind = perVersion
		}
	}
	if key.Type == keys.HMACOnly {
		return &conclave.Response{Data: out}, nil
	}
	out.Keys = make(map[string]any)
	first, last := key.Shown()
	for n := first; n <= last; n++ {
		shown, err := showVersion(key, key.Version(n), context)
		if err != nil {
			return nil, err
		}
		out.Keys[strconv.Itoa(n)] = shown
	}
	return &conclave.Response{Data: out}, nil
}

func showVersion(key *keys.Key, v *keys.Version, context []byte) (any, error) {
	if !key.Type.IsAsymmetric() {
		return v.Created.Unix(), nil
	}
	out := &versionOut{Name: key.Type.PublicName(), Created: v.Created, CertificateChain: chainText(v.Chain)}
	var err error
	switch {
	case key.Derived && len(context) == 0: // the key itself is no key pair that anything is signed with
	case key.Derived:
		public, err := v.DerivedPublic(context)
		if err != nil {
			return nil, err
		}
		out.PublicKey = base64.StdEncoding.EncodeToString(public)
	default:
		out.PublicKey, err = key.ExportPublic(v, "")
	}
	return out, err
}

// chainText is a chain of certificates in PEM.
func chainText(chain [][]byte) string {
	var text strings.Builder
	for _, der := range chain {
		text.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	return strings.TrimSpace(text.String())
}
