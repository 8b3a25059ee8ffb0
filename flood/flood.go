// Package flood keeps those who fail to log in from filling the audit log: beyond a rate of failures, requests of who hasn't
// shown a good token lately are refused before anybody looks at theirs. It counts on one node, in memory of bounded size.
package flood

import (
	"crypto/rand"
	"crypto/sha256"
	"net/netip"
	"sync"
	"time"

	"conclave"
)

// Limits of requests that come to nothing because of who makes them. Each leaves a record, so nobody may make as many as
// he likes: beyond these, requests of those who haven't shown a good token lately are refused before theirs is looked at.
const (
	// AddressBurst is how many failures of one address there may be at once.
	AddressBurst = 500
	addressRate  = 50   // and a second
	allBurst     = 5000 // failures of all addresses at once
	allRate      = 500  // and a second

	maxFlooders = 4096  // addresses that are watched
	maxProved   = 16384 // tokens that are remembered as good; twice that at most
)

// Gate lets requests in while few fail. It is safe for concurrent use.
type Gate struct {
	now  func() time.Time
	salt [sha256.Size]byte // of the digests of tokens, so that they are of use in this process alone

	mu       sync.Mutex // guards all below
	all      bucket
	failing  map[netip.Addr]*bucket         // address, of IPv6 the network → its failures
	proved   map[[sha256.Size]byte]struct{} // digests of tokens that were good
	previous map[[sha256.Size]byte]struct{} // the same, of before proved was full
}

// bucket holds failures, which leak out at a rate.
type bucket struct {
	level float64
	at    time.Time
}

// drain is how full the bucket is now.
func (b *bucket) drain(now time.Time, rate float64) float64 {
	b.level = max(0, b.level-rate*max(0, now.Sub(b.at).Seconds()))
	b.at = now
	return b.level
}

// New makes a gate. now is the node's clock.
func New(now func() time.Time) *Gate {
	f := &Gate{now: now, failing: map[netip.Addr]*bucket{}, proved: map[[sha256.Size]byte]struct{}{}}
	rand.Read(f.salt[:])
	return f
}

var errFlooded = conclave.Errorf(conclave.Limited, "too many requests without a valid token or login came before this one: nothing was done")

// Refuse is an error for a request that is not to be looked at, since too many like it have failed.
func (f *Gate) Refuse(req *conclave.Request) error {
	now, from := f.now(), network(req.Remote.Addr())
	f.mu.Lock()
	defer f.mu.Unlock()
	b := f.failing[from]
	if f.all.drain(now, allRate) < allBurst && (b == nil || b.drain(now, addressRate) < AddressBurst) {
		return nil
	}
	if !req.Token.Empty() {
		digest := f.digest(req.Token)
		if _, ok := f.proved[digest]; ok {
			return nil
		}
		if _, ok := f.previous[digest]; ok {
			return nil
		}
	}
	return errFlooded
}

// Judge learns from a request that was recorded: whether its token was good, and otherwise whether it failed.
func (f *Gate) Judge(req *conclave.Request, good, failed bool) {
	switch {
	case good:
		f.prove(req.Token)
	case failed:
		f.fail(network(req.Remote.Addr()), req.Token)
	}
}

func (f *Gate) prove(token conclave.Secret) {
	digest := f.digest(token)
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.proved[digest]; ok {
		return
	}
	if len(f.proved) >= maxProved {
		f.previous, f.proved = f.proved, map[[sha256.Size]byte]struct{}{}
	}
	f.proved[digest] = struct{}{}
}

func (f *Gate) digest(token conclave.Secret) [sha256.Size]byte {
	return sha256.Sum256(append(f.salt[:], token.Reveal()...))
}

func (f *Gate) fail(from netip.Addr, token conclave.Secret) {
	now, digest := f.now(), f.digest(token)
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.proved, digest) // it isn't good any more
	delete(f.previous, digest)
	f.all.drain(now, allRate)
	f.all.level++
	b := f.failing[from]
	if b == nil {
		f.makeRoomLocked(now)
		b = &bucket{}
		f.failing[from] = b
	}
	b.drain(now, addressRate)
	b.level++
}

// makeRoomLocked forgets addresses that have been quiet, or any if all fail.
func (f *Gate) makeRoomLocked(now time.Time) {
	if len(f.failing) < maxFlooders {
		return
	}
	for address, b := range f.failing {
		if b.drain(now, addressRate) == 0 {
			delete(f.failing, address)
		}
	}
	for address := range f.failing {
		if len(f.failing) < maxFlooders {
			return
		}
		delete(f.failing, address)
	}
}

// network is what one client is taken to have: an address, of IPv6 a network of 64 bits.
func network(address netip.Addr) netip.Addr {
	address = address.Unmap().WithZone("")
	if !address.Is6() {
		return address
	}
	prefix, err := address.Prefix(64)
	if err != nil {
		return address
	}
	return prefix.Addr()
}
