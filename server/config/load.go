package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/hcl/ast"
	"github.com/hashicorp/hcl/hcl/parser"
	jsonparser "github.com/hashicorp/hcl/json/parser"
)

const (
	maxFile    = 1 << 20 // bytes of one file
	maxNesting = 100     // brackets inside each other
	maxErrors  = 50      // that are reported at once
)

// loader gathers a configuration from several sources.
type loader struct {
	Config
	seen     map[string]spot // setting's path → where it was given
	blocks   int             // repeatable blocks so far, to tell their paths apart
	errs     []error
	warnings []Warning
}

func (l *loader) failAt(at spot, reason string) {
	if len(l.errs) < maxErrors {
		l.errs = append(l.errs, &Error{at.file, at.line, reason})
	}
}

// failOn complains about a setting, at the place where it was given.
func (l *loader) failOn(path, reason string) { l.failAt(l.seen[path], reason) }

// Load reads files, and the .hcl and .json files of directories in order of their names, as one configuration. A
// setting may be given once. Then env (os.LookupEnv) overrides: CONCLAVE_ variables win over VAULT_ ones of the same
// meaning. The error joins one *Error for each thing that is wrong.
func Load(paths []string, env func(string) (string, bool)) (*Config, []Warning, error) {
	l := newLoader()
	for _, path := range paths {
		files, err := filesOf(path)
		if err != nil {
			l.failAt(spot{path, 0}, reasonOf(err))
			continue
		}
		for _, file := range files {
			text, err := readFile(file)
			if err != nil {
				l.failAt(spot{file, 0}, reasonOf(err))
				continue
			}
			l.add(file, text)
		}
	}
	return l.finish(env)
}

func newLoader() *loader { return &loader{seen: map[string]spot{}} }

func (l *loader) finish(env func(string) (string, bool)) (*Config, []Warning, error) {
	if env != nil {
		l.environment(env)
	}
	l.defaults()
	l.check()
	if len(l.errs) > 0 {
		return nil, l.warnings, errors.Join(l.errs...)
	}
	config := l.Config
	return &config, l.warnings, nil
}

// reasonOf leaves the path out of a file system's error: ours names it.
func reasonOf(err error) string {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Op + ": " + e.Err.Error()
	}
	return err.Error()
}

func filesOf(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, entry := range entries {
		if ext := filepath.Ext(entry.Name()); !entry.IsDir() && (ext == ".hcl" || ext == ".json") && !strings.HasPrefix(entry.Name(), ".") {
			files = append(files, filepath.Join(path, entry.Name()))
		}
	}
	slices.Sort(files)
	if len(files) == 0 {
		return nil, errors.New("there is no .hcl or .json file in the directory")
	}
	return files, nil
}

func readFile(file string) ([]byte, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("is not a regular file")
	}
	if info.Size() > maxFile {
		return nil, errors.New("is larger than 1 MiB")
	}
	return os.ReadFile(file)
}

// add takes one file's settings.
func (l *loader) add(name string, text []byte) {
	if len(text) > maxFile || nesting(text) > maxNesting {
		l.failAt(spot{name, 0}, "is too large or too deeply nested")
		return
	}
	parsed, line, err := parse(text)
	if err != nil {
		l.failAt(spot{name, line}, err.Error())
		return
	}
	members, ok := parsed.Node.(*ast.ObjectList)
	if !ok {
		l.failAt(spot{name, 0}, "is not a configuration")
		return
	}
	l.read(name, "", members, l.topLevel())
}

// parse reads HCL, or JSON if the text begins like it. An error comes with its line, 0 if that isn't known.
func parse(text []byte) (file *ast.File, line int, err error) {
	defer func() {
		if recover() != nil { // the parsers panic on some escapes
			file, line, err = nil, 0, errors.New("can't be parsed")
		}
	}()
	if !bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) {
		file, err = parser.ParseDontErrorOnDuplicateKeys(text) // we do, with the place of the first
		if e, ok := errors.AsType[*parser.PosError](err); ok {
			return nil, e.Pos.Line, e.Err
		}
		return file, 0, err
	}
	var value any
	if err := json.Unmarshal(text, &value); err != nil { // stricter than the parser, and it knows where
		if e, ok := errors.AsType[*json.SyntaxError](err); ok {
			line = 1 + bytes.Count(text[:min(int(e.Offset), len(text))], []byte("\n"))
		}
		return nil, line, err
	}
	file, err = jsonparser.Parse(text)
	return file, 0, err
}

// nesting is an upper bound for how deep brackets are nested: those in strings and comments count too. The parser
// recurses, so it is bounded before.
func nesting(text []byte) int {
	depth, deepest := 0, 0
	for _, c := range text {
		switch c {
		case '{', '[':
			depth++
			deepest = max(deepest, depth)
		case '}', ']':
			depth = max(0, depth-1)
		}
	}
	return deepest
}

// environment overrides settings. VAULT_ names are those of Vault's documentation.
func (l *loader) environment(env func(string) (string, bool)) {
	for _, variable := range []struct {
		name string // without its prefix
		path string // of the setting
		set  setter
	}{
		{"API_ADDR", "api_addr", text(&l.APIAddr)},
		{"CLUSTER_ADDR", "cluster_addr", text(&l.ClusterAddr)},
		{"CLUSTER_NAME", "cluster_name", text(&l.ClusterName)},
		{"LOG_LEVEL", "log_level", oneOf(&l.LogLevel, logLevels...)},
		{"LOG_FORMAT", "log_format", oneOf(&l.LogFormat, logFormats...)},
		{"UI", "ui", flag(&l.UI)},
		{"DISABLE_MLOCK", "disable_mlock", flag(&l.DisableMlock)},
		{"RAFT_NODE_ID", "storage.node_id", text(&l.Storage.NodeID)},
		{"RAFT_PATH", "storage.path", text(&l.Storage.Path)},
		{"JOIN", "cluster.join", list(&l.Cluster.Join)},
		{"BOOTSTRAP_EXPECT", "cluster.bootstrap_expect", number(&l.Cluster.BootstrapExpect, 1, maxVoters)},
		{"GOSSIP_ADDR", "cluster.gossip_addr", text(&l.Cluster.GossipAddr)},
		{"CLUSTER_SECRET_FILE", "cluster.secret_file", text(&l.Cluster.SecretFile)},
		{"CLUSTER_ADMIT_TOKEN", "cluster.admit_token", text(&l.Cluster.AdmitToken)},
	} {
		for _, prefix := range []string{"VAULT_", "CONCLAVE_"} { // the later wins
			name := prefix + variable.name
			if given, ok := env(name); ok && given != "" {
				at := spot{"environment", 0}
				l.seen[variable.path] = at
				variable.set(value{loader: l, spot: at, path: variable.path, name: name, env: &given})
			}
		}
	}
}
