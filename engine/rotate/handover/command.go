package handover

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// Limits of a command.
const (
	MaxArguments = 32
	maxArgument  = 1024 // bytes of one
	maxPath      = 1024 // bytes
)

// afterwards is how long a command that was ended, or whose children keep its output open, is waited for.
const afterwards = time.Second

// Programs are the directories of this node whose programs may be run, as its configuration names them. A nil or zero
// Programs allows none.
type Programs struct {
	names    []string
	resolved []string // the same, without symbolic links
}

// NewPrograms checks that each of directories is an absolute path to a directory that only its owner can write to, and whose
// owner is root or the vault's own user. Symbolic links in them are the configuration's choice, and are resolved now.
func NewPrograms(directories []string) (*Programs, error) {
	p := &Programs{names: slices.Clone(directories)}
	for _, name := range directories {
		if !filepath.IsAbs(name) {
			return nil, fmt.Errorf("command directory %s: not an absolute path", name)
		}
		resolved, err := filepath.EvalSymlinks(name)
		if err != nil {
			return nil, fmt.Errorf("command directory: %w", err)
		}
		info, err := os.Lstat(resolved)
		if err != nil {
			return nil, fmt.Errorf("command directory: %w", err)
		}
		if !info.IsDir() || !isTrusted(info) {
			return nil, fmt.Errorf("command directory %s: not a directory, or others than root and the vault's own user can write to it", name)
		}
		p.resolved = append(p.resolved, resolved)
	}
	return p, nil
}

// isTrusted reports whether nobody but root and the vault's own user can change what info is of.
func isTrusted(info os.FileInfo) bool {
	if info.Mode().Perm()&0o022 != 0 {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && (stat.Uid == 0 || int(stat.Uid) == os.Geteuid())
}

// Command is a program that is run, without a shell.
type Command struct {
	Path      string   // absolute and canonical, of a file directly in an allowed directory
	Arguments []string // always the same: the call comes by standard input
}

// Check reports why a command can't be run here; the text is for clients. What is outside of the allowed directories isn't
// looked at, so that nobody learns what is there.
func (p *Programs) Check(c *Command) error {
	if len(c.Arguments) > MaxArguments {
		return failed("a command has at most 32 arguments")
	}
	for _, argument := range c.Arguments {
		if len(argument) > maxArgument || strings.ContainsRune(argument, 0) {
			return failed("an argument of a command has at most 1024 bytes, none of them 0")
		}
	}
	_, err := p.locate(c.Path)
	return err
}

// locate returns where the program is, without symbolic links on the way.
func (p *Programs) locate(path string) (string, error) {
	outside := failed("the command is in none of the directories that this node's configuration allows (rotate.command_directories)")
	if p == nil || len(path) > maxPath || !filepath.IsAbs(path) || filepath.Clean(path) != path {
		return "", outside
	}
	dir, name := filepath.Dir(path), filepath.Base(path)
	at := slices.Index(p.names, dir)
	if at < 0 {
		at = slices.Index(p.resolved, dir)
	}
	if at < 0 {
		return "", outside
	}
	located := filepath.Join(p.resolved[at], name)
	info, err := os.Lstat(located)
	if err != nil {
		return "", failed("there is no such command on this node")
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0 || !isTrusted(info) {
		return "", failed("the command is not a program that only root and the vault's own user can change")
	}
	return located, nil
}

// Run has a command do a call. It has done it if it ends with status 0, within ctx, and prints little. It gets no
// environment but a PATH, runs in the root directory, and is ended with all that it has started when ctx ends.
func (p *Programs) Run(ctx context.Context, c *Command, call *Call) error {
	if err := p.Check(c); err != nil {
		return err
	}
	path, err := p.locate(c.Path)
	if err != nil {
		return err
	}
	body, err := call.body()
	if err != nil {
		return err
	}
	printed := &bounded{}
	command := exec.CommandContext(ctx, path, c.Arguments...)
	command.Env, command.Dir = []string{"PATH=/usr/local/bin:/usr/bin:/bin"}, "/"
	command.Stdin, command.Stdout, command.Stderr = bytes.NewReader(body), printed, printed
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	end := func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGKILL) }
	command.Cancel, command.WaitDelay = end, afterwards
	err = command.Run()
	if command.Process != nil {
		_ = end() // what it has left behind
	}
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return failed("the command doesn't end in time")
	case printed.over.Load():
		return failed("the command prints more than 4096 bytes")
	case errors.As(err, &exit) && exit.Exited():
		return failedStatus("the command ends with status ", exit.ExitCode())
	case errors.As(err, &exit):
		return failed("the command was ended by a signal")
	case err != nil:
		return failed("the command can't be run")
	}
	return nil
}

// bounded takes what a command prints and forgets it. Too much is an error, at which the command's output is closed.
type bounded struct {
	size int
	over atomic.Bool // read when what writes may still be at it
}

func (b *bounded) Write(text []byte) (int, error) {
	if b.size += len(text); b.size > MaxAnswer {
		b.over.Store(true)
		return 0, errors.New("too much")
	}
	return len(text), nil
}
