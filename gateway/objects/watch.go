package objects

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/http"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/troupe-sh/troupe/messages"
)

const (
	// slowest is how long an event waits for a client. The door's own limit is
	// longer: it cuts off without a word.
	slowest = 30 * time.Second
	// allowedMost is how many events a client may allow ahead.
	allowedMost = 1 << 20
	// slowClient is the reason of such a cut.
	slowClient metav1.StatusReason = "SlowClient"
)

// WatchObjects implements [messages.ObjectsServer].
func (s *Server) WatchObjects(client grpc.BidiStreamingServer[messages.WatchObjects, messages.ObjectChanged]) error {
	first, err := client.Recv()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(client.Context())
	defer cancel()
	r, err := call{
		ctx: ctx, method: http.MethodGet, place: first.Place, options: &metav1.ListOptions{}, encoded: first.Options, watch: true,
	}.request()
	if err != nil {
		return err
	}
	w := &watching{client: client, ctx: ctx, cancel: cancel, within: slowest, allowed: newAllowance(first.More)}
	go func() { // ends with the call
		for {
			m, err := client.Recv()
			if err != nil {
				return // it says no more, or is gone: then ctx ends
			}
			w.allowed.add(m.More)
		}
	}()
	s.rest.ServeHTTP(w, r)
	if err := w.refusal(r); err != nil {
		return err
	}
	return w.failed
}

// watching takes the stream of a watch of REST apart, and sends its events.
type watching struct {
	answer
	client  grpc.BidiStreamingServer[messages.WatchObjects, messages.ObjectChanged]
	ctx     context.Context //nolint:containedctx // of the one request that this is
	cancel  context.CancelFunc
	allowed *allowance
	within  time.Duration
	failed  error
}

// WriteHeader implements [http.ResponseWriter].
func (w *watching) WriteHeader(code int) {
	w.answer.WriteHeader(code)
	if w.code < http.StatusBadRequest {
		w.fail(w.client.SendHeader(metadata.Pairs("troupe-watching", "true")))
	}
}

// Flush implements [http.Flusher]: events are never held back.
func (w *watching) Flush() {}

// CloseNotify is what Kubernetes' filters look for in a writer that can flush.
// That a client is gone is told by the context.
func (w *watching) CloseNotify() <-chan bool { return nil }

// Write implements [http.ResponseWriter]. An event is its length in four bytes,
// then a metav1.WatchEvent.
func (w *watching) Write(p []byte) (int, error) {
	if w.failed != nil {
		return len(p), nil // the request is cancelled, and about to end
	}
	_, _ = w.answer.Write(p) // cannot fail
	if w.code >= http.StatusBadRequest {
		return len(p), nil
	}
	const head = 4
	rest := w.body
	for w.failed == nil && len(rest) >= head {
		length := int(binary.BigEndian.Uint32(rest))
		if len(rest) < head+length {
			break
		}
		w.fail(w.send(rest[head : head+length]))
		rest = rest[head+length:]
	}
	w.body = append(w.body[:0], rest...)
	return len(p), nil
}

// fail ends the watch with the first error there is.
func (w *watching) fail(err error) {
	if err != nil && w.failed == nil {
		w.failed = err
		w.cancel()
	}
}

func (w *watching) send(encoded []byte) error {
	var event metav1.WatchEvent
	if err := event.Unmarshal(encoded); err != nil {
		return fmt.Errorf("an event that cannot be read: %w", err)
	}
	if event.Type == string(watch.Error) {
		st := metav1.Status{}
		if _, _, err := statuses.Decode(event.Object.Raw, nil, &st); err != nil {
			return fmt.Errorf("the end of a watch that cannot be read: %w", err)
		}
		return refused(st, nil)
	}
	switch err := w.allowed.take(w.ctx, w.within); {
	case err == errSlow: //nolint:errorlint // it is ours, unwrapped
		return refused(metav1.Status{
			Status: metav1.StatusFailure, Code: http.StatusTooManyRequests, Reason: slowClient,
			Message: fmt.Sprintf("the watch is cut off: its client took no event for %s; watch again from the last version that it saw", w.within),
		}, nil)
	case err != nil:
		return err
	}
	return w.client.Send(&messages.ObjectChanged{Type: event.Type, Object: event.Object.Raw})
}

// allowance is how many events a client still takes. One goroutine takes of it.
type allowance struct {
	mu   sync.Mutex
	left uint32
	more chan struct{}
}

func newAllowance(n uint32) *allowance {
	return &allowance{left: min(n, allowedMost), more: make(chan struct{}, 1)}
}

func (a *allowance) add(n uint32) {
	a.mu.Lock()
	a.left = min(a.left+min(n, allowedMost), allowedMost)
	a.mu.Unlock()
	select {
	case a.more <- struct{}{}:
	default:
	}
}

var errSlow = fmt.Errorf("nothing is allowed")

// take waits until one more event is allowed.
func (a *allowance) take(ctx context.Context, within time.Duration) error {
	var late <-chan time.Time
	for {
		a.mu.Lock()
		if a.left > 0 {
			a.left--
			a.mu.Unlock()
			return nil
		}
		a.mu.Unlock()
		if late == nil {
			timer := time.NewTimer(within)
			defer timer.Stop()
			late = timer.C
		}
		select {
		case <-a.more:
		case <-late:
			return errSlow
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
