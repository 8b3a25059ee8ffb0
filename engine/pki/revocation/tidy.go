package revocation

import (
	"slices"
	"strconv"
	"time"

	"conclave"
	"conclave/engine/pki/stored"
)

// maxTidied bounds the segments that one transaction tidies.
const maxTidied = 50

// Tidy takes entries of certificates that have ended before a time out of an authority's ledger, beginning with a segment
// ("" is the first). It returns the segment to go on with, "" at the end.
func Tidy(tx conclave.Tx, of, from string, before time.Time) (removed int, next string, err error) {
	old, err := ledger(tx, of)
	if err != nil {
		return 0, "", err
	}
	config, err := crlConfig(tx)
	if err != nil {
		return 0, "", err
	}
	head := *old
	at := head.First
	if n, err := strconv.ParseUint(from, 10, 64); err == nil {
		at = max(at, n)
	}
	for looked := 0; at < head.Next && looked < maxTidied; looked++ {
		n, err := tidySegment(tx, of, at, before)
		if err != nil {
			return 0, "", err
		}
		removed += n
		at++
	}
	if removed > 0 {
		head.Count = max(0, head.Count-removed)
		head.Changed = old.Touch(tx.Now(), config)
		if err := skipEmpty(tx, of, &head); err != nil {
			return 0, "", err
		}
		if err := stored.Put(tx, "ledger/"+of+"/head", &head); err != nil {
			return 0, "", err
		}
	}
	if at < head.Next {
		next = strconv.FormatUint(at, 10)
	}
	return removed, next, nil
}

func tidySegment(tx conclave.Tx, of string, n uint64, before time.Time) (removed int, err error) {
	segment, err := loadSegment(tx, of, n)
	if err != nil || segment == nil {
		return 0, err
	}
	kept := slices.DeleteFunc(slices.Clone(segment.Entries), func(e Entry) bool { return e.Expires < before.Unix() })
	if removed = len(segment.Entries) - len(kept); removed == 0 {
		return 0, nil
	}
	if len(kept) == 0 {
		return removed, tx.Delete(segmentPath(of, n))
	}
	return removed, tx.Put(segmentPath(of, n), newSegment(kept).Encode())
}

// skipEmpty moves the beginning of a ledger past segments without entries.
func skipEmpty(tx conclave.Tx, of string, head *Head) error {
	for head.First < head.Next {
		segment, err := loadSegment(tx, of, head.First)
		if err != nil || segment != nil {
			return err
		}
		head.First++
	}
	return nil
}
