package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/version"
)

// checks are what makes a machine fit, what everything else needs first.
var checks = []check{
	{"rights", rights},
	{"kernel", kernel},
	{"cgroups", cgroups},
	{"overlay", overlay},
	{"namespaces", namespaces},
	{"links", linkPairs},
	{"nftables", natRules},
	{"programs", programs},
	{"containerd", containerdAnswers},
	{"runc", runc},
	{"disk", disk},
	{"memory", memory},
	{"limits", limits},
	{"clock", clock},
	{"name", name},
	{"resolver", resolver},
	{"addresses", addresses},
	{"socket", socket},
	{"agent", agentReady},
}

// needed are the capabilities without which an agent cannot make pods.
var needed = map[string]int{
	"CAP_CHOWN": unix.CAP_CHOWN, "CAP_DAC_OVERRIDE": unix.CAP_DAC_OVERRIDE, "CAP_KILL": unix.CAP_KILL, "CAP_MKNOD": unix.CAP_MKNOD,
	"CAP_NET_ADMIN": unix.CAP_NET_ADMIN, "CAP_SETGID": unix.CAP_SETGID, "CAP_SETUID": unix.CAP_SETUID,
	"CAP_SYS_ADMIN": unix.CAP_SYS_ADMIN, "CAP_SYS_CHROOT": unix.CAP_SYS_CHROOT, "CAP_SYS_PTRACE": unix.CAP_SYS_PTRACE,
}

func rights(_ context.Context, e *examination) Finding {
	if !e.Root() {
		return warn("not root: an agent needs to be, and some checks do", `run "troupe doctor" as root`)
	}
	status, err := e.ReadFile("/proc/self/status")
	if err != nil {
		return unknown(err)
	}
	mask, err := strconv.ParseUint(field(status, "CapEff:"), 16, 64)
	if err != nil {
		return unknown(fmt.Errorf("/proc/self/status: CapEff: %w", err))
	}
	var missing []string
	for name, bit := range needed {
		if mask&(1<<bit) == 0 {
			missing = append(missing, name)
		}
	}
	slices.Sort(missing)
	switch {
	case len(missing) > 0:
		return fail("root without "+strings.Join(missing, ", "), "run it where root has these: not in a container without them, nor under a systemd unit that drops them")
	case mask&(1<<unix.CAP_SYS_RESOURCE) == 0:
		return warn("root without CAP_SYS_RESOURCE: containers get no OOM score below the agent's, nor higher limits than its own",
			"run it where root has this capability")
	}
	return ok("root, with all capabilities that are needed")
}

// field is what follows a key in a file of keys and values, a line each.
func field(text, key string) string {
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == key {
			return f[1]
		}
	}
	return ""
}

var (
	oldestKernel = version.MustParseGeneric("5.4")  // pidfds, and what nftables needs
	niceKernel   = version.MustParseGeneric("5.10") // the oldest that a distribution with our containerd has
)

func kernel(_ context.Context, e *examination) Finding {
	release, err := e.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return unknown(err)
	}
	release = strings.TrimSpace(release)
	v, err := version.ParseGeneric(release)
	switch {
	case err != nil:
		return unknown(fmt.Errorf("the kernel's version %q: %w", release, err))
	case v.LessThan(oldestKernel):
		return fail("Linux "+release+": older than "+oldestKernel.String(), "install a newer kernel")
	case v.LessThan(niceKernel):
		return warn("Linux "+release+": older than "+niceKernel.String()+", which nobody tests", "install a newer kernel")
	}
	return ok("Linux " + release)
}

func cgroups(_ context.Context, e *examination) Finding {
	text, err := e.ReadFile("/sys/fs/cgroup/cgroup.controllers")
	if err == nil {
		return controllers("version 2", strings.Fields(text), []string{"cpu", "memory", "pids"}, []string{"cpuset", "hugetlb", "io"})
	}
	if !errors.Is(err, ErrNotFound) {
		return unknown(err)
	}
	mounts, err := e.ReadFile("/proc/self/mounts")
	if err != nil {
		return unknown(err)
	}
	var have []string
	hybrid := ""
	for line := range strings.Lines(mounts) {
		f := strings.Fields(line)
		if len(f) < 4 || !strings.HasPrefix(f[1], "/sys/fs/cgroup") {
			continue
		}
		switch f[2] {
		case "cgroup":
			have = append(have, strings.Split(f[3], ",")...)
		case "cgroup2":
			hybrid = ", version 2 beside it"
		}
	}
	if len(have) == 0 {
		return fail("no control groups under /sys/fs/cgroup", "mount cgroup2 there: mount -t cgroup2 none /sys/fs/cgroup")
	}
	return controllers("version 1"+hybrid, have, []string{"cpu", "cpuacct", "devices", "memory", "pids"}, []string{"blkio", "cpuset", "freezer", "hugetlb"})
}

func controllers(what string, have, needed, nice []string) Finding {
	without := func(wanted []string) (missing []string) {
		for _, c := range wanted {
			if !slices.Contains(have, c) {
				missing = append(missing, c)
			}
		}
		return missing
	}
	if missing := without(needed); len(missing) > 0 {
		remedy := "turn them on: they are in the kernel's configuration, and what they are called on its command line is in its documentation"
		if slices.Contains(missing, "memory") {
			remedy = "boot with cgroup_enable=memory on the kernel's command line"
		}
		return fail(what+" without "+strings.Join(missing, ", "), remedy)
	}
	if missing := without(nice); len(missing) > 0 {
		return ok(what + "; not there, and only for pods that ask for it: " + strings.Join(missing, ", "))
	}
	return ok(what + " with all controllers")
}

func overlay(_ context.Context, e *examination) Finding {
	known, err := e.ReadFile("/proc/filesystems")
	if err != nil {
		return unknown(err)
	}
	for line := range strings.Lines(known) {
		if f := strings.Fields(line); len(f) > 0 && f[len(f)-1] == "overlay" {
			return ok("the kernel has overlay file systems")
		}
	}
	release, err := e.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return unknown(err)
	}
	modules, err := e.ReadFile("/lib/modules/" + strings.TrimSpace(release) + "/modules.dep")
	if err == nil && strings.Contains(modules, "/overlay.ko") {
		return ok("overlay file systems are a module that is loaded when it is needed")
	}
	return fail("the kernel has no overlay file systems, which containers have their root on", "modprobe overlay, or take a kernel with CONFIG_OVERLAY_FS")
}

func namespaces(_ context.Context, e *examination) Finding {
	return tried(e.Namespaces(), "network, IPC and UTS namespaces can be made",
		"take a kernel with CONFIG_NET_NS, CONFIG_IPC_NS and CONFIG_UTS_NS; in a container, run it with --privileged")
}

func linkPairs(_ context.Context, e *examination) Finding {
	return tried(e.Links(), "pairs of links can be made", "modprobe veth, or take a kernel with CONFIG_VETH")
}

func natRules(_ context.Context, e *examination) Finding {
	return tried(e.Nftables(), "nftables take NAT rules",
		"modprobe nf_tables nft_chain_nat nft_masq nft_nat, or take a kernel with CONFIG_NF_TABLES, CONFIG_NFT_NAT and CONFIG_NFT_MASQ")
}

func tried(err error, well, remedy string) Finding {
	switch {
	case err == nil:
		return ok(well)
	case errors.Is(err, ErrNotRoot):
		return unknown(err)
	}
	return fail(err.Error(), remedy)
}

func programs(_ context.Context, e *examination) Finding {
	for _, p := range []string{"trouped", "troupe-keeper"} {
		if _, err := e.Program(p); err != nil {
			return fail(fmt.Sprintf("%s: %v", p, err), "put trouped and troupe-keeper into the directory of troupe, or on the PATH")
		}
	}
	return ok("trouped and troupe-keeper")
}

// machineContainerd is where a machine's own containerd listens.
const machineContainerd = "/run/containerd/containerd.sock"

var oldestContainerd = version.MustParseGeneric("1.6")

func containerdAnswers(ctx context.Context, e *examination) Finding {
	asked := e.Subject.Containerd
	address := asked
	if address == "" {
		address = machineContainerd
	}
	said, err := e.Probe.Containerd(ctx, address)
	if err == nil {
		v, err := version.ParseGeneric(strings.TrimPrefix(said, "v"))
		switch {
		case err != nil:
			return unknown(fmt.Errorf("the version %q of containerd at %s: %w", said, address, err))
		case v.LessThan(oldestContainerd):
			return fail(fmt.Sprintf("containerd %s at %s: older than %s", said, address, oldestContainerd), "install a newer containerd")
		}
		return ok(fmt.Sprintf("containerd %s at %s", said, address))
	}
	if errors.Is(err, ErrNotRoot) {
		return unknown(err)
	}
	if asked != "" {
		return fail(fmt.Sprintf("%s: %v", asked, err), "start that containerd, or leave --containerd out: then the agent runs one itself")
	}
	path, missing := e.Program("containerd")
	switch {
	case missing != nil && errors.Is(err, ErrNotFound):
		return fail("no containerd runs or is installed", "install one: apt-get install containerd")
	case missing != nil:
		return fail(fmt.Sprintf("%s: %v", address, err), "see what ails that containerd: systemctl status containerd")
	case !errors.Is(err, ErrNotFound):
		return warn(fmt.Sprintf("%s: %v; the agent runs one of its own", address, err), "see what ails that containerd: systemctl status containerd")
	}
	return ok(path + ": the machine's own does not run, the agent runs one itself")
}

var oldestRunc = version.MustParseGeneric("1.1")

func runc(ctx context.Context, e *examination) Finding {
	path, err := e.Program("runc")
	if err != nil {
		return fail("runc: "+err.Error(), "install it: apt-get install runc")
	}
	said, err := e.Output(ctx, path, "--version")
	if err != nil {
		return fail(fmt.Sprintf("%s --version: %v", path, err), "install it again: apt-get install --reinstall runc")
	}
	first, _, _ := strings.Cut(said, "\n")
	f := strings.Fields(first)
	if len(f) == 0 {
		return unknown(fmt.Errorf("%s --version says nothing", path))
	}
	v, err := version.ParseGeneric(f[len(f)-1])
	switch {
	case err != nil:
		return unknown(fmt.Errorf("%s --version: %q: %w", path, first, err))
	case v.LessThan(oldestRunc):
		return warn(first+": older than "+oldestRunc.String()+", which nobody tests", "install a newer runc")
	}
	return ok(first)
}

const (
	mib = 1 << 20
	// The journal takes nothing but deletes below that (cluster/journal/raftlog).
	roomLeast, roomLeastShare = 256 * mib, 5
	roomNice, roomNiceShare   = 2048 * mib, 15
	runLeast                  = 16 * mib
	filesNiceShare            = 5
)

func disk(_ context.Context, e *examination) Finding {
	data, err := e.Room(e.Dirs.Data)
	if err != nil {
		return unknown(err)
	}
	run, err := e.Room(e.Dirs.Run)
	if err != nil {
		return unknown(err)
	}
	found := fmt.Sprintf("%d MiB of %d free for %s", data.Free/mib, data.Total/mib, e.Dirs.Data)
	const remedy = "make room there, or choose another place with --data-dir"
	switch {
	case data.Free < max(roomLeast, data.Total/100*roomLeastShare):
		return fail(fmt.Sprintf("%s: below %d MiB or %d %% nothing but deletes is taken", found, roomLeast/mib, roomLeastShare), remedy)
	case run.Free < runLeast:
		return fail(fmt.Sprintf("%d MiB free for %s", run.Free/mib, e.Dirs.Run), "make room there, or choose another place with --run-dir")
	case data.Free < min(roomNice, data.Total/100*roomNiceShare):
		return warn(found+", which images fill soon", remedy)
	case data.TotalFiles > 0 && data.FreeFiles < data.TotalFiles/100*filesNiceShare:
		return warn(fmt.Sprintf("%d of %d files left for %s", data.FreeFiles, data.TotalFiles, e.Dirs.Data), "remove small files there, or choose another place with --data-dir")
	}
	return ok(found)
}

const memoryNice = 256 * mib

func memory(_ context.Context, e *examination) Finding {
	text, err := e.ReadFile("/proc/meminfo")
	if err != nil {
		return unknown(err)
	}
	kib, err := strconv.ParseUint(field(text, "MemAvailable:"), 10, 64)
	if err != nil {
		return unknown(fmt.Errorf("/proc/meminfo: MemAvailable: %w", err))
	}
	found := fmt.Sprintf("%d MiB available", kib/1024)
	if kib<<10 < memoryNice {
		return warn(found+": the agent alone takes up to 80", "end something else, or give the machine more memory")
	}
	return ok(found)
}

const (
	filesLeast, filesNice = 1024, 65536
	inotifyNice           = 128
	pidsNice              = 32768
)

func limits(_ context.Context, e *examination) Finding {
	files, err := e.OpenFiles()
	if err != nil {
		return unknown(err)
	}
	if files < filesLeast {
		return fail(fmt.Sprintf("at most %d open files", files), "raise it: ulimit -Hn 1048576, or LimitNOFILE=1048576 in a systemd unit")
	}
	var low, raise []string
	if files < filesNice {
		low, raise = append(low, fmt.Sprintf("at most %d open files, enough for some %d pods", files, files/20)), append(raise, "ulimit -Hn 1048576")
	}
	for _, s := range []struct {
		file, key, what string
		nice            int64
	}{
		{"/proc/sys/fs/inotify/max_user_instances", "fs.inotify.max_user_instances", "inotify instances", inotifyNice},
		{"/proc/sys/kernel/pid_max", "kernel.pid_max", "processes", pidsNice},
	} {
		text, err := e.ReadFile(s.file)
		if err != nil {
			return unknown(err)
		}
		n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
		if err != nil {
			return unknown(fmt.Errorf("%s: %w", s.file, err))
		}
		if n < s.nice {
			low, raise = append(low, fmt.Sprintf("at most %d %s", n, s.what)), append(raise, fmt.Sprintf("sysctl -w %s=%d", s.key, 4*s.nice))
		}
	}
	if len(low) > 0 {
		return warn(strings.Join(low, "; "), strings.Join(raise, "; "))
	}
	return ok(fmt.Sprintf("%d open files", files))
}

// earliest is before any release of this program: a clock that says so is wrong.
var earliest = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func clock(_ context.Context, e *examination) Finding {
	const remedy = "set it, and keep it right: apt-get install systemd-timesyncd, or chrony"
	now, synchronised, err := e.Now()
	said := now.UTC().Format(time.RFC3339)
	switch {
	case now.Before(earliest):
		return fail("the clock says "+said, remedy)
	case err != nil:
		return unknown(err)
	case !synchronised:
		return warn(said+", and nobody keeps it right", remedy)
	}
	return ok(said + ", synchronised")
}

func name(_ context.Context, e *examination) Finding {
	node := e.Name
	if node == "" {
		host, err := e.ReadFile("/proc/sys/kernel/hostname")
		if err != nil {
			return unknown(err)
		}
		node = strings.ToLower(strings.TrimSpace(host))
	}
	if errs := validation.IsDNS1123Subdomain(node); len(errs) > 0 {
		return fail(fmt.Sprintf("%q cannot be a node's name: %s", node, strings.Join(errs, "; ")), "give one with --name, or change the host's")
	}
	return ok(node)
}

func resolver(_ context.Context, e *examination) Finding {
	text, err := e.ReadFile("/etc/resolv.conf")
	if errors.Is(err, ErrNotFound) {
		return warn("no /etc/resolv.conf: pods with the DNS policy Default resolve no names", "write one, with a nameserver that pods can reach")
	}
	if err != nil {
		return unknown(err)
	}
	var servers, own []string
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "nameserver" {
			continue
		}
		servers = append(servers, f[1])
		if a, err := netip.ParseAddr(f[1]); err == nil && a.IsLoopback() {
			own = append(own, f[1])
		}
	}
	switch {
	case len(servers) == 0:
		return warn("/etc/resolv.conf names no server: pods with the DNS policy Default resolve no names", "add a nameserver that pods can reach")
	case len(own) == len(servers):
		return warn("/etc/resolv.conf names only "+strings.Join(own, ", ")+", which is another machine to a pod: those with the DNS policy Default resolve no names",
			"name a server that pods can reach; with systemd-resolved, link /etc/resolv.conf to /run/systemd/resolve/resolv.conf")
	}
	return ok(strings.Join(servers, ", "))
}

func addresses(_ context.Context, e *examination) Finding {
	all, err := e.Addrs()
	if err != nil {
		return unknown(err)
	}
	for _, a := range all {
		if a.Masked().Overlaps(e.PodCIDR) {
			return fail(fmt.Sprintf("the machine has the address %s, and pods get theirs of %s", a, e.PodCIDR), "give pods others with --pod-cidr")
		}
	}
	return ok("no address of this machine is in the way of the pods' " + e.PodCIDR.String())
}

// longestSocket is what the kernel takes as a unix socket's path.
const longestSocket = 107

func socket(ctx context.Context, e *examination) Finding {
	if len(e.Socket) > longestSocket {
		return fail(fmt.Sprintf("%s: longer than %d characters, which the kernel does not take", e.Socket, longestSocket), "name a shorter one with --socket, or a shorter --run-dir")
	}
	err := e.Listens(ctx, e.Socket)
	switch {
	case errors.Is(err, ErrNotFound):
		return ok(e.Socket + " is free")
	case errors.Is(err, ErrNotRoot):
		return unknown(err)
	case err != nil:
		return fail(fmt.Sprintf("%s: %v", e.Socket, err), "remove what is there: an agent listens at that path")
	case e.agent.PID == 0:
		return fail(e.Socket+": somebody else listens there, no agent with the run directory "+e.Dirs.Run, "name another with --socket, or look at the agent that is there with its --run-dir")
	}
	return ok(fmt.Sprintf("%s: the agent, process %d", e.Socket, e.agent.PID))
}

func agentReady(_ context.Context, e *examination) Finding {
	a := e.agent
	log := filepath.Join(e.Dirs.Data, "trouped.log")
	switch {
	case errors.Is(e.agentErr, ErrNotRoot):
		return unknown(e.agentErr)
	case e.agentErr != nil && a.PID == 0:
		return unknown(e.agentErr)
	case e.agentErr != nil:
		return fail(fmt.Sprintf("process %d does not answer: %v", a.PID, e.agentErr), "look at its log, "+log)
	case a.PID == 0:
		return warn("none runs with the run directory "+e.Dirs.Run, `start one: troupe up --detach`)
	case !a.Ready:
		return fail(fmt.Sprintf("process %d runs, but node %s is not Ready: %s", a.PID, a.Node, a.NotReady), fmt.Sprintf("troupe describe node %s; the agent's log is %s", a.Node, log))
	case a.Version != e.Version:
		return warn(fmt.Sprintf("node %s is Ready, but the agent is %s and this command is %s", a.Node, a.Version, e.Version), "start it anew: troupe down; troupe up --detach")
	}
	return ok(fmt.Sprintf("process %d, node %s is Ready", a.PID, a.Node))
}
