package actortest_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/troupe-sh/troupe/actors/actortest"
)

const badCase = "ACTORTEST_BAD"

// bad are tests that the kit must fail, by what it must say.
var bad = map[string]func(*testing.T){
	"dead letter: actortest_test.save{n:1} to nobody": func(t *testing.T) {
		actortest.Run(t, func() actor.Actor {
			return actor.ReceiveFunc(func(ctx actor.Context) {
				if _, ok := ctx.Message().(*actor.Started); ok {
					ctx.Send(ctx.ActorSystem().NewLocalPID("nobody"), save{1})
				}
			})
		}, func(k *actortest.Kit) { k.Start() })
	},
	"test/parent/actor panicked at actortest_test.ask: unasked": func(t *testing.T) {
		actortest.Run(t, func() actor.Actor {
			return actor.ReceiveFunc(func(ctx actor.Context) {
				if _, ok := ctx.Message().(ask); ok {
					panic("unasked")
				}
			})
		}, func(k *actortest.Kit) { k.Tell(ask{}) })
	},
	"escalated past the parent": func(t *testing.T) {
		actortest.Run(t, func() actor.Actor { panic("never") }, func(k *actortest.Kit) { k.Start() })
	},
	"no answer to actortest_test.ask": func(t *testing.T) {
		actortest.Run(t, func() actor.Actor { return actor.ReceiveFunc(func(actor.Context) {}) },
			func(k *actortest.Kit) { k.Ask(ask{}) })
	},
	"blocked goroutines remain": func(t *testing.T) {
		actortest.Run(t, func() actor.Actor {
			return actor.ReceiveFunc(func(ctx actor.Context) {
				if _, ok := ctx.Message().(*actor.Started); ok {
					go func() { <-make(chan struct{}) }()
				}
			})
		}, func(k *actortest.Kit) { k.Advance(time.Second) })
	},
}

// TestBadCase is the other process of TestKitFailsBadTests; by itself it runs nothing.
func TestBadCase(t *testing.T) {
	if run := bad[os.Getenv(badCase)]; run != nil {
		run(t)
	}
}

func TestKitFailsBadTests(t *testing.T) {
	for says := range bad {
		t.Run(says, func(t *testing.T) {
			c := exec.Command(os.Args[0], "-test.run=^TestBadCase$")
			c.Env = append(os.Environ(), badCase+"="+says)
			out, err := c.CombinedOutput()
			if err == nil || !strings.Contains(string(out), says) {
				t.Errorf("passed, or failed without saying so: %v\n%s", err, out)
			}
		})
	}
}
