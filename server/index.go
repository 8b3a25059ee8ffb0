package server

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"conclave"
)

// The header X-Vault-Index carries how far in the log a client has seen. Vault's SDKs take it from answers, merge what
// they got from several, and send it with their next requests:
//
//	base64("v1:" cluster id ":" local index ":" replicated index ":" hex HMAC-SHA-256 of all before this colon)
//
// There is one index here, so both numbers are it. The HMAC's key is made from the cluster id, which is no secret: it
// shows damage, not forgery. A forged index buys its sender a bounded wait and nothing else.
const indexHeader = "X-Vault-Index"

var (
	errIndexFormat  = conclave.Errorf(conclave.Invalid, "malformed %s header", indexHeader)
	errIndexCluster = conclave.Errorf(conclave.Precondition, "the index in the %s header is another cluster's", indexHeader)
	errIndexUnmet   = conclave.Errorf(conclave.Precondition, "this node has not reached the index in the %s header yet", indexHeader)
)

func indexMAC(clusterID, state string) []byte {
	mac := hmac.New(sha256.New, []byte("conclave index v1:"+clusterID))
	mac.Write([]byte(state))
	return mac.Sum(nil)
}

func formatIndex(clusterID string, index uint64) string {
	number := strconv.FormatUint(index, 10)
	state := "v1:" + clusterID + ":" + number + ":" + number
	return base64.StdEncoding.EncodeToString([]byte(state + ":" + hex.EncodeToString(indexMAC(clusterID, state))))
}

// parseIndex returns the index of one header value.
func parseIndex(value, clusterID string) (uint64, error) {
	decoded, err := base64.StdEncoding.DecodeString(value)
	if err != nil {
		return 0, errIndexFormat
	}
	pieces := strings.Split(string(decoded), ":")
	if len(pieces) != 5 || pieces[0] != "v1" || pieces[1] == "" {
		return 0, errIndexFormat
	}
	sum, err := hex.DecodeString(pieces[4])
	state, _, _ := strings.Cut(string(decoded), ":"+pieces[4])
	if err != nil || !hmac.Equal(sum, indexMAC(pieces[1], state)) {
		return 0, errIndexFormat
	}
	local, err := strconv.ParseUint(pieces[2], 10, 64)
	if err != nil {
		return 0, errIndexFormat
	}
	replicated, err := strconv.ParseUint(pieces[3], 10, 64)
	if err != nil {
		return 0, errIndexFormat
	}
	if pieces[1] != clusterID {
		return 0, errIndexCluster
	}
	return max(local, replicated), nil
}

// requestIndex returns the highest index that the client names, 0 if none.
func requestIndex(h http.Header, clusterID string) (uint64, error) {
	values := h[indexHeader]
	if len(values) > maxStates {
		return 0, errIndexFormat
	}
	highest := uint64(0)
	for _, value := range values {
		index, err := parseIndex(value, clusterID)
		if err != nil {
			return 0, err
		}
		highest = max(highest, index)
	}
	return highest, nil
}

// awaitIndex returns when this node's state has reached index, or fails when it hasn't within wait.
func awaitIndex(ctx context.Context, vault Vault, index uint64, wait time.Duration) error {
	if index == 0 || vault.AppliedIndex() >= index {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	if err := vault.WaitIndex(ctx, index); err != nil {
		return errIndexUnmet
	}
	return nil
}

// indexStamp keeps the last header value made: many answers share one index.
type indexStamp struct{ last atomic.Pointer[stampedIndex] }

type stampedIndex struct {
	clusterID string
	index     uint64
	header    []string
}

// header returns the value for an answer, nil for a vault that has no cluster id yet.
func (s *indexStamp) header(clusterID string, index uint64) []string {
	if clusterID == "" {
		return nil
	}
	if last := s.last.Load(); last != nil && last.index == index && last.clusterID == clusterID {
		return last.header
	}
	made := &stampedIndex{clusterID, index, []string{formatIndex(clusterID, index)}}
	s.last.Store(made)
	return made.header
}
