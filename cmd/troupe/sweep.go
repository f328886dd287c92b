package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/troupe-sh/troupe/cmd/internal/place"
	"github.com/troupe-sh/troupe/runtime/sandbox"
)

// dialTimeout is how long containerd has to answer.
const dialTimeout = 5 * time.Second

// sweep stops and removes what an agent made, without the agent: it may be
// dead. It finds all of it by the directories and settings alone.
type sweep struct {
	dirs     place.Dirs
	settings place.Settings
	here     bool // in the network namespace that the agent ran in
}

// stop ends the containers, then the processes that served them, and lets go
// of what does not survive a reboot. It returns the number of containers that ran.
func (w sweep) stop(ctx context.Context, grace time.Duration) (int, error) {
	n := 0
	err := w.withContainerd(ctx, func(ctx context.Context, c *containerd.Client) error {
		var err error
		n, err = stopTasks(ctx, c, grace)
		return err
	})
	if err != nil {
		return n, err
	}
	return n, w.release(ctx)
}

// release ends Troupe's own processes and unmounts and removes what stands
// in the run directory.
func (w sweep) release(ctx context.Context) error {
	// An agent on its way out may still start a keeper: go on until neither is there.
	for {
		pids := processes(w.ours)
		agent, err := w.dirs.PID()
		if err != nil {
			return err
		}
		if agent != 0 && !slices.Contains(pids, agent) {
			pids = append(pids, agent)
		}
		if len(pids) == 0 {
			break
		}
		if err := end(ctx, pids, alive); err != nil {
			return err
		}
	}
	if err := killCgroup(ctx, w.settings.CgroupParent); err != nil {
		return err
	}
	if err := unmountUnder(w.dirs.Run); err != nil {
		return err
	}
	return w.removeTree(w.dirs.Run)
}

// purge removes everything.
func (w sweep) purge(ctx context.Context, grace time.Duration) error {
	err := w.withContainerd(ctx, func(ctx context.Context, c *containerd.Client) error {
		if _, err := stopTasks(ctx, c, grace); err != nil {
			return err
		}
		if w.settings.PrivateContainerd {
			return nil // it goes with its directories
		}
		return emptyNamespace(ctx, c, w.settings.ContainerdNamespace)
	})
	if err != nil {
		return err
	}
	if err := w.release(ctx); err != nil {
		return err
	}
	if err := removeCgroup(w.settings.CgroupParent); err != nil {
		return err
	}
	if err := removeRuncState(runcRoot, w.settings.ContainerdNamespace); err != nil {
		return err
	}
	if w.here { // elsewhere it may be another agent's
		if err := sandbox.Teardown(); err != nil {
			return err
		}
	}
	if err := unmountUnder(w.dirs.Data); err != nil {
		return err
	}
	return w.removeTree(w.dirs.Data)
}

// withContainerd calls f with a client in the agent's namespace. A private
// containerd that is dead is no error: what it ran is found by its processes
// and mounts. The machine's own must answer, for only it can forget.
func (w sweep) withContainerd(ctx context.Context, f func(context.Context, *containerd.Client) error) error {
	c, err := containerd.New(w.settings.Containerd, containerd.WithTimeout(dialTimeout))
	if err == nil {
		defer c.Close()
		_, err = c.Version(ctx)
	}
	if err != nil {
		if w.settings.PrivateContainerd {
			return nil
		}
		return fmt.Errorf("containerd does not answer at %s: start it and call \"troupe down\" again: %w", w.settings.Containerd, err)
	}
	return f(namespaces.WithNamespace(ctx, w.settings.ContainerdNamespace), c)
}

// stopTasks ends all containers at once: SIGTERM, after the grace SIGKILL.
func stopTasks(ctx context.Context, c *containerd.Client, grace time.Duration) (int, error) {
	all, err := c.Containers(ctx)
	if err != nil {
		return 0, fmt.Errorf("list containers: %w", err)
	}
	type running struct {
		task containerd.Task
		exit <-chan containerd.ExitStatus
	}
	var tasks []running
	var failed []error
	for _, ctr := range all {
		t, err := ctr.Task(ctx, nil)
		if errdefs.IsNotFound(err) {
			continue
		}
		if err == nil {
			var exit <-chan containerd.ExitStatus
			if exit, err = t.Wait(ctx); err == nil {
				tasks = append(tasks, running{t, exit})
				err = t.Kill(ctx, syscall.SIGTERM)
			}
		}
		if err != nil && !gone(err) {
			failed = append(failed, fmt.Errorf("stop container %s: %w", ctr.ID(), err))
		}
	}
	deadline := time.After(grace)
	for _, t := range tasks {
		select {
		case <-t.exit:
		case <-deadline:
			expired := make(chan time.Time)
			close(expired)
			deadline = expired
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		if _, err := t.task.Delete(ctx, containerd.WithProcessKill); err != nil && !gone(err) {
			failed = append(failed, fmt.Errorf("stop container %s: %w", t.task.ID(), err))
		}
	}
	return len(tasks), errors.Join(failed...)
}

// gone is the answer about a process that ended meanwhile.
func gone(err error) bool {
	return errdefs.IsNotFound(err) || errdefs.IsFailedPrecondition(err) || strings.Contains(err.Error(), "process already finished")
}

// emptyNamespace removes all that stands in the namespace of a containerd
// that others use too, then the namespace.
func emptyNamespace(ctx context.Context, c *containerd.Client, name string) error {
	all, err := c.Containers(ctx)
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	for _, ctr := range all {
		if err := ctr.Delete(ctx, containerd.WithSnapshotCleanup); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("remove container %s: %w", ctr.ID(), err)
		}
	}
	held, err := c.LeasesService().List(ctx)
	if err != nil {
		return fmt.Errorf("list leases: %w", err)
	}
	for _, l := range held {
		if err := c.LeasesService().Delete(ctx, l, leases.SynchronousDelete); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("remove lease %s: %w", l.ID, err)
		}
	}
	present, err := c.ImageService().List(ctx)
	if err != nil {
		return fmt.Errorf("list images: %w", err)
	}
	for i, image := range present {
		var opts []images.DeleteOpt
		if i == len(present)-1 {
			opts = append(opts, images.SynchronousDelete()) // waits until its layers are gone too
		}
		if err := c.ImageService().Delete(ctx, image.Name, opts...); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("remove image %s: %w", image.Name, err)
		}
	}
	if err := removeSnapshots(ctx, c); err != nil {
		return err
	}
	if err := removeContent(ctx, c); err != nil {
		return err
	}
	if err := c.NamespaceService().Delete(ctx, name); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove containerd namespace %s: %w", name, err)
	}
	return nil
}

// removeSnapshots removes what no image or container holds any more: children
// before their parents.
func removeSnapshots(ctx context.Context, c *containerd.Client) error {
	plugins, err := c.IntrospectionService().Plugins(ctx, `type==io.containerd.snapshotter.v1`)
	if err != nil {
		return fmt.Errorf("list snapshotters: %w", err)
	}
	for _, p := range plugins.Plugins {
		if p.InitErr != nil {
			continue
		}
		if err := removeSnapshotsOf(ctx, c.SnapshotService(p.ID)); err != nil {
			return err
		}
	}
	return nil
}

func removeSnapshotsOf(ctx context.Context, s snapshots.Snapshotter) error {
	for {
		var names []string
		err := s.Walk(ctx, func(_ context.Context, i snapshots.Info) error {
			names = append(names, i.Name)
			return nil
		})
		if err != nil || len(names) == 0 {
			if errdefs.IsNotFound(err) {
				return nil
			}
			return err
		}
		removed := 0
		var last error
		for _, n := range names {
			if err := s.Remove(ctx, n); err == nil || errdefs.IsNotFound(err) {
				removed++
			} else {
				last = err // has children that are still to go
			}
		}
		if removed == 0 {
			return fmt.Errorf("remove snapshots %s: %w", strings.Join(names, ", "), last)
		}
	}
}

func removeContent(ctx context.Context, c *containerd.Client) error {
	store := c.ContentStore()
	var digests []digest.Digest
	err := store.Walk(ctx, func(i content.Info) error {
		digests = append(digests, i.Digest)
		return nil
	})
	if err != nil {
		return fmt.Errorf("list content: %w", err)
	}
	for _, d := range digests {
		if err := store.Delete(ctx, d); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("remove content %s: %w", d, err)
		}
	}
	return nil
}

// processes are the ids of those whose arguments match.
func processes(match func(argv []string) bool) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var out []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		b, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err != nil || len(b) == 0 {
			continue // ended, a zombie or the kernel's
		}
		if match(strings.Split(string(bytes.TrimRight(b, "\x00")), "\x00")) {
			out = append(out, pid)
		}
	}
	return out
}

func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && len(b) > 0
}

// ours says whether a process serves this agent: agent, keeper, its own
// containerd and the shims of its containers.
func (w sweep) ours(argv []string) bool {
	switch name := filepath.Base(argv[0]); {
	case name == "trouped" || name == "troupe-keeper" || name == "containerd":
		return slices.ContainsFunc(argv[1:], func(arg string) bool {
			if _, value, ok := strings.Cut(arg, "="); ok {
				arg = value
			}
			return under(arg, w.dirs.Run)
		})
	case strings.HasPrefix(name, "containerd-shim-"):
		return flagOf(argv, "-namespace") == w.settings.ContainerdNamespace && flagOf(argv, "-address") == w.settings.Containerd
	}
	return false
}

func flagOf(argv []string, name string) string {
	if i := slices.Index(argv, name); i >= 0 && i+1 < len(argv) {
		return argv[i+1]
	}
	return ""
}

// under says whether path is dir or stands in it.
func under(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, dir+"/")
}

// unmountUnder unmounts everything in dir, the last mounted first.
func unmountUnder(dir string) error {
	for {
		mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
		if err != nil {
			return err
		}
		if len(mounts) == 0 {
			return nil
		}
		slices.SortFunc(mounts, func(a, b *mountinfo.Info) int { return b.ID - a.ID })
		for _, m := range mounts {
			if err := unix.Unmount(m.Mountpoint, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) {
				return fmt.Errorf("unmount %s: %w", m.Mountpoint, err)
			}
		}
	}
}

// removeTree removes one of the agent's directories. It looks for mounts
// first: through one it would remove what is not the agent's.
func (w sweep) removeTree(dir string) error {
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		return err
	}
	if len(mounts) > 0 {
		return fmt.Errorf("%s is still a mount: unmount it and call \"troupe down\" again", mounts[0].Mountpoint)
	}
	return os.RemoveAll(dir)
}

// cgroups are the directories of the named cgroup, one in each hierarchy.
func cgroups(name string) ([]string, error) {
	if strings.Trim(filepath.Clean("/"+name), "/") == "" {
		return nil, fmt.Errorf("cgroup parent %q: that is the whole machine", name)
	}
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	if err != nil {
		return nil, err
	}
	var out []string
	for _, m := range mounts {
		if dir := filepath.Join(m.Mountpoint, filepath.Clean("/"+name)); exists(dir) && !slices.Contains(out, dir) {
			out = append(out, dir)
		}
	}
	return out, nil
}

// killCgroup kills every process that is left in the pods' cgroups.
func killCgroup(ctx context.Context, name string) error {
	dirs, err := cgroups(name)
	if err != nil {
		return err
	}
	var pids []int
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.Name() != "cgroup.procs" {
				return ignoreGone(err)
			}
			b, err := os.ReadFile(path)
			for _, f := range strings.Fields(string(b)) {
				pid, err := strconv.Atoi(f)
				if err == nil && pid > 1 && pid != os.Getpid() {
					pids = append(pids, pid)
				}
			}
			return ignoreGone(err)
		})
		if err != nil {
			return err
		}
	}
	slices.Sort(pids)
	return endBy(ctx, slices.Compact(pids), alive, syscall.SIGKILL)
}

// runcRoot is where containerd's shim lets runc keep state, by containerd
// namespace, whatever the daemon's own directories are.
const runcRoot = "/run/containerd/runc"

// removeRuncState removes what runc keeps of a namespace's containers: those
// that were killed without containerd are still there.
func removeRuncState(root, namespace string) error {
	if namespace == "" || namespace == "." || namespace == ".." || strings.Contains(namespace, "/") {
		return fmt.Errorf("containerd namespace %q: no name", namespace)
	}
	return os.RemoveAll(filepath.Join(root, namespace))
}

// removeCgroup removes the empty cgroup with all below it.
func removeCgroup(name string) error {
	dirs, err := cgroups(name)
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		var all []string
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err == nil && e.IsDir() {
				all = append(all, path)
			}
			return ignoreGone(err)
		})
		if err != nil {
			return err
		}
		for _, d := range slices.Backward(all) {
			if err := removeBusy(d); err != nil {
				return fmt.Errorf("remove cgroup: %w", err)
			}
		}
	}
	return nil
}

// removeBusy removes a cgroup whose last process may still be on its way out.
func removeBusy(dir string) error {
	for deadline := time.Now().Add(stopWait); ; time.Sleep(pollInterval) {
		err := unix.Rmdir(dir)
		if err == nil || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return &os.PathError{Op: "rmdir", Path: dir, Err: err}
		}
	}
}

// ignoreGone is err unless it says that a cgroup went meanwhile.
func ignoreGone(err error) error {
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}
