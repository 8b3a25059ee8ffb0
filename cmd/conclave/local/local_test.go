package local

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"conclave/cmd/conclave/client"
	"conclave/internal/process"
)

func TestLayoutHasOneElementPerNode(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "lab")
	c, err := lay(dir, "/bin/conclave", 3, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.save(dir); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(dir, clusterFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("Stat of cluster.json = %v, %v, want mode 0600", info, err)
	}
	loaded, err := load(dir)
	if err != nil || !reflect.DeepEqual(loaded, c) {
		t.Errorf("load = %+v, %v, want what was saved: %+v", loaded, err, c)
	}
	text, err := os.ReadFile(filepath.Join(dir, clusterFile))
	if err != nil {
		t.Fatal(err)
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(text, &members); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"addrs", "data_dirs", "pids", "log_files", "audit_files", "start_cmds"} {
		var list []json.RawMessage
		if err := json.Unmarshal(members[name], &list); err != nil || len(list) != 3 {
			t.Errorf("%s = %s, want one element per node", name, members[name])
		}
	}
	ports := slices.Concat(c.ClusterPorts, c.GossipPorts)
	slices.Sort(ports)
	if len(slices.Compact(ports)) != 6 {
		t.Errorf("ports %v %v are not all different", c.ClusterPorts, c.GossipPorts)
	}
}

func TestCertificatesAreForLoopback(t *testing.T) {
	dir := t.TempDir()
	if _, err := lay(filepath.Join(dir, "lab"), "conclave", 1, time.Now()); err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	ca, err := os.ReadFile(filepath.Join(dir, "lab", "ca.pem"))
	if err != nil || !roots.AppendCertsFromPEM(ca) {
		t.Fatalf("the CA can't be read: %v", err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "lab", "node1", "tls.crt"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"127.0.0.1", "::1", "localhost", "node1"} {
		if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: name}); err != nil {
			t.Errorf("the certificate isn't good for %s: %v", name, err)
		}
	}
	if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: "example.org"}); err == nil {
		t.Error("the certificate is good for example.org")
	}
}

// lone is a lab of one node whose process is pid.
func lone(pid int, config string) *Cluster {
	return &Cluster{Addrs: []string{"https://127.0.0.1:1"}, PIDs: []int{pid}, StartCmds: []StartCmd{{Argv: []string{"conclave", "server", "-config", config}}}}
}

func TestForeignProcessIsLeftAlone(t *testing.T) {
	sleeper := exec.Command("sleep", "60")
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	defer sleeper.Wait()
	defer sleeper.Process.Kill()
	c := lone(sleeper.Process.Pid, "/lab/node1/conclave.hcl")
	if c.running(1) {
		t.Error("a process that only has the node's number counts as the node")
	}
	if err := c.killAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := process.Arguments(sleeper.Process.Pid); err != nil {
		t.Error("a foreign process was ended")
	}
}

func TestOwnProcessIsEnded(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc to give a process the arguments of a server")
	}
	// A shell that waits, with the command line of a server.
	server := exec.Command("sh", "-c", "echo here; read line", "server", "/lab/node1/conclave.hcl")
	in, err := server.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, len("here\n"))); err != nil {
		t.Fatal(err)
	}
	c := lone(server.Process.Pid, "/lab/node1/conclave.hcl")
	if !c.running(1) {
		t.Fatal("the lab's own process isn't recognised")
	}
	done := make(chan error, 1)
	go func() { done <- server.Wait() }()
	if err := c.killAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-done
	if c.PIDs[0] != 0 {
		t.Errorf("PIDs = %v after the end, want 0", c.PIDs)
	}
}

func TestDirectoryThatIsNoLabIsNotTouched(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "thesis.txt"), []byte("years of work"), 0o600); err != nil {
		t.Fatal(err)
	}
	l := &lab{s: &client.Session{Err: &strings.Builder{}}, dir: dir}
	if err := l.makeRoom(); err == nil || !strings.Contains(err.Error(), "thesis.txt") {
		t.Errorf("makeRoom of a directory with other things in it = %v, want an error that names them", err)
	}
	c, err := lay(filepath.Join(dir, "lab"), "conclave", 2, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "lab", "notes"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.wipe(filepath.Join(dir, "lab")); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(filepath.Join(dir, "lab"))
	if err != nil || len(entries) != 1 || entries[0].Name() != "notes" {
		t.Errorf("after wipe the directory has %v, %v, want what the lab didn't make", entries, err)
	}
}

// What the lab didn't make stays, is named, and is named again by the next `up`.
func TestWipeNamesWhatStays(t *testing.T) {
	var said strings.Builder
	l := &lab{s: &client.Session{Err: &said}, dir: filepath.Join(t.TempDir(), "lab")}
	c, err := lay(l.dir, "conclave", 1, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.save(l.dir); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		if err := os.WriteFile(filepath.Join(l.dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	down := l.downCommand()
	down.SetArgs([]string{"--wipe"})
	if err := down.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	const names = "a, b, c, d, e and 1 more"
	if !strings.Contains(said.String(), names) {
		t.Errorf("down -wipe says %q, want it to name %s", said.String(), names)
	}
	if err := l.makeRoom(); err == nil || !strings.Contains(err.Error(), names) {
		t.Errorf("makeRoom = %v, want an error that names %s", err, names)
	}
	if err := os.RemoveAll(l.dir); err != nil {
		t.Fatal(err)
	}
	if err := l.makeRoom(); err != nil {
		t.Errorf("makeRoom where nothing is = %v", err)
	}
}

func TestShellQuote(t *testing.T) {
	for text, want := range map[string]string{"https://127.0.0.1:8200": "https://127.0.0.1:8200", "/a b/c": "'/a b/c'", "it's": `'it'\''s'`, "$HOME": "'$HOME'"} {
		if got := shellQuote(text); got != want {
			t.Errorf("shellQuote(%q) = %s, want %s", text, got, want)
		}
	}
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte(`{"addrs":["a"],"data_dirs":["d"],"pids":[0],"log_files":["l"],"start_cmds":[{"argv":["x"]}],"cluster_ports":[1],"gossip_ports":[2]}`))
	f.Add([]byte(`{"addrs":[],"pids":[1]}`))
	f.Add([]byte(`{"addrs":["a"],"data_dirs":["d"],"pids":[0],"log_files":["l"],"start_cmds":[{}],"cluster_ports":[1],"gossip_ports":[2]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, clusterFile), text, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := load(dir)
		if err != nil {
			return
		}
		for n := range c.Addrs {
			c.configOf(n + 1)
		}
	})
}
