// Package events is the command for following what changes.
package events

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/coder/websocket"
	"github.com/hashicorp/vault/api"
	"github.com/spf13/cobra"

	"conclave/cmd/conclave/client"
)

// Times of reconnecting.
const (
	firstPause   = 500 * time.Millisecond
	longestPause = 30 * time.Second
	maxSilence   = time.Minute // of a server, which pings every 20 s
	maxMessage   = 1 << 20     // bytes

	positionType  = "conclave/position" // a message that tells the cursor and nothing else
	positionPause = "60s"
)

// Command is the group.
func Command(s *client.Session) *cobra.Command {
	group := &cobra.Command{Use: "events", Short: "Follow what changes"}
	group.AddCommand(subscribe(s))
	return group
}

// wish is what is to be followed.
type wish struct {
	types, filter, since string
	namespaces           []string
	timeout              time.Duration
	once                 bool
}

func subscribe(s *client.Session) *cobra.Command {
	var w wish
	cmd := &cobra.Command{
		Use: "subscribe [-namespaces=PATTERN] [-filter=EXPRESSION] [-since=CURSOR] TYPE", Short: "Show events of a type as they happen", Args: cobra.ExactArgs(1),
		Long: "Show events of a type as they happen, one line of JSON for each, until you end it. A star in TYPE stands for any text.\n\n" +
			"When the connection is lost the command connects again, and goes on where it was. To go on yourself, give -since the cursor\n" +
			"of the last event that you have seen; -since=oldest begins with the oldest event that is kept.",
		Example: "  conclave events subscribe '*'\n  conclave events subscribe -filter='data_path contains \"app\"' 'kv-v2/data-*'",
		RunE: s.Connected(func(ctx context.Context, c *api.Client, args []string) error {
			w.types = args[0]
			return w.follow(ctx, s, c)
		}),
	}
	cmd.Flags().StringSliceVar(&w.namespaces, "namespaces", nil, "namespaces below, relative to the current one, as `patterns`; may be given several times")
	cmd.Flags().StringVar(&w.filter, "filter", "", "only events for which an `expression` is true, such as operation != \"data-write\"")
	cmd.Flags().StringVar(&w.since, "since", "", "begin after the event that had this `cursor`; or now (default) or oldest")
	cmd.Flags().DurationVar(&w.timeout, "timeout", 0, "end after this `duration`")
	cmd.Flags().BoolVar(&w.once, "once", false, "end when the connection is lost")
	return cmd
}

// follow shows events until ctx ends, connecting again when it must.
func (w *wish) follow(ctx context.Context, s *client.Session, c *api.Client) error {
	if w.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, w.timeout)
		defer cancel()
	}
	if w.since == "" { // so that nothing is missed if the first connection is lost before any event
		if err := w.begin(ctx, c); err != nil {
			return err
		}
	}
	for pause := firstPause; ; {
		before := w.since
		err := w.stream(ctx, s, c)
		var again *lostError
		switch {
		case ctx.Err() != nil:
			return nil
		case !errors.As(err, &again) || w.once:
			return err
		}
		if w.since != before {
			pause = firstPause
		}
		fmt.Fprintf(s.Err, "%s: connecting again\n", again.reason)
		if client.Pause(ctx, pause) != nil {
			return nil
		}
		pause = min(2*pause, longestPause)
	}
}

// begin asks where the subscription begins.
func (w *wish) begin(ctx context.Context, c *api.Client) error {
	secret, err := client.Request(ctx, c, http.MethodGet, w.path(), nil)
	if err != nil {
		return err
	}
	if secret != nil {
		w.since, _ = secret.Data["cursor"].(string)
	}
	return nil
}

func (w *wish) path() string { return "sys/events/subscribe/" + w.types }

// lostError is a connection that was lost, or can't be made for now.
type lostError struct{ reason string }

func (e *lostError) Error() string { return e.reason }

// stream shows events from one connection.
func (w *wish) stream(ctx context.Context, s *client.Session, c *api.Client) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	silence := time.AfterFunc(maxSilence, cancel) // the server pings
	defer silence.Stop()
	conn, err := w.dial(ctx, c, func() { silence.Reset(maxSilence) })
	if err != nil {
		return err
	}
	defer conn.CloseNow()
	conn.SetReadLimit(maxMessage)
	for {
		_, raw, err := conn.Read(ctx)
		if err != nil {
			return ended(err)
		}
		silence.Reset(maxSilence)
		var m struct {
			Cursor string `json:"cursor"`
			Data   struct {
				Type string `json:"event_type"`
			} `json:"data"`
		}
		if err := json.Unmarshal(raw, &m); err != nil {
			return client.Remotef("the server sent what is no event: %w", err)
		}
		w.since = m.Cursor
		if m.Data.Type == positionType {
			continue
		}
		if _, err := s.Out.Write(append(bytes.TrimSpace(raw), '\n')); err != nil {
			return err
		}
	}
}

// ended tells whether it is worth connecting again.
func ended(err error) error {
	var closed websocket.CloseError
	if !errors.As(err, &closed) {
		return &lostError{"the connection was lost"}
	}
	reason := closed.Reason
	if reason == "" {
		reason = "the server closed the connection"
	}
	if closed.Code == websocket.StatusPolicyViolation {
		return client.Remotef("%s", reason)
	}
	return &lostError{reason}
}

func (w *wish) dial(ctx context.Context, c *api.Client, pinged func()) (*websocket.Conn, error) {
	r := c.NewRequest(http.MethodGet, "/v1/"+w.path())
	u := *r.URL
	u.Scheme = map[string]string{"http": "ws", "https": "wss"}[u.Scheme]
	query := url.Values{"json": {"true"}, "since": {w.since}, "positions": {positionPause}}
	if w.filter != "" {
		query.Set("filter", w.filter)
	}
	for _, pattern := range w.namespaces {
		query.Add("namespaces", pattern)
	}
	u.RawQuery = query.Encode()
	header := r.Headers.Clone()
	if header == nil {
		header = http.Header{}
	}
	header.Set("X-Vault-Token", c.Token())
	conn, response, err := websocket.Dial(ctx, u.String(), &websocket.DialOptions{HTTPClient: plain(c), HTTPHeader: header, Host: r.Host,
		OnPingReceived: func(context.Context, []byte) bool {
			pinged()
			return true
		}})
	if err == nil {
		return conn, nil
	}
	if response == nil {
		return nil, &lostError{"the server can't be reached"}
	}
	return nil, refused(response)
}

// refused is the server's word on why it gave no connection.
func refused(response *http.Response) error {
	var body struct {
		Errors []string `json:"errors"`
	}
	if response.Body != nil {
		defer response.Body.Close()
		_ = json.NewDecoder(http.MaxBytesReader(nil, response.Body, maxMessage)).Decode(&body)
	}
	if slices.Contains([]int{http.StatusServiceUnavailable, http.StatusTooManyRequests, http.StatusBadGateway, http.StatusGatewayTimeout}, response.StatusCode) {
		return &lostError{"the server answers with status " + response.Status}
	}
	return &api.ResponseError{HTTPMethod: http.MethodGet, URL: response.Request.URL.String(), StatusCode: response.StatusCode, Errors: body.Errors}
}

// plain is the client's HTTP client as WebSockets need it: HTTP/1.1, and no limit on how long an answer takes.
func plain(c *api.Client) *http.Client {
	base := c.CloneConfig().HttpClient
	transport, ok := base.Transport.(*http.Transport)
	if !ok {
		return &http.Client{Transport: base.Transport}
	}
	transport = transport.Clone()
	transport.ForceAttemptHTTP2 = false
	transport.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	if transport.TLSClientConfig != nil {
		transport.TLSClientConfig.NextProtos = slices.DeleteFunc(slices.Clone(transport.TLSClientConfig.NextProtos), func(proto string) bool { return strings.HasPrefix(proto, "h2") })
	}
	return &http.Client{Transport: transport}
}
