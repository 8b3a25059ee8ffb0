package client

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func session(stdin string) *Session {
	return &Session{In: strings.NewReader(stdin), Out: &strings.Builder{}, Err: &strings.Builder{}, Getenv: func(string) string { return "" }}
}

func TestDataReadsTheGrammarOfArguments(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "secret")
	object := filepath.Join(dir, "object.json")
	for name, text := range map[string]string{file: "from a file\n", object: `{"n": 1, "list": ["a"], "big": 12345678901234567890}`} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		name  string
		stdin string
		args  []string
		want  map[string]any
	}{
		{"pairs", "", []string{"a=1", "b="}, map[string]any{"a": "1", "b": ""}},
		{"a value with equals", "", []string{"a=b=c"}, map[string]any{"a": "b=c"}},
		{"a key twice", "", []string{"a=1", "a=2", "a=3"}, map[string]any{"a": []any{"1", "2", "3"}}},
		{"a file", "", []string{"a=@" + file}, map[string]any{"a": "from a file\n"}},
		{"a plain @", "", []string{`a=\@home`}, map[string]any{"a": "@home"}},
		{"standard input", "hidden", []string{"a=-", "b=x"}, map[string]any{"a": "hidden", "b": "x"}},
		{"an object", "", []string{"@" + object}, map[string]any{"n": json.Number("1"), "list": []any{"a"}, "big": json.Number("12345678901234567890")}},
		{"an object from standard input", `{"a": {"b": null}}`, []string{"-"}, map[string]any{"a": map[string]any{"b": nil}}},
		{"nothing", "", nil, map[string]any{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := session(tc.stdin).Data(tc.args)
			if err != nil || !reflect.DeepEqual(got, tc.want) {
				t.Errorf("Data(%q) = %v, %v, want %v", tc.args, got, err, tc.want)
			}
		})
	}
}

func TestDataRefusesWhatIsNone(t *testing.T) {
	for _, args := range [][]string{{"word"}, {"=x"}, {"a=@/nowhere/at/all"}, {"-", "-"}, {"a=-", "b=-"}} {
		if data, err := session(`{"a": 1}`).Data(args); err == nil || ExitCode(err) != ExitLocal {
			t.Errorf("Data(%q) = %v, %v, want an error of the caller's", args, data, err)
		}
	}
	for _, stdin := range []string{"", "[]", "{} {}", "1", "{"} {
		if data, err := session(stdin).Data([]string{"-"}); err == nil {
			t.Errorf("Data(-) of %q = %v, want an error", stdin, data)
		}
	}
}

func TestErrorsOfArgumentsDontRepeatSecrets(t *testing.T) {
	_, err := session("").Data([]string{"hvs.verysecrettoken"})
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("Data of a word = %v, want an error without the word", err)
	}
}

func FuzzData(f *testing.F) {
	f.Add("a=1", `{"a": 1}`)
	f.Add("-", `{"a": [1, {"b": null}]}`)
	f.Add("a=-", "x")
	f.Fuzz(func(t *testing.T, arg, stdin string) {
		if strings.Contains(arg, "@") {
			return // files of this machine
		}
		if data, err := session(stdin).Data([]string{arg}); err == nil && len(data) == 0 && arg != "-" {
			t.Errorf("Data(%q) = nothing and no error", arg)
		}
	})
}

func TestPromptWithoutTerminalReadsALine(t *testing.T) {
	if got, err := session("  share \nmore").Prompt("Share"); got != "share" || err != nil {
		t.Errorf("Prompt = %q, %v, want share", got, err)
	}
	if got, err := session("\n").Prompt("Share"); err == nil {
		t.Errorf("Prompt of nothing = %q, want an error", got)
	}
}

func TestTokenFileIsForItsOwnerAlone(t *testing.T) {
	home := t.TempDir()
	s := session("")
	s.Getenv = func(name string) string { return map[string]string{"HOME": home}[name] }
	if err := os.WriteFile(filepath.Join(home, ".vault-token"), []byte("theirs\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if token, err := s.tokenFiles().Read(); token != "theirs" || err != nil {
		t.Fatalf("Read without a file of our own = %q, %v, want Vault's", token, err)
	}
	path, err := s.StoreToken("ours")
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("Stat(%s) = %v, %v, want mode 0600", path, info, err)
	}
	if token, err := s.tokenFiles().Read(); token != "ours" || err != nil {
		t.Errorf("Read = %q, %v, want ours", token, err)
	}
	if err := s.EraseToken("another"); err != nil {
		t.Fatal(err)
	}
	if token, _ := s.tokenFiles().Read(); token != "ours" {
		t.Errorf("after erasing another token Read = %q, want ours", token)
	}
	if err := s.EraseToken("ours"); err != nil {
		t.Fatal(err)
	}
	if token, _ := s.tokenFiles().Read(); token != "theirs" {
		t.Errorf("after erasing ours Read = %q, want theirs", token)
	}
}
