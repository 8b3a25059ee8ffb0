package main

import (
	"encoding/json"
	"encoding/pem"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"conclave": main})
}

// TestScripts drives the command line against a vault that is made up: testdata/script/*.txtar.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(env *testscript.Env) error {
			vault := &fakeVault{secrets: map[string][]any{}}
			server := httptest.NewTLSServer(vault)
			env.Defer(server.Close)
			ca := filepath.Join(env.WorkDir, "ca.pem")
			text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
			if err := os.WriteFile(ca, text, 0o600); err != nil {
				return err
			}
			env.Values["vault"] = vault
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("CONCLAVE_ADDR", server.URL)
			env.Setenv("CONCLAVE_CACERT", ca)
			env.Setenv("CONCLAVE_TOKEN", "")
			env.Setenv("VAULT_TOKEN", "")
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			// open makes the vault an initialised and open one with the root token "root".
			"open": func(ts *testscript.TestScript, _ bool, _ []string) {
				ts.Value("vault").(*fakeVault).open()
				ts.Setenv("CONCLAVE_TOKEN", "root")
			},
			// exits runs conclave and demands an exit code: exits 2 status
			"exits": exits,
		},
	})
}

// TestLab drives a lab of real servers: testdata/lab/*.txtar.
func TestLab(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "lab"),
		Setup: func(env *testscript.Env) error {
			env.Setenv("HOME", env.WorkDir)
			env.Defer(func() { endLab(t, filepath.Join(env.WorkDir, "lab")) })
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits": exits,
			// node points the variables at a node of a lab: node DIR N
			"node": func(ts *testscript.TestScript, _ bool, args []string) {
				text := ts.ReadFile(filepath.Join(args[0], "cluster.json"))
				var cluster struct {
					Addrs     []string `json:"addrs"`
					CA        string   `json:"ca"`
					RootToken string   `json:"root_token"`
				}
				ts.Check(json.Unmarshal([]byte(text), &cluster))
				n, err := strconv.Atoi(args[1])
				ts.Check(err)
				ts.Setenv("CONCLAVE_ADDR", cluster.Addrs[n-1])
				ts.Setenv("CONCLAVE_CACERT", cluster.CA)
				ts.Setenv("CONCLAVE_TOKEN", cluster.RootToken)
			},
		},
	})
}

// endLab ends what a failed script has left running.
func endLab(t *testing.T, dir string) {
	if _, err := os.Stat(dir); err != nil {
		return
	}
	for n := 1; n <= 3; n++ {
		if log, err := os.ReadFile(filepath.Join(dir, "node"+strconv.Itoa(n), "server.log")); err == nil && t.Failed() {
			t.Logf("the log of node %d ends so:\n%s", n, log[max(0, len(log)-4096):])
		}
	}
	if text, err := exec.Command("conclave", "local", "down", "-wipe", "-dir", dir).CombinedOutput(); err != nil {
		t.Errorf("end the lab: %v\n%s", err, text)
	}
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE ARGUMENT…")
	}
	// The shell tells the code apart, and puts it where stdout and stderr don't go.
	code := ts.MkAbs(".exit")
	err := ts.Exec("sh", append([]string{"-c", `conclave "$@"; echo $? >"$0"`, code}, args[1:]...)...)
	ts.Check(err)
	if got := ts.ReadFile(code); got != args[0]+"\n" {
		ts.Fatalf("exit code %swant %s", got, args[0])
	}
}
