// Package usage measures what this machine and its pods use.
//
//	Supervisor  node: 5 restarts in 1m
//	Accepts     pod.AskUsage
//	Emits       pod.UsageOf to whoever asked
//	On restart  forgets what was measured, and who asked: they ask again
package usage

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/troupe-sh/troupe/actors/mailbox"
	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/host"
	"github.com/troupe-sh/troupe/runtime/pod"
)

// Host tells what the whole machine has used. runtime/host implements it.
type Host interface {
	Usage(ctx context.Context) (host.Usage, error)
}

// Config is what the actor needs.
type Config struct {
	Kernel  mailbox.Kernel
	Log     *slog.Logger
	Runtime container.Runtime
	Host    Host
}

// New returns what spawns the actor.
func New(c Config) actor.Producer {
	return func() actor.Actor {
		return &usage{config: c, work: c.Kernel.New(), points: &points{}, answer: pod.UsageOf{Err: errNotYet}}
	}
}

type usage struct {
	config  Config
	work    mailbox.Work
	points  *points
	answer  pod.UsageOf
	looking bool
	looked  time.Time
	asked   time.Time
	waiting []*actor.PID       // for the look under way; the door lets in so many questions at once
	cancel  context.CancelFunc // the timer of the next look
}

// What the actor tells itself.
type (
	due    struct{} // it is time to look
	looked struct { // what was seen, put together off the mailbox
		points *points
		usage  *pod.Usage
		err    error
	}
)

// Receive implements [actor.Actor].
func (u *usage) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started, due:
		u.look(ctx)
	case pod.AskUsage:
		u.ask(ctx, ctx.Sender())
	case looked:
		u.seen(ctx, m)
	case *actor.Stopping, *actor.Restarting:
		u.work.Cancel()
	case actor.SystemMessage, actor.AutoReceiveMessage, *actor.DeadLetterResponse: // who did not hear has asked in vain
	default:
		u.config.Log.Warn("unknown message", "actor", ctx.Self().Id, "message", fmt.Sprintf("%T", m))
	}
}

// ask answers with what is known, or once it is fresh.
func (u *usage) ask(ctx actor.Context, who *actor.PID) {
	if who == nil {
		return
	}
	u.asked = u.work.Now()
	if !u.looking && u.answer.Err == nil && u.asked.Sub(u.looked) < resolution {
		ctx.Send(who, u.answer)
		return
	}
	u.waiting = append(u.waiting, who)
	u.look(ctx)
}

func (u *usage) look(ctx actor.Context) {
	if u.looking {
		return
	}
	u.looking = true
	if u.cancel != nil {
		u.cancel()
		u.cancel = nil
	}
	runtime, machine, known := u.config.Runtime, u.config.Host, u.points
	u.work.Go(ctx, func(c context.Context) any {
		var s sample
		var err error
		if s.node, err = machine.Usage(c); err != nil {
			return looked{err: err}
		}
		if s.containers, err = runtime.Usage(c); err != nil {
			return looked{err: err}
		}
		next := known.add(s)
		return looked{points: next, usage: next.usage()}
	})
}

func (u *usage) seen(ctx actor.Context, l looked) {
	if l.err != nil && u.answer.Err == nil {
		u.config.Log.Warn("measure what is used", "error", l.err)
	}
	u.looking, u.looked = false, u.work.Now()
	u.answer = pod.UsageOf{Usage: l.usage, Err: l.err}
	if l.err == nil {
		u.points = l.points
	}
	for _, who := range u.waiting {
		ctx.Send(who, u.answer)
	}
	u.waiting = nil
	next := idleEvery
	if !u.asked.IsZero() && u.looked.Sub(u.asked) < interest {
		next = resolution
	}
	u.cancel = u.work.After(ctx, next, due{})
}
