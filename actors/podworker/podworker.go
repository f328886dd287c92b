// Package podworker keeps one pod on this machine: its sandbox, its volumes,
// a worker for each of its containers and an actor for each of their probes,
// its status, and its end.
//
//	Supervisor  workers: 5 restarts in 10m
//	Accepts     pod.Keep pod.Wish pod.Look pod.Written pod.Hello pod.ContainerReport pod.Health pod.Note pod.Mounted pod.Unmounted container.Event
//	Emits       pod.Hello pod.Report pod.Note pod.Ended to its parent; pod.Mount pod.Unmount to volumes; to its children pod.Run pod.Revise pod.Enter pod.Leave pod.Stop pod.Seen pod.Health container.Event, and to probes pod.Examine pod.Rest
//	On restart  its children stop; it asks its parent, who sends pod.Keep with what the runtime has, and adopts that
package podworker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/troupe-sh/troupe/actors/mailbox"
	"github.com/troupe-sh/troupe/actors/supervise"
	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/pod"
)

// New returns what spawns a pod's worker. Spawn it as a supervise.Family.
func New(c Config) actor.Producer {
	return func() actor.Actor {
		return &worker{config: c, work: c.Kernel.New(), state: state{machine: c.Machine}, children: map[string]*actor.PID{}}
	}
}

type worker struct {
	config   Config
	work     mailbox.Work
	state    state
	children map[string]*actor.PID
}

// What the worker tells itself. Turns unmask what is late.
type (
	sandboxMade struct {
		sandbox container.Sandbox
		err     error
	}
	sandboxSeen struct {
		number  uint64
		sandbox *container.Sandbox
		err     error
	}
	cleared struct {
		ids  []string
		turn uint64
		err  error
	}
	sandboxRemoved struct{ err error }
	diskRemoved    struct{ err error }
	graceLoaded    struct {
		left time.Duration
		ok   bool
	}
	searched struct {
		name  string
		ids   []string
		found []container.Container
		err   error
	}
	graceSaved   struct{}
	sandboxRetry struct{ turn uint64 }
	mountRetry   struct{ turn uint64 }
	removeRetry  struct{ turn uint64 }
	seekAgain    struct{ turn uint64 }
	searchAgain  struct{ of search }
	clearAgain   struct{ of purge }
	graceOver    struct{ at time.Time }
	expired      struct{ at time.Time }
)

// Receive implements [actor.Actor].
func (w *worker) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		ctx.Request(ctx.Parent(), pod.Hello{})
	case pod.Keep:
		w.apply(ctx, w.state.keep(m, w.work.Now()))
	case pod.Wish:
		w.apply(ctx, w.state.wish(m, w.work.Now()))
	case pod.Look:
		w.apply(ctx, w.state.look(m.Found, w.work.Now()))
	case pod.Written:
		w.apply(ctx, w.state.writtenUp(m, w.work.Now()))
	case pod.Hello:
		w.apply(ctx, w.state.hello(w.name(ctx), w.work.Now()))
	case pod.ContainerReport:
		w.apply(ctx, w.state.reported(w.name(ctx), m, w.work.Now()))
	case pod.Health:
		w.apply(ctx, w.state.health(w.name(ctx), m))
	case pod.Note:
		ctx.Send(ctx.Parent(), m)
	case pod.Mounted:
		w.apply(ctx, w.state.volumesMounted(m, w.work.Now()))
	case pod.Unmounted:
		w.apply(ctx, w.state.removed(func(s *steps) *bool { return &s.volumes }, m.Err, w.work.Now()))
	case container.Event:
		w.apply(ctx, w.state.happened(m))
	case searched:
		w.apply(ctx, w.state.searched(m, w.work.Now()))
	case searchAgain:
		w.apply(ctx, []effect{m.of})
	case cleared:
		w.apply(ctx, w.state.cleared(m))
	case clearAgain:
		w.apply(ctx, []effect{m.of})
	case sandboxMade:
		w.apply(ctx, w.state.sandboxMade(m, w.work.Now()))
	case sandboxSeen:
		w.apply(ctx, w.state.sandboxSeen(m, w.work.Now()))
	case sandboxRemoved:
		w.apply(ctx, w.state.removed(func(s *steps) *bool { return &s.sandbox }, m.err, w.work.Now()))
	case diskRemoved:
		w.apply(ctx, w.state.removed(func(s *steps) *bool { return &s.disk }, m.err, w.work.Now()))
	case graceLoaded:
		w.apply(ctx, w.state.graceLoaded(m, w.work.Now()))
	case graceOver:
		w.apply(ctx, w.state.graceOver(m.at, w.work.Now()))
	case expired:
		w.apply(ctx, w.state.expired(m.at, w.work.Now()))
	case graceSaved:
		w.apply(ctx, w.state.graceSaved(w.work.Now()))
	case sandboxRetry:
		w.apply(ctx, w.state.sandboxRetry(m.turn))
	case mountRetry:
		w.apply(ctx, w.state.mountRetry(m.turn))
	case removeRetry:
		w.apply(ctx, w.state.removeRetry(m.turn, w.work.Now()))
	case seekAgain:
		w.apply(ctx, w.state.seekAgain(m.turn))
	case *actor.Stopping, *actor.Restarting:
		w.work.Cancel()
	case actor.SystemMessage, actor.AutoReceiveMessage, *actor.DeadLetterResponse: // who did not hear is asked again in time
	default:
		w.config.Log.Warn("unknown message", slog.String("actor", ctx.Self().Id), slog.String("message", fmt.Sprintf("%T", m)))
	}
}

// name is the child that sent the message.
func (w *worker) name(ctx actor.Context) string {
	if ctx.Sender() == nil {
		return ""
	}
	return strings.TrimPrefix(ctx.Sender().Id, ctx.Self().Id+"/")
}

// apply carries out what the state machine decided.
func (w *worker) apply(ctx actor.Context, todo []effect) {
	runtime, disk := w.config.Runtime, w.config.Disk
	for _, e := range todo {
		switch e := e.(type) {
		case spawn:
			w.spawn(ctx, e.name, "one container's life", w.config.Container)
		case spawnProbe:
			w.spawn(ctx, e.name, "asks a container how it is", w.config.Probe)
		case tell:
			ctx.Send(w.children[e.name], e.message)
		case dismiss:
			for _, pid := range ctx.Children() {
				ctx.Stop(pid)
			}
		case search:
			w.work.Go(ctx, func(c context.Context) any { return findContainers(c, runtime, e) })
		case runSandbox:
			w.work.Go(ctx, func(c context.Context) any {
				s, err := runtime.RunSandbox(c, e.spec)
				return sandboxMade{s, err}
			})
		case seekSandbox:
			number, id := w.state.number, string(w.state.pod.UID)
			w.work.Go(ctx, func(c context.Context) any { return findSandbox(c, runtime, number, id) })
		case purge:
			w.work.Go(ctx, func(c context.Context) any {
				var errs []error
				for _, id := range e.ids {
					errs = append(errs, runtime.Remove(c, id))
				}
				return cleared{e.ids, e.turn, errors.Join(errs...)}
			})
		case removeSandbox:
			id := string(w.state.pod.UID)
			w.work.Go(ctx, func(c context.Context) any { return sandboxRemoved{runtime.RemoveSandbox(c, id)} })
		case discard:
			w.work.Go(ctx, func(c context.Context) any {
				if err := runtime.Remove(c, e.id); err != nil {
					w.config.Log.Warn("remove a container that is not the pod's", slog.String("container", e.id), slog.Any("error", err))
				}
				return nil // what is still there is seen by the next look
			})
		case mount:
			ctx.Request(w.config.Volumes(), pod.Mount{Pod: w.state.pod, Sources: w.state.sources})
		case unmount:
			ctx.Request(w.config.Volumes(), pod.Unmount{UID: w.state.pod.UID})
		case loadGrace:
			uid := w.state.pod.UID
			w.work.Go(ctx, func(c context.Context) any {
				left, ok, err := disk.Grace(c, uid)
				if err != nil {
					w.config.Log.Warn("read grace", slog.String("pod", string(uid)), slog.Any("error", err))
				}
				return graceLoaded{left, ok && err == nil}
			})
		case saveGrace:
			uid := w.state.pod.UID
			w.work.Go(ctx, func(c context.Context) any {
				if err := disk.SaveGrace(c, uid, e.left); err != nil {
					// A restarted agent would signal again and count from then.
					w.config.Log.Warn("record grace", slog.String("pod", string(uid)), slog.Any("error", err))
				}
				return graceSaved{}
			})
		case removeDisk:
			uid := w.state.pod.UID
			w.work.Go(ctx, func(c context.Context) any { return diskRemoved{disk.Remove(c, uid)} })
		case report:
			ctx.Request(ctx.Parent(), pod.Report{UID: w.state.pod.UID, Status: e.status, Number: e.number})
		case note:
			ctx.Send(ctx.Parent(), pod.Note{Type: e.kind, Reason: e.reason, Message: e.message, Pod: w.state.pod, At: w.work.Now()})
		case ended:
			ctx.Request(ctx.Parent(), pod.Ended{UID: w.state.pod.UID})
		case wait:
			w.work.After(ctx, e.delay, e.message)
		}
	}
}

func (w *worker) spawn(ctx actor.Context, name, why string, p actor.Producer) {
	pid, err := supervise.Spawn(ctx, supervise.Leaf(name, why, p))
	if err != nil {
		panic(fmt.Errorf("start %s: %w", name, err))
	}
	w.children[name] = pid
}

// findContainers looks for containers by their IDs.
func findContainers(ctx context.Context, r container.Runtime, s search) searched {
	m := searched{name: s.name, ids: s.ids}
	for _, id := range s.ids {
		c, err := r.Container(ctx, id)
		switch {
		case err == nil:
			m.found = append(m.found, c)
		case !errors.Is(err, container.ErrNotFound):
			m.err = err
			return m
		}
	}
	return m
}

func findSandbox(ctx context.Context, r container.Runtime, number uint64, id string) sandboxSeen {
	all, err := r.Sandboxes(ctx)
	m := sandboxSeen{number: number, err: err}
	for _, s := range all {
		if s.ID == id {
			m.sandbox = &s
		}
	}
	return m
}
