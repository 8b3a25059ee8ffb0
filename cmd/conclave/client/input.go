package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// maxInput bounds what is read from standard input or a file for one request, in bytes: the server takes no more.
const maxInput = 32 << 20

// Data is what arguments say in the grammar of Vault's command line:
//
//	key=value    a field; a key that is given more than once becomes a list
//	key=@file    a field with the contents of a file; \@ begins a value with a plain @
//	key=-        a field with what standard input has; a terminal is asked for one line, which it doesn't show
//	@file        an object of JSON: its fields
//	-            the same from standard input
func (s *Session) Data(args []string) (map[string]any, error) {
	data := make(map[string]any)
	stdinUsed := false
	stdin := func() ([]byte, error) {
		if stdinUsed {
			return nil, Usagef("standard input can be read only once")
		}
		stdinUsed = true
		return readAll(s.In)
	}
	for _, arg := range args {
		key, value, pair := strings.Cut(arg, "=")
		var text []byte
		var err error
		switch {
		case pair && key != "" && value == "-" && s.terminal() != nil:
			answer, err := s.Prompt(key)
			if err != nil {
				return nil, err
			}
			addField(data, key, answer)
			continue
		case arg == "-":
			text, err = stdin()
		case strings.HasPrefix(arg, "@"):
			text, err = readFile(arg[1:])
		case !pair || key == "":
			return nil, Usagef("%q is not key=value, @file or -", redactArgument(arg))
		default:
			if text, err = fieldValue(value, stdin); err != nil {
				return nil, err
			}
			addField(data, key, string(text))
			continue
		}
		if err != nil {
			return nil, err
		}
		if err := addObject(data, text); err != nil {
			return nil, err
		}
	}
	return data, nil
}

// redactArgument is an argument that may be a secret by mistake, for an error.
func redactArgument(arg string) string {
	const shown = 3
	if len(arg) <= shown {
		return arg
	}
	return arg[:shown] + "…"
}

func fieldValue(value string, stdin func() ([]byte, error)) ([]byte, error) {
	switch {
	case value == "-":
		return stdin()
	case strings.HasPrefix(value, "@"):
		return readFile(value[1:])
	case strings.HasPrefix(value, `\@`):
		return []byte(value[1:]), nil
	}
	return []byte(value), nil
}

func addField(data map[string]any, key string, value any) {
	switch old := data[key].(type) {
	case nil:
		data[key] = value
	case []any:
		data[key] = append(old, value)
	default:
		data[key] = []any{old, value}
	}
}

func addObject(data map[string]any, text []byte) error {
	dec := json.NewDecoder(strings.NewReader(string(text)))
	dec.UseNumber()
	var object map[string]any
	if err := dec.Decode(&object); err != nil {
		return Usagef("the input is not an object of JSON")
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Usagef("the input has more than one object of JSON")
	}
	for key, value := range object {
		addField(data, key, value)
	}
	return nil
}

// Pairs are the key=value texts of a flag as fields, with null for each key of gone, which a merge patch removes.
func Pairs(flag string, pairs, gone []string) (map[string]any, error) {
	fields := make(map[string]any)
	for _, text := range pairs {
		key, value, ok := strings.Cut(text, "=")
		if !ok || key == "" {
			return nil, Usagef("-%s is key=value", flag)
		}
		fields[key] = value
	}
	for _, key := range gone {
		fields[key] = nil
	}
	return fields, nil
}

func readAll(r io.Reader) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxInput+1))
	if err != nil {
		return nil, localf("read standard input: %w", err)
	}
	if len(text) > maxInput {
		return nil, localf("the input has more than %d MiB", maxInput>>20)
	}
	return text, nil
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, localf("%w", err)
	}
	defer f.Close()
	return readAll(f)
}

// Text is the contents of a file, or of standard input where path is "-".
func (s *Session) Text(path string) (string, error) {
	var text []byte
	var err error
	if path == "-" {
		text, err = readAll(s.In)
	} else {
		text, err = readFile(path)
	}
	return string(text), err
}

// terminal is standard input if it is a terminal, and nil otherwise.
func (s *Session) terminal() *os.File {
	if f, ok := s.In.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return f
	}
	return nil
}

// Prompt asks for a secret on the terminal without showing it. Where there is no terminal it reads a line of standard
// input.
func (s *Session) Prompt(question string) (string, error) {
	if f := s.terminal(); f != nil {
		if s.NonInteractive {
			return "", Usagef("%s is needed, and -non-interactive forbids to ask for it: give it on standard input", question)
		}
		fmt.Fprintf(s.Err, "%s (will be hidden): ", question)
		secret, err := term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(s.Err)
		if err != nil {
			return "", localf("read the terminal: %w", err)
		}
		return strings.TrimSpace(string(secret)), nil
	}
	line, err := readLine(s.In)
	if err != nil {
		return "", localf("read standard input: %w", err)
	}
	if line = strings.TrimSpace(line); line == "" {
		return "", Usagef("%s is needed: type it when asked, or give it on standard input", question)
	}
	return line, nil
}

// readLine reads to the end of a line and no further, so that the next line answers the next question.
func readLine(r io.Reader) (string, error) {
	var line []byte
	for next := make([]byte, 1); len(line) < maxToken; {
		n, err := r.Read(next)
		if n == 1 && next[0] == '\n' || errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", err
		}
		line = append(line, next[:n]...)
	}
	return string(line), nil
}

// Secret is one secret of a command: from the prompt when arg is empty, from standard input when it is "-", from a file
// when it is "@file". What else arg holds is the secret itself.
func (s *Session) Secret(arg, question string) (string, error) {
	switch {
	case arg == "":
		return s.Prompt(question)
	case arg == "-":
		text, err := readAll(io.LimitReader(s.In, maxToken))
		return strings.TrimSpace(string(text)), err
	case strings.HasPrefix(arg, "@"):
		text, err := readFile(arg[1:])
		return strings.TrimSpace(string(text)), err
	}
	return arg, nil
}
