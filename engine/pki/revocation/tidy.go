package revocation

import (
	"slices"
	"strconv"
	"time"

	"conclave"
	"conclave/engine/pki/stored"
)

// maxTidied bounds the sheets that one transaction tidies.
const maxTidied = 50

// Tidy takes entries of certificates that have ended before a time out of an authority's register, beginning with a sheet
// ("" is the first). It returns the sheet to go on with, "" at the end.
func Tidy(tx conclave.Tx, of, from string, before time.Time) (removed int, next string, err error) {
	old, err := register(tx, of)
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
		n, err := tidySheet(tx, of, at, before)
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
		if err := stored.Put(tx, "register/"+of+"/head", &head); err != nil {
			return 0, "", err
		}
	}
	if at < head.Next {
		next = strconv.FormatUint(at, 10)
	}
	return removed, next, nil
}

func tidySheet(tx conclave.Tx, of string, n uint64, before time.Time) (removed int, err error) {
	sheet, err := loadSheet(tx, of, n)
	if err != nil || sheet == nil {
		return 0, err
	}
	kept := slices.DeleteFunc(slices.Clone(sheet.Entries), func(e Entry) bool { return e.Expires < before.Unix() })
	if removed = len(sheet.Entries) - len(kept); removed == 0 {
		return 0, nil
	}
	if len(kept) == 0 {
		return removed, tx.Delete(sheetPath(of, n))
	}
	return removed, tx.Put(sheetPath(of, n), newSheet(kept).Encode())
}

// skipEmpty moves the beginning of a register past sheets without entries.
func skipEmpty(tx conclave.Tx, of string, head *Head) error {
	for head.First < head.Next {
		sheet, err := loadSheet(tx, of, head.First)
		if err != nil || sheet != nil {
			return err
		}
		head.First++
	}
	return nil
}
