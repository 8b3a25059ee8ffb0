package lease

import (
	"encoding/json"
	"io"
	"strings"
	"time"

	"conclave"
	"conclave/internal/timeline"
)

// Limits of leases.
const (
	maxData     = 64 << 10 // bytes that an engine keeps in a lease
	maxID       = 4096     // bytes
	maxSegments = 60       // of an id
	maxError    = 512      // bytes of why an attempt failed
	// MaxStep is the most that one step may be asked to do.
	MaxStep = 1000
)

const (
	idDir        = "lease/id/"
	expiryIndex  = timeline.Index("lease/expiry/")
	endingDir    = "lease/ending/"
	dueDir       = "lease/due/"
	abandonedDir = "lease/abandoned/"
	damagedDir   = "lease/damaged/"
	mountDir     = "lease/mount/"
	countDir     = "lease/count/"
)

func dueIndex(mount string) timeline.Index { return timeline.Index(dueDir + mount + "/") }

// Record is what is stored of a lease. Times are Unix nanoseconds. Records that are loaded are shared: they must not be
// changed.
type Record struct {
	ID        string          `json:"id"`
	MountUUID string          `json:"mount"`
	MountPath string          `json:"mount_path"` // when it was granted
	Path      string          `json:"path"`       // of the request, relative to the mount
	Issued    int64           `json:"issued"`
	Expires   int64           `json:"expires"`
	Renewed   int64           `json:"renewed,omitempty"` // last renewal, 0 if never
	Renewable bool            `json:"renewable,omitempty"`
	MaxTTL    time.Duration   `json:"max_ttl,omitempty"` // what the engine said; 0 is the mount's
	Look      int64           `json:"look"`              // where its entry in the index of expiry is
	Owner     *Owner          `json:"owner,omitempty"`   // nil: no token that could end
	Counted   string          `json:"counted,omitempty"` // by which lease count
	Intent    bool            `json:"intent,omitempty"`  // what it stands for is being made; its request hasn't confirmed it
	Data      json.RawMessage `json:"data"`
	Ending    *Ending         `json:"ending,omitempty"` // nil while the lease runs
}

// Owner is the token that a lease ends with.
type Owner struct {
	NamespaceID string `json:"namespace"` // where the token lives: the lease's namespace, or one above
	Namespace   string `json:"namespace_path"`
	Token       string `json:"token"` // its name
}

// Held is what a token's home keeps of a lease that ends with it, JSON.
type Held struct {
	NamespaceID string `json:"namespace"` // the lease's
	Namespace   string `json:"namespace_path"`
	ID          string `json:"id"`
}

// Ending is how far the end of a lease is.
type Ending struct {
	Why      string `json:"why"`   // "expired", "revoked", "token", "prefix", "unconfirmed", "unanswered"
	Since    int64  `json:"since"` // when it was over
	Next     int64  `json:"next"`  // the next attempt
	Attempts int    `json:"attempts,omitempty"`
	Error    string `json:"error,omitempty"` // of the last attempt
	// Force has it abandoned when the next attempt fails; Reason and By are who wants that, and why.
	Force  bool   `json:"force,omitempty"`
	Reason string `json:"reason,omitempty"`
	By     string `json:"by,omitempty"` // the display name of who abandoned it
}

// Key is the last segment of the lease's id, unique in its namespace.
func (r *Record) Key() string { return keyOf(r.ID) }

func keyOf(id string) string { return id[strings.LastIndexByte(id, '/')+1:] }

// Granted is the lease as its engine sees it.
func (r *Record) Granted() *conclave.GrantedLease {
	g := &conclave.GrantedLease{ID: r.ID, Path: r.Path, Issued: time.Unix(0, r.Issued).UTC(), Expires: time.Unix(0, r.Expires).UTC(), Data: r.Data}
	if r.Renewed != 0 {
		g.Renewed = time.Unix(0, r.Renewed).UTC()
	}
	return g
}

func decode(value []byte) (any, error) {
	r := &Record{}
	if err := json.Unmarshal(value, r); err != nil || r.ID == "" || r.MountUUID == "" || r.Issued == 0 || r.Expires == 0 {
		return nil, errDamaged
	}
	return r, nil
}

func loadAt(view conclave.View, path string) (*Record, error) {
	value, err := view.Get(path)
	if err != nil || value == nil {
		return nil, err
	}
	decoded, err := decode(value)
	r, _ := decoded.(*Record)
	return r, err
}

// load returns the record of a lease that runs as far as its record tells, nil if there is none.
func load(view conclave.View, id string) (*Record, error) {
	if !validID(id) {
		return nil, nil
	}
	return loadAt(view, idDir+id)
}

func storeAt(tx conclave.Tx, path string, r *Record) error {
	value, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return tx.Put(path, value)
}

// validID tells what can be an id: anything else is looked for nowhere.
func validID(id string) bool {
	at := strings.LastIndexByte(id, '/')
	return at > 0 && validPrefix(id[:at]) && len(id) <= maxID && validKey(id[at+1:])
}

func validKey(key string) bool {
	letters, namespace, below := strings.Cut(key, ".")
	return len(letters) == keyLetters && isBase62(letters) && (!below || namespace != "" && len(namespace) <= 64 && isBase62(namespace))
}

// validPrefix tells what can lie above leases.
func validPrefix(prefix string) bool {
	segments := strings.Split(prefix, "/")
	if len(prefix) > maxID || len(segments) > maxSegments {
		return false
	}
	for _, segment := range segments {
		if segment == "" || len(segment) >= conclave.MaxName {
			return false
		}
	}
	return true
}

const (
	keyLetters = 24
	base62     = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

func isBase62(text string) bool { return strings.Trim(text, base62) == "" }

// Mint makes the random letters of a lease's id, once per request. random must be a cryptographic source.
func Mint(random io.Reader) (string, error) {
	key := make([]byte, 0, keyLetters)
	var raw [2 * keyLetters]byte
	for range 16 {
		if _, err := io.ReadFull(random, raw[:]); err != nil {
			break
		}
		for _, b := range raw {
			if b < 4*62 && len(key) < keyLetters { // above, the first letters would be likelier
				key = append(key, base62[b%62])
			}
		}
		if len(key) == keyLetters {
			return string(key), nil
		}
	}
	return "", conclave.Errorf(conclave.Internal, "no randomness for a lease")
}
