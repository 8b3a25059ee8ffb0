package audit

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"

	"golang.org/x/mod/sumdb/tlog"
)

// An export is a part of the log that can be read and checked without any key. It is lines of JSON, each the one encoding of what it
// says, down to the byte:
//
//	{"export":"conclave audit 1","epoch":1,"seq":0,"epoch_seq":0,"head":"<hex>"}
//	{"seq":0,"index":7,"stamp":1700000000000000000,"digest":"<hex>","box":"<hex>","link":"<hex>", and one of:
//	    "start":"conclave audit epoch v1\n…"                                     the first record of an epoch
//	    "salt":"<hex>","denied":false,"time":…,"auth":{…},"request":{…},"response":{…},"error":"…",
//	        "events":[…]                                                             a record
//	    "withheld":true                                                          a record that was left out
//	}
//	…
//	{"end":"<base64 of the State after the last record>","root":"<hex>"}
//
// digest is SHA-256(salt ‖ record), where the record is the one encoding of its members from denied on, and box is SHA-256 of the box, so
// that a line gives the leaf of the tree, and with seq, index and stamp the link of the chain.
const (
	exportTitle   = "conclave audit 1"
	maxExportLine = 4 << 20
)

type exportHead struct {
	Export   string `json:"export"`
	Epoch    uint64 `json:"epoch"`
	Seq      uint64 `json:"seq"`
	EpochSeq uint64 `json:"epoch_seq"`
	Head     string `json:"head"`
}

type exportLine struct {
	Seq      uint64          `json:"seq"`
	Index    uint64          `json:"index"`
	Stamp    int64           `json:"stamp"`
	Digest   string          `json:"digest"`
	Box      string          `json:"box"`
	Link     string          `json:"link"`
	Start    string          `json:"start"`
	Salt     string          `json:"salt"`
	Denied   bool            `json:"denied"`
	Time     json.RawMessage `json:"time"`
	Auth     json.RawMessage `json:"auth"`
	Request  json.RawMessage `json:"request"`
	Response json.RawMessage `json:"response"`
	Error    json.RawMessage `json:"error"`
	Events   json.RawMessage `json:"events"`
	Withheld bool            `json:"withheld"`
}

type exportEnd struct {
	End  string `json:"end"`
	Root string `json:"root"`
}

// append appends the one encoding of l, with its line feed.
func (l *exportLine) append(dst []byte) []byte {
	dst = strconv.AppendUint(append(dst, `{"seq":`...), l.Seq, 10)
	dst = strconv.AppendUint(append(dst, `,"index":`...), l.Index, 10)
	dst = strconv.AppendInt(append(dst, `,"stamp":`...), l.Stamp, 10)
	for _, hash := range [...][2]string{{"digest", l.Digest}, {"box", l.Box}, {"link", l.Link}} {
		dst = append(append(append(append(append(dst, `,"`...), hash[0]...), `":"`...), hash[1]...), '"')
	}
	switch {
	case l.Withheld:
		dst = append(dst, `,"withheld":true`...)
	case l.Start != "":
		dst = appendQuoted(append(dst, `,"start":`...), l.Start)
	default:
		dst = append(append(append(dst, `,"salt":"`...), l.Salt...), `","denied":`...)
		dst = strconv.AppendBool(dst, l.Denied)
		dst = appendMember(dst, "time", l.Time)
		dst = appendMember(dst, "auth", l.Auth)
		dst = appendMember(dst, "request", l.Request)
		dst = appendMember(dst, "response", l.Response)
		dst = appendMember(dst, "error", l.Error)
		dst = appendMember(dst, "events", l.Events)
	}
	return append(dst, "}\n"...)
}

// Export writes the records that read visits, which begin with the first of an epoch and have no gaps. Without an opener all are withheld:
// the export then proves that there were so many, in this order, and no more. It returns the state after the last record.
//
// read is as [Log.Read] from some record on; Export stops it by returning false after an error.
func Export(w io.Writer, read func(visit func(Frame) (more bool)) error, opener *Opener) (State, error) {
	out := bufio.NewWriterSize(w, 64<<10)
	e := &exporter{out: out, opener: opener}
	var failed error
	err := read(func(f Frame) bool {
		failed = e.frame(&f)
		return failed == nil
	})
	if err := errors.Join(failed, err); err != nil {
		return State{}, err
	}
	if !e.begun {
		return State{}, errors.New("export audit log: there are no records")
	}
	state, err := e.state.AppendBinary(nil)
	if err != nil {
		return State{}, err
	}
	root := e.state.Root()
	end, err := json.Marshal(exportEnd{base64.StdEncoding.EncodeToString(state), hex.EncodeToString(root[:])})
	if err != nil {
		return State{}, err
	}
	if _, err := out.Write(append(end, '\n')); err != nil {
		return State{}, err
	}
	return e.state, out.Flush()
}

type exporter struct {
	out    *bufio.Writer
	opener *Opener
	state  State
	begun  bool
	line   []byte
}

func (e *exporter) frame(f *Frame) error {
	if !e.begun {
		if err := e.begin(f); err != nil {
			return err
		}
	}
	if f.Start && f.Seq != e.state.EpochSeq {
		e.state.BeginEpoch("")
	}
	if f.Seq != e.state.Seq || f.Epoch != e.state.Epoch {
		return fmt.Errorf("export audit log: record %d of epoch %d comes where record %d of epoch %d belongs", f.Seq, f.Epoch, e.state.Seq, e.state.Epoch)
	}
	e.state.Extend(f.Index, f.Stamp, LeafHash(&f.Digest, sha256.Sum256(f.Box)))
	if e.state.Head != f.Link {
		return fmt.Errorf("export audit log: record %d doesn't continue the chain", f.Seq)
	}
	line, err := AppendLine(e.line[:0], f, e.opener)
	if err != nil {
		return err
	}
	e.line = line
	_, err = e.out.Write(e.line)
	return err
}

// AppendLine appends the line that an export has for a record, with its line feed. Without an opener its content is withheld.
func AppendLine(dst []byte, f *Frame, opener *Opener) ([]byte, error) {
	box := sha256.Sum256(f.Box)
	l := exportLine{Seq: f.Seq, Index: f.Index, Stamp: f.Stamp, Digest: hex.EncodeToString(f.Digest[:]), Box: hex.EncodeToString(box[:]),
		Link: hex.EncodeToString(f.Link[:])}
	switch {
	case f.Start:
		l.Start = string(f.Box)
	case opener == nil:
		l.Withheld = true
	default:
		salt, plain, err := opener.Open(f.Digest, f.Box)
		if err != nil {
			return nil, fmt.Errorf("export audit record %d: %w", f.Seq, err)
		}
		r, err := DecodeRecord(plain)
		if err != nil {
			return nil, fmt.Errorf("export audit record %d: %w", f.Seq, err)
		}
		l.Salt, l.Denied = hex.EncodeToString(salt[:]), r.Denied
		l.Time, l.Auth, l.Request, l.Response, l.Error, l.Events = r.Time, r.Auth, r.Request, r.Response, r.Error, r.Events
	}
	return l.append(dst), nil
}

// begin writes the head. The state before the first record is what that record says; only the very first of all says nothing.
func (e *exporter) begin(f *Frame) error {
	e.begun = true
	e.state = State{Epoch: f.Epoch, Seq: f.Seq, EpochSeq: f.Seq}
	switch {
	case f.Start:
		start, err := ParseEpochStart(f.Box)
		if err != nil {
			return fmt.Errorf("export audit record %d: %w", f.Seq, err)
		}
		e.state.Head = start.PreviousHead
	case f.Seq != 0:
		return fmt.Errorf("export audit log: an export begins with the first record of an epoch, which %d isn't", f.Seq)
	}
	head, err := json.Marshal(exportHead{exportTitle, e.state.Epoch, e.state.Seq, e.state.EpochSeq, hex.EncodeToString(e.state.Head[:])})
	if err != nil {
		return err
	}
	_, err = e.out.Write(append(head, '\n'))
	return err
}

// ExportReport is what VerifyExport found to be true of an export.
type ExportReport struct {
	First    uint64 // number of the first record
	Records  uint64
	Withheld uint64 // of them without content
	State    State  // after the last record, or after the last that is right
	// Closed is the start of the last epoch that begins after the first record, and so says how the one before it ended; nil
	// if the export shows the end of none.
	Closed *EpochStart
	// Expected reports that the expected state was met, so that nothing up to it was changed, left out or cut off. If it is false, all
	// that is known is that the export is whole in itself.
	Expected bool
}

// ExportFault is the first thing that is wrong with an export.
type ExportFault struct {
	Line   uint64 // from 1
	Seq    uint64 // of the record that belongs there
	Detail string
}

// Error says what is wrong, where.
func (f *ExportFault) Error() string {
	return fmt.Sprintf("audit export, line %d, record %d: %s", f.Line, f.Seq, f.Detail)
}

// VerifyExport checks an export: each record against its digest, all against chain and tree, and, if expect isn't nil, that the log has
// passed through that state: same epoch, head and tree at the same number of records. It needs no key. The error is an *ExportFault,
// unless r failed.
func VerifyExport(r io.Reader, expect *State) (ExportReport, error) {
	in := bufio.NewScanner(r)
	in.Buffer(make([]byte, 0, 64<<10), maxExportLine)
	in.Split(wholeLines)
	v := &exportVerifier{expect: expect}
	for !v.ended && in.Scan() {
		v.line++
		if detail := v.take(in.Bytes()); detail != "" {
			return v.report, v.fault(detail)
		}
	}
	if err := in.Err(); err != nil && !errors.Is(err, bufio.ErrTooLong) {
		return v.report, err
	}
	v.line++
	switch {
	case !v.ended:
		return v.report, v.fault("the export ends before its last line, or has a line that is too long")
	case in.Scan():
		return v.report, v.fault("there is more after the last line")
	case expect != nil && !v.report.Expected:
		return v.report, v.fault(fmt.Sprintf("the expected state, after %d records, isn't in the export", expect.Seq))
	}
	return v.report, nil
}

// wholeLines splits after line feeds, which stay.
func wholeLines(data []byte, atEOF bool) (advance int, line []byte, err error) {
	if n := bytes.IndexByte(data, '\n') + 1; n > 0 {
		return n, data[:n], nil
	}
	if atEOF && len(data) > 0 {
		return len(data), data, nil
	}
	return 0, nil, nil
}

// parseExact fills dst from its one form in hexadecimal.
func parseExact(dst []byte, text string) bool {
	if len(text) != hex.EncodedLen(len(dst)) {
		return false
	}
	_, err := hex.Decode(dst, []byte(text))
	return err == nil && hex.EncodeToString(dst) == text
}

type exportVerifier struct {
	expect *State
	report ExportReport
	closed *EpochStart // Closed, once this record's link was found right
	line   uint64
	ended  bool
}

func (v *exportVerifier) fault(detail string) error {
	return &ExportFault{Line: v.line, Seq: v.report.State.Seq, Detail: detail}
}

// take checks one line and returns what is wrong with it.
func (v *exportVerifier) take(line []byte) string {
	switch {
	case v.line == 1:
		return v.head(line)
	case bytes.HasPrefix(line, []byte(`{"end":`)):
		return v.end(line)
	}
	detail := v.record(line)
	if detail == "" {
		detail = v.compare()
	}
	return detail
}

func (v *exportVerifier) head(line []byte) string {
	var h exportHead
	at := &v.report.State
	if json.Unmarshal(line, &h) != nil || h.Export != exportTitle || !parseExact(at.Head[:], h.Head) || h.EpochSeq != h.Seq {
		return "not the first line of an export"
	}
	if again, err := json.Marshal(h); err != nil || !bytes.Equal(append(again, '\n'), line) {
		return "the first line isn't in its one form"
	}
	if h.Seq == 0 && at.Head != [32]byte{} {
		return "the log doesn't begin with an empty chain"
	}
	at.Epoch, at.Seq, at.EpochSeq, v.report.First = h.Epoch, h.Seq, h.EpochSeq, h.Seq
	return ""
}

func (v *exportVerifier) record(line []byte) string {
	var l exportLine
	var digest, box, linked [32]byte
	if json.Unmarshal(line, &l) != nil || !parseExact(digest[:], l.Digest) ||
		!parseExact(box[:], l.Box) || !parseExact(linked[:], l.Link) {
		return "not a record of an export"
	}
	if !bytes.Equal(l.append(nil), line) {
		return "the line isn't in its one form"
	}
	next := v.report.State.Clone()
	if l.Seq != next.Seq {
		return fmt.Sprintf("record %d is in its place", l.Seq)
	}
	if detail := v.content(&l, &digest, &box, &next); detail != "" {
		return detail
	}
	next.Extend(l.Index, l.Stamp, LeafHash(&digest, box))
	if next.Head != linked {
		return "the record isn't the one that was linked here"
	}
	if l.Withheld {
		v.report.Withheld++
	}
	v.report.State, v.report.Closed = next, v.closed
	v.report.Records++
	return ""
}

// content checks what a line says against its digest, and begins the epoch that it starts in next.
func (v *exportVerifier) content(l *exportLine, digest, box *[32]byte, next *State) string {
	first := v.report.Records == 0
	switch {
	case l.Withheld:
	case l.Start != "":
		start, err := ParseEpochStart([]byte(l.Start))
		if err != nil || sha256.Sum256([]byte(l.Start)) != *digest || *box != *digest {
			return "the start of the epoch isn't what its digest says"
		}
		want := EpochStart{Epoch: next.Epoch, PreviousSeq: next.Seq, PreviousHead: next.Head, PreviousRoot: start.PreviousRoot, Reason: start.Reason}
		if !first {
			want = next.BeginEpoch(start.Reason)
		}
		if start != want {
			return "the start of the epoch doesn't name the head before it"
		}
		if !first {
			v.closed = &start
		}
		return ""
	default:
		var salt [SaltSize]byte
		if !parseExact(salt[:], l.Salt) {
			return "the salt is malformed"
		}
		r := Record{Denied: l.Denied, Time: l.Time, Auth: l.Auth, Request: l.Request, Response: l.Response, Error: l.Error, Events: l.Events}
		if sha256.Sum256(r.append(salt[:])) != *digest {
			return "the record isn't what its digest says"
		}
	}
	if first && next.Epoch > 0 {
		return "the epoch's first record is missing"
	}
	return ""
}

func (v *exportVerifier) end(line []byte) string {
	var e exportEnd
	var root tlog.Hash
	var said State
	if json.Unmarshal(line, &e) != nil || !parseExact(root[:], e.Root) {
		return "not the last line of an export"
	}
	state, err := base64.StdEncoding.Strict().DecodeString(e.End)
	if err != nil || said.UnmarshalBinary(state) != nil {
		return "not the last line of an export"
	}
	if again, err := json.Marshal(e); err != nil || !bytes.Equal(append(again, '\n'), line) {
		return "the last line isn't in its one form"
	}
	if v.report.Records == 0 || !said.Equal(&v.report.State) || root != v.report.State.Root() {
		return "records before the end are missing, or the last line isn't theirs"
	}
	v.ended = true
	return ""
}

// compare looks whether this is where the expected state should be met.
func (v *exportVerifier) compare() string {
	if v.expect == nil || v.expect.Seq != v.report.State.Seq {
		return ""
	}
	want := State{Epoch: v.expect.Epoch, Seq: v.expect.Seq, EpochSeq: v.expect.EpochSeq, Head: v.expect.Head, Frontier: v.expect.Frontier}
	if !want.Equal(&v.report.State) {
		return "up to here the export is whole, but it isn't of the expected log"
	}
	v.report.Expected = true
	return ""
}
