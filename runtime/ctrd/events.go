package ctrd

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	apievents "github.com/containerd/containerd/api/events"
	coreevents "github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/typeurl/v2"

	"github.com/troupe-sh/troupe/runtime/container"
)

const (
	// topicHello is an event of our own: when it comes back, the stream stands.
	topicHello = "/troupe/hello"

	helloEvery   = 20 * time.Millisecond
	reconnectMin = 50 * time.Millisecond
	reconnectMax = time.Second
)

// events hears containerd's stream and passes on what the port tells.
type events struct {
	r      *Runtime
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu          sync.Mutex
	subscribers map[int]func(container.Event)
	next        int
	queue       []container.Event
	wake        chan struct{}
}

// listen begins to hear, and returns when the stream stands.
func (r *Runtime) listen(ctx context.Context) (*events, error) {
	life, cancel := context.WithCancel(r.in(context.Background()))
	e := &events{r: r, cancel: cancel, subscribers: map[int]func(container.Event){}, wake: make(chan struct{}, 1)}
	first, err := e.open(ctx, life)
	if err != nil {
		cancel()
		return nil, err
	}
	e.done.Go(func() { e.run(life, first) })
	e.done.Go(func() { e.deliver(life) })
	return e, nil
}

func (e *events) close() {
	e.cancel()
	e.done.Wait()
}

// stream is a subscription that is known to stand.
type stream struct {
	events <-chan *coreevents.Envelope
	errs   <-chan error
	cancel context.CancelFunc
}

// open subscribes: containerd does not say when a subscription stands, so an
// event of our own is sent until it comes back.
func (e *events) open(ctx, life context.Context) (stream, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	streamCtx, cancel := context.WithCancel(life)
	service := e.r.client.EventService()
	ns := e.r.c.Namespace
	filter := func(topic string) string { return fmt.Sprintf("namespace==%q,topic==%q", ns, topic) }
	s := stream{cancel: cancel}
	s.events, s.errs = service.Subscribe(streamCtx,
		filter("/tasks/exit"), filter("/tasks/oom"), filter("/containers/delete"),
		filter("/images/create"), filter("/images/update"), filter("/images/delete"), filter(topicHello))
	nonce := rand.Text()
	tick := time.NewTicker(helloEvery)
	defer tick.Stop()
	for {
		if err := service.Publish(e.r.in(ctx), topicHello, &apievents.ContainerUpdate{ID: nonce}); err != nil {
			cancel()
			return stream{}, fmt.Errorf("publish an event: %w", kind(err))
		}
		for waiting := true; waiting; {
			select {
			case got := <-s.events:
				if hello, err := typeurl.UnmarshalAny(got.Event); err == nil {
					if h, ok := hello.(*apievents.ContainerUpdate); ok && got.Topic == topicHello && h.ID == nonce {
						return s, nil
					}
				}
				e.handle(got)
			case err := <-s.errs:
				cancel()
				return stream{}, fmt.Errorf("subscribe to events: %w", kind(errors.Join(err, container.ErrGone)))
			case <-tick.C:
				waiting = false
			case <-ctx.Done():
				cancel()
				return stream{}, fmt.Errorf("subscribe to events: %w", ctx.Err())
			}
		}
	}
}

// run hears one stream after the other until life ends.
func (e *events) run(life context.Context, s stream) {
	for {
		e.hear(life, s)
		s.cancel()
		for wait := reconnectMin; ; wait = min(2*wait, reconnectMax) {
			if life.Err() != nil {
				return
			}
			var err error
			attempt, cancel := context.WithTimeout(life, 10*time.Second)
			if s, err = e.open(attempt, life); err == nil {
				cancel()
				break
			}
			cancel()
			e.r.c.Log.Debug("containerd does not answer", "error", err)
			select {
			case <-life.Done():
				return
			case <-time.After(wait):
			}
		}
		e.r.c.Log.Info("containerd answers again")
		e.r.images.invalidate()
		e.emit(container.Event{Kind: container.Gap, At: time.Now()})
	}
}

func (e *events) hear(life context.Context, s stream) {
	for {
		select {
		case got := <-s.events:
			e.handle(got)
		case err := <-s.errs:
			if life.Err() == nil {
				e.r.c.Log.Warn("containerd is gone, connecting again", "error", err)
			}
			return
		case <-life.Done():
			return
		}
	}
}

// handle translates one event.
func (e *events) handle(got *coreevents.Envelope) {
	event, err := typeurl.UnmarshalAny(got.Event)
	if err != nil {
		return // of a type that we asked for in another form: none is known
	}
	switch v := event.(type) {
	case *apievents.TaskExit:
		if v.ID != v.ContainerID {
			return // a process that was executed in it
		}
		at := v.ExitedAt.AsTime()
		if k := e.r.lookup(v.ContainerID); k != nil {
			e.r.exited(v.ContainerID, k, v.ExitStatus, at)
			if k.internal {
				e.emit(container.Event{Kind: container.Removed, ContainerID: k.sandbox, At: at}) // a part of it is gone
				return
			}
		}
		e.emit(container.Event{Kind: container.ContainerExited, ContainerID: v.ContainerID, ExitCode: v.ExitStatus, At: at})
	case *apievents.TaskOOM:
		e.emit(container.Event{Kind: container.ContainerOOM, ContainerID: v.ContainerID, At: got.Timestamp})
	case *apievents.ContainerDelete:
		k := e.r.lookup(v.ID)
		e.r.forget(v.ID)
		if k != nil && k.internal {
			return
		}
		e.emit(container.Event{Kind: container.Removed, ContainerID: v.ID, At: got.Timestamp})
	case *apievents.ImageCreate, *apievents.ImageUpdate, *apievents.ImageDelete:
		e.r.images.invalidate()
	}
}

// emit queues an event; deliver passes it on.
func (e *events) emit(event container.Event) {
	e.mu.Lock()
	e.queue = append(e.queue, event)
	e.mu.Unlock()
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

func (e *events) deliver(life context.Context) {
	for {
		select {
		case <-life.Done():
			return
		case <-e.wake:
		}
		for {
			e.mu.Lock()
			if len(e.queue) == 0 {
				e.mu.Unlock()
				break
			}
			event := e.queue[0]
			e.queue = e.queue[1:]
			to := maps.Clone(e.subscribers)
			e.mu.Unlock()
			for _, id := range slices.Sorted(maps.Keys(to)) {
				to[id](event)
			}
		}
	}
}

// Subscribe implements [container.Runtime].
func (r *Runtime) Subscribe(f func(container.Event)) (stop func()) {
	e := r.events
	e.mu.Lock()
	defer e.mu.Unlock()
	id := e.next
	e.next++
	e.subscribers[id] = f
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.subscribers, id)
	}
}
