// Package ctrd is the container runtime port over containerd, also one as old
// as 1.6: pods' namespaces come from package sandbox, everything else is
// containerd's and is found there again.
//
// A container is a container record with labels (what it is), a snapshot of the
// same name (its root), and a task once started. The task stays after its end,
// with the exit code, until Remove. What containerd does not keep stands in
//
//	DATA/pods/<sandbox>/containers/<id>/started    its time is that of the start
//	DATA/pods/<sandbox>/containers/<id>/exit.json  how it ended
//	DATA/pods/<sandbox>/containers/<id>/message    the termination message
//	RUN/io/<id>/{stdin,stdout,stderr}              FIFOs, read by the keeper
package ctrd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"

	"google.golang.org/grpc/status"

	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/keeper"
	"github.com/troupe-sh/troupe/runtime/sandbox"
)

// Logs reads what containers print. [keeper.Client] does.
type Logs interface {
	Follow(ctx context.Context, l keeper.Log) error
	Forget(ctx context.Context, id string) error
}

// Config is what Connect needs.
type Config struct {
	Address      string // of containerd's socket
	Namespace    string // containerd's; troupe if empty
	RunDir       string
	DataDir      string
	CgroupParent string // /troupe if empty
	Logs         Logs
	KeeperPath   string // troupe-keeper: process 1 of pods that share process IDs
	// Runtimes are containerd's names of the runtime classes, such as
	// io.containerd.kata.v2. The class "" is io.containerd.runc.v2 if not named.
	Runtimes map[string]string
	CertsDir string // how to reach registries: HOST/hosts.toml, as containerd reads it
	Log      *slog.Logger
}

const defaultRuntime = "io.containerd.runc.v2"

// Runtime is a [container.Runtime]. Connect makes one.
type Runtime struct {
	c           Config
	client      *client.Client
	containers  containers.Store
	tasks       tasks.TasksClient
	snapshots   snapshots.Snapshotter
	snapshotter string
	boxes       *sandbox.Store
	images      *images
	events      *events
	groups      groups
	oomFloor    int // oom_score_adj cannot go below

	mu    sync.Mutex
	known map[string]*known
}

var _ container.Runtime = (*Runtime)(nil)

// known is what is remembered of a container, to ask containerd less often.
type known struct {
	pod     container.Pod
	name    string
	sandbox string
	group   string
	cgroup  string
	log     keeper.Log // Path empty: none
	stdin   bool
	tty     bool
	// internal: part of the sandbox, no container of the pod.
	internal bool
	// starting: between its mark and its task it is not lost, but begun.
	starting atomic.Bool
}

// Connect joins the containerd at an address. It fails when none answers until
// ctx ends. It must be called in the machine's network namespace.
func Connect(ctx context.Context, c Config) (*Runtime, error) {
	if c.Namespace == "" {
		c.Namespace = "troupe"
	}
	r, err := connect(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("containerd at %s: %w", c.Address, err)
	}
	return r, nil
}

func connect(ctx context.Context, c Config) (_ *Runtime, err error) {
	for _, dir := range []string{filepath.Join(c.RunDir, "io"), filepath.Join(c.DataDir, "pods")} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return nil, err
		}
	}
	cl, err := client.New(c.Address, client.WithDefaultNamespace(c.Namespace), client.WithTimeout(time.Second))
	if err != nil {
		return nil, err
	}
	r := &Runtime{c: c, client: cl, known: map[string]*known{}}
	defer func() {
		if err != nil {
			r.Close()
		}
	}()
	ctx = r.in(ctx)
	if _, err := cl.IsServing(ctx); err != nil {
		return nil, kind(err)
	}
	if r.snapshotter, err = chooseSnapshotter(ctx, cl); err != nil {
		return nil, err
	}
	if r.oomFloor, err = oomFloor(); err != nil {
		return nil, err
	}
	r.containers, r.tasks, r.snapshots = cl.ContainerService(), cl.TaskService(), cl.SnapshotService(r.snapshotter)
	r.boxes, err = sandbox.Open(sandbox.Config{RunDir: c.RunDir, DataDir: c.DataDir, CgroupParent: c.CgroupParent, Log: c.Log})
	if err != nil {
		return nil, err
	}
	r.images = newImages(cl, r.snapshotter, r.snapshots)
	// Events first: what happens while the rest is read is not missed.
	if r.events, err = r.listen(ctx); err != nil {
		return nil, err
	}
	if err := r.adopt(ctx); err != nil {
		return nil, err
	}
	return r, nil
}

// adopt takes over what is there.
func (r *Runtime) adopt(ctx context.Context) error {
	all, err := r.containers.List(ctx)
	if err != nil {
		return fmt.Errorf("list containers: %w", kind(err))
	}
	for _, c := range all {
		k := r.remember(c)
		if k.log.Path == "" || r.stateOf(c.ID, k).exit != nil {
			continue
		}
		if err := r.c.Logs.Follow(ctx, k.log); err != nil {
			r.c.Log.Warn("container's output is not read", "container", c.ID, "error", err)
		}
	}
	return r.sweep(ctx)
}

// sweep removes snapshots of ours whose container was never recorded: an agent
// died between the two.
func (r *Runtime) sweep(ctx context.Context) error {
	var orphans []string
	err := r.snapshots.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		if r.lookup(info.Name) == nil {
			orphans = append(orphans, info.Name)
		}
		return nil
	}, fmt.Sprintf("labels.%q==true", labelRoot))
	if err != nil {
		return fmt.Errorf("list snapshots: %w", kind(err))
	}
	for _, key := range orphans {
		if err := r.snapshots.Remove(ctx, key); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("remove snapshot %s: %w", key, kind(err))
		}
	}
	return nil
}

// Close ends the connection. Everything goes on running.
func (r *Runtime) Close() error {
	if r.events != nil {
		r.events.close()
	}
	if r.boxes != nil {
		r.boxes.Close()
	}
	return r.client.Close()
}

func (r *Runtime) in(ctx context.Context) context.Context {
	return namespaces.WithNamespace(ctx, r.c.Namespace)
}

// native is containerd's error for one of gRPC. Others stay what they are.
func native(err error) error {
	if _, ok := status.FromError(err); ok {
		return errgrpc.ToNative(err)
	}
	return err
}

// kind says in the port's words what containerd's error is.
func kind(err error) error {
	err = native(err)
	for from, to := range map[error]error{
		errdefs.ErrNotFound:        container.ErrNotFound,
		errdefs.ErrUnavailable:     container.ErrGone,
		errdefs.ErrInvalidArgument: container.ErrInvalid,
	} {
		if errors.Is(err, from) && !errors.Is(err, to) {
			return fmt.Errorf("%w: %w", to, err)
		}
	}
	return err
}

// Version implements [container.Runtime].
func (r *Runtime) Version(ctx context.Context) (string, error) {
	v, err := r.client.Version(r.in(ctx))
	if err != nil {
		return "", fmt.Errorf("version of containerd: %w", kind(err))
	}
	return "containerd://" + v.Version, nil
}

// Configure implements [container.Runtime].
func (r *Runtime) Configure(ctx context.Context, n container.Network) error {
	return r.boxes.Configure(ctx, n)
}

// RunSandbox implements [container.Runtime].
func (r *Runtime) RunSandbox(ctx context.Context, s container.SandboxSpec) (container.Sandbox, error) {
	if _, err := r.runtimeOf(s.RuntimeClass); err != nil {
		return container.Sandbox{}, fmt.Errorf("sandbox %s: %w", s.ID, err)
	}
	sb, err := r.boxes.Run(ctx, s, func() uint32 { return r.alive(ctx, s.ID) })
	if err != nil {
		return container.Sandbox{}, err
	}
	if s.SharePID {
		if err := r.runInit(r.in(ctx), s); err != nil {
			return container.Sandbox{}, fmt.Errorf("sandbox %s: process 1: %w", s.ID, err)
		}
	}
	return sb, nil
}

// alive is a process that runs in a sandbox, or 0.
func (r *Runtime) alive(ctx context.Context, id string) uint32 {
	for cid := range r.inSandbox(id) {
		if p, err := r.task(r.in(ctx), cid); err == nil && running(p) {
			return p.Pid
		}
	}
	return 0
}

func (r *Runtime) runtimeOf(class string) (string, error) {
	if name, ok := r.c.Runtimes[class]; ok {
		return name, nil
	}
	if class == "" {
		return defaultRuntime, nil
	}
	return "", fmt.Errorf("runtime class handler %q: %w: this machine does not have it", class, container.ErrInvalid)
}

// RemoveSandbox implements [container.Runtime].
func (r *Runtime) RemoveSandbox(ctx context.Context, id string) error {
	if !validID.MatchString(id) {
		return fmt.Errorf("remove sandbox %q: %w", id, container.ErrInvalid)
	}
	all, err := r.containers.List(r.in(ctx), fmt.Sprintf("labels.%q==%q", labelSandbox, id))
	if err != nil {
		return fmt.Errorf("remove sandbox %s: list its containers: %w", id, kind(err))
	}
	ids := map[string]bool{}
	for _, c := range all {
		ids[c.ID] = true
	}
	// Of one that was removed behind our back, files are left.
	dir := filepath.Join(r.c.DataDir, "pods", id, "containers")
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove sandbox %s: %w", id, err)
	}
	for _, e := range entries {
		ids[e.Name()] = true
	}
	done := make(chan error, len(ids))
	for cid := range ids {
		go func() { done <- r.Remove(ctx, cid) }()
	}
	err = nil
	for range ids {
		err = errors.Join(err, <-done)
	}
	if err != nil {
		return fmt.Errorf("remove sandbox %s: %w", id, err)
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove sandbox %s: %w", id, err)
	}
	if err := r.boxes.Remove(ctx, id); err != nil {
		return err
	}
	r.groups.forget(id)
	r.events.emit(container.Event{Kind: container.Removed, ContainerID: id, At: time.Now()})
	return nil
}

// Dial implements [container.Runtime].
func (r *Runtime) Dial(ctx context.Context, sandbox string, port uint16) (net.Conn, error) {
	return r.boxes.Dial(ctx, sandbox, port)
}

// Sandboxes implements [container.Runtime].
func (r *Runtime) Sandboxes(context.Context) ([]container.Sandbox, error) {
	all, err := r.boxes.List()
	for i, b := range all {
		if b.Ready {
			spec, _, err := r.boxes.Spec(b.ID)
			all[i].Ready = err == nil && (!spec.SharePID || r.initRuns(b.ID))
		}
	}
	return all, err
}
