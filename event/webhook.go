package event

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"conclave"
	"conclave/internal/outbound"
)

// Limits of webhooks.
const (
	MaxWebhooks    = 64  // of a namespace
	maxWebhookName = 128 // bytes
	maxURL         = 2048
	maxCA          = 64 << 10 // bytes of certificates in PEM
	maxBatch       = 100      // events of one delivery
	minSecret      = 24       // bytes
	maxSecret      = 64
	secretPrefix   = "whsec_"
)

// webhook is where events are sent to. It is stored as JSON at events/webhook/<name> of its namespace's system space.
type webhook struct {
	ID         string   `json:"id"` // differs from that of an earlier one of the same name
	URL        string   `json:"url"`
	Types      string   `json:"types"`
	Namespaces []string `json:"namespaces,omitempty"`
	Paths      string   `json:"paths,omitempty"`
	Filter     string   `json:"filter,omitempty"`
	Secret     string   `json:"secret"` // base64, behind secretPrefix
	CA         string   `json:"ca,omitempty"`
	Batch      int      `json:"batch"`
}

// progress is how far a webhook has come. It is stored as JSON at events/progress/<name>.
type progress struct {
	ID       string    `json:"id"` // of the webhook
	Cursor   string    `json:"cursor"`
	Sent     uint64    `json:"sent"`
	LastSent time.Time `json:"last_sent,omitzero"`
	Failing  time.Time `json:"failing,omitzero"` // since when nothing gets through; zero: all is well
	Attempts int       `json:"attempts,omitempty"`
	Error    string    `json:"error,omitempty"`
	Lost     time.Time `json:"lost,omitzero"` // when events were last dropped from the log before they were sent
}

const (
	webhookDir  = "events/webhook/"
	progressDir = "events/progress/"
)

func decodeWebhook(value []byte) (any, error) {
	w := new(webhook)
	if json.Unmarshal(value, w) != nil || w.ID == "" || w.URL == "" || w.Batch < 1 || w.Batch > maxBatch {
		return nil, conclave.Errorf(conclave.Internal, "a stored webhook can't be read")
	}
	return w, nil
}

func decodeProgress(value []byte) (any, error) {
	p := new(progress)
	if json.Unmarshal(value, p) != nil {
		return nil, conclave.Errorf(conclave.Internal, "the stored progress of a webhook can't be read")
	}
	return p, nil
}

// load returns the object at a path, nil if there is none. It is shared, and must not be changed.
func load[T any](view conclave.View, path string, decode func([]byte) (any, error)) (*T, error) {
	loaded, err := view.Load(path, decode)
	object, _ := loaded.(*T)
	return object, err
}

func store(tx conclave.Tx, path string, object any) error {
	value, err := json.Marshal(object)
	if err != nil {
		return err
	}
	return tx.Put(path, value)
}

// selection is which events the webhook gets.
func (w *webhook) selection(namespace string) (Selection, error) {
	filter, err := ParseFilter(w.Filter)
	s := Selection{Types: w.Types, Namespace: namespace, Namespaces: w.Namespaces, Paths: w.Paths, Filter: filter}
	if err == nil {
		err = s.Check()
	}
	return s, err
}

// check reports what is wrong with a webhook.
func (w *webhook) check() error {
	if len(w.URL) > maxURL || !strings.HasPrefix(strings.ToLower(w.URL), "https://") || outbound.CheckURL(w.URL) != nil {
		return conclave.Errorf(conclave.Invalid, "url must begin with https:// and have at most %d bytes, without user and fragment", maxURL)
	}
	if len(w.CA) > maxCA {
		return conclave.Errorf(conclave.Invalid, "ca_cert has at most %d bytes", maxCA)
	}
	if _, err := outbound.Roots(w.CA); err != nil {
		return conclave.Errorf(conclave.Invalid, "ca_cert has no certificate in PEM")
	}
	if w.Batch < 1 || w.Batch > maxBatch {
		return conclave.Errorf(conclave.Invalid, "max_batch is 1 to %d", maxBatch)
	}
	if _, err := secretKey(w.Secret); err != nil {
		return err
	}
	_, err := w.selection("")
	return err
}

// secretKey is the key that a secret spells.
func secretKey(secret string) ([]byte, error) {
	encoded, ok := strings.CutPrefix(secret, secretPrefix)
	key, err := base64.StdEncoding.DecodeString(encoded)
	if !ok || err != nil || len(key) < minSecret || len(key) > maxSecret {
		return nil, conclave.Errorf(conclave.Invalid, "secret must be %s and %d to %d bytes in base64", secretPrefix, minSecret, maxSecret)
	}
	return key, nil
}

// sign makes the signature of Standard Webhooks 1.0 (standardwebhooks.com): "v1," ‖ base64 of
// HMAC-SHA256(key, id ‖ "." ‖ Unix time in seconds ‖ "." ‖ body).
func sign(key []byte, id string, at time.Time, body []byte) string {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(id + "." + strconv.FormatInt(at.Unix(), 10) + "."))
	mac.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}
