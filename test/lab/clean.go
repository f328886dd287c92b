package lab

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// remove ends the host: the agent's own purge, then a look whether it left
// anything. What it left fails the test, and is removed all the same.
func (h *Host) remove() {
	h.t.Helper()
	if h.t.Failed() {
		h.Dump()
	}
	ctx, cancel := within(commandTimeout)
	defer cancel()
	if _, err := os.Stat(h.ns); err == nil {
		c := h.TroupeCommand(ctx, append([]string{"down", "--purge", "--grace", "1s"}, h.dirFlags()...)...)
		if _, err := output(c); err != nil {
			h.t.Errorf("on %s: %v", h.Name, err)
		}
	}
	if left := h.Left(); len(left) > 0 {
		h.t.Errorf("purge left behind on %s:\n  %s", h.Name, strings.Join(left, "\n  "))
	}
	h.force()
}

// Left is what there is of the host's agent beside the lab's own.
func (h *Host) Left() []string {
	var left []string
	for _, p := range h.processes() {
		left = append(left, "process "+p.String())
	}
	for _, m := range mounts(h.Dir) {
		if m != h.ns && m != h.Options.DataDir {
			left = append(left, "mount "+m)
		}
	}
	for _, c := range cgroups(h.Cgroup) {
		left = append(left, "cgroup "+c)
	}
	for _, dir := range []string{h.Data, h.Run} {
		if _, err := os.Stat(dir); err == nil && dir != h.Options.DataDir {
			left = append(left, "directory "+dir)
		}
	}
	ctx, cancel := within(commandTimeout)
	defer cancel()
	for what, args := range map[string][]string{
		"table":   {"nft", "list", "tables"},
		"link":    {"ip", "-o", "link", "show", "type", "veth"},
		"address": {"ip", "-o", "-4", "addr", "show", "dev", "lo", "label", "lo:*"},
		"route":   {"ip", "route", "show"},
	} {
		out, err := output(h.Command(ctx, args[0], args[1:]...))
		if err != nil {
			left = append(left, err.Error())
		}
		for line := range strings.Lines(out) {
			left = append(left, what+" "+strings.TrimSpace(line))
		}
	}
	if c := h.Options.Containerd; c != nil {
		out, err := c.ctr("namespace", "ls", "-q")
		if err != nil {
			left = append(left, err.Error())
		}
		if slices.Contains(strings.Fields(out), h.ID) {
			left = append(left, "containerd namespace "+h.ID)
		}
	}
	slices.Sort(left)
	return left
}

// process is one that belongs to a host.
type process struct {
	pid  int
	argv string
}

func (p process) String() string { return fmt.Sprintf("%d %s", p.pid, p.argv) }

// processes are those whose arguments name the host's directory or namespace,
// or that stand in its cgroup.
func (h *Host) processes() []process {
	inCgroup := map[int]bool{}
	for _, dir := range cgroups(h.Cgroup) {
		for _, pid := range pids(dir) {
			inCgroup[pid] = true
		}
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var out []process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		b, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err != nil || len(b) == 0 {
			continue
		}
		argv := string(bytes.ReplaceAll(bytes.TrimRight(b, "\x00"), []byte{0}, []byte{' '}))
		if inCgroup[pid] || strings.Contains(argv+" ", h.Dir+"/") || strings.Contains(argv+" ", h.ID+" ") {
			out = append(out, process{pid, argv})
		}
	}
	return out
}

// force removes what a purge that failed has left.
func (h *Host) force() {
	for _, p := range h.processes() {
		_ = unix.Kill(p.pid, unix.SIGKILL)
	}
	if h.Options.Containerd != nil {
		for _, kind := range []string{"tasks", "containers", "snapshots", "images", "leases"} {
			out, _ := h.TryCtr(kind, "ls", "-q")
			for name := range strings.FieldsSeq(out) {
				args := []string{kind, "rm", name}
				if kind == "tasks" {
					args = []string{kind, "rm", "-f", name}
				}
				_, _ = h.TryCtr(args...)
			}
		}
		_, _ = h.Options.Containerd.ctr("namespace", "rm", h.ID)
	}
	for _, c := range slices.Backward(cgroups(h.Cgroup)) {
		_ = unix.Rmdir(c)
	}
	removeDir(h.t, h.Dir)
}

// Dump writes to the test's log how things stand on the host.
func (h *Host) Dump() {
	h.t.Helper()
	for _, args := range [][]string{
		{"get", "nodes,rc,pods", "-A", "-o", "wide"},
		{"get", "events", "-A"},
		{"actors"},
	} {
		out, said, _ := h.TryTroupe("", args...)
		h.t.Logf("%s: troupe %s:\n%s%s", h.Name, strings.Join(args, " "), out, said)
	}
	if b, err := os.ReadFile(filepath.Join(h.Data, "trouped.log")); err == nil {
		lines := strings.Split(strings.TrimSpace(string(b)), "\n")
		h.t.Logf("%s: the end of the agent's log:\n%s", h.Name, strings.Join(lines[max(0, len(lines)-60):], "\n"))
	}
}

// mounts are the mount points below dir.
func mounts(dir string) []string {
	found, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		return []string{err.Error()}
	}
	var out []string
	for _, m := range found {
		out = append(out, m.Mountpoint)
	}
	return out
}

// cgroups are the directories of the named cgroup in all hierarchies, parents
// first.
func cgroups(name string) []string {
	var out []string
	for _, pattern := range []string{"/sys/fs/cgroup/" + name, "/sys/fs/cgroup/*/" + name} {
		tops, _ := filepath.Glob(pattern)
		for _, top := range tops {
			_ = filepath.WalkDir(top, func(path string, e os.DirEntry, err error) error {
				if err == nil && e.IsDir() {
					out = append(out, path)
				}
				return nil
			})
		}
	}
	return out
}

// pids are the processes of one cgroup.
func pids(dir string) []int {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return nil
	}
	var out []int
	for f := range strings.FieldsSeq(string(b)) {
		if pid, err := strconv.Atoi(f); err == nil {
			out = append(out, pid)
		}
	}
	return out
}

// removeDir unmounts what stands in dir, then removes it.
func removeDir(t TB, dir string) {
	t.Helper()
	for _, m := range slices.Backward(mounts(dir)) {
		if err := unix.Unmount(m, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", m, err)
			return // what is behind it is not ours to remove
		}
	}
	if len(mounts(dir)) > 0 {
		t.Errorf("%s has mounts that do not go", dir)
		return
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Errorf("%v", err)
	}
}

// Processes are those of the host with that name.
func (h *Host) Processes(name string) []int {
	var out []int
	for _, p := range h.processes() {
		if filepath.Base(strings.Fields(p.argv)[0]) == name {
			out = append(out, p.pid)
		}
	}
	return out
}
