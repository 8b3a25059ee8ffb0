package process

import (
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
)

// headless tells this program that it is to lose its first thread, and to end when its input does.
const headless = "CONCLAVE_TEST_HEADLESS"

func TestMain(m *testing.M) {
	if os.Getenv(headless) == "" {
		os.Exit(m.Run())
	}
	loseFirstThread(func() {
		for stat, err := ReadStat(os.Getpid()); err == nil && stat.State != 'Z'; stat, err = ReadStat(os.Getpid()) {
			runtime.Gosched()
		}
		os.Stdout.WriteString("here\n")
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	})
}

// loseFirstThread ends the process's first thread and goes on with then. Each try keeps its thread, so that the first
// one's turn comes.
func loseFirstThread(then func()) {
	runtime.LockOSThread()
	if syscall.Gettid() == syscall.Getpid() {
		go then()
		_, _, _ = syscall.Syscall(syscall.SYS_EXIT, 0, 0, 0)
	}
	go loseFirstThread(then)
	select {}
}

// A process that was killed may lose its first thread long before its last: until then its files are locked.
func TestAliveUntilTheLastThreadIsGone(t *testing.T) {
	command := exec.Command(os.Args[0])
	command.Env = append(os.Environ(), headless+"=1")
	in, p := begin(t, command)
	if stat, err := ReadStat(p.PID); err != nil || stat.State != 'Z' {
		t.Fatalf("ReadStat = %+v, %v, want a process whose first thread has ended", stat, err)
	}
	if !p.Alive() {
		t.Error("a process that has lost its first thread counts as gone")
	}
	in.Close()
	if err := p.Gone(t.Context()); err != nil {
		t.Errorf("Gone = %v", err)
	}
}
