package outbound

import "sync"

// maxPooled bounds the clients of a pool; beyond it all are forgotten.
const maxPooled = 64

// Pool keeps a client for each text of authorities, so that connections are used again. The zero Pool is empty.
type Pool struct {
	mu   sync.Mutex         // guards kept
	kept map[string]*Client // authorities in PEM → client
}

// Get returns the client that trusts the authorities in caPEM, those of the system if it is empty.
func (p *Pool) Get(caPEM string) (*Client, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if client := p.kept[caPEM]; client != nil {
		return client, nil
	}
	client, err := New(caPEM)
	if err != nil {
		return nil, err
	}
	if len(p.kept) >= maxPooled || p.kept == nil {
		p.kept = map[string]*Client{}
	}
	p.kept[caPEM] = client
	return client, nil
}
