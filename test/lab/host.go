package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// commandTimeout ends a command of a test that hangs.
const commandTimeout = 2 * time.Minute

// Options of a host.
type Options struct {
	Name       string      // of the node; empty: made up
	Containerd *Containerd // shared; nil: the agent runs its own
	Flags      []string    // further ones of "troupe up"
	Restart    bool        // by the keeper, of an agent that is killed; else Up does it
	DataDir    string      // if not the host's own
}

// Host is one machine of the lab.
type Host struct {
	t       TB
	Options Options
	Name    string
	Dir     string // everything that is the host's own stands below
	Data    string
	Run     string
	Socket  string
	Cgroup  string // under which its pods' stand
	ID      string // its containerd namespace
	ns      string // its network namespace, pinned
	bootID  string // a file with the boot id of this boot; empty: the machine's own
}

// NewHost makes a host without an agent. It goes when the test ends, and the
// test fails if something of it stays.
func NewHost(t TB, o Options) *Host {
	t.Helper()
	needs(t)
	id := unique("lab")
	h := &Host{t: t, Options: o, Name: o.Name, Dir: shortDir(t), ID: id, Cgroup: id}
	if h.Name == "" {
		h.Name = id
	}
	h.Data, h.Run, h.ns = filepath.Join(h.Dir, "data"), filepath.Join(h.Dir, "run"), filepath.Join(h.Dir, "netns")
	if o.DataDir != "" {
		h.Data = o.DataDir
	}
	h.Socket = filepath.Join(h.Run, "troupe.sock")
	t.Cleanup(h.remove)
	if err := makeNetwork(h.ns); err != nil {
		t.Fatalf("network namespace of %s: %v", h.Name, err)
	}
	return h
}

// Start makes a host and brings its agent up.
func Start(t TB, o Options) *Host {
	t.Helper()
	h := NewHost(t, o)
	h.Up()
	return h
}

// For is the host for another test, a part of the one that made it.
func (h *Host) For(t TB) *Host {
	part := *h
	part.t = t
	return &part
}

// makeNetwork makes a network namespace with lo up and pins it at path.
func makeNetwork(path string) error {
	if err := os.WriteFile(path, nil, 0o444); err != nil {
		return err
	}
	failed := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its namespace
		failed <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return err
			}
			lo, err := netlink.LinkByName("lo")
			if err != nil {
				return err
			}
			if err := netlink.LinkSetUp(lo); err != nil {
				return err
			}
			return unix.Mount(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()), path, "", unix.MS_BIND, "")
		}()
	}()
	return <-failed
}

// In runs f in the host's network namespace.
func (h *Host) In(f func() error) error {
	failed := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked, as above
		ns, err := netns.GetFromPath(h.ns)
		if err != nil {
			failed <- err
			return
		}
		defer ns.Close()
		if err := netns.Set(ns); err != nil {
			failed <- err
			return
		}
		failed <- f()
	}()
	return <-failed
}

// Dial connects from the host.
func (h *Host) Dial(ctx context.Context, network, address string) (c net.Conn, err error) {
	err = h.In(func() (err error) {
		var d net.Dialer
		c, err = d.DialContext(ctx, network, address)
		return err
	})
	return c, err
}

// HTTP is a client that asks from the host.
func (h *Host) HTTP() *http.Client {
	return &http.Client{
		Timeout:   10 * time.Second,
		Transport: &http.Transport{DialContext: h.Dial, DisableKeepAlives: true},
	}
}

// Command is a command on the host.
func (h *Host) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	line := []string{"--net=" + h.ns, "--"}
	if h.bootID != "" { // seen by this command and what it starts, by nobody else
		line = append(line, "unshare", "--mount", "--", "sh", "-ec", `mount --bind "$0" /proc/sys/kernel/random/boot_id; exec "$@"`, h.bootID)
	}
	return exec.CommandContext(ctx, "nsenter", append(append(line, name), args...)...)
}

// Exec runs a command on the host and returns what it printed.
func (h *Host) Exec(name string, args ...string) string {
	h.t.Helper()
	ctx, cancel := within(commandTimeout)
	defer cancel()
	out, err := output(h.Command(ctx, name, args...))
	if err != nil {
		h.t.Fatalf("on %s: %v", h.Name, err)
	}
	return out
}

// dirFlags lead a command to the host's agent.
func (h *Host) dirFlags() []string {
	return []string{"--data-dir", h.Data, "--run-dir", h.Run}
}

// TroupeCommand is the command line on the host, to be started by the caller.
func (h *Host) TroupeCommand(ctx context.Context, args ...string) *exec.Cmd {
	h.t.Helper()
	c := h.Command(ctx, program(h.t, "troupe"), args...)
	c.Env = append(os.Environ(), "TROUPE_SOCKET="+h.Socket)
	return c
}

// TryTroupe runs the command line on the host: what it printed, what it said
// on standard error and its exit code.
func (h *Host) TryTroupe(stdin string, args ...string) (out, said string, code int) {
	h.t.Helper()
	ctx, cancel := within(commandTimeout)
	defer cancel()
	c := h.TroupeCommand(ctx, args...)
	var o, e strings.Builder
	c.Stdin, c.Stdout, c.Stderr = strings.NewReader(stdin), &o, &e
	err := c.Run()
	return o.String(), e.String(), exitCode(err)
}

// Troupe runs the command line on the host and returns what it printed.
func (h *Host) Troupe(args ...string) string {
	h.t.Helper()
	return h.TroupeIn("", args...)
}

// TroupeIn is Troupe with something on standard input.
func (h *Host) TroupeIn(stdin string, args ...string) string {
	h.t.Helper()
	out, said, code := h.TryTroupe(stdin, args...)
	if code != 0 {
		h.t.Fatalf("troupe %s on %s: exit code %d: %s%s", strings.Join(args, " "), h.Name, code, out, said)
	}
	return out
}

// Up starts the agent, also again, and returns when the node is Ready.
func (h *Host) Up() {
	h.t.Helper()
	args := append([]string{
		"up", "--detach", "--name", h.Name,
		"--containerd-namespace", h.ID, "--cgroup-parent", h.Cgroup, fmt.Sprintf("--restart=%t", h.Options.Restart),
	}, h.dirFlags()...)
	if h.Options.Containerd != nil {
		args = append(args, "--containerd", h.Options.Containerd.Address)
	}
	h.Troupe(append(args, h.Options.Flags...)...)
}

// Down stops the agent and its pods.
func (h *Host) Down(flags ...string) {
	h.t.Helper()
	h.Troupe(append(append([]string{"down"}, h.dirFlags()...), flags...)...)
}

// PID is the agent's process.
func (h *Host) PID() int {
	h.t.Helper()
	b, err := os.ReadFile(filepath.Join(h.Run, "troupe.pid"))
	if err != nil {
		h.t.Fatalf("agent of %s: %v", h.Name, err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		h.t.Fatalf("agent of %s: %v", h.Name, err)
	}
	return pid
}

// Kill ends the agent with SIGKILL and returns when it is gone.
func (h *Host) Kill() {
	h.t.Helper()
	kill(h.t, h.PID())
}

func kill(t TB, pid int) {
	t.Helper()
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatalf("kill process %d: %v", pid, err)
	}
	Eventually(t, 10*time.Second, fmt.Sprintf("process %d is gone", pid), func() error {
		if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && len(b) > 0 {
			return fmt.Errorf("it is there: %s", strings.ReplaceAll(string(b), "\x00", " "))
		}
		return nil
	})
}

// LoadImages gives the agent images.
func (h *Host) LoadImages(names ...string) {
	h.t.Helper()
	args := []string{"image", "load"}
	for _, n := range names {
		args = append(args, Image(h.t, n))
	}
	h.Troupe(args...)
}

// Config leads a client to the agent.
func (h *Host) Config() *rest.Config {
	return &rest.Config{
		Host: "http://troupe",
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", h.Socket)
		},
		QPS: -1,
	}
}

// Client is Kubernetes' own client of the agent.
func (h *Host) Client() *kubernetes.Clientset {
	h.t.Helper()
	c, err := kubernetes.NewForConfig(h.Config())
	if err != nil {
		h.t.Fatalf("%v", err)
	}
	return c
}

// Ctr runs ctr in the agent's containerd namespace.
func (h *Host) Ctr(args ...string) string {
	h.t.Helper()
	out, err := h.TryCtr(args...)
	if err != nil {
		h.t.Fatalf("%v", err)
	}
	return out
}

// TryCtr is Ctr that may fail.
func (h *Host) TryCtr(args ...string) (string, error) {
	ctx, cancel := within(commandTimeout)
	defer cancel()
	return output(exec.CommandContext(ctx, "ctr", append([]string{"--address", h.containerd(), "--namespace", h.ID}, args...)...))
}

// containerd is the address of the daemon that the agent uses.
func (h *Host) containerd() string {
	h.t.Helper()
	if h.Options.Containerd != nil {
		return h.Options.Containerd.Address
	}
	b, err := os.ReadFile(filepath.Join(h.Data, "agent.json"))
	if err != nil {
		h.t.Fatalf("settings of %s: %v", h.Name, err)
	}
	var s struct{ Containerd string }
	if err := json.Unmarshal(b, &s); err != nil {
		h.t.Fatalf("settings of %s: %v", h.Name, err)
	}
	return s.Containerd
}

// KillContainerd ends the agent's own containerd with SIGKILL.
func (h *Host) KillContainerd() {
	h.t.Helper()
	for _, pid := range h.Processes("containerd") {
		kill(h.t, pid)
		return
	}
	h.t.Fatalf("%s runs no containerd of its own", h.Name)
}

// Reboot does to the host what switching it off and on does: every process
// ends at once, what stands in memory is gone, and the next boot has an id of
// its own. The agent is not started. A host that reboots runs its own
// containerd, which sees the mounts of the agent that starts it.
func (h *Host) Reboot() {
	h.t.Helper()
	for all := h.processes(); len(all) > 0; all = h.processes() {
		for _, p := range all {
			_ = unix.Kill(p.pid, unix.SIGKILL)
		}
	}
	for _, m := range slices.Backward(mounts(h.Dir)) {
		if m == h.ns || m == h.Options.DataDir {
			continue
		}
		if err := unix.Unmount(m, unix.MNT_DETACH); err != nil {
			h.t.Fatalf("unmount %s: %v", m, err)
		}
	}
	if len(mounts(h.Run)) > 0 {
		h.t.Fatalf("%s has mounts that do not go", h.Run)
	}
	if err := os.RemoveAll(h.Run); err != nil {
		h.t.Fatalf("%v", err)
	}
	for _, c := range slices.Backward(cgroups(h.Cgroup)) {
		if err := unix.Rmdir(c); err != nil {
			h.t.Fatalf("cgroup %s: %v", c, err)
		}
	}
	if err := unix.Unmount(h.ns, unix.MNT_DETACH); err != nil {
		h.t.Fatalf("%v", err)
	}
	if err := makeNetwork(h.ns); err != nil {
		h.t.Fatalf("%v", err)
	}
	h.bootID = filepath.Join(h.Dir, "boot_id")
	if err := os.WriteFile(h.bootID, []byte(uuid.NewString()+"\n"), 0o444); err != nil {
		h.t.Fatalf("%v", err)
	}
}
