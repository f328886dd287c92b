package doctor

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/troupe-sh/troupe/cmd/internal/place"
)

// fit is a machine on which everything is well; a case breaks one thing.
type fit struct {
	files      map[string]string
	programs   map[string]string
	output     string
	outputErr  error
	rooms      map[string]Room
	openFiles  uint64
	root       bool
	namespaces error
	links      error
	nftables   error
	addrs      []netip.Prefix
	now        time.Time
	kept       bool
	listens    error
	containerd string
	connect    error
	agent      Agent
	agentErr   error
}

func well() *fit {
	return &fit{
		files: map[string]string{
			"/proc/self/status":                       "Name:\ttroupe\nCapEff:\t000001ffffffffff\n",
			"/proc/sys/kernel/osrelease":              "6.1.0-18-amd64\n",
			"/sys/fs/cgroup/cgroup.controllers":       "cpuset cpu io memory hugetlb pids rdma misc\n",
			"/proc/filesystems":                       "nodev\tproc\n\text4\nnodev\toverlay\n",
			"/proc/meminfo":                           "MemTotal:        4000000 kB\nMemAvailable:    3000000 kB\n",
			"/proc/sys/fs/inotify/max_user_instances": "8192\n",
			"/proc/sys/kernel/pid_max":                "4194304\n",
			"/proc/sys/kernel/hostname":               "Machine1\n",
			"/etc/resolv.conf":                        "search example.org\nnameserver 192.0.2.53\nnameserver 127.0.0.1\n",
		},
		programs: map[string]string{
			"trouped": "/bin/trouped", "troupe-keeper": "/bin/troupe-keeper", "containerd": "/bin/containerd", "runc": "/bin/runc",
		},
		output: "runc version 1.1.5+ds1\ncommit: 1\n",
		rooms: map[string]Room{
			"/data": {Free: 50 << 30, Total: 100 << 30, FreeFiles: 900, TotalFiles: 1000}, "/run/t": {Free: 1 << 30, Total: 1 << 30},
		},
		openFiles: 1 << 20, root: true,
		addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("2001:db8::1/64")},
		now:   time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC), kept: true,
		containerd: "1.6.20~ds1",
		agent:      Agent{PID: 7, Version: "v1", Node: "n1", Ready: true},
	}
}

func (f *fit) ReadFile(path string) (string, error) {
	text, ok := f.files[path]
	if !ok {
		return "", ErrNotFound
	}
	return text, nil
}

func (f *fit) Program(name string) (string, error) {
	path, ok := f.programs[name]
	if !ok {
		return "", ErrNotFound
	}
	return path, nil
}

func (f *fit) Output(context.Context, string, ...string) (string, error) {
	return f.output, f.outputErr
}

func (f *fit) Room(dir string) (Room, error)                      { return f.rooms[dir], nil }
func (f *fit) OpenFiles() (uint64, error)                         { return f.openFiles, nil }
func (f *fit) Root() bool                                         { return f.root }
func (f *fit) Namespaces() error                                  { return f.namespaces }
func (f *fit) Links() error                                       { return f.links }
func (f *fit) Nftables() error                                    { return f.nftables }
func (f *fit) Addrs() ([]netip.Prefix, error)                     { return f.addrs, nil }
func (f *fit) Now() (time.Time, bool, error)                      { return f.now, f.kept, nil }
func (f *fit) Listens(context.Context, string) error              { return f.listens }
func (f *fit) Containerd(context.Context, string) (string, error) { return f.containerd, f.connect }

func (f *fit) Agent(context.Context, Subject) (Agent, error) { return f.agent, f.agentErr }

var subject = Subject{
	Dirs: place.Dirs{Data: "/data", Run: "/run/t"}, Socket: "/run/t/troupe.sock", PodCIDR: netip.MustParsePrefix("10.244.0.0/16"), Version: "v1",
}

func TestAMachineThatIsFit(t *testing.T) {
	found := Examine(t.Context(), well(), subject)
	if len(found) != len(checks) || !Fit(found) {
		t.Errorf("%d findings, fit %v", len(found), Fit(found))
	}
	for i, f := range found {
		if f.Status != OK || f.Check != checks[i].name || f.Found == "" || f.Remedy != "" {
			t.Errorf("%+v", f)
		}
	}
}

func TestEachCheckFindsWhatIsWrong(t *testing.T) {
	v1 := "cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu,cpuacct 0 0\ncgroup /sys/fs/cgroup/pids cgroup rw,pids 0 0\n"
	failed := map[string]bool{}
	for name, c := range map[string]struct {
		check  string
		status Status
		found  string // part of it
		remedy string // part of it
		broken func(*fit, *Subject)
	}{
		"not root":                   {"rights", Warn, "not root", "as root", func(f *fit, _ *Subject) { f.root = false }},
		"a capability is missing":    {"rights", Fail, "CAP_SYS_ADMIN", "container", func(f *fit, _ *Subject) { f.files["/proc/self/status"] = "CapEff:\t000001ffffdfffff\n" }},
		"CAP_SYS_RESOURCE missing":   {"rights", Warn, "CAP_SYS_RESOURCE", "capability", func(f *fit, _ *Subject) { f.files["/proc/self/status"] = "CapEff:\t000001fffeffffff\n" }},
		"no rights to be read":       {"rights", Warn, "cannot be told", "by hand", func(f *fit, _ *Subject) { f.files["/proc/self/status"] = "nothing" }},
		"an ancient kernel":          {"kernel", Fail, "4.19.0", "newer kernel", func(f *fit, _ *Subject) { f.files["/proc/sys/kernel/osrelease"] = "4.19.0-26-amd64\n" }},
		"an old kernel":              {"kernel", Warn, "5.4.0", "newer kernel", func(f *fit, _ *Subject) { f.files["/proc/sys/kernel/osrelease"] = "5.4.0\n" }},
		"a kernel without a number":  {"kernel", Warn, "cannot be told", "by hand", func(f *fit, _ *Subject) { f.files["/proc/sys/kernel/osrelease"] = "mine\n" }},
		"cgroups v2 without memory":  {"cgroups", Fail, "version 2 without memory", "cgroup_enable=memory", func(f *fit, _ *Subject) { f.files["/sys/fs/cgroup/cgroup.controllers"] = "cpu pids io cpuset" }},
		"cgroups v2 without cpu":     {"cgroups", Fail, "version 2 without cpu", "turn them on", func(f *fit, _ *Subject) { f.files["/sys/fs/cgroup/cgroup.controllers"] = "memory pids" }},
		"cgroups v2 without hugetlb": {"cgroups", OK, "hugetlb", "", func(f *fit, _ *Subject) { f.files["/sys/fs/cgroup/cgroup.controllers"] = "memory pids cpu cpuset io" }},
		"no cgroups": {"cgroups", Fail, "no control groups", "mount", func(f *fit, _ *Subject) {
			delete(f.files, "/sys/fs/cgroup/cgroup.controllers")
			f.files["/proc/self/mounts"] = "proc /proc proc rw 0 0\n"
		}},
		"cgroups v1 without devices": {"cgroups", Fail, "version 1 without devices", "turn them on", func(f *fit, _ *Subject) {
			delete(f.files, "/sys/fs/cgroup/cgroup.controllers")
			f.files["/proc/self/mounts"] = v1
		}},
		"cgroups v1, hybrid": {"cgroups", OK, "version 1, version 2 beside it", "", func(f *fit, _ *Subject) {
			delete(f.files, "/sys/fs/cgroup/cgroup.controllers")
			f.files["/proc/self/mounts"] = v1 + "cgroup /sys/fs/cgroup/devices cgroup rw,devices 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n"
		}},
		"no overlay": {"overlay", Fail, "no overlay", "modprobe", func(f *fit, _ *Subject) { f.files["/proc/filesystems"] = "\text4\n" }},
		"overlay as a module": {"overlay", OK, "module", "", func(f *fit, _ *Subject) {
			f.files["/proc/filesystems"] = "\text4\n"
			f.files["/lib/modules/6.1.0-18-amd64/modules.dep"] = "kernel/fs/overlayfs/overlay.ko:\n"
		}},
		"no namespaces":             {"namespaces", Fail, "make namespaces", "CONFIG_NET_NS", func(f *fit, _ *Subject) { f.namespaces = errors.New("make namespaces: invalid argument") }},
		"no veth":                   {"links", Fail, "not supported", "modprobe veth", func(f *fit, _ *Subject) { f.links = errors.New("not supported") }},
		"links need root":           {"links", Warn, "needs root", "as root", func(f *fit, _ *Subject) { f.links = ErrNotRoot }},
		"no nftables":               {"nftables", Fail, "no such file", "nf_tables", func(f *fit, _ *Subject) { f.nftables = errors.New("make NAT rules: no such file") }},
		"no keeper":                 {"programs", Fail, "troupe-keeper: not there", "PATH", func(f *fit, _ *Subject) { delete(f.programs, "troupe-keeper") }},
		"an old containerd":         {"containerd", Fail, "1.5.9", "newer containerd", func(f *fit, _ *Subject) { f.containerd = "v1.5.9" }},
		"containerd of no version":  {"containerd", Warn, "unknown", "by hand", func(f *fit, _ *Subject) { f.containerd = "unknown" }},
		"no containerd at all":      {"containerd", Fail, "no containerd", "apt-get install containerd", func(f *fit, _ *Subject) { f.connect = ErrNotFound; delete(f.programs, "containerd") }},
		"containerd does not run":   {"containerd", OK, "runs one itself", "", func(f *fit, _ *Subject) { f.connect = ErrNotFound }},
		"containerd does not speak": {"containerd", Warn, "timeout", "systemctl", func(f *fit, _ *Subject) { f.connect = errors.New("timeout") }},
		"the one asked for is away": {"containerd", Fail, "/c.sock: not there", "--containerd", func(f *fit, s *Subject) { f.connect, s.Containerd = ErrNotFound, "/c.sock" }},
		"containerd needs root":     {"containerd", Warn, "needs root", "as root", func(f *fit, _ *Subject) { f.connect = ErrNotRoot }},
		"no runc":                   {"runc", Fail, "runc: not there", "apt-get install runc", func(f *fit, _ *Subject) { delete(f.programs, "runc") }},
		"a broken runc":             {"runc", Fail, "exec format", "--reinstall", func(f *fit, _ *Subject) { f.outputErr = errors.New("exec format error") }},
		"an old runc":               {"runc", Warn, "1.0.2", "newer runc", func(f *fit, _ *Subject) { f.output = "runc version 1.0.2\n" }},
		"a silent runc":             {"runc", Warn, "says nothing", "by hand", func(f *fit, _ *Subject) { f.output = "\n" }},
		"a full disk":               {"disk", Fail, "nothing but deletes", "--data-dir", func(f *fit, _ *Subject) { f.rooms["/data"] = Room{Free: 4 << 30, Total: 100 << 30} }},
		"a nearly full disk":        {"disk", Warn, "fill soon", "--data-dir", func(f *fit, _ *Subject) { f.rooms["/data"] = Room{Free: 1 << 30, Total: 10 << 30} }},
		"no files left": {"disk", Warn, "3 of 1000 files", "small files", func(f *fit, _ *Subject) {
			f.rooms["/data"] = Room{Free: 50 << 30, Total: 100 << 30, FreeFiles: 3, TotalFiles: 1000}
		}},
		"a full run directory":       {"disk", Fail, "/run/t", "--run-dir", func(f *fit, _ *Subject) { f.rooms["/run/t"] = Room{Free: 1 << 20} }},
		"little memory":              {"memory", Warn, "97 MiB", "memory", func(f *fit, _ *Subject) { f.files["/proc/meminfo"] = "MemAvailable: 100000 kB\n" }},
		"hardly any open files":      {"limits", Fail, "512", "LimitNOFILE", func(f *fit, _ *Subject) { f.openFiles = 512 }},
		"few open files":             {"limits", Warn, "4096 open files", "ulimit", func(f *fit, _ *Subject) { f.openFiles = 4096 }},
		"few inotify instances":      {"limits", Warn, "8 inotify", "sysctl -w fs.inotify.max_user_instances=512", func(f *fit, _ *Subject) { f.files["/proc/sys/fs/inotify/max_user_instances"] = "8\n" }},
		"few processes":              {"limits", Warn, "4096 processes", "kernel.pid_max", func(f *fit, _ *Subject) { f.files["/proc/sys/kernel/pid_max"] = "4096\n" }},
		"a clock that never was":     {"clock", Fail, "1970", "set it", func(f *fit, _ *Subject) { f.now = time.Unix(0, 0) }},
		"a clock that nobody keeps":  {"clock", Warn, "nobody", "chrony", func(f *fit, _ *Subject) { f.kept = false }},
		"a name that is none":        {"name", Fail, "my_machine", "--name", func(f *fit, _ *Subject) { f.files["/proc/sys/kernel/hostname"] = "my_machine\n" }},
		"a given name that is none":  {"name", Fail, "A", "--name", func(_ *fit, s *Subject) { s.Name = "A" }},
		"a resolver of its own":      {"resolver", Warn, "127.0.0.53", "systemd-resolved", func(f *fit, _ *Subject) { f.files["/etc/resolv.conf"] = "nameserver 127.0.0.53\n" }},
		"no resolver":                {"resolver", Warn, "names no server", "add", func(f *fit, _ *Subject) { f.files["/etc/resolv.conf"] = "# none\n" }},
		"no resolv.conf":             {"resolver", Warn, "no /etc/resolv.conf", "write one", func(f *fit, _ *Subject) { delete(f.files, "/etc/resolv.conf") }},
		"an address in the way":      {"addresses", Fail, "10.244.7.1/24", "--pod-cidr", func(f *fit, _ *Subject) { f.addrs = append(f.addrs, netip.MustParsePrefix("10.244.7.1/24")) }},
		"pods within a link":         {"addresses", Fail, "10.0.0.1/8", "--pod-cidr", func(f *fit, _ *Subject) { f.addrs = append(f.addrs, netip.MustParsePrefix("10.0.0.1/8")) }},
		"a long socket":              {"socket", Fail, "longer than 107", "--socket", func(_ *fit, s *Subject) { s.Socket = "/" + strings.Repeat("x", 107) }},
		"a free socket":              {"socket", OK, "free", "", func(f *fit, _ *Subject) { f.listens = ErrNotFound }},
		"a socket of another":        {"socket", Fail, "somebody else", "--socket", func(f *fit, _ *Subject) { f.agent = Agent{} }},
		"a socket that is none":      {"socket", Fail, "refused", "remove", func(f *fit, _ *Subject) { f.listens = errors.New("connection refused") }},
		"a socket of root":           {"socket", Warn, "needs root", "as root", func(f *fit, _ *Subject) { f.listens = ErrNotRoot }},
		"no agent":                   {"agent", Warn, "none runs", "troupe up", func(f *fit, _ *Subject) { f.agent, f.listens = Agent{}, ErrNotFound }},
		"an agent that is not Ready": {"agent", Fail, "containerd is away", "describe node n1", func(f *fit, _ *Subject) { f.agent.Ready, f.agent.NotReady = false, "containerd is away" }},
		"an agent that is silent":    {"agent", Fail, "process 7 does not answer: deadline", "/data/trouped.log", func(f *fit, _ *Subject) { f.agentErr = errors.New("deadline") }},
		"an agent of another time":   {"agent", Warn, "the agent is v0 and this command is v1", "troupe down", func(f *fit, _ *Subject) { f.agent.Version = "v0" }},
		"an agent of root":           {"agent", Warn, "needs root", "as root", func(f *fit, _ *Subject) { f.agentErr = ErrNotRoot }},
	} {
		t.Run(name, func(t *testing.T) {
			f, s := well(), subject
			c.broken(f, &s)
			all := Examine(t.Context(), f, s)
			for _, got := range all {
				if got.Check != c.check {
					if got.Status == Fail {
						t.Errorf("also: %+v", got)
					}
					continue
				}
				if got.Status != c.status || !strings.Contains(got.Found, c.found) || !strings.Contains(got.Remedy, c.remedy) || (got.Remedy == "") != (c.status == OK) {
					t.Errorf("%+v", got)
				}
				if strings.Contains(got.Found+got.Remedy, "\n") {
					t.Errorf("more than one line: %+v", got)
				}
			}
			if Fit(all) != (c.status != Fail) {
				t.Errorf("fit: %v", Fit(all))
			}
			if c.status != OK {
				failed[c.check] = true
			}
		})
	}
	for _, c := range checks {
		if !failed[c.name] {
			t.Errorf("nothing makes the check %s complain", c.name)
		}
	}
}
