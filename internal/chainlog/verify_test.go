package chainlog

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// forge changes a segment's file, with its checksums made right again by whoever forges.
func (fx *fixture) forge(segment uint64, change func(b []byte) []byte) {
	fx.tb.Helper()
	path := "log/" + SegmentName(segment)
	b := bytes.Clone(must[[]byte](fx.tb)(fx.disk.UnsafeGetFileDataBuffer(path)))
	b = change(b)
	file := must[vfs.File](fx.tb)(fx.disk.Create(path, vfs.WriteCategoryUnspecified))
	if _, err := file.Write(b); err != nil {
		fx.tb.Fatal(err)
	}
	if err := file.Close(); err != nil {
		fx.tb.Fatal(err)
	}
}

// frameAt is where the nth frame of a segment lies.
func frameAt(b []byte, n int) []byte {
	at := b[segmentHeader:]
	for ; n > 0; n-- {
		size, _ := frameSize(at)
		at = at[size:]
	}
	size, _ := frameSize(at)
	return at[:size]
}

func TestVerifyNamesTheFirstBadRecord(t *testing.T) {
	rows := []struct {
		name string
		what string
		seq  uint64
		from func(fx *fixture)
	}{
		{"nothing", "", 0, func(*fixture) {}},
		{"a bit flipped", FaultChecksum, 5, func(fx *fixture) {
			fx.forge(1, func(b []byte) []byte { frameAt(b, 1)[200] ^= 1; return b })
		}},
		{"a length out of bounds", FaultChecksum, 5, func(fx *fixture) {
			fx.forge(1, func(b []byte) []byte { frameAt(b, 1)[0] = 0xff; return b })
		}},
		{"a record replaced", FaultChain, 5, func(fx *fixture) {
			fx.forge(1, func(b []byte) []byte {
				f := frameAt(b, 1)
				f[200] ^= 1
				binary.BigEndian.PutUint32(f[4:], checksum(f))
				return b
			})
		}},
		{"a record taken out", FaultGap, 5, func(fx *fixture) {
			fx.forge(1, func(b []byte) []byte {
				return append(bytes.Clone(b[:segmentHeader+len(frameAt(b, 0))]), b[segmentHeader+2*len(frameAt(b, 0)):]...)
			})
		}},
		{"a segment taken out", FaultGap, 4, func(fx *fixture) { _ = fx.disk.Remove("log/" + SegmentName(1)) }},
		{"the first segment taken out", FaultGap, 4, func(fx *fixture) { _ = fx.disk.Remove("log/" + SegmentName(0)) }},
		{"a header flipped", FaultHeader, 4, func(fx *fixture) {
			fx.forge(1, func(b []byte) []byte { b[20] ^= 1; return b })
		}},
		{"the tail cut within a record", FaultCut, 11, func(fx *fixture) {
			fx.forge(3, func(b []byte) []byte { return b[:len(b)-1] })
		}},
		{"the tail cut between records", FaultCut, 11, func(fx *fixture) {
			fx.forge(3, func(b []byte) []byte { return b[:len(b)-len(frameAt(b, 1))] })
		}},
		{"the last segment taken out", FaultCut, 9, func(fx *fixture) {
			_ = fx.disk.Remove("log/" + SegmentName(3))
		}},
	}
	for _, row := range rows {
		fx := newFixture(t)
		fx.append(9)
		fx.rotate()
		fx.append(2)
		at := fx.log.State()
		row.from(fx)
		r := fx.verify(&at)
		if row.what == "" {
			if r.Fault != nil || r.Records != 12 {
				t.Fatalf("%s: %v", row.name, r.Fault)
			}
			continue
		}
		if r.Fault == nil || r.Fault.What != row.what || r.Fault.Seq != row.seq {
			t.Errorf("%s: fault %v, want %s at record %d", row.name, r.Fault, row.what, row.seq)
		}
	}
}

func TestCutTailShowsOnlyToWhoHasAState(t *testing.T) {
	fx := newFixture(t)
	fx.append(3)
	at := fx.log.State()
	fx.forge(0, func(b []byte) []byte { return b[:len(b)-len(frameAt(b, 2))] })
	if r := fx.verify(nil); r.Fault != nil || r.TailChecked || r.Records != 2 {
		t.Errorf("without a state: %+v", r)
	}
	if r := fx.verify(&at); r.Fault == nil || r.Fault.What != FaultCut {
		t.Errorf("with a state: %+v", r)
	}
}

func TestAnotherLogIsNotTheExpectedOne(t *testing.T) {
	fx, other := newFixture(t), newFixture(t)
	fx.append(3)
	must[uint64](t)(other.log.Append(1, 1, Sealed{Box: []byte("other")}))
	other.append(2)
	at := other.log.State()
	at.Offset = fx.log.State().Offset
	if r := fx.verify(&at); r.Fault == nil || r.Fault.What != FaultState {
		t.Errorf("report %+v", r)
	}
}

func TestVerifyAsksWhoCanOpenTheBoxes(t *testing.T) {
	fx := newFixture(t)
	fx.append(3)
	bad := errors.New("digest doesn't match")
	r := must[Report](t)(fx.log.Verify(context.Background(), 0, func(f Frame) error {
		if f.Seq == 1 {
			return bad
		}
		return nil
	}))
	if r.Fault == nil || r.Fault.What != FaultDigest || r.Fault.Seq != 1 {
		t.Errorf("report %+v", r)
	}
}

// FuzzDecodeFrame: what decodes has one encoding.
func FuzzDecodeFrame(f *testing.F) {
	f.Add(appendFrame(nil, &Frame{Seq: 1, Index: 2, Stamp: 3, Box: []byte("box")}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if fr, err := decodeFrame(b); err == nil && !bytes.Equal(appendFrame(nil, &fr), b) {
			t.Fatalf("%x is encoded otherwise", b)
		}
	})
}

// FuzzSegment: no file makes Verify panic or read past its end.
func FuzzSegment(f *testing.F) {
	fx := newFixture(f)
	must[uint64](f)(fx.log.Append(1, 1, Sealed{Box: []byte("box")}))
	must[uint64](f)(fx.log.Append(1, 1, Sealed{Box: []byte("box")}))
	fx.flush()
	f.Add(must[[]byte](f)(fx.disk.UnsafeGetFileDataBuffer("log/" + SegmentName(0))))
	f.Fuzz(func(t *testing.T, b []byte) {
		fx := newFixture(t)
		fx.append(1)
		fx.forge(0, func([]byte) []byte { return b })
		fx.verify(nil)
	})
}

// FuzzState: what decodes has one encoding, and the next record can be added to it.
func FuzzState(f *testing.F) {
	s := State{Epoch: 1, Offset: 5}
	s.Extend(1, 2, [32]byte{3})
	f.Add(must[[]byte](f)(s.AppendBinary(nil)))
	f.Fuzz(func(t *testing.T, b []byte) {
		var s State
		if s.UnmarshalBinary(b) != nil {
			return
		}
		if again := must[[]byte](t)(s.AppendBinary(nil)); !bytes.Equal(again, b) {
			t.Fatalf("%x is encoded otherwise", b)
		}
		if s.Root(); s.Seq < 1<<63 {
			s.Extend(1, 2, [32]byte{3})
		}
	})
}

// FuzzParseEpochStart: what parses has one encoding.
func FuzzParseEpochStart(f *testing.F) {
	e := EpochStart{Epoch: 2, PreviousSeq: 7, Reason: "restored"}
	f.Add(e.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, err := ParseEpochStart(b); err == nil && !bytes.Equal(e.encode(), b) {
			t.Fatalf("%q is encoded otherwise", b)
		}
	})
}

func TestVerifyTellsTheStateAtAMark(t *testing.T) {
	fx := newFixture(t)
	fx.append(5)
	at := fx.log.State()
	fx.append(3)
	report := must[Report](t)(fx.log.Verify(context.Background(), at.Seq, nil))
	if report.Marked == nil || report.Marked.Head != at.Head || report.Marked.Root() != at.Root() || report.Records != at.Seq+3 {
		t.Errorf("report %+v, want the head after %d records", report, at.Seq)
	}
	if report := must[Report](t)(fx.log.Verify(context.Background(), 1000, nil)); report.Marked != nil {
		t.Errorf("a mark beyond the end is at %+v", report.Marked)
	}
}
