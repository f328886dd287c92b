package writer_test

import (
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/troupe-sh/troupe/actors/actortest"
	"github.com/troupe-sh/troupe/actors/mailbox"
	"github.com/troupe-sh/troupe/actors/writer"
	"github.com/troupe-sh/troupe/api/command"
)

// beginner is an actor that waits for its first Synced, and tells its parent.
type beginner struct{ writer *writer.Writer }

func (b *beginner) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		b.writer.Sync(ctx)
	case *command.Synced:
		if b.writer.Synced() {
			ctx.Send(ctx.Parent(), "begun")
		}
	case writer.Retry:
		b.writer.Retry(ctx, m)
	}
}

func TestASyncThatNobodyAnswersIsSoonAskedAgain(t *testing.T) {
	const registry = "control/registry"
	var k *actortest.Kit
	work := mailbox.Real().New()
	actortest.Run(t, func() actor.Actor {
		return &beginner{writer.New(func() *actor.PID { return k.PID(registry) }, work)}
	}, func(kit *actortest.Kit) {
		k = kit
		asked := 0
		k.Play(registry, func(ctx actor.Context) {
			if asked++; asked > 1 { // the first was lost with the registry of that time
				ctx.Respond(&command.Synced{})
			}
		})
		k.Start()
		k.Advance(time.Second)
		if heard := k.Heard(); len(heard) != 1 {
			t.Errorf("after a second: %v", heard)
		}
		k.Advance(time.Minute)
		if asked != 2 {
			t.Errorf("asked %d times", asked)
		}
	})
}
