// Package cgroup keeps the control groups of pods: one for each under
// <parent>/<qos>/pod<uid>, the containers' below it. It knows the hierarchies
// of version 1, also beside an unused version 2, and of version 2 alone.
package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/cgroups/v3"
	"github.com/containerd/cgroups/v3/cgroup1"
	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/troupe-sh/troupe/runtime/container"
)

const (
	mountpoint = "/sys/fs/cgroup"
	podPrefix  = "pod"
	bestEffort = "besteffort"
	// removal waits that long for killed processes to leave.
	emptyTimeout = 2 * time.Second
)

// Unified tells whether the machine has version 2 alone.
func Unified() bool { return cgroups.Mode() == cgroups.Unified }

// Path is the group of a pod.
func Path(parent, qos, uid string) string {
	return path.Join("/", parent, strings.ToLower(qos), podPrefix+uid)
}

// hierarchy is version 1's, found once.
var hierarchy = sync.OnceValues(cgroup1.Default)

// Make makes the group, or sets its limits anew.
func Make(group string, r container.Resources) error {
	// What asks for nothing gets what the others leave, also as a whole.
	if parent := path.Dir(group); path.Base(parent) == bestEffort {
		if err := apply(parent, container.Resources{CPUShares: 2}); err != nil {
			return err
		}
	}
	return apply(group, r)
}

func apply(group string, r container.Resources) error {
	res := OCI(r)
	if Unified() {
		if _, err := cgroup2.NewManager(mountpoint, group, cgroup2.ToResources(res)); err != nil {
			return fmt.Errorf("make cgroup %s: %w", group, err)
		}
		return nil
	}
	if _, err := cgroup1.New(cgroup1.StaticPath(group), res, cgroup1.WithHierarchy(hierarchy)); err != nil {
		return fmt.Errorf("make cgroup %s: %w", group, err)
	}
	return nil
}

// OCI is r in the words of the OCI runtime specification.
func OCI(r container.Resources) *specs.LinuxResources {
	out := &specs.LinuxResources{CPU: &specs.LinuxCPU{}, Memory: &specs.LinuxMemory{}}
	if r.CPUShares > 0 {
		out.CPU.Shares = &r.CPUShares
	}
	if r.CPUQuota != 0 {
		period := r.CPUPeriod
		if period == 0 {
			period = 100_000
		}
		out.CPU.Quota, out.CPU.Period = &r.CPUQuota, &period
	}
	if r.Memory > 0 {
		out.Memory.Limit = &r.Memory
	}
	if r.MemoryReserved > 0 {
		out.Memory.Reservation = &r.MemoryReserved
	}
	if r.PIDs > 0 {
		out.Pids = &specs.LinuxPids{Limit: &r.PIDs}
	}
	for size, limit := range r.HugePages {
		out.HugepageLimits = append(out.HugepageLimits, specs.LinuxHugepageLimit{Pagesize: size, Limit: uint64(limit)})
	}
	slices.SortFunc(out.HugepageLimits, func(a, b specs.LinuxHugepageLimit) int { return strings.Compare(a.Pagesize, b.Pagesize) })
	return out
}

// Exists tells whether the group is there, with its limit of memory.
func Exists(group string) bool {
	root := mountpoint
	if !Unified() {
		root = filepath.Join(mountpoint, "memory")
	}
	_, err := os.Stat(filepath.Join(root, group))
	return err == nil
}

// Busy tells whether a process is in the group or below it.
func Busy(group string) bool {
	root := mountpoint
	if !Unified() {
		root = filepath.Join(mountpoint, "memory")
	}
	busy := false
	// What goes while it is looked at has no process.
	_ = filepath.WalkDir(filepath.Join(root, group), func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Name() == "cgroup.procs" {
			b, _ := os.ReadFile(path)
			busy = busy || len(b) > 0
		}
		return nil
	})
	return busy
}

// roots are the directories that a group may stand in.
func roots() ([]string, error) {
	if Unified() {
		return []string{mountpoint}, nil
	}
	entries, err := os.ReadDir(mountpoint)
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, e := range entries {
		if e.IsDir() { // cpu,cpuacct has its aliases as symbolic links
			dirs = append(dirs, filepath.Join(mountpoint, e.Name()))
		}
	}
	return dirs, nil
}

// Remove removes the group with all below it, and kills what still runs there.
// One that is not there is no error.
func Remove(group string) error {
	dirs, err := roots()
	if err != nil {
		return fmt.Errorf("remove cgroup %s: %w", group, err)
	}
	deadline := time.Now().Add(emptyTimeout)
	for _, root := range dirs {
		for {
			err := removeTree(filepath.Join(root, group))
			if err == nil {
				break
			}
			if !errors.Is(err, syscall.EBUSY) || time.Now().After(deadline) {
				return fmt.Errorf("remove cgroup %s: %w", group, err)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	return nil
}

// removeTree removes a group's directories, innermost first.
func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	err = syscall.Rmdir(dir)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	procs, readErr := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if readErr != nil && !errors.Is(readErr, fs.ErrNotExist) {
		return readErr
	}
	for _, f := range bytes.Fields(procs) {
		if pid, err := strconv.Atoi(string(f)); err == nil && pid > 0 {
			_ = syscall.Kill(pid, syscall.SIGKILL) // gone already: just as well
		}
	}
	return &fs.PathError{Op: "rmdir", Path: dir, Err: err}
}

// Pods lists the groups of pods under parent by the pods' UIDs.
func Pods(parent string) (map[string]string, error) {
	dirs, err := roots()
	if err != nil {
		return nil, fmt.Errorf("list cgroups under %s: %w", parent, err)
	}
	found := map[string]string{}
	for _, root := range dirs {
		matches, err := filepath.Glob(filepath.Join(root, parent, "*", podPrefix+"*"))
		if err != nil {
			return nil, fmt.Errorf("list cgroups under %s: %w", parent, err)
		}
		for _, m := range matches {
			found[strings.TrimPrefix(filepath.Base(m), podPrefix)] = strings.TrimPrefix(m, root)
		}
	}
	return found, nil
}

// Use is what a group has used: CPU since it was made, memory now, without
// what the kernel would give back at once.
type Use struct {
	CPU    time.Duration
	Memory int64
}

// Usage reads a group's use; that of / is the whole machine's. fs.ErrNotExist:
// there is no such group.
func Usage(group string) (Use, error) { return usage(mountpoint, Unified(), group) }

func usage(root string, unified bool, group string) (Use, error) {
	if !unified {
		cpu, err := number(filepath.Join(root, "cpuacct", group, "cpuacct.usage"))
		if err != nil {
			return Use{}, err
		}
		memory, err := workingSet(filepath.Join(root, "memory", group), "memory.usage_in_bytes", "total_inactive_file")
		return Use{CPU: time.Duration(cpu), Memory: memory}, err
	}
	dir := filepath.Join(root, group)
	cpu, err := keyed(filepath.Join(dir, "cpu.stat"), "usage_usec")
	if err != nil {
		return Use{}, err
	}
	memory, err := workingSet(dir, "memory.current", "inactive_file")
	if errors.Is(err, fs.ErrNotExist) && path.Clean("/"+group) == "/" { // the root has no such file
		memory, err = workingSetOfAll(meminfo)
	}
	return Use{CPU: time.Duration(cpu) * time.Microsecond, Memory: memory}, err
}

const meminfo = "/proc/meminfo"

// workingSetOfAll is the machine's.
func workingSetOfAll(file string) (int64, error) {
	var kib [3]int64
	for i, key := range []string{"MemTotal:", "MemFree:", "Inactive(file):"} {
		n, err := keyed(file, key)
		if err != nil {
			return 0, err
		}
		kib[i] = n
	}
	return max(0, kib[0]-kib[1]-kib[2]) << 10, nil
}

func workingSet(dir, used, inactive string) (int64, error) {
	all, err := number(filepath.Join(dir, used))
	if err != nil {
		return 0, err
	}
	idle, err := keyed(filepath.Join(dir, "memory.stat"), inactive)
	if err != nil {
		return 0, err
	}
	return max(0, all-idle), nil
}

// OOMKills counts the processes of a group that the kernel killed for memory.
func OOMKills(group string) (int64, error) {
	if Unified() {
		return keyed(filepath.Join(mountpoint, group, "memory.events"), "oom_kill")
	}
	return keyed(filepath.Join(mountpoint, "memory", group, "memory.oom_control"), "oom_kill")
}

func number(file string) (int64, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(raw)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", file, err)
	}
	return n, nil
}

// keyed is the number after a key, a line each.
func keyed(file, key string) (int64, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(raw)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == key { // a unit may follow
			n, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				return 0, fmt.Errorf("%s: %s: %w", file, key, err)
			}
			return n, nil
		}
	}
	return 0, fmt.Errorf("%s: no %s", file, key)
}
