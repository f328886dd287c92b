package main

import (
	"context"
	"errors"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/pod"
)

// askAgain is how often a pull is asked for that is not answered: the actor may
// have forgotten it.
const askAgain = 10 * time.Second

// pullImage has the actor at images pull an image, for one who is no actor. step is
// told now and then how far it is. The pull goes on after ctx if others want it.
func pullImage(ctx context.Context, root *actor.RootContext, images *actor.PID, m pod.PullImage, step func(container.Step)) (container.Image, error) {
	steps := make(chan container.Step, 1)
	found := make(chan pod.ImageFound, 1)
	asker := root.Spawn(actor.PropsFromFunc(func(c actor.Context) {
		switch m := c.Message().(type) {
		case pod.ImageStep:
			select {
			case steps <- m.Step:
			default: // the next one says more
			}
		case pod.ImageFound:
			select {
			case found <- m:
			default: // it has had its answer
			}
		case *actor.DeadLetterResponse:
			select {
			case found <- pod.ImageFound{Err: errors.New("the agent does not drive this machine now; try again")}:
			default:
			}
		}
	}))
	defer root.Stop(asker)
	tick := time.NewTicker(askAgain)
	defer tick.Stop()
	for {
		root.RequestWithCustomSender(images, m, asker)
		for waiting := true; waiting; {
			select {
			case s := <-steps:
				step(s)
			case f := <-found:
				return f.Image, f.Err
			case <-tick.C:
				waiting = false
			case <-ctx.Done():
				return container.Image{}, ctx.Err()
			}
		}
	}
}
