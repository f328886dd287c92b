package ctrd_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/container/suite"
	"github.com/troupe-sh/troupe/runtime/ctrd"
)

// bound is how long anything may take before it counts as never.
const bound = 30 * time.Second

func box(id string) container.SandboxSpec {
	return container.SandboxSpec{
		ID: id, Pod: container.Pod{Namespace: "default", Name: "pod-" + id, UID: id}, Hostname: "host-" + id, QOS: "Burstable",
	}
}

func (m *machine) sandbox(t testing.TB, spec container.SandboxSpec) container.Sandbox {
	t.Helper()
	sb, err := m.RunSandbox(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	return sb
}

func (m *machine) spec(sandbox, id string, script string) container.Spec {
	return container.Spec{
		ID: id, Sandbox: sandbox, Pod: box(sandbox).Pod, Name: "main", Image: image,
		Command: []string{"/bin/sh", "-c", script},
		LogPath: filepath.Join(m.config.DataDir, "logs", id+".log"),
	}
}

func (m *machine) start(t testing.TB, s container.Spec) {
	t.Helper()
	if err := m.Create(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if err := m.Start(t.Context(), s.ID); err != nil {
		t.Fatal(err)
	}
}

// ended waits for a container's end.
func (m *machine) ended(t testing.TB, id string) container.Container {
	t.Helper()
	var c container.Container
	eventually(t, "end of "+id, func() bool {
		var err error
		if c, err = m.Container(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		return c.State == container.Exited
	})
	return c
}

func eventually(t testing.TB, what string, true_ func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(bound); !true_(); {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("never: %s", what)
		}
	}
}

// output runs a container to its end and returns what it printed.
func (m *machine) output(t testing.TB, s container.Spec) string {
	t.Helper()
	m.start(t, s)
	if c := m.ended(t, s.ID); c.ExitCode != 0 {
		t.Errorf("%s ended with %d: %s", s.ID, c.ExitCode, m.logs.of(s.ID))
	}
	// The shim copies to the end before the task counts as ended; our reader may lag.
	if err := m.Remove(t.Context(), s.ID); err != nil {
		t.Fatal(err)
	}
	return m.logs.of(s.ID)
}

func TestWhatAContainerSees(t *testing.T) {
	m := fresh(t)
	sb := m.sandbox(t, box("p1"))
	host := t.TempDir()
	if err := os.WriteFile(host+"/file", []byte("from the machine\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	profiles := filepath.Join(m.config.DataDir, "seccomp", "team")
	if err := os.MkdirAll(profiles, 0o755); err != nil {
		t.Fatal(err)
	}
	profile := `{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["chmod", "fchmod", "fchmodat", "fchmodat2"], "action": "SCMP_ACT_ERRNO"}]}`
	if err := os.WriteFile(filepath.Join(profiles, "nochmod.json"), []byte(profile), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		script string
		change func(*container.Spec)
		want   string
	}{
		{"the image's command", "", func(s *container.Spec) { s.Command = nil }, "command of the image\n"},
		{"arguments for the image's entry point", "", func(s *container.Spec) { s.Command, s.Args = nil, []string{"-c", "echo args"} }, "args\n"},
		{"environment", "echo $FROM $BOTH $MINE $HOSTNAME", func(s *container.Spec) { s.Env = []string{"BOTH=container", "MINE=1"} }, "image container 1 host-p1\n"},
		{"working directory of the image", "pwd", nil, "/home\n"},
		{"working directory", "pwd", func(s *container.Spec) { s.WorkingDir = "/tmp" }, "/tmp\n"},
		{"root by default", "id -u; id -g; id -G", nil, "0\n0\n0\n"},
		{"a user by name", "id -u; id -g; id -G; echo $HOME", func(s *container.Spec) { s.Security.User = "app" }, "1000\n1001\n1001 2002\n/home/app\n"},
		{"a user by number", "id -u; id -g", func(s *container.Spec) { s.Security.User = "1000" }, "1000\n1001\n"},
		{"a user that the image lacks", "id -u; id -g", func(s *container.Spec) { s.Security.User = "7:8" }, "7\n8\n"},
		{"groups", "id -u; id -g; id -G", func(s *container.Spec) {
			g := int64(50)
			s.Security.RunAsGroup, s.Security.Groups = &g, []int64{60}
		}, "0\n50\n50 60\n"},
		{"default capabilities", "grep CapEff /proc/self/status", nil, "CapEff:\t00000000a80425fb\n"},
		{"fewer capabilities", "grep CapEff /proc/self/status", func(s *container.Spec) {
			s.Security.DropCaps, s.Security.AddCaps = []string{"ALL"}, []string{"NET_BIND_SERVICE"}
		}, "CapEff:\t0000000000000400\n"},
		{"no new privileges", "grep NoNewPrivs /proc/self/status", func(s *container.Spec) { s.Security.NoNewPrivs = true }, "NoNewPrivs:\t1\n"},
		{"seccomp by default", "grep ^Seccomp: /proc/self/status", nil, "Seccomp:\t2\n"},
		{"no seccomp", "grep ^Seccomp: /proc/self/status", func(s *container.Spec) { s.Security.Seccomp = "Unconfined" }, "Seccomp:\t0\n"},
		{"seccomp by a profile of the machine", "grep ^Seccomp: /proc/self/status; chmod 600 /tmp 2>/dev/null || echo no", func(s *container.Spec) {
			s.Security.Seccomp = "localhost/team/nochmod.json"
		}, "Seccomp:\t2\nno\n"},
		{"masked paths", "touch /proc/sys/x 2>/dev/null || echo no", func(s *container.Spec) { s.Security.MaskedPaths = true }, "no\n"},
		{"a root that cannot be written", "touch /x 2>/dev/null || echo no", func(s *container.Spec) { s.Security.ReadOnlyRoot = true }, "no\n"},
		{"its own process IDs", "echo $$", nil, "1\n"},
		{"files of the pod", "cat /etc/hostname; hostname; grep -c host-p1 /etc/hosts; test -f /etc/resolv.conf && echo yes", nil, "host-p1\nhost-p1\n1\nyes\n"},
		{"address of the pod", "ip -4 -o addr show eth0 | awk '{print $4}'", nil, sb.Addr.String() + "/32\n"},
		{"a mount", "cat /mnt/file; echo x >/mnt/new; touch /ro/x 2>/dev/null || echo no", func(s *container.Spec) {
			s.Mounts = []container.Mount{{HostPath: host, ContainerPath: "/mnt"}, {HostPath: host, ContainerPath: "/ro", ReadOnly: true}}
		}, "from the machine\nno\n"},
		{"mounts inside each other in any order", "ls /a /a/b", func(s *container.Spec) {
			s.Mounts = []container.Mount{{HostPath: host, ContainerPath: "/a/b"}, {HostPath: host, ContainerPath: "/a", ReadOnly: false}}
			if err := os.MkdirAll(host+"/b", 0o755); err != nil {
				t.Fatal(err)
			}
		}, "/a:\nb\nfile\nnew\n\n/a/b:\nb\nfile\nnew\n"},
		{"a mount instead of the pod's hosts", "cat /etc/hosts", func(s *container.Spec) {
			s.Mounts = []container.Mount{{HostPath: host + "/file", ContainerPath: "/etc/hosts"}}
		}, "from the machine\n"},
		{"a terminal", "tty; echo err >&2", func(s *container.Spec) { s.TTY = true }, "/dev/pts/0\r\nerr\r\n"},
		{"both streams", "echo out; echo err >&2", nil, "out\nerr\n"},
		{"a device", "test -c /dev/fuse && echo yes; test -c /dev/null && echo yes", func(s *container.Spec) { s.Devices = []string{"/dev/fuse"} }, "yes\nyes\n"},
		{"privileges", "grep ^Seccomp: /proc/self/status; touch /sys/x 2>&1 | grep -c Read-only", func(s *container.Spec) { s.Security.Privileged = true }, "Seccomp:\t0\n0\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := m.spec("p1", strings.ReplaceAll(strings.ReplaceAll(c.name, " ", "-"), "'", ""), c.script)
			if c.name == "privileges" {
				s.Command[2] += "; true"
			}
			if c.change != nil {
				c.change(&s)
			}
			if got := m.output(t, s); got != c.want && !(c.name == "both streams" && got == "err\nout\n") {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
	for _, c := range []struct {
		name   string
		change func(*container.Spec)
		says   string
	}{
		{"unknown-user", func(s *container.Spec) { s.Security.User = "nobody-knows" }, "nobody-knows"},
		{"root-refused", func(s *container.Spec) { s.Security.RunAsNonRoot = true }, "runAsNonRoot"},
		{"unknown-capability", func(s *container.Spec) { s.Security.AddCaps = []string{"FLY"} }, "FLY"},
		{"unknown-profile", func(s *container.Spec) { s.Security.Seccomp = "x" }, `"x"`},
		{"no-such-profile", func(s *container.Spec) { s.Security.Seccomp = "localhost/none.json" }, m.config.DataDir + "/seccomp/none.json"},
		{"profile-elsewhere", func(s *container.Spec) { s.Security.Seccomp = "localhost/../x.json" }, `"../x.json"`},
		{"absolute-profile", func(s *container.Spec) { s.Security.Seccomp = "localhost//etc/x.json" }, `"/etc/x.json"`},
		{"relative-mount", func(s *container.Spec) {
			s.Mounts = []container.Mount{{HostPath: "rel", ContainerPath: "/x"}}
		}, "rel"},
		{"no/id", func(s *container.Spec) { s.ID = "a/../b" }, "a/../b"},
	} {
		s := m.spec("p1", c.name, "true")
		c.change(&s)
		if err := m.Create(t.Context(), s); !errors.Is(err, container.ErrInvalid) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestContainersOfAPodShareEverything(t *testing.T) {
	m := fresh(t)
	m.sandbox(t, box("p1"))
	first := m.spec("p1", "c1", "echo shared >/dev/shm/x; nc -l -p 80 -e echo hello; sleep 1000")
	m.start(t, first)
	var wg sync.WaitGroup
	for _, id := range []string{"c2", "c3"} {
		wg.Go(func() { m.start(t, m.spec("p1", id, "sleep 1000")) })
	}
	wg.Wait()
	shims, err := exec.Command("pgrep", "-f", "containerd-shim-runc-v2 -namespace "+m.config.Namespace+" ").Output()
	if err != nil || bytes.Count(shims, []byte("\n")) != 1 {
		t.Errorf("shims of one pod: %q, %v", shims, err)
	}
	var out bytes.Buffer
	eventually(t, "c1's file and port seen in c2", func() bool {
		out.Reset()
		code, err := m.Exec(t.Context(), "c2", container.ExecSpec{
			Command: []string{"sh", "-c", "cat /dev/shm/x && nc 127.0.0.1 80"}, Stdout: &out,
		})
		if err != nil {
			t.Fatal(err)
		}
		return code == 0
	})
	if out.String() != "shared\nhello\n" {
		t.Errorf("seen in c2: %q", &out)
	}
	ns := func(id, kind string) string {
		c, err := m.Container(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		link, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", c.PID, kind))
		if err != nil {
			t.Fatal(err)
		}
		return link
	}
	for _, kind := range []string{"net", "ipc", "uts"} {
		if ns("c1", kind) != ns("c2", kind) {
			t.Errorf("two %s namespaces", kind)
		}
	}
	if ns("c1", "pid") == ns("c2", "pid") {
		t.Error("one process namespace")
	}
}

func TestMemoryLimit(t *testing.T) {
	m := fresh(t)
	m.sandbox(t, box("p1"))
	oom := make(chan string, 10)
	defer m.Subscribe(func(e container.Event) {
		if e.Kind == container.ContainerOOM {
			oom <- e.ContainerID
		}
	})()
	s := m.spec("p1", "c1", "x=a; while :; do x=$x$x; done")
	s.Resources.Memory = 20 << 20
	m.start(t, s)
	if c := m.ended(t, "c1"); !c.OOMKilled || c.ExitCode != 137 {
		t.Errorf("%+v", c)
	}
	select {
	case id := <-oom:
		if id != "c1" {
			t.Errorf("OOM of %s", id)
		}
	case <-time.After(bound):
		t.Error("no OOM event")
	}
}

func TestProcessLimitOfThePod(t *testing.T) {
	m := fresh(t)
	spec := box("p1")
	spec.Resources.PIDs = 20
	m.sandbox(t, spec)
	m.start(t, m.spec("p1", "c1", "for i in $(seq 50); do sleep 1000 & done; wait"))
	eventually(t, "the limit is hit", func() bool { return strings.Contains(m.logs.of("c1"), "can't fork") })
}

func TestTerminationMessage(t *testing.T) {
	m := fresh(t)
	m.sandbox(t, box("p1"))
	s := m.spec("p1", "c1", "echo goodbye >/dev/termination-log; exit 1")
	s.TerminationMessagePath = "/dev/termination-log"
	s.Security.User = "app"
	m.start(t, s)
	c := m.ended(t, "c1")
	raw, err := os.ReadFile(c.TerminationMessagePath)
	if err != nil || string(raw) != "goodbye\n" {
		t.Errorf("message %q, %v", raw, err)
	}
	if c.StopSignal != syscall.SIGQUIT {
		t.Errorf("stop signal %v, not the image's", c.StopSignal)
	}
}

func TestStdin(t *testing.T) {
	m := fresh(t)
	m.sandbox(t, box("p1"))
	s := m.spec("p1", "c1", "cat; echo end")
	s.Stdin = true
	m.start(t, s)
	for _, text := range []string{"one\n", "two\n"} {
		in, err := m.Stdin(t.Context(), "c1")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(in, text); err != nil {
			t.Fatal(err)
		}
		in.Close()
		eventually(t, text, func() bool { return strings.HasSuffix(m.logs.of("c1"), text) })
	}
	if err := m.CloseStdin(t.Context(), "c1"); err != nil {
		t.Fatal(err)
	}
	m.ended(t, "c1")
	eventually(t, "its last line", func() bool { return m.logs.of("c1") == "one\ntwo\nend\n" })
}

func TestDial(t *testing.T) {
	m := fresh(t)
	m.sandbox(t, box("p1"))
	m.start(t, m.spec("p1", "c1", "exec httpd -f -p 127.0.0.1:80 -h /etc"))
	var conn net.Conn
	eventually(t, "somebody listens in the sandbox alone", func() (ok bool) {
		var err error
		conn, err = m.Dial(t.Context(), "p1", 80)
		return err == nil
	})
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET /group HTTP/1.0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if page, err := io.ReadAll(conn); err != nil || !strings.Contains(string(page), "extra:x:2002:app") {
		t.Errorf("%q, %v", page, err)
	}
}

func TestTerminalIsResized(t *testing.T) {
	m := fresh(t)
	m.sandbox(t, box("p1"))
	s := m.spec("p1", "c1", "while :; do stty size; sleep 0.05; done")
	s.TTY = true
	m.start(t, s)
	if err := m.Resize(t.Context(), "c1", container.Size{Width: 81, Height: 26}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the container sees its size", func() bool { return strings.Contains(m.logs.of("c1"), "26 81\r\n") })

	sizes := make(chan container.Size, 1)
	sizes <- container.Size{Width: 100, Height: 33}
	var out bytes.Buffer
	code, err := m.Exec(t.Context(), "c1", container.ExecSpec{
		Command: []string{"sh", "-c", "until test \"$(stty size 2>/dev/null)\" = '33 100'; do sleep 0.01; done; echo seen"},
		TTY:     true, Stdout: &out, Resize: sizes,
	})
	if err != nil || code != 0 || out.String() != "seen\r\n" {
		t.Errorf("exec with a terminal: %d, %q, %v", code, &out, err)
	}
}

func TestExecIsKilledWithItsContext(t *testing.T) {
	m := fresh(t)
	m.sandbox(t, box("p1"))
	m.start(t, m.spec("p1", "c1", "sleep 1000"))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := m.Exec(ctx, "c1", container.ExecSpec{Command: []string{"sh", "-c", "trap '' TERM; while :; do sleep 777; done"}})
		done <- err
	}()
	runs := func() bool {
		var out bytes.Buffer
		if _, err := m.Exec(t.Context(), "c1", container.ExecSpec{Command: []string{"ps"}, Stdout: &out}); err != nil {
			t.Fatal(err)
		}
		return strings.Contains(out.String(), "trap ''")
	}
	eventually(t, "the process runs", runs)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("exec: %v", err)
	}
	eventually(t, "the process is gone", func() bool { return !runs() })
	if left, err := os.ReadDir(filepath.Join(m.config.RunDir, "io/c1")); err != nil || len(left) != 2 {
		t.Errorf("FIFOs left: %v, %v", left, err)
	}
}

func TestRebootShowsAsExitedUnknown(t *testing.T) {
	m := fresh(t)
	m.sandbox(t, box("p1"))
	m.start(t, m.spec("p1", "ran", "sleep 1000"))
	m.start(t, m.spec("p1", "done", "exit 4"))
	if err := m.Create(t.Context(), m.spec("p1", "fresh", "true")); err != nil {
		t.Fatal(err)
	}
	m.ended(t, "done")
	// What a reboot does: no process, no task, nothing under the run directory.
	for _, id := range []string{"ran", "done"} {
		for _, args := range [][]string{{"tasks", "kill", "-s", "SIGKILL", id}, {"tasks", "delete", "-f", id}} {
			_ = exec.Command("ctr", append([]string{"-a", m.config.Address, "-n", m.config.Namespace}, args...)...).Run()
		}
	}
	eventually(t, "the task is gone", func() bool {
		out, err := exec.Command("ctr", "-a", m.config.Address, "-n", m.config.Namespace, "tasks", "ls", "-q").Output()
		return err == nil && len(out) == 0
	})
	if err := m.Runtime.Close(); err != nil {
		t.Fatal(err)
	}
	// The exit that ctr caused was written down; a reboot would not have told.
	if err := os.Remove(filepath.Join(m.config.DataDir, "pods/p1/containers/ran/exit.json")); err != nil {
		t.Fatal(err)
	}
	for _, pin := range []string{"net", "ipc", "uts", "shm"} {
		if err := unix.Unmount(filepath.Join(m.config.RunDir, "netns/p1", pin), unix.MNT_DETACH); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.RemoveAll(m.config.RunDir); err != nil {
		t.Fatal(err)
	}
	m.Runtime = m.connect(t)
	if err := m.Configure(t.Context(), suite.Network); err != nil {
		t.Fatal(err)
	}
	all, err := m.Containers(t.Context())
	if err != nil || len(all) != 3 {
		t.Fatalf("%+v, %v", all, err)
	}
	for i, want := range []container.Container{
		{ID: "done", State: container.Exited, ExitKnown: true, ExitCode: 4},
		{ID: "fresh", State: container.Created},
		{ID: "ran", State: container.Exited},
	} {
		if c := all[i]; c.ID != want.ID || c.State != want.State || c.ExitKnown != want.ExitKnown || c.ExitCode != want.ExitCode {
			t.Errorf("%+v, want %+v", c, want)
		}
	}
	m.sandbox(t, box("p1"))
	m.start(t, m.spec("p1", "next", "sleep 1000"))
	if err := m.Start(t.Context(), "ran"); !errors.Is(err, container.ErrNotReady) {
		t.Errorf("start of what ran before the reboot: %v", err)
	}
	if err := m.Start(t.Context(), "fresh"); err != nil {
		t.Errorf("start of what was only created: %v", err)
	}
}

func TestContainerdKilledAndStarted(t *testing.T) {
	// A containerd of its own: the others go on with theirs.
	dir := filepath.Join(base, "own")
	private := ctrd.PrivateConfig{RunDir: filepath.Join(dir, "run"), DataDir: filepath.Join(dir, "data"), Log: fresh(t).config.Log}
	d, err := ctrd.Private(t.Context(), private)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := ctrd.Private(t.Context(), private); err != nil || again.PID != d.PID {
		t.Fatalf("not taken over: %+v, %v", again, err)
	}
	m := &machine{logs: newReader(t)}
	m.config = ctrd.Config{
		Address: d.Address, RunDir: private.RunDir, DataDir: private.DataDir, CgroupParent: suite.CgroupParent(), Logs: m.logs, Log: private.Log,
	}
	m.Runtime = m.connect(t)
	defer func() {
		m.wipe(t)
		if err := d.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	archive, err := busybox()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Import(t.Context(), bytes.NewReader(archive)); err != nil {
		t.Fatal(err)
	}
	if err := m.Configure(t.Context(), suite.Network); err != nil {
		t.Fatal(err)
	}
	heard := make(chan container.Event, 100)
	defer m.Subscribe(func(e container.Event) { heard <- e })()
	await := func(kind container.EventKind, id string) {
		t.Helper()
		for late := time.After(bound); ; {
			select {
			case e := <-heard:
				if e.Kind == kind && e.ContainerID == id {
					return
				}
			case <-late:
				t.Fatalf("no event %d of %q", kind, id)
			}
		}
	}
	m.sandbox(t, box("p1"))
	m.start(t, m.spec("p1", "c1", "i=0; while :; do echo $i; i=$((i+1)); sleep 0.01; done"))
	m.start(t, m.spec("p1", "c2", "sleep 1000"))
	before, err := m.Containers(t.Context())
	if err != nil {
		t.Fatal(err)
	}

	if err := syscall.Kill(d.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := d.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "what is away says so", func() bool {
		_, err := m.Containers(t.Context())
		return errors.Is(err, container.ErrGone)
	})
	if err := syscall.Kill(int(before[1].PID), syscall.SIGKILL); err != nil { // unseen
		t.Fatal(err)
	}
	lines := len(m.logs.of("c1"))
	eventually(t, "it goes on printing", func() bool { return len(m.logs.of("c1")) > lines })
	if d, err = ctrd.Private(t.Context(), private); err != nil {
		t.Fatal(err)
	}
	await(container.Gap, "")
	after, err := m.Containers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if after[0].PID != before[0].PID || after[0].State != container.Running || !after[0].StartedAt.Equal(before[0].StartedAt) {
		t.Errorf("c1 was %+v, is %+v", before[0], after[0])
	}
	if c := m.ended(t, "c2"); c.ExitCode != 137 {
		t.Errorf("c2, killed meanwhile: %+v", c)
	}
	if err := m.Signal(t.Context(), "c1", syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	await(container.ContainerExited, "c1")
	m.start(t, m.spec("p1", "c3", "true"))
	await(container.ContainerExited, "c3")
}

func TestRemovedBehindItsBack(t *testing.T) {
	m := fresh(t)
	m.sandbox(t, box("p1"))
	m.start(t, m.spec("p1", "c1", "sleep 1000"))
	removed := make(chan string, 10)
	defer m.Subscribe(func(e container.Event) {
		if e.Kind == container.Removed {
			removed <- e.ContainerID
		}
	})()
	ctr := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("ctr", append([]string{"-a", m.config.Address, "-n", m.config.Namespace}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("ctr %v: %v: %s", args, err, out)
		}
	}
	ctr("tasks", "rm", "-f", "c1")
	if c := m.ended(t, "c1"); !c.ExitKnown || c.ExitCode != 137 {
		t.Errorf("its task removed: %+v", c)
	}
	ctr("containers", "rm", "c1")
	select {
	case id := <-removed:
		if id != "c1" {
			t.Errorf("removed: %s", id)
		}
	case <-time.After(bound):
		t.Fatal("not told")
	}
	if _, err := m.Container(t.Context(), "c1"); !errors.Is(err, container.ErrNotFound) {
		t.Errorf("container: %v", err)
	}
	if err := m.Create(t.Context(), m.spec("p1", "c1", "exit 9")); err != nil {
		t.Fatal(err)
	}
	if err := m.Start(t.Context(), "c1"); err != nil {
		t.Fatal(err)
	}
	if c := m.ended(t, "c1"); c.ExitCode != 9 {
		t.Errorf("made again: %+v", c)
	}
	// And what others made in the namespace is seen, so that it can be removed.
	ctr("run", "-d", "docker.io/library/busybox:latest", "stranger", "sleep", "1000")
	all, err := m.Containers(t.Context())
	if err != nil || len(all) != 2 || all[1].ID != "stranger" {
		t.Fatalf("%+v, %v", all, err)
	}
	if err := m.Remove(t.Context(), "stranger"); err != nil {
		t.Fatal(err)
	}
}

func TestShimsComeAndGo(t *testing.T) {
	// The last container of a pod is removed while the next one starts, again and again.
	m := fresh(t)
	m.sandbox(t, box("p1"))
	m.start(t, m.spec("p1", "c0", "sleep 1000"))
	for i := range 20 {
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := m.Remove(t.Context(), fmt.Sprint("c", i)); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			s := m.spec("p1", fmt.Sprint("c", i+1), "sleep 1000")
			err := m.Create(t.Context(), s)
			if err == nil {
				err = m.Start(t.Context(), s.ID)
			}
			if err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
	}
}

func TestSharedProcessIDs(t *testing.T) {
	keeper := filepath.Join(base, "troupe-keeper")
	build := exec.Command("go", "build", "-o", keeper, "github.com/troupe-sh/troupe/cmd/troupe-keeper")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the keeper: %v: %s", err, out)
	}
	m := fresh(t)
	if err := m.Runtime.Close(); err != nil {
		t.Fatal(err)
	}
	m.config.KeeperPath = keeper
	m.Runtime = m.connect(t)
	if err := m.Configure(t.Context(), suite.Network); err != nil {
		t.Fatal(err)
	}
	spec := box("p1")
	spec.SharePID = true
	for range 2 {
		m.sandbox(t, spec)
	}
	m.start(t, m.spec("p1", "c1", "exec sleep 777"))
	out := m.output(t, m.spec("p1", "c2", "cat /proc/1/cmdline | tr '\\0' ' '; ps | grep -c '[s]leep 777'"))
	if out != "/troupe-keeper init 1\n" {
		t.Errorf("seen in c2: %q", out)
	}
	all, err := m.Containers(t.Context())
	if err != nil || len(all) != 1 {
		t.Errorf("containers %+v, %v", all, err)
	}
	removed := make(chan container.Event, 10)
	defer m.Subscribe(func(e container.Event) { removed <- e })()
	if out, err := exec.Command("ctr", "-a", m.config.Address, "-n", m.config.Namespace, "tasks", "kill", "-s", "SIGKILL", "p1-init").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	m.ended(t, "c1")
	eventually(t, "the sandbox is not ready", func() bool {
		boxes, err := m.Sandboxes(t.Context())
		return err == nil && len(boxes) == 1 && !boxes[0].Ready
	})
	m.sandbox(t, spec)
	m.start(t, m.spec("p1", "c3", "sleep 1000"))
}
