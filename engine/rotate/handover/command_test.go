package handover

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var example = &Call{Mode: Rotate, Mount: "rotate/", Entry: "app", Rotation: "r", Version: 3, Value: "s3cr3t", Metadata: map[string]string{"user": "admin"}}

// programsIn allows a fresh directory, which is returned as well.
func programsIn(t *testing.T) (*Programs, string) {
	t.Helper()
	dir := t.TempDir()
	p, err := NewPrograms([]string{dir})
	if err != nil {
		t.Fatal(err)
	}
	return p, dir
}

func script(t *testing.T, path, text string, mode os.FileMode) string {
	t.Helper()
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // whatever the umask says
		t.Fatal(err)
	}
	return path
}

func short(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestACommandGetsTheCallAndNothingElse(t *testing.T) {
	p, dir := programsIn(t)
	kept := filepath.Join(t.TempDir(), "kept")
	t.Setenv("VAULT_TOKEN", "must not get there")
	path := script(t, filepath.Join(dir, "set"), `{ pwd; env | grep -v '^_=' | grep -v '^PWD=' | grep -v '^SHLVL=' | grep -v '^OLDPWD='; echo "$#:$1:$2"; cat; } > `+kept, 0o755)
	command := &Command{Path: path, Arguments: []string{"a b", "$(id)"}}
	if err := p.Run(short(t, 10*time.Second), command, example); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(kept)
	if err != nil {
		t.Fatal(err)
	}
	want, err := json.Marshal(example)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(text); got != "/\nPATH=/usr/local/bin:/usr/bin:/bin\n2:a b:$(id)\n"+string(want) {
		t.Errorf("the command saw\n%s", got)
	}
}

func TestCommandsThatFail(t *testing.T) {
	p, dir := programsIn(t)
	for name, row := range map[string]struct{ script, want string }{
		"status":  {"echo s3cr3t; exit 3", "ends with status 3"},
		"signal":  {"kill -9 $$", "ended by a signal"},
		"output":  {"head -c 5000 /dev/zero", "prints more than 4096 bytes"},
		"errors":  {"head -c 5000 /dev/zero >&2", "prints more than 4096 bytes"},
		"endless": {"while :; do echo s3cr3t; done", "prints more than 4096 bytes"},
	} {
		path := script(t, filepath.Join(dir, name), row.script+"\n", 0o755)
		err := p.Run(short(t, 30*time.Second), &Command{Path: path}, example)
		if err == nil || !strings.Contains(err.Error(), row.want) || strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("%s: %v, want %q", name, err, row.want)
		}
	}
	path := script(t, filepath.Join(dir, "broken"), "", 0o755)
	if err := os.WriteFile(path, []byte("#!/no/such/interpreter\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := p.Run(short(t, 10*time.Second), &Command{Path: path}, example); err == nil || !strings.Contains(err.Error(), "can't be run") {
		t.Errorf("no interpreter: %v", err)
	}
}

// TestACommandIsEndedWithItsChildren when its time is over.
func TestACommandIsEndedWithItsChildren(t *testing.T) {
	p, dir := programsIn(t)
	kept := filepath.Join(t.TempDir(), "child")
	path := script(t, filepath.Join(dir, "slow"), "sleep 600 & echo $! > "+kept+".new; mv "+kept+".new "+kept+"\nwait\n", 0o755)
	ctx, cancel := context.WithCancel(t.Context())
	var child []byte
	watched := make(chan error, 1)
	go func() { // ends the command's time once it has a child
		defer cancel()
		wait := short(t, 30*time.Second)
		var err error
		for child, err = os.ReadFile(kept); err != nil; child, err = os.ReadFile(kept) {
			select {
			case <-wait.Done():
				watched <- wait.Err()
				return
			case <-time.After(time.Millisecond):
			}
		}
		watched <- nil
	}()
	err := p.Run(ctx, &Command{Path: path}, example)
	if late := <-watched; late != nil || err == nil || !strings.Contains(err.Error(), "in time") {
		t.Fatalf("Run = %v, and its child: %v", err, late)
	}
	gone := func() bool {
		stat, err := os.ReadFile("/proc/" + strings.TrimSpace(string(child)) + "/stat")
		return err != nil || strings.Contains(string(stat), ") Z ")
	}
	wait := short(t, 10*time.Second)
	for !gone() {
		select {
		case <-wait.Done():
			t.Fatal("the command's child lives on")
		case <-time.After(time.Millisecond):
		}
	}
}

func TestOnlyProgramsOfAllowedDirectoriesAreRun(t *testing.T) {
	p, dir := programsIn(t)
	outside := t.TempDir()
	good := script(t, filepath.Join(dir, "good"), "exit 0\n", 0o755)
	foreign := script(t, filepath.Join(outside, "foreign"), "exit 0\n", 0o755)
	for name, target := range map[string]string{"link": foreign, "inner": good} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(outside, filepath.Join(dir, "way")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "below"), 0o755); err != nil {
		t.Fatal(err)
	}
	script(t, filepath.Join(dir, "below", "deep"), "exit 0\n", 0o755)
	script(t, filepath.Join(dir, "plain"), "exit 0\n", 0o644)
	script(t, filepath.Join(dir, "open"), "exit 0\n", 0o777)
	script(t, filepath.Join(dir, "group"), "exit 0\n", 0o775)
	if err := p.Run(short(t, 10*time.Second), &Command{Path: good}, example); err != nil {
		t.Fatalf("a good program: %v", err)
	}
	for path, want := range map[string]string{
		"":        "none of the directories",
		"good":    "none of the directories",
		"/bin/sh": "none of the directories",
		foreign:   "none of the directories",
		dir:       "none of the directories",
		dir + "/": "none of the directories",
		dir + "/../" + filepath.Base(dir) + "/good": "none of the directories",
		dir + "//good":       "none of the directories",
		dir + "/below/deep":  "none of the directories",
		dir + "/way/foreign": "none of the directories",
		dir + "/link":        "not a program",
		dir + "/inner":       "not a program",
		dir + "/below":       "not a program",
		dir + "/plain":       "not a program",
		dir + "/open":        "not a program",
		dir + "/group":       "not a program",
		dir + "/absent":      "no such command",
		dir + "/good\x00":    "no such command",
	} {
		if err := p.Check(&Command{Path: path}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Check(%q): %v, want %q", path, err, want)
		}
		if err := p.Run(short(t, 10*time.Second), &Command{Path: path}, example); err == nil {
			t.Errorf("Run(%q) is no error", path)
		}
	}
	var none *Programs
	if err := none.Check(&Command{Path: good}); err == nil {
		t.Error("a node that allows no directory runs a program")
	}
	for _, arguments := range [][]string{make([]string, MaxArguments+1), {"a\x00b"}, {strings.Repeat("x", maxArgument+1)}} {
		if err := p.Check(&Command{Path: good, Arguments: arguments}); err == nil {
			t.Errorf("%d arguments are no error", len(arguments))
		}
	}
}

func TestDirectoriesThatOthersCanChangeAreRefused(t *testing.T) {
	shared := t.TempDir()
	if err := os.Chmod(shared, 0o777); err != nil {
		t.Fatal(err)
	}
	file := script(t, filepath.Join(t.TempDir(), "file"), "", 0o755)
	for _, dir := range []string{"relative", shared, file, filepath.Join(shared, "absent")} {
		if _, err := NewPrograms([]string{dir}); err == nil {
			t.Errorf("NewPrograms(%s) is no error", dir)
		}
	}
	// A link in the configuration is the configuration's choice: both names of the directory work.
	dir := t.TempDir()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	p, err := NewPrograms([]string{link})
	if err != nil {
		t.Fatal(err)
	}
	script(t, filepath.Join(dir, "good"), "exit 0\n", 0o755)
	for _, at := range []string{dir, link} {
		if err := p.Check(&Command{Path: at + "/good"}); err != nil {
			t.Errorf("Check in %s: %v", at, err)
		}
	}
}
