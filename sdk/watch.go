package sdk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"google.golang.org/grpc/metadata"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/troupe-sh/troupe/messages"
)

// Event is one change that a watch saw.
type Event[T Object] struct {
	Type   watch.EventType // Added, Modified, Deleted; Bookmark to who asked for them
	Object T               // as the change left it; deleted: as it last was, with the version of its end
}

// Watch tells of the changes of the objects that options select. From a version
// (of a [List] or of an object) it tells of each change since; without one it
// first tells of all objects there are as Added. An object that no longer fits
// the selectors comes as Deleted.
//
// It goes on where it was when the agent was away, when the agent has ended it,
// and when it was cut off because events were taken too slowly. It ends with
// [ErrGone] when the changes since are no longer kept (begin anew from a list),
// and with whatever else stands against it; also when the agent was lost while
// it told of the first objects.
func (o Objects[T]) Watch(ctx context.Context, options metav1.ListOptions) iter.Seq2[Event[T], error] {
	return func(yield func(Event[T], error) bool) {
		f := follower[T]{objects: o, options: options, version: options.ResourceVersion}
		f.start()
		for {
			s, err := f.open(ctx)
			for err == nil {
				var e Event[T]
				if e, err = s.next(); err != nil {
					break
				}
				f.saw(e)
				if (e.Type != watch.Bookmark || options.AllowWatchBookmarks) && !yield(e, nil) {
					s.close()
					return
				}
			}
			if s != nil {
				s.close()
			}
			if err = f.after(ctx, err); err != nil {
				yield(Event[T]{}, err)
				return
			}
		}
	}
}

// follower knows where a watch goes on after it broke off.
type follower[T Object] struct {
	objects Objects[T]
	options metav1.ListOptions
	version string // up to which all is seen; "": the first objects are awaited
	wait    time.Duration
}

// start reads a version that means none as none.
func (f *follower[T]) start() {
	if f.version == "0" {
		f.version = ""
	}
}

// open begins to watch where the last watch ended.
func (f *follower[T]) open(ctx context.Context) (*stream[T], error) {
	options := f.options
	options.AllowWatchBookmarks = true
	options.ResourceVersion, options.ResourceVersionMatch, options.SendInitialEvents = f.version, "", nil
	if f.version == "" {
		yes := true
		options.SendInitialEvents, options.ResourceVersionMatch = &yes, metav1.ResourceVersionMatchNotOlderThan
	}
	s, err := f.objects.open(ctx, options)
	if err == nil {
		f.wait = 0
	}
	return s, err
}

// saw moves on past an event. The first objects have versions of any age: only
// the bookmark after them counts.
func (f *follower[T]) saw(e Event[T]) {
	if f.version != "" || isEndOfFirst(e) {
		f.version = e.Object.GetResourceVersion()
	}
}

// isEndOfFirst tells whether an event says that all objects were shown.
func isEndOfFirst[T Object](e Event[T]) bool {
	return e.Type == watch.Bookmark && e.Object.GetAnnotations()[metav1.InitialEventsAnnotationKey] == "true"
}

// after waits until it makes sense to watch again; an error: it never does.
func (f *follower[T]) after(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	switch {
	case !passes(err):
		return err
	case f.version == "":
		return fmt.Errorf("watch %s: it broke off while the first objects were told: %w", f.objects.kind.Kind, err)
	}
	return f.rest(ctx)
}

// rest waits, longer each time until a watch begins.
func (f *follower[T]) rest(ctx context.Context) error {
	f.wait = min(max(againAfter, 2*f.wait), againMost)
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(f.wait):
		return nil
	}
}

// passes tells whether what ended a watch passes by itself.
func passes(err error) bool {
	for _, kind := range []error{io.EOF, ErrNoAgent, ErrUnavailable, ErrTooManyRequests, errSlowClient} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// window is how many events the agent may send ahead of those taken.
const window = 256

// watching is the header with which an agent says that a watch is there.
const watching = "troupe-watching"

// stream is one watch of an agent.
type stream[T Object] struct {
	objects Objects[T]
	ctx     context.Context //nolint:containedctx // a watch is a call that goes on
	cancel  context.CancelFunc
	call    messages.Objects_WatchObjectsClient
	arrived chan *messages.ObjectChanged // closed at the end
	ended   error                        // why, once arrived is closed
	taken   uint32                       // and not allowed again yet
}

// open begins a watch; it returns when it is there.
func (o Objects[T]) open(ctx context.Context, options metav1.ListOptions) (*stream[T], error) {
	encoded, err := o.options(&options)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	call, err := o.client.objects.WatchObjects(ctx)
	if err == nil {
		err = call.Send(&messages.WatchObjects{Place: o.place("", ""), Options: encoded, More: window})
	}
	if err == nil || err == io.EOF { // then the answer says why
		var head metadata.MD
		if head, err = call.Header(); err == nil && len(head.Get(watching)) == 0 {
			_, err = call.Recv() // why not
		}
	}
	if err != nil {
		cancel()
		return nil, o.client.plain(ctx, err)
	}
	s := &stream[T]{objects: o, ctx: ctx, cancel: cancel, call: call, arrived: make(chan *messages.ObjectChanged, window)}
	go s.read()
	return s, nil
}

// read empties the connection, whatever the taker of events does: so the agent
// can always say why it ends a watch. There is room for all that is allowed.
func (s *stream[T]) read() {
	defer close(s.arrived)
	for {
		m, err := s.call.Recv()
		if err != nil {
			s.ended = err
			return
		}
		select {
		case s.arrived <- m:
		case <-s.ctx.Done(): // an agent that sends more than it may
			s.ended = s.ctx.Err()
			return
		}
	}
}

// next waits for the next event. io.EOF: the agent has ended the watch, as it
// does after a time.
func (s *stream[T]) next() (Event[T], error) {
	m, ok := <-s.arrived
	if !ok {
		if s.ended == io.EOF {
			return Event[T]{}, io.EOF
		}
		return Event[T]{}, s.objects.client.plain(s.ctx, s.ended)
	}
	if s.taken++; s.taken == window/2 {
		// An error of the connection is told by read.
		_ = s.call.Send(&messages.WatchObjects{More: s.taken})
		s.taken = 0
	}
	e := Event[T]{Type: watch.EventType(m.Type), Object: blank[T]()}
	if err := decode(m.Object, e.Object); err != nil {
		return Event[T]{}, fmt.Errorf("the agent's event of %s: %w", s.objects.kind.Kind, err)
	}
	return e, nil
}

func (s *stream[T]) close() { s.cancel() }
