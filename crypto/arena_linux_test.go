package crypto

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mapping is the part of /proc/self/smaps about the mapping that holds address.
func mapping(t *testing.T, address uintptr) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for line := range strings.Lines(string(b)) {
		var from, to uintptr
		if n, _ := fmt.Sscanf(line, "%x-%x ", &from, &to); n == 2 {
			if found != nil {
				break
			}
			if from <= address && address < to {
				found = append(found, line)
			}
		} else if found != nil {
			found = append(found, line)
		}
	}
	return strings.Join(found, "")
}

func flags(smaps string) []string {
	_, rest, _ := strings.Cut(smaps, "VmFlags:")
	return strings.Fields(rest)
}

func TestKernelKeepsTheArenaPrivate(t *testing.T) {
	a := newArena(t, 4096)
	start := uintptr(unsafe.Pointer(&a.memory[0]))
	got := flags(mapping(t, start))
	// lo: locked; dd: not dumped; wf: wiped on fork.
	for _, want := range []string{"rd", "wr", "lo", "dd", "wf"} {
		if !slices.Contains(got, want) {
			t.Errorf("the kernel's flags are %v, without %s", got, want)
		}
	}
	for _, guard := range []uintptr{start - 1, start + uintptr(len(a.memory))} {
		if got := flags(mapping(t, guard)); len(got) == 0 || slices.Contains(got, "rd") || slices.Contains(got, "wr") {
			t.Errorf("the guard at %#x has the flags %v", guard, got)
		}
	}
}

func TestGuardPagesFault(t *testing.T) {
	a := newArena(t, 4096)
	page := os.Getpagesize()
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	touch := func(at int) (fault bool) {
		defer func() { fault = recover() != nil }()
		_ = a.region[at]
		sink(a.region[at])
		return false
	}
	for at, want := range map[int]bool{page: false, len(a.region) - page - 1: false, page - 1: true, 0: true, len(a.region) - page: true} {
		if got := touch(at); got != want {
			t.Errorf("byte %d of the mapping faults: %v, want %v", at, got, want)
		}
	}
}

//go:noinline
func sink(byte) {}

func TestProcessWide(t *testing.T) {
	for _, part := range []string{"harden", "lock without a limit"} {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childTest+"="+part)
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "done") {
			t.Errorf("%s: %v: %s", part, err, out)
		}
	}
}

// childTest names the part that a child process of the test plays.
const childTest = "CONCLAVE_CRYPTO_CHILD"

func TestMain(m *testing.M) {
	if part := os.Getenv(childTest); part != "" {
		os.Exit(playChild(part))
	}
	os.Exit(m.Run())
}

// playChild runs in a process of its own what can't be undone. It prints done, or what went wrong.
func playChild(part string) int {
	err := map[string]func() error{"harden": childHardens, "lock without a limit": childLocks}[part]()
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("done")
	return 0
}

func childHardens() error {
	before, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil || before != 1 {
		return fmt.Errorf("dumpable is %d before, %v", before, err)
	}
	if err := Harden(); err != nil {
		return err
	}
	after, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil || after != 0 {
		return fmt.Errorf("dumpable is %d after, %v", after, err)
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &limit); err != nil || limit != (unix.Rlimit{}) {
		return fmt.Errorf("core limit is %v, %v", limit, err)
	}
	a, err := NewArena(4096)
	if err != nil {
		return err
	}
	return a.Close()
}

// childLocks gives up the right to lock memory and expects to be told what to do.
func childLocks() error {
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{}); err != nil {
		return err
	}
	if os.Geteuid() == 0 { // the limit doesn't bind root, who has CAP_IPC_LOCK
		runtime.LockOSThread() // capabilities are a thread's
		header, none := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, [2]unix.CapUserData{}
		if err := unix.Capset(&header, &none[0]); err != nil {
			return err
		}
	}
	_, err := NewArena(4096)
	if err == nil || !strings.Contains(err.Error(), "LimitMEMLOCK") {
		return fmt.Errorf("NewArena without a limit: %v", err)
	}
	return nil
}
