// Package workers keeps a worker for each pod that is bound to this machine,
// removes what is on the machine and wanted by nobody, and writes what the
// workers report to the registry, in batches.
//
//	Supervisor  node: 5 restarts in 10m
//	Accepts     *command.Synced *command.Committed writer.Retry container.Event pod.Hello pod.Report pod.Note pod.Ended pod.VolumesOf pod.Unmounted
//	Emits       *command.Sync *command.Commit to the registry; pod.Volumes pod.Unmount to volumes; to its children pod.Keep pod.Wish pod.Look pod.Written container.Event
//	On restart  its children stop; it waits until its predecessor's writes have settled, reads the feed and the machine afresh, and its new children adopt what runs
package workers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/asynkron/protoactor-go/actor"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/troupe-sh/troupe/actors/mailbox"
	"github.com/troupe-sh/troupe/actors/supervise"
	"github.com/troupe-sh/troupe/actors/writer"
	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/api/command"
	"github.com/troupe-sh/troupe/cluster/feed"
	"github.com/troupe-sh/troupe/cluster/journal"
	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/pod"
)

// New returns what spawns the actor. Spawn it as a supervise.Family.
func New(c Config) actor.Producer {
	if c.Sweep == 0 {
		c.Sweep = sweepEvery
	}
	return func() actor.Actor {
		work := c.Kernel.New()
		return &workers{
			config: c, work: work, writer: writer.New(c.Registry, work), state: newState(c.Node),
			children: map[types.UID]*actor.PID{}, uids: map[string]types.UID{},
		}
	}
}

type workers struct {
	config      Config
	work        mailbox.Work
	writer      *writer.Writer
	state       state
	cursor      feed.Cursor
	mark        *mark // of the cursor
	unsubscribe func()
	children    map[types.UID]*actor.PID
	uids        map[string]types.UID // by the child's PID
	unreachable bool                 // the runtime did not answer last time
}

// What the actor tells itself.
type (
	mark       struct{ _ byte }       // tells cursors apart, also of an earlier life
	woken      struct{ cursor *mark } // the feed has something
	sweep      struct{}               // it is time to look the machine over
	lookAgain  struct{}
	flushAgain struct{}
	listed     struct {
		containers []container.Container
		sandboxes  []container.Sandbox
		files      []types.UID
		err        error
	}
	cleared struct {
		uid types.UID
		err error
	}
)

// Receive implements [actor.Actor].
func (w *workers) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		w.writer.Sync(ctx)
	case *command.Synced:
		if w.writer.Synced() {
			w.begin(ctx)
		}
	case *command.Committed:
		if done, results, err, ok := w.writer.Committed(ctx, m); ok {
			w.apply(ctx, w.state.answered(done.Changes, results, err))
		}
	case writer.Retry:
		w.writer.Retry(ctx, m)
	case woken:
		if m.cursor == w.mark {
			w.pull(ctx)
		}
	case container.Event:
		w.apply(ctx, w.state.happened(m))
	case listed:
		w.reach(m.err)
		w.apply(ctx, w.state.seen(m))
	case cleared:
		w.apply(ctx, w.state.cleared(m))
	case lookAgain:
		w.apply(ctx, w.state.look())
	case sweep:
		w.apply(ctx, append(w.state.look(), wait{w.config.Sweep, sweep{}}))
	case flushAgain:
		w.apply(ctx, []effect{flush{}})
	case pod.Hello:
		w.apply(ctx, w.state.hello(w.sender(ctx)))
	case pod.Report:
		w.apply(ctx, w.state.reported(m))
	case pod.Note:
		w.apply(ctx, w.state.noted(m, string(w.work.NewUID())[:18]))
	case pod.Ended:
		w.apply(ctx, w.state.ended(m.UID))
	case pod.VolumesOf:
		w.apply(ctx, w.state.volumesOf(m))
	case pod.Unmounted:
		if m.Err != nil {
			w.config.Log.Warn("take down volumes that no pod wants", slog.String("pod", string(m.UID)), slog.Any("error", m.Err))
		}
	case *actor.Terminated:
		w.ended(ctx, m.Who)
	case *actor.Stopping, *actor.Restarting:
		w.close()
	case *actor.DeadLetterResponse: // who else did not hear is asked again in time
		w.writer.Unheard(ctx, m)
	case actor.SystemMessage, actor.AutoReceiveMessage:
	default:
		w.config.Log.Warn("unknown message", slog.String("actor", ctx.Self().Id), slog.String("message", fmt.Sprintf("%T", m)))
	}
}

func (w *workers) close() {
	w.uids = nil // children that stop now stop with their parent
	w.work.Cancel()
	if w.cursor != nil {
		w.cursor.Close()
	}
	if w.unsubscribe != nil {
		w.unsubscribe()
	}
}

// begin listens to the runtime before it looks, so that nothing falls between.
func (w *workers) begin(ctx actor.Context) {
	if w.cursor != nil {
		return // it has begun: the answer came twice
	}
	self, root := ctx.Self(), ctx.ActorSystem().Root
	w.unsubscribe = w.config.Runtime.Subscribe(func(e container.Event) { root.Send(self, e) })
	w.follow(ctx)
	w.apply(ctx, append(w.state.look(), wait{w.config.Sweep, sweep{}}))
}

// follow reads the feed from its present on.
func (w *workers) follow(ctx actor.Context) {
	pods, seq, err := w.config.Feed.Pods()
	if err != nil {
		panic(fmt.Errorf("read the pods of %s: %w", w.config.Node, err))
	}
	if w.cursor != nil {
		w.cursor.Close()
	}
	self, root := ctx.Self(), ctx.ActorSystem().Root
	m := new(mark)
	w.mark = m
	w.cursor = w.config.Feed.Watch(seq, func() { root.Send(self, woken{m}) })
	all := make([]change, 0, len(pods))
	for _, p := range pods {
		all = append(all, w.change(feed.Change{Pod: p}))
	}
	w.apply(ctx, w.state.bound(all))
}

// change is c with what its pod refers to.
func (w *workers) change(c feed.Change) change {
	if c.Gone {
		return change{Change: c}
	}
	return change{c, w.sources(c.Pod)}
}

func (w *workers) sources(p *corev1.Pod) api.Sources {
	s, err := w.config.Feed.Sources(p)
	if err != nil {
		panic(fmt.Errorf("read what pod %s/%s refers to: %w", p.Namespace, p.Name, err))
	}
	return s
}

const pullMax = 256

func (w *workers) pull(ctx actor.Context) {
	for more := true; more; {
		var changes []feed.Change
		var err error
		changes, more, err = w.cursor.Next(pullMax)
		if errors.Is(err, journal.ErrGone) {
			w.follow(ctx)
			return
		}
		if err != nil {
			panic(fmt.Errorf("read the feed of %s: %w", w.config.Node, err))
		}
		for _, c := range changes {
			if c.Pod != nil {
				w.apply(ctx, w.state.changed(w.change(c)))
				continue
			}
			for _, p := range w.state.readersOf(c.Source) {
				w.apply(ctx, w.state.sourced(p.UID, w.sources(p)))
			}
		}
	}
}

func (w *workers) sender(ctx actor.Context) types.UID {
	if ctx.Sender() == nil {
		return ""
	}
	return w.uids[ctx.Sender().Id]
}

// reach logs when the runtime stops answering, and when it answers again.
func (w *workers) reach(err error) {
	switch {
	case err != nil && !w.unreachable:
		w.config.Log.Warn("list what this machine holds", slog.Any("error", err))
	case err == nil && w.unreachable:
		w.config.Log.Info("the container runtime answers again")
	}
	w.unreachable = err != nil
}

// apply carries out what the state machine decided.
func (w *workers) apply(ctx actor.Context, todo []effect) {
	for _, e := range todo {
		switch e := e.(type) {
		case spawn:
			w.spawn(ctx, e.uid, e.name)
		case tell:
			ctx.Send(w.children[e.uid], e.message)
		case end:
			ctx.Stop(w.children[e.uid])
		case list:
			w.list(ctx)
		case tidy:
			w.tidy(ctx, e)
		case unmount:
			ctx.Request(w.config.Volumes(), pod.Unmount{UID: e.uid})
		case volumes:
			ctx.Request(w.config.Volumes(), pod.Volumes{})
		case flush:
			w.flush(ctx)
		case wait:
			w.work.After(ctx, e.delay, e.message)
		}
	}
}

func (w *workers) spawn(ctx actor.Context, uid types.UID, name string) {
	pid, err := supervise.Spawn(ctx, supervise.Family(name, "one pod on this machine", supervise.LeafBudget, w.config.Worker))
	if err != nil {
		panic(fmt.Errorf("start the worker of pod %s: %w", name, err))
	}
	// A parent is told of its children's ends without watching them; one that
	// watches them too is told twice, the second time perhaps in its next life.
	w.children[uid], w.uids[pid.Id] = pid, uid
}

func (w *workers) ended(ctx actor.Context, pid *actor.PID) {
	uid, ok := w.uids[pid.Id]
	if !ok {
		return
	}
	delete(w.uids, pid.Id)
	delete(w.children, uid)
	w.apply(ctx, w.state.stopped(uid))
}

func (w *workers) list(ctx actor.Context) {
	runtime, disk := w.config.Runtime, w.config.Disk
	w.work.Go(ctx, func(c context.Context) any {
		var m listed
		if m.containers, m.err = runtime.Containers(c); m.err != nil {
			return m
		}
		if m.sandboxes, m.err = runtime.Sandboxes(c); m.err != nil {
			return m
		}
		m.files, m.err = disk.Pods(c)
		return m
	})
}

// tidy removes what nobody wants: containers, then sandboxes, then files.
func (w *workers) tidy(ctx actor.Context, e tidy) {
	runtime, disk := w.config.Runtime, w.config.Disk
	w.config.Log.Info("remove what no pod wants", slog.String("pod", string(e.uid)),
		slog.Any("containers", e.containers), slog.Any("sandboxes", e.sandboxes))
	w.work.Go(ctx, func(c context.Context) any {
		var errs []error
		for _, id := range e.containers {
			errs = append(errs, runtime.Remove(c, id))
		}
		for _, id := range e.sandboxes {
			errs = append(errs, runtime.RemoveSandbox(c, id))
		}
		if e.uid != "" {
			errs = append(errs, disk.Remove(c, e.uid))
		}
		err := errors.Join(errs...)
		if err != nil {
			w.config.Log.Warn("remove what no pod wants", slog.String("pod", string(e.uid)), slog.Any("error", err))
		}
		return cleared{e.uid, err}
	})
}

// flush writes what there is, unless the last commit is still on its way.
func (w *workers) flush(ctx actor.Context) {
	if w.writer.Busy() || !w.state.pending() {
		return
	}
	if changes := w.state.batch(); len(changes) > 0 {
		w.writer.Commit(ctx, changes...)
	}
}
