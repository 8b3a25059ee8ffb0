package client

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// maxToken bounds what is read from a token file, in bytes.
const maxToken = 16 << 10

// TokenFiles are where the token of this user is kept. Own is written, mode 0600; Foreign is Vault's, read only when
// Own isn't there.
type TokenFiles struct{ Own, Foreign string }

func (s *Session) tokenFiles() TokenFiles {
	if own := s.Getenv("CONCLAVE_TOKEN_FILE"); own != "" {
		return TokenFiles{Own: own}
	}
	home := s.Getenv("HOME")
	if home == "" {
		return TokenFiles{}
	}
	return TokenFiles{Own: filepath.Join(home, ".conclave-token"), Foreign: filepath.Join(home, ".vault-token")}
}

// StoreToken keeps token for the commands that follow.
func (s *Session) StoreToken(token string) (path string, err error) {
	files := s.tokenFiles()
	return files.Own, files.Write(token)
}

// EraseToken forgets the stored token if it is the one given.
func (s *Session) EraseToken(token string) error {
	files := s.tokenFiles()
	stored, err := read(files.Own)
	if err != nil || stored != token || stored == "" {
		return err
	}
	return os.Remove(files.Own)
}

// Read returns the stored token, empty if there is none.
func (t TokenFiles) Read() (string, error) {
	for _, path := range []string{t.Own, t.Foreign} {
		token, err := read(path)
		if token != "" || err != nil {
			return token, err
		}
	}
	return "", nil
}

func read(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", localf("read the token file: %w", err)
	}
	if info.Size() > maxToken || !info.Mode().IsRegular() {
		return "", localf("the token file %s is not a file of at most %d bytes", path, maxToken)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", localf("read the token file: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// Write stores token in the own file, for its owner alone, in one step.
func (t TokenFiles) Write(token string) error {
	if t.Own == "" {
		return localf("there is no home directory to store the token in: set CONCLAVE_TOKEN_FILE, or use -no-store")
	}
	f, err := os.CreateTemp(filepath.Dir(t.Own), ".conclave-token-*") // made with mode 0600
	if err != nil {
		return localf("store the token: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(token)
	if err := errors.Join(err, f.Close()); err != nil {
		return localf("store the token: %w", err)
	}
	if err := os.Rename(f.Name(), t.Own); err != nil {
		return localf("store the token: %w", err)
	}
	return nil
}
