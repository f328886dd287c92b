package mailbox_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"k8s.io/apimachinery/pkg/types"

	"github.com/troupe-sh/troupe/actors/mailbox"
)

// user is an actor that does with its Work what a test sends it.
type user struct {
	work  mailbox.Work
	heard *lines
}

// lines are what an actor heard.
type lines struct {
	mu  sync.Mutex
	all []string
}

func (l *lines) add(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, line)
}

func (l *lines) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := l.all
	l.all = nil
	return out
}

type do func(ctx actor.Context, w mailbox.Work)

func (u *user) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case do:
		m(ctx, u.work)
	case string:
		u.heard.add(m)
	case *actor.Stopping, *actor.Restarting:
		u.work.Cancel()
	}
}

// bubble spawns a user with the middleware that package supervise gives every actor.
func bubble(t *testing.T, body func(tell func(do), heard *lines, log *strings.Builder)) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		system := actor.NewActorSystem(actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger {
			return slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelError}))
		}))
		system.EventStream.Subscribe(func(e any) {
			if d, ok := e.(*actor.DeadLetterEvent); ok {
				t.Errorf("dead letter %T", d.Message)
			}
		})
		heard := &lines{}
		open := func(next actor.ReceiverFunc) actor.ReceiverFunc {
			return func(ctx actor.ReceiverContext, e *actor.MessageEnvelope) {
				defer func() {
					if r := recover(); r != nil {
						heard.add(fmt.Sprintf("panic: %v", r))
						panic(r)
					}
				}()
				if e = mailbox.Open(e); e != nil {
					next(ctx, e)
				}
			}
		}
		kernel := mailbox.Real()
		pid := system.Root.Spawn(actor.PropsFromProducer(func() actor.Actor { return &user{kernel.New(), heard} },
			actor.WithReceiverMiddleware(open)))
		body(func(m do) { system.Root.Send(pid, m); synctest.Wait() }, heard, &log)
		_ = system.Root.StopFuture(pid).Wait()
		time.Sleep(24 * time.Hour)
		system.Shutdown()
	})
}

func expect(t *testing.T, heard *lines, want ...string) {
	t.Helper()
	synctest.Wait()
	if got := heard.take(); !slices.Equal(got, want) {
		t.Errorf("heard %q, want %q", got, want)
	}
}

func TestAfter(t *testing.T) {
	bubble(t, func(tell func(do), heard *lines, _ *strings.Builder) {
		tell(func(ctx actor.Context, w mailbox.Work) {
			w.After(ctx, 2*time.Second, "second")
			w.After(ctx, time.Second, "first")
			w.After(ctx, time.Second, "cancelled")()
			w.After(ctx, 0, "now")
		})
		expect(t, heard, "now")
		time.Sleep(999 * time.Millisecond)
		expect(t, heard)
		time.Sleep(time.Millisecond)
		expect(t, heard, "first")
		time.Sleep(time.Hour)
		expect(t, heard, "second")
	})
}

func TestCancelledMessageIsNotHeardEvenOutOfTheMailbox(t *testing.T) {
	bubble(t, func(tell func(do), heard *lines, _ *strings.Builder) {
		tell(func(ctx actor.Context, w mailbox.Work) {
			one := w.After(ctx, time.Second, "one")
			w.After(ctx, time.Second, "other")
			w.Go(ctx, func(context.Context) any { return "done" })
			time.Sleep(2 * time.Second) // all of them lie in the mailbox now
			one()
			one()
		})
		time.Sleep(time.Minute)
		expect(t, heard, "done", "other")
		tell(func(ctx actor.Context, w mailbox.Work) {
			w.After(ctx, time.Second, "one")
			w.Go(ctx, func(context.Context) any { return "done" })
			time.Sleep(2 * time.Second)
			w.Cancel()
			w.After(ctx, time.Second, "Work goes on after Cancel")
		})
		time.Sleep(time.Minute)
		expect(t, heard, "Work goes on after Cancel")
	})
}

func TestGo(t *testing.T) {
	bubble(t, func(tell func(do), heard *lines, _ *strings.Builder) {
		var ended []string
		slow := func(name string) func(context.Context) any {
			return func(c context.Context) any {
				select {
				case <-c.Done():
					ended = append(ended, name)
				case <-time.After(time.Second):
				}
				return name
			}
		}
		tell(func(ctx actor.Context, w mailbox.Work) {
			w.Go(ctx, slow("slow"))
			w.Go(ctx, func(context.Context) any { return nil })
			w.Go(ctx, slow("cancelled"))()
		})
		if want := []string{"cancelled"}; !slices.Equal(ended, want) {
			t.Errorf("contexts ended: %q, want %q", ended, want)
		}
		time.Sleep(time.Second)
		expect(t, heard, "slow")
		tell(func(ctx actor.Context, w mailbox.Work) { w.Go(ctx, slow("stopped with the actor")) })
	})
}

func TestPanicInGoIsTheActors(t *testing.T) {
	boom := errors.New("boom")
	bubble(t, func(tell func(do), heard *lines, log *strings.Builder) {
		tell(func(ctx actor.Context, w mailbox.Work) { w.Go(ctx, func(context.Context) any { panic(boom) }) })
		expect(t, heard, "panic: work panicked: boom")
		tell(func(ctx actor.Context, w mailbox.Work) {
			w.Go(ctx, func(c context.Context) any { <-c.Done(); panic(boom) })()
		})
		expect(t, heard)
		if !strings.Contains(log.String(), "cancelled work panicked") || !strings.Contains(log.String(), "mailbox_test.go") {
			t.Errorf("logged %s", log)
		}
	})
	p := &mailbox.Panic{Reason: boom}
	if !errors.Is(p, boom) || errors.Is(&mailbox.Panic{Reason: "boom"}, boom) {
		t.Error("a Panic does not unwrap to its reason")
	}
}

func TestNowAndNewUID(t *testing.T) {
	w := mailbox.Real().New()
	seen := map[types.UID]bool{}
	for range 1000 {
		uid := w.NewUID()
		if len(uid) != 36 || uid[14] != '4' || seen[uid] {
			t.Fatalf("uid %s", uid)
		}
		seen[uid] = true
	}
	if d := time.Since(w.Now()); d < 0 || d > time.Hour {
		t.Errorf("now is %s ago", d)
	}
}
