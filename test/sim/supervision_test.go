package sim

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/troupe-sh/troupe/actors/mailbox"
	"github.com/troupe-sh/troupe/actors/supervise"
)

// TestSupervision lets actors of a tree fail at every place where one can, and
// their families start and stop them meanwhile. Whatever happens, there is one
// living instance of each actor at most, the tree is whole when it is quiet,
// and nothing of it is left when it has stopped or fallen.
func TestSupervision(t *testing.T) { Run(t, supervision) }

// stage is where the instances of all actors are known.
type stage struct {
	w     *World
	h     *Host
	alive map[string]*mortal // by path
	wild  bool               // whether they fail
}

// mortal is an actor that fails by chance. A family keeps the children that it
// is told to want.
type mortal struct {
	stage  *stage
	family bool
	work   mailbox.Work
	over   bool
	broken bool // it panicked
	wanted map[string]bool
}

type (
	want   struct{ child string }
	unwant struct{ child string }
	probe  struct{ path string }
)

func (s *stage) producer(family bool) actor.Producer {
	return func() actor.Actor {
		s.perhaps(30, "the producer panics")
		return &mortal{stage: s, family: family, work: s.h.Kernel().New(), wanted: map[string]bool{}}
	}
}

// perhaps panics once in a while.
func (s *stage) perhaps(oneIn int, what string) {
	if s.wild && s.w.Rand().IntN(oneIn) == 0 {
		panic(what)
	}
}

func (m *mortal) Receive(ctx actor.Context) {
	s, path := m.stage, ctx.Self().GetId()
	perhaps := func(oneIn int, what string) {
		m.broken = true
		s.perhaps(oneIn, what)
		m.broken = false
	}
	switch ctx.Message().(type) {
	case *actor.Restarting, *actor.Stopping, *actor.Stopped:
	default:
		if m.broken && !m.over {
			s.w.Failf("%s panicked and hears %T", path, ctx.Message())
		}
	}
	switch msg := ctx.Message().(type) {
	case *actor.Started:
		if other := s.alive[path]; other != nil {
			s.w.Failf("%s lives twice", path)
		}
		s.alive[path] = m
		perhaps(20, "Started panics")
		m.work.After(ctx, s.w.between(0, time.Second), tick{})
	case tick:
		m.live(path)
		m.work.After(ctx, s.w.between(0, time.Second), tick{})
		m.work.Go(ctx, func(context.Context) any {
			s.perhaps(60, "work panics")
			return bang{}
		})
		perhaps(40, "tick panics")
	case bang:
		m.live(path)
	case want:
		m.wanted[msg.child] = true
		m.keep(ctx)
	case unwant:
		delete(m.wanted, msg.child)
		m.keep(ctx)
	case *actor.Terminated:
		m.keep(ctx)
		perhaps(20, "Terminated panics")
	case probe:
		m.live(path)
		if msg.path != path {
			s.w.Failf("%s got the probe of %s", path, msg.path)
		}
		ctx.Respond(pong{1})
	case *actor.Restarting:
		s.end(m, path)
		s.perhaps(5, "Restarting panics")
	case *actor.Stopping:
		m.over = true
		m.work.Cancel()
		s.perhaps(5, "Stopping panics")
	case *actor.Stopped:
		s.end(m, path)
		s.perhaps(5, "Stopped panics")
	}
}

func (s *stage) end(m *mortal, path string) {
	m.over = true
	m.work.Cancel()
	if s.alive[path] == m {
		delete(s.alive, path)
	}
}

func (m *mortal) live(path string) {
	if m.over || m.stage.alive[path] != m {
		m.stage.w.Failf("a dead instance of %s heard something", path)
	}
}

// keep makes the children fit what is wanted.
func (m *mortal) keep(ctx actor.Context) {
	if !m.family || m.over {
		return
	}
	present := map[string]*actor.PID{}
	for _, c := range ctx.Children() {
		present[c.Id[strings.LastIndex(c.Id, "/")+1:]] = c
	}
	for _, name := range sorted(m.wanted) {
		if present[name] == nil {
			deep := name == "deep"
			n := supervise.Leaf(name, "", m.stage.producer(false))
			if deep {
				n = supervise.Family(name, "", often, m.stage.producer(true))
			}
			if _, err := supervise.Spawn(ctx, n); err != nil {
				panic(err)
			}
		}
	}
	for _, name := range sorted(present) {
		if !m.wanted[name] {
			ctx.Stop(present[name])
		}
	}
}

func sorted[V any](m map[string]V) (keys []string) {
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func supervision(w *World) {
	h := w.Host("a")
	s := &stage{w: w, h: h, alive: map[string]*mortal{}, wild: true}
	fallen := false
	few := supervise.Budget{Restarts: 2, Within: 2 * time.Second}
	running, err := h.Start(supervise.Group("control", supervise.RestForOne, supervise.Budget{Restarts: w.Rand().IntN(40), Within: time.Minute},
		supervise.Leaf("registry", "", s.producer(false)),
		supervise.Family("pods", "", few, s.producer(true)),
		supervise.Group("edge", supervise.OneForOne, few,
			supervise.Leaf("dns", "", s.producer(false)),
			supervise.Family("proxy", "", few, s.producer(true)))),
		func(error) { fallen = true })
	if err != nil {
		w.Failf("%v", err)
	}

	// Chaos for a while.
	families := []string{"control/pods", "control/edge/proxy", "control/pods/deep"}
	children := []string{"x", "y", "z", "deep"}
	for end := w.Now().Add(10 * time.Second); w.Now().Before(end) && !fallen; {
		w.Run(w.between(0, 100*time.Millisecond))
		family, child := families[w.Rand().IntN(len(families))], children[w.Rand().IntN(len(children))]
		switch w.Rand().IntN(4) {
		case 0, 1:
			h.Send(family, want{child})
		case 2:
			h.Send(family, unwant{child})
		case 3:
			actors := running.Actors()
			if path := actors[w.Rand().IntN(len(actors))].Path; path != "control" {
				if err := running.Fail(path); err != nil {
					w.Failf("%v", err)
				}
			}
		}
	}
	s.wild = false
	w.Run(20 * time.Second)
	if !fallen {
		s.whole(running)
		running.BeginStop()
	}
	if !w.Until(time.Minute, func() bool { return isClosed(running.Done()) }) {
		w.Failf("stopped or fallen, it is still there: %+v", states(running))
	}
	w.Run(10 * time.Second)
	if len(s.alive) != 0 {
		w.Failf("they outlive their tree: %v", sorted(s.alive))
	}
}

// whole checks that every actor of the list lives and hears, and no other.
func (s *stage) whole(running *supervise.Running) {
	answers, asked := 0, 0
	for _, a := range running.Actors() {
		if a.State != supervise.Active || a.Mailbox > 50 { // they tick, and may stall
			s.w.Failf("quiet, but %+v", a)
		}
		if s.alive[a.Path] != nil {
			asked++
		}
	}
	for _, path := range []string{"control/registry", "control/pods", "control/edge/dns", "control/edge/proxy"} {
		if s.alive[path] == nil {
			s.w.Failf("%s does not live", path)
		}
	}
	if asked != len(s.alive) || asked+2 != len(running.Actors()) { // two groups
		s.w.Failf("%d of %d actors are listed, the list has %v", asked, len(s.alive), states(running))
	}
	if _, err := s.h.Start(supervise.Group("asker", supervise.OneForOne, often, supervise.Leaf("x", "", func() actor.Actor {
		return actor.ReceiveFunc(func(ctx actor.Context) {
			switch ctx.Message().(type) {
			case *actor.Started:
				for _, path := range sorted(s.alive) {
					ctx.Request(ctx.ActorSystem().NewLocalPID(path), probe{path})
				}
			case pong:
				answers++
			}
		})
	})), nil); err != nil {
		s.w.Failf("%v", err)
	}
	if !s.w.Until(time.Minute, func() bool { return answers == asked }) {
		s.w.Failf("%d of %d actors answer", answers, asked)
	}
}

func states(r *supervise.Running) (out []string) {
	for _, a := range r.Actors() {
		out = append(out, fmt.Sprintf("%s %s", a.Path, a.State))
	}
	return out
}
