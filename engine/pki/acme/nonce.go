package acme

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"net/http"
	"strconv"
	"time"

	"conclave"
)

// A nonce, in base64url:
//
//	seconds since 1970, 8 bytes | random, 16 bytes | HMAC-SHA-256 of these, its first 16 bytes
const (
	nonceHead = 24
	nonceSize = 40
)

func sealNonce(key, head []byte) []byte {
	mac := hmac.New(sha256.New, key)
	_, _ = mac.Write([]byte("conclave acme nonce\x00"))
	_, _ = mac.Write(head)
	return mac.Sum(nil)[:nonceSize-nonceHead]
}

// mintNonce makes a nonce. Nothing is stored.
func mintNonce(key []byte, now time.Time) string {
	nonce := make([]byte, nonceHead, nonceSize)
	binary.BigEndian.PutUint64(nonce, uint64(now.Unix()))
	_, _ = rand.Read(nonce[8:]) // never fails: the runtime ends the process instead
	return base64.RawURLEncoding.EncodeToString(append(nonce, sealNonce(key, nonce)...))
}

func errNonce() error {
	return refuse(http.StatusBadRequest, "badNonce", "the nonce is not one of this server's, too old, or was used before")
}

// useNonce takes a nonce, which can be done once within its life.
func useNonce(tx conclave.Tx, key []byte, text string) error {
	nonce, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(nonce) != nonceSize || !hmac.Equal(nonce[nonceHead:], sealNonce(key, nonce[:nonceHead])) {
		return errNonce()
	}
	made := time.Unix(int64(binary.BigEndian.Uint64(nonce)), 0)
	if tx.Reached(made.Add(nonceLife)) {
		return errNonce()
	}
	period := periodOf(made)
	path := usedDir + period + "/" + base64.RawURLEncoding.EncodeToString(nonce[:nonceHead])
	used, err := tx.Get(path)
	if err != nil {
		return err
	}
	if used != nil {
		return errNonce()
	}
	known, err := tx.Get(periodDir + period)
	if err != nil {
		return err
	}
	if known == nil {
		if err := tx.Put(periodDir+period, mark()); err != nil {
			return err
		}
		if err := tx.Wake(workNonces+period, made.Truncate(nonceLife).Add(2*nonceLife+time.Minute)); err != nil {
			return err
		}
	}
	return tx.Put(path, mark())
}

// periodOf names the period that a nonce was made in.
func periodOf(made time.Time) string {
	return strconv.FormatInt(made.Unix()/int64(nonceLife/time.Second), 10)
}

// clearNonces removes what was used of a period, some at a time: none of its nonces is good any more.
func clearNonces(tx conclave.Tx, period string) error {
	if _, err := strconv.ParseUint(period, 10, 63); err != nil {
		return nil
	}
	names, err := conclave.Some(tx, usedDir+period+"/", "", clearBatch)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := tx.Delete(usedDir + period + "/" + name); err != nil {
			return err
		}
	}
	if len(names) == clearBatch {
		return tx.Wake(workNonces+period, tx.Now())
	}
	return tx.Delete(periodDir + period)
}
