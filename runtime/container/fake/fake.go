// Package fake is a container runtime in memory: the port with everything that
// can be seen through it, on a clock that is given, without goroutines. How a
// container behaves is scripted by its image or by a function; faults come on
// demand. The same calls give the same answers and events, in the same order.
package fake

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/troupe-sh/troupe/runtime/container"
)

// holdAddr is how long a freed address stays unused, as in production.
const holdAddr = time.Minute

// Options are what a Runtime needs of the world. Zero fields are the time package.
type Options struct {
	Now       func() time.Time
	AfterFunc func(d time.Duration, f func()) (cancel func())
}

// Behaviour is what the process of a container does. Zero runs for ever, ends
// with 0 on SIGTERM, and every process executed in it succeeds.
type Behaviour struct {
	FailCreate error // answered by Create
	FailStart  error // answered by Start: wrap container.ErrInvalid for a command that does not exist

	Exits     bool          // it ends by itself
	ExitAfter time.Duration // so long after its start
	ExitCode  uint32
	OOM       bool   // what ends it is the kernel, for memory: exit code 137
	Message   string // what Message answers once it ended

	IgnoreTERM bool
	TermAfter  time.Duration // from the stop signal to its end
	TermCode   uint32
	StopSignal syscall.Signal // of the image; 0 is SIGTERM

	CPU    float64 // cores in use while it runs
	Memory int64

	// Exec answers a process executed in it. It may be nil.
	Exec func(ctx context.Context, e container.ExecSpec) (int, error)

	// Dial answers a connection to its sandbox. It may be nil.
	Dial func(port uint16) (net.Conn, error)
}

// Fault is a failure of one call to come.
type Fault struct {
	Method string // Create, RunSandbox, …
	Err    error
	// Done: the call does its work all the same and only its answer is lost.
	Done bool
}

// Runtime is a [container.Runtime]. New makes one.
type Runtime struct {
	o Options

	mu          sync.Mutex
	network     container.Network
	sandboxes   map[string]*sandbox
	containers  map[string]*process
	records     map[string]record    // by full name
	contents    map[string]content   // by image ID
	behaviours  map[string]Behaviour // by image name as asked for
	offers      map[string]Offer     // by full name
	disk        container.Disk
	registries  map[string]bool // hosts
	unreachable bool            // all of them
	script      func(container.Spec) (Behaviour, bool)
	faults      []Fault
	gone        bool
	freed       map[netip.Addr]time.Time
	nextPID     uint32
	calls       map[string]int

	subscribers map[int]func(container.Event)
	nextSub     int
	queue       []container.Event
	delivering  bool
}

type sandbox struct {
	spec  container.SandboxSpec
	addr  netip.Addr
	ready bool
}

type process struct {
	container.Container
	spec      container.Spec
	behaviour Behaviour
	signals   []syscall.Signal
	cancel    []func() // timers of its end
	cpu       time.Duration
}

var _ container.Runtime = (*Runtime)(nil)

// New is an empty runtime.
func New(o Options) *Runtime {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.AfterFunc == nil {
		o.AfterFunc = func(d time.Duration, f func()) func() {
			t := time.AfterFunc(d, f)
			return func() { t.Stop() }
		}
	}
	return &Runtime{
		o:           o,
		sandboxes:   map[string]*sandbox{},
		containers:  map[string]*process{},
		records:     map[string]record{},
		contents:    map[string]content{},
		behaviours:  map[string]Behaviour{},
		offers:      map[string]Offer{},
		registries:  map[string]bool{},
		disk:        container.Disk{Size: 1 << 40, Free: 1 << 40},
		freed:       map[netip.Addr]time.Time{},
		calls:       map[string]int{},
		subscribers: map[int]func(container.Event){},
		nextPID:     1000,
	}
}

// begin enters a call: it locks, and says whether the call fails before its
// work (err) and what to answer after it (late).
func (r *Runtime) begin(method string) (late, err error) {
	r.mu.Lock()
	r.calls[method]++
	if r.gone {
		return nil, fmt.Errorf("%s: %w", method, container.ErrGone)
	}
	i := slices.IndexFunc(r.faults, func(f Fault) bool { return f.Method == method })
	if i < 0 {
		return nil, nil
	}
	f := r.faults[i]
	r.faults = slices.Delete(r.faults, i, i+1)
	if f.Done {
		return f.Err, nil
	}
	return nil, f.Err
}

// end leaves a call and delivers the events that it caused.
func (r *Runtime) end() {
	if r.delivering {
		r.mu.Unlock()
		return // whoever delivers takes these too: one call at a time, in order
	}
	r.delivering = true
	for len(r.queue) > 0 {
		e := r.queue[0]
		r.queue = r.queue[1:]
		for _, id := range slices.Sorted(maps.Keys(r.subscribers)) {
			if f, ok := r.subscribers[id]; ok {
				r.mu.Unlock()
				f(e)
				r.mu.Lock()
			}
		}
	}
	r.delivering = false
	r.mu.Unlock()
}

func (r *Runtime) emit(e container.Event) {
	if !r.gone {
		e.At = r.o.Now()
		r.queue = append(r.queue, e)
	}
}

// Version implements [container.Runtime].
func (r *Runtime) Version(context.Context) (string, error) {
	late, err := r.begin("Version")
	defer r.end()
	return "fake://1", cmp.Or(err, late)
}

// Configure implements [container.Runtime].
func (r *Runtime) Configure(_ context.Context, n container.Network) error {
	late, err := r.begin("Configure")
	defer r.end()
	if err != nil {
		return err
	}
	if !n.PodCIDR.IsValid() {
		return fmt.Errorf("configure pod network: pod CIDR %v: %w", n.PodCIDR, container.ErrInvalid)
	}
	r.network = n
	return late
}

// RunSandbox implements [container.Runtime].
func (r *Runtime) RunSandbox(_ context.Context, s container.SandboxSpec) (container.Sandbox, error) {
	late, err := r.begin("RunSandbox")
	defer r.end()
	if err != nil {
		return container.Sandbox{}, err
	}
	b, ok := r.sandboxes[s.ID]
	if !ok {
		b = &sandbox{}
		if !s.HostNetwork {
			if b.addr, err = r.allocate(); err != nil {
				return container.Sandbox{}, fmt.Errorf("sandbox %s: %w", s.ID, err)
			}
		}
		r.sandboxes[s.ID] = b
	}
	b.spec, b.ready = s, true
	if late != nil {
		return container.Sandbox{}, late
	}
	return b.view(), nil
}

func (r *Runtime) allocate() (netip.Addr, error) {
	cidr := r.network.PodCIDR
	if !cidr.IsValid() {
		return netip.Addr{}, fmt.Errorf("no pod network: Configure comes first: %w", container.ErrNotReady)
	}
	used := map[netip.Addr]bool{}
	for _, b := range r.sandboxes {
		used[b.addr] = true
	}
	for a := cidr.Masked().Addr().Next().Next(); cidr.Contains(a) && cidr.Contains(a.Next()); a = a.Next() {
		if at, ok := r.freed[a]; used[a] || ok && r.o.Now().Sub(at) < holdAddr {
			continue
		}
		delete(r.freed, a)
		return a, nil
	}
	return netip.Addr{}, fmt.Errorf("no address left in %v: %w", cidr, container.ErrBusy)
}

func (b *sandbox) view() container.Sandbox {
	return container.Sandbox{ID: b.spec.ID, Pod: b.spec.Pod, Addr: b.addr, Ready: b.ready}
}

// RemoveSandbox implements [container.Runtime].
func (r *Runtime) RemoveSandbox(_ context.Context, id string) error {
	late, err := r.begin("RemoveSandbox")
	defer r.end()
	if err != nil {
		return err
	}
	r.removeSandbox(id)
	return late
}

func (r *Runtime) removeSandbox(id string) {
	b, ok := r.sandboxes[id]
	if !ok {
		return
	}
	for _, c := range r.sorted() {
		if c.Sandbox == id {
			r.remove(c)
		}
	}
	delete(r.sandboxes, id)
	if b.addr.IsValid() {
		r.freed[b.addr] = r.o.Now()
	}
	r.emit(container.Event{Kind: container.Removed, ContainerID: id})
}

// Sandboxes implements [container.Runtime].
func (r *Runtime) Sandboxes(context.Context) ([]container.Sandbox, error) {
	late, err := r.begin("Sandboxes")
	defer r.end()
	if err := cmp.Or(err, late); err != nil {
		return nil, err
	}
	var all []container.Sandbox
	for _, id := range slices.Sorted(maps.Keys(r.sandboxes)) {
		all = append(all, r.sandboxes[id].view())
	}
	return all, nil
}

// Create implements [container.Runtime].
func (r *Runtime) Create(_ context.Context, s container.Spec) error {
	late, err := r.begin("Create")
	defer r.end()
	if err != nil {
		return err
	}
	if _, ok := r.containers[s.ID]; ok {
		return late
	}
	image, ok := r.find(s.Image)
	if !ok {
		return fmt.Errorf("create container %s: image %q: %w", s.ID, s.Image, container.ErrNotFound)
	}
	if b, ok := r.sandboxes[s.Sandbox]; !ok || !b.ready {
		return fmt.Errorf("create container %s: sandbox %s: %w", s.ID, s.Sandbox, container.ErrNotReady)
	}
	how := r.behaviour(s)
	if how.FailCreate != nil {
		return fmt.Errorf("create container %s: %w", s.ID, how.FailCreate)
	}
	if how.StopSignal == 0 {
		how.StopSignal = syscall.SIGTERM
	}
	r.containers[s.ID] = &process{
		Container: container.Container{
			ID: s.ID, Sandbox: s.Sandbox, Pod: s.Pod, Name: s.Name, Attempt: s.Attempt, Hash: s.Hash,
			Image: s.Image, ImageID: image.ID, ImageRef: image.Ref(s.Image), State: container.Created, CreatedAt: r.o.Now(),
			LogPath: s.LogPath, StopSignal: how.StopSignal,
		},
		spec: s, behaviour: how,
	}
	return late
}

func (r *Runtime) behaviour(s container.Spec) Behaviour {
	if r.script != nil {
		if b, ok := r.script(s); ok {
			return b
		}
	}
	return r.behaviours[s.Image]
}

// Start implements [container.Runtime].
func (r *Runtime) Start(_ context.Context, id string) error {
	late, err := r.begin("Start")
	defer r.end()
	if err != nil {
		return err
	}
	c, ok := r.containers[id]
	switch {
	case !ok:
		return fmt.Errorf("start container %s: %w", id, container.ErrNotFound)
	case c.State == container.Running:
		return late
	case c.State == container.Exited:
		return fmt.Errorf("start container %s: it has exited: %w", id, container.ErrNotReady)
	case !r.sandboxes[c.Sandbox].ready:
		return fmt.Errorf("start container %s: sandbox %s: %w", id, c.Sandbox, container.ErrNotReady)
	case c.behaviour.FailStart != nil:
		return fmt.Errorf("start container %s: %w", id, c.behaviour.FailStart)
	}
	r.nextPID++
	c.State, c.PID, c.StartedAt = container.Running, r.nextPID, r.o.Now()
	if how := c.behaviour; how.Exits {
		r.exitLater(c, how.ExitAfter, how.ExitCode, how.OOM)
	}
	return late
}

// exitLater ends a process after d.
func (r *Runtime) exitLater(c *process, d time.Duration, code uint32, oom bool) {
	c.cancel = append(c.cancel, r.o.AfterFunc(d, func() {
		r.mu.Lock()
		defer r.end()
		r.exit(c, code, oom)
	}))
}

// exit ends a process now, if it still runs.
func (r *Runtime) exit(c *process, code uint32, oom bool) {
	if c.State != container.Running {
		return
	}
	if oom {
		code = 137
		r.emit(container.Event{Kind: container.ContainerOOM, ContainerID: c.ID})
	}
	r.halt(c)
	c.State, c.ExitCode, c.ExitKnown, c.OOMKilled, c.PID = container.Exited, code, true, oom, 0
	c.FinishedAt = r.o.Now()
	r.emit(container.Event{Kind: container.ContainerExited, ContainerID: c.ID, ExitCode: code})
}

// halt forgets what would end a process, and counts what it used.
func (r *Runtime) halt(c *process) {
	for _, cancel := range c.cancel {
		cancel()
	}
	c.cancel = nil
	c.cpu = c.used(r.o.Now())
}

func (c *process) used(now time.Time) time.Duration {
	if c.State != container.Running {
		return c.cpu
	}
	return time.Duration(float64(now.Sub(c.StartedAt)) * c.behaviour.CPU)
}

// Signal implements [container.Runtime].
func (r *Runtime) Signal(_ context.Context, id string, sig syscall.Signal) error {
	late, err := r.begin("Signal")
	defer r.end()
	if err != nil {
		return err
	}
	c, ok := r.containers[id]
	if !ok {
		return fmt.Errorf("signal container %s: %w", id, container.ErrNotFound)
	}
	if c.State != container.Running {
		return late
	}
	c.signals = append(c.signals, sig)
	switch how := c.behaviour; {
	case sig == syscall.SIGKILL:
		r.exit(c, 137, false)
	case (sig == how.StopSignal || sig == syscall.SIGTERM) && !how.IgnoreTERM:
		if how.TermAfter > 0 {
			r.exitLater(c, how.TermAfter, how.TermCode, false)
		} else {
			r.exit(c, how.TermCode, false)
		}
	}
	return late
}

// Remove implements [container.Runtime].
func (r *Runtime) Remove(_ context.Context, id string) error {
	late, err := r.begin("Remove")
	defer r.end()
	if err != nil {
		return err
	}
	if c, ok := r.containers[id]; ok {
		r.remove(c)
	}
	return late
}

func (r *Runtime) remove(c *process) {
	r.exit(c, 137, false)
	delete(r.containers, c.ID)
	r.emit(container.Event{Kind: container.Removed, ContainerID: c.ID})
}

// Container implements [container.Runtime].
func (r *Runtime) Container(_ context.Context, id string) (container.Container, error) {
	late, err := r.begin("Container")
	defer r.end()
	if err := cmp.Or(err, late); err != nil {
		return container.Container{}, err
	}
	c, ok := r.containers[id]
	if !ok {
		return container.Container{}, fmt.Errorf("container %s: %w", id, container.ErrNotFound)
	}
	return c.Container, nil
}

// Containers implements [container.Runtime].
func (r *Runtime) Containers(context.Context) ([]container.Container, error) {
	late, err := r.begin("Containers")
	defer r.end()
	if err := cmp.Or(err, late); err != nil {
		return nil, err
	}
	var all []container.Container
	for _, c := range r.sorted() {
		all = append(all, c.Container)
	}
	return all, nil
}

func (r *Runtime) sorted() []*process {
	return slices.SortedFunc(maps.Values(r.containers), func(a, b *process) int { return strings.Compare(a.ID, b.ID) })
}

// Subscribe implements [container.Runtime]: f is called before the method that
// caused the event returns.
func (r *Runtime) Subscribe(f func(container.Event)) (stop func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	id := r.nextSub
	r.nextSub++
	r.subscribers[id] = f
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.subscribers, id)
	}
}

// Exec implements [container.Runtime].
func (r *Runtime) Exec(ctx context.Context, id string, e container.ExecSpec) (int, error) {
	late, err := r.begin("Exec")
	if err != nil {
		r.end()
		return 0, err
	}
	c, ok := r.containers[id]
	running := ok && c.State == container.Running
	r.end()
	switch {
	case !ok:
		return 0, fmt.Errorf("exec in container %s: %w", id, container.ErrNotFound)
	case !running:
		return 0, fmt.Errorf("exec in container %s: %w", id, container.ErrNotReady)
	case c.behaviour.Exec == nil:
		return 0, late
	}
	code, err := c.behaviour.Exec(ctx, e)
	return code, cmp.Or(err, late)
}

// Dial implements [container.Runtime]: where no container answers, nobody listens.
func (r *Runtime) Dial(_ context.Context, sandbox string, port uint16) (net.Conn, error) {
	late, err := r.begin("Dial")
	_, ok := r.sandboxes[sandbox]
	var dial func(uint16) (net.Conn, error)
	for _, c := range r.sorted() {
		if c.Sandbox == sandbox && c.State == container.Running && c.behaviour.Dial != nil {
			dial = c.behaviour.Dial
		}
	}
	r.end()
	switch {
	case err != nil:
		return nil, err
	case !ok:
		return nil, fmt.Errorf("sandbox %s: %w", sandbox, container.ErrNotFound)
	case late != nil:
		return nil, late
	case dial == nil:
		return nil, fmt.Errorf("sandbox %s: port %d: %w", sandbox, port, syscall.ECONNREFUSED)
	}
	return dial(port)
}

// Stdin implements [container.Runtime]: what is written leads nowhere.
func (r *Runtime) Stdin(_ context.Context, id string) (io.WriteCloser, error) {
	if spec, ok := r.Spec(id); ok && !spec.Stdin {
		return nil, fmt.Errorf("standard input of container %s: it has none: %w", id, container.ErrInvalid)
	}
	if err := r.touch("Stdin", id); err != nil {
		return nil, err
	}
	return nowhere{io.Discard}, nil
}

type nowhere struct{ io.Writer }

// Close implements [io.Closer].
func (nowhere) Close() error { return nil }

// CloseStdin implements [container.Runtime].
func (r *Runtime) CloseStdin(_ context.Context, id string) error {
	return r.touch("CloseStdin", id)
}

// Resize implements [container.Runtime].
func (r *Runtime) Resize(_ context.Context, id string, _ container.Size) error {
	return r.touch("Resize", id)
}

// touch is a call that only needs a running container.
func (r *Runtime) touch(method, id string) error {
	late, err := r.begin(method)
	defer r.end()
	if err != nil {
		return err
	}
	c, ok := r.containers[id]
	switch {
	case !ok:
		return fmt.Errorf("container %s: %w", id, container.ErrNotFound)
	case c.State != container.Running:
		return fmt.Errorf("container %s: %w", id, container.ErrNotReady)
	}
	return late
}

// Usage implements [container.Runtime].
func (r *Runtime) Usage(context.Context) ([]container.Usage, error) {
	late, err := r.begin("Usage")
	defer r.end()
	if err := cmp.Or(err, late); err != nil {
		return nil, err
	}
	var all []container.Usage
	for _, c := range r.sorted() {
		if c.State == container.Running {
			now := r.o.Now()
			all = append(all, container.Usage{
				ContainerID: c.ID, Pod: c.Pod, Name: c.Name, StartedAt: c.StartedAt,
				CPU: c.used(now), Memory: c.behaviour.Memory, At: now,
			})
		}
	}
	return all, nil
}
