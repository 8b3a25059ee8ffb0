// Package dbserver starts real database servers on loopback, for tests and measurements: PostgreSQL, MariaDB and Redis,
// as the system has them installed. Each has a directory of its own, which goes with it, and ends with its Close.
//
// They are made to be thrown away: nothing is synced to disk. It is for nothing that anybody wants to keep.
package dbserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// Limits of starting a server.
const (
	startTime = 60 * time.Second
	pollEvery = 20 * time.Millisecond
	attempts  = 5 // a port that is free now may not be a moment later
)

// ErrMissing says that a server isn't installed. Its text names the package.
type ErrMissing struct{ Server, Package string }

func (e *ErrMissing) Error() string {
	return fmt.Sprintf("%s is not installed (Debian: apt-get install %s): there is no real database to work with", e.Server, e.Package)
}

// Server is a server that runs.
type Server struct {
	Address   string // host and port
	Encrypted string // host and port for TLS, where those are others
	User      string // who may do everything
	Password  string
	CA        string // PEM: who has signed the server's certificate
	Dir       string // with ca.pem, cert.pem and key.pem, which are good for a client too

	command *exec.Cmd
	ended   chan struct{}
	log     bytes.Buffer // complete when ended is closed
	asUser  *syscall.Credential
	launch  func() *exec.Cmd
	probe   func(context.Context) error
}

// Port is the port of the address.
func (s *Server) Port() int {
	_, text, _ := net.SplitHostPort(s.Address)
	port, _ := strconv.Atoi(text)
	return port
}

// Close ends the server at once and removes its directory.
func (s *Server) Close() {
	s.Stop()
	_ = os.RemoveAll(s.Dir)
}

// Stop ends the server at once; Start starts it again with what it had.
func (s *Server) Stop() {
	if s.command == nil {
		return
	}
	_ = syscall.Kill(-s.command.Process.Pid, syscall.SIGKILL) // with its children
	<-s.ended
	s.command = nil
}

// Pause has the server answer nobody until Resume, as a hanging machine does.
func (s *Server) Pause() { _ = syscall.Kill(-s.command.Process.Pid, syscall.SIGSTOP) }

// Resume lets the server go on.
func (s *Server) Resume() { _ = syscall.Kill(-s.command.Process.Pid, syscall.SIGCONT) }

// Start starts the server that was stopped, and waits until it answers.
func (s *Server) Start() error {
	ctx, cancel := context.WithTimeout(context.Background(), startTime)
	defer cancel()
	s.command = s.launch()
	s.log.Reset()
	s.command.Stdout, s.command.Stderr = &s.log, &s.log
	s.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: s.asUser}
	if err := s.command.Start(); err != nil {
		s.command = nil
		return err
	}
	command, ended := s.command, make(chan struct{})
	s.ended = ended
	go func() { // ends with the process, which Stop waits for
		_ = command.Wait()
		close(ended)
	}()
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for {
		if err := s.probe(ctx); err == nil {
			return nil
		}
		select {
		case <-s.ended:
			s.command = nil
			return fmt.Errorf("the server ended: %s", s.log.Bytes())
		case <-ctx.Done():
			s.Stop()
			return fmt.Errorf("the server doesn't answer: %s", s.log.Bytes())
		case <-ticker.C:
		}
	}
}

// newServer makes the directory of a server, which belongs to whom it runs as.
func newServer(name, runAs string) (*Server, error) {
	dir, err := os.MkdirTemp("", "conclave-"+name+"-")
	if err != nil {
		return nil, err
	}
	s := &Server{Dir: dir, Password: "root-secret"}
	if os.Geteuid() == 0 && runAs != "" {
		s.asUser, err = credential(runAs, "nobody")
	}
	if err == nil {
		err = s.makeCertificates()
	}
	if err == nil {
		err = s.own()
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// own gives the directory and what is in it to whom the server runs as.
func (s *Server) own() error {
	if s.asUser == nil {
		return nil
	}
	return filepath.WalkDir(s.Dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chown(path, int(s.asUser.Uid), int(s.asUser.Gid))
	})
}

func credential(names ...string) (*syscall.Credential, error) {
	for _, name := range names {
		if u, err := user.Lookup(name); err == nil {
			uid, _ := strconv.Atoi(u.Uid)
			gid, _ := strconv.Atoi(u.Gid)
			return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
		}
	}
	return nil, fmt.Errorf("there is none of the users %v to run the server as", names)
}

// prepare runs a command that makes what the server needs.
func (s *Server) prepare(path string, args ...string) error {
	command := exec.Command(path, args...)
	command.Dir, command.SysProcAttr = s.Dir, &syscall.SysProcAttr{Credential: s.asUser}
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", filepath.Base(path), err, out)
	}
	return nil
}

// begin starts a server for the first time, on ports that are free.
func (s *Server) begin() (*Server, error) {
	var err error
	for range attempts {
		if s.Address, err = freeAddress(); err != nil {
			break
		}
		if err = s.Start(); err == nil {
			return s, nil
		}
	}
	s.Close()
	return nil, err
}

func (s *Server) write(name, text string) (string, error) {
	path := filepath.Join(s.Dir, name)
	return path, os.WriteFile(path, []byte(text), 0o600)
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// find finds a program by its name, or by patterns of paths, of which the last match is the newest.
func find(name string, patterns ...string) (string, bool) {
	for _, pattern := range patterns {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			return slices.Max(found), true
		}
	}
	path, err := exec.LookPath(name)
	return path, err == nil
}

// IsMissing reports whether a server could not be started because it isn't installed.
func IsMissing(err error) bool {
	_, missing := errors.AsType[*ErrMissing](err)
	return missing
}
