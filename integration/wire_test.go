package integration

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"conclave/integration/lab"
)

// wire sends bytes to a node that no HTTP client would send.
type wire struct {
	lab  *lab.Lab
	node int
	conn *tls.Conn
	read *bufio.Reader
}

// wireTimeout bounds one exchange.
const wireTimeout = 30 * time.Second

// exchange sends a request and returns the status of its answer; 0 if the node closed the connection instead.
func (w *wire) exchange(method, head string, body io.Reader) (status int, answer string, err error) {
	if w.conn == nil {
		dialer := &tls.Dialer{Config: w.lab.TLS()}
		conn, err := dialer.Dial("tcp", strings.TrimPrefix(w.lab.Addrs[w.node-1], "https://"))
		if err != nil {
			return 0, "", err
		}
		w.conn, w.read = conn.(*tls.Conn), bufio.NewReader(conn)
	}
	if err := w.conn.SetDeadline(time.Now().Add(wireTimeout)); err != nil {
		return 0, "", err
	}
	_, sendErr := io.WriteString(w.conn, head)
	if sendErr == nil && body != nil {
		_, sendErr = io.Copy(w.conn, body)
	}
	// A node that has heard enough answers, and closes before everything is sent.
	response, err := http.ReadResponse(w.read, &http.Request{Method: method})
	for err == nil && response.StatusCode == http.StatusContinue {
		response, err = http.ReadResponse(w.read, &http.Request{Method: method})
	}
	if err != nil {
		w.close()
		if sendErr != nil || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
			return 0, "", nil
		}
		return 0, "", err
	}
	text, err := io.ReadAll(response.Body)
	if err != nil || sendErr != nil || response.Close {
		w.close()
	}
	return response.StatusCode, string(text), nil
}

func (w *wire) close() {
	if w.conn != nil {
		_ = w.conn.Close() // it is broken, or was closed by the other side
		w.conn = nil
	}
}

// head makes the head of a request with the root token and a body of this length; less than 0: none.
func (w *wire) head(method, target string, length int, headers ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: vault\r\nX-Vault-Token: %s\r\n", method, target, w.lab.RootToken)
	if length >= 0 {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", length)
	}
	for _, h := range headers {
		b.WriteString(h + "\r\n")
	}
	b.WriteString("\r\n")
	return b.String()
}

// wantStatus sends one request and fails the test unless it is answered with one of these.
func (w *wire) wantStatus(t *testing.T, name, method, head string, body io.Reader, want ...int) {
	t.Helper()
	status, answer, err := w.exchange(method, head, body)
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	for _, s := range want {
		if status == s {
			return
		}
	}
	t.Errorf("%s: status %d, want %v: %.300s", name, status, want, answer)
}
