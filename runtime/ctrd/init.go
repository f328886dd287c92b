package ctrd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/troupe-sh/troupe/runtime/container"
)

// A pod that shares process IDs needs a process 1 that outlives its
// containers: the keeper's binary in a container of its own, with nothing else
// in it. Its namespace is pinned like the others, so that containers join it by
// a path that stays.

const initBinary = "/troupe-keeper"

func initID(sandbox string) string { return sandbox + "-init" }

func (r *Runtime) initPin(sandbox string) string {
	return filepath.Join(r.c.RunDir, "netns", sandbox, "pid")
}

// initRuns tells whether a sandbox's process 1 does, as far as was heard.
func (r *Runtime) initRuns(sandbox string) bool {
	k := r.lookup(initID(sandbox))
	return k != nil && r.stateOf(initID(sandbox), k).exit == nil
}

// initNS is the namespace of a sandbox's process 1, as a path.
func (r *Runtime) initNS(ctx context.Context, sandbox string) (string, error) {
	p, err := r.task(ctx, initID(sandbox))
	if err != nil || !running(p) {
		return "", fmt.Errorf("process 1 of sandbox %s: %w", sandbox, container.ErrNotReady)
	}
	return r.initPin(sandbox), nil
}

// runInit starts a sandbox's process 1, where it does not run.
func (r *Runtime) runInit(ctx context.Context, s container.SandboxSpec) error {
	if r.c.KeeperPath == "" {
		return fmt.Errorf("the path of troupe-keeper is not configured: %w", container.ErrInvalid)
	}
	id := initID(s.ID)
	p, err := r.task(ctx, id)
	if err != nil && !errors.Is(err, container.ErrNotFound) {
		return err
	}
	if err == nil && running(p) {
		return r.pinInit(s.ID, p.Pid)
	}
	// Its end took all that shared its IDs along: begin anew.
	if err := r.remove(ctx, id); err != nil {
		return err
	}
	root := filepath.Join(r.stateDir(s.ID, id), "root")
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	runtime, err := r.runtimeOf(s.RuntimeClass)
	if err != nil {
		return err
	}
	in := specInput{
		Spec: container.Spec{
			ID: id, Sandbox: s.ID, Command: []string{initBinary, "init"},
			Mounts:   []container.Mount{{HostPath: r.c.KeeperPath, ContainerPath: initBinary, ReadOnly: true}},
			Security: container.Security{ReadOnlyRoot: true, NoNewPrivs: true, MaskedPaths: true},
		},
		box: s, paths: r.boxes.Paths(s), oomFloor: r.oomFloor, group: r.groups.of(s.ID, id),
		user: specs.User{AdditionalGids: []uint32{0}},
	}
	oci, err := in.oci()
	if err != nil {
		return err
	}
	oci.Root.Path = root
	spec, err := typeurl.MarshalAny(oci)
	if err != nil {
		return err
	}
	record := containers.Container{
		ID: id, Spec: spec, Runtime: containers.RuntimeInfo{Name: runtime},
		Labels: map[string]string{
			labelSandbox: s.ID, labelInternal: "true", labelGroup: in.group, labelCgroup: in.cgroup(),
		},
	}
	if _, err := r.containers.Create(ctx, record); err != nil && !errdefs.IsAlreadyExists(err) {
		return kind(err)
	}
	k := r.remember(record)
	if err := r.createTask(ctx, id, k); err != nil {
		return kind(err)
	}
	started, err := r.tasks.Start(ctx, &tasks.StartRequest{ContainerID: id})
	if err != nil {
		return kind(err)
	}
	return r.pinInit(s.ID, started.Pid)
}

func (r *Runtime) pinInit(sandbox string, pid uint32) error {
	from, pin := fmt.Sprintf("/proc/%d/ns/pid", pid), r.initPin(sandbox)
	if a, err := os.Stat(from); err == nil {
		if b, err := os.Stat(pin); err == nil && os.SameFile(a, b) {
			return nil
		}
	}
	if err := unix.Unmount(pin, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unpin the former one: %w", err)
	}
	if err := touch(pin, 0o444); err != nil {
		return err
	}
	return unix.Mount(from, pin, "", unix.MS_BIND, "")
}
