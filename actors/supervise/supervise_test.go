package supervise_test

import (
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
