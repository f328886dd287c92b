package journal

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/troupe-sh/troupe/api"
)

// ErrGone says that changes were asked for which are no longer remembered:
// list again, and watch from there.
var ErrGone = errors.New("gone")

// Hub lets this machine read and watch its replica. It starts no goroutine:
// whoever publishes a state runs the wakes.
type Hub struct {
	state atomic.Pointer[State]

	mu     sync.Mutex
	issued uint64                          // cursors
	parked map[string]map[*Cursor]struct{} // those to wake, by resource; under "" those of all resources
}

// NewHub returns a hub that shows s.
func NewHub(s *State) *Hub {
	h := &Hub{parked: make(map[string]map[*Cursor]struct{})}
	h.state.Store(s)
	return h
}

// Snapshot is the present state; it can be read for as long as it is held.
func (h *Hub) Snapshot() *State { return h.state.Load() }

// Seq is the number of the last change.
func (h *Hub) Seq() uint64 { return h.Snapshot().Seq() }

// Get returns one object.
func (h *Hub) Get(k api.Key) (*Record, bool) { return h.Snapshot().Get(k) }

// List returns the objects of a resource, sorted by key: those of one
// namespace, or all if namespace is empty.
func (h *Hub) List(resource, namespace string) []*Record {
	return h.Snapshot().List(resource, namespace)
}

// Index returns the objects of a resource that were stored with the index term
// ("node=n1", "owner=<uid>"), sorted by key.
func (h *Hub) Index(term, resource string) []*Record { return h.Snapshot().Index(term, resource) }

// Command returns the result of a command that was carried out in the last ten
// minutes, so that a repeated one gets the same answer.
func (h *Hub) Command(id string) (result []byte, ok bool) { return h.Snapshot().Command(id) }

// Publish shows s from now on and wakes who waits for what is new in it. The
// adapters call it, one call at a time.
func (h *Hub) Publish(s *State) {
	h.mu.Lock()
	before := h.state.Swap(s)
	var woken []*Cursor
	for resource, cursors := range h.parked {
		if resource != "" && s.last(resource) == before.last(resource) {
			continue
		}
		for c := range cursors {
			if c.pending(s) {
				woken = append(woken, c)
			}
		}
	}
	slices.SortFunc(woken, func(a, b *Cursor) int { return cmp.Compare(a.id, b.id) })
	woken = slices.Compact(woken) // one of several resources may stand there twice
	for _, c := range woken {
		h.unpark(c)
	}
	h.mu.Unlock()
	for _, c := range woken {
		c.wake()
	}
}

// Subscribe returns a cursor over the changes past from: those of the
// resources, or of all if none is named. wake is called once when there is
// something to read, perhaps before Subscribe returns, and again only after
// Next has returned less than it was asked for. It must not block; it runs
// where the change is applied.
func (h *Hub) Subscribe(from uint64, wake func(), resources ...string) *Cursor {
	c := &Cursor{hub: h, resources: slices.Compact(slices.Sorted(slices.Values(resources))), upTo: from, wake: wake}
	h.mu.Lock()
	h.issued++
	c.id = h.issued
	ready := c.pending(h.state.Load())
	if !ready {
		h.park(c)
	}
	h.mu.Unlock()
	if ready {
		wake()
	}
	return c
}

func (h *Hub) park(c *Cursor) {
	for _, resource := range c.places() {
		if h.parked[resource] == nil {
			h.parked[resource] = make(map[*Cursor]struct{})
		}
		h.parked[resource][c] = struct{}{}
	}
}

func (h *Hub) unpark(c *Cursor) {
	for _, resource := range c.places() {
		delete(h.parked[resource], c)
		if len(h.parked[resource]) == 0 {
			delete(h.parked, resource)
		}
	}
}

// Cursor reads the changes of a subscription, each once and in order. One
// goroutine (or actor) at a time may use it.
type Cursor struct {
	hub       *Hub
	id        uint64
	resources []string // none: all
	wake      func()

	// Guarded by hub.mu while parked, and the reader's own otherwise.
	upTo   uint64
	closed bool
}

// Next returns the next changes, at most max, and the number up to which there
// are no others: what a watcher that comes back later starts from. An error is
// ErrGone: the cursor was too slow, or began too far back.
func (c *Cursor) Next(max int) (changes []Changed, upTo uint64, err error) {
	c.take()
	for {
		s := c.hub.Snapshot()
		changes, err = c.read(s, changes, max)
		if err != nil {
			return nil, c.upTo, err
		}
		if len(changes) == max || c.parkAt(s) {
			return changes, c.upTo, nil
		}
	}
}

// Close ends the subscription. A wake that is under way may still come.
func (c *Cursor) Close() {
	c.hub.mu.Lock()
	defer c.hub.mu.Unlock()
	c.closed = true
	c.hub.unpark(c)
}

// take makes c its reader's own, who may come without having been woken.
func (c *Cursor) take() {
	c.hub.mu.Lock()
	defer c.hub.mu.Unlock()
	c.hub.unpark(c)
}

// parkAt waits for what comes after s, unless something has come already.
func (c *Cursor) parkAt(s *State) bool {
	c.hub.mu.Lock()
	defer c.hub.mu.Unlock()
	if now := c.hub.state.Load(); now != s && c.pending(now) {
		return false
	}
	if !c.closed {
		c.hub.park(c)
	}
	return true
}

// read appends what s has for c and moves c on.
func (c *Cursor) read(s *State, changes []Changed, max int) ([]Changed, error) {
	pasts := c.pasts(s)
	next := make([]int, len(pasts))
	for i, p := range pasts {
		if c.upTo < p.floor {
			return nil, fmt.Errorf("%w: the changes of %s between %d and %d are forgotten: list again",
				ErrGone, p.resource, c.upTo, p.floor)
		}
		next[i] = p.after(c.upTo)
	}
	for len(changes) < max {
		first := -1
		for i, p := range pasts {
			if next[i] < p.changes.length &&
				(first < 0 || p.changes.at(next[i]).Seq < pasts[first].changes.at(next[first]).Seq) {
				first = i
			}
		}
		if first < 0 {
			if s.seq > c.upTo {
				c.upTo = s.seq
			}
			return changes, nil
		}
		change := pasts[first].changes.at(next[first])
		next[first]++
		changes = append(changes, change)
		c.upTo = change.Seq
	}
	return changes, nil
}

// pending tells whether Next would return something, be it an error.
func (c *Cursor) pending(s *State) bool {
	for _, p := range c.pasts(s) {
		if p.last() > c.upTo {
			return true
		}
	}
	return false
}

// pasts are those that c reads, sorted by resource.
func (c *Cursor) pasts(s *State) []past {
	var found []past
	if len(c.resources) == 0 {
		s.pasts.Root().Walk(func(_ []byte, p past) bool {
			found = append(found, p)
			return false
		})
	}
	for _, resource := range c.resources {
		if p, ok := s.pasts.Get([]byte(resource)); ok {
			found = append(found, p)
		}
	}
	return found
}

// places are where c parks.
func (c *Cursor) places() []string {
	if len(c.resources) == 0 {
		return []string{""}
	}
	return c.resources
}
