package sandbox_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/troupe-sh/troupe/runtime/cgroup"
	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/container/suite"
	"github.com/troupe-sh/troupe/runtime/sandbox"
)

func TestMain(m *testing.M) { os.Exit(suite.Isolate(m)) }

var cidr = netip.MustParsePrefix("10.77.0.0/24")

func config(t testing.TB) sandbox.Config {
	dir := t.TempDir()
	return sandbox.Config{
		RunDir: filepath.Join(dir, "run"), DataDir: filepath.Join(dir, "data"),
		CgroupParent: suite.CgroupParent(), Log: slog.New(slog.DiscardHandler),
	}
}

func open(t testing.TB, c sandbox.Config) *sandbox.Store {
	t.Helper()
	s, err := sandbox.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	err = s.Configure(t.Context(), container.Network{
		PodCIDR: cidr, ClusterCIDR: netip.MustParsePrefix("10.77.0.0/16"), ServiceCIDR: netip.MustParsePrefix("10.96.0.0/16"),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		all, err := s.List()
		if err != nil {
			t.Error(err)
		}
		for _, sb := range all {
			if err := s.Remove(context.Background(), sb.ID); err != nil {
				t.Error(err)
			}
		}
		if err := purge(c); err != nil {
			t.Error(err)
		}
	})
	return s
}

// purge undoes what Configure did, and the parent of all groups.
func purge(c sandbox.Config) error {
	return errors.Join(sandbox.Teardown(), cgroup.Remove(c.CgroupParent))
}

func nobody() uint32 { return 0 }

func run(t testing.TB, s *sandbox.Store, spec container.SandboxSpec) container.Sandbox {
	t.Helper()
	sb, err := s.Run(t.Context(), spec, nobody)
	if err != nil {
		t.Fatal(err)
	}
	return sb
}

func spec(id string) container.SandboxSpec {
	return container.SandboxSpec{ID: id, Pod: container.Pod{Namespace: "default", Name: id, UID: id}, Hostname: "host-" + id, QOS: "Burstable"}
}

// inside runs f on a thread in the sandbox's namespaces.
func inside(t testing.TB, p sandbox.Paths, f func() error) error {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends
		for path, flag := range map[string]int{p.Net: unix.CLONE_NEWNET, p.UTS: unix.CLONE_NEWUTS} {
			fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err == nil {
				err = unix.Setns(fd, flag)
				unix.Close(fd)
			}
			if err != nil {
				done <- err
				return
			}
		}
		done <- f()
	}()
	return <-done
}

// listen serves its name on every connection, inside a sandbox.
func listen(t testing.TB, p sandbox.Paths, addr, answer string) {
	t.Helper()
	var l net.Listener
	err := inside(t, p, func() (err error) {
		l, err = net.Listen("tcp4", addr)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprintf(c, "%s to %s", answer, c.RemoteAddr().(*net.TCPAddr).IP)
			c.Close()
		}
	}()
}

func dial(addr string) (string, error) {
	c, err := net.DialTimeout("tcp4", addr, 5*time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	raw, err := io.ReadAll(c)
	return string(raw), err
}

func TestPodsReachEachOtherAndTheMachine(t *testing.T) {
	s := open(t, config(t))
	a, b := run(t, s, spec("a")), run(t, s, spec("b"))
	pa, pb := s.Paths(spec("a")), s.Paths(spec("b"))
	listen(t, pa, ":80", "a")
	listen(t, pb, ":80", "b")
	machine, err := net.Listen("tcp4", "10.77.0.1:90")
	if err != nil {
		t.Fatal(err)
	}
	defer machine.Close()
	go func() {
		for {
			c, err := machine.Accept()
			if err != nil {
				return
			}
			fmt.Fprintf(c, "machine to %s", c.RemoteAddr().(*net.TCPAddr).IP)
			c.Close()
		}
	}()

	if got, err := dial(a.Addr.String() + ":80"); got != "a to 10.77.0.1" {
		t.Errorf("machine → pod: %q, %v", got, err)
	}
	for _, c := range []struct{ who, to, want string }{
		{"pod → pod", b.Addr.String() + ":80", "b to " + a.Addr.String()},
		{"pod → itself", a.Addr.String() + ":80", "a to " + a.Addr.String()},
		{"pod → machine", "10.77.0.1:90", "machine to " + a.Addr.String()},
		{"pod's loopback", "127.0.0.1:80", "a to 127.0.0.1"},
	} {
		var got string
		err := inside(t, pa, func() (err error) { got, err = dial(c.to); return err })
		if err != nil || got != c.want {
			t.Errorf("%s: %q, %v", c.who, got, err)
		}
	}
	// The kernel answers a pod's first few dead packets only, then one a second.
	if _, err := dial("10.77.9.9:80"); !errors.Is(err, unix.EHOSTUNREACH) {
		t.Errorf("machine → another machine's pod that nobody routes: %v, not unreachable", err)
	}
	for _, dead := range []string{"10.96.0.10:80", "10.77.0.200:80"} {
		if _, err := dial(dead); !errors.Is(err, unix.EHOSTUNREACH) {
			t.Errorf("machine → %s: %v, not unreachable", dead, err)
		}
		if err := inside(t, pa, func() error { _, err := dial(dead); return err }); !errors.Is(err, unix.EHOSTUNREACH) {
			t.Errorf("pod → %s: %v, not unreachable", dead, err)
		}
	}
	var name string
	if err := inside(t, pa, func() error {
		var u unix.Utsname
		err := unix.Uname(&u)
		name = unix.ByteSliceToString(u.Nodename[:])
		return err
	}); err != nil || name != "host-a" {
		t.Errorf("host name %q, %v", name, err)
	}
}

func TestFilesOfAPod(t *testing.T) {
	s := open(t, config(t))
	sp := spec("f")
	sp.Domain = "sub.default.svc.cluster.local"
	sp.DNS = container.DNS{Servers: []string{"10.96.0.10"}, Searches: []string{"x", "y"}, Options: []string{"ndots:5"}}
	sp.Hosts = []container.Host{{Addr: netip.MustParseAddr("1.2.3.4"), Names: []string{"foo", "bar"}}}
	sb := run(t, s, sp)
	p := s.Paths(sp)
	for path, want := range map[string]string{
		p.ResolvConf: "search x y\nnameserver 10.96.0.10\noptions ndots:5\n",
		p.Hostname:   "host-f\n",
		p.Hosts: "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n" +
			"fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n" +
			sb.Addr.String() + "\thost-f.sub.default.svc.cluster.local\thost-f\n" +
			"\n# Entries added by HostAliases.\n1.2.3.4\tfoo\tbar\n",
	} {
		if raw, err := os.ReadFile(path); err != nil || string(raw) != want {
			t.Errorf("%s is %q, %v", path, raw, err)
		}
	}
}

func TestRunTwiceAndAfterARestart(t *testing.T) {
	c := config(t)
	s := open(t, c)
	first := run(t, s, spec("a"))
	link, err := netlink.LinkByName(links(t)[0])
	if err != nil {
		t.Fatal(err)
	}
	if again := run(t, s, spec("a")); again != first {
		t.Errorf("run twice: %+v, then %+v", first, again)
	}
	other := open(t, c)
	if again := run(t, other, spec("a")); again != first {
		t.Errorf("after a restart %+v, not %+v", again, first)
	}
	if same, err := netlink.LinkByName(links(t)[0]); err != nil || same.Attrs().Index != link.Attrs().Index {
		t.Errorf("the link was made again: %v, %v", same, err)
	}
	if b := run(t, other, spec("b")); b.Addr == first.Addr {
		t.Errorf("two sandboxes have %v", b.Addr)
	}
}

func TestAnAddressOutsideThePodNetworkIsReplaced(t *testing.T) {
	c := config(t)
	s := open(t, c)
	idle, busy := run(t, s, spec("idle")), run(t, s, spec("busy"))
	later := netip.MustParsePrefix("10.77.9.0/24")
	if err := s.Configure(t.Context(), container.Network{PodCIDR: later, ClusterCIDR: netip.MustParsePrefix("10.77.0.0/16")}); err != nil {
		t.Fatal(err)
	}
	if again, err := s.Run(t.Context(), spec("busy"), func() uint32 { return uint32(os.Getpid()) }); err != nil || again.Addr != busy.Addr {
		t.Errorf("something runs in it: %v, %v; want %v still", again.Addr, err, busy.Addr)
	}
	again := run(t, s, spec("idle"))
	if !later.Contains(again.Addr) || again.Addr == idle.Addr {
		t.Errorf("nothing runs in it: %v, want one of %v", again.Addr, later)
	}
	if all, err := s.List(); err != nil || len(all) != 2 || all[1].Addr != again.Addr || !all[1].Ready {
		t.Errorf("listed %+v, %v", all, err)
	}
	err := inside(t, s.Paths(spec("idle")), func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		addrs, err := netlink.AddrList(link, netlink.FAMILY_V4)
		if err == nil && (len(addrs) != 1 || addrs[0].IP.String() != again.Addr.String()) {
			err = fmt.Errorf("eth0 has %v", addrs)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// links are the machine's ends of pairs.
func links(t *testing.T) []string {
	t.Helper()
	all, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, l := range all {
		if l.Type() == "veth" {
			names = append(names, l.Attrs().Name)
		}
	}
	return names
}

func TestMending(t *testing.T) {
	for _, c := range []struct {
		what string
		harm func(sandbox.Paths) error
	}{
		{"network pin unmounted", func(p sandbox.Paths) error { return unix.Unmount(p.Net, unix.MNT_DETACH) }},
		{"IPC pin unmounted", func(p sandbox.Paths) error { return unix.Unmount(p.IPC, unix.MNT_DETACH) }},
		{"UTS pin unmounted and removed", func(p sandbox.Paths) error {
			return errors.Join(unix.Unmount(p.UTS, unix.MNT_DETACH), os.Remove(p.UTS))
		}},
		{"shm unmounted", func(p sandbox.Paths) error { return unix.Unmount(p.Shm, unix.MNT_DETACH) }},
		{"link removed", func(p sandbox.Paths) error {
			l, err := netlink.LinkByName(links(t)[0])
			return errors.Join(err, netlink.LinkDel(l))
		}},
		{"link renamed", func(p sandbox.Paths) error {
			l, err := netlink.LinkByName(links(t)[0])
			return errors.Join(err, netlink.LinkSetDown(l), netlink.LinkSetName(l, "stolen"), netlink.LinkSetUp(l))
		}},
		{"route removed", func(p sandbox.Paths) error {
			return exec.Command("ip", "route", "del", "10.77.0.2").Run()
		}},
		{"control group removed", func(p sandbox.Paths) error { return cgroup.Remove(p.Cgroup) }},
		{"hosts file removed", func(p sandbox.Paths) error { return os.Remove(p.Hosts) }},
		{"reboot", func(p sandbox.Paths) error {
			l, err := netlink.LinkByName(links(t)[0])
			return errors.Join(err, netlink.LinkDel(l),
				unix.Unmount(p.Net, 0), unix.Unmount(p.IPC, 0), unix.Unmount(p.UTS, 0), unix.Unmount(p.Shm, 0),
				os.RemoveAll(filepath.Dir(p.Net)))
		}},
	} {
		t.Run(c.what, func(t *testing.T) {
			s := open(t, config(t))
			before := run(t, s, spec("a"))
			p := s.Paths(spec("a"))
			if err := c.harm(p); err != nil {
				t.Fatal(err)
			}
			all, err := s.List()
			if err != nil || len(all) != 1 || all[0].Ready {
				t.Errorf("broken: %+v, %v", all, err)
			}
			if after := run(t, s, spec("a")); after != before {
				t.Errorf("mended: %+v, before %+v", after, before)
			}
			if all, err := s.List(); err != nil || len(all) != 1 || !all[0].Ready {
				t.Errorf("mended: %+v, %v", all, err)
			}
			listen(t, p, ":80", "a")
			if got, err := dial(before.Addr.String() + ":80"); got != "a to 10.77.0.1" {
				t.Errorf("machine → mended pod: %q, %v", got, err)
			}
		})
	}
}

func TestALostPinComesBackFromALivingProcess(t *testing.T) {
	s := open(t, config(t))
	run(t, s, spec("a"))
	p := s.Paths(spec("a"))
	cmd := exec.Command("nsenter", "--net="+p.Net, "--ipc="+p.IPC, "--uts="+p.UTS, "sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	inode := func(path string) uint64 {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			t.Fatal(err)
		}
		return st.Ino
	}
	before := inode(p.Net)
	for deadline := time.Now().Add(10 * time.Second); inode(fmt.Sprintf("/proc/%d/ns/uts", cmd.Process.Pid)) != inode(p.UTS); {
		if time.Now().After(deadline) {
			t.Fatal("nsenter never joined")
		}
	}
	for _, path := range []string{p.Net, p.IPC, p.UTS} {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Run(t.Context(), spec("a"), func() uint32 { return uint32(cmd.Process.Pid) }); err != nil {
		t.Fatal(err)
	}
	if after := inode(p.Net); after != before {
		t.Errorf("network namespace %d, was %d", after, before)
	}
}

func TestRemovalLeavesNothing(t *testing.T) {
	c := config(t)
	s := open(t, c)
	sp := spec("a")
	sp.HostPorts = []container.HostPort{{Protocol: "TCP", HostPort: 8080, ContainerPort: 80}}
	run(t, s, sp)
	for range 2 {
		if err := s.Remove(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
	}
	if left := links(t); len(left) > 0 {
		t.Errorf("links left: %v", left)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), c.RunDir) {
		t.Errorf("mounts left under %s:\n%s", c.RunDir, mounts)
	}
	for _, dir := range []string{c.RunDir + "/netns", c.DataDir + "/pods"} {
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("left in %s: %v, %v", dir, left, err)
		}
	}
	if pods, err := cgroup.Pods(c.CgroupParent); err != nil || len(pods) > 0 {
		t.Errorf("control groups left: %v, %v", pods, err)
	}
	if out, err := exec.Command("nft", "list", "tables").Output(); err != nil || len(out) > 0 {
		t.Errorf("tables left: %s, %v", out, err)
	}
	if all, err := s.List(); err != nil || len(all) > 0 {
		t.Errorf("listed: %v, %v", all, err)
	}
}

func TestHalfMadeIsListedAndRemoved(t *testing.T) {
	c := config(t)
	open(t, c)
	if err := os.MkdirAll(c.RunDir+"/netns/x1", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := cgroup.Make(cgroup.Path(c.CgroupParent, "Guaranteed", "x2"), container.Resources{}); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("x3", c.DataDir+"/addresses/10.77.0.50"); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(c.DataDir+"/pods/volumes-only/volumes", 0o755); err != nil {
		t.Fatal(err)
	}
	s := open(t, c)
	all, err := s.List()
	if err != nil || len(all) != 3 {
		t.Fatalf("%+v, %v", all, err)
	}
	for i, sb := range all {
		if sb.ID != fmt.Sprintf("x%d", i+1) || sb.Ready {
			t.Errorf("%+v", sb)
		}
		if err := s.Remove(t.Context(), sb.ID); err != nil {
			t.Error(err)
		}
	}
	if all, err := s.List(); err != nil || len(all) > 0 {
		t.Errorf("%+v, %v", all, err)
	}
}

func TestHostPorts(t *testing.T) {
	s := open(t, config(t))
	for i, id := range []string{"a", "b"} {
		sp := spec(id)
		sp.HostPorts = []container.HostPort{{Protocol: "TCP", HostPort: uint16(8080 + i), ContainerPort: 80}}
		run(t, s, sp)
		listen(t, s.Paths(sp), ":80", id)
	}
	check := func(when string, want map[string]string) {
		t.Helper()
		for to, want := range want {
			if got, err := dial(to); got != want {
				t.Errorf("%s: %s: %q, %v", when, to, got, err)
			}
		}
	}
	both := map[string]string{
		"127.0.0.1:8080": "a to 10.77.0.1", "10.77.0.1:8080": "a to 10.77.0.1", "10.77.0.1:8081": "b to 10.77.0.1",
	}
	check("both", both)
	var got string
	if err := inside(t, s.Paths(spec("a")), func() (err error) { got, err = dial("10.77.0.1:8080"); return err }); err != nil || !strings.HasPrefix(got, "a to ") {
		t.Errorf("pod → its own host port: %q, %v", got, err)
	}
	if err := inside(t, s.Paths(spec("a")), func() (err error) { got, err = dial("10.77.0.1:8081"); return err }); err != nil || got != "b to 10.77.0.2" {
		t.Errorf("pod → other's host port: %q, %v", got, err)
	}
	if out, err := exec.Command("nft", "flush", "chain", "ip", "troupe-hostports", "ports").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for i, id := range []string{"a", "b"} {
		sp := spec(id)
		sp.HostPorts = []container.HostPort{{Protocol: "TCP", HostPort: uint16(8080 + i), ContainerPort: 80}}
		run(t, s, sp)
	}
	check("repaired", both)
	if err := s.Remove(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := dial("10.77.0.1:8080"); err == nil {
		t.Error("the port of a removed pod answers")
	}
	check("one left", map[string]string{"10.77.0.1:8081": "b to 10.77.0.1"})
}

func TestAddressesRunOutClearly(t *testing.T) {
	c := config(t)
	s, err := sandbox.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		all, err := s.List()
		for _, sb := range all {
			err = errors.Join(err, s.Remove(context.Background(), sb.ID))
		}
		if err := errors.Join(err, purge(c)); err != nil {
			t.Error(err)
		}
		s.Close()
	})
	if err := s.Configure(t.Context(), container.Network{PodCIDR: netip.MustParsePrefix("10.77.1.0/29")}); err != nil {
		t.Fatal(err)
	}
	got := map[netip.Addr]bool{}
	for i := range 5 {
		got[run(t, s, spec(fmt.Sprint("p", i))).Addr] = true
	}
	if len(got) != 5 {
		t.Errorf("addresses %v", got)
	}
	if err := s.Remove(t.Context(), "p0"); err != nil {
		t.Fatal(err)
	}
	_, err = s.Run(t.Context(), spec("p5"), nobody)
	if !errors.Is(err, container.ErrBusy) || !strings.Contains(err.Error(), "10.77.1.0/29") {
		t.Errorf("a sixth pod within the minute: %v", err)
	}
}

func TestSysctlsOfThePodOnly(t *testing.T) {
	s := open(t, config(t))
	sp := spec("a")
	sp.Sysctls = map[string]string{"net.core.somaxconn": "77", "kernel.shm_rmid_forced": "1"}
	run(t, s, sp)
	var got []byte
	if err := inside(t, s.Paths(sp), func() (err error) { got, err = os.ReadFile("/proc/sys/net/core/somaxconn"); return err }); err != nil || string(got) != "77\n" {
		t.Errorf("somaxconn of the pod %q, %v", got, err)
	}
	if own, err := os.ReadFile("/proc/sys/net/core/somaxconn"); err != nil || string(own) == "77\n" {
		t.Errorf("somaxconn of the machine %q, %v", own, err)
	}
	for _, key := range []string{"vm.swappiness", "net.../../vm.swappiness", "kernel.hostname"} {
		sp := spec("b")
		sp.Sysctls = map[string]string{key: "1"}
		if _, err := s.Run(t.Context(), sp, nobody); !errors.Is(err, container.ErrInvalid) {
			t.Errorf("%s: %v", key, err)
		}
	}
}

func TestHostNetwork(t *testing.T) {
	s := open(t, config(t))
	sp := spec("h")
	sp.HostNetwork = true
	if sb := run(t, s, sp); sb.Addr.IsValid() || !sb.Ready {
		t.Errorf("%+v", sb)
	}
	if left := links(t); len(left) > 0 {
		t.Errorf("links %v", left)
	}
}

func TestManyAtOnce(t *testing.T) {
	s := open(t, config(t))
	var wg sync.WaitGroup
	addrs := make([]netip.Addr, 50)
	for i := range addrs {
		wg.Go(func() {
			sb, err := s.Run(t.Context(), spec(fmt.Sprint("m", i)), nobody)
			if err != nil {
				t.Error(err)
			}
			addrs[i] = sb.Addr
		})
	}
	wg.Wait()
	seen := map[netip.Addr]bool{}
	for _, a := range addrs {
		seen[a] = true
	}
	if len(seen) != len(addrs) {
		t.Errorf("%d addresses for %d sandboxes", len(seen), len(addrs))
	}
	all, err := s.List()
	if err != nil || len(all) != len(addrs) {
		t.Errorf("%d listed, %v", len(all), err)
	}
	for _, sb := range all {
		if !sb.Ready {
			t.Errorf("%s is not ready", sb.ID)
		}
	}
}

func BenchmarkSandbox(b *testing.B) {
	s := open(b, config(b))
	var i int
	var run, remove time.Duration
	for b.Loop() {
		sp := spec(fmt.Sprint("bench", i))
		i++
		t0 := time.Now()
		if _, err := s.Run(b.Context(), sp, nobody); err != nil {
			b.Fatal(err)
		}
		t1 := time.Now()
		if err := s.Remove(b.Context(), sp.ID); err != nil {
			b.Fatal(err)
		}
		run, remove = run+t1.Sub(t0), remove+time.Since(t1)
	}
	b.ReportMetric(float64(run.Microseconds())/1000/float64(i), "ms/run")
	b.ReportMetric(float64(remove.Microseconds())/1000/float64(i), "ms/remove")
}

func TestAStrayIsToldOfOnce(t *testing.T) {
	c := config(t)
	var log bytes.Buffer
	c.Log = slog.New(slog.NewTextHandler(&log, nil))
	s := open(t, c)
	for _, dir := range []string{filepath.Join(c.RunDir, "netns", ".stray"), filepath.Join(c.DataDir, "pods", "a--b")} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		if all, err := s.List(); err != nil || len(all) > 0 {
			t.Errorf("listed %+v, %v", all, err)
		}
	}
	if got := log.String(); strings.Count(got, "name=.stray") != 1 || strings.Count(got, "name=a--b") != 1 {
		t.Errorf("log:\n%s", got)
	}
}
