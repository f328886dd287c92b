package supervise_test

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

	"github.com/troupe-sh/troupe/actors/mailbox"
	"github.com/troupe-sh/troupe/actors/supervise"
)

// crash makes a scripted actor panic, spawn a child, or stop itself.
type (
	crash     struct{ reason any }
	spawn     struct{ node supervise.Node }
	stopChild struct{ name string }
	stopSelf  struct{}
)

// journal is what the actors of a test lived through, in order.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) add(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, fmt.Sprintf(format, args...))
}

func (j *journal) take() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	out := j.lines
	j.lines = nil
	return out
}

// scripted writes its life to the journal and does what it is told.
func (j *journal) scripted(name string) actor.Producer {
	return func() actor.Actor {
		return actor.ReceiveFunc(func(ctx actor.Context) {
			switch m := ctx.Message().(type) {
			case *actor.Started, *actor.Restarting, *actor.Stopped:
				j.add("%s %s", name, strings.TrimPrefix(fmt.Sprintf("%T", m), "*actor."))
			case crash:
				panic(m.reason)
			case spawn:
				if _, err := supervise.Spawn(ctx, m.node); err != nil {
					j.add("%s: %v", name, err)
				}
			case stopChild:
				for _, c := range ctx.Children() {
					if strings.HasSuffix(c.Id, "/"+m.name) {
						ctx.Stop(c)
					}
				}
			case stopSelf:
				ctx.Stop(ctx.Self())
			case string:
				j.add("%s heard %s", name, m)
			}
		})
	}
}

// world is a started tree inside a bubble.
type world struct {
	t      *testing.T
	system *actor.ActorSystem
	tree   *supervise.Running
	lives  *journal
	fell   []error
}

func run(t *testing.T, tree func(*journal) supervise.Node, body func(*world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, system: supervise.NewSystem(nil), lives: &journal{}}
		var err error
		w.tree, err = supervise.Start(w.system, tree(w.lives), supervise.Options{
			Log:  slog.New(slog.NewTextHandler(t.Output(), nil)),
			Fell: func(err error) { w.fell = append(w.fell, err) },
		})
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		body(w)
		w.tree.Stop()
		w.system.Shutdown()
	})
}

func (w *world) tell(path string, m any) {
	w.system.Root.Send(w.system.NewLocalPID(path), m)
	synctest.Wait()
}

func (w *world) status(path string) supervise.Status {
	w.t.Helper()
	for _, s := range w.tree.Actors() {
		if s.Path == path {
			return s
		}
	}
	return supervise.Status{}
}

func (w *world) lived(want ...string) {
	w.t.Helper()
	if got := w.lives.take(); !slices.Equal(got, want) {
		w.t.Errorf("lived %q\nwant  %q", got, want)
	}
}

func (w *world) paths() []string {
	var out []string
	for _, s := range w.tree.Actors() {
		out = append(out, s.Path)
	}
	return out
}

var minute = supervise.Budget{Restarts: 2, Within: time.Minute}

func TestOneForOneRestartsTheFailedChildAlone(t *testing.T) {
	run(t, func(j *journal) supervise.Node {
		return supervise.Group("node", supervise.OneForOne, minute,
			supervise.Leaf("a", "the first", j.scripted("a")), supervise.Leaf("b", "the second", j.scripted("b")))
	}, func(w *world) {
		w.lives.take()
		w.tell("node/a", crash{"boom"})
		w.tell("node/a", "hello")
		w.lived("a Restarting", "a Started", "a heard hello")
		s := w.status("node/a")
		if s.State != supervise.Active || s.Restarts != 1 || s.LastFailure != "boom" || s.Why != "the first" ||
			s.LastMessage != "supervise_test.crash" || !strings.Contains(s.LastStack, "supervise_test.go") || s.LastFailureAt.IsZero() {
			t.Errorf("status %+v", s)
		}
		if s := w.status("node/b"); s.Restarts != 0 || s.LastFailure != "" {
			t.Errorf("status of the sibling %+v", s)
		}
	})
}

func TestBudgetIsRefilledByTime(t *testing.T) {
	run(t, func(j *journal) supervise.Node {
		return supervise.Group("node", supervise.OneForOne, minute, supervise.Leaf("a", "", j.scripted("a")))
	}, func(w *world) {
		for range 20 {
			w.tell("node/a", crash{"boom"})
			time.Sleep(31 * time.Second)
		}
		if s := w.status("node/a"); s.Restarts != 20 || len(w.fell) != 0 {
			t.Errorf("%d restarts, fell %v", s.Restarts, w.fell)
		}
	})
}

var errBoom = errors.New("boom")

func TestPastTheBudgetTheGroupFailsAndThenTheRoot(t *testing.T) {
	run(t, func(j *journal) supervise.Node {
		return supervise.Group("node", supervise.OneForOne, supervise.Budget{Restarts: 1, Within: time.Minute},
			supervise.Leaf("calm", "", j.scripted("calm")),
			supervise.Group("edge", supervise.OneForOne, minute,
				supervise.Leaf("dns", "", j.scripted("dns")), supervise.Leaf("proxy", "", j.scripted("proxy"))))
	}, func(w *world) {
		for range 3 {
			w.tell("node/edge/dns", crash{errBoom})
		}
		if got := w.lives.take(); slices.Contains(got, "calm Restarting") || !slices.Contains(got, "proxy Stopped") {
			t.Errorf("lived %q", got)
		}
		edge, proxy := w.status("node/edge"), w.status("node/edge/proxy")
		if edge.State != supervise.Active || edge.Restarts != 1 || edge.LastFailure != "node/edge/dns failed more than 2 in 1m: boom" {
			t.Errorf("edge %+v", edge)
		}
		if proxy.State != supervise.Active || proxy.Restarts != 1 {
			t.Errorf("proxy %+v", proxy)
		}
		for range 3 {
			w.tell("node/edge/dns", crash{errBoom})
		}
		<-w.tree.Done()
		if len(w.fell) != 1 || !errors.Is(w.fell[0], errBoom) {
			t.Fatalf("fell %v", w.fell)
		}
		for _, s := range w.tree.Actors() {
			if s.State != supervise.Stopped {
				t.Errorf("%s is %s", s.Path, s.State)
			}
		}
		if got := w.lives.take(); !slices.Contains(got, "calm Stopped") {
			t.Errorf("lived %q", got)
		}
	})
}

func TestRestForOneRestartsThoseBehind(t *testing.T) {
	run(t, func(j *journal) supervise.Node {
		return supervise.Group("control", supervise.RestForOne, minute,
			supervise.Leaf("a", "", j.scripted("a")), supervise.Leaf("b", "", j.scripted("b")), supervise.Leaf("c", "", j.scripted("c")))
	}, func(w *world) {
		w.tell("control/b", crash{"boom"})
		for path, want := range map[string]int{"control/a": 0, "control/b": 1, "control/c": 1} {
			if s := w.status(path); s.Restarts != want || s.State != supervise.Active {
				t.Errorf("%s %s after %d restarts, want %d", path, s.State, s.Restarts, want)
			}
		}
	})
}

func TestGroupRestartsItsChildrenWhenItIsRestarted(t *testing.T) {
	run(t, func(j *journal) supervise.Node {
		return supervise.Group("node", supervise.OneForOne, minute,
			supervise.Group("edge", supervise.OneForOne, minute,
				supervise.Leaf("dns", "", j.scripted("dns")), supervise.Leaf("proxy", "", j.scripted("proxy"))))
	}, func(w *world) {
		if err := w.tree.Fail("node/edge"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		for _, s := range w.tree.Actors() {
			want := 1
			if s.Path == "node" {
				want = 0
			}
			if s.State != supervise.Active || s.Restarts != want {
				t.Errorf("%s is %s after %d restarts, want %d", s.Path, s.State, s.Restarts, want)
			}
		}
		if s := w.status("node/edge"); s.LastFailure != "made to fail on purpose" {
			t.Errorf("last failure %q", s.LastFailure)
		}
	})
}

func TestFamilySupervisesWhatItSpawns(t *testing.T) {
	run(t, func(j *journal) supervise.Node {
		return supervise.Group("node", supervise.OneForOne, minute, supervise.Family("pods", "a worker each", minute, j.scripted("pods")))
	}, func(w *world) {
		for _, name := range []string{"x", "y", "x", "bad/name"} {
			w.tell("node/pods", spawn{supervise.Leaf(name, "one pod", w.lives.scripted(name))})
		}
		w.lived("pods Started", "x Started", "y Started",
			"pods: supervise: start node/pods/x: spawn: name exists",
			`pods: supervise: "bad/name" is no name of an actor: it must not be empty or contain a slash`)
		w.tell("node/pods/x", crash{"boom"})
		w.tell("node/pods/x", crash{"boom"})
		w.lived("x Restarting", "x Started", "x Restarting", "x Started")
		w.tell("node/pods", stopChild{"y"})
		w.lived("y Stopped")
		if got, want := w.paths(), []string{"node", "node/pods", "node/pods/x"}; !slices.Equal(got, want) {
			t.Errorf("actors %q, want %q", got, want)
		}
	})
}

func TestAFamilyLeavesAChildAlonePastItsBudget(t *testing.T) {
	run(t, func(j *journal) supervise.Node {
		return supervise.Group("node", supervise.OneForOne, minute, supervise.Family("pods", "a worker each", minute, j.scripted("pods")))
	}, func(w *world) {
		spend := func() {
			t.Helper()
			for range 2 {
				w.tell("node/pods/x", crash{"boom"})
				w.lived("x Restarting", "x Started")
			}
			w.tell("node/pods/x", crash{"boom"})
			w.tell("node/pods/x", "a word that waits")
			w.lived()
			if s := w.status("node/pods/x"); s.State != supervise.Failed || s.LastFailure != "boom" {
				t.Errorf("past its budget: %+v", s)
			}
		}
		for _, name := range []string{"x", "y"} {
			w.tell("node/pods", spawn{supervise.Leaf(name, "one pod", w.lives.scripted(name))})
		}
		w.tell("node/pods/y", "a word")
		w.lived("pods Started", "x Started", "y Started", "y heard a word")
		spend()
		if err := w.tree.Fail("node/pods/x"); err != nil { // somebody asks for it
			t.Fatal(err)
		}
		synctest.Wait()
		w.lived("x Restarting", "x Started", "x heard a word that waits")
		w.tell("node/pods/x", crash{"boom"})
		w.lived()
		time.Sleep(time.Minute)
		synctest.Wait()
		w.lived("x Restarting", "x Started")
		spend() // out of a new budget
		w.tell("node/pods", stopChild{"x"})
		w.lived("x Stopped")
		time.Sleep(time.Hour)
		synctest.Wait()
		w.lived()
		if got, want := w.paths(), []string{"node", "node/pods", "node/pods/y"}; !slices.Equal(got, want) {
			t.Errorf("actors %q, want %q", got, want)
		}
		if s := w.status("node/pods"); s.Restarts != 0 || s.State != supervise.Active || len(w.fell) != 0 {
			t.Errorf("family %+v, fell %v", s, w.fell)
		}
	})
}

func TestDeclaredActorThatStopsByItselfFailsItsGroup(t *testing.T) {
	run(t, func(j *journal) supervise.Node {
		return supervise.Group("node", supervise.OneForOne, minute,
			supervise.Group("edge", supervise.OneForOne, minute, supervise.Leaf("dns", "", j.scripted("dns"))))
	}, func(w *world) {
		w.tell("node/edge/dns", stopSelf{})
		w.lived("dns Started", "dns Stopped", "dns Started")
		if s := w.status("node/edge"); s.LastFailure != "node/edge/dns stopped by itself" || s.Restarts != 1 {
			t.Errorf("edge %+v", s)
		}
	})
}

func TestPanicOnTheWayOutIsNotedAndStopsNothing(t *testing.T) {
	for _, at := range []any{&actor.Stopping{}, &actor.Stopped{}, &actor.Restarting{}} {
		t.Run(fmt.Sprintf("%T", at), func(t *testing.T) {
			run(t, func(j *journal) supervise.Node {
				fragile := func() actor.Actor {
					inner := j.scripted("x")()
					return actor.ReceiveFunc(func(ctx actor.Context) {
						inner.Receive(ctx)
						if fmt.Sprintf("%T", ctx.Message()) == fmt.Sprintf("%T", at) {
							panic("on the way out")
						}
					})
				}
				return supervise.Group("node", supervise.OneForOne, minute, supervise.Family("pods", "", minute, func() actor.Actor {
					inner := j.scripted("pods")()
					return actor.ReceiveFunc(func(ctx actor.Context) {
						if _, ok := ctx.Message().(*actor.Terminated); ok {
							j.add("pods saw the end of x")
						}
						if m, ok := ctx.Message().(string); ok && m == "go" {
							if _, err := supervise.Spawn(ctx, supervise.Leaf("x", "", fragile)); err != nil {
								panic(err)
							}
							return
						}
						inner.Receive(ctx)
					})
				}))
			}, func(w *world) {
				w.tell("node/pods", "go")
				w.tell("node/pods/x", crash{"boom"})
				if s := w.status("node/pods/x"); s.State != supervise.Active || s.Restarts != 1 {
					t.Errorf("after a restart %+v", s)
				}
				w.tell("node/pods", stopChild{"x"})
				w.lived("pods Started", "x Started", "x Restarting", "x Started", "x Stopped", "pods saw the end of x")
				if w.status("node/pods/x").Path != "" {
					t.Error("it is still listed")
				}
			})
		})
	}
}

func TestPanicInAProducerIsTheChildsFailure(t *testing.T) {
	var made int
	for name, produce := range map[string]actor.Producer{"panic": func() actor.Actor { panic(errBoom) }, "nil": func() actor.Actor { return nil }} {
		t.Run(name, func(t *testing.T) {
			made = 0
			run(t, func(j *journal) supervise.Node {
				return supervise.Group("node", supervise.OneForOne, minute, supervise.Leaf("x", "", func() actor.Actor {
					if made++; made%2 == 1 {
						return produce()
					}
					return j.scripted("x")()
				}))
			}, func(w *world) {
				w.lived("x Started")
				s := w.status("node/x")
				if s.State != supervise.Active || s.Restarts != 1 || s.LastFailure == "" {
					t.Errorf("%+v", s)
				}
				if name == "panic" && !strings.Contains(s.LastStack, "supervise_test.go") {
					t.Errorf("stack does not show the producer: %s", s.LastStack)
				}
			})
		})
	}
}

func TestARestartNeverFollowsAStop(t *testing.T) {
	// The family stops its child in the message after the one at which the
	// child failed: its restart must not bring the child back.
	run(t, func(j *journal) supervise.Node {
		return supervise.Group("node", supervise.OneForOne, minute, supervise.Family("pods", "", minute, func() actor.Actor {
			inner := j.scripted("pods")()
			return actor.ReceiveFunc(func(ctx actor.Context) {
				if m, ok := ctx.Message().(string); ok && m == "fail and stop" {
					child := ctx.Children()[0]
					ctx.Send(child, crash{"boom"})
					time.Sleep(time.Second) // until the failure waits in the mailbox
					ctx.Stop(child)
					return
				}
				inner.Receive(ctx)
			})
		}))
	}, func(w *world) {
		w.tell("node/pods", spawn{supervise.Leaf("x", "", w.lives.scripted("x"))})
		// x cannot end before its own child has.
		w.tell("node/pods/x", spawn{supervise.Leaf("slow", "", func() actor.Actor {
			inner := w.lives.scripted("slow")()
			return actor.ReceiveFunc(func(ctx actor.Context) {
				if _, ok := ctx.Message().(*actor.Stopping); ok {
					time.Sleep(10 * time.Second)
				}
				inner.Receive(ctx)
			})
		})})
		w.tell("node/pods", "fail and stop")
		time.Sleep(time.Minute)
		synctest.Wait()
		w.lived("pods Started", "x Started", "slow Started", "slow Stopped", "x Stopped")
	})
}

func TestChildOfAnotherMakingEscalates(t *testing.T) {
	run(t, func(j *journal) supervise.Node {
		return supervise.Group("node", supervise.OneForOne, minute, supervise.Leaf("x", "", func() actor.Actor {
			inner := j.scripted("x")()
			return actor.ReceiveFunc(func(ctx actor.Context) {
				if ctx.Message() == "go" {
					ctx.Send(ctx.Spawn(actor.PropsFromProducer(j.scripted("wild"))), crash{errBoom})
					return
				}
				inner.Receive(ctx)
			})
		}))
	}, func(w *world) {
		w.tell("node/x", "go")
		if s := w.status("node/x"); s.Restarts != 1 || !strings.Contains(s.LastFailure, "was not started by supervise.Spawn") {
			t.Errorf("%+v", s)
		}
	})
}

func TestFail(t *testing.T) {
	run(t, func(j *journal) supervise.Node {
		return supervise.Group("node", supervise.OneForOne, minute, supervise.Leaf("x", "", j.scripted("x")))
	}, func(w *world) {
		if err := w.tree.Fail("node/x"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		w.lived("x Started", "x Restarting", "x Started")
		if err := w.tree.Fail("node/y"); !errors.Is(err, supervise.ErrUnknown) {
			t.Errorf("unknown actor: %v", err)
		}
		if err := w.tree.Fail("node"); err == nil {
			t.Error("the root was made to fail")
		}
	})
}

func TestMailboxLength(t *testing.T) {
	run(t, func(j *journal) supervise.Node {
		return supervise.Group("node", supervise.OneForOne, minute, supervise.Leaf("x", "", func() actor.Actor {
			return actor.ReceiveFunc(func(ctx actor.Context) {
				if ctx.Message() == "slow" {
					time.Sleep(time.Second)
					panic("done")
				}
			})
		}))
	}, func(w *world) {
		for _, m := range []string{"slow", "a", "b"} {
			w.tell("node/x", m)
		}
		if s := w.status("node/x"); s.Mailbox != 2 {
			t.Errorf("%d messages wait, want 2", s.Mailbox)
		}
		time.Sleep(2 * time.Second)
		if s := w.status("node/x"); s.Mailbox != 0 {
			t.Errorf("%d messages wait after the restart, want 0", s.Mailbox)
		}
	})
}

func TestPanicOfWorkIsThePanicOfItsActor(t *testing.T) {
	run(t, func(j *journal) supervise.Node {
		return supervise.Group("node", supervise.OneForOne, minute, supervise.Leaf("x", "", func() actor.Actor {
			work := mailbox.Real().New()
			inner := j.scripted("x")()
			return actor.ReceiveFunc(func(ctx actor.Context) {
				if ctx.Message() == "work" {
					work.Go(ctx, func(context.Context) any { panic(errBoom) })
					return
				}
				inner.Receive(ctx)
			})
		}))
	}, func(w *world) {
		w.tell("node/x", "work")
		w.lived("x Started", "x Restarting", "x Started")
		if s := w.status("node/x"); s.LastFailure != "work panicked: boom" || !strings.Contains(s.LastStack, "supervise_test.go") {
			t.Errorf("%+v", s)
		}
	})
}

func TestStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		system := supervise.NewSystem(nil)
		defer system.Shutdown()
		lives := &journal{}
		tree := supervise.Group("node", supervise.OneForOne, minute, supervise.Leaf("x", "", lives.scripted("x")))
		for name, bad := range map[string]supervise.Node{
			"a leaf as root":           supervise.Leaf("x", "", lives.scripted("x")),
			"no name":                  supervise.Group("", supervise.OneForOne, minute),
			"two children of one name": supervise.Group("n", supervise.OneForOne, minute, tree, tree),
		} {
			if r, err := supervise.Start(system, bad, supervise.Options{}); err == nil {
				r.Stop()
				t.Errorf("%s was started", name)
			}
		}
		for range 3 { // a control tree comes and goes with leadership
			r, err := supervise.Start(system, tree, supervise.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := supervise.Start(system, tree, supervise.Options{}); err == nil {
				t.Error("started twice")
			}
			other, err := supervise.Start(system, supervise.Group("control", supervise.OneForOne, minute), supervise.Options{})
			if err != nil {
				t.Fatal(err)
			}
			<-r.Ready()
			if len(r.Actors()) != 2 {
				t.Errorf("ready with %v", r.Actors())
			}
			other.Stop()
			r.Stop()
			r.Stop()
		}
		if got := lives.take(); len(got) != 6 {
			t.Errorf("lived %q", got)
		}
	})
}

func TestMermaid(t *testing.T) {
	j := &journal{}
	tree := supervise.Group("control", supervise.RestForOne, supervise.Budget{Restarts: 3, Within: time.Minute},
		supervise.Leaf("registry", `orders "all" writes`, j.scripted("")),
		supervise.Family("pods", "a pod's life", supervise.Budget{Restarts: 5, Within: 90 * time.Minute}, j.scripted("")),
		supervise.Group("edge", supervise.OneForOne, supervise.Budget{Restarts: 3, Within: time.Hour}, supervise.Leaf("dns", "", j.scripted(""))))
	const want = `flowchart TD
  control["control<br/><i>rest for one, 3 in 1m</i>"]
  control_registry["registry<br/>orders #quot;all#quot; writes"]
  control --> control_registry
  control_pods["pods<br/>a pod's life<br/><i>each child 5 in 1h30m</i>"]
  control --> control_pods
  control_edge["edge<br/><i>one for one, 3 in 1h</i>"]
  control --> control_edge
  control_edge_dns["dns"]
  control_edge --> control_edge_dns
`
	var got strings.Builder
	if err := tree.Mermaid(&got); err != nil || got.String() != want {
		t.Errorf("%v\n%s", err, got.String())
	}
}

func TestSystemLogsTheLibraryLower(t *testing.T) {
	var out strings.Builder
	system := supervise.NewSystem(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelInfo})))
	defer system.Shutdown()
	system.Logger().With("a", 1).WithGroup("g").Info("not worth it")
	system.Logger().Warn("worth it")
	if got := out.String(); strings.Contains(got, "not worth it") || strings.Contains(got, "actor system started") || !strings.Contains(got, "worth it") {
		t.Errorf("logged %q", got)
	}
}

func TestABrokenInstanceHearsNothingMore(t *testing.T) {
	run(t, func(j *journal) supervise.Node {
		return supervise.Group("node", supervise.OneForOne, minute, supervise.Family("pods", "", minute, func() actor.Actor {
			inner, broken := j.scripted("pods")(), false
			return actor.ReceiveFunc(func(ctx actor.Context) {
				if _, ok := ctx.Message().(*actor.Terminated); ok && broken {
					j.add("the broken instance heard of the end of x")
				}
				if ctx.Message() == "go" {
					ctx.Stop(ctx.Children()[0])
					time.Sleep(time.Second) // until its end waits in the mailbox
					broken = true
					panic("boom")
				}
				inner.Receive(ctx)
			})
		}))
	}, func(w *world) {
		w.tell("node/pods", spawn{supervise.Leaf("x", "", w.lives.scripted("x"))})
		w.tell("node/pods", "go")
		time.Sleep(time.Minute)
		synctest.Wait()
		w.lived("pods Started", "x Started", "x Stopped", "pods Restarting", "pods Started")
	})
}

func TestTwoFailuresPastTheBudgetEscalateOnce(t *testing.T) {
	run(t, func(j *journal) supervise.Node {
		return supervise.Group("node", supervise.OneForOne, minute,
			supervise.Group("edge", supervise.OneForOne, supervise.Budget{},
				supervise.Leaf("a", "", j.scripted("a")), supervise.Leaf("b", "", j.scripted("b"))))
	}, func(w *world) {
		for range 2 {
			w.system.Root.Send(w.system.NewLocalPID("node/edge/a"), crash{"boom"})
			w.system.Root.Send(w.system.NewLocalPID("node/edge/b"), crash{"boom"})
			synctest.Wait()
		}
		if s := w.status("node/edge"); s.Restarts != 2 || len(w.fell) != 0 {
			t.Errorf("%d restarts, want 2; fell %v", s.Restarts, w.fell)
		}
	})
}

// TestNobodyMakesChildrenOnTheWayOut: while an actor waits for its children to
// end, it hears nothing that could make it start another one.
func TestNobodyMakesChildrenOnTheWayOut(t *testing.T) {
	slow := func() actor.Actor {
		return actor.ReceiveFunc(func(ctx actor.Context) {
			if _, ok := ctx.Message().(*actor.Stopping); ok {
				time.Sleep(time.Second)
			}
		})
	}
	tree := func(j *journal) supervise.Node {
		return supervise.Group("node", supervise.RestForOne, supervise.LeafBudget,
			supervise.Leaf("first", "", j.scripted("first")),
			supervise.Family("pods", "", supervise.LeafBudget, j.scripted("pods")))
	}
	late := spawn{supervise.Leaf("late", "", slow)}
	t.Run("of a restart", func(t *testing.T) {
		run(t, tree, func(w *world) {
			w.tell("node/pods", spawn{supervise.Leaf("slow", "", slow)})
			w.tell("node/first", crash{"boom"})
			w.tell("node/pods", late) // heard when it has started again
			time.Sleep(time.Minute)
			synctest.Wait()
			if s := w.status("node/pods"); s.State != supervise.Active || s.Restarts != 1 {
				t.Errorf("pods: %+v", s)
			}
			if s := w.status("node/pods/late"); s.State != supervise.Active {
				t.Errorf("late: %+v", s)
			}
		})
	})
	t.Run("of a stop", func(t *testing.T) {
		run(t, tree, func(w *world) {
			w.tell("node/pods", spawn{supervise.Leaf("slow", "", slow)})
			w.tree.BeginStop()
			synctest.Wait()
			w.tell("node/pods", late)
			time.Sleep(time.Minute)
			synctest.Wait()
			select {
			case <-w.tree.Done():
			default:
				t.Errorf("stopped, and still there: %+v", w.tree.Actors())
			}
		})
	})
}
