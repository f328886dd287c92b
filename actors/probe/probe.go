// Package probe asks one container one thing, again and again: whether it has
// started, is alive, or is ready.
//
//	Supervisor  its pod's worker: 5 restarts in 10m
//	Accepts     pod.Examine pod.Rest
//	Emits       pod.Hello pod.Health pod.Note to its parent
//	On restart  forgets everything, and asks its parent, who sends pod.Examine if there is something to ask
package probe

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/troupe-sh/troupe/actors/mailbox"
	"github.com/troupe-sh/troupe/runtime/pod"
)

// New returns what spawns a probe.
func New(c Config) actor.Producer {
	return func() actor.Actor { return &probe{config: c, work: c.Kernel.New()} }
}

type probe struct {
	config Config
	work   mailbox.Work
	state  state
	asking context.CancelFunc
}

// What the probe tells itself. Turns unmask what is late.
type (
	due      struct{ turn uint64 }
	answered struct {
		turn   uint64
		answer pod.Answer
	}
)

// Receive implements [actor.Actor].
func (p *probe) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		ctx.Request(ctx.Parent(), pod.Hello{})
	case pod.Examine:
		p.apply(ctx, p.state.examine(m, p.work.Now()))
	case pod.Rest:
		p.apply(ctx, p.state.rest())
	case due:
		p.apply(ctx, p.state.due(m.turn))
	case answered:
		p.apply(ctx, p.state.answered(m, p.work.Now()))
	case *actor.Stopping, *actor.Restarting:
		p.work.Cancel()
	case actor.SystemMessage, actor.AutoReceiveMessage, *actor.DeadLetterResponse: // who did not hear is asked again in time
	default:
		p.config.Log.Warn("unknown message", slog.String("actor", ctx.Self().Id), slog.String("message", fmt.Sprintf("%T", m)))
	}
}

// apply carries out what the state machine decided.
func (p *probe) apply(ctx actor.Context, todo []effect) {
	for _, e := range todo {
		switch e := e.(type) {
		case forget:
			if p.asking != nil {
				p.asking()
			}
		case ask:
			port, target, spec := p.config.Port, p.state.target, p.state.spec
			p.asking = p.work.Go(ctx, func(c context.Context) any { return answered{e.turn, port.Probe(c, target, spec)} })
		case wait:
			p.work.After(ctx, e.delay, due{e.turn})
		case tell:
			ctx.Request(ctx.Parent(), pod.Health{ID: p.state.target.ID, Kind: p.state.kind, Healthy: e.healthy})
		case note:
			ctx.Send(ctx.Parent(), pod.Note{
				Type: e.kind, Reason: e.reason, Message: e.message,
				Container: p.state.target.Container.Name, Pod: p.state.target.Pod, At: p.work.Now(),
			})
		}
	}
}
