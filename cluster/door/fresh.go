package door

import (
	"context"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/troupe-sh/troupe/cluster/journal"
)

// shared lets all who wait for the proof of leadership share one: whoever comes
// before it begins is served by it.
type shared struct {
	do func(context.Context) error

	mu   sync.Mutex
	busy bool   // a round is under way
	next *round // not begun yet
}

type round struct {
	done chan struct{}
	err  error
}

const roundTimeout = 5 * time.Second

func (s *shared) wait(ctx context.Context) error {
	s.mu.Lock()
	if s.next == nil {
		s.next = &round{done: make(chan struct{})}
	}
	r := s.next
	if !s.busy {
		s.busy = true
		go s.run()
	}
	s.mu.Unlock()
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// run makes one round after the other for as long as somebody waits.
func (s *shared) run() {
	for {
		s.mu.Lock()
		r := s.next
		s.next = nil
		s.busy = r != nil
		s.mu.Unlock()
		if r == nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), roundTimeout)
		r.err = s.do(ctx)
		cancel()
		close(r.done)
	}
}

// present is the state once all that was written before now is in it.
func (d *Door) present(ctx context.Context) (*journal.State, error) {
	if err := d.fresh.wait(ctx); err != nil {
		return nil, apierrors.NewServiceUnavailable(fmt.Sprintf("the present state cannot be read: %v; try again", err))
	}
	return d.any()
}

// any is the state as this machine has it.
func (d *Door) any() (*journal.State, error) {
	s := d.hub.Snapshot()
	if s.Seq() == 0 { // no resourceVersion says "from the beginning"
		return nil, apierrors.NewServiceUnavailable("the cluster is starting: nothing is written yet; try again")
	}
	return s, nil
}
