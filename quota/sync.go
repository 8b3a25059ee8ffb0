package quota

import (
	"context"
	"encoding/json"
	"time"
)

// asked is one item of an ask with the account it is about.
type asked struct {
	account *account
	item    item
}

// Run speaks with the ledger until ctx ends: at once when requests wait for it, and every period.
func (l *Limiter) Run(ctx context.Context) error {
	tick := time.NewTicker(period)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.kick:
			for l.settle(ctx, false) == maxItems {
			}
		case <-tick.C:
			l.settle(ctx, true)
		}
	}
}

// settle asks the ledger for what is waited for, and when a period is over returns what wasn't used. It returns how many
// items it asked about.
func (l *Limiter) settle(ctx context.Context, periodOver bool) int {
	for range 2 {
		items, seat := l.collect(periodOver)
		if len(items) == 0 && !l.isAlone() {
			return 0
		}
		if l.exchange(ctx, items, seat) {
			return len(items)
		}
		periodOver = true // there is another ledger, which is to be told everything
	}
	return 0
}

func (l *Limiter) isAlone() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.alone
}

// collect decides what to ask. What goes back isn't this node's from here on, whatever becomes of the ask.
func (l *Limiter) collect(periodOver bool) (items []asked, seat uint64) {
	nodes := l.desk.Nodes()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.nodes = nodes
	now := l.now()
	if !periodOver {
		for len(l.pending) > 0 && len(items) < maxItems {
			a := l.pending[0]
			l.pending = l.pending[1:]
			if len(a.waiters) > 0 {
				items = append(items, asked{a, a.item(l.seat, now, item{Need: len(a.waiters), Ahead: a.spent})})
			}
		}
		return items, l.seat
	}
	l.pending = nil
	l.sweepLocked(now)
	for _, a := range l.accounts {
		i := item{Need: len(a.waiters)}
		full := len(items) == maxItems
		if full && i.Need > 0 {
			l.pending = append(l.pending, a)
		}
		if full {
			continue
		}
		i.Back, i.Ahead = max(0, a.tokens-a.spent), max(0, a.spent-a.tokens)
		a.spent = 0
		if now.Before(a.refuseUntil) {
			i.Ahead = 0
		}
		a.tokens -= i.Back
		if i = a.item(l.seat, now, i); i.Need+i.Back+i.Ahead > 0 || i.Used > 0 {
			items = append(items, asked{a, i})
		}
	}
	return items, l.seat
}

// item completes what is asked about a bucket of a ledger.
func (a *account) item(seat uint64, now time.Time, i item) item {
	i.Rule, i.Rate, i.Burst, i.Block = a.key.rule, a.rate, a.burst, a.block
	switch client := a.key.client; {
	case !client.IsValid():
	case client.IsUnspecified():
		i.Client = nobody
	default:
		i.Client = client.String()
	}
	a.fill(now)
	i.Used, a.untold = min(a.untold, a.used), 0
	if a.introduced != seat {
		// What is at hand or goes back was taken from an earlier ledger: this one never gave it.
		i.Used, i.Back, a.introduced = a.used+float64(a.tokens), 0, seat
	}
	return i
}

// exchange asks the ledger and does what it says. It is false if the ledger turns out to be another one than this node
// knew, so that it is to be asked again.
func (l *Limiter) exchange(ctx context.Context, items []asked, seat uint64) bool {
	question := ask{Seat: seat, Items: make([]item, len(items))}
	for i := range items {
		question.Items[i] = items[i].item
	}
	reply, err := l.call(ctx, question)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.alone = err != nil
	if err != nil {
		for _, i := range items {
			i.account.untold += i.item.Used
			i.account.tell(onOwn, len(i.account.waiters))
		}
		return true
	}
	if reply.Seat != seat {
		l.seat = reply.Seat
		for _, i := range items {
			i.account.introduced = 0
			l.pending = append(l.pending, i.account)
		}
		l.wake()
		return false
	}
	now := l.now()
	for i, g := range reply.Grants {
		a := items[i].account
		if a.accept(g, now); len(a.waiters) > 0 { // they came while the ledger was asked
			l.pending = append(l.pending, a)
			l.wake()
		}
	}
	return true
}

func (l *Limiter) call(ctx context.Context, question ask) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	body, err := json.Marshal(question)
	if err != nil {
		return answer{}, err
	}
	reply, err := l.desk.Ask(ctx, body)
	if err != nil {
		return answer{}, err
	}
	return decodeAnswer(reply, len(question.Items))
}

// accept gives what was granted to those who wait, in their order, and turns all off if there is no more.
func (a *account) accept(g grant, now time.Time) {
	served := min(g.Tokens, len(a.waiters))
	a.tell(letIn, served)
	a.spend(served, now)
	a.tokens += g.Tokens - served
	a.left = g.Left
	if g.Wait > 0 {
		a.refuse(now, g.Wait)
		a.tell(turnOff, len(a.waiters))
	}
}

// tell answers the first n of those who wait.
func (a *account) tell(v verdict, n int) {
	for _, told := range a.waiters[:n] {
		told <- v // has room for the one answer
	}
	a.waiters = append(a.waiters[:0], a.waiters[n:]...)
}
