package supervise

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/troupe-sh/troupe/actors/mailbox"
)

// place is where one actor stands in a running tree, over all its restarts.
type place struct {
	tree     *Running
	path     string
	node     Node
	declared bool     // in the tree that was started, not made at run time
	children []*place // of a group, in order

	mu       sync.Mutex
	state    State
	box      actor.Mailbox
	started  bool
	restarts int
	failure  string
	message  string
	stack    string
	failedAt time.Time
	failures []time.Time // that its supervisor counts against its budget
	again    func()      // restarts it, while it is parked
}

// failOnPurpose is what Fail sends.
type failOnPurpose struct{}

var errOnPurpose = errors.New("made to fail on purpose")

func (r *Running) place(path string, n Node, declared bool) *place {
	p := &place{tree: r, path: path, node: n, declared: declared, state: Starting}
	if declared {
		r.missing++
	}
	for _, c := range n.Children {
		p.children = append(p.children, r.place(path+"/"+c.Name, c, declared))
	}
	return p
}

// props is how the library makes the actor at p.
func (r *Running) props(p *place) *actor.Props {
	opts := []actor.PropsOption{
		actor.WithSupervisor(p),
		actor.WithReceiverMiddleware(p.receive),
		actor.WithMailbox(p.mailbox),
		// The name is taken and nothing has run yet.
		actor.WithOnInit(func(actor.Context) { r.appear(p) }),
	}
	if r.options.Dispatcher != nil {
		opts = append(opts, actor.WithDispatcher(r.options.Dispatcher))
	}
	return actor.PropsFromProducer(p.produce, opts...)
}

// produce makes the next instance. A producer that panics would take its
// spawner down with it, so its panic becomes the new actor's own.
func (p *place) produce() (a actor.Actor) {
	if p.node.New == nil {
		return group{p}
	}
	defer func() {
		if r := recover(); r != nil {
			a = stillborn{&mailbox.Panic{Reason: r, Stack: debug.Stack()}}
		}
	}()
	if a = p.node.New(); a == nil {
		panic(fmt.Errorf("%s: its producer made nothing", p.path))
	}
	return a
}

type stillborn struct{ reason *mailbox.Panic }

func (s stillborn) Receive(ctx actor.Context) {
	if _, ok := ctx.Message().(*actor.Started); ok {
		panic(s.reason)
	}
}

// mailbox makes the actor's mailbox.
func (p *place) mailbox() actor.Mailbox {
	b := &box{Mailbox: p.tree.options.Mailbox()}
	p.mu.Lock()
	p.box = b
	p.mu.Unlock()
	return b
}

// box lets no restart follow a stop: the library would bring the stopped actor
// back to life, in nobody's sight. And it lets no message follow either of
// them: while the actor waits for its children to end it could make another
// one, which nobody would stop, and wait for it for ever.
type box struct {
	actor.Mailbox
	mu       sync.Mutex
	stopping bool
}

func (b *box) PostSystemMessage(message any) {
	switch message.(type) {
	case *actor.Stop:
		b.mu.Lock()
		defer b.mu.Unlock()
		b.stopping = true
		b.Mailbox.PostSystemMessage(&actor.SuspendMailbox{})
	case *actor.Restart:
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.stopping {
			return
		}
		b.Mailbox.PostSystemMessage(&actor.SuspendMailbox{}) // until it has started again
	}
	b.Mailbox.PostSystemMessage(message)
}

// receive stands before every message of the actor.
func (p *place) receive(next actor.ReceiverFunc) actor.ReceiverFunc {
	return func(ctx actor.ReceiverContext, e *actor.MessageEnvelope) {
		original := e.Message
		defer func() {
			reason := recover()
			if reason != nil {
				p.fail(reason, original)
			}
			if _, last := original.(*actor.Stopped); last {
				p.leave()
			}
			// On its way out already, a failure would bring it back (Stopping)
			// or leave its parent waiting for ever (Stopped).
			if reason != nil && p.state == Failed {
				panic(reason)
			}
		}()
		p.enter(original)
		if _, ok := original.(*actor.Terminated); ok && p.state != Active {
			return // this instance is broken, or on its way out: it must not make a child anew
		}
		if e = mailbox.Open(e); e == nil {
			return
		}
		background := context.Background()
		if log := p.tree.options.Log; log.Enabled(background, slog.LevelDebug) {
			log.LogAttrs(background, slog.LevelDebug, "message",
				slog.String("actor", p.path), slog.String("type", fmt.Sprintf("%T", e.Message)))
		}
		if _, ok := e.Message.(failOnPurpose); ok {
			panic(errOnPurpose)
		}
		next(ctx, e)
	}
}

// enter notes what a message of the library says about the actor. Only the
// actor's own mailbox writes state, so there it is read without the lock.
func (p *place) enter(message any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch message.(type) {
	case *actor.Started:
		p.again = nil
		if p.started {
			p.restarts++
		}
		p.started = true
		p.state = Active
	case *actor.Restarting:
		p.state = Restarting
	case *actor.Stopping:
		p.state = Stopping
	}
}

// fail notes a panic of the actor.
func (p *place) fail(reason, message any) {
	stack := brief(debug.Stack())
	var elsewhere *mailbox.Panic
	if err, ok := reason.(error); ok && errors.As(err, &elsewhere) {
		stack = brief(elsewhere.Stack)
	}
	p.mu.Lock()
	if p.state == Active {
		p.state = Failed
	}
	p.failure, p.message, p.stack = fmt.Sprint(reason), fmt.Sprintf("%T", message), stack
	p.failedAt = p.tree.options.Now()
	p.mu.Unlock()
	p.tree.options.Log.Warn("actor failed", slog.String("actor", p.path), slog.Any("error", reason),
		slog.String("message", fmt.Sprintf("%T", message)), slog.String("stack", stack))
	if p.tree.options.Failed != nil {
		p.tree.options.Failed(p.status())
	}
}

// brief is a stack from the panic down to where the library comes in: the rest
// is the same every time.
func brief(stack []byte) string {
	s := string(stack)
	if _, after, ok := strings.Cut(s, "\npanic("); ok {
		_, s, _ = strings.Cut(after, "\n") // the call of panic
		_, s, _ = strings.Cut(s, "\n")     // and where that stands
	}
	s, _, _ = strings.Cut(s, "\ngithub.com/asynkron/protoactor-go/actor.")
	return s
}

// leave is the end of the actor.
func (p *place) leave() {
	p.mu.Lock()
	p.state, p.box, p.failures, p.again = Stopped, nil, nil, nil
	p.mu.Unlock()
	r := p.tree
	if !p.declared {
		r.mu.Lock()
		if r.places[p.path] == p {
			delete(r.places, p.path)
		}
		r.mu.Unlock()
	}
	if p.path == r.name {
		of(r.system).remove(r)
		close(r.done)
	}
}

// HandleFailure implements [actor.SupervisorStrategy] for the children of p.
func (p *place) HandleFailure(system *actor.ActorSystem, s actor.Supervisor, child *actor.PID, _ *actor.RestartStatistics, reason, message any) {
	if p.state != Active {
		return // p is about to be restarted or stopped, and its children with it
	}
	p.tree.mu.Lock()
	c := p.tree.places[child.Id]
	p.tree.mu.Unlock()
	if c == nil {
		if _, alive := system.ProcessRegistry.GetLocal(child.Id); !alive {
			return // it was stopped meanwhile
		}
		p.escalate(s, fmt.Errorf("%s was not started by supervise.Spawn, so nothing restarts it: %w", child.Id, asError(reason)), message)
		return
	}
	if !c.afford(p.node.Budget) {
		if p.declared && p.node.family {
			c.park(p.node.Budget, func() { s.RestartChildren(child) }, reason)
			return
		}
		p.escalate(s, fmt.Errorf("%s failed more than %s: %w", c.path, p.node.Budget, asError(reason)), message)
		return
	}
	s.RestartChildren(child)
	if p.node.Strategy == RestForOne {
		for _, after := range p.children[slices.Index(p.children, c)+1:] {
			s.RestartChildren(system.NewLocalPID(after.path))
		}
	}
}

// escalate makes what failed below p the failure of p.
func (p *place) escalate(s actor.Supervisor, reason error, message any) {
	p.mu.Lock()
	p.state = Failed
	p.failure, p.message, p.stack = reason.Error(), fmt.Sprintf("%T", message), ""
	p.failedAt = p.tree.options.Now()
	p.mu.Unlock()
	p.tree.options.Log.Error("failure escalates", slog.String("actor", p.path), slog.Any("error", reason))
	s.EscalateFailure(reason, message)
}

// park leaves p as it failed until its budget has room again. It is one of
// many of its kind, each for an object of its own: what is wrong with one
// object is no reason to take the others down, and a family made anew would
// meet that object again.
func (p *place) park(b Budget, again func(), reason any) {
	p.mu.Lock()
	p.again = again
	p.mu.Unlock()
	p.tree.options.Log.Error("actor failed too often: it is left alone for a while, troupe actors restart tries it at once",
		slog.String("actor", p.path), slog.Any("error", reason), slog.String("budget", b.String()), slog.Duration("again", b.Within))
	p.tree.options.After(b.Within, func() { p.retry() })
}

// retry restarts p if it is parked.
func (p *place) retry() (parked bool) {
	p.mu.Lock()
	again := p.again
	p.again = nil
	p.mu.Unlock()
	if again != nil {
		again()
	}
	return again != nil
}

// afford takes one restart of p out of its supervisor's budget, if there is one left.
func (p *place) afford(b Budget) bool {
	now := p.tree.options.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failures = slices.DeleteFunc(p.failures, func(t time.Time) bool { return now.Sub(t) >= b.Within })
	if len(p.failures) >= b.Restarts {
		return false
	}
	p.failures = append(p.failures, now)
	return true
}

func (p *place) status() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := Status{
		Path: p.path, Why: p.node.Why, State: p.state, Restarts: p.restarts,
		LastFailure: p.failure, LastMessage: p.message, LastStack: p.stack, LastFailureAt: p.failedAt,
	}
	if p.box != nil {
		s.Mailbox = p.box.UserMessageCount()
	}
	return s
}

// group is the actor of a Group.
type group struct{ place *place }

// Receive implements [actor.Actor].
func (g group) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		for _, c := range g.place.children {
			if _, err := ctx.SpawnNamed(g.place.tree.props(c), c.node.Name); err != nil {
				panic(fmt.Errorf("supervise: start %s: %w", c.path, err))
			}
		}
	case *actor.Terminated:
		if g.place.state == Active {
			panic(fmt.Errorf("%s stopped by itself", m.Who.Id))
		}
	}
}
