package supervise

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/asynkron/protoactor-go/extensions"
)

// Options are what all actors of a tree share.
type Options struct {
	Log        *slog.Logger                // nil: none
	Now        func() time.Time            // nil: time.Now
	After      func(time.Duration, func()) // nil: time.AfterFunc
	Dispatcher actor.Dispatcher            // nil: the library's, on goroutines
	Mailbox    actor.MailboxProducer       // nil: the library's, without limit
	Failed     func(Status)                // nil, or called from inside every actor that panics
	Fell       func(error)                 // the root's budget is spent: called once, from inside the tree, which then stops; it must not wait for that
}

// Running is a tree that was started.
type Running struct {
	system  *actor.ActorSystem
	options Options
	name    string
	ready   chan struct{}
	done    chan struct{}
	fall    sync.Once

	mu      sync.Mutex
	places  map[string]*place // by path
	missing int               // declared actors that were never there yet
}

// State is what an actor is at.
type State string

// The states.
const (
	Starting   State = "Starting"
	Active     State = "Running"
	Failed     State = "Failed" // it panicked, or gave up on a child, and waits for its supervisor, which may leave it alone for a while
	Restarting State = "Restarting"
	Stopping   State = "Stopping"
	Stopped    State = "Stopped" // with its group; those made at run time leave the list instead
)

// Status is how one actor fares.
type Status struct {
	Path          string
	Why           string
	State         State
	Mailbox       int // messages that wait
	Restarts      int
	LastFailure   string // empty: none
	LastMessage   string // the type of the message that it failed at
	LastStack     string
	LastFailureAt time.Time
}

// Start runs the tree below root, a Group, as the actor named root.Name. Its
// actors start one after another: see Ready.
func Start(system *actor.ActorSystem, root Node, o Options) (*Running, error) {
	if root.New != nil {
		return nil, fmt.Errorf("supervise: the root %s is no group", root.Name)
	}
	if err := root.check(); err != nil {
		return nil, err
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.After == nil {
		o.After = func(d time.Duration, f func()) { time.AfterFunc(d, f) }
	}
	if o.Mailbox == nil {
		o.Mailbox = actor.Unbounded()
	}
	r := &Running{
		system: system, options: o, name: root.Name,
		ready: make(chan struct{}), done: make(chan struct{}), places: map[string]*place{},
	}
	all := of(system)
	if err := all.add(r); err != nil {
		return nil, err
	}
	props := r.props(r.place(root.Name, root, true)).Configure(actor.WithGuardian(all))
	if _, err := system.Root.SpawnNamed(props, root.Name); err != nil {
		all.remove(r)
		return nil, fmt.Errorf("supervise: start %s: %w", root.Name, err)
	}
	return r, nil
}

// Spawn starts n as a child of the actor whose ctx this is. An actor of that
// name may be on its way out: then the error is actor.ErrNameExists, until
// *actor.Terminated has said that it is gone.
func Spawn(ctx actor.Context, n Node) (*actor.PID, error) {
	path := ctx.Self().Id + "/" + n.Name
	if err := n.check(); err != nil {
		return nil, err
	}
	root, _, _ := strings.Cut(path, "/")
	r := of(ctx.ActorSystem()).running(root)
	if r == nil {
		return nil, fmt.Errorf("supervise: start %s: no tree named %s runs", path, root)
	}
	pid, err := ctx.SpawnNamed(r.props(r.place(path, n, false)), n.Name)
	if err != nil {
		return nil, fmt.Errorf("supervise: start %s: %w", path, err)
	}
	return pid, nil
}

// Actors lists the tree's actors, sorted by path.
func (r *Running) Actors() []Status {
	r.mu.Lock()
	places := make([]*place, 0, len(r.places))
	for _, p := range r.places {
		places = append(places, p)
	}
	r.mu.Unlock()
	out := make([]Status, len(places))
	for i, p := range places {
		out[i] = p.status()
	}
	slices.SortFunc(out, func(a, b Status) int { return strings.Compare(a.Path, b.Path) })
	return out
}

// ErrUnknown is the error of Fail for a path at which there is no actor.
var ErrUnknown = errors.New("no such actor")

// Fail makes the actor at path panic at its next message, so that its
// supervisor restarts it. One that was left alone past its budget is restarted.
func (r *Running) Fail(path string) error {
	if path == r.name {
		return fmt.Errorf("%s is the root of the tree, with nobody above to restart it: restart an actor below it, or the agent", path)
	}
	r.mu.Lock()
	p := r.places[path]
	r.mu.Unlock()
	if p == nil {
		return fmt.Errorf("%s: %w: troupe actors lists them", path, ErrUnknown)
	}
	if !p.retry() {
		r.system.Root.Send(r.system.NewLocalPID(path), failOnPurpose{})
	}
	return nil
}

// Ready is closed once every declared actor has its mailbox: until then a
// message to one may reach nobody.
func (r *Running) Ready() <-chan struct{} { return r.ready }

// appear notes that the actor at p can be sent messages.
func (r *Running) appear(p *place) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p.declared && r.places[p.path] == nil {
		if r.missing--; r.missing == 0 {
			close(r.ready)
		}
	}
	r.places[p.path] = p
}

// BeginStop asks the tree to stop and does not wait; Done tells when it has.
func (r *Running) BeginStop() {
	select {
	case <-r.done:
	default:
		r.system.Root.Stop(r.system.NewLocalPID(r.name))
	}
}

// Done is closed once nothing of the tree is left.
func (r *Running) Done() <-chan struct{} { return r.done }

// Stop stops the tree and returns when nothing of it is left. An actor must
// not call it, nor a simulation: they have BeginStop.
func (r *Running) Stop() {
	r.BeginStop()
	<-r.done
}

// fell is the end of a tree whose root failed.
func (r *Running) fell(reason any) {
	r.fall.Do(func() {
		r.options.Log.Error("the tree fell", slog.String("actor", r.name), slog.Any("error", reason))
		if r.options.Fell != nil {
			r.options.Fell(asError(reason))
		}
	})
	r.BeginStop()
}

func asError(reason any) error {
	if err, ok := reason.(error); ok {
		return err
	}
	return fmt.Errorf("%v", reason)
}

// trees are the trees of one ActorSystem by name, and the guardian of their roots.
type trees struct {
	mu     sync.RWMutex
	byName map[string]*Running
}

var (
	treesID  = extensions.NextExtensionID()
	register sync.Mutex
)

// ExtensionID implements [extensions.Extension].
func (*trees) ExtensionID() extensions.ExtensionID { return treesID }

func of(system *actor.ActorSystem) *trees {
	register.Lock()
	defer register.Unlock()
	if t, ok := system.Extensions.Get(treesID).(*trees); ok {
		return t
	}
	t := &trees{byName: map[string]*Running{}}
	system.Extensions.Register(t)
	return t
}

func (t *trees) add(r *Running) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byName[r.name] != nil {
		return fmt.Errorf("supervise: start %s: a tree of that name has not ended yet", r.name)
	}
	t.byName[r.name] = r
	return nil
}

func (t *trees) remove(r *Running) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.byName, r.name)
}

func (t *trees) running(name string) *Running {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.byName[name]
}

// HandleFailure implements [actor.SupervisorStrategy] as the guardian above all roots.
func (t *trees) HandleFailure(_ *actor.ActorSystem, _ actor.Supervisor, root *actor.PID, _ *actor.RestartStatistics, reason, _ any) {
	if r := t.running(root.Id); r != nil {
		r.fell(reason)
	}
}

// NewSystem returns an ActorSystem that logs to log, one level lower than the
// library means it: what it calls information is about itself.
func NewSystem(log *slog.Logger, opts ...actor.ConfigOption) *actor.ActorSystem {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	quiet := slog.New(lower{log.Handler()})
	return actor.NewActorSystem(append([]actor.ConfigOption{
		actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger { return quiet }),
		actor.WithDeadLetterThrottleCount(0), // log each: the throttle is a goroutine that never ends
	}, opts...)...)
}
