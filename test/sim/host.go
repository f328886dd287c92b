package sim

import (
	"log/slog"
	"sync"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/asynkron/protoactor-go/eventstream"
	"github.com/asynkron/protoactor-go/extensions"
	cmap "github.com/orcaman/concurrent-map"
	"k8s.io/apimachinery/pkg/types"

	"github.com/troupe-sh/troupe/actors/mailbox"
	"github.com/troupe-sh/troupe/actors/supervise"
)

// Host is one simulated machine. Its agent can crash and boot again; what the
// agent kept in files or in a runtime is for fakes to keep.
type Host struct {
	Name   string
	System *actor.ActorSystem                 // of the agent that runs; a new one after Boot
	Failed func(supervise.Status)             // nil, or called when an actor panics
	Lost   func(event *actor.DeadLetterEvent) // nil, or called when a message reaches nobody
	Log    *slog.Logger                       // of its trees; nil: none

	world *World
	life  *life
}

// life lasts from a boot to the next crash.
type life struct{ ended bool }

func (l *life) over() bool { return l != nil && l.ended }

// Host returns the machine of that name, booted when it is new.
func (w *World) Host(name string) *Host {
	if h := w.hosts[name]; h != nil {
		return h
	}
	h := &Host{Name: name, world: w}
	w.hosts[name] = h
	h.Boot()
	return h
}

// Up tells whether the agent runs.
func (h *Host) Up() bool { return !h.life.over() }

// Crash ends the agent as SIGKILL does: nobody hears of it, and nothing that
// was in flight is ever finished.
func (h *Host) Crash() {
	h.world.Note("%s crashes", h.Name)
	h.life.ended = true
}

// Boot starts an agent without actors; an agent that runs crashes first.
func (h *Host) Boot() {
	if h.life != nil && !h.life.ended {
		h.Crash()
	}
	h.world.Note("%s boots", h.Name)
	h.life = &life{}
	h.System = newSystem(h)
}

// Start starts a tree on the host. Its Stop would wait for ever: use BeginStop.
func (h *Host) Start(tree supervise.Node, fell func(error)) (*supervise.Running, error) {
	return supervise.Start(h.System, tree, supervise.Options{
		Log:     h.Log,
		Now:     h.world.Now,
		After:   func(d time.Duration, f func()) { h.world.after(d, h.life, f) },
		Mailbox: h.mailbox,
		Fell: func(err error) {
			h.world.Note("%s: %s fell: %v", h.Name, tree.Name, err)
			if fell != nil {
				fell(err)
			}
		},
		Failed: func(s supervise.Status) {
			h.world.Note("%s: %s failed at %s: %s", h.Name, s.Path, s.LastMessage, s.LastFailure)
			if h.Failed != nil {
				h.Failed(s)
			}
		},
	})
}

// Send sends a message to the host's actor at path, from outside all actors.
func (h *Host) Send(path string, message any) {
	h.System.Root.Send(h.System.NewLocalPID(path), message)
}

// Kernel gives the actors of the agent that runs time, work and chance.
func (h *Host) Kernel() mailbox.Kernel { return mailbox.On(driver{h.world, h.life}) }

// driver lets work end with the agent that started it.
type driver struct {
	world *World
	life  *life
}

func (d driver) Now() time.Time { return d.world.Now() }

func (d driver) AfterFunc(after time.Duration, f func()) func() {
	return d.world.after(after, d.life, f)
}

// Go runs f as one step and gives its result a while later. Between the two the
// agent may crash, and what f did is done all the same.
func (d driver) Go(f, then func()) {
	w := d.world
	w.after(w.delay(100*time.Microsecond, 5*time.Millisecond, time.Second), d.life, func() {
		f()
		w.after(w.delay(5*time.Millisecond, 300*time.Millisecond, 15*time.Second), d.life, then)
	})
}

func (d driver) NewUID() types.UID { return d.world.NewUID() }

// template lends its configuration to all systems; making one costs 5 ms.
var template = sync.OnceValue(func() *actor.ActorSystem { return supervise.NewSystem(nil) })

// newSystem is actor.NewActorSystem with a small process table, a name instead
// of a random one, and dead letters without a goroutine.
func newSystem(h *Host) *actor.ActorSystem {
	s := *template()
	s.ID = h.Name
	s.ProcessRegistry = &actor.ProcessRegistryValue{
		ActorSystem: &s, Address: h.Name,
		LocalPIDs: &actor.SliceMap{LocalPIDs: []cmap.ConcurrentMap{cmap.New()}},
	}
	s.Root = actor.NewRootContext(&s, actor.EmptyMessageHeader)
	s.Guardians = actor.NewGuardians(&s)
	s.Extensions = extensions.NewExtensions()
	s.Extensions.Register(actor.NewMetrics(&s, nil))
	s.EventStream = eventstream.NewEventStream()
	s.DeadLetter = actor.NewDeadLetter(&s)
	s.EventStream = eventstream.NewEventStream() // without what NewDeadLetter subscribed
	l := h.life
	s.EventStream.Subscribe(func(e any) {
		if d, ok := e.(*actor.DeadLetterEvent); ok && !l.over() {
			h.deadLetter(&s, d)
		}
	})
	s.ProcessRegistry.RegisterAddressResolver(func(pid *actor.PID) (actor.Process, bool) {
		if h.world.hosts[pid.Address] == nil {
			return nil, false
		}
		return &wire{from: h, to: pid}, true
	})
	return &s
}

// deadLetter answers for those who are gone, as the library does.
func (h *Host) deadLetter(s *actor.ActorSystem, d *actor.DeadLetterEvent) {
	h.world.Note("%s: nobody at %s for %T", h.Name, d.PID.GetId(), d.Message)
	if d.Sender != nil {
		s.Root.Send(d.Sender, &actor.DeadLetterResponse{})
	}
	switch m := d.Message.(type) {
	case *actor.Watch:
		if watcher, ok := s.ProcessRegistry.Get(m.Watcher); ok {
			watcher.SendSystemMessage(m.Watcher, &actor.Terminated{Who: d.PID, Why: actor.TerminatedReason_NotFound})
		}
	case actor.SystemMessage, actor.AutoReceiveMessage, actor.MailboxMessage:
	default:
		if h.Lost != nil {
			h.Lost(d)
		}
	}
}

// wire is the way to an actor of another host: in time, and at most once.
type wire struct {
	from *Host
	to   *actor.PID
}

func (p *wire) deliver(message any, send func(to *Host, pid *actor.PID)) {
	w, address := p.from.world, p.to.Address
	if w.cut[[2]string{p.from.Name, address}] || w.rand.Float64() < w.Wire.Loss {
		w.Note("lost %T %s→%s", message, p.from.Name, address)
		return
	}
	to := w.hosts[address]
	w.after(w.between(w.Wire.Min, w.Wire.Max), to.life, func() { send(to, actor.NewPID(address, p.to.Id)) })
}

// bare is pid without the process that it has found on the host it comes from.
func bare(pid *actor.PID) *actor.PID {
	if pid == nil {
		return nil
	}
	return actor.NewPID(pid.Address, pid.Id)
}

// SendUserMessage implements [actor.Process].
func (p *wire) SendUserMessage(_ *actor.PID, message any) {
	_, m, sender := actor.UnwrapEnvelope(message)
	p.deliver(m, func(to *Host, pid *actor.PID) {
		to.System.Root.Send(pid, &actor.MessageEnvelope{Message: m, Sender: bare(sender)})
	})
}

// SendSystemMessage implements [actor.Process].
func (p *wire) SendSystemMessage(_ *actor.PID, message any) {
	switch m := message.(type) {
	case *actor.Watch:
		message = &actor.Watch{Watcher: bare(m.Watcher)}
	case *actor.Unwatch:
		message = &actor.Unwatch{Watcher: bare(m.Watcher)}
	case *actor.Terminated:
		message = &actor.Terminated{Who: bare(m.Who), Why: m.Why}
	}
	p.deliver(message, func(to *Host, pid *actor.PID) {
		process, _ := to.System.ProcessRegistry.Get(pid)
		process.SendSystemMessage(pid, message)
	})
}

// Stop implements [actor.Process].
func (p *wire) Stop(pid *actor.PID) { p.SendSystemMessage(pid, &actor.Stop{}) }
