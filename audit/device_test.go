package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"conclave"
	"conclave/engine/enginetest"
)

// api executes requests on the routes, as the pipeline does: each in a transaction.
type api struct {
	t       *testing.T
	tx      *enginetest.Memory
	request *conclave.Request
	router  *conclave.Router
	dir     string
}

func newAPI(t *testing.T) *api {
	dir := t.TempDir()
	folders, err := NewFolders([]string{dir})
	if err != nil {
		t.Fatal(err)
	}
	hash := func(input string) (string, error) { return testHasher().Hash(input), nil }
	a := &api{t, enginetest.NewMemory(t), &conclave.Request{}, conclave.NewRouter(Routes(folders, hash)), dir}
	a.tx.SetRequest(a.request)
	return a
}

func (a *api) do(op conclave.Operation, path, body string) (any, error) {
	a.t.Helper()
	route, params, err := a.router.Find(op, path)
	if err != nil {
		a.t.Fatal(err)
	}
	fields := map[string]any{}
	if body != "" {
		decoder := json.NewDecoder(strings.NewReader(body))
		decoder.UseNumber()
		if err := decoder.Decode(&fields); err != nil {
			a.t.Fatal(err)
		}
	}
	in, err := route.Bind(params, fields)
	if err != nil {
		return nil, err
	}
	ctx := context.Background()
	if route.Prepare != nil {
		prepared, err := route.Prepare(ctx, a.request, in)
		if err != nil {
			return nil, err
		}
		ctx = conclave.WithPrepared(ctx, prepared)
	}
	response, err := route.Handle(ctx, a.tx, in)
	if err := a.tx.End(err); err != nil {
		return nil, err
	}
	return response.Data, nil
}

func (a *api) enable(path, file string) error {
	_, err := a.do(conclave.Update, "audit/"+path, fmt.Sprintf(`{"type":"file","description":"d","options":{"file_path":%q,"mode":"0600"}}`, file))
	return err
}

func TestDeviceIsEnabledListedAndDisabled(t *testing.T) {
	a := newAPI(t)
	file := filepath.Join(a.dir, "audit.log")
	for _, path := range []string{"file/", "team/a"} {
		if err := a.enable(path, file); err != nil {
			t.Fatal(err)
		}
		file += ".2"
	}
	got, err := a.do(conclave.Read, "audit", "")
	if err != nil {
		t.Fatal(err)
	}
	list := got.(map[string]deviceOutput)
	if d := list["file/"]; len(list) != 2 || d.Type != "file" || d.Path != "file/" || d.Options["file_path"] != filepath.Join(a.dir, "audit.log") ||
		list["team/a/"].Path != "team/a/" {
		t.Errorf("list = %+v", list)
	}
	devices, err := Devices(a.tx)
	if err != nil || len(devices) != 2 || !devices[0].Enabled.Equal(a.tx.Now()) || devices[0].FilePath() != filepath.Join(a.dir, "audit.log") {
		t.Errorf("Devices = %+v, %v", devices, err)
	}
	for range 2 { // disabling twice is no error
		if _, err := a.do(conclave.Delete, "audit/file", ""); err != nil {
			t.Fatal(err)
		}
	}
	if devices, err := Devices(a.tx); err != nil || len(devices) != 1 || devices[0].Path != "team/a" {
		t.Errorf("after disabling: %+v, %v", devices, err)
	}
}

func TestDeviceIsRefused(t *testing.T) {
	a := newAPI(t)
	if err := a.enable("first", filepath.Join(a.dir, "audit.log")); err != nil {
		t.Fatal(err)
	}
	good := fmt.Sprintf(`"file_path":%q`, filepath.Join(a.dir, "b.log"))
	rows := []struct{ path, body, want string }{
		{"x", `{"type":"syslog"}`, "is file"},
		{"x", `{"type":"file"}`, "file_path is required: a file in one of " + a.dir},
		{"x", `{"type":"file","options":{"file_path":"/etc/passwd"}}`, "none of the configured"},
		{"x", `{"type":"file","options":{"file_path":"` + a.dir + `/../x.log"}}`, "none of the configured"},
		{"x", `{"type":"file","options":{"file_path":"stdout"}}`, "absolute"},
		{"x", `{"type":"file","options":{"file_path":"` + a.dir + `/a.cursor"}}`, ".cursor"},
		{"x", `{"type":"file","options":{"file_path":"` + a.dir + `/a.cursor.new"}}`, ".cursor"},
		{"x", `{"type":"file","options":{` + good + `,"prefix":"#!/bin/sh"}}`, "prefix is not supported"},
		{"x", `{"type":"file","options":{` + good + `,"prefix":""}}`, "prefix is not supported"},
		{"x", `{"type":"file","options":{` + good + `,"mode":"0755"}}`, "0600"},
		{"x", `{"type":"file","options":{` + good + `,"format":"jsonx"}}`, `"jsonx" is not supported`},
		{"x", `{"type":"file","options":{` + good + `,"log_raw":true}}`, "log_raw"},
		{"x", `{"type":"file","options":{` + good + `,"hmac_accessor":"false"}}`, "hmac_accessor"},
		{"x", `{"type":"file","options":{` + good + `,"filter":"x"}}`, "unknown option"},
		{"x", `{"type":"file","options":{"file_path":"` + a.dir + `/audit.log"}}`, "writes to this file already"},
		{"first", `{"type":"file","options":{` + good + `}}`, "already in use"},
		{"first/second", `{"type":"file","options":{` + good + `}}`, "already in use"},
		{"1/2/3/4/5", `{"type":"file","options":{` + good + `}}`, "segments"},
	}
	for _, row := range rows {
		_, err := a.do(conclave.Update, "audit/"+row.path, row.body)
		if !conclave.Is(err, conclave.Invalid) || !strings.Contains(err.Error(), row.want) {
			t.Errorf("enable %s with %s: %v, want invalid: %s", row.path, row.body, err, row.want)
		}
	}
	a.request.Namespace = "team/"
	if err := a.enable("x", filepath.Join(a.dir, "b.log")); !conclave.Is(err, conclave.Unsupported) {
		t.Errorf("enable in a namespace: %v, want unsupported", err)
	}
}

func TestDevicesAreBounded(t *testing.T) {
	a := newAPI(t)
	for i := range MaxDevices {
		if err := a.enable(fmt.Sprint("d", i), filepath.Join(a.dir, fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.enable("more", filepath.Join(a.dir, "more")); !conclave.Is(err, conclave.Invalid) {
		t.Errorf("enable of one too many: %v, want invalid", err)
	}
}

func TestWithoutDirectoriesNothingIsEnabled(t *testing.T) {
	folders, err := NewFolders(nil)
	if err != nil {
		t.Fatal(err)
	}
	err = checkDevice(&Device{Type: "file", Options: map[string]string{"file_path": "/var/log/x"}}, folders)
	if !conclave.Is(err, conclave.Invalid) || !strings.Contains(err.Error(), "names no directory") {
		t.Errorf("checkDevice = %v, want that there are no directories", err)
	}
}

func TestAuditHashIsThatOfRecords(t *testing.T) {
	a := newAPI(t)
	if err := a.enable("file", filepath.Join(a.dir, "audit.log")); err != nil {
		t.Fatal(err)
	}
	got, err := a.do(conclave.Update, "audit-hash/file", `{"input":"value"}`)
	if out, ok := got.(*hashOutput); err != nil || !ok || out.Hash != hashed("value") {
		t.Errorf("audit-hash = %v, %v, want %s", got, err, hashed("value"))
	}
	if _, err := a.do(conclave.Update, "audit-hash/other", `{"input":"value"}`); !conclave.Is(err, conclave.Invalid) {
		t.Errorf("audit-hash of no device: %v, want invalid", err)
	}
	if _, err := a.do(conclave.Update, "audit-hash/file", `{}`); !conclave.Is(err, conclave.Invalid) {
		t.Errorf("audit-hash of nothing: %v, want invalid", err)
	}
}

func TestFoldersRefuseWhatIsNotOurs(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	folders, err := NewFolders([]string{dir})
	if err != nil {
		t.Fatal(err)
	}
	write := func(path, content string, mode os.FileMode) string {
		t.Helper()
		if err := errors.Join(os.WriteFile(path, []byte(content), mode), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	line := `{"time":"2026-03-04T05:06:07Z","type":"request","request":{}}` + "\n"
	target := write(filepath.Join(outside, "target"), "", 0o600)
	ours := write(in("ours.log"), line, 0o600)
	err = errors.Join(os.Symlink(target, in("link")), os.Symlink(ours, in("inner")), os.Symlink(outside, in("away")), os.Mkdir(in("sub"), 0o700),
		os.Symlink(dir, filepath.Join(outside, "back")), os.Link(target, in("hard")))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{ours, in("new.log"), in("sub/new.log"), write(in("empty"), "", 0o600), filepath.Join(outside, "back/new.log")} {
		if err := folders.Check(path); err != nil {
			t.Errorf("Check(%s) = %v, want nil", path, err)
		}
	}
	for _, path := range []string{in("link"), in("inner"), in("away/x"), in("sub"), in("hard"), target, "relative", dir, in("missing/x"), dir + "/sub/../x",
		write(in("foreign"), "#!/bin/sh\n", 0o600), write(in("open"), line, 0o644), write(in("run"), line, 0o700)} {
		if err := folders.Check(path); !conclave.Is(err, conclave.Invalid) {
			t.Errorf("Check(%s) = %v, want invalid", path, err)
		}
	}
	if _, err := os.Stat(in("new.log")); !os.IsNotExist(err) {
		t.Errorf("Check made a file")
	}
}

func TestFoldersMustBeSafe(t *testing.T) {
	open := t.TempDir()
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"relative", "/does/not/exist", open} {
		if _, err := NewFolders([]string{dir}); err == nil {
			t.Errorf("NewFolders(%s) is no error", dir)
		}
	}
}
