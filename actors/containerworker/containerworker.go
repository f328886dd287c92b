// Package containerworker lives one container's life: its image, creation and
// start, its restarts by policy and back-off, and its end.
//
//	Supervisor  its pod's worker: 5 restarts in 10m
//	Accepts     pod.Run pod.Revise pod.Enter pod.Leave pod.Stop pod.Seen pod.Health pod.ImagePulling pod.ImageFound container.Event
//	Emits       pod.Hello pod.ContainerReport pod.Note to its parent; pod.FindImage to images
//	On restart  forgets everything, and asks its parent, who sends pod.Run with what the runtime has
package containerworker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/troupe-sh/troupe/actors/mailbox"
	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/pod"
)

// New returns what spawns a container's worker.
func New(c Config) actor.Producer {
	if c.Backoff == 0 {
		c.Backoff = backoffBase
	}
	return func() actor.Actor {
		return &worker{config: c, work: c.Kernel.New(), state: state{machine: c.Machine, backoff: c.Backoff}}
	}
}

type worker struct {
	config Config
	work   mailbox.Work
	state  state
	hook   context.CancelFunc
}

// What the worker tells itself. IDs and turns unmask what is late.
type (
	launched struct {
		id      string
		created bool
		fact    container.Container // if err is nil
		err     error
	}
	inspected struct {
		id      string
		fact    container.Container
		message string // that it left when it ended
		err     error
	}
	signaled struct {
		id  string
		err error
	}
	hooked struct {
		turn uint64
		err  error
	}
	retry      struct{ turn uint64 }
	look       struct{ turn uint64 }
	settled    struct{ turn uint64 }
	unanswered struct{ turn uint64 }
	killDue    struct{ turn uint64 }
	insist     struct{ turn uint64 }
)

// Receive implements [actor.Actor].
func (w *worker) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		ctx.Request(ctx.Parent(), pod.Hello{})
	case pod.Run:
		w.apply(ctx, w.state.run(m, w.work.Now()))
	case pod.Revise:
		w.apply(ctx, w.state.revise(m, w.work.Now()))
	case pod.Enter:
		w.apply(ctx, w.state.enter(m))
	case pod.Leave:
		w.apply(ctx, w.state.leave(m, w.work.Now()))
	case pod.Stop:
		w.apply(ctx, w.state.stop(m, w.work.Now()))
	case pod.Seen:
		w.apply(ctx, w.state.seen(m.Found))
	case pod.ImagePulling:
		w.apply(ctx, w.state.pulls(m, w.work.Now()))
	case pod.Health:
		w.apply(ctx, w.state.health(m, w.work.Now()))
	case pod.ImageFound:
		w.apply(ctx, w.state.found(m, w.work.Now()))
	case container.Event:
		w.apply(ctx, w.state.happened(m))
	case launched:
		w.apply(ctx, w.state.launched(m, w.work.Now()))
	case inspected:
		w.apply(ctx, w.state.inspected(m, w.work.Now()))
	case signaled:
		w.apply(ctx, w.state.signaledNow(m))
	case hooked:
		w.apply(ctx, w.state.hooked(m, w.work.Now()))
	case retry:
		w.apply(ctx, w.state.retry(m.turn))
	case look:
		w.apply(ctx, w.state.look(m.turn))
	case settled:
		w.apply(ctx, w.state.settled(m.turn))
	case unanswered:
		w.apply(ctx, w.state.unanswered(m.turn))
	case killDue:
		w.apply(ctx, w.state.killDue(m.turn))
	case insist:
		w.apply(ctx, w.state.insist(m.turn, w.work.Now()))
	case *actor.Stopping, *actor.Restarting:
		w.work.Cancel()
	case actor.SystemMessage, actor.AutoReceiveMessage, *actor.DeadLetterResponse: // who did not hear is asked again in time
	default:
		w.config.Log.Warn("unknown message", slog.String("actor", ctx.Self().Id), slog.String("message", fmt.Sprintf("%T", m)))
	}
}

// apply carries out what the state machine decided.
func (w *worker) apply(ctx actor.Context, todo []effect) {
	runtime, disk := w.config.Runtime, w.config.Disk
	for _, e := range todo {
		switch e := e.(type) {
		case report:
			ctx.Request(ctx.Parent(), w.state.view())
		case note:
			ctx.Send(ctx.Parent(), pod.Note{
				Type: e.kind, Reason: e.reason, Message: e.message,
				Container: w.state.spec.Name, Pod: w.state.pod, At: w.work.Now(),
			})
		case podNote:
			ctx.Send(ctx.Parent(), pod.Note{Type: e.kind, Reason: e.reason, Message: e.message, Pod: w.state.pod, At: w.work.Now()})
		case find:
			ctx.Request(w.config.Images(), pod.FindImage{Name: e.image, Policy: e.policy, Pod: w.state.pod})
		case hook:
			port, target, handler := w.config.Hooks, w.state.target(), e.handler
			w.hook = w.work.Go(ctx, func(c context.Context) any { return hooked{e.turn, port.Hook(c, target, handler)} })
		case launch:
			if w.hook != nil {
				w.hook() // of the one before, which has ended
			}
			w.work.Go(ctx, func(c context.Context) any { return makeContainer(c, runtime, e.spec) })
		case inspect:
			policy := w.state.spec.TerminationMessagePolicy
			w.work.Go(ctx, func(c context.Context) any {
				fact, err := runtime.Container(c, e.id)
				m := inspected{id: e.id, fact: fact, err: err}
				if err == nil && fact.State == container.Exited {
					m.message = disk.TerminationMessage(c, fact, policy)
				}
				return m
			})
		case signal:
			w.work.Go(ctx, func(c context.Context) any {
				return signaled{e.id, runtime.Signal(c, e.id, e.sig)}
			})
		case clean:
			// What is left behind here is found and removed by the next look.
			w.work.Go(ctx, func(c context.Context) any {
				if err := errors.Join(runtime.Remove(c, e.id), removeLog(c, disk, e.log)); err != nil {
					w.config.Log.Warn("remove an old container", slog.String("container", e.id), slog.Any("error", err))
				}
				return nil
			})
		case wait:
			w.work.After(ctx, e.delay, e.message)
		}
	}
}

// makeContainer creates and starts a container, and says how far it got.
func makeContainer(ctx context.Context, r container.Runtime, s container.Spec) launched {
	m := launched{id: s.ID}
	if m.err = r.Create(ctx, s); m.err != nil {
		return m
	}
	m.created = true
	if m.err = r.Start(ctx, s.ID); m.err != nil {
		return m
	}
	m.fact, m.err = r.Container(ctx, s.ID)
	return m
}

func removeLog(ctx context.Context, d Disk, path string) error {
	if path == "" {
		return nil
	}
	return d.RemoveLog(ctx, path)
}
