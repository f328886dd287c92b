package ctrd

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	"github.com/moby/sys/signal"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/troupe-sh/troupe/runtime/cgroup"
	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/keeper"
)

// Labels of a container record: what it is, for whoever comes after us.
const (
	labelSandbox   = "troupe.sh/sandbox"
	labelNamespace = "troupe.sh/pod-namespace"
	labelPod       = "troupe.sh/pod-name"
	labelUID       = "troupe.sh/pod-uid"
	labelName      = "troupe.sh/container"
	labelAttempt   = "troupe.sh/attempt"
	labelHash      = "troupe.sh/hash"
	labelImage     = "troupe.sh/image"
	labelImageID   = "troupe.sh/image-id"
	labelImageRef  = "troupe.sh/image-ref"
	labelLog       = "troupe.sh/log-path"
	labelMessage   = "troupe.sh/message"
	labelStop      = "troupe.sh/stop-signal"
	labelGroup     = "troupe.sh/shim-group"
	labelCgroup    = "troupe.sh/cgroup"
	labelStdin     = "troupe.sh/stdin"
	labelTTY       = "troupe.sh/tty"
	labelInternal  = "troupe.sh/internal"

	// labelRoot marks snapshots of ours. They are removed with their container,
	// and not by containerd's garbage collector before it is recorded.
	labelRoot = "troupe.sh/root"
	labelKeep = "containerd.io/gc.root"

	// groupAnnotation makes shims serve several containers.
	groupAnnotation = "io.containerd.runc.v2.group"
)

// What containerd takes as an identifier.
var validID = regexp.MustCompile(`^[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*$`)

func (r *Runtime) stateDir(sandbox, id string) string {
	return filepath.Join(r.c.DataDir, "pods", sandbox, "containers", id)
}

func (r *Runtime) ioDir(id string) string { return filepath.Join(r.c.RunDir, "io", id) }

// Create implements [container.Runtime].
func (r *Runtime) Create(ctx context.Context, s container.Spec) error {
	if err := r.create(r.in(ctx), s); err != nil {
		return fmt.Errorf("create container %s: %w", s.ID, err)
	}
	return nil
}

func (r *Runtime) create(ctx context.Context, s container.Spec) error {
	if !validID.MatchString(s.ID) || len(s.ID) > 76 {
		return fmt.Errorf("ID %q: %w: at most 76 letters, digits, and single '.', '_', '-' between them", s.ID, container.ErrInvalid)
	}
	box, ready, err := r.boxes.Spec(s.Sandbox)
	if errors.Is(err, container.ErrNotFound) || err == nil && !ready {
		return fmt.Errorf("sandbox %s: %w", s.Sandbox, container.ErrNotReady)
	}
	if err != nil {
		return err
	}
	img, err := r.images.find(ctx, s.Image)
	if err != nil {
		return err
	}
	who, err := r.images.user(ctx, img, s.Security)
	if err != nil {
		return err
	}
	runtime, err := r.runtimeOf(box.RuntimeClass)
	if err != nil {
		return err
	}
	dir := r.stateDir(s.Sandbox, s.ID)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	in := specInput{
		Spec: s, box: box, paths: r.boxes.Paths(box), image: img.config, user: who, oomFloor: r.oomFloor,
		group: r.groups.of(s.Sandbox, s.ID), profiles: filepath.Join(r.c.DataDir, "seccomp"),
	}
	if s.TerminationMessagePath != "" {
		in.message = filepath.Join(dir, "message")
		if err := touch(in.message, 0o666); err != nil {
			return err
		}
	}
	if box.SharePID {
		if in.pidNS, err = r.initNS(ctx, box.ID); err != nil {
			return err
		}
	}
	if want := s.Resources.OOMScoreAdj; want < r.oomFloor {
		r.c.Log.Debug("this machine does not allow the OOM score of a container", "container", s.ID, "wanted", want, "set", r.oomFloor)
	}
	oci, err := in.oci()
	if err != nil {
		return err
	}
	spec, err := typeurl.MarshalAny(oci)
	if err != nil {
		return err
	}
	record := containers.Container{
		ID: s.ID, Image: img.names[0], Spec: spec, Snapshotter: r.snapshotter, SnapshotKey: s.ID,
		Runtime: containers.RuntimeInfo{Name: runtime},
		Labels:  labels(s, img, in),
	}

	// Record and root at the same time: the label keeps the root until then.
	root := make(chan error, 1)
	go func() { root <- r.prepare(ctx, s.ID, img) }()
	_, err = r.containers.Create(ctx, record)
	if err == nil {
		// One of that name that was removed behind our back left these.
		err = errors.Join(removeIfThere(filepath.Join(dir, "started")), removeIfThere(filepath.Join(dir, "exit.json")), r.removeIO(ctx, s.ID))
	} else if errdefs.IsAlreadyExists(err) {
		err = nil
	}
	if rootErr := <-root; rootErr != nil {
		return fmt.Errorf("root of image %s: %w", s.Image, kind(rootErr))
	}
	if err != nil {
		return kind(err)
	}
	r.remember(record)
	return nil
}

// prepare makes the container's root, unpacking the image if it was not.
func (r *Runtime) prepare(ctx context.Context, id string, img *image) error {
	make := func() error {
		_, err := r.snapshots.Prepare(ctx, id, img.chain, snapshots.WithLabels(map[string]string{
			labelRoot: "true", labelKeep: "true",
		}))
		if errdefs.IsAlreadyExists(err) {
			return nil
		}
		return err
	}
	err := make()
	if errdefs.IsNotFound(err) {
		if err := r.images.unpack(ctx, img); err != nil {
			return err
		}
		err = make()
	}
	return err
}

func touch(path string, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Chmod(mode) // whatever the umask is
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func labels(s container.Spec, img *image, in specInput) map[string]string {
	l := map[string]string{
		labelSandbox: s.Sandbox, labelNamespace: s.Pod.Namespace, labelPod: s.Pod.Name, labelUID: s.Pod.UID,
		labelName: s.Name, labelAttempt: strconv.FormatUint(uint64(s.Attempt), 10), labelHash: s.Hash,
		labelImage: s.Image, labelImageID: img.ID, labelImageRef: img.Ref(s.Image), labelLog: s.LogPath, labelStop: img.stopSignal,
		labelGroup: in.group, labelCgroup: in.cgroup(),
	}
	for key, set := range map[string]bool{labelStdin: s.Stdin, labelTTY: s.TTY, labelMessage: in.message != ""} {
		if set {
			l[key] = "true"
		}
	}
	return l
}

// remember keeps what containerd need not be asked again.
func (r *Runtime) remember(c containers.Container) *known {
	k := &known{
		pod:  container.Pod{Namespace: c.Labels[labelNamespace], Name: c.Labels[labelPod], UID: c.Labels[labelUID]},
		name: c.Labels[labelName], sandbox: c.Labels[labelSandbox], group: c.Labels[labelGroup], cgroup: c.Labels[labelCgroup],
		stdin: c.Labels[labelStdin] != "", tty: c.Labels[labelTTY] != "", internal: c.Labels[labelInternal] != "",
	}
	if path := c.Labels[labelLog]; path != "" && r.c.Logs != nil {
		k.log = keeper.Log{ContainerID: c.ID, Stdout: filepath.Join(r.ioDir(c.ID), "stdout"), Path: path, TTY: k.tty}
		if !k.tty {
			k.log.Stderr = filepath.Join(r.ioDir(c.ID), "stderr")
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if old := r.known[c.ID]; old != nil {
		return old
	}
	r.known[c.ID] = k
	r.groups.add(k.sandbox, k.group, c.ID)
	return k
}

func (r *Runtime) lookup(id string) *known {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.known[id]
}

// recall is lookup, and asks containerd where nothing is known.
func (r *Runtime) recall(ctx context.Context, id string) (*known, error) {
	if k := r.lookup(id); k != nil {
		return k, nil
	}
	c, err := r.containers.Get(ctx, id)
	if err != nil {
		return nil, kind(err)
	}
	return r.remember(c), nil
}

func (r *Runtime) forget(id string) {
	r.mu.Lock()
	k := r.known[id]
	delete(r.known, id)
	r.mu.Unlock()
	if k != nil {
		r.groups.remove(k.sandbox, id)
	}
}

// inSandbox are the known containers of a sandbox.
func (r *Runtime) inSandbox(id string) map[string]*known {
	r.mu.Lock()
	defer r.mu.Unlock()
	in := map[string]*known{}
	for cid, k := range r.known {
		if k.sandbox == id {
			in[cid] = k
		}
	}
	return in
}

// task asks for a task. ErrNotFound: there is none.
func (r *Runtime) task(ctx context.Context, id string) (*task.Process, error) {
	got, err := r.tasks.Get(ctx, &tasks.GetRequest{ContainerID: id})
	if err != nil {
		return nil, kind(err)
	}
	return got.Process, nil
}

func running(p *task.Process) bool {
	return p.Status == task.Status_RUNNING || p.Status == task.Status_PAUSED || p.Status == task.Status_PAUSING
}

// Start implements [container.Runtime].
func (r *Runtime) Start(ctx context.Context, id string) error {
	if err := r.start(r.in(ctx), id); err != nil {
		return fmt.Errorf("start container %s: %w", id, err)
	}
	return nil
}

func (r *Runtime) start(ctx context.Context, id string) error {
	k, err := r.recall(ctx, id)
	if err != nil {
		return err
	}
	if !k.starting.CompareAndSwap(false, true) {
		return fmt.Errorf("it is being started: %w", container.ErrBusy)
	}
	defer k.starting.Store(false)
	started := filepath.Join(r.stateDir(k.sandbox, id), "started")
	_, err = os.Stat(started)
	marked := err == nil
	if !marked {
		if err := touch(started, 0o644); err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("its state directory is gone: %w", container.ErrNotReady)
			}
			return err
		}
	}
	release, err := r.makeIO(id, k)
	if err != nil {
		return err
	}
	defer release()
	followed := make(chan error, 1)
	go func() { followed <- r.follow(ctx, k) }() // also where it runs: a keeper may have lost it
	err = r.run(ctx, id, k, marked)
	if err == nil && !marked {
		now := time.Now()
		if err := os.Chtimes(started, now, now); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	followErr := <-followed
	if err != nil && !marked {
		return errors.Join(err, removeIfThere(started))
	}
	return cmp.Or(err, followErr)
}

// run makes and starts the task, or finds that somebody has. Of one marked as
// started there must be a task.
func (r *Runtime) run(ctx context.Context, id string, k *known, marked bool) error {
	if !marked {
		err := r.createTask(ctx, id, k)
		marked = errdefs.IsAlreadyExists(err) // an answer was lost
		if err != nil && !marked {
			return commandError(kind(err))
		}
	}
	if marked {
		switch p, err := r.task(ctx, id); {
		case errors.Is(err, container.ErrNotFound):
			return fmt.Errorf("it has run and is gone: %w", container.ErrNotReady)
		case err != nil:
			return err
		case running(p):
			return nil
		case p.Status != task.Status_CREATED:
			return fmt.Errorf("it has exited: %w", container.ErrNotReady)
		}
	}
	if _, err := r.tasks.Start(ctx, &tasks.StartRequest{ContainerID: id}); err != nil {
		// Where that fails too, the next Start or Remove sees what there is.
		_, _ = r.tasks.Delete(context.WithoutCancel(ctx), &tasks.DeleteTaskRequest{ContainerID: id})
		return commandError(kind(err))
	}
	return nil
}

func (r *Runtime) follow(ctx context.Context, k *known) error {
	if k.log.Path == "" {
		return nil
	}
	if err := r.c.Logs.Follow(ctx, k.log); err != nil {
		return fmt.Errorf("follow its output: %w", err)
	}
	return nil
}

// makeIO makes the FIFOs and holds those that are written to open: the shim
// waits for a reader when it opens them, and must not wait for the keeper.
func (r *Runtime) makeIO(id string, k *known) (release func(), err error) {
	if err := os.MkdirAll(r.ioDir(id), 0o700); err != nil {
		return nil, err
	}
	var held []*os.File
	release = func() {
		for _, f := range held {
			f.Close()
		}
	}
	for _, fifo := range []string{k.log.Stdout, k.log.Stderr, r.stdin(id, k)} {
		if fifo == "" {
			continue
		}
		if err := unix.Mkfifo(fifo, 0o600); err != nil && !errors.Is(err, unix.EEXIST) {
			release()
			return nil, fmt.Errorf("make FIFO %s: %w", fifo, err)
		}
		if fifo == r.stdin(id, k) {
			continue // opened by the shim without waiting; a writer of ours would only end it
		}
		f, err := os.OpenFile(fifo, os.O_RDWR|unix.O_NONBLOCK, 0)
		if err != nil {
			release()
			return nil, err
		}
		held = append(held, f)
	}
	return release, nil
}

// removeIO ends the reading of a container's output and removes its FIFOs.
func (r *Runtime) removeIO(ctx context.Context, id string) error {
	if _, err := os.Stat(r.ioDir(id)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if r.c.Logs != nil {
		if err := r.c.Logs.Forget(ctx, id); err != nil {
			return fmt.Errorf("forget its output: %w", err)
		}
	}
	return os.RemoveAll(r.ioDir(id))
}

func (r *Runtime) stdin(id string, k *known) string {
	if !k.stdin {
		return ""
	}
	return filepath.Join(r.ioDir(id), "stdin")
}

// createTask makes the task. The first of its group starts the shim.
func (r *Runtime) createTask(ctx context.Context, id string, k *known) error {
	var mounts []mount.Mount
	if !k.internal {
		var err error
		if mounts, err = r.snapshots.Mounts(ctx, id); err != nil {
			return fmt.Errorf("its root: %w", kind(err))
		}
	}
	request := &tasks.CreateTaskRequest{
		ContainerID: id, Rootfs: mount.ToProto(mounts), Terminal: k.tty,
		Stdin: r.stdin(id, k), Stdout: k.log.Stdout, Stderr: k.log.Stderr,
	}
	if k.stdin && request.Stdout == "" {
		request.Stdout = os.DevNull // the shim takes all or none
		if !k.tty {
			request.Stderr = os.DevNull
		}
	}
	defer r.groups.enter(k.sandbox)()
	for try := 0; ; try++ {
		_, err := r.tasks.Create(ctx, request)
		err = native(err)
		switch {
		case err == nil:
			r.groups.run(k.sandbox, id)
			return nil
		case errdefs.IsAlreadyExists(err) || strings.Contains(err.Error(), "OCI runtime create failed") || try == shimTries || ctx.Err() != nil:
			return err
		}
		// The shim of the group was ending: the next try finds none and starts it.
		select {
		case <-ctx.Done():
		case <-time.After(shimWait):
		}
	}
}

const (
	shimTries = 5
	shimWait  = 20 * time.Millisecond
)

// What the runtime says of a command, user or directory that is not there.
var impossible = regexp.MustCompile(`exec: "|exec /|chdir to cwd|unable to find user|not a directory`)

// commandError marks what will never work.
func commandError(err error) error {
	if impossible.MatchString(err.Error()) && !errors.Is(err, container.ErrInvalid) {
		return fmt.Errorf("%w: %w", container.ErrInvalid, err)
	}
	return err
}

// Signal implements [container.Runtime].
func (r *Runtime) Signal(ctx context.Context, id string, sig syscall.Signal) error {
	ctx = r.in(ctx)
	_, err := r.tasks.Kill(ctx, &tasks.KillRequest{ContainerID: id, Signal: uint32(sig), All: sig == syscall.SIGKILL})
	err = native(err)
	if err == nil {
		return nil
	}
	if errdefs.IsNotFound(err) || strings.Contains(err.Error(), "process already finished") {
		// No task, or none that runs: is there such a container at all?
		if _, err := r.containers.Get(ctx, id); err != nil {
			return fmt.Errorf("signal container %s: %w", id, kind(err))
		}
		return nil
	}
	return fmt.Errorf("signal container %s: %w", id, kind(err))
}

// Remove implements [container.Runtime].
func (r *Runtime) Remove(ctx context.Context, id string) error {
	if err := r.remove(r.in(ctx), id); err != nil {
		return fmt.Errorf("remove container %s: %w", id, err)
	}
	return nil
}

func (r *Runtime) remove(ctx context.Context, id string) error {
	k, err := r.recall(ctx, id)
	if errors.Is(err, container.ErrNotFound) {
		k = &known{} // perhaps only half of it is left
	} else if err != nil {
		return err
	}
	if err := r.removeTask(ctx, id, k); err != nil {
		return err
	}
	if err := r.containers.Delete(ctx, id); err != nil && !errdefs.IsNotFound(err) {
		return kind(err)
	}
	if err := r.snapshots.Remove(ctx, id); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("its root: %w", kind(err))
	}
	if err := r.removeIO(ctx, id); err != nil {
		return err
	}
	if k.sandbox != "" {
		if err := os.RemoveAll(r.stateDir(k.sandbox, id)); err != nil {
			return err
		}
	}
	r.forget(id)
	return nil
}

// removeTask ends a task and removes it.
func (r *Runtime) removeTask(ctx context.Context, id string, k *known) error {
	p, err := r.task(ctx, id)
	if errors.Is(err, container.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if p.Status != task.Status_STOPPED {
		_, err := r.tasks.Kill(ctx, &tasks.KillRequest{ContainerID: id, Signal: uint32(syscall.SIGKILL), All: true})
		if err = native(err); err != nil && !errdefs.IsNotFound(err) && !strings.Contains(err.Error(), "process already finished") {
			return fmt.Errorf("kill: %w", kind(err))
		}
		if _, err := r.tasks.Wait(ctx, &tasks.WaitRequest{ContainerID: id}); err != nil && !errdefs.IsNotFound(native(err)) {
			return fmt.Errorf("wait for its end: %w", kind(err))
		}
	}
	defer r.groups.leave(k.sandbox, id)()
	if _, err := r.tasks.Delete(ctx, &tasks.DeleteTaskRequest{ContainerID: id}); err != nil && !errdefs.IsNotFound(native(err)) {
		return kind(err)
	}
	return nil
}

// Container implements [container.Runtime].
func (r *Runtime) Container(ctx context.Context, id string) (container.Container, error) {
	ctx = r.in(ctx)
	c, err := r.containers.Get(ctx, id)
	if err != nil {
		return container.Container{}, fmt.Errorf("container %s: %w", id, kind(err))
	}
	p, err := r.task(ctx, id)
	if err != nil && !errors.Is(err, container.ErrNotFound) {
		return container.Container{}, fmt.Errorf("container %s: %w", id, err)
	}
	return r.view(c, p), nil
}

// Containers implements [container.Runtime]: everything in the namespace, also
// what others made there.
func (r *Runtime) Containers(ctx context.Context) ([]container.Container, error) {
	ctx = r.in(ctx)
	// Tasks first: one that is made in between shows as created, not as lost.
	procs, err := r.tasks.List(ctx, &tasks.ListTasksRequest{})
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", kind(err))
	}
	byID := map[string]*task.Process{}
	for _, p := range procs.Tasks {
		byID[p.ID] = p
	}
	records, err := r.containers.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", kind(err))
	}
	slices.SortFunc(records, func(a, b containers.Container) int { return strings.Compare(a.ID, b.ID) })
	all := make([]container.Container, 0, len(records))
	for _, c := range records {
		p, k := byID[c.ID], r.remember(c)
		if k.internal {
			continue
		}
		if p == nil && !r.stateOf(c.ID, k).startedAt.IsZero() {
			// Started between the two lists, or gone: ask for it alone.
			if p, err = r.task(ctx, c.ID); err != nil && !errors.Is(err, container.ErrNotFound) {
				return nil, fmt.Errorf("list containers: %w", err)
			}
		}
		all = append(all, r.view(c, p))
	}
	return all, nil
}

// view joins a record, its task (nil: none) and the files beside it.
func (r *Runtime) view(c containers.Container, p *task.Process) container.Container {
	k := r.remember(c)
	attempt, _ := strconv.ParseUint(c.Labels[labelAttempt], 10, 32) // of others' containers: 0
	v := container.Container{
		ID: c.ID, Sandbox: k.sandbox, Name: c.Labels[labelName], Attempt: uint32(attempt), Hash: c.Labels[labelHash],
		Pod:   container.Pod{Namespace: c.Labels[labelNamespace], Name: c.Labels[labelPod], UID: c.Labels[labelUID]},
		Image: c.Labels[labelImage], ImageID: c.Labels[labelImageID], ImageRef: cmp.Or(c.Labels[labelImageRef], c.Labels[labelImageID]),
		State: container.Created, CreatedAt: c.CreatedAt, LogPath: c.Labels[labelLog], StopSignal: syscall.SIGTERM,
	}
	if sig, err := signal.ParseSignal(c.Labels[labelStop]); err == nil {
		v.StopSignal = sig
	}
	if c.Labels[labelMessage] != "" {
		v.TerminationMessagePath = filepath.Join(r.stateDir(k.sandbox, c.ID), "message")
	}
	state := r.stateOf(c.ID, k)
	v.StartedAt = state.startedAt
	if p != nil && p.Status == task.Status_STOPPED && state.exit == nil {
		state.exit = r.exited(c.ID, k, p.ExitStatus, p.ExitedAt.AsTime())
	}
	switch {
	case state.exit != nil:
		v.State, v.ExitKnown = container.Exited, true
		v.ExitCode, v.OOMKilled, v.FinishedAt = state.exit.Code, state.exit.OOM, state.exit.At
	case p != nil && running(p):
		v.State, v.PID = container.Running, p.Pid
	case p == nil && !state.startedAt.IsZero() && !k.starting.Load():
		v.State = container.Exited // the machine rebooted, or somebody removed the task
	}
	return v
}

// state is what stands in the files beside a container.
type state struct {
	startedAt time.Time
	exit      *exit
}

type exit struct {
	Code uint32
	At   time.Time
	OOM  bool
}

func (r *Runtime) stateOf(id string, k *known) state {
	var s state
	if k.sandbox == "" {
		return s
	}
	dir := r.stateDir(k.sandbox, id)
	if info, err := os.Stat(filepath.Join(dir, "started")); err == nil {
		s.startedAt = info.ModTime()
	}
	if raw, err := os.ReadFile(filepath.Join(dir, "exit.json")); err == nil {
		var e exit
		if json.Unmarshal(raw, &e) == nil {
			s.exit = &e
		}
	}
	return s
}

// exited writes down how a container ended, so that it is known after a reboot
// too. The control group still counts whom the kernel killed.
func (r *Runtime) exited(id string, k *known, code uint32, at time.Time) *exit {
	e := &exit{Code: code, At: at}
	if k.sandbox == "" {
		return e
	}
	if kills, err := cgroup.OOMKills(k.cgroup); err == nil {
		e.OOM = kills > 0 && code != 0
	}
	raw, err := json.Marshal(e)
	if err == nil {
		file := filepath.Join(r.stateDir(k.sandbox, id), "exit.json")
		if err = os.WriteFile(file+".new", raw, 0o644); err == nil {
			err = os.Rename(file+".new", file)
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // not there: removed just now
		r.c.Log.Warn("end of a container not written down", "container", id, "error", err)
	}
	return e
}

// Stdin implements [container.Runtime].
func (r *Runtime) Stdin(ctx context.Context, id string) (io.WriteCloser, error) {
	k, err := r.recall(r.in(ctx), id)
	if err == nil && !k.stdin {
		err = fmt.Errorf("it has none: %w", container.ErrInvalid)
	}
	var f *os.File
	if err == nil {
		// The shim reads it for as long as the container runs.
		f, err = os.OpenFile(r.stdin(id, k), os.O_WRONLY|unix.O_NONBLOCK, 0)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENXIO) {
			err = container.ErrNotReady
		}
	}
	if err != nil {
		return nil, fmt.Errorf("standard input of container %s: %w", id, err)
	}
	return f, nil
}

// CloseStdin implements [container.Runtime].
func (r *Runtime) CloseStdin(ctx context.Context, id string) error {
	_, err := r.tasks.CloseIO(r.in(ctx), &tasks.CloseIORequest{ContainerID: id, Stdin: true})
	return r.taskError(ctx, "close standard input of", id, err)
}

// Resize implements [container.Runtime].
func (r *Runtime) Resize(ctx context.Context, id string, size container.Size) error {
	_, err := r.tasks.ResizePty(r.in(ctx), &tasks.ResizePtyRequest{ContainerID: id, Width: uint32(size.Width), Height: uint32(size.Height)})
	return r.taskError(ctx, "resize terminal of", id, err)
}

// taskError tells a container without a running task from none at all.
func (r *Runtime) taskError(ctx context.Context, what, id string, err error) error {
	if err == nil {
		return nil
	}
	err = kind(err)
	if errors.Is(err, container.ErrNotFound) {
		if _, getErr := r.containers.Get(r.in(ctx), id); getErr == nil {
			err = container.ErrNotReady
		}
	}
	return fmt.Errorf("%s container %s: %w", what, id, err)
}

// Usage implements [container.Runtime]. It reads the control groups and asks nobody.
func (r *Runtime) Usage(context.Context) ([]container.Usage, error) {
	r.mu.Lock()
	all := maps.Clone(r.known)
	r.mu.Unlock()
	var out []container.Usage
	for _, id := range slices.Sorted(maps.Keys(all)) {
		k := all[id]
		if k.cgroup == "" || k.internal {
			continue
		}
		state := r.stateOf(id, k)
		if state.exit != nil {
			continue
		}
		use, err := cgroup.Usage(k.cgroup)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
			continue // not started, or removed just now
		}
		if err != nil {
			return nil, fmt.Errorf("usage of container %s: %w", id, err)
		}
		out = append(out, container.Usage{
			ContainerID: id, Pod: k.pod, Name: k.name, StartedAt: state.startedAt, CPU: use.CPU, Memory: use.Memory, At: time.Now(),
		})
	}
	return out, nil
}

// processOf is the first process of a container as its record says.
func (r *Runtime) processOf(ctx context.Context, id string) (*specs.Process, error) {
	c, err := r.containers.Get(ctx, id)
	if err != nil {
		return nil, kind(err)
	}
	var spec specs.Spec
	if err := json.Unmarshal(c.Spec.GetValue(), &spec); err != nil {
		return nil, fmt.Errorf("its specification: %w", err)
	}
	return spec.Process, nil
}
