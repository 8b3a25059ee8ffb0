package clock

import (
	"testing"
	"time"
)

// manual is a monotonic clock that tests set.
type manual struct{ now time.Duration }

func (m *manual) mono() time.Duration { return m.now }

const hour = int64(time.Hour)

func TestTimeIsUnknownUntilItIsHeard(t *testing.T) {
	m := &manual{now: time.Second}
	c := New(m.mono)
	if _, known := c.Now(); known {
		t.Fatal("a new clock knows the time")
	}
	c.Hear(1000, 0)
	m.now += 5
	if now, known := c.Now(); !known || now != 1005 {
		t.Errorf("5 ns after 1000 it is %d, %v", now, known)
	}
	c.Hear(2000, 20)
	if now, _ := c.Now(); now != 2010 {
		t.Errorf("with a round trip of 20 ns it is %d, want 2010", now)
	}
}

func TestStampsNeverGoBack(t *testing.T) {
	m := &manual{}
	c := New(m.mono)
	c.Lead(5*hour, 0)
	first := c.Next()
	c.Hear(4*hour, 0)
	if next := c.Next(); next < first {
		t.Errorf("after %d comes %d", first, next)
	}
	c.Lead(hour, 6*hour)
	if next := c.Next(); next < 6*hour {
		t.Errorf("a leader of a log with stamp %d gives %d", 6*hour, next)
	}
}

// TestOneWrongClockMovesNothing and two right ones pull gently: at most 500 ppm.
func TestOneWrongClockMovesNothing(t *testing.T) {
	m := &manual{}
	c := New(m.mono)
	c.Lead(10*hour, 0)
	for range 3600 {
		m.now += time.Second
		right := 10*hour + int64(m.now)
		c.Steer([]int64{right + hour, right, right}, 3)
	}
	if now, _ := c.Now(); abs(now-10*hour-hour) > int64(10*time.Millisecond) {
		t.Errorf("after an hour cluster time is %v off", time.Duration(now-11*hour))
	}
	before, _ := c.Now()
	at := m.now
	for range 100 {
		m.now += time.Second
		right := 10*hour + int64(m.now)
		c.Steer([]int64{right + hour, right + hour, right + hour}, 3)
	}
	now, _ := c.Now()
	gained := now - before - int64(m.now-at)
	if gained <= 0 || gained > int64(50*time.Millisecond)+1 {
		t.Errorf("in 100 s all clocks an hour ahead moved cluster time by %v, want at most 50 ms", time.Duration(gained))
	}
}

func TestAMinorityOfClocksIsIgnored(t *testing.T) {
	m := &manual{}
	c := New(m.mono)
	c.Lead(0, 0)
	c.Steer([]int64{hour}, 3)
	m.now += 1000 * time.Second
	if now, _ := c.Now(); now != int64(m.now) {
		t.Errorf("a single clock of three moved time by %v", time.Duration(now-int64(m.now)))
	}
}

func abs(v int64) int64 { return max(v, -v) }
