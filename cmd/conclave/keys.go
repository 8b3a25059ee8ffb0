package main

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"conclave/crypto"
	"conclave/server/config"
)

// hpkeFile holds the private key, in hex, that other members seal shares to. It is made at the first start.
const hpkeFile = "hpke.key"

// hpkePair is a node's key pair for what others seal to it.
type hpkePair struct{ private, public []byte }

func loadHPKE(path string) (hpkePair, error) {
	encoded, err := os.ReadFile(path)
	switch {
	case err == nil:
		private, err := hex.DecodeString(strings.TrimSpace(string(encoded)))
		if err != nil {
			return hpkePair{}, fmt.Errorf("read %s: not hex", path)
		}
		public, err := crypto.PublicHPKE(private)
		if err != nil {
			return hpkePair{}, fmt.Errorf("read %s: %w", path, err)
		}
		return hpkePair{private, public}, nil
	case !errors.Is(err, fs.ErrNotExist):
		return hpkePair{}, err
	}
	private, public, err := crypto.GenerateHPKE()
	if err != nil {
		return hpkePair{}, err
	}
	return hpkePair{private, public}, writeNew(path, []byte(hex.EncodeToString(private)+"\n"))
}

// writeNew writes a small secret file so that it is there whole or not at all.
func writeNew(path string, content []byte) error {
	file, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	err = errors.Join(err, file.Sync(), file.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// ownSecretFile is the cluster secret of a node that was given none, in its data directory.
const ownSecretFile = "cluster.secret"

// clusterSecret reads the file that lets nodes find each other. A node that is told of no others, and of no file, makes
// one in its data directory: with a copy of it others can ask to join later.
func clusterSecret(path, dataDir string) ([]byte, error) {
	if path == "" {
		path = filepath.Join(dataDir, ownSecretFile)
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
			secret := make([]byte, 32)
			_, _ = rand.Read(secret) // never fails
			if err := writeNew(path, []byte(hex.EncodeToString(secret)+"\n")); err != nil {
				return nil, fmt.Errorf("make the cluster secret: %w", err)
			}
		}
	}
	secret, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the cluster secret: %w", err)
	}
	return bytes.TrimSpace(secret), nil
}

// staticSealKey reads the 32-byte key of the static seal from where the configuration says; nil without such a seal.
func staticSealKey(settings config.Seal) ([]byte, error) {
	if settings.Type != "static" {
		return nil, nil
	}
	var encoded string
	if settings.Key.File != "" {
		content, err := os.ReadFile(settings.Key.File)
		if err != nil {
			return nil, fmt.Errorf("read the static seal's key: %w", err)
		}
		if len(content) == crypto.KeySize {
			return content, nil
		}
		encoded = string(content)
	} else {
		encoded = os.Getenv(settings.Key.Env)
	}
	encoded = strings.TrimSpace(encoded)
	for _, decode := range []func(string) ([]byte, error){hex.DecodeString, base64.StdEncoding.DecodeString, base64.RawURLEncoding.DecodeString} {
		if key, err := decode(encoded); err == nil && len(key) == crypto.KeySize {
			return key, nil
		}
	}
	return nil, fmt.Errorf("the static seal's key must be %d bytes: raw in a file, or in hex or base64", crypto.KeySize)
}
