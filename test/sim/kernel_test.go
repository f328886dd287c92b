package sim

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/troupe-sh/troupe/actors/mailbox"
	"github.com/troupe-sh/troupe/actors/supervise"
)

type (
	ping struct{ n int }
	pong struct{ n int }
	tick struct{}
	bang struct{}
)

// caller pings a peer every 100 ms and counts the answers.
type caller struct {
	work  mailbox.Work
	peer  *actor.PID
	got   *int
	ended *int
}

func (c *caller) Receive(ctx actor.Context) {
	switch ctx.Message().(type) {
	case *actor.Started:
		ctx.Watch(c.peer)
		c.work.After(ctx, 100*time.Millisecond, tick{})
	case *actor.Terminated:
		*c.ended++
	case tick:
		ctx.Request(c.peer, ping{*c.got})
		c.work.After(ctx, 100*time.Millisecond, tick{})
	case pong:
		*c.got++
	case *actor.Stopping, *actor.Restarting:
		c.work.Cancel()
	}
}

// echo answers after some work, and panics at every fortieth ping.
type echo struct {
	work mailbox.Work
	n    int
}

type worked struct {
	to *actor.PID
	n  int
}

func (e *echo) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case ping:
		if e.n++; e.n == 40 {
			panic("the fortieth")
		}
		to := ctx.Sender()
		e.work.Go(ctx, func(context.Context) any { return worked{to, m.n} })
	case worked:
		ctx.Send(m.to, pong{m.n})
	case *actor.Stopping, *actor.Restarting:
		e.work.Cancel()
	}
}

var often = supervise.Budget{Restarts: 100, Within: time.Second}

func start(w *World, h *Host, leaf supervise.Node) *supervise.Running {
	r, err := h.Start(supervise.Group("node", supervise.OneForOne, often, leaf), func(err error) { w.Failf("fell: %v", err) })
	if err != nil {
		w.Failf("%v", err)
	}
	return r
}

// threeHosts is a scenario with everything that the kernel has.
func threeHosts(w *World) {
	a, b, c := w.Host("a"), w.Host("b"), w.Host("c")
	echoes := func() *supervise.Running {
		return start(w, a, supervise.Leaf("echo", "", func() actor.Actor { return &echo{work: a.Kernel().New()} }))
	}
	running := echoes()
	got, ended := map[*Host]*int{b: new(int), c: new(int)}, new(int)
	for _, h := range []*Host{b, c} {
		start(w, h, supervise.Leaf("caller", "", func() actor.Actor {
			return &caller{work: h.Kernel().New(), peer: actor.NewPID("a", "node/echo"), got: got[h], ended: ended}
		}))
	}
	expectMore := func(what string, h *Host, d time.Duration, want bool) {
		before := *got[h]
		w.Run(d)
		if more := *got[h] > before; more != want {
			w.Failf("%s: answers at %s: %t, want %t", what, h.Name, more, want)
		}
	}
	expectMore("at first", b, 5*time.Second, true)
	if restarts(running, "node/echo") == 0 {
		w.Failf("the echo never panicked")
	}
	w.Cut("a", "b", true)
	w.Run(20 * time.Second) // what was under way arrives
	expectMore("cut off", b, 5*time.Second, false)
	expectMore("beside the cut", c, 5*time.Second, true)
	w.Cut("a", "b", false)
	expectMore("mended", b, 5*time.Second, true)
	a.Crash()
	w.Run(20 * time.Second)
	expectMore("crashed", c, 5*time.Second, false)
	a.Boot()
	running = echoes()
	expectMore("booted", c, 5*time.Second, true)
	running.BeginStop()
	if !w.Until(time.Minute, func() bool { return isClosed(running.Done()) }) {
		w.Failf("a stopped tree is still there: %v", running.Actors())
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func restarts(r *supervise.Running, path string) int {
	for _, s := range r.Actors() {
		if s.Path == path {
			return s.Restarts
		}
	}
	return -1
}

func TestKernel(t *testing.T) { Run(t, threeHosts) }

func BenchmarkStep(b *testing.B) {
	steps := 0
	for seed := uint64(1); steps < b.N; seed++ {
		w, err := once(seed, threeHosts)
		if err != nil {
			b.Fatal(err)
		}
		steps += w.Steps()
	}
}

func TestOneSeedIsOneTrace(t *testing.T) {
	seen := map[uint64]bool{}
	for seed := range uint64(20) {
		first, err := once(seed, threeHosts)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if first.Steps() < 1000 {
			t.Fatalf("seed %d: only %d steps", seed, first.Steps())
		}
		for range 3 {
			if again, _ := once(seed, threeHosts); again.Digest() != first.Digest() || again.Steps() != first.Steps() {
				t.Fatalf("seed %d: two runs differ", seed)
			}
		}
		seen[first.Digest()] = true
	}
	if len(seen) != 20 {
		t.Fatalf("%d different traces of 20 seeds", len(seen))
	}
}

func TestDeathwatchOnAndBetweenHosts(t *testing.T) {
	Run(t, func(w *World) {
		w.Wire.Loss = 0
		a, b := w.Host("a"), w.Host("b")
		ended := map[string]*int{"a": new(int), "b": new(int)}
		running := start(w, a, supervise.Family("pods", "", often, func() actor.Actor {
			return actor.ReceiveFunc(func(ctx actor.Context) {
				switch ctx.Message().(type) {
				case *actor.Started:
					child := supervise.Leaf("x", "", func() actor.Actor { return actor.ReceiveFunc(func(actor.Context) {}) })
					if _, err := supervise.Spawn(ctx, child); err != nil {
						panic(err)
					}
				case bang:
					ctx.Stop(ctx.Children()[0])
				}
			})
		}))
		w.Run(10 * time.Second) // who watches what does not exist yet sees its end
		for _, h := range []*Host{a, b} {
			watcher := func() actor.Actor {
				return &caller{work: h.Kernel().New(), peer: actor.NewPID("a", "node/pods/x"), got: new(int), ended: ended[h.Name]}
			}
			if _, err := h.Start(supervise.Group("watch", supervise.OneForOne, often, supervise.Leaf("watcher", "", watcher)), nil); err != nil {
				w.Failf("%v", err)
			}
		}
		w.Run(10 * time.Second)
		if err := running.Fail("node/pods/x"); err != nil {
			w.Failf("%v", err)
		}
		w.Run(10 * time.Second)
		if *ended["a"]+*ended["b"] != 0 || restarts(running, "node/pods/x") != 1 {
			w.Failf("a restart was taken for an end")
		}
		a.Send("node/pods", bang{})
		if !w.Until(10*time.Second, func() bool { return *ended["a"] == 1 && *ended["b"] == 1 }) {
			w.Failf("ends seen: %d and %d, want 1 and 1", *ended["a"], *ended["b"])
		}
	})
}

func TestLossAndDelayAreThoseOfTheWire(t *testing.T) {
	w := New(1)
	w.Wire = Wire{Min: time.Second, Max: 2 * time.Second, Loss: 0.25}
	a, b := w.Host("a"), w.Host("b")
	var heard int
	start(w, b, supervise.Leaf("x", "", func() actor.Actor {
		return actor.ReceiveFunc(func(ctx actor.Context) {
			if ctx.Message() == (bang{}) {
				heard++
			}
		})
	}))
	w.Run(10 * time.Second)
	for range 4000 {
		a.System.Root.Send(actor.NewPID("b", "node/x"), bang{})
	}
	w.Run(time.Second)
	if heard != 0 {
		t.Errorf("%d messages came too early", heard)
	}
	w.Run(time.Minute)
	if heard < 2800 || heard > 3200 {
		t.Errorf("%d of 4000 arrived, want about 3000", heard)
	}
}

func TestNothingOfACrashedAgentGoesOn(t *testing.T) {
	Run(t, func(w *World) {
		h := w.Host("a")
		crashed := false
		make := func() actor.Actor {
			work := h.Kernel().New()
			return actor.ReceiveFunc(func(ctx actor.Context) {
				switch ctx.Message().(type) {
				case *actor.Started, tick:
					if crashed {
						w.Failf("an actor lives on")
					}
					work.After(ctx, time.Millisecond, tick{})
					work.Go(ctx, func(context.Context) any {
						if crashed {
							w.Failf("work goes on")
						}
						return nil
					})
				}
			})
		}
		start(w, h, supervise.Leaf("x", "", make))
		lasting := 0
		w.AfterFunc(time.Minute, func() { lasting++ })
		w.AfterFunc(time.Minute, func() { lasting++ })()
		w.Run(w.between(0, 10*time.Second))
		h.Crash()
		crashed = true
		if h.Up() {
			w.Failf("up after a crash")
		}
		h.Send("node/x", tick{})
		w.Run(time.Hour)
		if lasting != 1 {
			w.Failf("%d timers of the world went off, want 1", lasting)
		}
	})
}

func TestDeadLettersAreAnswered(t *testing.T) {
	w := New(7)
	h := w.Host("a")
	var lost []string
	h.Lost = func(d *actor.DeadLetterEvent) { lost = append(lost, fmt.Sprintf("%T", d.Message)) }
	var heard []string
	start(w, h, supervise.Leaf("x", "", func() actor.Actor {
		return actor.ReceiveFunc(func(ctx actor.Context) {
			if _, ok := ctx.Message().(*actor.Started); ok {
				nobody := ctx.ActorSystem().NewLocalPID("nobody")
				ctx.Request(nobody, bang{})
				ctx.Watch(nobody)
			}
			heard = append(heard, fmt.Sprintf("%T", ctx.Message()))
		})
	}))
	w.Run(10 * time.Second)
	slices.Sort(heard)
	if want := []string{"*actor.DeadLetterResponse", "*actor.Started", "*actor.Terminated"}; !slices.Equal(heard, want) {
		t.Errorf("heard %q, want %q", heard, want)
	}
	if want := []string{"sim.bang"}; !slices.Equal(lost, want) {
		t.Errorf("lost %q, want %q", lost, want)
	}
}

func TestWorldIsRandomButItsTimeIsNot(t *testing.T) {
	w := New(3)
	var order []int
	for i := range 50 {
		w.AfterFunc(time.Second, func() { order = append(order, i) })
	}
	if w.Run(999 * time.Millisecond); len(order) != 0 || !w.Now().Equal(Beginning.Add(999*time.Millisecond)) {
		t.Errorf("at %s: %v", w.Now(), order)
	}
	w.Run(time.Millisecond)
	if slices.IsSorted(order) || len(order) != 50 {
		t.Errorf("what happens at one instant comes in the order %v", order)
	}
	var last time.Time
	for range 1000 {
		w.AfterFunc(time.Duration(w.Rand().Int64N(int64(time.Hour))), func() {
			if w.Now().Before(last) {
				t.Errorf("time went back to %s", w.Now())
			}
			last = w.Now()
		})
	}
	w.Run(time.Hour)
	if a, b := New(5).NewUID(), New(5).NewUID(); a != b || a == New(6).NewUID() || len(a) != 36 || a[14] != '4' {
		t.Errorf("UIDs of one seed: %s, %s", a, b)
	}
}

func TestFailuresAreReported(t *testing.T) {
	broken := errors.New("invariant broken")
	inActor := func(w *World, f func()) {
		h := w.Host("a")
		start(w, h, supervise.Leaf("x", "", func() actor.Actor {
			work := h.Kernel().New()
			return actor.ReceiveFunc(func(ctx actor.Context) {
				if _, ok := ctx.Message().(*actor.Started); ok {
					work.Go(ctx, func(context.Context) any { f(); return nil })
				}
			})
		}))
		w.Run(time.Hour)
	}
	n := 0
	for says, scenario := range map[string]func(*World){
		"invariant broken": func(w *World) {
			w.Check(func() error {
				if w.Steps() == 3 {
					return broken
				}
				return nil
			})
			inActor(w, func() {})
			w.Note("never reached")
		},
		"said in work":     func(w *World) { inActor(w, func() { w.Failf("said in work") }) },
		"panic: in a fake": func(w *World) { w.AfterFunc(1, func() { panic("in a fake") }); w.Run(time.Second) },
		"steps and no rest": func(w *World) {
			w.steps = StepsMax - 3
			inActor(w, func() {})
		},
		"two runs differ": func(w *World) { n++; w.Note("%d", n) },
	} {
		report := try("TestX", 9, scenario, true)
		if !strings.Contains(report, says) || !strings.Contains(report, "go test ./test/sim -run '^TestX$' -seed 9\n") || strings.Contains(report, "never reached") {
			t.Errorf("%s: reported %q", says, report)
		}
	}
	if report := try("TestX", 9, func(w *World) { w.Run(time.Second) }, true); report != "" {
		t.Errorf("a good seed is reported: %s", report)
	}
}

func TestTraceKeepsItsEnd(t *testing.T) {
	w := New(1)
	for i := range 10_000 {
		w.Note("%d", i)
	}
	recent := w.Recent()
	if len(recent) != recentMax || !strings.HasSuffix(recent[recentMax-1], " 9999\n") {
		t.Errorf("%d lines, the last %q", len(recent), recent[len(recent)-1])
	}
	if w.delay(1, 1, 1) != time.Microsecond || w.between(5, math.MinInt64) != 5 {
		t.Error("delays without a range")
	}
}
