package mailbox

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"k8s.io/apimachinery/pkg/types"
)

// Driver is what a Kernel stands on. Real has one over the time package, the
// simulation one over its queue; everything else is the same for both.
type Driver interface {
	Now() time.Time
	// AfterFunc calls f once d has passed, unless stop is called before.
	AfterFunc(d time.Duration, f func()) (stop func())
	// Go runs f and after it then, outside the mailbox that calls it.
	Go(f, then func())
	NewUID() types.UID
}

// On returns a Kernel that stands on d.
func On(d Driver) Kernel { return kernel{d} }

type kernel struct{ driver Driver }

func (k kernel) New() Work {
	return &work{driver: k.driver, flying: map[*flight]struct{}{}}
}

// work is the one implementation of Work.
type work struct {
	driver Driver
	mu     sync.Mutex
	flying map[*flight]struct{}
}

// flight is one message on its way to the actor. It is alive while it is in
// flying: a cancelled one is not heard of, even if it lies in the mailbox.
type flight struct {
	work    *work
	message any
	failed  *Panic
	end     func() // stops the timer or ends the context; set before anybody else can call it
}

func (w *work) Now() time.Time { return w.driver.Now() }

func (w *work) NewUID() types.UID { return w.driver.NewUID() }

func (w *work) After(ctx actor.Context, d time.Duration, message any) context.CancelFunc {
	f := &flight{work: w, message: message}
	self, root := ctx.Self(), ctx.ActorSystem().Root
	w.mu.Lock()
	defer w.mu.Unlock()
	w.flying[f] = struct{}{}
	f.end = w.driver.AfterFunc(d, func() { w.land(f, root, self) })
	return func() { w.forget(f) }
}

func (w *work) Go(ctx actor.Context, run func(context.Context) any) context.CancelFunc {
	c, cancel := context.WithCancel(context.Background())
	f := &flight{work: w, end: cancel}
	self, root := ctx.Self(), ctx.ActorSystem().Root
	w.mu.Lock()
	w.flying[f] = struct{}{}
	w.mu.Unlock()
	w.driver.Go(func() {
		defer cancel()
		defer func() {
			if r := recover(); r != nil {
				f.failed = &Panic{Reason: r, Stack: debug.Stack()}
			}
		}()
		f.message = run(c)
	}, func() { w.land(f, root, self) })
	return func() { w.forget(f) }
}

func (w *work) Cancel() {
	w.mu.Lock()
	flying := w.flying
	w.flying = map[*flight]struct{}{}
	w.mu.Unlock()
	for f := range flying {
		f.end()
	}
}

// land sends f to its actor. It holds the lock meanwhile, so that Cancel in
// Stopping leaves nothing that could arrive at an actor that is gone.
func (w *work) land(f *flight, root *actor.RootContext, self *actor.PID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, alive := w.flying[f]
	switch {
	case !alive && f.failed != nil:
		root.Logger().Error("cancelled work panicked", slog.String("actor", self.Id),
			slog.Any("error", f.failed), slog.String("stack", string(f.failed.Stack)))
	case alive && f.message == nil && f.failed == nil:
		delete(w.flying, f)
	case alive:
		root.Send(self, f)
	}
}

func (w *work) forget(f *flight) {
	w.mu.Lock()
	_, alive := w.flying[f]
	delete(w.flying, f)
	w.mu.Unlock()
	if alive {
		f.end()
	}
}

// Open is how what Work sends reaches an actor: package supervise calls it for
// every message. It returns other messages as they are, the message that Work
// carries, or nil if that was cancelled; a panic of Go's function goes on here,
// as a panic of the actor, for its supervisor to see.
func Open(e *actor.MessageEnvelope) *actor.MessageEnvelope {
	f, ok := e.Message.(*flight)
	if !ok {
		return e
	}
	f.work.mu.Lock()
	_, alive := f.work.flying[f]
	delete(f.work.flying, f)
	f.work.mu.Unlock()
	switch {
	case !alive:
		return nil
	case f.failed != nil:
		panic(f.failed)
	}
	return &actor.MessageEnvelope{Message: f.message}
}

// Panic is what a function given to Go panicked with, and where.
type Panic struct {
	Reason any
	Stack  []byte
}

func (p *Panic) Error() string { return fmt.Sprintf("work panicked: %v", p.Reason) }

// Unwrap returns the reason if it is an error.
func (p *Panic) Unwrap() error {
	err, _ := p.Reason.(error)
	return err
}

// Peek returns what Open would, to be shown and not to be used.
func Peek(message any) any {
	f, ok := message.(*flight)
	switch {
	case !ok:
		return message
	case f.failed != nil:
		return f.failed
	}
	return f.message
}
