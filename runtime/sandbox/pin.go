package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/troupe-sh/troupe/runtime/container"
)

// pins are the namespaces that a sandbox may pin, by file name.
var pins = []struct {
	name string
	flag int
	of   func(Paths) string
}{
	{"net", unix.CLONE_NEWNET, func(p Paths) string { return p.Net }},
	{"ipc", unix.CLONE_NEWIPC, func(p Paths) string { return p.IPC }},
	{"uts", unix.CLONE_NEWUTS, func(p Paths) string { return p.UTS }},
}

// pin makes the namespaces that are missing, sets them up and pins them.
func (s *Store) pin(r record, alive func() uint32) error {
	p := s.Paths(r.Spec)
	dir := s.pinDir(r.Spec.ID)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if !r.Spec.HostIPC && !mountedShm(p.Shm) {
		if err := os.MkdirAll(p.Shm, 0o755); err != nil {
			return err
		}
		if err := unix.Mount("shm", p.Shm, "tmpfs", unix.MS_NOEXEC|unix.MS_NOSUID|unix.MS_NODEV, "mode=1777,size=65536k"); err != nil {
			return fmt.Errorf("mount /dev/shm: %w", err)
		}
	}
	if err := s.repin(p, alive); err != nil {
		return err
	}
	n := s.network()
	if p.Net != "" && !n.PodCIDR.IsValid() {
		return fmt.Errorf("no pod network: Configure comes first: %w", container.ErrNotReady)
	}
	if err := inThread(func() error { return s.enter(r, p, n) }); err != nil || p.Net == "" {
		return err
	}
	return s.wireHost(r, n)
}

// repin pins lost namespaces again from a process that still is in them.
func (s *Store) repin(p Paths, alive func() uint32) error {
	var pid uint32
	for _, ns := range pins {
		path := ns.of(p)
		if path == "" || pinned(path) {
			continue
		}
		if pid == 0 {
			if pid = alive(); pid == 0 {
				return nil
			}
		}
		from := fmt.Sprintf("/proc/%d/ns/%s", pid, ns.name)
		if same(from, "/proc/self/ns/"+ns.name) {
			continue
		}
		if err := bind(from, path); err != nil && !errors.Is(err, fs.ErrNotExist) { // it may have ended just now
			return fmt.Errorf("pin %s of process %d: %w", ns.name, pid, err)
		}
	}
	return nil
}

// enter runs on a thread of its own that never serves anything else again: it
// makes or joins the sandbox's namespaces and sets them up from inside.
func (s *Store) enter(r record, p Paths, n network) error {
	var missing int
	for _, ns := range pins {
		path := ns.of(p)
		switch {
		case path == "":
		case !pinned(path):
			missing |= ns.flag
		default:
			if err := join(path, ns.flag); err != nil {
				return err
			}
		}
	}
	if err := unix.Unshare(missing); err != nil {
		return fmt.Errorf("make namespaces: %w", err)
	}
	if p.UTS != "" && r.Spec.Hostname != "" {
		if err := unix.Sethostname([]byte(r.Spec.Hostname)); err != nil {
			return fmt.Errorf("set host name %q: %w", r.Spec.Hostname, err)
		}
	}
	if err := setSysctls(r.Spec); err != nil {
		return err
	}
	if p.Net != "" {
		if err := s.wirePod(r, n); err != nil {
			return err
		}
	}
	for _, ns := range pins {
		if missing&ns.flag != 0 {
			if err := bind("/proc/thread-self/ns/"+ns.name, ns.of(p)); err != nil {
				return fmt.Errorf("pin %s namespace: %w", ns.name, err)
			}
		}
	}
	return nil
}

func join(path string, flag int) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Setns(int(f.Fd()), flag); err != nil {
		return fmt.Errorf("join %s: %w", path, err)
	}
	return nil
}

// inThread runs f on an operating system thread that ends with it.
func inThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The process's first thread never ends, and /proc/<pid>/ns shows
			// its namespaces: leave it alone. Held here, it is not taken again.
			done <- inThread(f)
			runtime.UnlockOSThread()
			return
		}
		done <- f() // not unlocked: the thread dies with this goroutine
	}()
	return <-done
}

// bind pins from under path.
func bind(from, path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o444)
	if err != nil {
		return err
	}
	f.Close()
	return unix.Mount(from, path, "", unix.MS_BIND, "")
}

func pinned(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.NSFS_MAGIC
}

func mountedShm(path string) bool {
	var at, above unix.Stat_t
	return unix.Stat(path, &at) == nil && unix.Stat(filepath.Dir(path), &above) == nil && at.Dev != above.Dev
}

// same tells whether two paths are one file.
func same(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

// unpin unmounts and removes all pins of a sandbox.
func (s *Store) unpin(id string) error {
	dir := s.pinDir(id)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		for {
			// EINVAL: nothing is mounted there (any more).
			if err := unix.Unmount(path, unix.MNT_DETACH); errors.Is(err, unix.EINVAL) {
				break
			} else if err != nil {
				return fmt.Errorf("unmount %s: %w", path, err)
			}
		}
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return os.Remove(dir)
}

// Any user may listen on any port and ping in a namespace of the pod's own, as
// with Docker and containerd's CRI.
var defaultSysctls = map[string]string{
	"net.ipv4.ip_unprivileged_port_start": "0",
	"net.ipv4.ping_group_range":           "0 2147483647",
}

// setSysctls writes those of the namespaces that the thread is in.
func setSysctls(spec container.SandboxSpec) error {
	all := map[string]string{}
	if !spec.HostNetwork {
		maps.Copy(all, defaultSysctls)
	}
	maps.Copy(all, spec.Sysctls)
	for _, key := range slices.Sorted(maps.Keys(all)) {
		if err := namespaced(key, spec); err != nil {
			return err
		}
		path := filepath.Join("/proc/sys", strings.ReplaceAll(key, ".", "/"))
		if err := os.WriteFile(path, []byte(all[key]), 0o644); err != nil {
			return fmt.Errorf("sysctl %s=%s: %w", key, all[key], err)
		}
	}
	return nil
}

// namespaced refuses what would change the machine and not the pod.
func namespaced(key string, spec container.SandboxSpec) error {
	k := strings.ReplaceAll(key, "/", ".")
	ipc := k == "kernel.sem" || strings.HasPrefix(k, "kernel.shm") || strings.HasPrefix(k, "kernel.msg") || strings.HasPrefix(k, "fs.mqueue.")
	switch {
	case strings.Contains(key, ".."):
	case ipc && !spec.HostIPC, strings.HasPrefix(k, "net.") && !spec.HostNetwork:
		return nil
	}
	return fmt.Errorf("sysctl %s would change the machine, not the pod: %w", key, container.ErrInvalid)
}
