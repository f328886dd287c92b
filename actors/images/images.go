// Package images answers which images this machine has.
//
//	Supervisor  node: 5 restarts in 10m
//	Accepts     pod.FindImage pod.ImagesLoaded
//	Emits       pod.ImageFound to whoever asked, again when an absent image has come
//	On restart  forgets who waits: they ask again by themselves
package images

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/troupe-sh/troupe/actors/mailbox"
	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/pod"
)

// Config is what the actor needs.
type Config struct {
	Kernel  mailbox.Kernel
	Log     *slog.Logger
	Runtime container.Runtime
}

// New returns what spawns the actor.
func New(c Config) actor.Producer {
	return func() actor.Actor {
		return &images{config: c, work: c.Kernel.New(), names: map[string]*name{}}
	}
}

type images struct {
	config Config
	work   mailbox.Work
	names  map[string]*name // that somebody asked for and has no image of yet
}

// name is an image that is asked for.
type name struct {
	asking  bool // the runtime is being asked
	again   bool // and has to be asked once more: an image came meanwhile
	waiting map[string]*waiter
}

// waiter is one who wants to know.
type waiter struct {
	pid  *actor.PID
	told bool // that it is absent
}

// answered is what the runtime said.
type answered struct {
	name  string
	image container.Image
	err   error
}

// Receive implements [actor.Actor].
func (i *images) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case pod.FindImage:
		i.find(ctx, m.Name, ctx.Sender())
	case pod.ImagesLoaded:
		for _, n := range slices.Sorted(maps.Keys(i.names)) {
			i.ask(ctx, n)
		}
	case answered:
		i.answer(ctx, m)
	case *actor.Terminated:
		i.forget(m.Who)
	case *actor.Stopping, *actor.Restarting:
		i.work.Cancel()
	case actor.SystemMessage, actor.AutoReceiveMessage, *actor.DeadLetterResponse: // who did not hear is asked again in time
	default:
		i.config.Log.Warn("unknown message", "actor", ctx.Self().Id, "message", fmt.Sprintf("%T", m))
	}
}

func (i *images) find(ctx actor.Context, image string, who *actor.PID) {
	n := i.names[image]
	if n == nil {
		n = &name{waiting: map[string]*waiter{}}
		i.names[image] = n
	}
	n.waiting[who.String()] = &waiter{pid: who}
	ctx.Watch(who)
	i.ask(ctx, image)
}

// ask asks the runtime, once for all who wait.
func (i *images) ask(ctx actor.Context, image string) {
	n := i.names[image]
	if n.asking {
		n.again = true
		return
	}
	n.asking = true
	runtime := i.config.Runtime
	i.work.Go(ctx, func(c context.Context) any {
		found, err := runtime.Image(c, image)
		return answered{image, found, err}
	})
}

func (i *images) answer(ctx actor.Context, m answered) {
	n := i.names[m.name]
	if n == nil {
		return
	}
	n.asking = false
	reply := pod.ImageFound{Name: m.name, Image: m.image, Err: m.err}
	absent := errors.Is(m.err, container.ErrNotFound)
	for _, key := range slices.Sorted(maps.Keys(n.waiting)) {
		w := n.waiting[key]
		if !absent || !w.told {
			ctx.Send(w.pid, reply)
		}
		if w.told = true; !absent {
			i.leave(ctx, n, key)
		}
	}
	switch {
	case len(n.waiting) == 0:
		delete(i.names, m.name)
	case n.again:
		n.again = false
		i.ask(ctx, m.name)
	}
}

func (i *images) leave(ctx actor.Context, n *name, key string) {
	pid := n.waiting[key].pid
	delete(n.waiting, key)
	for _, other := range i.names {
		if other.waiting[key] != nil {
			return
		}
	}
	ctx.Unwatch(pid)
}

func (i *images) forget(who *actor.PID) {
	for image, n := range i.names {
		delete(n.waiting, who.String())
		if len(n.waiting) == 0 && !n.asking {
			delete(i.names, image)
		}
	}
}
