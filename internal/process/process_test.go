package process

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// A process is known from the moment that it is started, though the kernel shows no arguments of it for an instant.
func TestArgumentsAreThereFromTheStart(t *testing.T) {
	const empty = 3 // reads before the arguments are there
	reads := 0
	read := func() ([]byte, error) {
		if reads++; reads <= empty {
			return nil, nil
		}
		return []byte("conclave\x00server\x00"), nil
	}
	args, err := arguments(read, func() bool { return false })
	if want := []string{"conclave", "server"}; err != nil || !slices.Equal(args, want) {
		t.Errorf("arguments of a process that begins = %v, %v, want %v", args, err, want)
	}
	reads = 0
	if args, err := arguments(read, func() bool { return true }); !errors.Is(err, os.ErrProcessDone) || reads != 1 {
		t.Errorf("arguments of a process that has ended = %v, %v after %d reads, want ErrProcessDone after 1", args, err, reads)
	}
	for range 20 {
		sleeper := exec.Command("sleep", "60")
		if err := sleeper.Start(); err != nil {
			t.Fatal(err)
		}
		if args, err := Arguments(sleeper.Process.Pid); err != nil || !slices.Equal(args, sleeper.Args) {
			t.Errorf("Arguments at once = %v, %v, want %v", args, err, sleeper.Args)
		}
		if err := sleeper.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = sleeper.Wait()
		if args, err := Arguments(sleeper.Process.Pid); !errors.Is(err, os.ErrProcessDone) {
			t.Errorf("Arguments after the end = %v, %v, want ErrProcessDone", args, err)
		}
	}
}

// begin starts a command that says "here" and ends when its input does. It is reaped at the end of the test.
func begin(t *testing.T, command *exec.Cmd) (io.Closer, Process) {
	t.Helper()
	in, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = command.Wait()
	})
	if _, err := io.ReadFull(out, make([]byte, len("here\n"))); err != nil {
		t.Fatal(err)
	}
	p, ok := Find(command.Process.Pid)
	if !ok {
		t.Fatalf("Find(%d) finds nothing", command.Process.Pid)
	}
	return in, p
}

func TestGoneWhenEndedThoughNotReaped(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc")
	}
	in, p := begin(t, exec.Command("sh", "-c", "echo here; read line"))
	if p.Paused() || p.Born == 0 {
		t.Errorf("Find = %+v, want a process that runs and was born some time", p)
	}
	if earlier := (Process{p.PID, p.Born - 1}); earlier.Alive() {
		t.Error("an earlier process with the same number counts as alive")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Gone(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("Gone of a process that runs = %v, want context.Canceled", err)
	}
	in.Close()
	if err := p.Gone(t.Context()); err != nil {
		t.Errorf("Gone = %v", err)
	}
	if _, ok := Find(p.PID); ok {
		t.Error("Find finds a process that has ended")
	}
}

// stat is what Linux says of a thread that has ended while others of its process still run.
const stat = "4242 (a) ) b) Z 1 4242 4242 0 -1 4227084 1 2 3 4 50 7 0 0 20 0 9 0 987654321 0 0 18446744073709551615 0 0"

func TestStatOfAnyName(t *testing.T) {
	got, err := parseStat([]byte(stat))
	if want := (Stat{State: 'Z', CPU: 57, Born: 987654321}); err != nil || got != want {
		t.Errorf("parseStat = %+v, %v, want %+v", got, err, want)
	}
	for _, text := range []string{"", "1", "1 (a", "1 (a) R 1 2", strings.ReplaceAll(stat, ")", "")} {
		if got, err := parseStat([]byte(text)); err == nil {
			t.Errorf("parseStat(%q) = %+v, want an error", text, got)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte(stat))
	f.Fuzz(func(t *testing.T, text []byte) {
		if s, err := parseStat(text); err != nil && s != (Stat{}) {
			t.Errorf("parseStat = %+v and %v", s, err)
		}
	})
}
