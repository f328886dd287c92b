package sim

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/container/fake"
	"github.com/troupe-sh/troupe/runtime/host"
	"github.com/troupe-sh/troupe/runtime/pod"
	"github.com/troupe-sh/troupe/runtime/volume"
)

var hostAddr = netip.MustParseAddr("192.0.2.1")

// thisMachine is what the rules know of it.
var thisMachine = pod.Machine{Name: nodeName, Addrs: func() []netip.Addr { return []netip.Addr{hostAddr} }, Memory: 16 << 30, LogDir: "/logs"}

// images are what the machine has, by what their containers do.
var images = map[string]fake.Behaviour{
	"app:1":  {},
	"deaf:1": {IgnoreTERM: true},
	"slow:1": {TermAfter: 3 * time.Second},
	"prep:1": {Exits: true, ExitAfter: 1500 * time.Millisecond},
	"done:1": {Exits: true, ExitAfter: 4 * time.Second, Message: "done"},
	"fail:1": {Exits: true, ExitAfter: 2 * time.Second, ExitCode: 3},
	"oom:1":  {Exits: true, ExitAfter: 5 * time.Second, OOM: true},
	"bad:1":  {FailStart: fmt.Errorf("exec: no such file: %w", container.ErrInvalid)},
	sick:     {},
}

// sick is an image whose containers say after a while that they are not well.
// They are asked.
const (
	sick    = "sick:1"
	sickens = 6 * time.Second
)

// faults are the shares of calls that fail, before their deed or after it.
type faults struct{ before, after float64 }

var errBroken = errors.New("input/output error")

// call is one call of a port by the agent: done, perhaps, and answered, perhaps.
// A dead agent's calls do nothing.
func (m *machine) call(what string, life *life, do func() error) error {
	if life.over() {
		return context.Canceled
	}
	if m.killAt > 0 {
		if m.killAt--; m.killAt == 0 {
			return m.die(what, do)
		}
	}
	chance := m.w.Rand().Float64()
	if chance < m.faults.before {
		m.w.Note("%s fails", what)
		return fmt.Errorf("%s: %w", what, errBroken)
	}
	err := do()
	m.w.Note("%s: %v", what, err)
	if err == nil && m.faults.before <= chance && chance < m.faults.before+m.faults.after {
		m.w.Note("%s loses its answer", what)
		return fmt.Errorf("%s: %w", what, errBroken)
	}
	return err
}

// die ends the agent before a call has done its deed, or after it.
func (m *machine) die(what string, do func() error) error {
	if m.w.Rand().IntN(2) == 0 {
		m.w.Note("%s, and then dies: %v", what, do())
	} else {
		m.w.Note("dies before %s", what)
	}
	m.kill()
	m.died()
	return context.Canceled
}

// portal is the runtime as one life of the agent reaches it.
type portal struct {
	container.Runtime
	m    *machine
	life *life
}

func newPortal(m *machine) *portal { return &portal{Runtime: m.runtime, m: m, life: m.host.life} }

func (p *portal) call(what string, do func() error) error { return p.m.call(what, p.life, do) }

// Version implements [container.Runtime].
func (p *portal) Version(ctx context.Context) (v string, err error) {
	err = p.call("Version", func() (err error) { v, err = p.Runtime.Version(ctx); return err })
	return v, err
}

// Configure implements [container.Runtime].
func (p *portal) Configure(ctx context.Context, n container.Network) error {
	return p.call("Configure", func() error { return p.Runtime.Configure(ctx, n) })
}

// RunSandbox implements [container.Runtime].
func (p *portal) RunSandbox(ctx context.Context, s container.SandboxSpec) (box container.Sandbox, err error) {
	err = p.call("RunSandbox "+s.ID, func() (err error) {
		p.m.audit.remakes(s.ID)
		box, err = p.Runtime.RunSandbox(ctx, s)
		return err
	})
	return box, err
}

// RemoveSandbox implements [container.Runtime].
func (p *portal) RemoveSandbox(ctx context.Context, id string) error {
	return p.call("RemoveSandbox "+id, func() error {
		p.m.audit.ends("RemoveSandbox", func(c container.Container) bool { return c.Sandbox == id })
		return p.Runtime.RemoveSandbox(ctx, id)
	})
}

// Sandboxes implements [container.Runtime].
func (p *portal) Sandboxes(ctx context.Context) (all []container.Sandbox, err error) {
	err = p.call("Sandboxes", func() (err error) { all, err = p.Runtime.Sandboxes(ctx); return err })
	return all, err
}

// Create implements [container.Runtime].
func (p *portal) Create(ctx context.Context, s container.Spec) error {
	return p.call("Create "+s.ID, func() error {
		err := p.Runtime.Create(ctx, s)
		if err == nil {
			p.m.disk.log(types.UID(s.Pod.UID), s.LogPath)
		}
		return err
	})
}

// Start implements [container.Runtime].
func (p *portal) Start(ctx context.Context, id string) error {
	return p.call("Start "+id, func() error {
		before, _ := p.Runtime.Container(ctx, id)
		err := p.Runtime.Start(ctx, id)
		if err == nil && before.State == container.Created {
			p.m.audit.started(before)
		}
		return err
	})
}

// Signal implements [container.Runtime].
func (p *portal) Signal(ctx context.Context, id string, sig syscall.Signal) error {
	return p.call(fmt.Sprintf("Signal %s %d", id, sig), func() error {
		p.m.audit.ends("Signal", func(c container.Container) bool { return c.ID == id })
		if sig == syscall.SIGTERM {
			p.m.audit.warned(id)
		}
		return p.Runtime.Signal(ctx, id, sig)
	})
}

// Remove implements [container.Runtime].
func (p *portal) Remove(ctx context.Context, id string) error {
	return p.call("Remove "+id, func() error {
		p.m.audit.ends("Remove", func(c container.Container) bool { return c.ID == id })
		return p.Runtime.Remove(ctx, id)
	})
}

// Container implements [container.Runtime].
func (p *portal) Container(ctx context.Context, id string) (c container.Container, err error) {
	err = p.call("Container "+id, func() (err error) { c, err = p.Runtime.Container(ctx, id); return err })
	return c, err
}

// Containers implements [container.Runtime].
func (p *portal) Containers(ctx context.Context) (all []container.Container, err error) {
	err = p.call("Containers", func() (err error) { all, err = p.Runtime.Containers(ctx); return err })
	return all, err
}

// Usage implements container.Runtime.
func (p *portal) Usage(ctx context.Context) (all []container.Usage, err error) {
	err = p.call("measure containers", func() error { all, err = p.Runtime.Usage(ctx); return err })
	return all, err
}

// Image implements [container.Runtime].
func (p *portal) Image(ctx context.Context, name string) (i container.Image, err error) {
	err = p.call("Image "+name, func() (err error) { i, err = p.Runtime.Image(ctx, name); return err })
	return i, err
}

// Images implements [container.Runtime].
func (p *portal) Images(ctx context.Context) (all []container.Image, err error) {
	err = p.call("Images", func() (err error) { all, err = p.Runtime.Images(ctx); return err })
	return all, err
}

// ImageDisk implements [container.Runtime].
func (p *portal) ImageDisk(ctx context.Context) (d container.Disk, err error) {
	err = p.call("ImageDisk", func() (err error) { d, err = p.Runtime.ImageDisk(ctx); return err })
	return d, err
}

// Pull implements [container.Runtime].
func (p *portal) Pull(ctx context.Context, name string, auth container.Auth, progress *container.Progress) (i container.Image, err error) {
	err = p.call("Pull "+name, func() (err error) { i, err = p.Runtime.Pull(ctx, name, auth, progress); return err })
	return i, err
}

// RemoveImage implements [container.Runtime].
func (p *portal) RemoveImage(ctx context.Context, name string) error {
	return p.call("RemoveImage "+name, func() error { return p.Runtime.RemoveImage(ctx, name) })
}

// Subscribe implements [container.Runtime]. Events take their time, in order;
// while the devil drops them they are lost, and some come twice.
func (p *portal) Subscribe(f func(container.Event)) (stop func()) {
	w, last := p.m.w, time.Duration(0)
	over := false
	deliver := func(e container.Event) {
		last = max(last, w.now+w.delay(time.Millisecond, 20*time.Millisecond, time.Second))
		w.after(last-w.now, p.life, func() {
			if !over {
				f(e)
			}
		})
		last++ // nothing of one instant overtakes
	}
	end := p.Runtime.Subscribe(func(e container.Event) {
		if p.life.over() || p.m.dropping && e.Kind != container.Gap {
			return
		}
		deliver(e)
		if w.Rand().IntN(20) == 0 {
			deliver(e)
		}
	})
	return func() {
		over = true
		end()
	}
}

// memoryDisk is an actors.Disk in memory.
type memoryDisk struct {
	m    *machine
	ends map[types.UID]time.Time
	logs map[types.UID]map[string]bool
}

func newMemoryDisk(m *machine) *memoryDisk {
	return &memoryDisk{m: m, ends: map[types.UID]time.Time{}, logs: map[types.UID]map[string]bool{}}
}

func (d *memoryDisk) log(uid types.UID, path string) {
	if d.logs[uid] == nil {
		d.logs[uid] = map[string]bool{}
	}
	d.logs[uid][path] = true
}

// reboot voids the records of the boot that was.
func (d *memoryDisk) reboot() { d.ends = map[types.UID]time.Time{} }

func (d *memoryDisk) pods() []types.UID {
	all := map[types.UID]bool{}
	for uid := range d.ends {
		all[uid] = true
	}
	for uid := range d.logs {
		all[uid] = true
	}
	return slices.Sorted(maps.Keys(all))
}

// SaveGrace implements actors.Disk.
func (d *memoryDisk) SaveGrace(_ context.Context, uid types.UID, left time.Duration) error {
	return d.m.call("SaveGrace "+string(uid), d.m.runtimeLife, func() error {
		d.ends[uid] = d.m.w.Now().Add(left)
		return nil
	})
}

// Grace implements actors.Disk.
func (d *memoryDisk) Grace(_ context.Context, uid types.UID) (left time.Duration, ok bool, err error) {
	err = d.m.call("Grace "+string(uid), d.m.runtimeLife, func() error {
		var end time.Time
		end, ok = d.ends[uid]
		left = max(end.Sub(d.m.w.Now()), 0)
		return nil
	})
	return left, ok, err
}

// Pods implements actors.Disk.
func (d *memoryDisk) Pods(context.Context) (uids []types.UID, err error) {
	err = d.m.call("list files", d.m.runtimeLife, func() error { uids = d.pods(); return nil })
	return uids, err
}

// Remove implements actors.Disk.
func (d *memoryDisk) Remove(_ context.Context, uid types.UID) error {
	return d.m.call("remove files "+string(uid), d.m.runtimeLife, func() error {
		delete(d.ends, uid)
		delete(d.logs, uid)
		return nil
	})
}

// RemoveLog implements actors.Disk.
func (d *memoryDisk) RemoveLog(_ context.Context, path string) error {
	return d.m.call("remove log "+path, d.m.runtimeLife, func() error {
		for uid, logs := range d.logs {
			if delete(logs, path); len(logs) == 0 {
				delete(d.logs, uid)
			}
		}
		return nil
	})
}

// TerminationMessage implements actors.Disk.
func (d *memoryDisk) TerminationMessage(_ context.Context, c container.Container, _ corev1.TerminationMessagePolicy) string {
	return d.m.runtime.Message(c.ID)
}

// memoryVolumes is a volumes.Port in memory.
type memoryVolumes struct {
	m    *machine
	have map[types.UID]map[string]string // volume/path → what the file says
}

func newMemoryVolumes(m *machine) *memoryVolumes {
	return &memoryVolumes{m: m, have: map[types.UID]map[string]string{}}
}

// Setup implements volumes.Port.
func (v *memoryVolumes) Setup(_ context.Context, p *corev1.Pod, s api.Sources) (mounts map[string][]container.Mount, err error) {
	err = v.m.call("set up volumes "+string(p.UID), v.m.runtimeLife, func() error {
		files := map[string]string{}
		for _, vol := range p.Spec.Volumes {
			payload, err := volume.Files(p, vol, s, thisMachine)
			if err != nil {
				return err
			}
			for path, f := range payload {
				files[vol.Name+"/"+path] = string(f.Data)
			}
		}
		v.have[p.UID] = files
		mounts = map[string][]container.Mount{}
		for _, c := range p.Spec.Containers {
			mounts[c.Name] = []container.Mount{{HostPath: "/pods/" + string(p.UID), ContainerPath: "/data"}}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return mounts, nil
}

// Teardown implements volumes.Port. What runs must not lose what it has mounted.
func (v *memoryVolumes) Teardown(ctx context.Context, uid types.UID) error {
	return v.m.call("take down volumes "+string(uid), v.m.runtimeLife, func() error {
		for _, c := range v.m.audit.containers() {
			if c.Pod.UID == string(uid) && c.State == container.Running && !v.m.audit.foreign[c.ID] {
				v.m.w.Failf("the volumes of %s go while its container %s runs", uid, c.ID)
			}
		}
		delete(v.have, uid)
		return nil
	})
}

// Pods implements volumes.Port.
func (v *memoryVolumes) Pods(context.Context) (uids []types.UID, err error) {
	err = v.m.call("list volumes", v.m.runtimeLife, func() error { uids = slices.Sorted(maps.Keys(v.have)); return nil })
	return uids, err
}

// memoryProbes is a probe.Port that looks at what the runtime has. While calls
// fail, some of those asked fail too.
type memoryProbes struct {
	m      *machine
	passed map[string]bool  // what a container ever answered well, by its ID and the path
	failed map[string]int32 // and how often in a row it has not
	unwell map[string]bool  // those that may be ended for it
	hooked map[string]bool  // hooks that were begun, by the container's ID and the path
}

func newMemoryProbes(m *machine) *memoryProbes {
	return &memoryProbes{m: m, passed: map[string]bool{}, failed: map[string]int32{}, unwell: map[string]bool{}, hooked: map[string]bool{}}
}

// wellAfter is how long a container needs before it answers what it is asked for.
var wellAfter = map[string]time.Duration{"/startup": time.Second, "/live": 0, "/ready": 2 * time.Second}

// Probe implements probe.Port.
func (p *memoryProbes) Probe(_ context.Context, t pod.Target, spec *corev1.Probe) pod.Answer {
	path := spec.HTTPGet.Path
	a := pod.Answer{Outcome: pod.Unknown}
	a.Err = p.m.call("probe "+t.ID+path, p.m.runtimeLife, func() error {
		a.Outcome, a.Output = p.look(t, path)
		if a.Outcome == pod.Passed {
			p.passed[t.ID+path], p.failed[t.ID+path] = true, 0
		} else if p.failed[t.ID+path]++; path != "/ready" && p.failed[t.ID+path] >= spec.FailureThreshold {
			p.unwell[t.ID] = true
		}
		return nil
	})
	return a
}

// Hook implements containerworker.Hooks. What it does takes no time here: that
// its answer does is the world's doing.
func (p *memoryProbes) Hook(_ context.Context, t pod.Target, h *corev1.LifecycleHandler) error {
	path := h.HTTPGet.Path
	p.hooked[t.ID+path] = true
	err := p.m.call("hook "+t.ID+path, p.m.runtimeLife, func() error { return nil })
	if err != nil && path == "/after" {
		p.unwell[t.ID] = true
	}
	return err
}

func (p *memoryProbes) look(t pod.Target, path string) (pod.Outcome, string) {
	if p.m.w.Rand().Float64() < p.m.faults.before {
		return pod.Failed, "timed out"
	}
	for _, c := range p.m.audit.containers() {
		if c.ID != t.ID || c.State != container.Running {
			continue
		}
		switch ran := p.m.w.Now().Sub(c.StartedAt); {
		case ran < wellAfter[path], c.Image == sick && path == "/live" && ran > sickens:
			return pod.Failed, "HTTP probe failed with statuscode: 500"
		}
		return pod.Passed, "ok"
	}
	return pod.Failed, "connection refused"
}

// facts are the machine's.
type facts struct{ m *machine }

// Facts implements machine.Host.
func (f facts) Facts(context.Context) (host.Facts, error) {
	return host.Facts{
		Addr: hostAddr, OS: "linux", Arch: "amd64", BootID: fmt.Sprintf("boot-%d", f.m.boots),
		CPUs: 8, Memory: 16 << 30, MemoryFree: 8 << 30, Storage: 100 << 30, StorageFree: 50 << 30, PIDs: 100, PIDsMax: 4 << 20,
	}, nil
}

// Usage implements usage.Host.
func (f facts) Usage(context.Context) (u host.Usage, err error) {
	err = f.m.call("measure the machine", f.m.runtimeLife, func() error { u = host.Usage{At: f.m.w.Now()}; return nil })
	return u, err
}
