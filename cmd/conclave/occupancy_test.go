package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"conclave/internal/process"
)

func TestDataDirectoryInUseIsSaid(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	first, err := occupy(t.Context(), dir, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	_, err = occupy(t.Context(), dir, time.Millisecond)
	if err == nil {
		t.Fatal("a data directory in use is taken a second time")
	}
	for _, want := range []string{dir, "end that process", `storage "raft"`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error doesn't mention %s: %v", want, err)
		}
	}
	if err := first.leave(); err != nil {
		t.Fatal(err)
	}
	second, err := occupy(t.Context(), dir, time.Minute)
	if err != nil {
		t.Fatalf("a directory that was left isn't free: %v", err)
	}
	if err := second.leave(); err != nil {
		t.Fatal(err)
	}
}

// The lock of a killed server may be free before its other files are: until the process is gone, they aren't touched.
func TestDataDirectoryIsFreeWhenItsProcessIsGone(t *testing.T) {
	server := exec.Command("sh", "-c", "echo here; read line")
	in, err := server.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer server.Wait()
	defer in.Close()
	if _, err := io.ReadFull(out, make([]byte, len("here\n"))); err != nil {
		t.Fatal(err)
	}
	holder, ok := process.Find(server.Process.Pid)
	if !ok || holder.Born == 0 {
		t.Skip("needs /proc to tell a process from a later one")
	}
	dir := t.TempDir()
	write := func(text string) {
		if err := os.WriteFile(filepath.Join(dir, occupancyFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pid := strconv.Itoa(holder.PID)
	for _, text := range []string{"", "\n", "x y\n", pid, pid + " 0\n", pid + " " + strconv.FormatUint(holder.Born-1, 10) + "\n", "1 1\n", "-1 7\n"} {
		write(text)
		taken, err := occupy(t.Context(), dir, time.Minute)
		if err != nil {
			t.Fatalf("occupy where the file says %q: %v", text, err)
		}
		if err := taken.leave(); err != nil {
			t.Fatal(err)
		}
	}
	said := pid + " " + strconv.FormatUint(holder.Born, 10) + "\n"
	write(said)
	if _, err := occupy(t.Context(), dir, time.Millisecond); err == nil || !strings.Contains(err.Error(), "("+pid+",") {
		t.Errorf("occupy while process %s ends = %v, want an error that names it", pid, err)
	}
	write(said)
	if err := server.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	taken, err := occupy(t.Context(), dir, time.Minute)
	if err != nil {
		t.Fatalf("occupy after the holder was killed: %v", err)
	}
	if err := taken.leave(); err != nil {
		t.Fatal(err)
	}
}

func FuzzPredecessor(f *testing.F) {
	f.Add([]byte("4242 987654321\n"))
	f.Add([]byte("-1 0"))
	f.Fuzz(func(t *testing.T, text []byte) {
		file, err := os.Create(filepath.Join(t.TempDir(), occupancyFile))
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		if _, err := file.Write(text); err != nil {
			t.Fatal(err)
		}
		if p := predecessor(file); p.PID < 0 || p.PID == os.Getpid() {
			t.Errorf("predecessor(%q) = %+v", text, p)
		}
	})
}
