package integration

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"conclave/integration/lab"
)

// spellings are the forms in which text could lie in a file: as it is, in hexadecimal, in base64 at each of the three
// alignments that it may have inside a longer text, and escaped for URLs and JSON.
func spellings(text string) map[string][]byte {
	forms := map[string][]byte{
		"raw":         []byte(text),
		"hex":         []byte(hex.EncodeToString([]byte(text))),
		"HEX":         []byte(strings.ToUpper(hex.EncodeToString([]byte(text)))),
		"URL query":   []byte(url.QueryEscape(text)),
		"URL path":    []byte(url.PathEscape(text)),
		"JSON":        quoted(text, true),
		"JSON, plain": quoted(text, false),
	}
	for shift := range 3 {
		for name, encoding := range map[string]*base64.Encoding{"base64": base64.RawStdEncoding, "base64url": base64.RawURLEncoding} {
			encoded := encoding.EncodeToString(append(make([]byte, shift), text...))
			// The first and the last characters depend on the neighbours too.
			first := (shift*8 + 5) / 6
			last := (shift + len(text)) * 8 / 6
			forms[fmt.Sprintf("%s+%d", name, shift)] = []byte(encoded[first:last])
		}
	}
	return forms
}

func quoted(text string, escapeHTML bool) []byte {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(escapeHTML)
	_ = encoder.Encode(text) // a string can be encoded
	return bytes.Trim(b.Bytes(), "\"\n")
}

// findSpellings looks for these texts in every file under root and returns what it found where, and how many bytes it
// has seen. Files named in except are left out.
func findSpellings(root string, texts []string, except []string) (found []string, seen int64, err error) {
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() || slices.Contains(except, path) {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		seen += int64(len(content))
		for _, text := range texts {
			for form, spelling := range spellings(text) {
				if bytes.Contains(content, spelling) {
					found = append(found, fmt.Sprintf("%s: %s as %s", path, text, form))
				}
			}
		}
		return nil
	})
	return found, seen, err
}

func TestSpellingsAreFound(t *testing.T) {
	const canary = `a/"canary" <ü> & 100%?`
	for shift := range 3 {
		text := strings.Repeat("x", shift) + canary + "yz"
		for form, content := range map[string][]byte{
			"raw": []byte(text), "hex": []byte(hex.EncodeToString([]byte(text))), "URL": []byte(url.QueryEscape(text)),
			"base64": []byte(base64.StdEncoding.EncodeToString([]byte(text))), "JSON": quoted(text, true),
		} {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "file"), content, 0o600); err != nil {
				t.Fatal(err)
			}
			found, _, err := findSpellings(dir, []string{canary}, nil)
			if err != nil || len(found) == 0 {
				t.Errorf("a canary in %s, %d bytes in, is not found: %v", form, shift, err)
			}
		}
	}
}

// canaries are texts that no file may hold.
type canaries struct {
	values []string // nor any audit file or server log
	paths  []string // audit files do
}

func random(t *testing.T) string {
	t.Helper()
	b := make([]byte, 12)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(b)
}

// release uses the vault in all ways that could leave a canary on a disk.
func release(t *testing.T, l *lab.Lab) canaries {
	t.Helper()
	ctx := within(t, time.Minute)
	core := "kanari" + random(t)
	value := core + `/"canary" <ü> & 100%?`
	folder, leaf, member, note := "folder"+random(t), "leaf"+random(t), "member"+random(t), "note"+random(t)
	path := "can/data/" + folder + "/" + leaf
	secret := map[string]any{"data": map[string]string{member: value}}
	for n := 1; n <= 3; n++ {
		if err := l.Client(n).Write(ctx, path, secret, nil); err != nil {
			t.Fatal(err)
		}
	}
	var read struct{ Data map[string]string }
	if err := l.Client(2).Read(ctx, path, &read); err != nil || read.Data[member] != value {
		t.Fatalf("read of the canary: %v, %v", read.Data, err)
	}
	if err := l.Client(3).Read(ctx, "can/metadata/"+folder+"?list=true", nil); err != nil {
		t.Fatal(err)
	}
	steps := []struct {
		method, path string
		body         any
		want         int
	}{
		{"POST", "can/metadata/" + folder + "/" + leaf, map[string]any{"custom_metadata": map[string]string{"note": note}}, 204},
		{"PATCH", path, map[string]any{"data": map[string]string{"more": value}}, 200},
		{"POST", path, map[string]any{"data": secret["data"], "options": map[string]int{"cas": 99}}, 400},
		{"POST", "can/" + folder + "/" + leaf, secret, 0},
		{"GET", "nowhere/" + folder + "/" + leaf, nil, 0},
		{"POST", "cubbyhole/" + leaf, map[string]string{member: value}, 204},
		{"DELETE", path, nil, 204},
	}
	for _, step := range steps {
		answer, err := l.Client(1).Do(ctx, step.method, step.path, step.body)
		if err == nil && step.want != 0 {
			err = answer.Want(step.want)
		}
		if err != nil {
			t.Fatalf("%s %s: %v", step.method, step.path, err)
		}
	}
	token, err := l.Client(1).Token(ctx, map[string]any{"policies": []string{"default"}, "meta": map[string]string{"note": note}})
	if err != nil {
		t.Fatal(err)
	}
	return canaries{values: append([]string{core, value, token, l.RootToken}, l.UnsealKeys...), paths: []string{folder, leaf, member, note}}
}

// TestNothingReadableOnDisk looks for what clients sent, and for keys, in every file of every node.
func TestNothingReadableOnDisk(t *testing.T) {
	l := startLab(t, 3)
	mountKV(t, l, "can")
	birds := release(t, l)
	scan := func(when string) {
		t.Helper()
		for n, dir := range l.DataDirs {
			found, seen, err := findSpellings(dir, append(slices.Clone(birds.values), birds.paths...), l.AuditFiles)
			if err != nil {
				t.Fatal(err)
			}
			if seen < 1000 {
				t.Errorf("%s: node %d has %d bytes in %s", when, n+1, seen, dir)
			}
			for _, f := range found {
				t.Errorf("%s: %s", when, f)
			}
		}
		for _, file := range append(slices.Clone(l.AuditFiles), l.LogFiles...) {
			found, _, err := findSpellings(file, birds.values, nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range found {
				t.Errorf("%s: %s", when, f)
			}
		}
	}
	eventually(t, time.Minute, func(context.Context) error { return scannable(l, birds.paths[0]) })
	for n := 1; n <= 3; n++ {
		if err := l.Kill(n); err != nil {
			t.Fatal(err)
		}
	}
	scan("after SIGKILL")
	if err := l.Start(within(t, time.Minute), 1, 2, 3); err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= 3; n++ {
		if err := l.Terminate(n); err != nil {
			t.Fatal(err)
		}
	}
	scan("after SIGTERM")
}

// scannable returns nil when all audit files show a path: what the scan must not find elsewhere was really there.
func scannable(l *lab.Lab, path string) error {
	for _, file := range l.AuditFiles {
		content, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if !bytes.Contains(content, []byte(path)) {
			return fmt.Errorf("%s does not show the path yet", file)
		}
	}
	return nil
}
