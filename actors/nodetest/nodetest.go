// Package nodetest runs both trees of a machine in virtual time, on the
// journal's model and the fake runtime, for tests of the node tree's actors.
package nodetest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/troupe-sh/troupe/actors"
	"github.com/troupe-sh/troupe/actors/controltest"
	"github.com/troupe-sh/troupe/actors/mailbox"
	"github.com/troupe-sh/troupe/actors/supervise"
	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/api/command"
	"github.com/troupe-sh/troupe/cluster/feed"
	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/container/fake"
	"github.com/troupe-sh/troupe/runtime/host"
	"github.com/troupe-sh/troupe/runtime/pod"
	"github.com/troupe-sh/troupe/runtime/volume"
)

// Node is the machine's name, Image an image that it has.
const (
	Node  = "n1"
	Image = "docker.io/library/app:1"
)

// World is a machine at work.
type World struct {
	*controltest.World
	Runtime *fake.Runtime
	Disk    *Disk
	Volumes *Volumes
	Probes  *Probes
	Host    host.Facts

	log   *slog.Logger
	agent *supervise.Running
	lives int
}

// Run starts both trees inside a time bubble, waits until the machine is Ready,
// and hands it to body.
func Run(t *testing.T, body func(w *World)) {
	t.Helper()
	controltest.Run(t, func(c *controltest.World) {
		w := &World{
			World: c, Runtime: fake.New(fake.Options{}), Disk: newDisk(), Probes: &Probes{},
			Host: host.Facts{
				Addr: netip.MustParseAddr("192.0.2.1"), OS: "linux", Arch: "amd64", BootID: "b1",
				CPUs: 8, Memory: 16 << 30, MemoryFree: 8 << 30, Storage: 100 << 30, StorageFree: 50 << 30, PIDs: 100, PIDsMax: 4 << 20,
			},
			log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
		}
		w.Disk.messages = w.Runtime.Message
		w.Volumes = &Volumes{machine: w.machine(), have: map[types.UID]map[string]string{}}
		w.Runtime.AddImage(Image, fake.Behaviour{})
		w.StartAgent()
		w.Advance(time.Second)
		body(w)
		w.StopAgent()
		w.Advance(2 * time.Second) // the library counts dead letters for a second
	})
}

// StartAgent starts the node tree, as a new agent on what the last one left.
func (w *World) StartAgent() {
	w.T.Helper()
	w.lives++
	tree, err := supervise.Start(w.System, actors.Machine(actors.MachineDeps{
		System: w.System, Node: Node, Feed: feed.FromHub(w.Journal.Hub(), Node),
		Registry: func() *actor.PID { return w.System.NewLocalPID(actors.RegistryPath) },
		Runtime:  w.Runtime, Volumes: w.Volumes, Probes: w.Probes, Disk: w.Disk, Host: facts{w},
		Machine: w.machine(),
		Version: "v1.36.3+troupe", Kernel: mailbox.Real(), Log: w.log,
	}), supervise.Options{Log: w.log, Fell: func(err error) { w.T.Errorf("the node tree fell: %v", err) }})
	if err != nil {
		w.T.Fatal(err)
	}
	w.agent = tree
	w.Advance(0)
}

func (w *World) machine() pod.Machine {
	_, allocatable := w.Host.Capacity()
	return pod.Machine{
		Name: Node, Addrs: func() []netip.Addr { return []netip.Addr{w.Host.Addr} }, Memory: w.Host.Memory,
		Allocatable: allocatable, LogDir: "/logs",
	}
}

// StopAgent stops it; what runs goes on.
func (w *World) StopAgent() {
	w.agent.Stop()
	w.Advance(0)
}

// gather is longer than the registry waits for writes to come together.
const gather = 150 * time.Microsecond

// Advance lets d of virtual time pass, and what little it takes until all is quiet.
func (w *World) Advance(d time.Duration) { w.World.Advance(d + gather) }

// RestartAgent is both.
func (w *World) RestartAgent() {
	w.T.Helper()
	w.StopAgent()
	w.StartAgent()
}

// Crash makes the actor at path panic.
func (w *World) Crash(path string) {
	w.T.Helper()
	tree := w.agent
	if strings.HasPrefix(path, "control/") {
		tree = w.Tree
	}
	if err := tree.Fail(path); err != nil {
		w.T.Fatal(err)
	}
	w.Advance(0)
}

// Actors lists the paths of the node tree.
func (w *World) Actors() []string {
	var paths []string
	for _, a := range w.agent.Actors() {
		paths = append(paths, a.Path)
	}
	return paths
}

// Path is where a pod's worker stands.
func Path(p *corev1.Pod) string {
	return "node/pods/" + p.Namespace + "." + p.Name + "." + string(p.UID)[:8]
}

// Pod is one of a container c of Image, changed by edit.
func Pod(name string, edit ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: corev1.PodSpec{
			NodeName:   Node,
			Containers: []corev1.Container{{Name: "c", Image: Image, ImagePullPolicy: corev1.PullIfNotPresent}},
		},
	}
	for _, e := range edit {
		e(p)
	}
	return p
}

// Policy sets the restart policy.
func Policy(r corev1.RestartPolicy) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Spec.RestartPolicy = r }
}

// Grace sets the grace period.
func Grace(d time.Duration) func(*corev1.Pod) {
	seconds := int64(d / time.Second)
	return func(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = &seconds }
}

// Finalizer sets one.
func Finalizer(name string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Finalizers = []string{name} }
}

// Make creates a pod and waits until all is quiet.
func (w *World) Make(p *corev1.Pod) *corev1.Pod {
	w.T.Helper()
	o := w.Create(p).(*corev1.Pod)
	w.Advance(0)
	return o
}

// Pod reads a pod; nil if it is not there.
func (w *World) Pod(name string) *corev1.Pod {
	w.T.Helper()
	if o := w.Get(api.Key{Resource: "pods", Namespace: "default", Name: name}); o != nil {
		return o.(*corev1.Pod)
	}
	return nil
}

// DeletePod begins its deletion, within grace if that is not negative.
func (w *World) DeletePod(name string, grace time.Duration) {
	w.T.Helper()
	p := w.Pod(name)
	var seconds *int64
	if grace >= 0 {
		s := int64(grace / time.Second)
		seconds = &s
	}
	updated, gone := api.BeginDelete(p, seconds, time.Now())
	c := command.Change{Op: command.Update, Key: api.KeyOf(p), Object: updated}
	if gone {
		c = command.Change{Op: command.Delete, Key: api.KeyOf(p)}
	}
	w.Must(c)
	w.Advance(0)
}

// UpdatePod changes a pod as a client does.
func (w *World) UpdatePod(name string, change func(*corev1.Pod)) {
	w.T.Helper()
	controltest.Update(w.World, api.KeyOf(w.Pod(name)), change)
	w.Advance(0)
}

// RemoveFinalizers lets a pod go, as the door does with an update that takes
// the last one.
func (w *World) RemoveFinalizers(p *corev1.Pod) {
	w.T.Helper()
	w.UpdatePod(p.Name, func(p *corev1.Pod) { p.Finalizers = nil })
}

// Send sends the actor at path a message, and waits until all is quiet.
func (w *World) Send(path string, message any) {
	w.System.Root.Send(w.System.NewLocalPID(path), message)
	w.Advance(0)
}

// ImagesLoaded says that an import has happened.
func (w *World) ImagesLoaded() {
	w.System.Root.Send(w.System.NewLocalPID(actors.ImagesPath), pod.ImagesLoaded{})
	w.Advance(0)
}

// State is a pod's phase and its containers: Running, c#1 running ready (3 Error).
func State(p *corev1.Pod) string {
	if p == nil {
		return "gone"
	}
	parts := []string{string(p.Status.Phase)}
	for _, c := range p.Status.ContainerStatuses {
		s := fmt.Sprintf("%s#%d", c.Name, c.RestartCount)
		switch {
		case c.State.Running != nil:
			s += " running"
		case c.State.Terminated != nil:
			s += fmt.Sprintf(" %d %s", c.State.Terminated.ExitCode, c.State.Terminated.Reason)
		case c.State.Waiting != nil:
			s += " " + c.State.Waiting.Reason
		}
		if c.Ready {
			s += " ready"
		}
		if t := c.LastTerminationState.Terminated; t != nil {
			s += fmt.Sprintf(" (%d %s)", t.ExitCode, t.Reason)
		}
		parts = append(parts, s)
	}
	return strings.Join(parts, ", ")
}

// Want fails the test unless the pod's State is so.
func (w *World) Want(name, state string) {
	w.T.Helper()
	if got := State(w.Pod(name)); got != state {
		w.T.Errorf("pod %s: %s; want %s", name, got, state)
	}
}

// Events are the reasons of a pod's events with their counts, sorted.
func (w *World) Events(name string) string {
	w.T.Helper()
	counts := map[string]int32{}
	for _, e := range controltest.List[*corev1.Event](w.World, "events", "default") {
		if e.InvolvedObject.Kind == "Pod" && e.InvolvedObject.Name == name {
			counts[e.Reason] += e.Count
		}
	}
	var parts []string
	for _, r := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, fmt.Sprintf("%s=%d", r, counts[r]))
	}
	return strings.Join(parts, " ")
}

// Containers are the runtime's, by ID; none while it is away.
func (w *World) Containers() []container.Container { return insist(w.Runtime.Containers) }

// Sandboxes are the runtime's; none while it is away.
func (w *World) Sandboxes() []container.Sandbox { return insist(w.Runtime.Sandboxes) }

// insist takes the faults that were meant for others.
func insist[T any](list func(context.Context) ([]T, error)) []T {
	for range 10 {
		if all, err := list(context.Background()); err == nil {
			return all
		}
	}
	return nil
}

// Nothing fails the test if anything is left of any pod.
func (w *World) Nothing() {
	w.T.Helper()
	sandboxes := w.Sandboxes()
	if c := w.Containers(); len(c) > 0 || len(sandboxes) > 0 || len(w.Volumes.have) > 0 || len(w.Disk.files()) > 0 {
		w.T.Errorf("left: containers %v, sandboxes %v, volumes %v, files %v", c, sandboxes, w.Volumes.have, w.Disk.files())
	}
	for _, path := range w.Actors() {
		if strings.HasPrefix(path, "node/pods/") {
			w.T.Errorf("left: %s", path)
		}
	}
}

type facts struct{ w *World }

func (f facts) Facts(context.Context) (host.Facts, error) { return f.w.Host, nil }

// Usage implements usage.Host.
func (f facts) Usage(context.Context) (host.Usage, error) { return host.Usage{At: time.Now()}, nil }

// Disk is a faithful actors.Disk in memory.
type Disk struct {
	mu       sync.Mutex
	ends     map[types.UID]time.Time
	logs     map[types.UID]bool
	removed  []string
	messages func(id string) string
}

func newDisk() *Disk { return &Disk{ends: map[types.UID]time.Time{}, logs: map[types.UID]bool{}} }

// PutLog leaves a log of a pod behind.
func (d *Disk) PutLog(uid types.UID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.logs[uid] = true
}

// Reboot makes every record one of an earlier boot.
func (d *Disk) Reboot() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ends = map[types.UID]time.Time{}
}

// Removed are the logs that were removed one by one.
func (d *Disk) Removed() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.removed)
}

func (d *Disk) files() []types.UID {
	uids, _ := d.Pods(context.Background()) // cannot fail
	return uids
}

// SaveGrace implements actors.Disk.
func (d *Disk) SaveGrace(_ context.Context, uid types.UID, left time.Duration) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ends[uid] = time.Now().Add(left)
	return nil
}

// Grace implements actors.Disk.
func (d *Disk) Grace(_ context.Context, uid types.UID) (time.Duration, bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	end, ok := d.ends[uid]
	return max(time.Until(end), 0), ok, nil
}

// Pods implements actors.Disk.
func (d *Disk) Pods(context.Context) ([]types.UID, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := maps.Clone(d.logs)
	for uid := range d.ends {
		all[uid] = true
	}
	return slices.Sorted(maps.Keys(all)), nil
}

// Remove implements actors.Disk.
func (d *Disk) Remove(_ context.Context, uid types.UID) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.ends, uid)
	delete(d.logs, uid)
	return nil
}

// RemoveLog implements actors.Disk.
func (d *Disk) RemoveLog(_ context.Context, path string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.removed = append(d.removed, path)
	return nil
}

// TerminationMessage implements actors.Disk.
func (d *Disk) TerminationMessage(_ context.Context, c container.Container, _ corev1.TerminationMessagePolicy) string {
	return d.messages(c.ID)
}

// Volumes is a faithful volumes.Port in memory.
type Volumes struct {
	machine pod.Machine
	mu      sync.Mutex
	have    map[types.UID]map[string]string // volume/path → what the file says
	fail    int
	setups  int
}

// Fail makes the next n calls fail.
func (v *Volumes) Fail(n int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.fail = n
}

// Put leaves volumes of a pod behind.
func (v *Volumes) Put(uid types.UID) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.have[uid] = map[string]string{}
}

// File is what a file of a pod's volume says; empty if there is none.
func (v *Volumes) File(uid types.UID, volume, path string) string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.have[uid][volume+"/"+path]
}

// Setups counts how often volumes were set up.
func (v *Volumes) Setups() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.setups
}

func (v *Volumes) call() error {
	if v.fail > 0 {
		v.fail--
		return errors.New("MountVolume.SetUp failed for volume \"v\" : no such device")
	}
	return nil
}

// Setup implements volumes.Port.
func (v *Volumes) Setup(_ context.Context, p *corev1.Pod, s api.Sources) (map[string][]container.Mount, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.setups++
	if err := v.call(); err != nil {
		return nil, err
	}
	files := map[string]string{}
	for _, vol := range p.Spec.Volumes {
		payload, err := volume.Files(p, vol, s, v.machine)
		if err != nil {
			return nil, fmt.Errorf("MountVolume.SetUp failed for volume %q : %w", vol.Name, err)
		}
		for path, f := range payload {
			files[vol.Name+"/"+path] = string(f.Data)
		}
	}
	v.have[p.UID] = files
	return map[string][]container.Mount{"c": {{HostPath: "/pods/" + string(p.UID), ContainerPath: "/data"}}}, nil
}

// Teardown implements volumes.Port.
func (v *Volumes) Teardown(_ context.Context, uid types.UID) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.call(); err != nil {
		return err
	}
	delete(v.have, uid)
	return nil
}

// Pods implements volumes.Port.
func (v *Volumes) Pods(context.Context) ([]types.UID, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Sorted(maps.Keys(v.have)), nil
}

// Probes is an actors.Probes that answers what a test says.
type Probes struct {
	mu     sync.Mutex
	answer func(pod.Target, *corev1.Probe) pod.Answer
	asked  []string
	hook   func(context.Context, pod.Target, *corev1.LifecycleHandler) error
	hooks  []string
}

// OnHook lets f do what hooks say; until then all are done at once.
func (p *Probes) OnHook(f func(context.Context, pod.Target, *corev1.LifecycleHandler) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hook = f
}

// Hooks are the containers that had one done since the last call, with its path.
func (p *Probes) Hooks() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	hooks := p.hooks
	p.hooks = nil
	return hooks
}

// Hook implements containerworker.Hooks.
func (p *Probes) Hook(ctx context.Context, t pod.Target, h *corev1.LifecycleHandler) error {
	p.mu.Lock()
	hook := p.hook
	p.hooks = append(p.hooks, t.ID+h.HTTPGet.Path+"@"+t.Addr)
	p.mu.Unlock()
	if hook == nil {
		return nil
	}
	return hook(ctx, t, h)
}

// Answer lets f answer; until then everything is well.
func (p *Probes) Answer(f func(pod.Target, *corev1.Probe) pod.Answer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer = f
}

// Asked are the containers that were asked since the last call, with the path
// that they were asked for.
func (p *Probes) Asked() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	asked := p.asked
	p.asked = nil
	return asked
}

// Probe implements probe.Port.
func (p *Probes) Probe(_ context.Context, t pod.Target, spec *corev1.Probe) pod.Answer {
	p.mu.Lock()
	answer := p.answer
	p.asked = append(p.asked, t.ID+spec.HTTPGet.Path+"@"+t.Addr)
	p.mu.Unlock()
	if answer == nil {
		return pod.Answer{Outcome: pod.Passed}
	}
	return answer(t, spec)
}
