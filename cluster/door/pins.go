package door

import (
	"sync"
	"time"

	"github.com/troupe-sh/troupe/cluster/journal"
)

const (
	pinFor = 5 * time.Minute
	pinMax = 64
)

// pins hold the states that clients page through, so that all pages of a list
// show one moment.
type pins struct {
	mu     sync.Mutex
	states []*pin // oldest first
}

type pin struct {
	state *journal.State
	timer *time.Timer
}

// hold keeps a state for the client's next page.
func (p *pins) hold(s *journal.State) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, old := range p.states {
		if old.state.Seq() == s.Seq() {
			old.timer.Reset(pinFor)
			p.states = append(append(p.states[:i:i], p.states[i+1:]...), old)
			return
		}
	}
	if len(p.states) == pinMax {
		p.states[0].timer.Stop()
		p.states = p.states[1:]
	}
	n := &pin{state: s}
	n.timer = time.AfterFunc(pinFor, func() { p.drop(n) })
	p.states = append(p.states, n)
}

func (p *pins) drop(n *pin) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, old := range p.states {
		if old == n {
			p.states = append(p.states[:i:i], p.states[i+1:]...)
			return
		}
	}
}

// at is the state of that moment, if it is still held.
func (p *pins) at(seq uint64) (*journal.State, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range p.states {
		if n.state.Seq() == seq {
			return n.state, true
		}
	}
	return nil, false
}
