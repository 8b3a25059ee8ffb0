// Package disk is a node's data directory: who the node is, which cluster it belongs to, Raft's log with checksums, and
// how much room is left.
package disk

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Options say where a node's files are.
type Options struct {
	Dir    string
	NodeID string // default: chosen once
	// CertificateFile, KeyFile and CAFile are of an authority; empty: self-signed.
	CertificateFile, KeyFile, CAFile string
}

// Identity is who a node is: files of the data directory, made once.
//
//	lock          locked by the process that has the directory open
//	node-id       the name, if none is configured
//	raft/disk-id  random; a new one means that the log may have forgotten something
//	node.pem      self-signed certificate and private key, 0600
//	cluster.json  the cluster it belongs to; see Origin
type Identity struct {
	NodeID   string
	RaftDir  string // log and stable store
	Cert     tls.Certificate
	SPKI     [sha256.Size]byte // SHA-256 of the certificate's SubjectPublicKeyInfo
	Roots    *x509.CertPool    // nil unless certificates of an authority are used
	diskID   string
	lockFile *os.File
}

// ServerID is the Raft server id: it changes with the disk, so that a log which forgot can't vote under its old name.
func (id *Identity) ServerID() string { return id.NodeID + "-" + id.diskID }

// NodeOf is the node id in a server id.
func NodeOf(serverID string) string {
	if i := strings.LastIndexByte(serverID, '-'); i >= 0 {
		return serverID[:i]
	}
	return serverID
}

// Open locks the data directory and reads or makes the node's identity.
func Open(o *Options) (_ *Identity, err error) {
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	id := &Identity{NodeID: o.NodeID}
	if id.lockFile, err = lockDir(o.Dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			id.Close()
		}
	}()
	if id.NodeID == "" {
		if id.NodeID, err = keptID(filepath.Join(o.Dir, "node-id"), 8); err != nil {
			return nil, err
		}
	}
	id.RaftDir = filepath.Join(o.Dir, "raft")
	if err := os.MkdirAll(id.RaftDir, 0o700); err != nil {
		return nil, err
	}
	if id.diskID, err = keptID(id.diskFile(), 8); err != nil {
		return nil, err
	}
	if o.CertificateFile != "" {
		err = id.loadFiles(o)
	} else {
		err = id.loadOwn(filepath.Join(o.Dir, "node.pem"))
	}
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(id.Cert.Certificate[0])
	if err != nil {
		return nil, fmt.Errorf("parse node certificate: %w", err)
	}
	id.Cert.Leaf = leaf
	id.SPKI = sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	return id, nil
}

// Close unlocks the data directory.
func (id *Identity) Close() { id.lockFile.Close() }

func (id *Identity) diskFile() string { return filepath.Join(id.RaftDir, "disk-id") }

// RenameDisk chooses a new disk id.
func (id *Identity) RenameDisk() (err error) {
	if err := os.Remove(id.diskFile()); err != nil {
		return err
	}
	id.diskID, err = keptID(id.diskFile(), 8)
	return err
}

func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock of data directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("data directory %s is in use by another process: %w", dir, err)
	}
	return f, nil
}

// keptID reads a hexadecimal id of n bytes, or makes one.
func keptID(path string, n int) (string, error) {
	b, err := os.ReadFile(path)
	if err == nil {
		id := strings.TrimSpace(string(b))
		if raw, err := hex.DecodeString(id); err != nil || len(raw) != n {
			return "", fmt.Errorf("%s doesn't hold an id of %d bytes", path, n)
		}
		return id, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	raw := make([]byte, n)
	rand.Read(raw)
	id := hex.EncodeToString(raw)
	return id, WriteFile(path, []byte(id+"\n"))
}

// WriteFile replaces a file durably: it is there whole, or as it was.
func WriteFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new-") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// loadFiles uses certificates of an authority.
func (id *Identity) loadFiles(o *Options) (err error) {
	if id.Cert, err = tls.LoadX509KeyPair(o.CertificateFile, o.KeyFile); err != nil {
		return fmt.Errorf("load node certificate: %w", err)
	}
	ca, err := os.ReadFile(o.CAFile)
	if err != nil {
		return fmt.Errorf("load certificate authority: %w", err)
	}
	id.Roots = x509.NewCertPool()
	if !id.Roots.AppendCertsFromPEM(ca) {
		return fmt.Errorf("load certificate authority: no certificate in %s", o.CAFile)
	}
	return nil
}

// loadOwn reads the self-signed certificate, or makes it. Its names and dates mean nothing: peers compare its key.
func (id *Identity) loadOwn(path string) error {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if b, err = selfSign(id.NodeID); err == nil {
			err = WriteFile(path, b)
		}
	}
	if err != nil {
		return fmt.Errorf("node certificate: %w", err)
	}
	if id.Cert, err = tls.X509KeyPair(b, b); err != nil {
		return fmt.Errorf("node certificate %s: %w", path, err)
	}
	return nil
}

func selfSign(name string) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Unix(0, 0),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), // RFC 5280, 4.1.2.5: no well-defined end
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = errors.Join(pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.Encode(&out, &pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
	return out.Bytes(), err
}

// Origin says which cluster a node belongs to. Founding is set from before the node bootstraps until Raft has the
// configuration on disk: only then may a log without entries be bootstrapped again, under the same id.
type Origin struct {
	ClusterID string `json:"cluster_id"`
	Founding  bool   `json:"founding,omitempty"`
}

// LoadOrigin reads it; it is zero if the node has never seen a cluster.
func LoadOrigin(dir string) (Origin, error) {
	b, err := os.ReadFile(filepath.Join(dir, "cluster.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return Origin{}, nil
	}
	if err != nil {
		return Origin{}, err
	}
	var o Origin
	if err := json.Unmarshal(b, &o); err != nil || !ValidClusterID(o.ClusterID) {
		return Origin{}, fmt.Errorf("%s is damaged; remove this data directory and join again as a new node", filepath.Join(dir, "cluster.json"))
	}
	return o, nil
}

// Save writes it durably.
func (o Origin) Save(dir string) error {
	b, err := json.Marshal(o)
	if err != nil {
		return err
	}
	return WriteFile(filepath.Join(dir, "cluster.json"), append(b, '\n'))
}

// NewClusterID chooses one at random.
func NewClusterID() string {
	raw := make([]byte, 16)
	rand.Read(raw)
	return hex.EncodeToString(raw)
}

// ValidClusterID reports whether id has the form of one.
func ValidClusterID(id string) bool {
	raw, err := hex.DecodeString(id)
	return err == nil && len(raw) == 16
}
