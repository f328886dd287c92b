package actortest_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/troupe-sh/troupe/actors/actortest"
	"github.com/troupe-sh/troupe/actors/mailbox"
	"github.com/troupe-sh/troupe/actors/supervise"
)

type (
	ask   struct{}
	save  struct{ n int }
	saved struct{ n int }
	later struct{}
)

// counter counts what a store has saved, asks it when it starts, and once an hour.
type counter struct {
	work mailbox.Work
	n    int
}

func newCounter() actor.Actor { return &counter{work: mailbox.Real().New()} }

func (c *counter) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started, later:
		ctx.Request(ctx.ActorSystem().NewLocalPID("control/store"), save{c.n})
		c.work.After(ctx, time.Hour, later{})
	case saved:
		c.n = m.n + 1
		ctx.Send(ctx.Parent(), m)
	case ask:
		ctx.Respond(c.n)
	case string:
		child := supervise.Leaf(m, "", func() actor.Actor { return actor.ReceiveFunc(func(actor.Context) {}) })
		if _, err := supervise.Spawn(ctx, child); err != nil {
			panic(err)
		}
	case *actor.Stopping, *actor.Restarting:
		c.work.Cancel()
	}
}

func store(ctx actor.Context) { ctx.Respond(saved{ctx.Message().(save).n}) }

func TestPlayedActorAnswersAndTimePasses(t *testing.T) {
	actortest.Run(t, newCounter, func(k *actortest.Kit) {
		k.Play("control/store", store)
		k.Advance(2*time.Hour + time.Minute)
		if got, want := k.Heard(), []string{"actortest_test.saved{n:0}", "actortest_test.saved{n:1}", "actortest_test.saved{n:2}"}; !slices.Equal(got, want) {
			t.Errorf("heard %q, want %q", got, want)
		}
		if got := k.Messages("control/store"); len(got) != 3 || got[2] != (save{2}) {
			t.Errorf("the store was sent %v", got)
		}
		if got := k.Ask(ask{}); got != 3 {
			t.Errorf("answer %v, want 3", got)
		}
		if got := k.Heard(); got != nil {
			t.Errorf("heard %q twice", got)
		}
	})
}

func TestCrashRestartsTheActorAndItsChildrenAlone(t *testing.T) {
	actortest.Run(t, newCounter, func(k *actortest.Kit) {
		k.Play("control/store", store)
		k.Tell("child")
		k.CrashAt(actortest.Path + "/child")
		k.Crash()
		k.TellFrom("control/store", saved{41})
		if got := k.Ask(ask{}); got != 42 {
			t.Errorf("answer %v, want 42", got)
		}
		for _, s := range k.Actors() {
			if s.Path == actortest.Path && (s.Restarts != 1 || s.LastFailure == "") {
				t.Errorf("%+v", s)
			}
			if s.Path == actortest.Path+"/child" {
				t.Errorf("the child outlived its parent: %+v", s)
			}
		}
	})
}

func TestWorkRunsInTheBubble(t *testing.T) {
	slow := func() actor.Actor {
		work := mailbox.Real().New()
		return actor.ReceiveFunc(func(ctx actor.Context) {
			switch m := ctx.Message().(type) {
			case *actor.Started:
				work.Go(ctx, func(c context.Context) any {
					select {
					case <-c.Done():
						return nil
					case <-time.After(time.Minute):
						return save{7}
					}
				})
			case save:
				ctx.Send(ctx.Parent(), m)
			case *actor.Stopping, *actor.Restarting:
				work.Cancel()
			}
		})
	}
	actortest.Run(t, slow, func(k *actortest.Kit) {
		k.Advance(59 * time.Second)
		if got := k.Heard(); got != nil {
			t.Errorf("heard %q too early", got)
		}
		k.Advance(time.Second)
		if got := k.Heard(); len(got) != 1 {
			t.Errorf("heard %q", got)
		}
	})
	actortest.Run(t, slow, func(k *actortest.Kit) { k.Start() }) // stopped with the work in flight
}
