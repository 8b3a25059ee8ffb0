package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// conn is one HTTP/1.1 connection for requests that are put together in advance. It reads of an answer what it must to
// find its end, and its status: a general client would take more CPU time than the server that is measured.
type conn struct {
	tls  *tls.Conn
	read *bufio.Reader
	body []byte // start of the last answer that was not a success, for messages
}

func dial(addr string, config *tls.Config) (*conn, error) {
	host := strings.TrimPrefix(addr, "https://")
	c, err := tls.Dial("tcp", host, config)
	if err != nil {
		return nil, err
	}
	return &conn{tls: c, read: bufio.NewReaderSize(c, 8<<10)}, nil
}

func (c *conn) close() { _ = c.tls.Close() } // nothing that it could say would matter

// deadline bounds all exchanges until the next call: one timer, not one a request.
func (c *conn) deadline(at time.Time) error { return c.tls.SetDeadline(at) }

var errAnswer = errors.New("malformed answer")

// statusError is an answer that isn't a success.
type statusError struct {
	status int
	body   string
}

func (e *statusError) Error() string { return fmt.Sprintf("status %d: %s", e.status, e.body) }

// exchange sends a request and returns when its answer has come. An answer that is no success is a *statusError, after
// which the connection is good; after any other error it isn't.
func (c *conn) exchange(request []byte) error {
	if _, err := c.tls.Write(request); err != nil {
		return err
	}
	return c.answer()
}

func (c *conn) answer() error {
	line, err := c.read.ReadSlice('\n')
	if err != nil {
		return err
	}
	if len(line) < 13 || !bytes.HasPrefix(line, []byte("HTTP/1.1 ")) {
		return errAnswer
	}
	status, err := strconv.Atoi(string(line[9:12]))
	if err != nil {
		return errAnswer
	}
	length, err := c.headers(status)
	if err != nil {
		return err
	}
	good := status >= 200 && status < 300
	c.body = c.body[:0]
	if length >= 0 {
		err = c.skip(length, !good)
	} else {
		err = c.chunks(!good)
	}
	if err != nil || good {
		return err
	}
	return &statusError{status, string(c.body)}
}

// chunked is the length of a body that comes in chunks.
const chunked = -1

// headers reads to the end of the headers and returns the length of the body.
func (c *conn) headers(status int) (length int, err error) {
	length = 0
	for {
		line, err := c.read.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			if status == 204 || status == 304 {
				length = 0
			}
			return length, nil
		}
		// Only two headers matter, and few begin like them.
		switch line[0] | 0x20 {
		case 'c':
			if value, ok := header(line, "content-length:"); ok {
				if length, err = strconv.Atoi(string(value)); err != nil || length < 0 {
					return 0, errAnswer
				}
			}
		case 't':
			if value, ok := header(line, "transfer-encoding:"); ok && string(value) == "chunked" {
				length = chunked
			}
		}
	}
}

func header(line []byte, name string) (value []byte, ok bool) {
	if len(line) < len(name) || !bytes.EqualFold(line[:len(name)], []byte(name)) {
		return nil, false
	}
	return bytes.TrimSpace(line[len(name):]), true
}

// maxKept is how much of an unsuccessful answer is kept, in bytes.
const maxKept = 300

func (c *conn) skip(n int, keep bool) error {
	if keep {
		kept := min(n, maxKept)
		start, err := c.read.Peek(kept)
		if err != nil {
			return err
		}
		c.body = append(c.body, start...)
	}
	_, err := c.read.Discard(n)
	return err
}

func (c *conn) chunks(keep bool) error {
	for {
		line, err := c.read.ReadSlice('\n')
		if err != nil {
			return err
		}
		size, err := strconv.ParseUint(string(bytes.TrimRight(line, "\r\n")), 16, 31)
		if err != nil {
			return errAnswer
		}
		if err := c.skip(int(size), keep && len(c.body) == 0); err != nil {
			return err
		}
		if _, err := c.read.ReadSlice('\n'); err != nil { // the end of the chunk, or of the body
			return err
		}
		if size == 0 {
			return nil
		}
	}
}

// appendRequest puts a request together. Each of a target's requests names the same host.
func appendRequest(dst []byte, method, path, token string, body []byte) []byte {
	dst = append(append(append(dst, method...), " /v1/"...), path...)
	dst = append(dst, " HTTP/1.1\r\nHost: vault\r\nX-Vault-Token: "...)
	dst = append(dst, token...)
	dst = append(dst, "\r\nX-Vault-Request: true\r\n"...)
	if body != nil {
		dst = append(dst, "Content-Type: application/json\r\nContent-Length: "...)
		dst = strconv.AppendInt(dst, int64(len(body)), 10)
		dst = append(dst, "\r\n"...)
	}
	return append(append(dst, "\r\n"...), body...)
}
